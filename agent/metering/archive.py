"""Reads meters' own load profiles and writes ``archive`` records: gaps are filled, slots that were read are checked.

The gap and the interval stay. A slot is told once, under the bind of the meter whose memory it is, and only while that
meter's clock is right. One task per link, with a bound on requests a minute, behind everything else on it: a meter
whose memory holds days makes no other one late.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog

from agent.clock import Clock
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.metering.bookkeeping import Book, ends_of, slot_wh
from agent.metering.closer import SlotCloser
from agent.metering.meterclock import WARN_MS
from agent.metering.state import PointState
from drivers.cancellation import cancel_was_lost
from drivers.errors import DriverError
from drivers.modbus.curve import ClockReading, CurveReader, Found
from drivers.modbus.scheduler import Klass
from wire.canonical import Json

log = structlog.get_logger()

PER_MINUTE = 30
"""Requests for load profiles on one link."""
SETTLE_S = 60.0
"""So long after its end an entry is left alone, for it may be half written; a third of a slot where that is less."""
AT_ONCE = 30
"""Slots looked for in one look; the next point of the link comes before the next look."""
MOST_BACK_S = 45 * 86_400
CHUNK = 500
SERIAL_S = 10.0


class CurveState(StrEnum):
    """What became of the newest look."""

    UNREAD = "unread"
    GOOD = "good"
    CLOCK = "clock"
    """The meter's clock is not right: nothing is written."""
    PERIOD = "period"
    """Its periods do not divide the slot."""
    SILENT = "silent"
    """It could not be read."""
    REFUSED = "refused"
    """Entries that cannot be believed."""


@dataclass(slots=True)
class _Point:
    state: PointState
    reader: CurveReader
    book: Book
    seen: CurveState = CurveState.UNREAD
    period_s: int | None = None
    loaded: bool = False


