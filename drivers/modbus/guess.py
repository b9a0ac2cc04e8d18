"""Which profile fits a unit: identity registers first, then whether the numbers make sense together.

Every profile is also tried with its words the other way round and, where nothing fits, with all addresses one lower and
one higher: the commonest mistakes of register lists. What cannot be told apart is said to be so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from drivers.capabilities import Sample
from drivers.errors import BadAnswer
from drivers.modbus.looking import Registers
from drivers.modbus.meter import MeterDevice
from drivers.modbus.scheduler import Answer
from drivers.modbus.signs import Sign, alive, residual, weigh
from drivers.profiles.codec import decode_bits, field_bits
from drivers.profiles.fields import RegisterField
from drivers.profiles.model import Identify, MeterProfile, Point
from drivers.profiles.plan import Span, UnitLimits, groups_of
from wire.quality import Quality

SIGNS = (
    "frequency_hz", "voltage_l1_n_v", "voltage_l2_n_v", "voltage_l3_n_v", "voltage_l1_l2_v", "voltage_l2_l3_v",
    "voltage_l3_l1_v", "current_l1_a", "current_l2_a", "current_l3_a", "power_w", "power_l1_w", "power_l2_w",
    "power_l3_w", "power_reactive_var", "power_apparent_va", "power_factor", "energy_import_wh",
)  # fmt: skip
"""Points that tell something about a guess."""

ENOUGH = 8.0
"""Weight of evidence that makes a guess as sure as it can be."""
GOOD_ENOUGH = 0.6
"""Confidence under which other address bases are tried."""
UNNAMED = 0.85
"""At most this confident in a profile that has no identity register that agrees."""
AMBIGUOUS = 0.6
"""At most this confident where another profile fits as well."""
CLOSE = 0.05
NEAR = 0.2
"""Within so much of the best a profile is looked at closely; it counts as its equal only if it says the same."""
FINALISTS = 8
SOME = 0.4
"""Share of a profile's telling registers that a device has to have."""
P = TypeVar("P", bound=Point)


