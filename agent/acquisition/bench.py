"""Everything on site that can be read or driven, built from the site file."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from agent.acquisition.meters import MeterPort, meter_port
from agent.acquisition.switching import (
    SaonInput,
    WatchedSwitch,
    outlet_number,
    pdu_of,
    relay_of,
    rose,
    saon_inputs,
    switch_of,
)
from agent.clock import Clock
from agent.curtailment.fleet import KnownMachine
from agent.errors import AgentError
from agent.live import LiveState
from config.addresses import machines
from config.devices import Device, MinerGroup
from config.nodes import Switch as SwitchNode
from config.site import Site
from drivers.asic.credentials import Credentials, load_credentials
from drivers.asic.fleet import FleetPoller
from drivers.asic.fleet import Machine as PolledMachine
from drivers.asic.foreign.process import ForeignProcess
from drivers.asic.foreign.reader import FAMILY as FOREIGN
from drivers.asic.foreign.reader import ForeignMiner
from drivers.asic.identify import driver_for
from drivers.asic.timing import Timeouts
from drivers.cancellation import cancel_was_lost
from drivers.capabilities import MinerStatus, PowerLimiter, Sleeper, Switch
from drivers.errors import ProfileError
from drivers.modbus.events import LinkEvent
from drivers.modbus.learned import LearnedRanges
from drivers.modbus.link import ModbusLink
from drivers.modbus.relay import RelayDevice, RelayImage
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile, RelayProfile
from drivers.snmp.pdu import SnmpPdu
from drivers.snmp.profile import load_pdu_profile
from drivers.snmp.session import SnmpSession
from wire.quality import Quality

__all__ = ["Bench", "MeterPort", "build"]

log = structlog.get_logger()

SWITCH_PERIOD_S = 1.0
FOREIGN_DEADLINE_S = 7.0
"""Under the poller's own deadline: the child's answer, or its silence, comes first."""
SETTINGS_PERIOD_S = 60.0
SETTINGS_RETRY_S = 5.0
"""Wrong or unread settings are looked at more often: somebody is probably at work on them."""
FAST = ("power_w", "power_l1_w", "power_l2_w", "power_l3_w", "frequency_hz", "voltage_l1_n_v", "current_l1_a")


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
    foreign: ForeignProcess = field(default_factory=ForeignProcess)
    """Reads machines that no driver here knows (``family: pyasic``); its child starts when it is first needed."""
    snmp: SnmpSession | None = None
    on_foreign_write: Callable[[str, str, bool, bool], None] = lambda *_: None
    on_miner: Callable[[str], None] = lambda _machine: None
    on_link: Callable[[LinkEvent], None] = lambda _event: None
    """A second master began to ask on a link, or has not been heard for long."""
    on_foreign_move: Callable[[str, str, str], None] = lambda *_: None
    """(switch, was, now): a switch moved and we had not commanded it."""
    on_settings: Callable[[str, str | None], None] = lambda *_: None
    """(relay, why not): its safe-state settings became wrong, unread, or good again (``None``)."""
    on_image: Callable[[str, RelayImage], None] = lambda *_: None
    """(relay, all that was read of it)."""
    on_saon: Callable[[str, int, bool], None] = lambda *_: None
    saon_inputs: dict[str, list[SaonInput]] = field(default_factory=dict)
    """By relay: САОН is read here and driven nowhere."""
    saon: dict[tuple[str, int], bool | None] = field(default_factory=dict)
    """(feeder, stage) → operated; ``None`` where the input could not be read. A counted stage stays operated."""
    saon_counts: dict[tuple[str, int], int] = field(default_factory=dict)
    """(feeder, stage) → count last seen. Filled in before the start, it tells operations while the agent was away."""
    _latched: dict[tuple[str, int], bool] = field(default_factory=dict)
    on_saon_count: Callable[[str, int, int], None] = lambda *_: None
    """(feeder, stage, count): a new count, to be kept over a restart."""

    def start(self, group: asyncio.TaskGroup, busy: Callable[[], bool]) -> None:
        """Start all workers in a task group."""
        for link in self.links.values():
            group.create_task(link.run(), name=f"link-{link.name}")
        for port in self.meters.values():
            port.poll(self.live.put_sample)
            if not port.found:
                group.create_task(port.find_later(self.live.put_sample), name=f"find-{port.device.id}")
        for relay in self.relays.values():
            relay.watch(SWITCH_PERIOD_S, self._foreign(relay.id), self._image_reader(relay.id))
            group.create_task(self._poll_settings(relay), name=f"settings-{relay.id}")
        for poller in self.pollers:
            group.create_task(poller.run(), name="asic-fleet")
        for pdu in self.pdus.values():
            group.create_task(self._poll_pdu(pdu), name=f"pdu-{pdu.id}")
        for name, switch in self.switches.items():
            group.create_task(self._poll_switch(name, switch), name=f"switch-{name}")
        group.create_task(self._pace(busy), name="pace")

    def link_event(self, event: LinkEvent) -> None:
        """Pass on what a link tells to whoever listens by then."""
        self.on_link(event)

    def _foreign(self, device: str) -> Callable[[str, bool, bool], None]:
        return lambda output, was, now: self.on_foreign_write(device, output, was, now)

    def _moved(self, switch: str, was: str, now: str) -> None:
        self.on_foreign_move(switch, was, now)

    def _image_reader(self, relay: str) -> Callable[[RelayImage], None]:
        def take(image: RelayImage) -> None:
            self.on_image(relay, image)
            for found in self.saon_inputs.get(relay, ()):
                (self._take_count if found.kept == "counter" else self._take_latched)(found, image)

        return take

    def _take_latched(self, found: SaonInput, image: RelayImage) -> None:
        key = (found.feeder, found.stage)
        seen = image.inputs.get(found.input)
        operated = None if seen is None else seen is not found.inverted
        self.saon[key] = operated
        # Compared with what was last known, so that a reading that failed in between tells no operation twice.
        if operated is not None and operated is not self._latched.get(key, False):
            self._latched[key] = operated
            self.on_saon(*key, operated)

    def _take_count(self, found: SaonInput, image: RelayImage) -> None:
        key = (found.feeder, found.stage)
        count = image.counters.get(found.input)
        if count is None:
            if self.saon.get(key, False) is False:
                self.saon[key] = None  # an operation that was seen stays seen
            return
        before = self.saon_counts.get(key)
        if count != before:
            self.saon_counts[key] = count
            self.on_saon_count(*key, count)
        if rose(before, count):
            self.saon[key] = True
            self.on_saon(*key, True)
        elif not self.saon.get(key):
            self.saon[key] = False

    def why_unsafe(self, switch_id: str) -> str | None:
        """Why the device that drives this output must not be armed; ``None`` where nothing speaks against it.

        A relay's watchdog and safe-state settings have to be read, and as its profile and the site file demand.
        """
        node = next((n for n in self.site.nodes if isinstance(n, SwitchNode) and n.id == switch_id), None)
        if node is None or node.control is None:
            return f"{switch_id} is no output"
        pdu = self.pdus.get(node.control.device)
        if pdu is not None:
            return pdu.why_not_switched(outlet_number(node.control.output))
        return self.relays[node.control.device].safe_state().why

    async def read_settings(self) -> None:
        """Read every relay's safe-state settings once (start-up: an output is relied on only with them)."""
        await asyncio.gather(*(relay.read_settings() for relay in self.relays.values()))

    async def _poll_settings(self, relay: RelayDevice) -> None:
        told: str | None = None
        while not cancel_was_lost():
            await relay.read_settings()
            why = relay.safe_state().why
            if why != told:
                told = why
                if why is None:
                    log.info("relay_settings_good", device=relay.id)
                else:
                    log.error("relay_settings_wrong", device=relay.id, why=why)
                self.on_settings(relay.id, why)
            await asyncio.sleep(SETTINGS_PERIOD_S if why is None else SETTINGS_RETRY_S)

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
        """Read every switch once (start-up: positions before anything else), and meters' directories not known yet."""

        async def one(name: str, switch: Switch) -> None:
            self.live.put_switch(name, await switch.read())

        await asyncio.gather(
            *(one(n, s) for n, s in self.switches.items()),
            *(port.find_at_start() for port in self.meters.values() if not port.found),
        )

    async def close(self) -> None:
        """Release what the workers do not own."""
        if self.snmp is not None:
            await self.snmp.aclose()
        await self.foreign.aclose()

    def expect(self, machines: Iterable[str]) -> None:
        """These machines are about to answer again: their feeder closed, or they were woken."""
        wanted = frozenset(machines)
        for poller in self.pollers:
            poller.expect(wanted)

    def take_miner(self, machine: str, status: MinerStatus | None, quality: Quality, error: str | None) -> None:
        """Result of a fleet poller."""
        self.live.put_miner(machine, status, quality, error)
        self.on_miner(machine)


