"""Energy from raw register bits, exactly.

A decode map says how the bits of a register become primary Wh: ``{fc, addr, words, order, enc, lsb: {num, den}}`` and,
where it is known at how many counts the register starts again from 0, ``roll``.
For floats the value is the exact dyadic rational of the bits; NaN and infinity are no reading.
``wh = floor(E(r1)) − floor(E(r0))`` so that sums telescope (``docs/protocol.md``); over a rollover E(r1) is greater by
what the whole register holds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from wire.errors import BadRecord

ENCODINGS = {"u16": 16, "i16": 16, "u32": 32, "i32": 32, "u64": 64, "i64": 64, "f32": 32, "f64": 64}
MAX_WORDS = 8


def number(bits: int, enc: str, words: int) -> Fraction | None:
    """Exact number of raw bits; ``None`` for NaN, infinity or an impossible BCD digit.

    Raises:
        BadRecord: unknown encoding, or bits wider than the register.
    """
    width = words * 16
    if bits < 0 or bits >> width:
        raise BadRecord(f"{bits} does not fit into {words} registers")
    if enc in {"bcd", "mod10k"}:
        digits = f"{bits:0{words * 4}x}"
        if enc == "bcd":
            return Fraction(int(digits)) if digits.isdigit() else None
        total = 0
        for i in range(words):
            word = (bits >> (16 * (words - 1 - i))) & 0xFFFF
            if word > 9999:
                return None
            total = total * 10_000 + word
        return Fraction(total)
    if ENCODINGS.get(enc) != width:
        raise BadRecord(f"encoding {enc!r} does not fit {words} registers")
    if enc[0] == "f":
        value = struct.unpack(">f" if enc == "f32" else ">d", bits.to_bytes(width // 8, "big"))[0]
        return Fraction(value) if math.isfinite(value) else None
    if enc[0] == "i" and bits >> (width - 1):
        bits -= 1 << width
    return Fraction(bits)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(decode_map: Mapping[str, Any]) -> tuple[str, int, Fraction]:
    """Encoding, registers and Wh per count of a decode map.

    Raises:
        BadRecord: a field is missing or cannot be; the message names it and what was seen.
    """
    if not isinstance(decode_map, Mapping):
        raise BadRecord(f"decode map: saw {str(decode_map)[:60]!r}, expected enc, words and lsb")
    missing = [name for name in ("enc", "words", "lsb") if name not in decode_map]
    if missing:
        raise BadRecord(f"decode map has no {', '.join(missing)}; expected enc, words and lsb")
    enc, words, lsb = decode_map["enc"], decode_map["words"], decode_map["lsb"]
    if not isinstance(enc, str) or not _whole(words) or not 1 <= words <= MAX_WORDS:
        raise BadRecord(f"decode map: saw encoding {str(enc)[:20]!r} in {str(words)[:20]!r} registers, expected 1 to 8")
    if not isinstance(lsb, Mapping) or set(lsb) != {"num", "den"} or not all(_whole(lsb[k]) for k in ("num", "den")):
        raise BadRecord(f"decode map: saw lsb {str(lsb)[:60]!r}, expected whole numbers num and den")
    if lsb["den"] < 1 or lsb["num"] == 0:
        raise BadRecord(f"decode map: saw lsb {lsb['num']}/{lsb['den']}, expected num other than 0 and den from 1")
    return enc, words, Fraction(lsb["num"], lsb["den"])


def primary_wh(bits: int, decode_map: Mapping[str, Any]) -> Fraction | None:
    """Exact primary energy in Wh of one register value.

    Raises:
        BadRecord: a malformed decode map, or bits that do not fit it.
    """
    enc, words, lsb = _count(decode_map)
    value = number(bits, enc, words)
    return None if value is None else value * lsb


def interval_wh(bits0: int, bits1: int, decode_map: Mapping[str, Any], *, wrapped: bool = False) -> int | None:
    """Whole Wh between two register values; ``None`` where one of them is no reading. May be negative.

    Args:
        wrapped: the register ran over once between the two; the decode map then has to say where (``roll``).

    Raises:
        BadRecord: a malformed decode map, bits that do not fit it, or a rollover nobody knows the width of.
    """
    e0, e1 = primary_wh(bits0, decode_map), primary_wh(bits1, decode_map)
    if e0 is None or e1 is None:
        return None
    if wrapped:
        span = span_wh(decode_map)
        if span is None:
            raise BadRecord("decode map has no roll: what a rollover is worth is not known")
        e1 += span
    return math.floor(e1) - math.floor(e0)


def span_wh(decode_map: Mapping[str, Any]) -> Fraction | None:
    """What the register holds when it is full, in primary Wh; ``None`` where its width is not known.

    Only widths that anybody can recompute from the register's own form are taken: a power of ten, or all values of an
    unsigned binary register. Any other ``roll`` counts as unknown, so that a doubt becomes a gap and not energy.

    Raises:
        BadRecord: a malformed decode map.
    """
    enc, words, lsb = _count(decode_map)
    roll = decode_map.get("roll")
    if roll is None:
        return None
    if not _whole(roll) or roll < 2:
        raise BadRecord(f"decode map: saw roll {str(roll)[:30]!r}, expected a whole number of counts from 2")
    decimal = roll == 10 ** (len(str(roll)) - 1)
    binary = enc[0] == "u" and roll == 1 << 16 * words
    return roll * lsb if decimal or binary else None


def quantum_wh(bits: int, decode_map: Mapping[str, Any]) -> Fraction | None:
    """The least the register can move by at this value, in primary Wh: a count, or the last place of a float.

    Raises:
        BadRecord: a malformed decode map, or bits that do not fit it.
    """
    enc, words, lsb = _count(decode_map)
    if enc[0] != "f":
        return abs(lsb)
    here, after = number(bits, enc, words), number(bits + 1, enc, words)
    return None if here is None or after is None else abs((after - here) * lsb)
