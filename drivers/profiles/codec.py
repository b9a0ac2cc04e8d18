"""Register words ↔ values, exactly.

Words → *bits* (an unsigned integer, most significant word first once the word order was applied) → exact rational in
the SI base unit → float. The exact rational is what energy and evidence use; the float is for telemetry and people.
Pure functions. Sources: IEEE 754-2019 for f32/f64; the project's evidence contract for the decode map.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from drivers.capabilities import Value
from drivers.errors import BadAnswer
from drivers.profiles.fields import READ_FUNCTION, RegisterField
from drivers.profiles.model import Check, MeterProfile, Point

Number = Fraction | str | None
"""Exact value, text, or ``None`` where the device says it has none."""


def words_to_bits(words: Sequence[int], word_order: str = "big") -> int:
    """Registers in address order → unsigned integer."""
    ordered = words if word_order == "big" else tuple(reversed(words))
    bits = 0
    for word in ordered:
        bits = bits << 16 | word
    return bits


def bits_to_words(bits: int, words: int, word_order: str = "big") -> tuple[int, ...]:
    """Inverse of :func:`words_to_bits`."""
    out = tuple(bits >> 16 * (words - 1 - i) & 0xFFFF for i in range(words))
    return out if word_order == "big" else tuple(reversed(out))


def raw_number(bits: int, enc: str, words: int) -> Fraction | None:
    """Bits → raw count before scaling; ``None`` for NaN, infinities and digits that are none.

    Raises:
        ValueError: an encoding that is not numeric.
    """
    width = 16 * words
    if enc[0] == "u" or enc == "bits":
        return Fraction(bits)
    if enc[0] == "i":
        return Fraction(bits - (1 << width) if bits >> (width - 1) else bits)
    if enc in {"f32", "f64"}:
        fmt = ">f" if enc == "f32" else ">d"
        value: float = struct.unpack(fmt, bits.to_bytes(width // 8, "big"))[0]
        if not math.isfinite(value):
            return None
        return Fraction(value)
    if enc == "bcd":
        digits = f"{bits:0{4 * words}x}"
        return Fraction(int(digits)) if digits.isdecimal() else None
    if enc == "mod10k":
        total = 0
        for word in bits_to_words(bits, words):
            if word > 9999:
                return None
            total = total * 10_000 + word
        return Fraction(total)
    raise ValueError(f"encoding: seen {enc!r}, expected u16 u32 u64 i16 i32 i64 f32 f64 bcd mod10k or bits")


def _text(field: RegisterField, bits: int) -> str | None:
    raw = bits.to_bytes(2 * field.words, "big").rstrip(b"\x00\xff").strip()
    if not raw:
        return None
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise BadAnswer(f"text at {field.table} {field.addr}: seen bytes {raw.hex()}, expected ASCII") from None
    if not text.isprintable():
        raise BadAnswer(f"text at {field.table} {field.addr}: seen bytes {raw.hex()}, expected printable ASCII")
    return text


def lsb_of(field: RegisterField) -> Fraction:
    """SI units per raw count, sign included."""
    return -field.scale if field.positive == "export" else field.scale


def field_bits(field: RegisterField, words: Sequence[int]) -> int:
    """Bits of a field from its own registers. Texts have no word order: their bytes stand as they are sent."""
    if len(words) != field.words:
        raise ValueError(f"{field.table} {field.addr}: seen {len(words)} registers, expected {field.words}")
    return words_to_bits(words, "big" if field.type == "str" else field.word_order)


def decode_bits(field: RegisterField, bits: int) -> Number:
    """Bits → exact value in SI, text, or ``None`` (sentinel, NaN, infinity).

    Raises:
        BadAnswer: bytes that cannot be what the profile says (text that is not ASCII, digits above 9).
    """
    if any(bits == int(s, 16) for s in field.sentinels):
        return None
    if field.type == "str":
        return _text(field, bits)
    raw = raw_number(bits, field.type, field.words)
    if raw is None:
        if field.type in {"bcd", "mod10k"}:
            raise BadAnswer(f"{field.table} {field.addr}: seen {bits:#x}, expected {field.type} digits")
        return None
    if isinstance(field, Point) and field.kind == "text":
        return str(int(raw))
    return raw * lsb_of(field)


def decode_map(point: Point) -> dict[str, Any]:
    """How a verifier re-decodes this point from raw frames: the value of ``bind.pts`` (evidence contract).

    Raises:
        ValueError: a text point; evidence binds numbers only.
    """
    if point.type == "str":
        raise ValueError(f"{point.id}: text has no decode map")
    lsb = lsb_of(point)
    enc = f"u{16 * point.words}" if point.type == "bits" else point.type
    return {
        "fc": READ_FUNCTION[point.table],
        "addr": point.addr,
        "words": point.words,
        "order": point.word_order,
        "enc": enc,
        "lsb": {"num": lsb.numerator, "den": lsb.denominator},
    }


def exact(bits: int, mapping: Mapping[str, Any]) -> Fraction | None:
    """Exact SI value of raw register bits under a decode map; ``None`` where the bits are no number."""
    raw = raw_number(bits, str(mapping["enc"]), int(mapping["words"]))
    return None if raw is None else raw * Fraction(mapping["lsb"]["num"], mapping["lsb"]["den"])


def encode(field: RegisterField, value: Value | Fraction) -> tuple[int, ...]:
    """SI value (or text) → registers in address order, for imitating a device. ``None`` gives the sentinel.

    Whole-number types round to the nearest count and saturate at their ends, as a device would.

    Raises:
        ValueError: the field cannot hold such a value (no sentinel for ``None``, text too long).
    """
    if value is None:
        if field.type in {"f32", "f64"}:
            bits = 0x7FC00000 if field.type == "f32" else 0x7FF8 << 48
        elif field.sentinels:
            bits = int(field.sentinels[0], 16)
        elif field.type == "str":
            bits = 0
        else:
            raise ValueError(f"{field.table} {field.addr}: no sentinel, so 'no value' cannot be expressed")
    elif field.type == "str":
        raw = str(value).encode("ascii")
        if len(raw) > 2 * field.words:
            raise ValueError(f"{field.table} {field.addr}: text of {len(raw)} bytes, room for {2 * field.words}")
        return bits_to_words(int.from_bytes(raw.ljust(2 * field.words, b"\x00"), "big"), field.words)
    else:
        bits = _number_bits(field, Fraction(value) / lsb_of(field))
    return bits_to_words(bits, field.words, "big" if field.type == "str" else field.word_order)


def _number_bits(field: RegisterField, raw: Fraction) -> int:
    width = 16 * field.words
    if field.type in {"f32", "f64"}:
        fmt = ">f" if field.type == "f32" else ">d"
        return int.from_bytes(struct.pack(fmt, float(raw)), "big")
    count = round(raw)
    if field.type == "bcd":
        return int(str(min(max(count, 0), 10 ** (4 * field.words) - 1)), 16)
    if field.type == "mod10k":
        count, bits = min(max(count, 0), 10_000**field.words - 1), 0
        for power in reversed(range(field.words)):
            bits = bits << 16 | count // 10_000**power % 10_000
        return bits
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if field.type[0] == "i" else (0, (1 << width) - 1)
    return min(max(count, low), high) & ((1 << width) - 1)


@dataclass(frozen=True, slots=True)
class Decoded:
    """One point out of a block: exact value, what telemetry carries, and the bits behind it."""

    number: Number
    value: Value
    bits: int | None
    error: str | None = None


def to_value(number: Number) -> Value:
    """Exact value → what telemetry carries."""
    return float(number) if isinstance(number, Fraction) else number


def decode_registers(
    profile: MeterProfile, table: str, addr: int, words: Sequence[int], points: Sequence[str] | None = None
) -> dict[str, Decoded]:
    """Every point that a block of registers covers wholly (or those of ``points`` among them), ratios not applied."""
    out: dict[str, Decoded] = {}
    for point in profile.points:
        start = point.addr - addr
        if point.table != table or start < 0 or start + point.words > len(words):
            continue
        if points is not None and point.id not in points:
            continue
        bits = field_bits(point, words[start : start + point.words])
        kept = None if point.type == "str" else bits
        try:
            number = decode_bits(point, bits)
        except BadAnswer as error:
            out[point.id] = Decoded(None, None, kept, str(error))
        else:
            out[point.id] = Decoded(number, to_value(number), kept)
    return out


def scaled(point: Point, number: Fraction, decoded: Mapping[str, Decoded]) -> Fraction:
    """Multiply by the point's transformer ratios (``scale_by``); a ratio that was not read is 1."""
    for name in point.scale_by:
        ratio = decoded.get(name)
        if ratio is not None and isinstance(ratio.number, Fraction):
            number *= ratio.number
    return number


