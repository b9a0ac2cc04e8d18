"""Rules between the fields of a profile, beyond what each field checks for itself.

Each problem is the path of the offending element in the file and a sentence saying what was seen and expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from drivers.profiles.codec import decode_block
from drivers.profiles.fields import FIXED_WORDS, READ_FUNCTION, exact_number
from drivers.profiles.model import BinaryInput, MeterProfile, Output, Point, RelayProfile, Vector
from drivers.profiles.plan import atomic_groups, touches_forbidden

Problem = tuple[tuple[int | str, ...], str]


def problems_of(profile: MeterProfile | RelayProfile) -> Iterator[Problem]:
    """Everything wrong with a profile whose fields are each in order."""
    if isinstance(profile, RelayProfile):
        yield from _relay_problems(profile)
    else:
        yield from _meter_problems(profile)


def _relay_problems(profile: RelayProfile) -> Iterator[Problem]:
    groups: tuple[tuple[str, tuple[Output | BinaryInput, ...]], ...] = (
        ("outputs", profile.outputs),
        ("inputs", profile.inputs),
    )
    for name, rows in groups:
        ids: set[str] = set()
        addresses: set[tuple[str, int]] = set()
        for index, row in enumerate(rows):
            if row.id in ids:
                yield (name, index), f"id {row.id!r} appears twice"
            if (row.table, row.addr) in addresses:
                yield (name, index), f"{row.table} {row.addr} is already another of the {name}"
            ids.add(row.id)
            addresses.add((row.table, row.addr))
    for index, output in enumerate(profile.outputs):
        if output.pulse is not None and any(o.addr == output.pulse.addr for o in profile.outputs):
            yield ("outputs", index), f"pulse.addr {output.pulse.addr} is the level coil of an output"


def _meter_problems(profile: MeterProfile) -> Iterator[Problem]:
    ids: dict[str, int] = {}
    taken: dict[tuple[str, int], str] = {}
    for index, function in enumerate(profile.link.functions):
        if function not in {3, 4}:
            yield ("link", "functions", index), f"function {function}: a meter is only read (expected 3 and 4)"
    for index, point in enumerate(profile.points):
        at = ("points", index)
        if point.id in ids:
            yield at, f"point {point.id} appears twice"
        ids[point.id] = index
        for register in point.span:
            other = taken.setdefault((point.table, register), point.id)
            if other != point.id:
                yield at, f"point {point.id} overlaps {other} at {point.table} {register}"
                break
        for message in _point_problems(profile, point):
            yield at, f"point {point.id} {message}"
    for group in atomic_groups(profile.points):
        for message in _group_problems(profile, group):
            yield ("points", ids[group[0].id]), message
    yield from _rest_problems(profile)


def _rest_problems(profile: MeterProfile) -> Iterator[Problem]:
    for index, identify in enumerate(profile.identify):
        if touches_forbidden(profile.link, identify.table, identify.addr, identify.addr + identify.words):
            yield ("identify", index), f"{identify.table} {identify.addr} lies in a forbidden range"
    for index, check in enumerate(profile.checks):
        for name in (*check.sum, check.equals):
            if name not in profile.point_ids:
                yield ("checks", index), f"check refers to {name}, which is not in the profile"
    for index, vector in enumerate(profile.tests):
        for message in vector_problems(profile, vector):
            yield ("tests", index), message


def _point_problems(profile: MeterProfile, point: Point) -> Iterator[str]:
    rules = profile.link
    if READ_FUNCTION[point.table] not in rules.functions:
        yield f"needs function {READ_FUNCTION[point.table]} for table {point.table}, which is not in link.functions"
    if touches_forbidden(rules, point.table, point.addr, point.addr + point.words):
        yield f"lies in a forbidden range of {point.table} registers"
    if point.words > rules.max_registers:
        yield f"has {point.words} registers, max_registers is {rules.max_registers}"
    for name in (*point.atomic_with, *point.scale_by):
        if name not in profile.point_ids:
            yield f"refers to {name}, which is not in the profile"


def _group_problems(profile: MeterProfile, group: tuple[Point, ...]) -> Iterator[str]:
    if len(group) == 1:
        return
    names = ", ".join(p.id for p in group)
    if len({p.table for p in group}) > 1:
        yield f"atomic group ({names}) spans two tables"
        return
    first, end = group[0].addr, max(p.addr + p.words for p in group)
    if end - first > profile.link.max_registers:
        yield f"atomic group ({names}) needs {end - first} registers, max_registers is {profile.link.max_registers}"
    if touches_forbidden(profile.link, group[0].table, first, end):
        yield f"atomic group ({names}) reads across a forbidden range"


def vector_problems(profile: MeterProfile, vector: Vector) -> Iterator[str]:
    """What a golden vector expects and the codec does not give."""
    decoded = decode_block(profile, vector.table, vector.addr, vector.registers)
    for name, wanted in vector.expect.items():
        if name not in decoded:
            span = f"{vector.table} {vector.addr} + {len(vector.registers)} registers"
            yield f"golden vector: {name} is not covered by {span}"
            continue
        seen = decoded[name]
        if seen.error is not None:
            yield f"golden vector: {name}: {seen.error}"
        elif not _same(seen.number, wanted, profile.point(name).type):
            yield f"golden vector: {name}: seen {seen.value!r}, expected {wanted!r}"


def _same(number: Fraction | str | None, wanted: int | str | None, kind: str) -> bool:
    if wanted is None or isinstance(number, str) or number is None:
        return number == (None if wanted is None else str(wanted))
    try:
        expected = exact_number(wanted)
    except ValueError:
        return False
    if kind in {"f32", "f64"}:
        return math.isclose(float(number), float(expected), rel_tol=1e-6 if FIXED_WORDS[kind] == 2 else 1e-12)
    return number == expected
