"""What goes up, from disk: evidence and answers until central confirms them, telemetry batches likewise.

Control connection: answers at once, then evidence younger than two slots with at most 16 KB in flight. Bulk
connection: new batches first, then the backlog of evidence and batches oldest first under a token bucket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from agent.clock import Clock
from agent.errors import LedgerError
from agent.ledger import Appended, Ledger
from agent.outbox import BulkOutbox
from agent.uplink.link import MqttLink, NotConnected
from wire.messages import Commit, Want
from wire.names import topic

log = structlog.get_logger()

RESEND_S = 30.0
EVIDENCE_BYTES = 16_384
YOUNG_SLOTS = 2


@dataclass(slots=True)
class Counters:
    """What delivery did, for metrics."""

    evidence_sent: int = 0
    evidence_confirmed: int = 0
    bulk_sent: int = 0
    bulk_confirmed: int = 0
    strange_commits: int = 0


@dataclass(slots=True)
class TokenBucket:
    """Bytes per second for the backlog."""

    rate: float
    clock: Clock
    level: float = 0.0
    last_ns: int = 0

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes may go."""
        while True:
            now = self.clock.mono_ns()
            if self.last_ns:
                self.level = min(self.level + (now - self.last_ns) / 1e9 * self.rate, max(self.rate, size))
            else:
                self.level = self.rate
            self.last_ns = now
            if self.level >= size:
                self.level -= size
                return
            await asyncio.sleep((size - self.level) / self.rate)


