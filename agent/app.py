"""The life of the agent process: from keys and ledger to running tasks, and in good order to the end.

What it consists of, and how the parts hang together, is :mod:`agent.assembly`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.assembly import Assembly
from agent.clock import STEP_MS, Step, StepWatch
from agent.errors import LedgerError
from agent.health import HealthServer
from agent.hsm.key import token_of
from agent.identity import Keys, load_keys
from agent.ledger import Ledger, Txn
from agent.outbox import BulkOutbox
from agent.reports import Reports
from agent.rotation import settle
from agent.rounds import Rounds
from drivers.snmp.session import SnmpSession

log = structlog.get_logger()

HIGH_WATER_S = 30.0
DRAIN_S = 3.0
GUARD_S = 3.0
"""How long a start waits to hear what witnesses hold of this log; off line it goes on without."""


@dataclass(frozen=True, slots=True)
class Started:
    """What a running agent tells its starter."""

    site: str
    epoch: str
    metrics_port: int


class AgentApp(Assembly):
    """One agent. :meth:`run` returns when cancelled; everything it started is then stopped."""

    async def run(self, on_ready: Callable[[Started], None] | None = None) -> None:
        """Run until cancelled.

        Raises:
            AgentError: it cannot start; the message says what to do.
        """
        keys = load_keys(self._state_dir, token_of(self.site, self._base))
        self._tls_store().check()
        self.ledger = Ledger.open(
            self._state_dir / "ledger.db",
            site=self.site.site.id,
            key=keys.rec,
            clock=self.clock,
            fw=self._version,
            successor=keys.next_rec,
        )
        self.bulk = BulkOutbox(
            self._state_dir / "bulk.db", boot=self.ledger.boot, max_bytes=self.site.agent.bulk_max_mb * 1024 * 1024
        )
        needs_snmp = any(d.kind == "pdu" for d in self.site.devices)
        self._steps = StepWatch(self.clock)
        try:
            keys = settle(self._state_dir, keys, self.ledger)
            async with SnmpSession() if needs_snmp else contextlib.nullcontext() as snmp:
                await self._run(keys, snmp, on_ready)
        finally:
            await self.bulk.close()
            await self.ledger.close()

    async def _run(self, keys: Keys, snmp: SnmpSession | None, on_ready: Callable[[Started], None] | None) -> None:
        self._build(snmp, keys)
        await self.rotation.arm()
        self.ledger.start()
        uplink = asyncio.create_task(self.uplink.run(), name="uplink")
        try:
            await self._run_linked(keys, uplink, on_ready)
        finally:
            uplink.cancel()
            await asyncio.gather(uplink, return_exceptions=True)

    async def _run_linked(
        self, keys: Keys, uplink: asyncio.Task[None], on_ready: Callable[[Started], None] | None
    ) -> None:
        genesis_ms = await self._open_books(keys)
        self.reception = self._reception(genesis_ms)
        self.reports = Reports(
            self.site,
            self.ledger,
            self.bulk,
            self.bench,
            self.live,
            self.engine,
            self.reception,
            self.closer,
            self.uplink,
            self.batcher.groups,
            self.clock,
            self.checkpointer,
            self.rotation,
            self.maintenance,
            self.duty,
            self.archivist,
        )
        # Positions, then the journal, then telemetry: the agent boots into enforcement.
        links = [asyncio.create_task(link.run(), name=f"link-{link.name}") for link in self.bench.links.values()]
        try:
            await asyncio.gather(self.bench.read_switches(), self.bench.read_settings())
            await self.engine.recover()
            await self.reception.recover()
        finally:
            for task in links:
                task.cancel()
            await asyncio.gather(*links, return_exceptions=True)
        await self.closer.prepare()
        self.archivist.prepare()
        self.exchange.load()
        await self.commissioner.recover()
        high_water = int(self.ledger.meta("high_water") or 0)
        if self.clock.now_ms() < high_water - STEP_MS:
            self._clock_stepped(Step(high_water, self.clock.now_ms()))
        self.closer.watch_supply()
        health = HealthServer(
            self.site.agent.metrics_host, self.site.agent.metrics_port, self.reports.status, self.reports.figures
        )
        await health.start()
        self._opened.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                self.bench.start(tasks, lambda: self.engine.busy() or self.commissioner.busy())
                for name, work in (
                    ("engine", self.engine.run()),
                    ("account", self.account.run()),
                    ("slots", self.closer.run()),
                    ("load-profiles", self.archivist.run()),
                    ("batches", self.batcher.run()),
                    ("uplink-watch", self._watch(uplink)),
                    ("inbox", self.inbox.run()),
                    ("commissioning", self.commissioner.run()),
                    ("live", self._publish_live()),
                    ("progress", self._publish_progress()),
                    ("housekeeping", self._housekeeping()),
                    ("clock-watch", self._watch_clock()),
                    ("checkpoints", self.checkpointer.run()),
                    ("inventory", self.inventory.run()),
                    ("maintenance", self.maintenance.run()),
                    ("duty", self.duty.run()),
                    ("curtailable", self.reports.watch()),
                    ("rounds", Rounds(self.ledger, self.live, self.gates, self.bench).run()),
                ):
                    tasks.create_task(work, name=name)
                log.info("agent_started", site=self.site.site.id, epoch=self.ledger.epoch, mode=self.gates.mode)
                if on_ready is not None:
                    on_ready(Started(self.site.site.id, self.ledger.epoch, health.port))
        finally:
            await health.stop()
            await self.bench.close()
            with contextlib.suppress(LedgerError):
                await self.ledger.commit(Txn().record("site", "stop", {"reason": "asked to stop"}), urgent=True)
                await self._drain()

    @staticmethod
    async def _watch(uplink: asyncio.Task[None]) -> None:
        """The uplink outlives the others by a moment at the end; if it fails before, the agent fails."""
        await asyncio.wait({uplink})
        uplink.result()

    async def _drain(self) -> None:
        """Give what is on disk a last chance to arrive; what does not is sent after the next start."""
        deadline = self.clock.mono_ns() + int(DRAIN_S * 1e9)
        while self.uplink.control.connected.is_set() and self.clock.mono_ns() < deadline:
            records = await self.ledger.undelivered(0, 1)
            batches = await self.bulk.open_batches(0, 1)
            if not records and not batches:
                return
            self.uplink.delivery.notify_bulk()
            await asyncio.sleep(0.05)

    async def _open_books(self, keys: Keys) -> int:
        """Write ``genesis`` in a new ledger and ``start`` always; returns the time of genesis, ms."""
        txn = Txn()
        guard = "new"
        await self.checkpointer.load()
        if not self.ledger.is_new:
            has_signed = await self.ledger.read("SELECT 1 FROM checkpoint LIMIT 1")
            guard = await self.checkpointer.ask_at_start(GUARD_S if has_signed else 0.0)
        if self.ledger.is_new:
            txn.record(
                "site",
                "genesis",
                {
                    "site": self.site.site.id,
                    "slot_s": self.site.agent.slot_s,
                    "k_rec": keys.rec.public.text,
                    "k_log": keys.log.public.text,
                    "prev": None,
                    "simulation": self.site.site.simulation,
                    "contracted_w": round(self.site.site.contracted_kw * 1000),
                    "emergency_w": round(self.site.site.reservation.emergency_kw * 1000),
                },
            )
        start = {"config_sha256": self._config_sha256, "mode": self.gates.mode, "keys_version": self.register.version}
        txn.record("site", "start", start | {"guard": guard})
        await self.ledger.commit(txn, urgent=True)
        rows = await self.ledger.read("SELECT at FROM record WHERE stream='site' AND n=0")
        return int(rows[0][0])

    # clock -------------------------------------------------------------------------------------------------------

    async def _watch_clock(self) -> None:
        while True:
            self._check_clock()
            await asyncio.sleep(1)

    # publishing ----------------------------------------------------------------------------------------------------

    async def _publish_progress(self) -> None:
        while True:
            await self.uplink.progress(await self._progress.get())

    async def _publish_live(self) -> None:
        while True:
            await self.uplink.live(self.reports.live())
            await asyncio.sleep(1.0 if self.engine.busy() else self.site.agent.live_period_s)

    async def _housekeeping(self) -> None:
        """Persist the trusted time and the status file."""
        path = self._state_dir / "status.json"
        count = 0
        while True:
            part = path.with_suffix(".part")
            try:
                part.write_text(json.dumps(self.reports.status()))
                part.replace(path)
                if count % 5 == 0:
                    await asyncio.to_thread(self.ledger.tend_ballast)
                if count % int(HIGH_WATER_S / 2) == 0:
                    await self.ledger.commit(Txn().set_meta("high_water", str(self.trusted.low_ms())))
            except (OSError, LedgerError) as error:
                log.error("housekeeping_failed", error=str(error))
            count += 1
            await asyncio.sleep(2)


def config_digest(path: Path) -> str:
    """SHA-256 of a configuration file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
