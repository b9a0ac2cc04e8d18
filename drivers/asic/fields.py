"""Values as miners write them: numbers as strings, with units, absent, or marked with rubbish."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

_LEADING_NUMBER = re.compile(r"\s*([+-]?\d{1,30}(?:\.\d{0,30})?(?:[eE][+-]?\d{1,3})?)\s*[A-Za-z%°/]{0,6}\s*")

MAX_DEGREES_C = 200
"""Above it a temperature is a firmware's mark for a broken sensor (255)."""

_TO_THS = {"": 1e-3, "H": 1e-12, "KH": 1e-9, "MH": 1e-6, "GH": 1e-3, "TH": 1.0, "PH": 1e3}
"""Factor to TH/s by unit; GH/s is what cgminer kin mean where they name none."""


def number(value: object) -> float | None:
    """A finite number from a number or from text such as ``7903.729``, ``58.94W`` or ``3250 W``; else ``None``."""
    # Asked thirty times per machine: one type after the other is several times faster than a union of them.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _number_in(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def _number_in(value: str) -> float | None:
    try:
        result = float(value)  # most texts are plain numbers
    except ValueError:
        match = _LEADING_NUMBER.fullmatch(value)
        if match is None:
            return None
        result = float(match.group(1))
    else:
        if "_" in value:
            return None  # Python's own way of writing numbers is nobody else's
    return result if math.isfinite(result) else None


def integer(value: object) -> int | None:
    """A whole number, or ``None``."""
    result = number(value)
    return round(result) if result is not None and abs(result) < 2**53 else None


def text(value: object) -> str | None:
    """Trimmed text of sensible length, or ``None`` where there is none."""
    if not isinstance(value, str):
        return None
    return value.strip()[:200] or None


def first(mapping: dict[str, Any], *names: str) -> object:
    """The first of the named fields that is there and neither ``None`` nor empty text."""
    for name in names:
        value = mapping.get(name)
        if value is not None and value != "":
            return value
    return None


def to_ths(value: object, unit: object = None) -> float | None:
    """A hash rate in TH/s; ``unit`` is ``GH``, ``GH/s``, ``TH`` … and GH where absent."""
    rate = number(value)
    if rate is None or rate < 0:
        return None
    name = unit.strip().upper().removesuffix("/S").removesuffix("S") if isinstance(unit, str) else ""
    factor = _TO_THS.get(name)
    return None if factor is None else rate * factor


def temperatures(value: object) -> list[float]:
    """Degrees from ``47``, ``"47-34-34-47"`` or a list; 0 and below mean "no sensor" to these firmwares."""
    parts: Iterable[object]
    if isinstance(value, str):
        parts = value.split("-")
    elif isinstance(value, list):
        parts = value
    else:
        parts = (value,)
    return [degrees for part in parts if (degrees := number(part)) is not None and 0 < degrees < MAX_DEGREES_C]


def rows(answer: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The objects listed under ``name``; an empty list where there are none."""
    listed = (answer or {}).get(name)
    if isinstance(listed, dict):
        return [listed]
    return [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []


def mac(value: object) -> str | None:
    """A MAC address as ``02:00:00:0a:00:01``, or ``None``."""
    digits = re.sub(r"[:.\-]", "", value).lower() if isinstance(value, str) else ""
    if re.fullmatch(r"[0-9a-f]{12}", digits) is None or digits == "0" * 12:
        return None
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))
