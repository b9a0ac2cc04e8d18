"""Reads a meter's own load profile: entries by the time they end, with bounded requests behind everything else.

All requests go in the lowest class, one after the other, and the caller sets their pace. Nothing a meter says is
believed before it was held against the rest: entries ahead of the meter's own clock, off the grid, of one time and
different contents, not whole or without energy are refused, and what was seen is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from drivers.errors import DriverError, Refused
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.pdu import MAX_FILE_WORDS, file_words, read_file_request, read_request, read_words
from drivers.modbus.scheduler import Answer, Klass
from drivers.profiles.codec import exact, words_to_bits
from drivers.profiles.curvecodec import BadEntry, Entry, decode_entry, decode_instant
from drivers.profiles.loadcurve import LoadProfile, Number, Pointer, evidence
from wire.quality import Quality

DEADLINE_S = 20.0
MAX_REQUESTS = 60
"""For one look into the memory."""
AHEAD_S = 2
"""An entry may end so far ahead of the meter's clock: the clock was read before it."""
MAX_TOLD = 8
NEAR = 3
Frame = tuple[bytes, bytes]


class NoProfile(DriverError):
    """The memory could not be read; the message says what was seen."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The meter's clock, and the length of its periods."""

    meter_ms: int
    rt_ms: int
    """When its answer was complete, by our own clock."""
    period_s: int
    frames: tuple[Frame, ...]

    @property
    def offset_ms(self) -> int:
        """The meter's clock minus ours."""
        return self.meter_ms - self.rt_ms


@dataclass(slots=True)
class Found:
    """What one look gave."""

    entries: dict[int, Entry] = field(default_factory=dict)
    """By the end of the period, UTC epoch s."""
    frames: dict[int, Frame] = field(default_factory=dict)
    """The frames that each entry came in, by the same time."""
    refused: list[str] = field(default_factory=list)
    seen_all: bool = False
    """True where whatever was not found is not in the memory; False where the look ended before it could be told."""
    _words: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    _twice: set[int] = field(default_factory=set)

    def put(self, entry: Entry, words: tuple[int, ...], frame: Frame) -> None:
        """Keep an entry; two of one time and different contents are both refused."""
        known = self._words.setdefault(entry.end_s, (entry.number, words))
        if known[0] != entry.number and known[1] != words:
            self._twice.add(entry.end_s)
            self.refuse(f"entries {known[0]} and {entry.number} both end at {entry.end_s} and differ")
        if entry.end_s in self._twice:
            self.entries.pop(entry.end_s, None)
            return
        self.entries[entry.end_s], self.frames[entry.end_s] = entry, frame

    def refuse(self, why: str) -> None:
        """Tell of something that is not believed."""
        if len(self.refused) < MAX_TOLD and why not in self.refused:
            self.refused.append(why)


async def _at_once() -> None:
    """No pace."""


