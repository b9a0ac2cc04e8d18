"""Everything on site that can be read or driven, built from the site file."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from agent.clock import Clock
from agent.curtailment.fleet import KnownMachine
from agent.errors import AgentError
from agent.live import LiveState
from config.addresses import machines
from config.devices import Device, MinerGroup
from config.nodes import Input
from config.nodes import Switch as SwitchNode
from config.site import Site
from drivers.asic.credentials import Credentials, load_credentials
from drivers.asic.fleet import FleetPoller
from drivers.asic.fleet import Machine as PolledMachine
from drivers.asic.identify import driver_for
from drivers.asic.timing import Timeouts
from drivers.cancellation import cancel_was_lost
from drivers.capabilities import MinerStatus, Position, Sleeper, Switch, SwitchState
from drivers.errors import ProfileError
from drivers.modbus.link import ModbusLink, Subscription
from drivers.modbus.meter import MeterDevice
from drivers.modbus.relay import InputRef, RelayDevice, RelayImage, RelaySwitch
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile, RelayProfile
from drivers.snmp.credentials import credentials_from_text
from drivers.snmp.pdu import SnmpPdu
from drivers.snmp.profile import load_pdu_profile
from drivers.snmp.session import SnmpSession
from wire.points import COUNTERS
from wire.quality import Quality

log = structlog.get_logger()

SWITCH_PERIOD_S = 1.0
READY = ("remote", "lockout", "protection_trip", "trip_circuit_ok", "spring_charged")
FAST = ("power_w", "power_l1_w", "power_l2_w", "power_l3_w", "frequency_hz", "voltage_l1_n_v", "current_l1_a")
ONCE = frozenset({"serial_number", "ct_ratio", "vt_ratio"})


@dataclass(slots=True)
class MeterPort:
    """One meter: its device, its link, what is polled, and the subscription."""

    device: MeterDevice
    link: ModbusLink
    points: tuple[str, ...]
    energy: tuple[str, ...]
    period_s: float
    serial: bool
    """True on a serial line: boundary readings may be 3 s late."""
    subscription: Subscription | None = None


@dataclass(frozen=True, slots=True)
class _LinkClock:
    """The agent's clock as a link asks for it: every time in the agent comes from one source."""

    clock: Clock

    def monotonic_ns(self) -> int:
        return self.clock.mono_ns()

    def wall_ms(self) -> int:
        return self.clock.now_ms()


