"""The meter's own clocked load profile, as a profile file describes it: memory that is read and never pointed at.

Either a ring of entries in plain registers, or the same entries in a file that Modbus function 0x14 reads. A memory
that shows its entries only after a register was written (ABB A43/B23 and SATEC are read like that) cannot be described
here: a meter is never written. :func:`evidence` gives the same description as a ``bind`` record carries it (``lp``).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from config.base import Model
from drivers.profiles.fields import FIXED_WORDS, READ_FUNCTION, Address, Exact, HexWords, Order, Table

READ_FILE = 20
MAX_FILE_WORDS = 120
"""Words that one sub-request of function 0x14 may ask for (its answer has at most 245 bytes)."""
MOST_ENTRIES = 65_536
CALENDAR = ("year", "month", "day", "hour", "minute", "second")
NumberType = Literal["u16", "i16", "u32", "i32", "u64", "i64"]
EnergyType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd", "mod10k"]
_ZONE = re.compile(r"([+-])(\d\d):([0-5]\d)")


def _zone(value: object) -> object:
    if value == "utc":
        return 0
    if isinstance(value, str) and (found := _ZONE.fullmatch(value)):
        seconds = int(found[2]) * 3600 + int(found[3]) * 60
        return -seconds if found[1] == "-" else seconds
    raise ValueError(f'seen {value!r}, expected "utc" or an offset in quotes such as "+05:00"')


class Instant(Model):
    """How an instant is written in words: a count of seconds, or the bytes of a calendar date."""

    type: Literal["u32", "i32", "u64", "i64", "calendar"]
    words: int = Field(default=0, ge=0, le=4)
    word_order: Order = "big"
    scale: Exact = Fraction(1)
    """Seconds per count."""
    epoch_s: int = Field(default=0, ge=-(2**40), le=2**40)
    """What count 0 means, seconds since 1970-01-01 by the meter's own time: 946684800 where it counts from 2000."""
    bytes: tuple[Literal["year", "month", "day", "hour", "minute", "second", "-"], ...] = Field(
        default=(), max_length=8
    )
    """``calendar`` only: what each byte holds, the high byte of the first word first; ``-`` for one that is ignored."""
    digits: Literal["binary", "bcd"] = "binary"

    @model_validator(mode="before")
    @classmethod
    def _width(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("words"):
            return data
        parts = data.get("bytes")
        if data.get("type") == "calendar" and isinstance(parts, list | tuple):
            return {**data, "words": len(parts) // 2}
        return {**data, "words": FIXED_WORDS.get(str(data.get("type")), 0)}

    @model_validator(mode="after")
    def _whole(self) -> Instant:
        if self.type == "calendar":
            named = [name for name in self.bytes if name != "-"]
            lacking = [name for name in CALENDAR[:5] if name not in named]
            if lacking or len(set(named)) != len(named) or len(self.bytes) != 2 * self.words:
                raise ValueError(
                    f"bytes: seen {', '.join(self.bytes) or 'none'} in {self.words} words; expected two for each word, "
                    "year to minute once each"
                )
        elif self.bytes or self.words != FIXED_WORDS[self.type]:
            raise ValueError(f"words: seen {self.words} of type {self.type}; a number has its own width and no 'bytes'")
        if self.scale <= 0:
            raise ValueError(f"scale: seen {self.scale}, expected more than 0")
        return self

    def map(self) -> dict[str, Any]:
        """For a ``bind`` record."""
        if self.type == "calendar":
            return {"words": self.words, "bytes": list(self.bytes), "digits": self.digits}
        lsb = {"num": self.scale.numerator, "den": self.scale.denominator}
        number = {"words": self.words, "order": self.word_order, "enc": self.type, "lsb": lsb}
        return number | {"epoch_s": self.epoch_s}


class ClockField(Instant):
    """Where the meter shows its present time. Without it nobody can tell which slot an entry belongs to."""

    table: Table = "holding"
    addr: Address


class TimeField(Instant):
    """Where an entry has its time. ``at``: words from the entry's first one."""

    at: int = Field(ge=0, le=124)
    marks: Literal["begin", "end"]
    """Whether the time of an entry is the beginning of its period or the end."""


class Number(Model):
    """A plain number in registers of its own."""

    table: Table = "holding"
    addr: Address
    type: NumberType = "u16"
    word_order: Order = "big"

    @property
    def words(self) -> int:
        """Registers it occupies."""
        return FIXED_WORDS[self.type]


class PeriodField(Number):
    """Where the meter says how long a period is."""

    scale: Exact = Fraction(1)
    """Seconds per count: 60 where the register holds minutes."""


class Pointer(Number):
    """Which entry is the newest: its number is the register's content less ``base``."""

    base: int = Field(default=0, ge=-MOST_ENTRIES, le=MOST_ENTRIES)


class EnergyField(Model):
    """Energy of an entry."""

    at: int = Field(ge=0, le=124)
    type: EnergyType
    words: int = Field(default=0, ge=0, le=4)
    word_order: Order = "big"
    scale: Exact = Fraction(1)
    """Wh per count, primary or secondary as the registers of the meter are."""
    of: Literal["period", "register"]
    """``period``: what was counted in it. ``register``: what the import register stood at when it ended."""
    rollover: int | Literal["width"] | None = None
    """``register`` only: count at which it starts again from 0."""
    sentinels: tuple[HexWords, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _width(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("words"):
            return {**data, "words": FIXED_WORDS.get(str(data.get("type")), 0)}
        return data

    @model_validator(mode="after")
    def _whole(self) -> EnergyField:
        if self.words != FIXED_WORDS.get(self.type, self.words) or not self.words:
            raise ValueError(f"words: seen {self.words} of type {self.type}; correct one of the two")
        if self.scale <= 0:
            raise ValueError(f"scale: seen {self.scale}, expected more than 0")
        if self.rollover is not None and (self.of == "period" or self.type in {"f32", "f64"}):
            raise ValueError("rollover: only a whole-number register has one; remove it")
        if isinstance(self.rollover, int) and self.rollover < 2:
            raise ValueError(f"rollover: seen {self.rollover}, expected at least 2")
        if any(len(s) != 4 * self.words for s in self.sentinels):
            raise ValueError(f"sentinels: expected {4 * self.words} digits each, as wide as the field")
        return self

    @property
    def modulus(self) -> int | None:
        """Count at which the register starts again."""
        if self.rollover == "width":
            if self.type in {"bcd", "mod10k"}:
                return int(10 ** (4 * self.words))
            return 1 << (16 * self.words - (self.type[0] == "i"))
        return self.rollover


class StatusField(Model):
    """A word of an entry that says whether it is whole: ``good`` are its contents after ``mask``."""

    at: int = Field(ge=0, le=124)
    mask: Annotated[HexWords, Field(max_length=4)] = "ffff"
    good: tuple[int, ...] = Field(min_length=1, max_length=16)


class EntryVector(Model):
    """Golden vector: an entry of these words ends at ``end_s`` (UTC) and holds ``wh``; both null where it is empty."""

    words: Annotated[HexWords, Field(max_length=4 * MAX_FILE_WORDS)]
    period_s: int | None = Field(default=None, ge=1, le=86_400)
    """Only where the meter tells its period in a register."""
    end_s: int | None
    wh: Exact | None
    note: str = ""

    @property
    def registers(self) -> tuple[int, ...]:
        """The words as numbers, in address order."""
        return tuple(int(self.words[i : i + 4], 16) for i in range(0, len(self.words), 4))


class LoadProfile(Model):
    """See the module. Entries are numbered from 0; entry ``i`` begins at ``addr`` + ``i`` · ``words``."""

    read: Literal["registers", "file"] = "registers"
    table: Table = "holding"
    addr: int = Field(ge=0, le=0xFFFF)
    """First register of entry 0; in a file its record number."""
    file: int | None = Field(default=None, ge=1, le=0xFFFF)
    numbering: Literal["words", "entries"] = "words"
    """``file`` only: what a record number counts, words (as the standard says) or whole entries."""
    entries: int = Field(ge=2, le=MOST_ENTRIES)
    words: int = Field(ge=2, le=MAX_FILE_WORDS)
    """Of one entry."""
    order: Literal["rising", "falling"] = "rising"
    """``falling``: the next entry is the older one."""
    newest: Pointer | Annotated[int, Field(ge=0, lt=MOST_ENTRIES)] | None = None
    """A register that tells, the number itself where it is always the same; absent: it is looked for by time stamps."""
    period_s: int | None = Field(default=None, ge=1, le=86_400)
    period: PeriodField | None = None
    utc_offset: Annotated[int, BeforeValidator(_zone), Field(ge=-50_400, le=50_400)]
    """The time zone that the meter's clock is set to, ``utc`` or ``"+05:00"``."""
    clock: ClockField
    time: TimeField
    energy: EnergyField
    status: StatusField | None = None
    empty: tuple[HexWords, ...] = ()
    """Contents of the time that mean "no entry"."""
    confirmed: int = Field(default=1, ge=0, le=9)
    """Independent sources that agree, as for a point."""
    note: str = ""
    tests: tuple[EntryVector, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _fits(self) -> LoadProfile:
        if (self.period_s is None) == (self.period is None):
            raise ValueError("period_s: give it or 'period', the register that tells it, and not both")
        if (self.read == "file") != (self.file is not None):
            raise ValueError(
                f"file: seen {self.file} with read: {self.read}; a file has a number and registers have none"
            )
        if self.read == "registers" and self.numbering != "words":
            raise ValueError("numbering: registers are always counted one by one; remove it")
        if self.newest is None and self.order == "falling":
            raise ValueError("newest: missing; a list that falls says where it begins, such as 0")
        if isinstance(self.newest, int) and self.newest >= self.entries:
            raise ValueError(f"newest: seen {self.newest}, expected below {self.entries}")
        if self.addr + (self.entries - 1) * self.step + (self.words if self.step > 1 else 1) > 0x10000:
            raise ValueError(f"addr: {self.entries} entries from {self.addr} run past 65535; correct one of them")
        taken: set[int] = set()
        for name, at, words in self._parts():
            own = set(range(at, at + words))
            if at + words > self.words:
                raise ValueError(f"{name}: words {at} to {at + words - 1} of an entry that has {self.words}")
            if own & taken:
                raise ValueError(f"{name}: overlaps another part of the entry; correct 'at'")
            taken |= own
        if any(len(pattern) != 4 * self.time.words for pattern in self.empty):
            raise ValueError(f"empty: expected {4 * self.time.words} digits each, as wide as the entry's time")
        return self

    def _parts(self) -> tuple[tuple[str, int, int], ...]:
        parts = [("time", self.time.at, self.time.words), ("energy", self.energy.at, self.energy.words)]
        return (*parts, ("status", self.status.at, 1)) if self.status is not None else tuple(parts)

    @property
    def step(self) -> int:
        """How far it is from one entry to the next, as addresses count."""
        return 1 if self.numbering == "entries" else self.words

    @property
    def function(self) -> int:
        """Modbus function that reads it."""
        return READ_FILE if self.read == "file" else READ_FUNCTION[self.table]


def evidence(curve: LoadProfile, factor: Fraction = Fraction(1)) -> dict[str, Any]:
    """How a verifier re-decodes entries from raw frames: ``bind.lp`` (``docs/protocol.md``).

    ``factor``: what the agent multiplies the meter's energies by to get primary ones.
    """
    lsb = curve.energy.scale * factor
    wh: dict[str, Any] = {
        "at": curve.energy.at,
        "words": curve.energy.words,
        "order": curve.energy.word_order,
        "enc": curve.energy.type,
        "lsb": {"num": lsb.numerator, "den": lsb.denominator},
        "of": curve.energy.of,
        "none": list(curve.energy.sentinels),
    }
    if curve.energy.modulus is not None and curve.energy.modulus <= 2**53 - 1:
        wh["roll"] = curve.energy.modulus
    clock = {"fc": READ_FUNCTION[curve.clock.table], "addr": curve.clock.addr} | curve.clock.map()
    found: dict[str, Any] = {
        "fc": curve.function,
        "addr": curve.addr,
        "step": curve.step,
        "entries": curve.entries,
        "words": curve.words,
        "zone_s": curve.utc_offset,
        "clock": clock,
        "time": {"at": curve.time.at, "marks": curve.time.marks} | curve.time.map(),
        "wh": wh,
        "none": list(curve.empty),
    }
    if curve.file is not None:
        found["file"] = curve.file
    if curve.status is not None:
        found["status"] = {"at": curve.status.at, "mask": int(curve.status.mask, 16), "good": list(curve.status.good)}
    if curve.period is not None:
        scale = curve.period.scale
        found["period"] = {
            "fc": READ_FUNCTION[curve.period.table],
            "addr": curve.period.addr,
            "words": curve.period.words,
            "order": curve.period.word_order,
            "enc": curve.period.type,
            "lsb": {"num": scale.numerator, "den": scale.denominator},
        }
    else:
        found["period_s"] = curve.period_s
    return found