@dataclass(slots=True)
class Archivist:
    """Owner of load profiles. ``sleep`` is what it waits by."""

    slot_s: int
    ledger: Ledger
    closer: SlotCloser
    clock: Clock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    written: int = 0
    _points: dict[str, _Point] = field(default_factory=dict)

    def prepare(self) -> None:
        """Find the points whose meter has a load profile; after the closer's own preparation."""
        for name, state in self.closer.states.items():
            if state.lp is not None and name not in self._points:
                reader = CurveReader(state.port.link, state.port.device, self._pace)
                self._points[name] = _Point(state, reader, Book(self.slot_s))

    def methods(self) -> dict[str, dict[str, Any]]:
        """For status: by which series each point is known first, and how its load profile stands."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.closer.states:
            point = self._points.get(name)
            method = "profile" if point is not None and point.seen is CurveState.GOOD else "snapshots"
            found[name] = {"method": method}
            if point is not None:
                found[name] |= {"load_profile": point.seen.value, "open_gaps": len(point.book.gaps)}
        return found

    async def run(self) -> None:
        """Look until cancelled."""
        links: dict[int, list[_Point]] = {}
        for point in self._points.values():
            links.setdefault(id(point.reader.link), []).append(point)
        async with asyncio.TaskGroup() as group:
            for number, points in enumerate(links.values()):
                group.create_task(self._serve(points), name=f"profiles-{number}")

    async def _serve(self, points: Sequence[_Point]) -> None:
        """The points of one link, one after the other."""
        while not cancel_was_lost():
            more = False
            for point in points:
                try:
                    more = await self.look(point.state.point.id) or more
                except LedgerError as error:
                    log.error("archive_not_recorded", point=point.state.point.id, error=str(error))
            await self.sleep(1.0 if more else min(60.0, self.slot_s / 6))

    async def _pace(self) -> None:
        await self.sleep(60.0 / PER_MINUTE)

    # -- one look ------------------------------------------------------------------------------------------------

    async def look(self, name: str) -> bool:
        """Look for slots of one point and record them; True where more may be had at once.

        Raises:
            LedgerError: it could not be recorded.
        """
        point = self._points[name]
        state, book = point.state, point.book
        await self._catch_up(point)
        if state.chain is None or state.rebind or state.renew or state.swap is not None or state.stepped:
            return False
        now_s = self.clock.now_ms() / 1000
        book.forget(int(now_s) - self._depth_s(point))
        until = int(now_s - min(SETTLE_S, self.slot_s / 3))
        wanted = book.wanted(until, AT_ONCE)
        if not wanted:
            return False
        try:
            clock = await point.reader.clock()
            point.period_s = clock.period_s
            if not self._usable(point, clock):
                return False
            of = str(point.reader.lp["wh"]["of"])
            ends = {end for t0 in wanted for end in ends_of(t0, self.slot_s, clock.period_s, of)}
            found = await point.reader.read(ends, clock)
            serial = await self._serial(state)
        except DriverError as error:
            self._tell(point, CurveState.SILENT, str(error))
            return False
        if serial is not None and state.sn is not None and serial != state.sn:
            return False  # another meter answers: the next boundary binds it, and its memory is not ours
        done = await self._write(point, wanted, clock, found, serial)
        self._judge(point, wanted, done, found)
        return bool(book.wanted(until, 1)) and bool(done)

    def _depth_s(self, point: _Point) -> int:
        entries = point.reader.curve.entries
        return min(MOST_BACK_S, entries * (point.period_s or point.reader.curve.period_s or self.slot_s))

    def _usable(self, point: _Point, clock: ClockReading) -> bool:
        """Whether entries can be laid on slots: the clock is right, ours is too, and the periods fit."""
        if self.slot_s % clock.period_s:
            self._tell(
                point, CurveState.PERIOD, f"periods of {clock.period_s} s do not divide slots of {self.slot_s} s"
            )
            return False
        limit_ms = min(WARN_MS, self.slot_s * 200)
        if abs(clock.offset_ms) > limit_ms:
            self._tell(point, CurveState.CLOCK, f"its clock is {clock.offset_ms} ms away, allowed are {limit_ms}")
            return False
        return self.clock.synchronised()

    async def _serial(self, state: PointState) -> str | None:
        """Who answers, after the entries were read; ``None`` where the meter cannot tell."""
        if "serial_number" not in state.port.device.profile.point_ids:
            return None
        sample = await state.port.link.read(
            state.port.device, ("serial_number",), klass=Klass.POLL, deadline_s=SERIAL_S
        )
        read = sample.readings.get("serial_number")
        if read is None or read.value is None or not read.quality.usable:
            raise DriverError(f"{state.port.device.id}: its serial number could not be read after the entries")
        return str(read.value)

    async def _write(
        self, point: _Point, wanted: list[int], clock: ClockReading, found: Found, serial: str | None
    ) -> list[int]:
        """Record what was found; the beginnings of those slots."""
        state, txn, done = point.state, Txn(), []
        async with state.writing:
            await self._catch_up(point)
            chain = state.chain
            if chain is None or state.swap is not None or not set(wanted) <= point.book.gaps | point.book.reads:
                return []
            for t0 in wanted:
                fields = self._fields(point, t0, clock, found)
                if fields is not None:
                    txn.record(f"mp:{state.point.id}", "archive", fields | {"cfg": chain.cfg, "sn": serial})
                    done.append(t0)
            if done:
                await self.ledger.commit(txn)
                self.written += len(done)
        await self._catch_up(point)
        return done

    def _fields(self, point: _Point, t0: int, clock: ClockReading, found: Found) -> Json | None:
        lp = point.state.lp
        if lp is None:
            return None
        ends = ends_of(t0, self.slot_s, clock.period_s, lp["wh"]["of"])
        if not ends or any(end not in found.entries for end in ends):
            return None
        wh = slot_wh([found.entries[end] for end in ends], lp)
        if wh is None:
            found.refuse(f"slot {t0}: its entries give no energy")
            return None
        frames = list(dict.fromkeys([*clock.frames, *(found.frames[end] for end in ends)]))
        return {
            "t0": t0,
            "t1": t0 + self.slot_s,
            "wh": wh,
            "src": "profile",
            "rt": clock.rt_ms,
            "mto": clock.offset_ms,
            "raw": [[request.hex(), answer.hex()] for request, answer in frames],
        }

    def _judge(self, point: _Point, wanted: list[int], done: list[int], found: Found) -> None:
        for t0 in wanted:
            if t0 not in done:
                point.book.missed(t0)
        if found.refused and not done:
            self._tell(point, CurveState.REFUSED, "; ".join(found.refused))
        elif done:
            self._tell(point, CurveState.GOOD, "")

    def _tell(self, point: _Point, seen: CurveState, why: str) -> None:
        """To the log, once until it changes."""
        if seen is point.seen:
            return
        was, point.seen = point.seen, seen
        level = log.info if seen is CurveState.GOOD else log.warning
        level("load_profile", point=point.state.point.id, was=was.value, now=seen.value, why=why)

    # -- what was written ----------------------------------------------------------------------------------------

    async def _catch_up(self, point: _Point) -> None:
        """Read the point's records that are new; at first those as old as the memory."""
        stream, book = f"mp:{point.state.point.id}", point.book
        if not point.loaded:
            await self._load(point, stream)
            point.loaded = True
        query = "SELECT n, payload FROM record WHERE stream=? AND n>? ORDER BY n LIMIT ?"
        while rows := await self.ledger.read(query, stream, book.cursor, CHUNK):
            for n, payload in rows:
                book.take(int(n), json.loads(bytes(payload)))

    async def _load(self, point: _Point, stream: str) -> None:
        for (payload,) in await self.ledger.read(
            "SELECT payload FROM record WHERE stream=? AND ty='bind' ORDER BY n", stream
        ):
            point.book.take(-1, json.loads(bytes(payload)))
        oldest_ms = self.clock.now_ms() - self._depth_s(point) * 1000
        n = await self._count(stream)
        while n > 0:
            first = max(0, n - CHUNK)
            rows = await self.ledger.read("SELECT at FROM record WHERE stream=? AND n=?", stream, first)
            n = first
            if rows and int(rows[0][0]) < oldest_ms:
                break
        point.book.cursor = n - 1

    async def _count(self, stream: str) -> int:
        rows = await self.ledger.read("SELECT count FROM stream WHERE name=?", stream)
        return int(rows[0][0]) if rows else 0