@dataclass(frozen=True, slots=True)
class Candidate:
    """How well one profile, read in one way, fits."""

    profile: MeterProfile
    swapped: bool
    """Words the other way round than the profile says."""
    shift: int
    """Added to all addresses of the profile."""
    confidence: float
    signs: tuple[Sign, ...]
    identified: bool | None
    """Identity registers agree; ``None`` where it has none that tell anything."""
    sample: Sample
    same_as: tuple[str, ...] = ()
    """Profiles that cannot be told from this one by what was read."""
    either_order: bool = False
    """True where the values make as much sense with the words the other way round."""
    also: tuple[str, ...] = ()
    """Other ways of reading the same profile that make almost as much sense, for people."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """What speaks for it, the weightiest first."""
        return tuple(s.text for s in sorted(self.signs, key=lambda s: -s.weight) if s.holds)

    @property
    def against(self) -> tuple[str, ...]:
        """What speaks against it, the weightiest first."""
        return tuple(s.text for s in sorted(self.signs, key=lambda s: -s.weight) if not s.holds)

    @property
    def as_written(self) -> bool:
        """True where the profile fits without a change."""
        return not self.swapped and not self.shift


async def guess(registers: Registers, profiles: Iterable[MeterProfile]) -> tuple[Candidate, ...]:
    """Profiles that say anything sensible of the unit, the best first.

    Raises:
        NobodyThere: the unit does not answer.
    """
    everyone = list(profiles)
    for profile in everyone:
        await registers.fetch(_span(i) for i in profile.identify)
    named = [p for p in everyone if identity(p, registers) is True]
    ranking: list[Candidate] = []
    for group in (named, [p for p in everyone if p not in named]):
        ranking += [c for p in group for c in await _readings(registers, p, (0,))]
        if any(c.confidence >= GOOD_ENOUGH and c.identified for c in ranking):
            break
    # Words turned round and addresses off by one look alike where the low half of a number matters little.
    if not any(c.confidence >= GOOD_ENOUGH and c.as_written for c in ranking):
        # Addresses off by one are mostly answered all the same; where most are refused it is another device.
        near = [p for p in everyone if _answered(registers, p) >= SOME]
        ranking += [c for p in near for c in await _readings(registers, p, (-1, 1))]
    ranking.sort(key=_merit)
    least = max(ranking[0].confidence - NEAR, NEAR) if ranking else 0.0
    # Sister models are told apart by the registers that one of them lacks, so the best ones are read wholly.
    finalists = [c for c in ranking if c.confidence >= least][:FINALISTS]
    whole = [await _complete(registers, c) for c in finalists]
    return _ranked([*whole, *(c for c in ranking if c not in finalists)])


async def fit(registers: Registers, profile: MeterProfile) -> Candidate:
    """How well one profile fits as it is written.

    Raises:
        NobodyThere: the unit does not answer.
    """
    await registers.fetch(_span(i) for i in profile.identify)
    await registers.fetch(_spans(profile, profile.point_ids), thorough=True)
    return judge(profile, registers, profile.point_ids)


async def _complete(registers: Registers, candidate: Candidate) -> Candidate:
    """The same candidate judged by all its points."""
    profile, swapped, shift = candidate.profile, candidate.swapped, candidate.shift
    moved = variant(profile, swapped=swapped, shift=shift) or profile
    await registers.fetch(_spans(moved, moved.point_ids), thorough=True)
    return judge(profile, registers, moved.point_ids, swapped=swapped, shift=shift)


async def _readings(registers: Registers, profile: MeterProfile, shifts: Sequence[int]) -> list[Candidate]:
    found = []
    for shift in shifts:
        moved = variant(profile, swapped=False, shift=shift)
        if moved is None:
            continue
        signs = _signs(moved)
        await registers.fetch(_spans(moved, signs))
        found.append(judge(profile, registers, signs, shift=shift))
        if any(p.words > 1 and p.type != "str" for p in moved.points):
            found.append(judge(profile, registers, signs, swapped=True, shift=shift))
    return [c for c in found if c.confidence > 0]


def _answered(registers: Registers, profile: MeterProfile) -> float:
    """Share of the telling registers that were answered."""
    spans = _spans(profile, _signs(profile))
    return sum(registers.holds(span) is not None for span in spans) / len(spans) if spans else 0.0


def _signs(profile: MeterProfile) -> list[str]:
    return [p.id for p in profile.points if p.id in SIGNS] or list(profile.point_ids)


def _spans(profile: MeterProfile, points: Iterable[str]) -> list[Span]:
    return [g.span for g in groups_of(profile, points) if not profile.link.barred(g.table, g.first, g.end)]


def _span(field: RegisterField) -> Span:
    return Span(field.table, field.addr, field.addr + field.words - 1)


def variant(profile: MeterProfile, *, swapped: bool, shift: int) -> MeterProfile | None:
    """The same profile read in another way; ``None`` where an address would leave the protocol's range."""
    if not swapped and not shift:
        return profile
    fields = (*profile.points, *profile.variables)
    if any(not 0 <= p.addr + shift <= 0x10000 - p.words for p in fields):
        return None
    points = tuple(_moved(p, swapped, shift) for p in profile.points)
    variables = tuple(_moved(v, swapped, shift) for v in profile.variables)
    bare = profile.link.model_copy(update={"forbidden": (), "allowed": ()})
    return profile.model_copy(update={"points": points, "variables": variables, "link": bare})


def _moved(point: P, swapped: bool, shift: int) -> P:
    orders = {"big": "little", "little": "big"}
    parts = tuple(
        part.model_copy(
            update={"addr": part.addr + shift, "word_order": orders[part.word_order] if swapped else part.word_order}
        )
        for part in point.parts
    )
    order = orders[point.word_order] if swapped else point.word_order
    return point.model_copy(update={"addr": point.addr + shift, "word_order": order, "parts": parts})


# -- judging ---------------------------------------------------------------------------------------------------------


def judge(
    profile: MeterProfile, registers: Registers, points: Sequence[str], *, swapped: bool = False, shift: int = 0
) -> Candidate:
    """Weigh what was read, taken as this profile read in this way. Nothing is asked."""
    read_as = variant(profile, swapped=swapped, shift=shift) or profile
    sample = decode(read_as, registers, points)
    named = identity(profile, registers) if not swapped and not shift else None
    signs = tuple(weigh(read_as, sample))
    total = sum(s.weight for s in signs)
    held = sum(s.weight for s in signs if s.holds)
    # Several contradictions are worse than their share: a wrong map gives some plausible numbers by chance.
    share = (held / total) ** 2 if total else 0.0
    confidence = share * min(1.0, total / ENOUGH)
    refused = sum(r.quality in {Quality.EXCEPTION, Quality.NOT_READ} for r in sample.readings.values())
    confidence *= 1 - refused / len(sample.readings)
    if not alive(sample):
        confidence *= 0.1
    if named is True:
        confidence = 0.6 + 0.4 * confidence if confidence > 0.3 else confidence
        signs = (Sign(5.0, True, "its identity registers hold what the profile says"), *signs)
    elif named is False:
        confidence *= 0.15
        signs = (Sign(5.0, False, "its identity registers hold something else"), *signs)
    else:
        confidence *= UNNAMED
    return Candidate(profile, swapped, shift, round(confidence, 3), signs, named, sample)


