"""Outbox and delivery: from disk until central says so, nothing believed that was never sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.ledger import Ledger, Txn
from agent.outbox import BulkOutbox
from agent.uplink.delivery import EVIDENCE_BYTES, RESEND_S, Delivery, TokenBucket
from agent.uplink.link import NotConnected
from tests.unit.agent_kit import SimClock
from wire.keys import SigningKey
from wire.messages import Commit, Range, StreamCommit, Want
from wire.records import parse_line

SITE = "kz-small-1"


# the outbox ----------------------------------------------------------------------------------------------------------


def outbox(path: Path, *, boot: str = "b1", max_bytes: int = 10**9) -> BulkOutbox:
    return BulkOutbox(path, boot=boot, max_bytes=max_bytes)


async def put(box: BulkOutbox, packed: bytes = b"x" * 100) -> bool:
    return await box.put(packed, n=box.next_n, t0=0, rows=2, cells=10)


async def test_batches_are_numbered_without_holes_and_counted(tmp_path: Path) -> None:
    box = outbox(tmp_path / "bulk.db")
    for _ in range(3):
        assert await put(box)
    assert [b.n for b in await box.open_batches(0, 10)] == [0, 1, 2]
    assert (box.next_n, box.rows, box.cells, box.refused) == (3, 6, 30, 0)
    newest = await box.newest_open()
    assert newest is not None
    assert newest.n == 2
    await box.close()


async def test_a_new_start_numbers_anew_under_its_own_name(tmp_path: Path) -> None:
    box = outbox(tmp_path / "bulk.db")
    await put(box)
    await box.close()
    box = outbox(tmp_path / "bulk.db", boot="b2")
    await put(box)
    assert [(b.boot, b.n) for b in await box.open_batches(0, 10)] == [("b1", 0), ("b2", 0)]
    await box.close()


async def test_the_byte_cap_gives_up_what_central_has_and_never_what_it_has_not(tmp_path: Path) -> None:
    box = outbox(tmp_path / "bulk.db", max_bytes=200_000)
    while await put(box, b"x" * 10_000):
        pass
    kept = box.next_n
    assert 10 <= kept <= 20
    assert box.refused == 1
    assert await box.backlog() == (kept, kept), "nothing unconfirmed was dropped"
    assert await box.mark("b1", 0, 4, 1000) == 5
    assert await put(box, b"x" * 10_000)
    assert [b.n for b in await box.open_batches(0, 100)] == list(range(5, kept + 1))
    await box.close()


async def test_a_refused_number_is_used_by_the_next_batch_that_fits(tmp_path: Path) -> None:
    box = outbox(tmp_path / "bulk.db", max_bytes=100_000)
    assert not await put(box, b"x" * 200_000)
    assert await put(box)
    assert [b.n for b in await box.open_batches(0, 10)] == [0]
    await box.close()


async def test_confirmed_batches_are_kept_a_day_and_can_be_wanted_again(tmp_path: Path) -> None:
    box = outbox(tmp_path / "bulk.db")
    for _ in range(3):
        await put(box)
    day = 24 * 3600 * 1000
    assert await box.mark("b1", 0, 1, 1_000) == 2
    assert await box.mark("b1", 0, 1, 1_000) == 0
    assert await box.reopen("b1", 1, 1) == 1
    assert [b.n for b in await box.open_batches(0, 10)] == [1, 2]
    assert await box.mark("b1", 2, 2, 1_000 + day + 1) == 1
    assert await box.backlog() == (1, 2), "after a day number 0 is gone"
    await box.close()


@pytest.mark.parametrize("junk", [b"no database" * 1000, b"SQLite format 3\x00" + b"\xff" * 8000])
async def test_a_corrupt_file_is_set_aside_and_work_goes_on(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "bulk.db"
    path.write_bytes(junk)
    box = outbox(path)
    assert await put(box)
    assert (tmp_path / "bulk.db.corrupt").read_bytes() == junk
    await box.close()


# delivery ------------------------------------------------------------------------------------------------------------


@dataclass
class Link:
    """The seam of :class:`agent.uplink.link.MqttLink` that delivery uses."""

    connected: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    breaks: bool = False

    async def publish(self, name: str, payload: bytes, **_: Any) -> None:
        await asyncio.sleep(0)
        if self.breaks:
            raise NotConnected(name)
        self.sent.append((name.rsplit("/", 1)[-1], payload))

    def lines(self, name: str) -> list[tuple[str, int]]:
        docs = [parse_line(line)[1] for kind, body in self.sent if kind == name for line in body.split(b"\n")]
        return [(d["st"], d["n"]) for d in docs]


class Rig:
    def __init__(self, folder: Path) -> None:
        self.clock = SimClock()
        self.ledger = Ledger.open(
            folder / "ledger.db", site=SITE, key=SigningKey.generate(), clock=self.clock, fw="test"
        )
        self.ledger.start()
        self.bulk = outbox(folder / "bulk.db", boot=self.ledger.boot)
        self.control, self.bulk_link = Link(), Link()
        self.delivery = Delivery(
            SITE,
            self.ledger,
            self.bulk,
            self.control,  # type: ignore[arg-type]  # the seam
            self.bulk_link,  # type: ignore[arg-type]  # the seam
            self.clock,
            900,
            10**9,
        )
        self.ledger.on_append(self.delivery.notify)
        self.task: asyncio.Task[None] | None = None

    def connect(self) -> None:
        self.control.connected.set()
        self.bulk_link.connected.set()
        self.delivery.reconnected()
        self.task = self.task or asyncio.create_task(self.delivery.run())

    async def write(self, stream: str, count: int = 1, size: int = 10) -> None:
        for _ in range(count):
            await self.ledger.commit(Txn().record(stream, "event", {"ev": "x", "obj": "y" * size}), urgent=True)

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"not so: control {self.control.sent!r:.500} bulk {self.bulk_link.sent!r:.500}")

    async def commit(
        self, stream: str, *ranges: tuple[int, int], epoch: str | None = None, boot: str | None = None
    ) -> None:
        spans = tuple(Range(first=a, last=b) for a, b in ranges)
        rows = (StreamCommit(stream=stream, boot=boot, ranges=spans),)
        await self.delivery.committed(Commit(site=SITE, epoch=epoch or self.ledger.epoch, at=1, streams=rows))

    async def want(self, stream: str, first: int, last: int, epoch: str | None = None) -> None:
        await self.delivery.wanted(
            Want(site=SITE, epoch=epoch or self.ledger.epoch, stream=stream, first=first, last=last)
        )

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(self.task, 5)
        await self.bulk.close()
        await self.ledger.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    found = Rig(tmp_path)
    yield found
    await found.close()


async def test_answers_and_young_evidence_go_by_control_at_once(rig: Rig) -> None:
    rig.connect()
    await rig.write("cmd")
    await rig.write("site")
    await rig.until(lambda: len(rig.control.sent) >= 2)
    assert rig.control.lines("answer") == [("cmd", 0)]
    assert rig.control.lines("evidence") == [("site", 0)]


async def test_old_evidence_goes_by_the_bulk_connection_but_old_answers_by_control(rig: Rig) -> None:
    await rig.write("site")
    await rig.write("cmd")
    rig.clock.advance(3 * 900)
    rig.connect()
    await rig.until(lambda: rig.bulk_link.lines("evidence") and rig.control.lines("answer"))
    assert rig.control.lines("evidence") == []
    assert rig.control.lines("answer") == [("cmd", 0)]


async def test_an_answer_does_not_wait_behind_the_backlog_of_an_outage(rig: Rig) -> None:
    txn = Txn()
    for number in range(1500):
        txn.record("mp:M0", "event", {"ev": "x", "obj": str(number)})
    await rig.ledger.commit(txn, urgent=True)
    rig.clock.advance(3 * 900)
    await rig.write("cmd")
    await rig.write("site")
    rig.control.connected.set()
    rig.delivery.reconnected()
    rig.task = asyncio.create_task(rig.delivery.run())
    await rig.until(lambda: rig.control.lines("answer") and rig.control.lines("evidence"))
    assert rig.control.lines("answer") == [("cmd", 0)]
    assert rig.control.lines("evidence") == [("site", 0)]
    assert rig.bulk_link.sent == [], "the bulk connection is not even up"


async def test_what_is_not_confirmed_is_sent_again_and_what_is_confirmed_is_not(rig: Rig) -> None:
    rig.connect()
    await rig.write("site", 2)
    await rig.until(lambda: len(rig.control.lines("evidence")) >= 2)
    await rig.commit("site", (0, 0))
    rig.clock.advance(RESEND_S + 1)
    rig.delivery.notify()
    await rig.until(lambda: len(rig.control.lines("evidence")) >= 3)
    assert rig.control.lines("evidence")[2:] == [("site", 1)]
    assert rig.delivery.counters.evidence_confirmed == 1


async def test_after_a_broken_connection_everything_unconfirmed_goes_again(rig: Rig) -> None:
    rig.control.breaks = True
    rig.connect()
    await rig.write("site", 3)
    await asyncio.sleep(0.05)
    assert rig.control.sent == []
    rig.control.breaks = False
    rig.delivery.reconnected()
    await rig.until(lambda: len(rig.control.lines("evidence")) == 3)
    rig.delivery.reconnected()
    await rig.until(lambda: len(rig.control.lines("evidence")) == 6)


async def test_records_travel_in_packets_of_bounded_size_and_a_big_one_alone(rig: Rig) -> None:
    await rig.write("site", 30, 2000)
    await rig.write("site", 1, 30_000)
    rig.connect()
    await rig.until(lambda: len(rig.control.lines("evidence")) == 31)
    assert [n for _, n in rig.control.lines("evidence")] == list(range(31)), "in order"
    for _, body in rig.control.sent:
        assert len(body) <= EVIDENCE_BYTES + 4096 or body.count(b"\n") == 0
    assert 3 <= len(rig.control.sent) <= 10


@pytest.mark.parametrize(
    ("stream", "last", "epoch"),
    [("site", 3, None), ("site", 10**9, None), ("mp:M0", 0, None), ("nonsense", 0, None), ("site", 0, "e9-00000000")],
)
async def test_a_commit_of_what_was_never_written_is_counted_and_not_believed(
    rig: Rig, stream: str, last: int, epoch: str | None
) -> None:
    await rig.write("site", 3)
    await rig.commit(stream, (0, last), epoch=epoch)
    assert rig.delivery.counters.strange_commits == 1
    assert len(await rig.ledger.undelivered(0, 10)) == 3


async def test_a_strange_range_does_not_spoil_the_good_one_beside_it(rig: Rig) -> None:
    await rig.write("site", 3)
    await rig.commit("site", (0, 1), (2, 99))
    assert [r.n for r in await rig.ledger.undelivered(0, 10)] == [2]
    assert rig.delivery.counters.strange_commits == 1


async def test_bulk_is_confirmed_by_its_own_start_and_number(rig: Rig) -> None:
    for _ in range(3):
        await put(rig.bulk)
    await rig.commit("bulk", (0, 3), boot=rig.ledger.boot)
    assert rig.delivery.counters.strange_commits == 1
    await rig.commit("bulk", (0, 1), boot="another")
    assert await rig.bulk.backlog() == (3, 3)
    await rig.commit("bulk", (0, 1), boot=rig.ledger.boot)
    assert [b.n for b in await rig.bulk.open_batches(0, 10)] == [2]
    assert rig.delivery.counters.bulk_confirmed == 2


async def test_batches_go_by_the_bulk_connection_newest_first(rig: Rig) -> None:
    for n in range(4):
        await put(rig.bulk, b"batch %d" % n)
    rig.connect()
    await rig.until(lambda: len(rig.bulk_link.sent) == 4)
    assert [body for _, body in rig.bulk_link.sent] == [b"batch 3", b"batch 0", b"batch 1", b"batch 2"]


async def test_what_central_wants_again_is_sent_again(rig: Rig) -> None:
    rig.connect()
    await rig.write("site", 4)
    await rig.until(lambda: len(rig.control.lines("evidence")) == 4)
    await rig.commit("site", (0, 3))
    await rig.want("site", 1, 2)
    await rig.until(lambda: len(rig.control.lines("evidence")) == 6)
    assert rig.control.lines("evidence")[4:] == [("site", 1), ("site", 2)]
    await put(rig.bulk)
    rig.delivery.notify_bulk()
    await rig.until(lambda: len(rig.bulk_link.sent) == 1)
    await rig.commit("bulk", (0, 0), boot=rig.ledger.boot)
    await rig.want("bulk", 0, 0)
    await rig.until(lambda: len(rig.bulk_link.sent) == 2)


async def test_a_want_of_another_life_or_of_the_unknown_does_nothing(rig: Rig) -> None:
    rig.connect()
    await rig.write("site")
    await rig.until(lambda: len(rig.control.lines("evidence")) == 1)
    await rig.commit("site", (0, 0))
    await rig.want("site", 0, 0, epoch="e9-00000000")
    await rig.want("site", 5, 10**12)
    await rig.want("nonsense", 0, 0)
    await asyncio.sleep(0.05)
    assert len(rig.control.lines("evidence")) == 1


async def test_stopping_ends_delivery_however_it_is_timed(rig: Rig) -> None:
    rig.connect()
    await rig.write("site")
    await rig.until(lambda: rig.control.sent)
    rig.delivery.notify()
    assert rig.task is not None
    rig.task.cancel()
    done, _ = await asyncio.wait([rig.task], timeout=5)
    assert done, "the cancellation was lost"


async def test_the_bucket_lets_no_more_than_its_rate_through() -> None:
    clock = SimClock()
    bucket = TokenBucket(1000, clock)
    await bucket.take(1000)
    waiting = asyncio.create_task(bucket.take(500))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    clock.advance(0.5)
    await asyncio.wait_for(waiting, 5)
