"""Energy from raw register bits, exactly.

A decode map says how the bits of a register become primary Wh: ``{fc, addr, words, order, enc, lsb: {num, den}}``.
For floats the value is the exact dyadic rational of the bits; NaN and infinity are no reading.
``wh = floor(E(r1)) − floor(E(r0))`` so that sums telescope (``docs/protocol.md``).
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

from wire.errors import BadRecord

ENCODINGS = {"u16": 16, "i16": 16, "u32": 32, "i32": 32, "u64": 64, "i64": 64, "f32": 32, "f64": 64}


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


def primary_wh(bits: int, decode_map: dict[str, Any]) -> Fraction | None:
    """Exact primary energy in Wh of one register value."""
    value = number(bits, decode_map["enc"], decode_map["words"])
    if value is None:
        return None
    lsb = decode_map["lsb"]
    return value * Fraction(lsb["num"], lsb["den"])


def interval_wh(bits0: int, bits1: int, decode_map: dict[str, Any]) -> int | None:
    """Whole Wh between two register values; ``None`` where one of them is no reading. May be negative."""
    e0, e1 = primary_wh(bits0, decode_map), primary_wh(bits1, decode_map)
    if e0 is None or e1 is None:
        return None
    return math.floor(e1) - math.floor(e0)
