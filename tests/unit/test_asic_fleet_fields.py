"""Numbers as miners write them, read quickly and never wrongly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.asic.fields import number


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("7903.729", 7903.729),
        (" 12 ", 12.0),
        ("58.94W", 58.94),
        ("3250 W", 3250.0),
        ("1e3", 1000.0),
        (0, 0.0),
        (True, None),
        ("", None),
        ("1_000", None),
        ("nan", None),
        ("-inf", None),
        ("1e999", None),
        (10**400, None),
        (math.nan, None),
        ("39-37-40-39", None),
        ("0x10", None),
        ([1], None),
        (None, None),
    ],
)
def test_a_number_is_read_and_anything_else_is_unknown(written: object, read: float | None) -> None:
    assert number(written) == read


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.binary(max_size=4))
def test_nothing_raises_and_what_comes_out_is_finite(written: object) -> None:
    found = number(written)
    assert found is None or math.isfinite(found)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_and_its_text_are_the_same(value: float) -> None:
    assert number(value) == number(repr(value)) == value
