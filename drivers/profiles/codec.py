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
from drivers.profiles.fields import DECIMAL, READ_FUNCTION, Coding, RegisterField
from drivers.profiles.model import Check, Live, MeterProfile, Point, Variable

Number = Fraction | str | None
"""Exact value, text, or ``None`` where the device says it has none."""

MAX_EXPONENT = 12
"""Largest power of ten, up or down, that a scale register may name; a wilder one is no scale."""


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


def swapped(words: Sequence[int]) -> tuple[int, ...]:
    """The two bytes of each word exchanged."""
    return tuple((w & 0xFF) << 8 | w >> 8 for w in words)


def _where(field: Coding) -> str:
    return f"{field.table} {field.addr}" if isinstance(field, RegisterField) else f"register {field.addr}"


def _text(field: Coding, bits: int) -> str | None:
    raw = bits.to_bytes(2 * field.words, "big").rstrip(b"\x00\xff").strip()
    if not raw:
        return None
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise BadAnswer(f"text at {_where(field)}: seen bytes {raw.hex()}, expected ASCII") from None
    if not text.isprintable():
        raise BadAnswer(f"text at {_where(field)}: seen bytes {raw.hex()}, expected printable ASCII")
    return text


def lsb_of(field: Coding) -> Fraction:
    """SI units per raw count, sign included."""
    return -field.scale if field.positive == "export" else field.scale


def field_bits(field: Coding, words: Sequence[int]) -> int:
    """Bits of a field from its own registers. Texts and sums have no word order: their words stand as they are sent."""
    if len(words) != field.words:
        raise ValueError(f"{_where(field)}: seen {len(words)} registers, expected {field.words}")
    if field.type == "sum":
        return words_to_bits(words)
    ordered = swapped(words) if field.byte_order == "little" else words
    return words_to_bits(ordered, "big" if field.type == "str" else field.word_order)


def decode_bits(field: Coding, bits: int) -> Number:
    """Bits → exact value in SI, text, or ``None`` (sentinel, NaN, infinity). A variable gives its multiplier.

    Raises:
        BadAnswer: bytes that cannot be what the profile says (text that is not ASCII, digits above 9).
    """
    if any(bits == int(s, 16) for s in field.sentinels):
        return None
    if field.type == "str":
        return _text(field, bits)
    if field.type == "enum":
        if bits not in field.names:
            known = ", ".join(f"{code} {name}" for code, name in sorted(field.names.items()))
            raise BadAnswer(f"{_where(field)}: seen code {bits}, expected one of {known}")
        return field.names[bits]
    raw = _sum(field, bits) if isinstance(field, RegisterField) and field.type == "sum" else _raw(field, bits)
    if raw is None:
        return None
    if isinstance(field, Variable):
        return multiplier(field, raw)
    if isinstance(field, Point) and field.kind == "text":
        return str(int(raw))
    return raw * lsb_of(field)


def _raw(field: Coding, bits: int) -> Fraction | None:
    if field.mask is not None:
        mask = int(field.mask, 16)
        bits = (bits & mask) >> _lowest(mask)
    raw = raw_number(bits, field.type, field.words)
    if raw is None and field.type in DECIMAL:
        raise BadAnswer(f"{_where(field)}: seen {bits:#x}, expected {field.type} digits")
    return raw


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _sum(field: RegisterField, bits: int) -> Fraction | None:
    words = bits_to_words(bits, field.words)
    total = Fraction(0)
    for part in field.parts:
        at = part.addr - field.addr
        number = decode_bits(part, field_bits(part, words[at : at + part.words]))
        if not isinstance(number, Fraction):
            return None
        total += number
    return total


def multiplier(variable: Variable, raw: Fraction) -> Fraction | None:
    """What the points of a variable are multiplied by; ``None`` where its contents are no multiplier."""
    if variable.gives == "exponent":
        return Fraction(10) ** int(raw) if raw.denominator == 1 and abs(raw) <= MAX_EXPONENT else None
    if variable.gives == "index":
        return variable.steps[int(raw)] if 0 <= raw < len(variable.steps) and raw.denominator == 1 else None
    factor = raw * lsb_of(variable)
    if factor <= 0:
        return None
    return 1 / factor if variable.gives == "divisor" else factor


def decode_map(point: Point) -> dict[str, Any]:
    """How a verifier re-decodes this point from raw frames: the value of ``bind.pts`` (evidence contract).

    Raises:
        ValueError: a text, or a value that no run of raw bits gives by itself; evidence binds plain numbers only.
    """
    if point.unprovable is not None:
        raise ValueError(f"{point.id}: has no decode map: {point.unprovable}")
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


