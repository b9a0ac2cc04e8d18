"""One group of sorted messages into both stores; what is on disk afterwards, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.collector.sorting import Quarantined, Sorted
from central.store import evidence
from central.store.database import Database, put, tally
from central.store.schema import inventories, quarantine
from central.telemetry.protocol import TelemetryStore
from central.witness import Answer, Witness
from wire.messages import Commit, Range, StreamCommit

MAX_QUARANTINED_PER_SITE = 500
MAX_QUARANTINED_BYTES = 8192
MAX_RANGES = 1000


@dataclass(slots=True)
class Outcome:
    """What one group did."""

    evidence_new: int = 0
    evidence_duplicates: int = 0
    forked: set[str] = field(default_factory=set)
    batches_new: int = 0
    batches_duplicate: int = 0
    quarantined: Counter[tuple[str, str]] = field(default_factory=Counter)
    cosigns: list[Answer] = field(default_factory=list)
    evidence_on_disk: dict[evidence.StreamKey, list[int]] = field(default_factory=dict)
    bulk_on_disk: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)

    def commits(self, now_ms: int) -> Iterator[Commit]:
        """``commit`` messages for everything that is on disk now, duplicates included."""
        by_life: dict[tuple[str, str], list[StreamCommit]] = {}
        for (site, epoch, stream), numbers in self.evidence_on_disk.items():
            by_life.setdefault((site, epoch), []).extend(_stream_commits(stream, None, numbers))
        for (site, epoch, boot), numbers in self.bulk_on_disk.items():
            by_life.setdefault((site, epoch), []).extend(_stream_commits("bulk", boot, numbers))
        for (site, epoch), streams in by_life.items():
            for start in range(0, len(streams), 500):
                yield Commit(site=site, epoch=epoch, at=now_ms, streams=tuple(streams[start : start + 500]))


def _stream_commits(stream: str, boot: str | None, numbers: Iterable[int]) -> Iterator[StreamCommit]:
    found = ranges(numbers)
    for start in range(0, len(found), MAX_RANGES):
        yield StreamCommit(stream=stream, boot=boot, ranges=tuple(found[start : start + MAX_RANGES]))


def ranges(numbers: Iterable[int]) -> list[Range]:
    """Numbers as ranges, ascending."""
    found: list[tuple[int, int]] = []
    for n in sorted(set(numbers)):
        if found and found[-1][1] == n - 1:
            found[-1] = (found[-1][0], n)
        else:
            found.append((n, n))
    return [Range(first=first, last=last) for first, last in found]


class Storer:
    """Writes groups: SQLite (or PostgreSQL) first, then telemetry, each in one transaction."""

    def __init__(self, database: Database, telemetry: TelemetryStore, witness: Witness) -> None:
        self._database = database
        self._telemetry = telemetry
        self._witness = witness

    async def store(self, group: Sequence[Sorted], now_ms: int) -> Outcome:
        """Store a group. When this returns, everything it names is on disk."""
        outcome = Outcome()
        if any(s.evidence or s.quarantined or s.inventory or s.checkpoint is not None for s in group):
            await self._database.write(lambda c: self._relational(c, group, outcome, now_ms))
        bulk = [(s.batch, s.message.payload) for s in group if s.batch is not None]
        if bulk:
            written = await self._telemetry.write(bulk, now_ms)
            outcome.batches_new += len(written.new)
            outcome.batches_duplicate += len(written.duplicates)
            for batch, _ in bulk:
                outcome.bulk_on_disk.setdefault((batch.site, batch.epoch, batch.boot), []).append(batch.n)
            for other in written.conflicting:
                outcome.forked.add(other.site)
        return outcome

    def _relational(self, connection: Connection, group: Sequence[Sorted], outcome: Outcome, now_ms: int) -> None:
        lines = [line for item in group for line in item.evidence]
        if lines:
            stored = evidence.store(connection, lines, now_ms)
            outcome.evidence_new += stored.new
            outcome.evidence_duplicates += stored.duplicates
            outcome.evidence_on_disk = stored.on_disk
            outcome.forked |= stored.forked_sites
        for item in group:
            if item.inventory is not None:
                row = {"site": item.site, "at": item.inventory.at, "body": item.message.payload}
                put(connection, inventories, row)
            if item.checkpoint is not None:
                outcome.cosigns.extend(self._witness.take(connection, item.checkpoint, now_ms))
        self._keep_refused(connection, [q for item in group for q in item.quarantined], outcome, now_ms)

    @staticmethod
    def _keep_refused(connection: Connection, refused: Sequence[Quarantined], outcome: Outcome, now_ms: int) -> None:
        room: dict[str, int] = {}
        for item in refused:
            outcome.quarantined[item.site, item.code] += 1
            if item.site not in room:
                held = connection.execute(
                    sa.select(sa.func.count()).select_from(quarantine).where(quarantine.c.site == item.site)
                ).scalar_one()
                room[item.site] = MAX_QUARANTINED_PER_SITE - held
            tally(connection, item.site, f"quarantined_{item.code}", 1)
            if room[item.site] <= 0:
                continue
            room[item.site] -= 1
            row = {
                "site": item.site,
                "topic": item.topic,
                "reason": item.code,
                "detail": item.detail,
                "size": len(item.body),
                "body": item.body[:MAX_QUARANTINED_BYTES],
                "received_at": now_ms,
            }
            connection.execute(sa.insert(quarantine), [row])
