"""A whole site on loopback: the plant, every device's server at the address the site file gives it, and faults."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from config.addresses import MachineAddress
from config.addresses import machines as addresses_of
from config.devices import Device, Link, MinerGroup
from config.nodes import Switch
from config.site import Site
from drivers.modbus.url import parse_url
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile, RelayProfile
from drivers.snmp.credentials import Community, User, credentials_from_text
from drivers.snmp.profile import load_pdu_profile
from simulator.adapters import PlantMachine, PlantPdu
from simulator.curve import memory_of
from simulator.devices.asic import AsicServer, StockAntminer
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import ModbusTcpServer, Unit
from simulator.devices.relay import RelayUnit
from simulator.devices.snmp_pdu import SnmpPduAgent
from simulator.faults import DeviceFaults, Faults, Parameter
from simulator.fleet.kinds import KINDS
from simulator.latencies import Latencies, load_latencies
from simulator.loopback import Endpoint, SimulationError, host_port, refuse_foreign_addresses
from simulator.plant import Plant

__all__ = ["SimulatedSite", "SimulationError"]

log = structlog.get_logger(__name__)

SECRET_LIMIT_BYTES = 4096


class SimulatedSite:
    """One site's plant and servers.

    Args:
        site: a checked site file whose addresses all lie on loopback.
        time_scale: machine delays and ramps are divided by it; registers, switches and clocks run in real time.
        seed: of all randomness; equal seeds give equal plants.
        latencies: delays of machines and switches; the packaged ones by default.
        step_s: period of the plant's steps. Switches move at exact times whatever it is.
        base_dir: where relative secret files of the site file are looked for.
        ephemeral: bind every server to a free port instead of the site file's; see :attr:`addresses`.
        clock: monotonic seconds.
        wall_ms: UTC milliseconds, for meters that show a clock.

    Use ``await start()``, then :attr:`plant` and :attr:`faults`, then ``await stop()``.
    """

    def __init__(
        self,
        site: Site,
        *,
        time_scale: float = 1.0,
        seed: int = 0,
        latencies: Latencies | None = None,
        step_s: float = 0.1,
        base_dir: Path | None = None,
        ephemeral: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.site = site
        self.time_scale = time_scale
        self._step_s = step_s
        self._base_dir = base_dir or Path()
        self._ephemeral = ephemeral
        self._clock = clock
        self._wall_ms = wall_ms
        refuse_foreign_addresses(site)
        latencies = latencies or load_latencies()
        for group in site.miners:
            if _server_family(group) is None:
                raise SimulationError(
                    f"miners {group.id}: saw family {group.family!r}, expected one of {', '.join(KINDS)}: "
                    "the simulator speaks no other machine's protocol"
                )
        self.plant = Plant(
            site, rng=random.Random(seed), now_s=clock(), time_scale=time_scale, latencies=latencies, wall_ms=wall_ms
        )
        self._noise = random.Random(seed + 1)
        self.faults = Faults(self.plant, machine_server=self._machine_fault, changed=self._changed)
        self.addresses: dict[str, Endpoint] = {}
        """Link id, machine id (JSON socket) and ``<machine id>/http`` to host and port, once started."""
        self.machines: dict[str, PlantMachine] = {}
        self._asics: dict[str, AsicServer] = {}
        self._modbus: dict[str, ModbusTcpServer] = {}
        self._pdus: dict[str, SnmpPduAgent] = {}
        self._wake = asyncio.Event()
        self._stepper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind everything and let time run.

        Raises:
            SimulationError: a port is taken, or a device cannot be simulated; nothing stays bound.
        """
        try:
            for link in self.site.links:
                await self._start_link(link)
            for group in self.site.miners:
                for number, address in enumerate(addresses_of(group), 1):
                    await self._start_machine(group, number, address)
        except BaseException:
            await self.stop()
            raise
        self._stepper = asyncio.create_task(self._run(), name=f"plant {self.site.site.id}")
        log.info(
            "simulated_site_started",
            site=self.site.site.id,
            links=len(self._modbus) + len(self._pdus),
            machines=len(self._asics),
            time_scale=self.time_scale,
        )

    async def stop(self) -> None:
        """Close every socket and end the stepper; harmless when nothing runs."""
        stepper, self._stepper = self._stepper, None
        if stepper is not None:
            stepper.cancel()
            with suppress(asyncio.CancelledError):
                await stepper
        for server in self._modbus.values():
            await server.stop()
        for agent in self._pdus.values():
            agent.stop()
        for asic in self._asics.values():
            await asic.stop()
        self._modbus, self._pdus, self._asics = {}, {}, {}

    async def wait(self) -> None:
        """Return only when the plant's stepper has failed.

        Raises:
            Exception: whatever ended it.
        """
        if self._stepper is not None:
            await asyncio.shield(self._stepper)

    def state(self) -> dict[str, object]:
        """What is true in the plant now, for the demo and for people; plain data."""
        plant = self.plant
        counts: dict[str, int] = {}
        for machine in plant.machines.values():
            counts[machine.state.value] = counts.get(machine.state.value, 0) + 1
        return {
            "site": self.site.site.id,
            "time_scale": self.time_scale,
            "node_power_w": {name: round(watts, 1) for name, watts in plant.node_power_w.items()},
            "import_wh": {name: round(r.imported.reading, 3) for name, r in plant.registers.items()},
            "energised": sorted(plant.energised),
            "switches": {
                name: {"closed": body.closed, "position": body.position.value, "coil": body.coil}
                for name, body in plant.switches.items()
            },
            "cooling_loops": {
                name: {"flows": loop.flows(), "supply_c": round(loop.supply_c, 2), "outside_c": loop.outside_c}
                for name, loop in plant.cooling.items()
            },
            "blacked_out": sorted(plant.blacked_out),
            "machines": counts,
            "faults": [{"kind": f.kind, "target": f.target, **f.parameters} for f in self.faults.active()],
        }

    # -- time ---------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._wake.set()

    def now(self) -> float:
        """Bring the plant to the present and give its clock's reading."""
        self.plant.step(self._clock())
        return self.plant.now_s

    async def _run(self) -> None:
        while True:
            now_s = self.now()
            event_s = self.plant.next_event_s
            pause_s = self._step_s if event_s is None else min(self._step_s, max(0.0, event_s - now_s))
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    # -- links --------------------------------------------------------------------------------------------------------

    async def _start_link(self, link: Link) -> None:
        devices = [d for d in self.site.devices if d.link == link.id]
        if link.url.startswith("snmp://"):
            await self._start_pdu(link, devices)
            return
        address, _ = parse_url(link.url)
        units: dict[int, Unit] = {device.unit: self._unit(device) for device in devices}
        server = ModbusTcpServer(
            units, up=lambda: link.id not in self.faults.dead_links and self.plant.supplies.link_up(link.id)
        )
        self._modbus[link.id] = server
        port = 0 if self._ephemeral else address.port
        try:
            await server.start(address.host, port)
        except OSError as error:
            raise SimulationError(_taken(f"link {link.id}", address.host, port, error)) from error
        self.addresses[link.id] = (address.host, server.port)

    def _unit(self, device: Device) -> Unit:
        profile = load_profile(device.profile)
        faults = self.faults.devices[device.id]
        if device.kind == "meter" and isinstance(profile, MeterProfile):
            registers = next((r for r in self.plant.registers.values() if r.point.device == device.id), None)
            if registers is not None:
                registers.memory = memory_of(profile, registers.ct * registers.vt, self._wall_ms, faults)
            return MeterUnit(
                profile,
                lambda: registers.values(self._meter_ms(faults)) if registers is not None else {},
                powered=lambda: self.plant.supplies.has_power(device.id),
                faults=faults,
                rng=self._noise,
                memory=registers.memory if registers is not None else None,
            )
        if device.kind == "relay" and isinstance(profile, RelayProfile):
            return RelayUnit(
                profile,
                self.plant.relays[device.id],
                level=lambda input_id: self.plant.wiring.level(device.id, input_id),
                now_s=self.now,
                pulse_s=self._pulse_settings(device.id),
                counts=lambda input_id: self.plant.wiring.count(device.id, input_id),
                celsius=lambda point: self.plant.wiring.celsius(device.id, point),
                faults=faults,
                moved=self._changed,
            )
        raise SimulationError(
            f"device {device.id}: kind {device.kind} with profile {device.profile} of kind {profile.kind}; "
            "expected a meter with a meter's profile or a relay with a relay's"
        )

    def _pulse_settings(self, device: str) -> dict[str, float]:
        """Pulse lengths that a person would have set in the module, from the site file's ``pulse_ms``."""
        found: dict[str, float] = {}
        for node in self.site.nodes:
            control = node.control if isinstance(node, Switch) else None
            if control is None or control.device != device or control.pulse_ms is None:
                continue
            for output in (control.output, control.close_output):
                if output is not None:
                    found[output] = control.pulse_ms / 1000.0
        return found

    def _meter_ms(self, faults: DeviceFaults) -> int:
        """What a meter takes for the present."""
        return self._wall_ms() + round(faults.clock_s * 1000)

    async def _start_pdu(self, link: Link, devices: list[Device]) -> None:
        if len(devices) != 1:
            raise SimulationError(f"link {link.id}: saw {len(devices)} devices on {link.url}, expected one PDU")
        device = devices[0]
        host, port = host_port(link.url, 161)
        model = PlantPdu(self.plant, device, self.faults.devices[device.id], self._changed)
        read, write, users = self._snmp_secrets(device)
        agent = SnmpPduAgent(
            load_pdu_profile(device.profile),
            model,
            model.outlets,
            read_community=read,
            write_community=write,
            users=users,
            serial_number=device.serial_number or f"SIM-{device.id}"[:32],
        )
        port = 0 if self._ephemeral else port
        try:
            await agent.start(host, port)
        except OSError as error:
            raise SimulationError(_taken(f"link {link.id}", host, port, error)) from error
        self._pdus[link.id] = agent
        self.addresses[link.id] = (host, agent.port)

    # -- machines -----------------------------------------------------------------------------------------------------

    async def _start_machine(self, group: MinerGroup, number: int, address: MachineAddress) -> None:
        model = PlantMachine(self.plant, self.plant.machines[address.id], group, number)
        family = _server_family(group)
        answer_s = self.plant.latencies.family(group.family).answer_s.value
        server: AsicServer
        if family == "antminer-stock":
            user, password = self._log_in(group)
            server = StockAntminer(
                model, user=user, password=password, write_answer_s=answer_s, time_scale=self.time_scale
            )
        else:  # with the maker's own log-in
            server = KINDS[family or ""].make(model, self.time_scale, answer_s)
        rpc_port = 0 if self._ephemeral else address.rpc_port
        http_port = 0 if self._ephemeral else address.http_port or 0
        try:
            await server.start(address.rpc_host, rpc_port, http_port)
        except OSError as error:
            raise SimulationError(_taken(f"machine {address.id}", address.rpc_host, rpc_port, error)) from error
        self._asics[address.id] = server
        self.machines[address.id] = model
        self.addresses[address.id] = (address.rpc_host, server.rpc_port)
        if server.http_port is not None:
            self.addresses[f"{address.id}/http"] = (address.rpc_host, server.http_port)

    def _machine_fault(self, machine: str, kind: str, on: bool, given: Mapping[str, Parameter]) -> None:
        server = self._asics.get(machine)
        if server is None:
            raise SimulationError(f"{kind} on {machine}: its server is not started")
        match kind:
            case "dead":
                self.machines[machine].dead = on
            case "slow":
                seconds = given.get("seconds", 5.0)
                server.faults.slow_s = float(seconds) if on and isinstance(seconds, int | float) else 0.0
            case "silent":
                server.faults.silent = on
            case "half_open":
                server.faults.half_open = on
            case "garbage":
                server.faults.garbage = on
            case _:
                server.faults.http_down = on

    # -- secrets ------------------------------------------------------------------------------------------------------

    def _secret(self, name: str | None) -> tuple[str | None, str | None]:
        """(user, secret text) of a credential, or nothing where it is not to be had: then a maker's default is used."""
        credentials = self.site.credentials.get(name or "")
        if credentials is None:
            return None, None
        if credentials.password_env is not None:
            return credentials.user, os.environ.get(credentials.password_env)
        path = self._base_dir / (credentials.password_file or "")
        try:
            with path.open("rb") as file:
                return credentials.user, file.read(SECRET_LIMIT_BYTES).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            log.warning("simulated_secret_missing", credentials=name, used="the maker's default")
            return credentials.user, None

    def _log_in(self, group: MinerGroup) -> tuple[str, str]:
        user, password = self._secret(group.credentials)
        return user or "root", password or "root"

    def _snmp_secrets(self, device: Device) -> tuple[str, str, dict[User, bool]]:
        """Communities to read and to write, and the users of version 3 with whether each may write."""
        _, text = self._secret(device.credentials)
        if not text:
            return "public", "private", {}
        try:
            found = credentials_from_text(text)
        except ValueError as error:
            raise SimulationError(f"device {device.id}: {error}") from error
        if isinstance(found.read, Community):
            write = found.write.name if isinstance(found.write, Community) else "private"
            return found.read.name, write, {}
        users = {found.read: False}
        if isinstance(found.write, User):
            users[found.write] = True
        # Nobody knows these communities: such a device answers its users only.
        return secrets.token_hex(8), secrets.token_hex(8), users


def _server_family(group: MinerGroup) -> str | None:
    """The family whose server speaks for a group; ``None`` where there is none."""
    name = group.family.lower().replace("_", "-")
    if name in {"bitmain-stock", "antminer"}:
        return "antminer-stock"
    return name if name in KINDS else None


def _taken(what: str, host: str, port: int, error: OSError) -> str:
    return f"{what}: {host}:{port} cannot be bound ({error.strerror}); is another simulation running?"