def encode(field: Coding, value: Value | Fraction) -> tuple[int, ...]:
    """SI value (or text) → registers in address order, for imitating a device. ``None`` gives the sentinel.

    Whole-number types round to the nearest count and saturate at their ends, as a device would. A sum puts as much as
    it can into its first part of the right sign and the rest into the next ones. A variable takes its multiplier.

    Raises:
        ValueError: the field cannot hold such a value (no sentinel for ``None``, text too long, name not in the enum).
    """
    if isinstance(field, RegisterField) and field.type == "sum":
        return _encode_sum(field, value)
    if value is None:
        bits = _none_bits(field)
    elif field.type == "str":
        raw = str(value).encode("ascii")
        if len(raw) > 2 * field.words:
            raise ValueError(f"{_where(field)}: text of {len(raw)} bytes, room for {2 * field.words}")
        bits = int.from_bytes(raw.ljust(2 * field.words, b" " if field.padding == "space" else b"\x00"), "big")
    elif field.type == "enum":
        codes = [code for code, name in field.names.items() if name == value]
        if not codes:
            raise ValueError(f"{_where(field)}: seen {value!r}, expected one of {', '.join(field.names.values())}")
        bits = codes[0]
    elif isinstance(field, Variable):
        bits = _number_bits(field, _raw_of(field, Fraction(value)))
    else:
        bits = _number_bits(field, Fraction(value) / lsb_of(field))
    words = bits_to_words(bits, field.words, "big" if field.type == "str" else field.word_order)
    return swapped(words) if field.byte_order == "little" else words


def _none_bits(field: Coding) -> int:
    if field.type in {"f32", "f64"}:
        return 0x7FC00000 if field.type == "f32" else 0x7FF8 << 48
    if field.sentinels:
        return int(field.sentinels[0], 16)
    if field.type == "str":
        return 0
    raise ValueError(f"{_where(field)}: no sentinel, so 'no value' cannot be expressed")


def _raw_of(variable: Variable, factor: Fraction) -> Fraction:
    if variable.gives == "index":
        if factor not in variable.steps:
            raise ValueError(f"variable {variable.id}: {factor} is none of its steps")
        return Fraction(variable.steps.index(factor))
    if variable.gives == "exponent":
        for power in range(-MAX_EXPONENT, MAX_EXPONENT + 1):
            if Fraction(10) ** power == factor:
                return Fraction(power)
        raise ValueError(f"variable {variable.id}: {factor} is no power of ten")
    return (1 / factor if variable.gives == "divisor" else factor) / lsb_of(variable)


def _encode_sum(field: RegisterField, value: Value | Fraction) -> tuple[int, ...]:
    words = [0] * field.words
    rest = None if value is None else Fraction(value)
    for part in field.parts:
        if rest is None:
            own = encode(part, None)
        else:
            lsb = lsb_of(part)
            signed = part.type[0] in "if"
            count = rest / lsb if signed or rest / lsb > 0 else Fraction(0)
            exact_count = count if part.type in {"f32", "f64"} else Fraction(math.trunc(count))
            own = encode(part, exact_count * lsb)
            got = decode_bits(part, field_bits(part, own))
            # A float takes the whole: what its rounding leaves over is no quantity.
            taken = rest if part.type in {"f32", "f64"} and count else got
            rest -= taken if isinstance(taken, Fraction) else 0
        at = part.addr - field.addr
        words[at : at + part.words] = own
    return tuple(words)


def _number_bits(field: Coding, raw: Fraction) -> int:
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
    if field.mask is not None:
        mask = int(field.mask, 16)
        shift = _lowest(mask)
        # A mask with gaps keeps what falls on its bits; reading gives the same bits back.
        return min(max(count, 0), mask >> shift) << shift & mask
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
    """Every point and variable that a block covers wholly (or those of ``points`` among them), ratios not applied."""
    out: dict[str, Decoded] = {}
    for point in profile.readable:
        start = point.addr - addr
        if point.table != table or start < 0 or start + point.words > len(words):
            continue
        if points is not None and point.id not in points:
            continue
        bits = field_bits(point, words[start : start + point.words])
        kept = bits if point.unprovable is None else None
        try:
            number = decode_bits(point, bits)
        except BadAnswer as error:
            out[point.id] = Decoded(None, None, kept, str(error))
        else:
            out[point.id] = Decoded(number, to_value(number), kept)
    return out


def scaled(point: Point, number: Fraction, decoded: Mapping[str, Decoded]) -> Fraction:
    """Multiply by the point's ratios and variables (``scale_by``); one that was not read is 1."""
    for name in point.scale_by:
        ratio = decoded.get(name)
        if ratio is not None and isinstance(ratio.number, Fraction):
            number *= ratio.number
    return number


def decode_block(
    profile: MeterProfile, table: str, addr: int, words: Sequence[int], points: Sequence[str] | None = None
) -> dict[str, Decoded]:
    """Points alone, ratios applied: the ratio's own value if the block holds it, and 1 otherwise.

    A point whose ratio the block holds and cannot be used has no value.
    """
    decoded = decode_registers(profile, table, addr, words)
    out: dict[str, Decoded] = {}
    for point in profile.points:
        name = point.id
        here = decoded.get(name)
        if here is None or (points is not None and name not in points):
            continue
        out[name] = here
        if any(ratio in decoded and decoded[ratio].number is None for ratio in point.scale_by):
            out[name] = Decoded(None, None, here.bits)
        elif point.scale_by and isinstance(here.number, Fraction):
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


def unlike_live(profile: MeterProfile, values: Mapping[str, Value]) -> tuple[Live, ...]:
    """Live ranges that a value lies outside of; points without a value tell nothing."""
    outside = []
    for live in profile.live:
        value = values.get(live.point)
        if isinstance(value, int | float) and not live.between[0] <= value <= live.between[1]:
            outside.append(live)
    return tuple(outside)