@dataclass(slots=True)
class Bench:
    """All ports of a site."""

    site: Site
    live: LiveState
    clock: Clock
    links: dict[str, ModbusLink] = field(default_factory=dict)
    meters: dict[str, MeterPort] = field(default_factory=dict)
    relays: dict[str, RelayDevice] = field(default_factory=dict)
    pdus: dict[str, SnmpPdu] = field(default_factory=dict)
    switches: dict[str, Switch] = field(default_factory=dict)
    machines: dict[str, KnownMachine] = field(default_factory=dict)
    pollers: list[FleetPoller] = field(default_factory=list)
    profile_versions: dict[str, str] = field(default_factory=dict)
    snmp: SnmpSession | None = None
    on_foreign_write: Callable[[str, str, bool, bool], None] = lambda *_: None
    on_miner: Callable[[str], None] = lambda _machine: None
    on_saon: Callable[[str, int, bool], None] = lambda *_: None
    saon_inputs: dict[str, list[tuple[str, int, Input]]] = field(default_factory=dict)
    """Relay → (feeder, stage, latched input): САОН is read here and driven nowhere."""
    saon: dict[tuple[str, int], bool | None] = field(default_factory=dict)
    """(feeder, stage) → operated; ``None`` where the input could not be read."""

    def start(self, group: asyncio.TaskGroup, busy: Callable[[], bool]) -> None:
        """Start all workers in a task group."""
        for link in self.links.values():
            group.create_task(link.run(), name=f"link-{link.name}")
        for port in self.meters.values():
            port.subscription = port.link.poll(port.device, port.points, port.period_s, self.live.put_sample)
        for relay in self.relays.values():
            relay.watch(SWITCH_PERIOD_S, self._foreign(relay.id), self._saon_reader(relay.id))
        for poller in self.pollers:
            group.create_task(poller.run(), name="asic-fleet")
        for pdu in self.pdus.values():
            group.create_task(self._poll_pdu(pdu), name=f"pdu-{pdu.id}")
        for name, switch in self.switches.items():
            group.create_task(self._poll_switch(name, switch), name=f"switch-{name}")
        group.create_task(self._pace(busy), name="pace")

    def _foreign(self, device: str) -> Callable[[str, bool, bool], None]:
        return lambda output, was, now: self.on_foreign_write(device, output, was, now)

    def _saon_reader(self, relay: str) -> Callable[[RelayImage], None]:
        def take(image: RelayImage) -> None:
            for feeder, stage, ref in self.saon_inputs.get(relay, ()):
                seen = image.inputs.get(ref.input)
                operated = None if seen is None else seen is not ref.inverted
                was = self.saon.get((feeder, stage))
                self.saon[feeder, stage] = operated
                if operated is not None and operated is not bool(was):
                    self.on_saon(feeder, stage, operated)

        return take

    async def _pace(self, busy: Callable[[], bool]) -> None:
        """While an order runs, meters that judge it are read at least each second."""
        fast = False
        while True:
            if busy() is not fast:
                fast = busy()
                limit = self.site.agent.order_meter_period_s
                for port in self.meters.values():
                    if port.subscription is not None and port.period_s > limit:
                        port.subscription.set_period(limit if fast else port.period_s)
            await asyncio.sleep(0.25)

    async def _poll_pdu(self, pdu: SnmpPdu) -> None:
        period = next(d.period_s for d in self.site.devices if d.id == pdu.id)
        while not cancel_was_lost():
            began = self.clock.mono_ns()
            self.live.put_sample(await pdu.sample())
            await asyncio.sleep(max(0.1, period - (self.clock.mono_ns() - began) / 1e9))

    async def _poll_switch(self, name: str, switch: Switch) -> None:
        while True:
            self.live.put_switch(name, await switch.read())
            await asyncio.sleep(SWITCH_PERIOD_S)

    async def read_switches(self) -> None:
        """Read every switch once (start-up: positions before anything else)."""

        async def one(name: str, switch: Switch) -> None:
            self.live.put_switch(name, await switch.read())

        await asyncio.gather(*(one(n, s) for n, s in self.switches.items()))

    async def close(self) -> None:
        """Release what the workers do not own."""
        if self.snmp is not None:
            await self.snmp.aclose()

    def take_miner(self, machine: str, status: MinerStatus | None, quality: Quality, error: str | None) -> None:
        """Result of a fleet poller."""
        self.live.put_miner(machine, status, quality, error)
        self.on_miner(machine)


def build(site: Site, live: LiveState, clock: Clock, *, base: Path, snmp: SnmpSession | None) -> Bench:
    """Build all drivers of a site.

    Args:
        site: a checked site.
        live: where samples go.
        clock: time source.
        base: folder that relative password files are relative to.
        snmp: the process's SNMP session; needed where the site has PDUs.

    Raises:
        AgentError: a profile, link or credential cannot be used; the message names it.
    """
    bench = Bench(site, live, clock, snmp=snmp)
    try:
        for link in site.links:
            if urlsplit(link.url).scheme != "snmp":
                bench.links[link.id] = ModbusLink(
                    link.url, name=link.id, timeout_s=link.timeout_s, clock=_LinkClock(clock)
                )
        for device in site.devices:
            _device(bench, device, base)
        for node in site.nodes:
            if isinstance(node, SwitchNode):
                _switch(bench, node)
                _saon(bench, node)
        secrets = load_credentials(
            {n: c for n, c in site.credentials.items() if n in {g.credentials for g in site.miners}}, base=base
        )
        for group in site.miners:
            _miners(bench, group, secrets.get(group.credentials or ""))
    except (ProfileError, ValueError, KeyError) as error:
        raise AgentError(f"site file: {error}") from error
    return bench


def _device(bench: Bench, device: Device, base: Path) -> None:
    if device.kind == "pdu":
        _pdu(bench, device, base)
        return
    profile = load_profile(device.profile)
    bench.profile_versions[device.profile] = str(profile.version)
    link = bench.links[device.link]
    if device.kind == "meter":
        if not isinstance(profile, MeterProfile):
            raise AgentError(f"device {device.id}: profile {device.profile} is a {profile.kind}, expected a meter")
        known = [p.id for p in profile.points]
        energy = tuple(p for p in known if p in COUNTERS) + (("serial_number",) if "serial_number" in known else ())
        points = tuple(p for p in known if p not in ONCE)
        serial = not str(next(x.url for x in bench.site.links if x.id == device.link)).startswith("modbus:")
        bench.meters[device.id] = MeterPort(
            MeterDevice(device.id, device.unit, profile), link, points, energy, device.period_s, serial
        )
    else:
        if not isinstance(profile, RelayProfile):
            raise AgentError(f"device {device.id}: profile {device.profile} is a {profile.kind}, expected a relay")
        bench.relays[device.id] = RelayDevice(device.id, device.unit, profile, link)


