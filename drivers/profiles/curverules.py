"""Rules between a meter's load profile and the rest of its profile, beyond what each field checks for itself."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from drivers.profiles.codec import exact
from drivers.profiles.curvecodec import BadEntry, decode_entry
from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.loadcurve import EntryVector, LoadProfile, evidence
from drivers.profiles.model import MeterProfile

Problem = tuple[tuple[int | str, ...], str]
HERE = "load_profile"
ANY_PERIOD_S = 900


def curve_problems(profile: MeterProfile) -> Iterator[Problem]:
    """Everything wrong with the load profile of a meter whose fields are each in order."""
    curve = profile.load_profile
    if curve is None:
        return
    if curve.confirmed == 0 and profile.status != "community":
        yield (
            (HERE, "confirmed"),
            f"has confirmed: 0 under status {profile.status}: seen no source for this model, expected at least one; "
            "leave the load profile out or set status: community",
        )
    for name, table, first, words in _runs(curve):
        function, end = READ_FUNCTION[table], first + words
        if function not in profile.link.functions:
            yield (
                (HERE, name),
                f"{name} needs function {function} for table {table}, which is not in link.functions "
                f"({list(profile.link.functions)}); add it there or correct the table",
            )
        if profile.link.barred(table, first, end):
            yield (
                (HERE, name),
                f"{name} lies in a forbidden range or outside the allowed {table} registers: seen {first} to "
                f"{end - 1}; correct the address or link",
            )
    if curve.read == "registers" and curve.words > profile.link.max_registers:
        yield (
            (HERE, "words"),
            f"an entry has {curve.words} registers, max_registers is {profile.link.max_registers}; correct one of them",
        )
    for index, vector in enumerate(curve.tests):
        for message in _vector_problems(curve, vector):
            yield (HERE, "tests", index), f"golden vector: {message}"


def _runs(curve: LoadProfile) -> Iterator[tuple[str, str, int, int]]:
    """Everything it reads with functions 3 and 4: name, table, first register, how many."""
    if curve.read == "registers":
        yield "addr", curve.table, curve.addr, curve.entries * curve.words
    yield "clock", curve.clock.table, curve.clock.addr, curve.clock.words
    if curve.period is not None:
        yield "period", curve.period.table, curve.period.addr, curve.period.words
    if curve.newest is not None and not isinstance(curve.newest, int):
        yield "newest", curve.newest.table, curve.newest.addr, curve.newest.words


def _vector_problems(curve: LoadProfile, vector: EntryVector) -> Iterator[str]:
    words, lp = vector.registers, evidence(curve)
    if len(words) != curve.words:
        yield f"seen {len(words)} words, expected {curve.words}, one whole entry"
        return
    if (vector.end_s is None) != (vector.wh is None):
        yield "end_s and wh: give both, or null for both where the entry is empty"
        return
    try:
        entry = decode_entry(0, words, lp, vector.period_s or curve.period_s or ANY_PERIOD_S)
    except BadEntry as error:
        yield f"{error}; correct the words or the coding"
        return
    seen: tuple[int, Fraction | None] | None = None if entry is None else (entry.end_s, exact(entry.bits, lp["wh"]))
    expected = None if vector.end_s is None else (vector.end_s, vector.wh)
    if seen != expected:
        yield f"seen (end, Wh) {_said(seen)}, expected {_said(expected)}; correct the words, the values or the coding"


def _said(pair: tuple[int, Fraction | None] | None) -> str:
    return "none" if pair is None else f"{pair[0]}, {pair[1]}"
