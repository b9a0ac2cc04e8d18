"""Energy from raw bits: exact rationals, and sums that telescope."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wire.energy import ENCODINGS, interval_wh, number, primary_wh
from wire.errors import BadRecord


def f32(value: float) -> int:
    return int.from_bytes(struct.pack(">f", value), "big")


def decode_map(enc: str, num: int = 1, den: int = 1) -> dict[str, Any]:
    words = ENCODINGS.get(enc, 32) // 16
    return {"fc": 4, "addr": 0, "words": words, "order": "big", "enc": enc, "lsb": {"num": num, "den": den}}


@pytest.mark.parametrize(
    ("bits", "enc", "words", "expected"),
    [
        (0, "u16", 1, Fraction(0)),
        (0xFFFF, "u16", 1, Fraction(65535)),
        (0xFFFF, "i16", 1, Fraction(-1)),
        (0x8000, "i16", 1, Fraction(-32768)),
        (0x7FFF, "i16", 1, Fraction(32767)),
        (0xFFFFFFFF, "u32", 2, Fraction(2**32 - 1)),
        (0x80000000, "i32", 2, Fraction(-(2**31))),
        (2**64 - 1, "u64", 4, Fraction(2**64 - 1)),
        (2**64 - 1, "i64", 4, Fraction(-1)),
        (2**63, "i64", 4, Fraction(-(2**63))),
        (2**63 - 1, "i64", 4, Fraction(2**63 - 1)),
        # floats: the dyadic rational of the bits, not the decimal a person would print
        (0x3DCCCCCD, "f32", 2, Fraction(13421773, 2**27)),
        (0x3F800000, "f32", 2, Fraction(1)),
        (0x4B800000, "f32", 2, Fraction(16777216)),
        (0x00000001, "f32", 2, Fraction(1, 2**149)),
        (0x80000000, "f32", 2, Fraction(0)),
        (0xC2F6E979, "f32", 2, Fraction(-16181625, 2**17)),
        (0x7F7FFFFF, "f32", 2, Fraction((2**24 - 1) * 2**104)),
        (0x7F800000, "f32", 2, None),
        (0xFF800000, "f32", 2, None),
        (0x7FC00000, "f32", 2, None),
        (0x7F800001, "f32", 2, None),
        (0x3FB999999999999A, "f64", 4, Fraction(3602879701896397, 2**55)),
        (0x0000000000000001, "f64", 4, Fraction(1, 2**1074)),
        (0x7FF0000000000000, "f64", 4, None),
        (0x7FF8000000000000, "f64", 4, None),
        # binary coded decimals and registers of four decimal digits
        (0x12345678, "bcd", 2, Fraction(12345678)),
        (0x00000009, "bcd", 2, Fraction(9)),
        (0x0000000A, "bcd", 2, None),
        (0xF2345678, "bcd", 2, None),
        (0x123456789012, "bcd", 3, Fraction(123456789012)),
        ((1 << 32) | (2 << 16) | 9999, "mod10k", 3, Fraction(1_0002_9999)),
        (10_000, "mod10k", 1, None),
        ((10_000 << 16), "mod10k", 2, None),
    ],
)
def test_numbers_of_raw_bits(bits: int, enc: str, words: int, expected: Fraction | None) -> None:
    assert number(bits, enc, words) == expected


@pytest.mark.parametrize(
    ("bits", "enc", "words"),
    [
        (-1, "u16", 1),
        (0x10000, "u16", 1),
        (2**32, "f32", 2),
        (0, "u32", 1),
        (0, "u16", 2),
        (0, "f32", 4),
        (0, "f16", 1),
        (0, "", 1),
        (2**32, "bcd", 2),
    ],
)
def test_bits_and_encodings_that_do_not_fit_are_refused(bits: int, enc: str, words: int) -> None:
    with pytest.raises(BadRecord):
        number(bits, enc, words)


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_finite_single_float_is_exact(value: float) -> None:
    assert number(f32(value), "f32", 2) == Fraction(value)


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_every_signed_integer_is_exact(value: int) -> None:
    assert number(value % 2**64, "i64", 4) == value


@settings(deadline=None)
@given(st.integers(0, 10**12 - 1))
def test_decimals_of_both_kinds(value: int) -> None:
    assert number(int(f"{value:012d}", 16), "bcd", 3) == value
    words = (value // 10**8, value // 10**4 % 10**4, value % 10**4)
    assert number(words[0] << 32 | words[1] << 16 | words[2], "mod10k", 3) == value


def test_scale_is_a_ratio_of_whole_numbers() -> None:
    kwh_tenths = decode_map("u32", 100)
    assert primary_wh(12345, kwh_tenths) == 1_234_500
    assert primary_wh(1, decode_map("u32", 1, 3)) == Fraction(1, 3)
    assert primary_wh(f32(0.1), decode_map("f32", 1000)) == Fraction(13421773 * 1000, 2**27)
    assert primary_wh(0x7FC00000, decode_map("f32")) is None


def test_an_interval_is_the_difference_of_floors() -> None:
    thirds = decode_map("u32", 1, 3)
    assert [interval_wh(i, i + 1, thirds) for i in range(6)] == [0, 0, 1, 0, 0, 1]
    assert interval_wh(0, 6, thirds) == 2
    assert interval_wh(9, 3, thirds) == -2
    assert interval_wh(0xFFFFFFFF, 0, decode_map("i32")) == 1
    assert interval_wh(0, 0x7FC00000, decode_map("f32")) is None
    assert interval_wh(0x7FC00000, 0, decode_map("f32")) is None


def test_floors_go_down_below_zero_too() -> None:
    """Truncation would lose the Wh around zero and the sum would no longer telescope."""
    halves = decode_map("i16", 1, 2)
    assert interval_wh(0xFFFF, 0x0001, halves) == 1
    assert interval_wh(0xFFFF, 0x0000, halves) == 1
    assert interval_wh(0x0000, 0x0001, halves) == 0


@settings(deadline=None)
@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=12),
)
def test_sums_of_intervals_telescope(enc: str, num: int, den: int, raw: list[int]) -> None:
    mapping = decode_map(enc, num, den)
    readings = [bits % 2 ** ENCODINGS[enc] for bits in raw]
    values = [primary_wh(bits, mapping) for bits in readings]
    assume(all(value is not None for value in values))
    parts = [interval_wh(a, b, mapping) for a, b in pairwise(readings)]
    whole = interval_wh(readings[0], readings[-1], mapping)
    assert None not in parts
    assert sum(p for p in parts if p is not None) == whole
    first, last = values[0], values[-1]
    assert first is not None
    assert last is not None
    assert whole == math.floor(last) - math.floor(first)
    assert abs(whole - (last - first)) < 1