def _pdu(bench: Bench, device: Device, base: Path) -> None:
    if bench.snmp is None:
        raise AgentError(f"device {device.id}: no SNMP session")
    profile = load_pdu_profile(device.profile)
    bench.profile_versions[device.profile] = hashlib.sha256(profile.model_dump_json().encode()).hexdigest()[:16]
    url = urlsplit(next(x.url for x in bench.site.links if x.id == device.link))
    source = bench.site.credentials.get(device.credentials or "")
    if source is None:
        raise AgentError(f"device {device.id}: a PDU needs 'credentials' (the SNMP community or user)")
    if source.password_env is not None:
        text = os.environ.get(source.password_env, "")
    else:
        text = (base / (source.password_file or "")).read_text(encoding="utf-8")
    bench.pdus[device.id] = SnmpPdu(
        device.id,
        url.hostname or "",
        url.port or 161,
        profile,
        credentials_from_text(text),
        bench.snmp,
        allow_write=device.options.get("writes") == "allowed",
    )


def _saon(bench: Bench, node: SwitchNode) -> None:
    for stage in node.saon:
        if stage.operated is None:
            continue
        if stage.operated_by != "latched":
            log.warning("saon_input_not_read", feeder=node.id, stage=stage.stage, kind=stage.operated_by)
            continue
        bench.saon_inputs.setdefault(stage.operated.device, []).append((node.id, stage.stage, stage.operated))


def _input(bench: Bench, ref: Input) -> InputRef:
    return InputRef(bench.relays[ref.device], ref.input, ref.inverted)


def _switch(bench: Bench, node: SwitchNode) -> None:
    if node.control is None:
        if node.position is not None:
            opened, closed = _input(bench, node.position.open), _input(bench, node.position.closed)
            bench.switches[node.id] = _Seen(opened, closed)
        return
    if node.control.device in bench.pdus:
        number = int(node.control.output.removeprefix("outlet_"))
        bench.switches[node.id] = bench.pdus[node.control.device].outlet_switch(number)
        return
    if node.actuator is None:  # the model forbids it
        raise AgentError(f"switch {node.id}: no actuator")
    ready = {n: _input(bench, ref) for n in READY if (ref := getattr(node.readiness, n)) is not None}
    bench.switches[node.id] = RelaySwitch(
        bench.relays[node.control.device],
        node.control.output,
        node.actuator,
        _input(bench, node.position.open) if node.position else None,
        _input(bench, node.position.closed) if node.position else None,
        close_output=node.control.close_output,
        pulse_ms=node.control.pulse_ms,
        readiness=ready,
    )


class _Seen:
    """A switch that is only watched: commands are refused by construction."""

    def __init__(self, opened: InputRef, closed: InputRef) -> None:
        self._inputs = (opened, closed)

    async def read(self) -> SwitchState:
        """Two-bit position from its contacts."""
        images = [await ref.relay.read() for ref in self._inputs]
        levels: list[bool | None] = []
        for ref, image in zip(self._inputs, images, strict=True):
            seen = image.inputs.get(ref.input)
            levels.append(None if seen is None else seen is not ref.inverted)
        table = {
            (True, False): Position.OPEN,
            (False, True): Position.CLOSED,
            (False, False): Position.MOVING,
            (True, True): Position.FAULTY,
        }
        position = Position.UNKNOWN if None in levels else table[bool(levels[0]), bool(levels[1])]
        return SwitchState(position, images[0].at_ms, images[0].mono_ns)

    async def open(self) -> Any:
        """Refused: not an output."""
        raise AgentError("this switch is watched, not driven")

    async def close(self) -> Any:
        """Refused: not an output."""
        raise AgentError("this switch is watched, not driven")


def _miners(bench: Bench, group: MinerGroup, credentials: Credentials | None) -> None:
    polled: list[PolledMachine] = []
    for at in machines(group):
        driver = driver_for(
            group.family,
            at.rpc_host,
            rpc_port=at.rpc_port,
            http_host=at.http_host,
            http_port=at.http_port,
            credentials=credentials,
            timeouts=Timeouts(),
            writes_allowed=group.writes_allowed,
        )
        can = isinstance(driver, Sleeper) and group.writes_allowed
        bench.machines[at.id] = KnownMachine(at.id, group, driver if can and isinstance(driver, Sleeper) else None)
        polled.append(PolledMachine(at.id, driver, subnet=group.id))
    bench.pollers.append(FleetPoller(polled, period_s=group.period_s, on_status=bench.take_miner))