def build(
    site: Site,
    live: LiveState,
    clock: Clock,
    *,
    base: Path,
    snmp: SnmpSession | None,
    learned: LearnedRanges | None = None,
) -> Bench:
    """Build all drivers of a site.

    Args:
        site: a checked site.
        live: where samples go.
        clock: time source.
        base: folder that relative password files are relative to.
        snmp: the process's SNMP session; needed where the site has PDUs.
        learned: where it is kept what meters were found to refuse; ``None``: nowhere, it is learned at each start.

    Raises:
        AgentError: a profile, link or credential cannot be used; the message names it.
    """
    bench = Bench(site, live, clock, snmp=snmp)
    try:
        for link in site.links:
            if urlsplit(link.url).scheme != "snmp":
                bench.links[link.id] = ModbusLink.from_config(
                    link, base=base, clock=_LinkClock(clock), on_event=bench.link_event
                )
        for device in site.devices:
            _device(bench, device, base, learned)
        for node in site.nodes:
            if isinstance(node, SwitchNode) and (found := switch_of(node, bench.relays, bench.pdus)) is not None:
                bench.switches[node.id] = WatchedSwitch(node.id, found, clock.mono_ns, bench._moved)
        for wired in saon_inputs(site, bench.relays):
            bench.saon_inputs.setdefault(wired.device, []).append(wired)
        secrets = load_credentials(
            {n: c for n, c in site.credentials.items() if n in {g.credentials for g in site.miners}}, base=base
        )
        fleets: dict[float, list[PolledMachine]] = {}
        for group in site.miners:
            fleets.setdefault(group.period_s, []).extend(_miners(bench, group, secrets.get(group.credentials or "")))
        # One poller for all machines of a period: it shares connections fairly between the groups.
        bench.pollers.extend(FleetPoller(m, period_s=p, on_status=bench.take_miner) for p, m in fleets.items())
    except (ProfileError, ValueError, KeyError) as error:
        raise AgentError(f"site file: {error}") from error
    return bench


