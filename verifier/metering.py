"""One metering point through the period: slots, registers, energy, :mod:`grades <verifier.grades>`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from verifier.canonical import Object
from verifier.curve import Curve, check_archive, read_curve
from verifier.dark import IMPORT, Edge, Gap, dead_slots, read_gap
from verifier.errors import BindError, CalendarError, ContinuityError, DecodeError, EnergyError, RatioError, VerifyError
from verifier.grades import Grades, counts
from verifier.independent import Independent
from verifier.meterside import check_events, check_phases
from verifier.metrology import applied_ratio
from verifier.plausible.around import Context
from verifier.plausible.kept import Kept
from verifier.plausible.point import Gather
from verifier.profile import Profile
from verifier.readings import (
    EXPORT,
    Bind,
    Reading,
    Registers,
    between,
    check_energy,
    check_frames,
    check_times,
    claimed,
    opening_of,
    read_bind,
    registers_of,
    window_ms,
)
from verifier.records import Record
from verifier.register import Point, Register
from verifier.serials import Serials
from verifier.spots import Spots
from verifier.standing import Standing
from verifier.suspicion import Suspicion
from verifier.switches import Switches

MAX_ERRORS = 50


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


@dataclass(slots=True)
class MeteringPoint:
    """Walks the records of one metering point, epoch after epoch."""

    id: str
    slot_s: int
    asked: Period
    reported: Period
    registered: Point | None
    switches: Switches
    limit_w: int | None = None
    """Contracted power of the site, where the register has it."""
    register: Register | None = None
    """Whose signatures count."""
    independent: tuple[Independent, ...] = ()
    """The system operator's readings of this meter."""
    context: Context | None = None
    """What the streams of the site tell of plausibility; without it no time before the asked period is looked at."""
    errors: list[VerifyError] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    asked_totals: Totals = field(default_factory=Totals)
    reported_totals: Totals = field(default_factory=Totals)
    first: Registers | None = None
    last: Registers | None = None
    serial: str | None = None
    _grades: Grades = field(init=False)
    _profile: Profile = field(init=False)
    _suspicion: Suspicion = field(init=False)
    _plausible: Gather = field(init=False)
    standing: Standing = field(init=False)
    spots: Spots = field(init=False)
    _serials: Serials = field(init=False)
    _bind: Bind | None = None
    _bind_doc: Object = field(default_factory=dict)
    _curve: Curve | None = None
    """How the load profile of the meter in service is read, where its bind says."""
    _meter_s: int = 0
    """Since when this meter is in service: what it remembers of earlier slots is of another place."""
    _bound_s: int | None = None
    _next_s: int | None = None
    _reading: Reading | None = None
    _pending: list[Gap] = field(default_factory=list)
    """Gap slots since the last interval."""

    def __post_init__(self) -> None:
        slots = (self.asked.end_s - self.asked.start_s) // self.slot_s
        self._grades = Grades(self.asked.start_s, slots, self.slot_s)
        self._serials = Serials(self.id)
        self._profile = Profile(self.asked.start_s, slots, self.slot_s)
        self._suspicion = Suspicion()
        context = self.context or Context(self.asked.start_s, self.limit_w)
        self._plausible = Gather(self.id, self.asked.start_s, slots, self.slot_s, context)
        self.standing = Standing(self.asked.start_s, slots, self.slot_s, window_ms(self.slot_s))
        self.spots = Spots(self.id, self.register)

    @property
    def slots(self) -> int:
        """Slots of the asked period."""
        return self._grades.slots

    def counts(self) -> dict[str, int]:
        """Slots per grade."""
        return counts(self._grades.letters)

    def verified_wh(self) -> int:
        """Energy of slots that are A or B, of an instrument whose papers are valid."""
        return self.standing.verified_wh(self._grades.letters)

    def late(self, end_s: int) -> int:
        """Slots read but not witnessed in time, but for the last ones before ``end_s``, which still may be."""
        return self._grades.late(end_s)

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
                elif record.ty == "archive":
                    self._take_archive(record)
                elif record.ty == "spot":
                    self._take_spot(record)
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
            self._grades.mark_range(self.asked.start_s, self.asked.end_s, "X")
        else:
            self._grades.mark_range(self._next_s, self.asked.end_s, "X")
        self._bind, self._bound_s, self._reading = None, None, None

    def finish(self) -> None:
        """After the last epoch: slots that nothing was said about were not bound, so they are missing."""
        self._grades.finish()
        for error in self._profile.contradictions(self.id):
            self._error(error)
        for t0, wh in self._profile.told.items():
            if self._grades.told(t0):
                self.asked_totals.bridged_wh += wh
        self.doubts.extend(self._suspicion.doubts(self.id))
        self.doubts.extend(self.spots.doubts)
        self.doubts.extend(self.standing.lift(self._grades.letters, self.spots.quarters(), self.independent))
        self.doubts.extend(self._serials.doubts())
        for wrong in self._serials.errors(self.registered.serial if self.registered else None):
            self._error(wrong)
        self._plausible.finish()

    def kept(self) -> Kept:
        """For the rules that look at several points, once all is read."""
        return self._plausible.kept(self._grades.letters, self.standing.valid())

    # Records

    def _take_bind(self, record: Record) -> None:
        bind = read_bind(record, self.id)
        if self._bound_s is None:
            self._bound_s = -(-record.at // (1000 * self.slot_s)) * self.slot_s
        swapped = record.doc.get("swap") is not None
        self._serials.bind(bind.serial, record.where, swapped=swapped)
        earlier = self._bind
        self._bind, self.serial = bind, bind.serial
        opening = opening_of(record, bind, self.slot_s)
        if self._reading is not None and (swapped or not bind.same_meter(self._reading.bind)):
            self._settle("M")
            self._reading = None
        if earlier is None or swapped or not bind.same_meter(earlier):
            self._meter_s = opening.t if opening is not None else -(-record.at // (1000 * self.slot_s)) * self.slot_s
        self._curve = read_curve(record.doc.get("lp"))
        if self._reading is None:
            self._reading = opening
            self.spots.new_meter()
        known, self._bind_doc = self.registered, record.doc
        same = known is not None and not (known.serial and bind.serial and known.serial != bind.serial)
        self.standing.bind(record.doc, bind.maps[IMPORT], registered=same)
        self._plausible.bind(record.doc, bind)
        if known is not None and (bind.ct, bind.vt) != (known.ct, known.vt):
            raise RatioError(
                f"{record.where}: {self.id} is bound with ratios {bind.ct} and {bind.vt}, "
                f"the register has {known.ct} and {known.vt}"
            )

    def _take_archive(self, record: Record) -> None:
        doc, bind = record.doc, self._bind
        if bind is None or doc["cfg"] != bind.leaf:
            raise BindError(f"{record.where}: cfg is not the bind in force for {self.id}")
        if type(doc["t0"]) is int and doc["t0"] < self._meter_s:
            raise BindError(f"{record.where}: slot {doc['t0']} is from before the meter was bound for {self.id}")
        if doc.get("sn") is not None and bind.serial is not None and doc["sn"] != bind.serial:
            raise BindError(f"{record.where}: the profile of meter {doc['sn']!r}, bound is {bind.serial!r}")
        if self._curve is not None:
            check_archive(doc, self._curve, self.slot_s, record.where)
        self._profile.archive(doc, self._next_s, bind.maps[IMPORT].quantum_wh(0), record.where)
        self._plausible.archive(doc)

    def _take_spot(self, record: Record) -> None:
        if self._bind is None:
            raise BindError(f"{record.where}: a spot reading needs a meter that was bound before")
        self.spots.take(record, self._bind.leaf, self._bind.maps, applied_ratio(self._bind_doc))

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
        self._pending.append(read_gap(doc, self._bind.maps, window_ms(self.slot_s), record.where))
        self._suspicion.gap(doc)
        self._plausible.gap(doc)
        self.standing.gap(t0, doc["why"])

    def _take_interval(self, record: Record) -> None:
        doc = record.doc
        t0, t1 = self._slot(record)
        bind = self._bind
        if bind is None or doc["cfg"] != bind.leaf:
            raise BindError(f"{record.where}: cfg is not the bind in force for {self.id}")
        serial = bind.serial or (self.registered.serial if self.registered else None)
        if doc["sn"] is not None and serial is not None and doc["sn"] != serial:
            raise RatioError(f"{record.where}: serial number {doc['sn']!r} was read, expected {serial!r}")
        opening, closing = registers_of(record, bind)
        follows = self._reading is not None and self._reading.t == t0
        check_frames(record, bind, opening, closing, follows=follows)
        check_times(record, t0, t1, self.slot_s)
        check_phases(doc, record.where)
        check_events(doc, record.where)
        for name, stated in ((IMPORT, doc["wh"]), (EXPORT, doc["exp_wh"])):
            check_energy(record, bind, name, opening, closing, stated, self.limit_w)
        if follows:
            self._check_continuity(record, opening)
        else:
            self._cross(record, bind, opening, t0)
        self._grades.mark(t0, record.grade)
        for totals, period in ((self.asked_totals, self.asked), (self.reported_totals, self.reported)):
            if period.holds(t0, t1):
                totals.intervals += 1
                totals.wh += doc["wh"]
                if doc["exp_wh"] is not None:
                    totals.exp_wh = (totals.exp_wh or 0) + doc["exp_wh"]
        self._plausible.interval(doc, closing[IMPORT])
        if self.asked.holds(t0, t1):
            self._profile.read(t0, doc["wh"])
            self.standing.interval(t0, doc["wh"], doc["exp_wh"], closing[IMPORT])
            self.first, self.last = self.first or opening, closing
        self._reading = Reading(t1, doc["rt1"], closing, bind)
        self.spots.interval(doc, opening[IMPORT], closing[IMPORT], bind.maps[IMPORT])

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
            self._grades.mark_range(missing.start_s, missing.end_s, "M")

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
        if doc["bridge_wh"] not in self._bridge(bridge[IMPORT], opening[IMPORT], doc, doc["bridge_rt"]):
            raise EnergyError(f"{record.where}: bridge_wh {doc['bridge_wh']} does not follow from the registers")
        if doc["bridge_rt"] > doc["rt0"]:
            raise ContinuityError(f"{record.where}: the bridge begins after it ends")
        start, energy = doc["bridge_rt"] // 1000 // self.slot_s * self.slot_s, doc["bridge_wh"]
        dead: set[int] = set()
        if before is not None:
            moved = any(bridge[p] != before.reg[p] for p in bridge.keys() & before.reg.keys())
            if doc["bridge_rt"] < before.rt or (doc["bridge_rt"] == before.rt and moved):
                raise ContinuityError(f"{record.where}: the bridge does not begin at the last reading before the gap")
            # From the interval's own closing reading, so that the sum over the period telescopes.
            start, energy = before.t, min(self._bridge(before.reg[IMPORT], opening[IMPORT], doc, before.rt), default=-1)
            ends = Edge(before.rt, before.reg), Edge(doc["rt0"], opening)
            dead = dead_slots(self._pending, *ends, bind.maps, self.switches, self.slot_s)
        if energy < 0:
            raise EnergyError(f"{record.where}: the register ran backwards over the gap")
        for gap in self._pending:
            self._grades.mark(gap.t0, "Z" if gap.t0 in dead else "R" if gap.t0 >= start else "M")
        self._pending.clear()
        self._profile.bridged(start, t0, energy)
        self.standing.bridged(start, t0, energy)
        for totals, period in ((self.asked_totals, self.asked), (self.reported_totals, self.reported)):
            if period.holds(t0, t0 + self.slot_s):
                totals.bridged_wh += energy

    def _bridge(self, first: int, last: int, doc: Object, from_ms: int) -> tuple[int, ...]:
        how = self._bind.maps[IMPORT] if self._bind else None
        return () if how is None else between(first, last, how, doc, (from_ms, doc["rt0"]), self.limit_w)

    # Grades

    def _fail(self, doc: Object, error: VerifyError) -> None:
        self._error(error)
        t0 = doc.get("t0")
        if doc["ty"] in {"interval", "gap"} and type(t0) is int:
            self._grades.mark(t0, "X")
            self._settle("X")
        if doc["ty"] == "interval":
            # What follows is still held against what this one said, so that one fault is reported as one.
            self._reading = claimed(doc, self._bind)

    def _error(self, error: VerifyError) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)

    def _settle(self, grade: str) -> None:
        for gap in self._pending:
            self._grades.mark(gap.t0, grade)
        self._pending.clear()
