"""One metering point through the period: slots, registers, energy, grades.

Grades of a slot: ``B`` read, and cosigned by the witnesses in time; ``C`` read, but cosigned late or by too few; ``Z``
no energy and proven so, ``R`` energy known from the registers on both sides, ``M`` missing, ``X`` a check failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from verifier.canonical import Object
from verifier.energy import DecodeMap, bits_from, energies_between, ratio, read_map, words_of
from verifier.errors import (
    BindError,
    CalendarError,
    ContinuityError,
    DecodeError,
    EnergyError,
    RatioError,
    VerifyError,
)
from verifier.records import Record
from verifier.register import Point
from verifier.switches import Switches

IMPORT, EXPORT = "energy_import_wh", "energy_export_wh"
GRADES = "BCZRMX"
MAX_ERRORS = 50
Registers = dict[str, int]


@dataclass(frozen=True, slots=True)
class Period:
    """[start_s, end_s) on the slot grid."""

    start_s: int
    end_s: int

    def holds(self, t0: int, t1: int) -> bool:
        """True for a slot that lies wholly inside."""
        return self.start_s <= t0 and t1 <= self.end_s


@dataclass(slots=True)
class Totals:
    """Sums over one period, in Wh."""

    wh: int = 0
    exp_wh: int | None = None
    bridged_wh: int = 0
    intervals: int = 0
    gaps: int = 0


@dataclass(frozen=True, slots=True)
class Bind:
    """The meter in service and how its registers are read."""

    leaf: str
    serial: str | None
    ct: Fraction
    vt: Fraction
    maps: Mapping[str, DecodeMap]

    def same_meter(self, other: Bind) -> bool:
        """True where readings of one continue those of the other."""
        return (self.serial, self.ct, self.vt, self.maps) == (other.serial, other.ct, other.vt, other.maps)


@dataclass(frozen=True, slots=True)
class Reading:
    """The closing reading of the last interval."""

    t: int
    rt: int
    reg: Registers
    bind: Bind


@dataclass(slots=True)
class MeteringPoint:
    """Walks the records of one metering point, epoch after epoch."""

    id: str
    slot_s: int
    asked: Period
    reported: Period
    registered: Point | None
    switches: Switches
    errors: list[VerifyError] = field(default_factory=list)
    asked_totals: Totals = field(default_factory=Totals)
    reported_totals: Totals = field(default_factory=Totals)
    first: Registers | None = None
    last: Registers | None = None
    serial: str | None = None
    _grades: bytearray = field(init=False)
    _bind: Bind | None = None
    _bound_s: int | None = None
    _next_s: int | None = None
    _reading: Reading | None = None
    _pending: list[tuple[int, str | None]] = field(default_factory=list)
    """Gap slots since the last interval, with the switch that is said to have been open."""

    def __post_init__(self) -> None:
        slots = (self.asked.end_s - self.asked.start_s) // self.slot_s
        self._grades = bytearray(b"?" * slots)

    @property
    def slots(self) -> int:
        """Slots of the asked period."""
        return len(self._grades)

    def counts(self) -> dict[str, int]:
        """Slots per grade."""
        return {grade: self._grades.count(grade.encode()) for grade in GRADES if grade.encode() in self._grades}

    def feed(self, records: Iterable[Record]) -> None:
        """All records of this point in one epoch. What is wrong goes to ``errors``.

        Raises:
            VerifyError: from the stream itself, where it breaks; see :func:`verifier.records.read_stream`.
        """
        for record in records:
            try:
                if record.ty == "bind":
                    self._take_bind(record)
                elif record.ty == "unbind":
                    self._take_unbind(record)
                elif record.ty == "interval":
                    self._take_interval(record)
                elif record.ty == "gap":
                    self._take_gap(record)
                if record.fault is not None:
                    raise record.fault
            except VerifyError as error:
                self._fail(record.doc, error)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                text = f"{record.where}: {record.ty}: {type(error).__name__}: {error}"
                self._fail(record.doc, DecodeError(text))

    def end_epoch(self, *, last: bool) -> None:
        """After the last record of an epoch; in the last one a bound point owes every slot to the period's end."""
        if last and self._bound_s is not None:
            self._owed(self.asked.end_s)
        self._settle("M")
        self._bind, self._bound_s, self._reading = None, None, None

    def broken(self) -> None:
        """The stream broke: what was not read before is failed, not missing."""
        self._settle("X")
        if self._next_s is None:
            self._mark_range(self.asked.start_s, self.asked.end_s, "X")
        else:
            self._mark_range(self._next_s, self.asked.end_s, "X")
        self._bind, self._bound_s, self._reading = None, None, None

    def finish(self) -> None:
        """After the last epoch: slots that nothing was said about were not bound, so they are missing."""
        self._grades = self._grades.replace(b"?", b"M")

    # Records

    def _take_bind(self, record: Record) -> None:
        doc = record.doc
        maps = {str(point): read_map(how) for point, how in doc["pts"].items()}
        if IMPORT not in maps:
            raise BindError(f"{record.where}: {self.id} is bound without {IMPORT}")
        bind = Bind(record.leaf, doc["sn"], ratio(doc["ct"]), ratio(doc["vt"]), maps)
        if self._bound_s is None:
            self._bound_s = -(-record.at // (1000 * self.slot_s)) * self.slot_s
        self._bind, self.serial = bind, bind.serial
        if self._reading is not None and not bind.same_meter(self._reading.bind):
            self._settle("M")
            self._reading = None
        if self.registered is None:
            return
        known = self.registered
        if (bind.ct, bind.vt) != (known.ct, known.vt):
            raise RatioError(
                f"{record.where}: {self.id} is bound with ratios {bind.ct} and {bind.vt}, "
                f"the register has {known.ct} and {known.vt}"
            )
        if known.serial is not None and bind.serial not in {None, known.serial}:
            raise RatioError(f"{record.where}: serial number {bind.serial!r}, the register has {known.serial!r}")

    def _take_unbind(self, record: Record) -> None:
        self._owed(record.at // (1000 * self.slot_s) * self.slot_s)
        self._settle("M")
        self._bind, self._bound_s, self._reading = None, None, None

    def _take_gap(self, record: Record) -> None:
        doc = record.doc
        t0, t1 = self._slot(record)
        if not isinstance(doc["why"], str) or self._bind is None:
            raise BindError(f"{record.where}: a gap needs a reason and a meter that was bound before")
        for totals, period in ((self.asked_totals, self.asked), (self.reported_totals, self.reported)):
            totals.gaps += period.holds(t0, t1)
        switch = doc.get("sw") if doc["why"] == "DE_ENERGISED" else None
        self._pending.append((t0, switch))

    def _take_interval(self, record: Record) -> None:
        doc = record.doc
        t0, t1 = self._slot(record)
        bind = self._bind
        if bind is None or doc["cfg"] != bind.leaf:
            raise BindError(f"{record.where}: cfg is not the bind in force for {self.id}")
        serial = bind.serial or (self.registered.serial if self.registered else None)
        if doc["sn"] is not None and serial is not None and doc["sn"] != serial:
            raise RatioError(f"{record.where}: serial number {doc['sn']!r} was read, expected {serial!r}")
        opening, closing = self._registers(record, bind)
        follows = self._reading is not None and self._reading.t == t0
        self._check_frames(record, bind, opening, closing, follows=follows)
        self._check_times(record, t0, t1)
        rollover = "rollover" in doc["q"]
        for name, stated in ((IMPORT, doc["wh"]), (EXPORT, doc["exp_wh"])):
            self._check_energy(record, bind, name, opening, closing, stated, rollover=rollover)
        if follows:
            self._check_continuity(record, opening)
        else:
            self._cross(record, bind, opening, t0)
        self._mark(t0, record.grade)
        for totals, period in ((self.asked_totals, self.asked), (self.reported_totals, self.reported)):
            if period.holds(t0, t1):
                totals.intervals += 1
                totals.wh += doc["wh"]
                if doc["exp_wh"] is not None:
                    totals.exp_wh = (totals.exp_wh or 0) + doc["exp_wh"]
        if self.asked.holds(t0, t1):
            self.first, self.last = self.first or opening, closing
        self._reading = Reading(t1, doc["rt1"], closing, bind)

    # Checks

    def _slot(self, record: Record) -> tuple[int, int]:
        t0, t1 = record.doc["t0"], record.doc["t1"]
        if type(t0) is not int or type(t1) is not int or t0 % self.slot_s or t1 != t0 + self.slot_s:
            raise CalendarError(f"{record.where}: slot {t0!r} to {t1!r} is not one of {self.slot_s} s on the grid")
        if self._next_s is not None and t0 < self._next_s:
            raise CalendarError(f"{record.where}: slot {t0} was accounted for already")
        self._owed(t0)
        self._next_s = t1
        return t0, t1

    def _owed(self, until_s: int) -> None:
        """Every slot from the last one accounted for to ``until_s`` should have been, while the point was bound."""
        if self._bound_s is None:
            return
        start = max(self._bound_s, self._next_s or self._bound_s)
        missing = Period(max(start, self.asked.start_s), min(until_s, self.asked.end_s))
        self._next_s = max(until_s, self._next_s or until_s)
        if missing.end_s > missing.start_s:
            count = (missing.end_s - missing.start_s) // self.slot_s
            self._error(CalendarError(f"{self.id}: {count} slots from {missing.start_s} are neither read nor gaps"))
            self._settle("M")
            self._mark_range(missing.start_s, missing.end_s, "M")

    def _registers(self, record: Record, bind: Bind) -> tuple[Registers, Registers]:
        reg = record.doc["reg"]
        if IMPORT not in reg:
            raise EnergyError(f"{record.where}: no {IMPORT}")
        for point, pair in reg.items():
            if point not in bind.maps or not isinstance(pair, list) or [type(n) for n in pair] != [int, int]:
                raise DecodeError(f"{record.where}: {point} has no decode map or is no pair of registers")
        return {p: pair[0] for p, pair in reg.items()}, {p: pair[1] for p, pair in reg.items()}

    def _check_frames(
        self, record: Record, bind: Bind, opening: Registers, closing: Registers, *, follows: bool
    ) -> None:
        doc = record.doc
        self._compare(record, bind, words_of(doc["raw"]), closing)
        if "raw0" in doc:
            self._compare(record, bind, words_of(doc["raw0"]), opening)
        elif not follows:
            raise DecodeError(f"{record.where}: no frames of the opening reading, and no interval before has them")

    def _compare(self, record: Record, bind: Bind, words: dict[tuple[int, int], int], expected: Registers) -> None:
        for point, bits in expected.items():
            seen = bits_from(words, bind.maps[point])
            if seen != bits:
                raise DecodeError(f"{record.where}: {point} is {bits}, its raw frames say {seen}")

    def _check_times(self, record: Record, t0: int, t1: int) -> None:
        window = min(30_000, self.slot_s * 100)
        for name, boundary in (("rt0", t0), ("rt1", t1)):
            late = record.doc[name] - boundary * 1000
            if not 0 <= late <= window:
                raise CalendarError(f"{record.where}: {name} is {late} ms after its boundary, allowed: 0-{window}")

    def _check_energy(
        self,
        record: Record,
        bind: Bind,
        point: str,
        opening: Registers,
        closing: Registers,
        stated: Any,
        *,
        rollover: bool,
    ) -> None:
        if point not in opening:
            if stated is not None:
                raise EnergyError(f"{record.where}: {stated} Wh without registers of {point}")
            return
        how = bind.maps[point]
        possible = energies_between(opening[point], closing[point], how, rollover=False)
        if rollover and possible and possible[0] < 0:
            possible = energies_between(opening[point], closing[point], how, rollover=True)
        if type(stated) is not int or stated not in possible:
            raise EnergyError(f"{record.where}: {point} states {stated} Wh, the registers say {list(possible)}")
        if stated < 0:
            raise EnergyError(f"{record.where}: {point} runs backwards by {-stated} Wh")

    def _check_continuity(self, record: Record, opening: Registers) -> None:
        before = self._reading
        if before is None:
            return
        changed = sorted(p for p in opening.keys() & before.reg.keys() if opening[p] != before.reg[p])
        if changed or record.doc["rt0"] != before.rt:
            what = ", ".join(changed) or "the instant of the reading"
            raise ContinuityError(f"{record.where}: {what} differs from the closing reading of the slot before")
        if "bridge_wh" in record.doc:
            raise ContinuityError(f"{record.where}: bridges a gap that is not there")

    def _cross(self, record: Record, bind: Bind, opening: Registers, t0: int) -> None:
        """After a gap: the energy between the last good reading and this opening one."""
        doc, before = record.doc, self._reading
        if "bridge_wh" not in doc:
            # A register that was reset or exchanged cannot be bridged. Energy that nobody states is not claimed here.
            self._settle("M")
            return
        bridge: Registers = doc["bridge_reg"]
        how = bind.maps[IMPORT]
        if doc["bridge_wh"] not in self._bridge(bridge[IMPORT], opening[IMPORT], how, doc):
            raise EnergyError(f"{record.where}: bridge_wh {doc['bridge_wh']} does not follow from the registers")
        if doc["bridge_rt"] > doc["rt0"]:
            raise ContinuityError(f"{record.where}: the bridge begins after it ends")
        start, energy, still = doc["bridge_rt"] // 1000 // self.slot_s * self.slot_s, doc["bridge_wh"], False
        if before is not None:
            moved = any(bridge[p] != before.reg[p] for p in bridge.keys() & before.reg.keys())
            if doc["bridge_rt"] < before.rt or (doc["bridge_rt"] == before.rt and moved):
                raise ContinuityError(f"{record.where}: the bridge does not begin at the last reading before the gap")
            # From the interval's own closing reading, so that the sum over the period telescopes.
            start, energy = before.t, min(self._bridge(before.reg[IMPORT], opening[IMPORT], how, doc), default=-1)
            still = all(opening[p] == before.reg[p] for p in opening.keys() & before.reg.keys())
        if energy < 0:
            raise EnergyError(f"{record.where}: the register ran backwards over the gap")
        for slot_s, switch in self._pending:
            dead = still and switch is not None and self.switches.open_through(switch, slot_s, slot_s + self.slot_s)
            self._mark(slot_s, "Z" if dead else "R" if slot_s >= start else "M")
        self._pending.clear()
        for totals, period in ((self.asked_totals, self.asked), (self.reported_totals, self.reported)):
            if period.holds(t0, t0 + self.slot_s):
                totals.bridged_wh += energy

    @staticmethod
    def _bridge(first: int, last: int, how: DecodeMap, doc: Object) -> tuple[int, ...]:
        plain = energies_between(first, last, how, rollover=False)
        if "rollover" in doc["q"] and plain and plain[0] < 0:
            return energies_between(first, last, how, rollover=True)
        return plain

    # Grades

    def _fail(self, doc: Object, error: VerifyError) -> None:
        self._error(error)
        t0 = doc.get("t0")
        if doc["ty"] in {"interval", "gap"} and type(t0) is int:
            self._mark(t0, "X")
            self._settle("X")
        if doc["ty"] == "interval":
            # What follows is still held against what this one said, so that one fault is reported as one.
            self._reading = self._claimed(doc)

    def _claimed(self, doc: Object) -> Reading | None:
        try:
            closing = {str(point): int(pair[1]) for point, pair in doc["reg"].items()}
            return Reading(int(doc["t1"]), int(doc["rt1"]), closing, self._bind) if self._bind else None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return None

    def _error(self, error: VerifyError) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)

    def _settle(self, grade: str) -> None:
        for slot_s, _ in self._pending:
            self._mark(slot_s, grade)
        self._pending.clear()

    def _mark(self, t0: int, grade: str) -> None:
        index, rest = divmod(t0 - self.asked.start_s, self.slot_s)
        if rest == 0 and 0 <= index < len(self._grades):
            self._grades[index] = ord(grade)

    def _mark_range(self, start_s: int, end_s: int, grade: str) -> None:
        for t0 in range(max(start_s, self.asked.start_s), min(end_s, self.asked.end_s), self.slot_s):
            self._mark(t0, grade)