def _device(bench: Bench, device: Device, base: Path, learned: LearnedRanges | None) -> None:
    if device.kind == "pdu":
        _pdu(bench, device, base)
        return
    profile = load_profile(device.profile)
    bench.profile_versions[device.profile] = str(profile.version)
    link = bench.links[device.link]
    if device.kind == "meter":
        if not isinstance(profile, MeterProfile):
            raise AgentError(f"device {device.id}: profile {device.profile} is a {profile.kind}, expected a meter")
        serial = not str(next(x.url for x in bench.site.links if x.id == device.link)).startswith("modbus:")
        bench.meters[device.id] = meter_port(device, profile, link, serial=serial, learned=learned)
    else:
        if not isinstance(profile, RelayProfile):
            raise AgentError(f"device {device.id}: profile {device.profile} is a {profile.kind}, expected a relay")
        bench.relays[device.id] = relay_of(bench.site, device, profile, link, base)


def _pdu(bench: Bench, device: Device, base: Path) -> None:
    if bench.snmp is None:
        raise AgentError(f"device {device.id}: no SNMP session")
    profile = load_pdu_profile(device.profile)
    bench.profile_versions[device.profile] = hashlib.sha256(profile.model_dump_json().encode()).hexdigest()[:16]
    url = urlsplit(next(x.url for x in bench.site.links if x.id == device.link))
    address = (url.hostname or "", url.port or 161)
    bench.pdus[device.id] = pdu_of(bench.site, device, profile, address, bench.snmp, base)


def _miners(bench: Bench, group: MinerGroup, credentials: Credentials | None) -> list[PolledMachine]:
    """The machines of a group, each with its driver; those that may be put to sleep are known to the planner."""
    polled: list[PolledMachine] = []
    for at in machines(group):
        if group.family == FOREIGN:
            bench.machines[at.id] = KnownMachine(at.id, group, None)
            reader = ForeignMiner(bench.foreign, at.rpc_host, deadline_s=FOREIGN_DEADLINE_S)
            polled.append(PolledMachine(at.id, reader, subnet=group.id))
            continue
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
        sleeper = driver if isinstance(driver, Sleeper) and group.writes_allowed else None
        limits = group.writes_allowed and group.lowest_power_w is not None
        limiter = driver if limits and isinstance(driver, PowerLimiter) else None
        bench.machines[at.id] = KnownMachine(at.id, group, sleeper, limiter)
        polled.append(PolledMachine(at.id, driver, subnet=group.id))
    return polled
