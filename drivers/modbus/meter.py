"""A meter on a Modbus link: which requests read its points, and what their answers mean. It has no way to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from drivers.capabilities import Reading, Sample
from drivers.errors import BadAnswer, BadFrame
from drivers.modbus.decode import Compiled, Spot, compile_spots
from drivers.modbus.learned import Fact, UnitMemory
from drivers.modbus.pdu import READ_FILE, READ_FUNCTIONS, read_request, read_words
from drivers.modbus.scheduler import Answer
from drivers.profiles.codec import Decoded, decode_bits, failed_checks, field_bits, plausible, scaled, to_value
from drivers.profiles.model import MeterProfile, Point
from drivers.profiles.plan import Block, UnitLimits, plan
from wire.quality import Quality

TINY = 1e-15
"""No instrument reads a quantity so small and not zero: such a float is other data read as a number."""


@dataclass(frozen=True, slots=True)
class Field:
    """One point in the answer to a request."""

    point: Point
    start: int
    """Of its first register, counted from the block's."""
    keep_bits: bool
    """True where its raw bits prove its value."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Points asked for and the blocks that answer them."""

    points: tuple[Point, ...]
    blocks: tuple[Block, ...]
    pdus: tuple[bytes, ...]
    fields: tuple[tuple[Field, ...], ...] = field(repr=False)
    """What each block's answer holds."""
    skipped: tuple[str, ...] = ()
    """Points that the unit refused before and that are not asked for this time."""
    lifted: Fact | None = None
    """What the unit refused before and is tried again with these requests."""
    compiled: Compiled | None = field(default=None, repr=False)
    """The quick way to read whole answers, where all points are plain numbers."""

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of the points."""
        return tuple(p.id for p in self.points)


@dataclass(frozen=True, slots=True)
class FixedScale:
    """A register that was read when the meter was bound and must still say the same: else its points have no value."""

    variable: str
    multiplier: Fraction
    points: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeterDevice:
    """One meter of a site: id, unit address, profile, and what was learned of the unit."""

    id: str
    unit: int
    profile: MeterProfile
    memory: UnitMemory = field(default_factory=UnitMemory, compare=False, repr=False)
    fixed: tuple[FixedScale, ...] = ()

    def __post_init__(self) -> None:
        """Refuse anything that is not a meter."""
        if self.profile.kind != "meter":
            raise ValueError(f"{self.id}: profile {self.profile.id} is of kind {self.profile.kind}, expected meter")

    @property
    def functions(self) -> frozenset[int]:
        """Reads only; function 20 where the model keeps its load profile in a file."""
        curve = self.profile.load_profile
        files = {READ_FILE} if curve is not None and curve.read == "file" else frozenset[int]()
        return READ_FUNCTIONS & frozenset(self.profile.link.functions) | files

    @property
    def timeout_s(self) -> float | None:
        """Its own time-out, if the profile states one."""
        ms = self.profile.link.timeout_ms
        return None if ms is None else ms / 1000

    @property
    def gap_s(self) -> float:
        """Quiet time between two questions."""
        return self.profile.link.min_gap_ms / 1000

    @property
    def turnaround_s(self) -> float:
        """Quiet time of a serial line after its answer."""
        return self.profile.link.turnaround_ms / 1000

    def reading(self, points: Sequence[str], limits: UnitLimits | None = None) -> Asked:
        """Requests that read these points, those that the unit refused before each by itself.

        ``limits`` stands in for what was learned of the unit.

        Raises:
            KeyError: the profile has no such point.
        """
        blocks = plan(self.profile, points, self.memory.limits() if limits is None else limits)
        return _asked(self.profile, points, blocks)

    def polling(self, points: Sequence[str]) -> Asked:
        """Requests of a regular poll: what the unit refused before is left out, and seldom tried again.

        Raises:
            KeyError: the profile has no such point.
        """
        lifted = self.memory.due()
        limits = self.memory.limits(lifted)
        blocks = plan(self.profile, points, limits)
        refused = limits.refused - {lifted}
        kept = tuple(b for b in blocks if b.span not in refused)
        if not kept:
            return _asked(self.profile, points, blocks)
        left_out = tuple(name for b in blocks if b.span in refused for name in b.points)
        return _asked(self.profile, points, kept, left_out, lifted)

    def sample(self, asked: Asked, answers: tuple[Answer, ...]) -> Sample:
        """Answers → sample. A block that failed takes only its own points with it."""
        quick = None if asked.compiled is None or self.fixed else asked.compiled.read(answers)
        if quick is not None:
            readings, bits = quick
            problems: list[str] = []
        else:
            readings, bits, problems = self._decoded(asked, answers)
        _cross_check(self.profile, readings)
        self._learn(asked, answers, readings)
        if self.memory.hopeless:
            problems.insert(0, "the unit refuses every request: is it this device model, and this unit address?")
        last = next((a for a in reversed(answers) if a.sent), answers[-1])
        return Sample(
            device=self.id,
            at_ms=last.at_ms,
            mono_ns=last.mono_ns,
            readings=readings,
            bits=bits,
            frames=tuple((a.request, a.answer) for a in answers if a.ok),
            latency_ms=sum(a.latency_ms for a in answers),
            error="; ".join(problems) or None,
        )

    def _decoded(
        self, asked: Asked, answers: tuple[Answer, ...]
    ) -> tuple[dict[str, Reading], dict[str, int], list[str]]:
        """Readings, raw bits and problems, the general way."""
        decoded: dict[str, Decoded] = {}
        failed: dict[str, Quality] = dict.fromkeys(asked.skipped, Quality.EXCEPTION)
        problems: list[str] = []
        for block, fields, answer in zip(asked.blocks, asked.fields, answers, strict=True):
            quality, error = answer.quality, answer.error
            if answer.ok:
                try:
                    _decode(fields, read_words(answer.request, answer.answer), decoded)
                    continue
                except BadFrame as problem:
                    quality, error = problem.quality, str(problem)
            failed |= dict.fromkeys(block.points, quality)
            problems.append(f"{block.table} {block.addr}+{block.count}: {error}")
        readings = {point.id: _reading(point, decoded, failed) for point in asked.points}
        for fixed in self.fixed:
            changed = _still(fixed, decoded, readings)
            if changed and self.memory.facts.layout is not None:
                self.memory.facts.layout = None  # the next start reads the meter's directory anew
                self.memory.save()
            problems += changed
        bits = {n: d.bits for n in readings if (d := decoded.get(n)) is not None and d.bits is not None}
        return readings, bits, problems

    def _learn(self, asked: Asked, answers: tuple[Answer, ...], readings: dict[str, Reading]) -> None:
        if asked.lifted is not None or not self.memory.nothing_new(answers):
            self.memory.learn(self.profile, asked.names, asked.blocks, answers, asked.lifted)
        serial = readings.get("serial_number")
        if serial is not None and serial.quality is Quality.GOOD and isinstance(serial.value, str):
            self.memory.serial(serial.value)


def _asked(
    profile: MeterProfile,
    names: Sequence[str],
    blocks: tuple[Block, ...],
    skipped: tuple[str, ...] = (),
    lifted: Fact | None = None,
) -> Asked:
    known = {p.id: p for p in profile.readable}
    pdus = tuple(read_request(b.fc, b.addr, b.count) for b in blocks)
    fields = tuple(
        tuple(Field(p, p.addr - b.addr, p.unprovable is None) for p in (known[name] for name in b.points))
        for b in blocks
    )
    points = tuple(known[name] for name in dict.fromkeys(names))
    spots = [Spot(i, f.start, f.point) for i, row in enumerate(fields) for f in row]
    compiled = None if skipped else compile_spots([p.id for p in points], [b.count for b in blocks], spots)
    return Asked(points, blocks, pdus, fields, skipped, lifted, compiled)


def _decode(fields: Sequence[Field], words: Sequence[int], into: dict[str, Decoded]) -> None:
    for here in fields:
        point = here.point
        bits = field_bits(point, words[here.start : here.start + point.words])
        kept = bits if here.keep_bits else None
        try:
            number = decode_bits(point, bits)
        except BadAnswer as error:
            into[point.id] = Decoded(None, None, kept, str(error))
        else:
            into[point.id] = Decoded(number, to_value(number), kept)


def _reading(point: Point, decoded: dict[str, Decoded], failed: dict[str, Quality]) -> Reading:
    here = decoded.get(point.id)
    if here is None:
        return Reading(None, failed.get(point.id, Quality.NOT_READ))
    if here.error is not None:
        return Reading(None, Quality.DECODE)
    if here.number is None:
        return Reading(None, Quality.NO_VALUE)
    value = here.value
    if point.scale_by and isinstance(here.number, Fraction):
        # Without its ratio the number is not the quantity: no value is better than one that is 100 times too small.
        for ratio in point.scale_by:
            got = decoded.get(ratio)
            if got is None or not isinstance(got.number, Fraction):
                return Reading(None, failed.get(ratio, Quality.NO_VALUE))
        value = to_value(scaled(point, here.number, decoded))
    if isinstance(value, float) and 0.0 < abs(value) < TINY:
        return Reading(None, Quality.DECODE)
    return Reading(value, Quality.GOOD if plausible(point, value) else Quality.SUSPECT)


def _still(fixed: FixedScale, decoded: dict[str, Decoded], readings: dict[str, Reading]) -> list[str]:
    """Take back what rests on a register that changed; in place. Says so where that happened."""
    got = decoded.get(fixed.variable)
    if got is None or got.number == fixed.multiplier:
        return []
    for name in fixed.points:
        if name in readings and decoded.pop(name, None) is not None:
            readings[name] = Reading(None, Quality.DECODE)
    seen = "no multiplier" if got.number is None else got.number
    return [f"{fixed.variable}: seen {seen}, expected {fixed.multiplier} as when it was bound: bind the meter anew"]


def _cross_check(profile: MeterProfile, readings: dict[str, Reading]) -> None:
    """Mark what contradicts itself; in place."""
    if not profile.checks:
        return
    values = {name: r.value for name, r in readings.items() if r.quality is Quality.GOOD}
    for check in failed_checks(profile, values):
        for name in (*check.sum, check.equals):
            if name in readings:
                readings[name] = Reading(readings[name].value, Quality.SUSPECT)
    for check in profile.checks:
        # A sum whose parts are impossible is not to be believed either, though it looks possible itself.
        whole = readings.get(check.equals)
        if whole is not None and whole.quality is Quality.GOOD:
            parts = [readings[name].quality for name in check.sum if name in readings]
            if Quality.SUSPECT in parts or Quality.DECODE in parts:
                readings[check.equals] = Reading(whole.value, Quality.SUSPECT)
