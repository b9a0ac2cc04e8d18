"""Rules between the fields of a profile, beyond what each field checks for itself.

Each problem is the path of the offending element in the file and a sentence saying what was seen and expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from drivers.profiles.codec import decode_block
from drivers.profiles.curverules import curve_problems
from drivers.profiles.fields import ADDRESS_END, READ_FUNCTION, RegisterField, exact_number
from drivers.profiles.model import MeterProfile, Point, RelayProfile, Vector
from drivers.profiles.plan import atomic_groups
from drivers.profiles.switching_rules import relay_problems

Problem = tuple[tuple[int | str, ...], str]

PILLARS = frozenset({"energy_import_wh", "power_w"})
FOUNDED = 2
"""Independent sources that the pillars of a profile need before it may be called more than ``community``."""
ROUNDING = {"f32": 1e-6, "f64": 1e-12}
"""How far a float may lie from the decimal number that a golden vector states, relative."""


def problems_of(profile: MeterProfile | RelayProfile) -> Iterator[Problem]:
    """Everything wrong with a profile whose fields are each in order."""
    if isinstance(profile, RelayProfile):
        yield from relay_problems(profile)
    else:
        yield from _meter_problems(profile)


def _meter_problems(profile: MeterProfile) -> Iterator[Problem]:
    for index, function in enumerate(profile.link.functions):
        if function not in {3, 4}:
            yield (
                ("link", "functions", index),
                f"seen function {function}, expected 3 or 4: a meter is only read; remove it",
            )
    where: dict[str, tuple[str, int]] = {}
    earlier: list[Point] = []
    for name, rows in (("points", profile.points), ("variables", profile.variables)):
        for index, point in enumerate(rows):
            if point.id in where:
                yield (name, index), f"point {point.id} appears twice; keep one of the two"
            where[point.id] = (name, index)
            for message in (*_overlaps(point, earlier), *_point_problems(profile, point), *_standing(profile, point)):
                yield (name, index), f"point {point.id} {message}"
            earlier.append(point)
    for group in atomic_groups(profile.points):
        for message in _group_problems(profile, group):
            yield where[group[0].id], message
    yield from _unused_variables(profile)
    yield from _rest_problems(profile)


def _overlaps(point: Point, earlier: list[Point]) -> Iterator[str]:
    for other in earlier:
        if other.table != point.table or other.id == point.id:
            continue
        both = range(max(point.addr, other.addr), min(point.span.stop, other.span.stop))
        if both and not _declared(point, other):
            yield (
                f"overlaps {other.id} at {point.table} {both.start}: seen registers {_run(point)}, expected none of "
                f"{_run(other)}; correct the address, or say 'alias_of: [{other.id}]' where it is meant"
            )
            return


def _run(point: Point) -> str:
    return f"{point.addr} to {point.span.stop - 1}"


def _declared(one: Point, other: Point) -> bool:
    if other.id in one.alias_of or one.id in other.alias_of:
        return True
    return any(
        whole.type == "sum" and any(part.span == single.span for part in whole.parts)
        for whole, single in ((one, other), (other, one))
    )


def _unused_variables(profile: MeterProfile) -> Iterator[Problem]:
    used = {name for point in profile.points for name in point.scale_by}
    for index, variable in enumerate(profile.variables):
        if variable.id not in used:
            yield (
                ("variables", index),
                f"variable {variable.id}: no point is scaled by it; name it in a scale_by or remove it",
            )


def _rest_problems(profile: MeterProfile) -> Iterator[Problem]:
    for index, identify in enumerate(profile.identify):
        for message in _reachable(profile, identify):
            yield ("identify", index), f"identify {message}"
    for index, check in enumerate(profile.checks):
        for name in (*check.sum, check.equals):
            if name not in profile.point_ids:
                yield ("checks", index), f"check refers to {name}, which is not in the profile; add it or correct it"
    for index, live in enumerate(profile.live):
        if live.point not in profile.point_ids:
            yield ("live", index), f"live refers to {live.point}, which is not in the profile; add it or correct it"
    for index, vector in enumerate(profile.tests):
        for message in vector_problems(profile, vector):
            yield ("tests", index), message
    for path, message in curve_problems(profile):
        yield path, f"load_profile: {message}"
    for index, fixed in enumerate(profile.simulate.registers):
        if fixed.addr + len(fixed.words) // 4 > ADDRESS_END:
            yield ("simulate", "registers", index), f"addr: {fixed.addr} runs past the last register 65535; correct it"


def _reachable(profile: MeterProfile, field: RegisterField) -> Iterator[str]:
    rules = profile.link
    function = READ_FUNCTION[field.table]
    if function not in rules.functions:
        yield (
            f"needs function {function} for table {field.table}, which is not in link.functions "
            f"({list(rules.functions)}); add it there or correct the table"
        )
    first, end = field.addr, field.addr + field.words
    if any(f.meets(field.table, first, end) for f in rules.forbidden):
        yield (
            f"lies in a forbidden range of {field.table} registers: seen {first} to {end - 1}; correct the address or "
            "the range"
        )
    elif rules.barred(field.table, first, end):
        allowed = ", ".join(f"{a.first} to {a.last}" for a in rules.allowed if a.table == field.table) or "none"
        yield (
            f"lies outside the allowed {field.table} registers: seen {first} to {end - 1}, expected within {allowed}; "
            "correct the address or link.allowed"
        )
    if field.words > rules.max_registers:
        yield f"has {field.words} registers, max_registers is {rules.max_registers}; correct one of the two"


def _point_problems(profile: MeterProfile, point: Point) -> Iterator[str]:
    yield from _reachable(profile, point)
    for name in (*point.atomic_with, *point.alias_of):
        if name not in profile.point_ids:
            yield f"refers to {name}, which is not in the profile; add it or remove the reference"
    ratios = {p.id: p for p in profile.readable if p.kind == "gauge"}
    for name in point.scale_by:
        if name not in ratios or name == point.id:
            yield f"refers to {name}, which is not in the profile as a ratio or variable; add it or correct scale_by"
        elif ratios[name].scale_by:
            yield f"is scaled by {name}, which is itself scaled by {', '.join(ratios[name].scale_by)}; name both here"


def _standing(profile: MeterProfile, point: Point) -> Iterator[str]:
    """What is founded on nothing or too little must not look like more."""
    if profile.status == "community":
        return
    if point.confirmed == 0:
        yield (
            f"has confirmed: 0 under status {profile.status}: seen no source for this model, expected at least one; "
            "leave the point out or set status: community"
        )
    elif point.confirmed < FOUNDED and point.id in PILLARS:
        yield (
            f"has confirmed: {point.confirmed} under status {profile.status}, expected at least {FOUNDED} independent "
            "sources for what is billed and shed by; set status: community until a second source agrees"
        )


def _group_problems(profile: MeterProfile, group: tuple[Point, ...]) -> Iterator[str]:
    if len(group) == 1:
        return
    names = ", ".join(p.id for p in group)
    if len({p.table for p in group}) > 1:
        yield f"atomic group ({names}) spans two tables; one request reads one table: take the points apart"
        return
    first, end = group[0].addr, max(p.addr + p.words for p in group)
    if end - first > profile.link.max_registers:
        yield (
            f"atomic group ({names}) needs {end - first} registers, max_registers is {profile.link.max_registers}; "
            "take the points apart"
        )
    if profile.link.barred(group[0].table, first, end):
        yield f"atomic group ({names}) reads across a forbidden range or outside the allowed one; take the points apart"


def vector_problems(profile: MeterProfile, vector: Vector) -> Iterator[str]:
    """What a golden vector expects and the codec does not give."""
    decoded = decode_block(profile, vector.table, vector.addr, vector.registers)
    for name, wanted in vector.expect.items():
        if name not in decoded:
            span = f"{vector.table} {vector.addr} + {len(vector.registers)} registers"
            yield f"golden vector: {name} is not covered by {span}; give all its registers or leave it out"
            continue
        seen = decoded[name]
        if seen.error is not None:
            yield f"golden vector: {name}: {seen.error}; correct the words or the point"
        elif not _same(seen.number, wanted, _tolerance(profile.point(name))):
            yield (
                f"golden vector: {name}: seen {seen.value!r}, expected {wanted!r}; correct the words, the value or the "
                "point's coding"
            )


def _tolerance(point: Point) -> float:
    return max(ROUNDING.get(kind, 0.0) for kind in (point.type, *(part.type for part in point.parts)))


def _same(number: Fraction | str | None, wanted: int | str | None, tolerance: float) -> bool:
    if wanted is None or isinstance(number, str) or number is None:
        return number == (None if wanted is None else str(wanted))
    try:
        expected = exact_number(wanted)
    except ValueError:
        return False
    if tolerance:
        return math.isclose(float(number), float(expected), rel_tol=tolerance)
    return number == expected