def decode(profile: MeterProfile, registers: Registers, points: Sequence[str]) -> Sample:
    """The sample that the words read so far give under a profile."""
    groups = groups_of(profile, points)
    # Each group by itself: what one of them lacks must not take its neighbours along.
    cuts = frozenset((g.table, r) for g in groups for r in (g.first, g.end))
    device = MeterDevice("probe", registers.unit, profile)
    asked = device.reading(points, UnitLimits(cuts=cuts))
    answers = []
    for block, pdu in zip(asked.blocks, asked.pdus, strict=True):
        request = bytes((registers.unit,)) + pdu
        words = registers.holds(block.span)
        if words is None:
            answers.append(Answer(Quality.EXCEPTION, 0, 0, request, error="refused", sent=True))
        else:
            data = b"".join(w.to_bytes(2, "big") for w in words)
            frame = request[:2] + bytes((len(data),)) + data
            answers.append(Answer(Quality.GOOD, 0, 0, request, frame, sent=True))
    return replace(device.sample(asked, tuple(answers)), latency_ms=registers.latency_ms)


def identity(profile: MeterProfile, registers: Registers) -> bool | None:
    """Do the identity registers agree? ``None`` where there are none that tell anything."""
    told = [agrees(i, registers) for i in profile.identify if _telling(i)]
    known = [t for t in told if t is not None]
    if not known:
        return None
    return all(known)


def _telling(identify: Identify) -> bool:
    # A register of zeros is in every device.
    return identify.text is not None or any(number not in {0, 1} for number in identify.expect)


def agrees(identify: Identify, registers: Registers) -> bool | None:
    """Does one identity read hold what is expected? ``None``: it was not read. A refusal is a disagreement."""
    words = registers.holds(_span(identify))
    if words is None:
        return False if _span(identify) in registers.refused else None
    try:
        number = decode_bits(identify, field_bits(identify, words))
    except BadAnswer:
        return False
    if isinstance(number, str):
        return identify.text is not None and number.startswith(identify.text)
    return number is not None and number in identify.expect


def read_as(candidate: Candidate) -> str:
    """How a candidate reads its profile, for people."""
    order = "words the other way round" if candidate.swapped else "words as the profile says"
    return f"{order}, addresses {candidate.shift:+d}" if candidate.shift else order


def _merit(candidate: Candidate) -> tuple[object, ...]:
    good = sum(r.quality is Quality.GOOD for r in candidate.sample.readings.values())
    return (-candidate.confidence, abs(candidate.shift), candidate.swapped, -good, candidate.profile.id)


def _says_the_same(one: Candidate, other: Candidate) -> bool:
    """True where both profiles give the same values for what both have: sister models with one register map."""
    ours, theirs = one.sample.readings, other.sample.readings
    both = [n for n in ours if n in theirs and ours[n].value is not None and theirs[n].value is not None]
    return len(both) >= 3 and all(ours[n].value == theirs[n].value for n in both)


def _rivals(best: Candidate, other: Candidate) -> bool:
    behind = best.confidence - other.confidence
    return behind < CLOSE or (behind < NEAR and _says_the_same(best, other))


def _ranked(found: Iterable[Candidate]) -> tuple[Candidate, ...]:
    ranking = sorted(found, key=_merit)
    if not ranking:
        return ()
    best = ranking[0]
    alike = [c for c in ranking if c.profile.id == best.profile.id and best.confidence - c.confidence < CLOSE]
    if len(alike) > 1 and not best.as_written:
        best = min(alike, key=lambda c: residual(c.sample))
        ranking.remove(best)
        ranking.insert(0, best)
    others = [c for c in alike if c is not best]
    if others:
        twin = any(c.shift == best.shift for c in others)
        best = ranking[0] = replace(best, either_order=twin, also=tuple(read_as(c) for c in others))
    rivals = [c for c in ranking[1:] if c.profile.id != best.profile.id and _rivals(best, c)]
    if best.identified and not any(r.identified for r in rivals):
        rivals = []
    if rivals:
        names = tuple(dict.fromkeys(c.profile.id for c in rivals))
        ranking[0] = replace(best, confidence=min(best.confidence, AMBIGUOUS), same_as=names)
        for index, other in enumerate(ranking):
            if other in rivals:
                ranking[index] = replace(other, confidence=min(other.confidence, AMBIGUOUS), same_as=(best.profile.id,))
    return tuple(ranking)
