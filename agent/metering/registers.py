"""How the registers of one metering point are read as evidence: decode maps, ratios, frames. Pure.

A decode map gives *primary* energy. Where the meter does not apply the transformers' ratios itself, they are multiplied
into the map's Wh per count, so that whoever recomputes an interval needs nothing but the map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from config.devices import Passport, RatioPassport
from drivers.capabilities import Reading
from drivers.profiles.codec import decode_map
from drivers.profiles.loadcurve import evidence
from drivers.profiles.model import MeterProfile

DecodeMaps = dict[str, dict[str, Any]]
Frames = tuple[tuple[str, str], ...]

IMPORT = "energy_import_wh"
EXPORT = "energy_export_wh"
RATIO_POINTS = ("ct_ratio", "vt_ratio")
FINE = 10_000
"""Ratios of real transformers are quotients of numbers no larger than this."""


def ratio_of(passport: RatioPassport | None) -> Fraction:
    """Ratio of one set of transformers; 1 where there are none."""
    return Fraction(1) if passport is None else Fraction(passport.num, passport.den)


def applied_ratio(passport: Passport) -> Fraction:
    """What the agent multiplies registers by to get primary values.

    ``meter``: nothing. ``agent``: both ratios. ``both``: the meter applies the current transformers' ratio, the agent
    that of the voltage transformers.
    """
    vt = ratio_of(passport.vt)
    return {"meter": Fraction(1), "agent": ratio_of(passport.ct) * vt, "both": vt}[passport.ratio_applied_in]


def evidence_maps(profile: MeterProfile, passport: Passport, points: Iterable[str]) -> DecodeMaps:
    """Decode map of every counter among ``points`` that raw bits prove, in primary units.

    ``roll`` is added where it is known at how many counts the register starts again: from the profile, or else from
    the passport's ``register_digits``.
    """
    factor, wanted = applied_ratio(passport), frozenset(points)
    found: DecodeMaps = {}
    for point in profile.points:
        if point.kind != "counter" or point.id not in wanted:
            continue
        how = decode_map(point)
        lsb = Fraction(how["lsb"]["num"], how["lsb"]["den"]) * factor
        how["lsb"] = {"num": lsb.numerator, "den": lsb.denominator}
        roll = point.modulus or (10**passport.register_digits if passport.register_digits else None)
        found[point.id] = how if roll is None or roll > 2**53 - 1 else how | {"roll": roll}
    return found


def evidence_curve(profile: MeterProfile, passport: Passport) -> dict[str, Any] | None:
    """How the meter's own load profile is read, in primary units; ``None`` where it has none that can be."""
    return None if profile.load_profile is None else evidence(profile.load_profile, applied_ratio(passport))


def read_ratio(reading: Reading | None) -> Fraction | None:
    """A ratio as the meter says it is set; ``None`` where it was not read."""
    if reading is None or not reading.quality.usable or not isinstance(reading.value, int | float):
        return None
    found = Fraction(reading.value).limit_denominator(FINE)
    return found if found > 0 else None


def read_ratios(readings: Mapping[str, Reading]) -> str | None:
    """Both ratios that the meter is set to, as one text to compare: ``ct 1200 vt 100``; ``None`` if none was read."""
    found = [(name, read_ratio(readings.get(name))) for name in RATIO_POINTS]
    if all(ratio is None for _, ratio in found):
        return None
    return " ".join(f"{name[:2]} {ratio if ratio is not None else '?'}" for name, ratio in found)


def ratios_differ(before: str | None, now: str | None) -> bool:
    """True where a ratio that was read both times is another one now."""
    if before is None or now is None:
        return False
    pairs = zip(before.split(), now.split(), strict=True)
    return any(a != b and "?" not in {a, b} for a, b in pairs)


def merged_ratios(before: str | None, now: str | None) -> str | None:
    """What is known of the ratios after a reading in which one of them may be missing."""
    if before is None or now is None:
        return now if before is None else before
    return " ".join(a if b == "?" else b for a, b in zip(before.split(), now.split(), strict=True))


def ratio_number(text: str | None, which: str) -> Fraction | None:
    """``ct 1200 vt ?``, ``ct`` → 1200; ``None`` where it was not read."""
    words = (text or "").split()
    value = words[words.index(which) + 1] if which in words else "?"
    return None if value == "?" else Fraction(value)


def ratio_set(text: str | None, which: str) -> dict[str, int] | None:
    """The same as ``{"num": 1200, "den": 1}``."""
    ratio = ratio_number(text, which)
    return None if ratio is None else {"num": ratio.numerator, "den": ratio.denominator}


def energy_frames(frames: Iterable[tuple[bytes, bytes]], maps: DecodeMaps) -> Frames:
    """Those request and answer frames that hold registers of the maps, as hex."""
    spans = [(int(m["fc"]), int(m["addr"]), int(m["addr"]) + int(m["words"])) for m in maps.values()]
    kept: list[tuple[str, str]] = []
    for request, answer in frames:
        fc, first = request[1], int.from_bytes(request[2:4], "big")
        end = first + int.from_bytes(request[4:6], "big")
        if any(fc == code and first < last and begin < end for code, begin, last in spans):
            kept.append((request.hex(), answer.hex()))
    return tuple(kept)


def whole_number(reading: Reading | None) -> int | None:
    """A usable number, rounded; ``None`` otherwise."""
    if reading is None or not reading.quality.usable or not isinstance(reading.value, int | float):
        return None
    return round(reading.value)