@dataclass(slots=True)
class Delivery:
    """Senders of one site."""

    site: str
    ledger: Ledger
    bulk: BulkOutbox
    control_link: MqttLink
    bulk_link: MqttLink
    clock: Clock
    slot_s: int
    backfill_bytes_s: float
    counters: Counters = field(default_factory=Counters)
    _sent: dict[int, int] = field(default_factory=dict)
    _bulk_sent: dict[int, int] = field(default_factory=dict)
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _bulk_work: asyncio.Event = field(default_factory=asyncio.Event)

    def notify(self, _records: list[Appended] | None = None) -> None:
        """New records are on disk."""
        self._work.set()

    def notify_bulk(self) -> None:
        """A new batch is on disk."""
        self._bulk_work.set()

    def reconnected(self) -> None:
        """Nothing that was in flight is known to have arrived."""
        self._sent.clear()
        self._bulk_sent.clear()
        self._work.set()
        self._bulk_work.set()

    async def run(self) -> None:
        """Run the senders until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever(self._control_round, self._work, self.control_link), name="send-control")
            group.create_task(self._forever(self._bulk_round, self._bulk_work, self.bulk_link), name="send-bulk")

    async def _forever(self, work: Callable[[], Awaitable[bool]], wake: asyncio.Event, link: MqttLink) -> None:
        while True:
            await link.connected.wait()
            try:
                more = await work()
            except NotConnected:
                await asyncio.sleep(0.2)
                continue
            except LedgerError as error:
                log.error("delivery_ledger", error=str(error))
                await asyncio.sleep(5)
                continue
            if not more:
                # Not wait_for: in Python 3.11 it can lose a cancellation that comes together with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5.0):
                        await wake.wait()
                wake.clear()

    def _due(self, sent: dict[int, int], idx: int) -> bool:
        at = sent.get(idx)
        return at is None or (self.clock.mono_ns() - at) / 1e9 > RESEND_S

    def _young(self, record: Appended) -> bool:
        if _is_answer(record):
            return True
        return self.clock.now_ms() - self._at(record) <= YOUNG_SLOTS * self.slot_s * 1000

    @staticmethod
    def _at(record: Appended) -> int:
        marker = b'"at":'
        start = record.line.payload.index(marker) + len(marker)
        end = record.line.payload.index(b",", start)
        return int(record.line.payload[start:end])

    async def _control_round(self) -> bool:
        # The newest too: after an outage the oldest are a backlog that an answer must not wait behind.
        oldest, newest = await self.ledger.undelivered(0, 400), await self.ledger.undelivered_newest(400)
        records = sorted({r.idx: r for r in (*oldest, *newest)}.values(), key=lambda r: r.idx)
        due = [r for r in records if self._due(self._sent, r.idx)]
        answers = [r for r in due if _is_answer(r)]
        young = [r for r in due if not _is_answer(r) and self._young(r)]
        for name, chosen in (("answer", answers), ("evidence", young)):
            for group in _chunks(chosen, EVIDENCE_BYTES):
                await self._send(self.control_link, name, group)
        return bool(answers or young) and len(oldest) == 400

    async def _send(self, link: MqttLink, name: str, group: list[Appended]) -> None:
        await link.publish(topic(self.site, name), b"\n".join(r.line.encode() for r in group))
        now = self.clock.mono_ns()
        for record in group:
            self._sent[record.idx] = now
        self.counters.evidence_sent += len(group)

    async def _bulk_round(self) -> bool:
        bucket = TokenBucket(self.backfill_bytes_s, self.clock)
        newest = await self.bulk.newest_open()
        if newest is not None and self._due(self._bulk_sent, newest.id):
            await self._send_batch(newest.id, newest.packed)
        worked = False
        old = [r for r in await self.ledger.undelivered(0, 2000) if self._due(self._sent, r.idx) and not self._young(r)]
        for group in _chunks(old, 65_536):
            await bucket.take(sum(len(r.line.payload) for r in group))
            await self._send(self.bulk_link, "evidence", group)
            worked = True
        after = 0
        while batches := await self.bulk.open_batches(after, 20):
            after = batches[-1].id
            for batch in batches:
                if self._due(self._bulk_sent, batch.id):
                    await bucket.take(len(batch.packed))
                    await self._send_batch(batch.id, batch.packed)
                    worked = True
            if self._bulk_work.is_set():
                return True
        return worked

    async def _send_batch(self, batch_id: int, packed: bytes) -> None:
        await self.bulk_link.publish(topic(self.site, "bulk"), packed)
        self._bulk_sent[batch_id] = self.clock.mono_ns()
        self.counters.bulk_sent += 1

    async def committed(self, commit: Commit) -> None:
        """Central confirmed rows. What was never written here is counted and alarmed, not believed."""
        if commit.epoch != self.ledger.epoch:
            self.counters.strange_commits += 1
            log.warning("commit_other_epoch", epoch=commit.epoch, ours=self.ledger.epoch)
            return
        heads = await self.ledger.heads() if any(s.stream != "bulk" for s in commit.streams) else {}
        for stream in commit.streams:
            for span in stream.ranges:
                if stream.stream == "bulk":
                    boot = stream.boot or ""
                    if boot == self.bulk.boot and span.last >= self.bulk.next_n:
                        self.counters.strange_commits += 1
                        log.warning("commit_never_sent", stream="bulk", last=span.last, next=self.bulk.next_n)
                        continue
                    self.counters.bulk_confirmed += await self.bulk.mark(
                        boot, span.first, span.last, self.clock.now_ms()
                    )
                    continue
                count, _ = heads.get(stream.stream, (0, None))
                if span.last >= count:
                    self.counters.strange_commits += 1
                    log.warning("commit_never_sent", stream=stream.stream, last=span.last, count=count)
                    continue
                self.counters.evidence_confirmed += await self.ledger.mark_delivered(
                    stream.stream, span.first, span.last
                )
        if len(self._sent) > 20_000:
            self._sent.clear()
        if len(self._bulk_sent) > 20_000:
            self._bulk_sent.clear()

    async def wanted(self, want: Want) -> None:
        """Central asked for records again."""
        if want.epoch != self.ledger.epoch:
            log.warning("want_other_epoch", epoch=want.epoch, ours=self.ledger.epoch)
            return
        if want.stream == "bulk":
            await self.bulk.reopen(self.bulk.boot, want.first, want.last)
            self._bulk_sent.clear()
            self._bulk_work.set()
            return
        await self.ledger.mark_wanted(want.stream, want.first, want.last)
        for record in await self.ledger.lines(want.stream, want.first, want.last):
            self._sent.pop(record.idx, None)
        self._work.set()
        self._bulk_work.set()


def _is_answer(record: Appended) -> bool:
    """True for what a dispatcher waits for; traces of orders are evidence like any other."""
    return record.stream == "cmd" and record.ty != "cmd_trace"


def _chunks(records: list[Appended], limit: int) -> list[list[Appended]]:
    groups: list[list[Appended]] = []
    size = limit + 1
    for record in records:
        length = len(record.line.payload) + 128
        if size + length > limit:
            groups.append([])
            size = 0
        groups[-1].append(record)
        size += length
    return groups
