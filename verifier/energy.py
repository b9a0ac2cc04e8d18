"""Energy out of raw register bits, in exact arithmetic.

Raw frames → words → bits → exact primary Wh → ``wh = floor(E(r1)) − floor(E(r0))``, so that sums telescope.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

READ_FUNCTIONS = frozenset({3, 4})


@dataclass(frozen=True, slots=True)
class DecodeMap:
    """How the registers of one point become a number."""

    fc: int
    addr: int
    words: int
    order: str
    enc: str
    lsb: Fraction
    roll: int | None = None
    """Counts at which the register starts again from 0; ``None`` where the bind does not say."""

    def energy(self, bits: int) -> Fraction | None:
        """Exact value in the point's unit; ``None`` for bits that are no number.

        Raises:
            ValueError: bits that do not fit into the registers.
        """
        value = _number(bits, self.enc, self.words)
        return None if value is None else value * self.lsb

    def whole_wh(self, bits: int) -> int | None:
        """Whole Wh, rounded down; ``None`` for bits that are no number.

        Raises:
            ValueError: bits that do not fit into the registers.
        """
        if self.enc[0] == "u" and type(bits) is int and 0 <= bits < 1 << 16 * self.words:
            return bits * self.lsb.numerator // self.lsb.denominator
        value = self.energy(bits)
        return None if value is None else math.floor(value)

    def quantum_wh(self, bits: int) -> Fraction:
        """The least the register can move by at this value: a count, or the last place of a float."""
        if self.enc[0] != "f":
            return abs(self.lsb)
        here, after = (_number(b, self.enc, self.words) for b in (bits, bits ^ 1))
        return Fraction(0) if here is None or after is None else abs((after - here) * self.lsb)


def read_map(doc: Any) -> DecodeMap:
    """A decode map out of a ``bind`` record.

    Raises:
        ValueError: a field is missing or impossible.
    """
    try:
        lsb = ratio(doc["lsb"])
        found = DecodeMap(doc["fc"], doc["addr"], doc["words"], doc["order"], doc["enc"], lsb, doc.get("roll"))
    except (KeyError, TypeError):
        raise ValueError("a decode map needs fc, addr, words, order, enc and lsb") from None
    whole = all(type(n) is int for n in (doc["fc"], doc["addr"], doc["words"]))
    if not whole or found.fc not in READ_FUNCTIONS or not 0 <= found.addr <= 65_535 or not 1 <= found.words <= 8:
        raise ValueError(f"a decode map reads function {found.fc!r}, address {found.addr!r}, {found.words!r} words")
    if found.order not in {"big", "little"} or not isinstance(found.enc, str):
        raise ValueError(f"a decode map has order {found.order!r} and encoding {found.enc!r}")
    _number(0, found.enc, found.words)
    if found.roll is not None and (type(found.roll) is not int or found.roll < 2):
        raise ValueError(f"a decode map rolls over at {found.roll!r}")
    return found


def ratio(doc: Any) -> Fraction:
    """``{num, den}`` → fraction.

    Raises:
        ValueError: not two integers, or den < 1.
    """
    if not isinstance(doc, dict) or set(doc) != {"num", "den"}:
        raise ValueError("a ratio needs exactly num and den")
    num, den = doc["num"], doc["den"]
    if any(isinstance(n, bool) or not isinstance(n, int) for n in (num, den)) or den < 1:
        raise ValueError(f"a ratio of {num!r} to {den!r}")
    return Fraction(num, den)


def _number(bits: int, enc: str, words: int) -> Fraction | None:
    width = 16 * words
    if type(bits) is not int or bits < 0 or bits >> width:
        raise ValueError(f"{bits!r} does not fit into {words} registers")
    if enc == "bcd":
        digits = [(bits >> shift) & 15 for shift in range(0, width, 4)]
        return None if max(digits) > 9 else Fraction(sum(d * 10**i for i, d in enumerate(digits)))
    if enc == "mod10k":
        parts = [(bits >> shift) & 0xFFFF for shift in range(0, width, 16)]
        return None if max(parts) > 9999 else Fraction(sum(d * 10_000**i for i, d in enumerate(parts)))
    if enc == f"u{width}":
        return Fraction(bits)
    if enc == f"i{width}":
        return Fraction(bits - (1 << width) if bits >> (width - 1) else bits)
    if enc == f"f{width}" and width in {32, 64}:
        return _binary_float(bits, *((8, 23) if width == 32 else (11, 52)))
    raise ValueError(f"encoding {enc[:20]!r} does not fit {words} registers")


def _binary_float(bits: int, exponent_bits: int, fraction_bits: int) -> Fraction | None:
    """IEEE 754 by the standard's own formula, without the machine's floating point."""
    sign = -1 if bits >> (exponent_bits + fraction_bits) else 1
    exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1)
    fraction = bits & ((1 << fraction_bits) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    if exponent == (1 << exponent_bits) - 1:
        return None
    significand, power = (fraction, 1) if exponent == 0 else (fraction | (1 << fraction_bits), exponent)
    return sign * Fraction(significand) * Fraction(2) ** (power - bias - fraction_bits)


def energies_between(first: int, last: int, how: DecodeMap, *, rollover: bool) -> tuple[int, ...]:
    """Whole Wh between two register values; empty where one of them is no number.

    With ``rollover`` one result per count at which such a register can run over: a decimal counter at a power of ten
    above its last value, a binary one at 2^bits.

    Raises:
        ValueError: bits that do not fit into the registers.
    """
    if not rollover:
        whole = how.whole_wh(first), how.whole_wh(last)
        return () if whole[0] is None or whole[1] is None else (whole[1] - whole[0],)
    before, after = how.energy(first), how.energy(last)
    if before is None or after is None:
        return ()
    return tuple(math.floor(after + span * how.lsb) - math.floor(before) for span in _spans(first, how))


def _spans(first: int, how: DecodeMap) -> tuple[int, ...]:
    value = _number(first, how.enc, how.words)
    if value is None:
        return ()
    if how.roll is not None:
        # Only a width that follows from the register's own form is believed, and only above a tenth of it.
        own = how.roll == 10 ** (len(str(how.roll)) - 1) or (how.enc[0] == "u" and how.roll == 2 ** (16 * how.words))
        return (how.roll,) if own and how.roll <= 10 * value < 10 * how.roll else ()
    decimal = 10 ** len(str(math.floor(abs(value))))
    if how.enc in {"bcd", "mod10k"}:
        return (decimal, 10 ** (4 * how.words))
    return (decimal, 2 ** (16 * how.words)) if how.enc[0] == "u" else (decimal,)


def words_of(frames: Any) -> dict[tuple[int, int], int]:
    """Registers in raw frames: (function, address) → word.

    Frames are ``[request hex, answer hex]``: unit, function, data, without framing or check sum.

    Raises:
        ValueError: a frame that is not a read, or an answer that does not fit its request.
    """
    if not isinstance(frames, list) or len(frames) > 64:
        raise ValueError("raw frames are a list of at most 64 pairs")
    words: dict[tuple[int, int], int] = {}
    for pair in frames:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(h, str) for h in pair):
            raise ValueError("a raw frame is a pair of hex texts")
        request, answer = (_bytes(text) for text in pair)
        if len(request) != 6 or request[1] not in READ_FUNCTIONS:
            raise ValueError(f"request {request.hex()[:40]} is no read of registers")
        address, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
        if answer[:2] != request[:2] or len(answer) != 3 + 2 * count or answer[2] != 2 * count:
            raise ValueError(f"answer {answer.hex()[:40]} does not answer request {request.hex()}")
        for i in range(count):
            words[request[1], address + i] = int.from_bytes(answer[3 + 2 * i : 5 + 2 * i], "big")
    return words


def _bytes(text: str) -> bytes:
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError(f"hex {text[:40]!r} is not in lower case without spaces")
    return data


def bits_from(words: Mapping[tuple[int, int], int], how: DecodeMap) -> int | None:
    """Bits of a point out of raw registers; ``None`` where the frames do not cover it."""
    parts: Sequence[int | None] = [words.get((how.fc, how.addr + i)) for i in range(how.words)]
    bits = 0
    for part in parts if how.order == "big" else reversed(parts):
        if part is None:
            return None
        bits = bits << 16 | part
    return bits
