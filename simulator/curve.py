"""The load profile that a simulated meter keeps by its own clock, through everything that happens around it.

Entries are made at the ends of its periods, whoever reads or does not read it; its clock may drift or be set wrong. A
period in which the meter had no voltage has an entry all the same, of what was counted: its clock runs on a battery.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Protocol

from drivers.profiles.codec import bits_to_words, raw_number
from drivers.profiles.curvecodec import encode_instant
from drivers.profiles.loadcurve import LoadProfile, Number, Pointer, evidence
from drivers.profiles.model import MeterProfile

DEFAULT_PERIOD_S = 900


class ClockFault(Protocol):
    """What of a device's faults concerns its profile."""

    clock_s: float
    profile_empty: bool


class ProfileMemory:
    """See the module. ``ratio``: primary Wh are divided by it where the meter shows secondary values."""

    def __init__(
        self,
        curve: LoadProfile,
        wall_ms: Callable[[], int],
        faults: ClockFault,
        *,
        ratio: float = 1.0,
        period_s: int | None = None,
        drift_ppm: float = 0.0,
    ) -> None:
        self.curve = curve
        self.period_s = curve.period_s or period_s or DEFAULT_PERIOD_S
        self.drift_ppm = drift_ppm
        self.words: dict[int, tuple[int, ...]] = {}
        """Entry number → its words; what is not here was never written."""
        self.newest: int | None = None
        self._lp = evidence(curve)
        self._wall_ms, self._faults, self._ratio = wall_ms, faults, ratio
        self._began_s = wall_ms() / 1000
        self._true_s = self._began_s
        self._before_wh: float | None = None

    # -- time ----------------------------------------------------------------------------------------------------

    def _shown(self, true_s: float) -> float:
        """What the meter's clock shows at an instant, UTC."""
        return true_s + (true_s - self._began_s) * self.drift_ppm / 1e6 + self._faults.clock_s

    def advance(self, seconds: float, reading_wh: float, power_w: float) -> None:
        """So much time passes from a reading on, at one power."""
        begin, end = self._true_s, self._true_s + seconds
        self._true_s = end
        first = math.floor(self._shown(begin) / self.period_s) + 1
        for number in range(first, math.floor(self._shown(end) / self.period_s) + 1):
            at = number * self.period_s
            share = (at - self._shown(begin)) / max(self._shown(end) - self._shown(begin), 1e-9)
            self._close(at, reading_wh + power_w * share * seconds / 3600)

    def _close(self, end_s: int, reading_wh: float) -> None:
        before, self._before_wh = self._before_wh, reading_wh
        if before is not None and before > reading_wh:
            before = None  # another meter was put in, or its registers were set back
        if before is None and self.curve.energy.of == "period":
            return  # the first period has no beginning
        curve, entry = self.curve, [0] * self.curve.words
        stamp = end_s - (self.period_s if curve.time.marks == "begin" else 0)
        time = encode_instant(stamp, self._lp["time"], curve.utc_offset)
        energy = self._energy(before or 0.0, reading_wh)
        if self._faults.profile_empty:
            time = _pattern(curve.empty, curve.time.words, curve.time.word_order)
            energy = _pattern(curve.energy.sentinels, curve.energy.words, curve.energy.word_order)
        entry[curve.time.at : curve.time.at + curve.time.words] = time
        entry[curve.energy.at : curve.energy.at + curve.energy.words] = energy
        if curve.status is not None:
            entry[curve.status.at] = curve.status.good[0]
        if curve.order == "falling":
            self.words = {n + 1: words for n, words in self.words.items() if n + 1 < curve.entries}
            self.newest = 0
        else:
            self.newest = 0 if self.newest is None else (self.newest + 1) % curve.entries
        self.words[self.newest] = tuple(entry)

    def _energy(self, before_wh: float, after_wh: float) -> tuple[int, ...]:
        spec = self.curve.energy
        step = float(spec.scale) * self._ratio
        count = math.floor(after_wh / step)
        if spec.of == "period":
            count -= math.floor(before_wh / step)
        elif spec.modulus is not None:
            count %= spec.modulus
        return bits_to_words(_bits_of(count, spec.type, spec.words), spec.words, spec.word_order)

    # -- what is read --------------------------------------------------------------------------------------------

    def spans(self, table: str) -> list[range]:
        """Registers of a table that it answers for."""
        curve, found = self.curve, []
        if curve.read == "registers" and curve.table == table:
            found.append(range(curve.addr, curve.addr + curve.entries * curve.words))
        if curve.clock.table == table:
            found.append(range(curve.clock.addr, curve.clock.addr + curve.clock.words))
        found += [range(f.addr, f.addr + f.words) for f in self._numbers() if f.table == table]
        return found

    def _numbers(self) -> tuple[Number, ...]:
        pointer = (self.curve.newest,) if isinstance(self.curve.newest, Pointer) else ()
        return (*pointer, *((self.curve.period,) if self.curve.period is not None else ()))

    def registers(self, table: str, addr: int, count: int) -> Iterator[tuple[int, int]]:
        """(address, word) of those asked for that it answers for."""
        curve = self.curve
        now_s = math.floor(self._shown(self._wall_ms() / 1000))
        runs = [(curve.clock.table, curve.clock.addr, encode_instant(now_s, self._lp["clock"], curve.utc_offset))]
        for field in self._numbers():
            if isinstance(field, Pointer):
                value = (self.newest or 0) + field.base
            else:
                value = int(Fraction(self.period_s) / (curve.period.scale if curve.period is not None else 1))
            runs.append((field.table, field.addr, bits_to_words(value, field.words, field.word_order)))
        if curve.read == "registers" and curve.table == table:
            first = max(0, (addr - curve.addr) // curve.words)
            last = min(curve.entries, -(-(addr + count - curve.addr) // curve.words))
            runs += [(table, curve.addr + n * curve.words, self._entry(n)) for n in range(first, last)]
        for where, start, words in runs:
            for at, word in enumerate(words, start):
                if where == table and addr <= at < addr + count:
                    yield at, word

    def file_words(self, file: int, record: int, count: int) -> list[int] | None:
        """Words of the file; ``None`` where it has none."""
        curve = self.curve
        first, offset = divmod(record - curve.addr, curve.step)
        if file != curve.file or first < 0 or (curve.numbering == "entries" and count > curve.words):
            return None
        entries = -(-(offset + count) // curve.words)
        if first + entries > curve.entries:
            return None
        words = [word for n in range(first, first + entries) for word in self._entry(n)]
        return words[offset : offset + count]

    def _entry(self, number: int) -> tuple[int, ...]:
        curve = self.curve
        if number in self.words:
            return self.words[number]
        blank = [0] * curve.words
        blank[curve.time.at : curve.time.at + curve.time.words] = _pattern(
            curve.empty, curve.time.words, curve.time.word_order
        )
        return tuple(blank)


def memory_of(
    profile: MeterProfile, ratio: float, wall_ms: Callable[[], int], faults: ClockFault
) -> ProfileMemory | None:
    """The memory of a model that has one."""
    if profile.load_profile is None:
        return None
    return ProfileMemory(profile.load_profile, wall_ms, faults, ratio=ratio)


def _pattern(patterns: tuple[str, ...], words: int, order: str) -> tuple[int, ...]:
    return bits_to_words(int(patterns[0], 16) if patterns else 0, words, order)


def _bits_of(count: int, kind: str, words: int) -> int:
    """Raw bits of a whole count."""
    if kind == "bcd":
        return int(str(count % 10 ** (4 * words)), 16)
    bits = count & ((1 << 16 * words) - 1)
    if raw_number(bits, kind, words) != count:
        raise ValueError(f"a simulated load profile cannot count {count} in {kind}")
    return bits