def decode_block(
    profile: MeterProfile, table: str, addr: int, words: Sequence[int], points: Sequence[str] | None = None
) -> dict[str, Decoded]:
    """Like :func:`decode_registers`, ratios applied: the ratio's own value if the block holds it, and 1 otherwise."""
    decoded = decode_registers(profile, table, addr, words, points)
    out = dict(decoded)
    for name, here in decoded.items():
        point = profile.point(name)
        if point.scale_by and isinstance(here.number, Fraction):
            number = scaled(point, here.number, decoded)
            out[name] = Decoded(number, to_value(number), here.bits)
    return out


def plausible(point: Point, value: Value) -> bool:
    """False where a number lies outside the profile's range."""
    if not isinstance(value, int | float):
        return True
    return (point.min is None or value >= point.min) and (point.max is None or value <= point.max)


def failed_checks(profile: MeterProfile, values: Mapping[str, Value]) -> tuple[Check, ...]:
    """Self-checks whose points are all there and that do not hold."""
    failed = []
    for check in profile.checks:
        parts = [values.get(name) for name in check.sum]
        whole = values.get(check.equals)
        numbers = [p for p in parts if isinstance(p, int | float)]
        if len(numbers) != len(parts) or not isinstance(whole, int | float):
            continue
        if abs(sum(numbers) - whole) > max(check.absolute, check.relative * abs(whole)):
            failed.append(check)
    return tuple(failed)
