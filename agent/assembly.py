"""What an agent consists of: every part, made in the order in which one needs the other, and joined."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from agent.acquisition import Bench, build
from agent.checkpoints import Checkpointer
from agent.clock import Clock, Step, StepWatch, SystemClock, TrustedTime
from agent.commissioning.commissioner import Commissioner
from agent.condition import wrong_with
from agent.curtailment.account import Account
from agent.curtailment.engine import Engine
from agent.curtailment.fleet import Fleet
from agent.curtailment.forecast import Forecaster
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Journal
from agent.curtailment.reception import Reception
from agent.curtailment.restore import Restorer
from agent.curtailment.samples import Terms
from agent.curtailment.shed import Shedder
from agent.duty import Duty
from agent.errors import AgentError
from agent.events import Events
from agent.handover import hand_over
from agent.hsm.key import token_of
from agent.identity import Keys
from agent.inbox import Inbox
from agent.inventory.watch import InventoryWatch
from agent.ledger import Ledger, Txn
from agent.live import LiveState
from agent.maintenance import Maintenance
from agent.metering.archive import Archivist
from agent.metering.balancing import Balancing
from agent.metering.closer import SlotCloser
from agent.metering.exchange import Exchange
from agent.metering.spot import Spots
from agent.outbox import BulkOutbox
from agent.register import Register
from agent.reports import Reports
from agent.rotation import Rotation
from agent.telemetry import Batcher
from agent.tls import TlsStore
from agent.uplink.link import Endpoint
from agent.uplink.uplink import Facts, Uplink
from config.check import Profiles, check
from config.graph import Graph
from config.site import Site
from config.site import Uplink as UplinkSettings
from drivers.modbus.learned_file import LearnedFile
from drivers.snmp.session import SnmpSession
from wire.keys import VerifyKey
from wire.messages import Progress
from wire.record_types import LogHead

log = structlog.get_logger()


class Assembly:
    """All parts of one agent. Nothing runs yet.

    Raises:
        AgentError: the site file cannot be used for running.
    """

    # Opened by the life of the process (:mod:`agent.app`), the first three before everything here is built.
    ledger: Ledger
    bulk: BulkOutbox
    _steps: StepWatch
    reception: Reception
    reports: Reports

    def __init__(
        self,
        site: Site,
        *,
        base: Path,
        config_sha256: str,
        version: str,
        profiles: Profiles,
        clock: Clock | None = None,
    ) -> None:
        if site.uplink is None or site.trust is None:
            raise AgentError("site file: 'uplink' and 'trust' are needed to run (broker and registrar's key)")
        result = check(site, profiles=profiles)
        if not result.ok:
            text = "\n".join(str(p) for p in result.errors)
            raise AgentError(f"the site file is refused; run: tizgin agent check\n{text}")
        self.site = site
        self._base = base
        self._version = version
        self._config_sha256 = config_sha256
        self._state_dir = base / site.agent.state_dir
        self.clock = clock or SystemClock(site.agent.clock_source)
        self._registrar = {k.kid: k for k in (VerifyKey.from_text(t) for t in site.trust.registrar_keys)}
        self._check = result
        self._opened = asyncio.Event()
        self._progress: asyncio.Queue[Progress] = asyncio.Queue(maxsize=200)

    def _build(self, snmp: SnmpSession | None, keys: Keys) -> None:
        site, clock = self.site, self.clock
        self.graph = Graph(site)
        self.live = LiveState(site, clock)
        self.bench: Bench = build(
            site,
            self.live,
            clock,
            base=self._base,
            snmp=snmp,
            learned=LearnedFile(self._state_dir / "learned.json"),
        )
        self.bench.on_miner = self._miner_read
        self.trusted = TrustedTime(clock, int(self.ledger.meta("high_water") or 0))
        self.register = Register(site.site.id, self._registrar, self.ledger, self.trusted)
        self.register.load()
        self.journal = Journal(self.ledger, clock)
        self.journal.load()
        self.gates = Gates(
            site,
            self.ledger,
            self.live,
            clock,
            self._check,
            lambda profile: self.bench.profile_versions.get(profile, "unknown"),
        )
        self.gates.unsafe = self.bench.why_unsafe
        self.maintenance = Maintenance(
            site,
            self.graph,
            self.ledger,
            clock,
            self.trusted,
            lambda obj: wrong_with(obj, site, self.bench, self.live, clock),
        )
        self.maintenance.load()
        self.gates.maintained = self.maintenance.why
        self.duty = Duty(self.ledger, self.journal, clock, site.site.dispatch.ack_min)
        self.duty.load()
        self.gates.load()
        outputs = {s: port for s, port in self.bench.switches.items() if self.gates.switches[s].control is not None}
        self.fleet = Fleet(site, self.graph, self.live, self.gates, self.journal, clock, self.bench.machines, outputs)
        self.fleet.expect = self.bench.expect
        self.bench.on_image = lambda relay, image: self.fleet.take(relay, image.inputs, image.temperatures)
        shedder = Shedder(self.fleet, self.journal, self.live, clock, site.agent.timing.sleep_concurrency)
        restorer = Restorer(site, self.fleet, self.gates, self.journal, self.live, shedder, clock)
        self.engine = Engine(
            site,
            self.ledger,
            self.journal,
            self.gates,
            self.fleet,
            shedder,
            restorer,
            self.live,
            clock,
            self.trusted,
            self.emergency_w,
            self._silence_s,
            lambda: self.uplink.control.connected.is_set(),  # noqa: PLW0108 - the uplink exists only later
            self._queue_progress,
            entry=lambda: self.register.entry,
        )
        waves, live = self.engine.waves, self.live
        self.account = Account(
            site, self.ledger, self.journal, self.fleet, self.gates, waves.cooling, live, clock, self.terms
        )
        self.account.load()
        self.engine.observe = self.account.observe
        groups = {g.id: g for g in site.miners}
        self.batcher = Batcher(
            site.site.id,
            self.ledger.epoch,
            self.bulk,
            self.live,
            clock,
            {d.id: d.kind for d in site.devices},
            groups,
            site.agent.bulk_period_s,
        )
        self.balancing = Balancing(site, self.graph, self.ledger, self.fleet, clock)
        self.closer = SlotCloser(site, self.ledger, self.bench, self.fleet, self.graph, clock, balancing=self.balancing)
        self.archivist = Archivist(site.agent.slot_s, self.ledger, self.closer, clock)
        self.live.dark_w = self.closer.dark_w
        self.closer.check_clock = self.engine.check_clock = self._check_clock
        self.events = Events(site, self.ledger, self.live, self.gates, self.engine, self.closer, self.batcher)
        self.events.listen()
        self.events.hear(self.bench)
        self.inventory = InventoryWatch(site, self._state_dir, clock, self.events.record)
        self.bench.on_foreign_write = self._foreign_write
        self.exchange = Exchange(site, self.ledger, self.gates, self.closer)
        self.commissioner = Commissioner(
            site,
            self._state_dir,
            self.ledger,
            self.gates,
            self.fleet,
            shedder,
            self.graph,
            self.live,
            clock,
            self.bench,
            self.closer.states,
        )
        spots = Spots(self.ledger, self.closer, clock, lambda: self.register.document)
        forecaster = Forecaster(site, self.ledger, self.fleet, self.gates, self.live, clock, self.emergency_w)
        self.checkpointer = Checkpointer(
            site.site.id,
            self.ledger,
            keys.log,
            clock,
            site.agent.slot_s,
            lambda: self.register.policy,
            lambda message: self.uplink.publish("checkpoint", message),
            self.trusted.raise_to,
            first=int(self.ledger.meta("log_from") or 0),
            registered=lambda: self.register.log_keys(self.ledger.epoch),
        )
        self.rotation = Rotation(
            site.site.id,
            self._state_dir,
            keys,
            self.ledger,
            self.register,
            self.checkpointer,
            clock,
            token_of(site, self._base),
        )
        self.rotation.listen()
        self.inbox = Inbox(
            self._state_dir,
            self.gates,
            lambda: self.register.document,
            self.exchange.take,
            self.commissioner.take,
            {
                "rotate": self.rotation.take,
                "spot": spots.take,
                "maintenance": self.maintenance.begin,
                "maintenance_end": self.maintenance.end,
                "order_ack": self.duty.ack,
                "spoken": self.duty.spoken,
                "plan": forecaster.answer,
            },
            lambda raw: hand_over(raw, self._take_order, self.ledger),
            slow=frozenset({"rotate"}),
        )
        self.uplink = self._uplink()

    def _uplink_settings(self) -> UplinkSettings:
        if self.site.uplink is None:  # refused in __init__
            raise AgentError("site file: no uplink")
        return self.site.uplink

    def _tls_store(self) -> TlsStore:
        settings = self._uplink_settings()
        ca, cert, key = (self._base / name for name in (settings.ca_file, settings.cert_file, settings.key_file))
        return TlsStore(self._state_dir, ca, cert, key, self.site.site.id)

    def _uplink(self) -> Uplink:
        settings, tls = self._uplink_settings(), self._tls_store()
        identity = tls.in_force()
        endpoint = Endpoint(settings.broker, str(tls.ca_file), str(identity.cert_file), str(identity.key_file))
        facts = Facts(
            self._version,
            lambda: self.gates.mode,
            self.site.site.simulation,
            self._config_sha256,
            lambda: self.register.version,
            lambda: self.reports.inventory() if self._opened.is_set() else None,
        )
        try:
            return Uplink(
                site=self.site.site.id,
                endpoint=endpoint,
                tls=tls,
                ledger=self.ledger,
                bulk=self.bulk,
                clock=self.clock,
                slot_s=self.site.agent.slot_s,
                backfill_bytes_s=settings.backfill_kbit_s * 125,
                facts=facts,
                on_order=self._take_order,
                on_keys=self.register.take,
                checkpointer=self.checkpointer,
            )
        except ValueError as error:
            raise AgentError(f"site file uplink: {error}") from None

    def _reception(self, genesis_ms: int) -> Reception:
        return Reception(
            self.site,
            self.ledger,
            self.journal,
            self.engine,
            self.clock,
            self.trusted,
            lambda: self.register.document,
            genesis_ms,
            self._head,
            self.checkpointer.shown,
        )

    def _head(self) -> LogHead | None:
        head = self.checkpointer.head
        return None if head is None else {"s": head.size, "r": head.root.hex()}

    def emergency_w(self) -> int:
        """Emergency reservation: the register's word, the site file's until there is one."""
        entry = self.register.entry
        return entry.emergency_w if entry else round(self.site.site.reservation.emergency_kw * 1000)

    def terms(self) -> Terms:
        """What an order's report is judged by: the register's word, the site file's until there is one."""
        entry, own = self.register.entry, self.site.site
        if entry is not None:
            return Terms(entry.contracted_w, entry.technological_min * 60, self.emergency_w())
        technological_s = round(own.reservation.technological_min * 60)
        return Terms(round(own.contracted_kw * 1000), technological_s, self.emergency_w())

    def _foreign_write(self, device: str, output: str, was: bool, now: bool) -> None:
        self.events.foreign_write(device, output, was, now)
        self.commissioner.foreign_write(device, output, was, now)

    def _silence_s(self) -> float:
        """Seconds since central last spoke to us."""
        return (self.clock.mono_ns() - self.uplink.last_commit_ns) / 1e9

    async def _take_order(self, raw: bytes, retained: bool) -> None:
        await self._opened.wait()
        await self.reception.take(raw, retained)

    def _miner_read(self, machine: str) -> None:
        seen = self.live.miners[machine]
        self.batcher.take_miner(machine, seen)
        self.balancing.miner_read(machine, seen)
        self.inventory.take(machine, seen.status, seen.at_ms)

    def _check_clock(self) -> None:
        step = self._steps.check()
        if step is not None:
            self._clock_stepped(step)

    def _clock_stepped(self, step: Step) -> None:
        """Somebody set the wall clock: told, recorded, and the slot it happened in is a gap."""
        log.error("clock_stepped", step_ms=step.step_ms, was_ms=step.was_ms, now_ms=step.now_ms)
        self.closer.clock_stepped()
        self.engine.clock_stepped(step.step_ms)
        fields = {"step_ms": step.step_ms, "was": step.was_ms, "now": step.now_ms}
        self.events.spawn(self.ledger.commit(Txn().record("site", "clock", fields)))

    async def _queue_progress(self, message: Progress) -> None:
        if self._progress.full():
            self._progress.get_nowait()
        self._progress.put_nowait(message)