@dataclass(slots=True)
class CurveReader:
    """One meter's memory.

    Raises:
        ValueError: the meter's profile describes none.
    """

    link: ModbusLink
    device: MeterDevice
    pace: Callable[[], Awaitable[None]] = _at_once
    """Waited for before each request."""
    curve: LoadProfile = field(init=False)
    lp: dict[str, Any] = field(init=False)
    _alone: bool = False
    """The unit refused several entries in one request: they are asked for one by one."""
    _newest: int | None = None
    _asked: int = 0

    def __post_init__(self) -> None:
        if self.device.profile.load_profile is None:
            raise ValueError(f"{self.device.id}: profile {self.device.profile.id} describes no load profile")
        self.curve = self.device.profile.load_profile
        self.lp = evidence(self.curve)

    async def clock(self) -> ClockReading:
        """The meter's clock and period.

        Raises:
            NoProfile: it could not be read.
        """
        self._asked = 0
        spec, frames = self.curve.clock, []
        words, answer = await self._registers(spec.table, spec.addr, spec.words)
        try:
            meter_s = decode_instant(words, self.lp["clock"], self.curve.utc_offset)
        except BadEntry as error:
            raise NoProfile(f"{self.device.id}: clock: {error}") from None
        frames.append((answer.request, answer.answer))
        if self.curve.period is None:
            return ClockReading(int(meter_s * 1000), answer.at_ms, self.curve.period_s or 0, tuple(frames))
        said, more = await self._registers(self.curve.period.table, self.curve.period.addr, self.curve.period.words)
        frames.append((more.request, more.answer))
        period = exact(_bits(said, self.curve.period), self.lp["period"])
        if period is None or period.denominator != 1 or not 1 <= period <= 86_400:
            raise NoProfile(f"{self.device.id}: period: seen {period} s, expected 1 to 86400 whole seconds")
        return ClockReading(int(meter_s * 1000), answer.at_ms, int(period), tuple(frames))

    async def read(self, ends: Iterable[int], clock: ClockReading) -> Found:
        """Entries that end at these times, as far as the memory has them and they can be believed.

        Raises:
            NoProfile: it could not be read.
        """
        wanted, found = set(ends), Found()
        newest = await self._find_newest(clock, found)
        if newest is None or not wanted:
            found.seen_all = newest is None
            return found
        oldest = min(wanted)
        back = await self._begin(newest, max(wanted), clock, found)
        while back < self.curve.entries:
            if self._asked >= MAX_REQUESTS:
                return found
            block = self._block(newest, back)
            passed = False
            for entry, words, frame in await self._entries(block, clock, found):
                passed = passed or entry.end_s < oldest
                if entry.end_s in wanted:
                    found.put(entry, words, frame)
            if passed or wanted <= found.entries.keys():
                break
            back += 1 if self._alone else len(block)
        found.seen_all = True
        return found

    # -- where to look -------------------------------------------------------------------------------------------

    async def _begin(self, newest: int, last: int, clock: ClockReading, found: Found) -> int:
        """How many entries behind the newest one to begin.

        Entries that the meter never made (it had no supply) can only bring a time nearer to the newest one.
        """
        end = await self._end_of(newest, clock, found)
        if end is None or end <= last:
            return 0
        back = (end - last) // clock.period_s
        if not 0 < back < self.curve.entries:
            return 0
        seen = await self._end_of(self._number(newest, back), clock, found)
        return back if seen is not None and seen >= last else 0

    def _number(self, newest: int, back: int) -> int:
        rising = self.curve.order == "rising"
        return (newest - back if rising else newest + back) % self.curve.entries

    def _block(self, newest: int, back: int) -> range:
        """Numbers of the next entries, oldest last, that one request can read: they do not run over the ring's seam."""
        most = min(self._most(), self.curve.entries - back)
        number = self._number(newest, back)
        if self.curve.order == "rising":
            return range(number, max(-1, number - most), -1)
        return range(number, min(self.curve.entries, number + most))

    def _most(self) -> int:
        if self._alone or self.curve.numbering == "entries":
            return 1
        limit = MAX_FILE_WORDS if self.curve.read == "file" else self.device.profile.link.max_registers
        return max(1, limit // self.curve.words)

    async def _find_newest(self, clock: ClockReading, found: Found) -> int | None:
        """Number of the newest entry; ``None`` where the memory is empty."""
        newest = self.curve.newest
        if isinstance(newest, int):
            return newest
        if isinstance(newest, Pointer):
            words, _ = await self._registers(newest.table, newest.addr, newest.words)
            number = _bits(words, newest) - newest.base
            if not 0 <= number < self.curve.entries:
                raise NoProfile(
                    f"{self.device.id}: newest entry: seen {number}, expected 0 to {self.curve.entries - 1}"
                )
            return number
        return await self._search(clock, found)

    async def _search(self, clock: ClockReading, found: Found) -> int | None:
        """By time stamps, which rise from entry 0 to the newest and go on with the oldest."""
        first = await self._end_near(0, clock, found)
        if first is None:
            return None
        low, high = 0, self.curve.entries - 1
        hint = self._newest
        if hint is not None:  # where it was last time, or one further on
            for number in (hint, hint + 1):
                if number <= high and not await self._rises(number, first, clock, found):
                    high = number - 1
                    break
                low = max(low, min(number, high))
        while low < high:
            middle = (low + high + 1) // 2
            if await self._rises(middle, first, clock, found):
                low = middle
            else:
                high = middle - 1
        self._newest = max(0, low)
        return self._newest

    async def _rises(self, number: int, first: int, clock: ClockReading, found: Found) -> bool:
        end = await self._end_near(number, clock, found)
        return end is not None and end >= first

    async def _end_near(self, number: int, clock: ClockReading, found: Found) -> int | None:
        """End of this entry, or of the next one that is whole: a single bad one must not hide all behind it."""
        for near in range(number, min(number + NEAR, self.curve.entries)):
            end = await self._end_of(near, clock, found)
            if end is not None:
                return end
        return None

    async def _end_of(self, number: int, clock: ClockReading, found: Found) -> int | None:
        for entry, _, _ in await self._entries(range(number, number + 1), clock, found):
            return entry.end_s
        return None

    # -- reading -------------------------------------------------------------------------------------------------

    async def _entries(
        self, numbers: range, clock: ClockReading, found: Found
    ) -> list[tuple[Entry, tuple[int, ...], Frame]]:
        """Whole entries of a block; ``found`` hears of those that are not."""
        try:
            first, words, answer = await self._words_of(numbers)
        except Refused:
            if len(numbers) == 1:
                raise NoProfile(f"{self.device.id}: the unit refuses to read entry {numbers[0]}") from None
            self._alone = True
            return await self._entries(numbers[:1], clock, found)
        out = []
        for number in numbers:
            at = (number - first) * self.curve.words
            own = words[at : at + self.curve.words]
            try:
                entry = decode_entry(number, own, self.lp, clock.period_s)
                if entry is not None and entry.end_s * 1000 > clock.meter_ms + AHEAD_S * 1000:
                    raise BadEntry(
                        f"entry {number} ends at {entry.end_s}, ahead of the meter's clock {clock.meter_ms // 1000}"
                    )
            except BadEntry as error:
                found.refuse(str(error))
                continue
            if entry is not None:
                out.append((entry, own, (answer.request, answer.answer)))
        return out

    async def _words_of(self, numbers: range) -> tuple[int, tuple[int, ...], Answer]:
        first, count = min(numbers), len(numbers) * self.curve.words
        at = self.curve.addr + first * self.curve.step
        if self.curve.file is not None:
            answer = await self._ask(read_file_request(self.curve.file, at, count))
            return first, file_words(answer.request, answer.answer), answer
        words, answer = await self._registers(self.curve.table, at, count)
        return first, words, answer

    async def _registers(self, table: str, addr: int, count: int) -> tuple[tuple[int, ...], Answer]:
        answer = await self._ask(read_request(3 if table == "holding" else 4, addr, count))
        return read_words(answer.request, answer.answer), answer

    async def _ask(self, pdu: bytes) -> Answer:
        await self.pace()
        self._asked += 1
        (answer,) = await self.link.exchange(self.device, (pdu,), klass=Klass.POLL, deadline_s=DEADLINE_S)
        if answer.ok:
            return answer
        text = f"{self.device.id}: function {pdu[0]}: {answer.error}"
        raise Refused(text) if answer.quality is Quality.EXCEPTION else NoProfile(text)


def _bits(words: tuple[int, ...], spec: Number) -> int:
    return words_to_bits(words, spec.word_order)
