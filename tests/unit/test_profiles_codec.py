"""Words, bits and exact values: round trips, sentinels, word order, and the decode map a verifier uses."""

from __future__ import annotations

import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import BadAnswer
from drivers.profiles import codec
from drivers.profiles.fields import RegisterField
from drivers.profiles.loader import load_profile, load_profiles
from drivers.profiles.model import MeterProfile, Point, Variable
from drivers.profiles.points import raw_end

WHOLE = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "u64": 4, "i64": 4}


def field(**settings: object) -> RegisterField:
    return RegisterField.model_validate({"table": "holding", "addr": 0, **settings})


@given(st.sampled_from(sorted(WHOLE)), st.sampled_from(("big", "little")), st.integers(), st.integers(1, 10**6))
def test_whole_numbers_survive_the_round_trip_exactly(kind: str, order: str, raw: int, num: int) -> None:
    width = 16 * WHOLE[kind]
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if kind[0] == "i" else (0, (1 << width) - 1)
    raw = min(max(raw, low), high)
    this = field(type=kind, word_order=order, scale={"num": num, "den": 1000})
    value = raw * Fraction(num, 1000)
    words = codec.encode(this, value)
    assert len(words) == WHOLE[kind]
    assert codec.decode_bits(this, codec.field_bits(this, words)) == value


@given(st.sampled_from(("f32", "f64")), st.sampled_from(("big", "little")), st.data())
def test_floats_decode_to_the_exact_dyadic_rational_of_their_bits(kind: str, order: str, data: st.DataObject) -> None:
    width = 32 if kind == "f32" else 64
    value = data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False))
    this = field(type=kind, word_order=order)
    words = codec.encode(this, value)
    assert codec.decode_bits(this, codec.field_bits(this, words)) == Fraction(value)


@given(st.sampled_from(("big", "little")), st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=8))
def test_bits_and_words_are_inverse(order: str, words: list[int]) -> None:
    assert codec.bits_to_words(codec.words_to_bits(words, order), len(words), order) == tuple(words)


@given(st.sampled_from(("bcd", "mod10k")), st.integers(1, 4), st.integers(0, 10**16 - 1))
def test_decimal_codings_survive_the_round_trip(kind: str, words: int, value: int) -> None:
    value %= 10 ** (4 * words)
    this = field(type=kind, words=words)
    assert codec.decode_bits(this, codec.field_bits(this, codec.encode(this, value))) == value


@pytest.mark.parametrize(
    ("settings", "words", "expected"),
    [
        ({"type": "f32"}, "459a2000", Fraction(4932)),
        ({"type": "f32"}, "4370 8000", Fraction("240.5")),
        ({"type": "f32"}, "7fc00000", None),
        ({"type": "f32"}, "7f800000", None),
        ({"type": "f32"}, "ff800000", None),
        ({"type": "f64"}, "7ff8000000000000", None),
        ({"type": "i32", "word_order": "little", "scale": "0.1"}, "ff9cffff", Fraction(-10)),
        ({"type": "i32", "word_order": "little", "sentinels": ["7fffffff"]}, "ffff7fff", None),
        ({"type": "i16", "scale": "0.001", "positive": "export"}, "03e8", Fraction(-1)),
        ({"type": "u64", "sentinels": ["ffffffffffffffff"]}, "ffffffffffffffff", None),
        ({"type": "u16"}, "ffff", Fraction(65535)),
        ({"type": "bcd", "words": 2}, "12345678", Fraction(12345678)),
        ({"type": "mod10k", "words": 2}, "0001270f", Fraction(19999)),
        ({"type": "str", "words": 3}, "414231000000", "AB1"),
        ({"type": "str", "words": 2}, "00000000", None),
        ({"type": "str", "words": 2}, "ffffffff", None),
    ],
)
def test_bits_decode_to(settings: dict[str, object], words: str, expected: Fraction | str | None) -> None:
    this = field(**settings)
    digits = words.replace(" ", "")
    registers = [int(digits[i : i + 4], 16) for i in range(0, len(digits), 4)]
    assert codec.decode_bits(this, codec.field_bits(this, registers)) == expected


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ({"type": "bcd", "words": 1}, 0x12A4),
        ({"type": "mod10k", "words": 1}, 10_000),
        ({"type": "str", "words": 1}, 0xC3A9),
        ({"type": "str", "words": 1}, 0x0741),
    ],
)
def test_bytes_that_cannot_be_what_the_profile_says_are_an_error_and_not_a_number(
    settings: dict[str, object], bits: int
) -> None:
    with pytest.raises(BadAnswer, match="seen"):
        codec.decode_bits(field(**settings), bits)


ORDERS = ("big", "little")


@given(st.sampled_from(ORDERS), st.sampled_from(ORDERS), st.integers(0, 2**32 - 1))
def test_every_order_of_words_and_bytes_survives_the_round_trip(words: str, octets: str, raw: int) -> None:
    this = field(type="u32", word_order=words, byte_order=octets)
    sent = codec.encode(this, raw)
    assert codec.decode_bits(this, codec.field_bits(this, sent)) == raw


@pytest.mark.parametrize(
    ("words", "octets", "sent"),
    [("big", "big", "11223344"), ("little", "big", "33441122"), ("big", "little", "22114433"),
     ("little", "little", "44332211")],
)  # fmt: skip
def test_the_four_orders_put_the_octets_where_their_names_say(words: str, octets: str, sent: str) -> None:
    this = field(type="u32", word_order=words, byte_order=octets)
    assert b"".join(w.to_bytes(2, "big") for w in codec.encode(this, 0x11223344)).hex() == sent


@pytest.mark.parametrize(
    ("settings", "text", "sent"),
    [
        ({"words": 3}, "AB1", "414231000000"),
        ({"words": 3, "padding": "space"}, "AB1", "414231202020"),
        ({"words": 2, "byte_order": "little"}, "AB12", "42413231"),
    ],
)
def test_texts_are_padded_and_ordered_as_the_profile_says(settings: dict[str, object], text: str, sent: str) -> None:
    this = field(type="str", **settings)
    words = codec.encode(this, text)
    assert b"".join(w.to_bytes(2, "big") for w in words).hex() == sent
    assert codec.decode_bits(this, codec.field_bits(this, words)) == text


@given(st.integers(1, 2**32 - 1), st.data())
def test_masked_bits_survive_the_round_trip(mask: int, data: st.DataObject) -> None:
    this = field(type="bits", words=2, mask=f"{mask:08x}")
    shift = (mask & -mask).bit_length() - 1
    value = data.draw(st.integers(0, mask >> shift)) & mask >> shift
    words = codec.encode(this, value)
    assert codec.decode_bits(this, codec.field_bits(this, words)) == value
    assert codec.decode_bits(this, codec.field_bits(this, words) | ~mask & 0xFFFFFFFF) == value


def test_an_enum_gives_names_and_refuses_codes_it_does_not_know() -> None:
    this = field(type="enum", names={1: "E23", 400: "DIRIS"})
    assert codec.decode_bits(this, 400) == "DIRIS"
    assert codec.encode(this, "E23") == (1,)
    with pytest.raises(BadAnswer, match="seen code 7, expected one of 1 E23, 400 DIRIS"):
        codec.decode_bits(this, 7)
    with pytest.raises(ValueError, match="expected one of"):
        codec.encode(this, "E24")


WH = {"type": "sum", "addr": 10, "parts": [{"addr": 10, "type": "u32", "scale": 1000}, {"addr": 12, "type": "u16"}]}
NET = {
    "type": "sum",
    "addr": 0,
    "parts": [{"addr": 0, "type": "u32"}, {"addr": 2, "type": "u32", "positive": "export"}],
}

FLOATS = [{"addr": 0, "type": "f32"}, {"addr": 2, "type": "f32"}]


@pytest.mark.parametrize(
    ("settings", "words", "value"),
    [
        (WH, "0000 0005 03e7", 5999),
        (NET, "0000 0064 0000 0000", 100),
        (NET, "0000 0000 0000 0064", -100),
        (
            {**WH, "parts": [{"addr": 12, "type": "u16"}, {"addr": 10, "type": "u16", "scale": 10_000}]},
            "0002 ffff 0007",
            20007,
        ),
        (
            {"type": "sum", "addr": 0, "word_order": "little", "parts": FLOATS},
            "0000 4480 0000 4000",
            1026,
        ),
    ],
)  # fmt: skip
def test_a_sum_adds_its_parts_exactly(settings: dict[str, object], words: str, value: int) -> None:
    this = field(**settings)
    registers = [int(w, 16) for w in words.split()]
    assert codec.decode_bits(this, codec.field_bits(this, registers)) == value


def test_half_a_sum_is_no_value() -> None:
    parts = [{"addr": 0, "type": "u16", "sentinels": ["ffff"]}, {"addr": 1, "type": "u16", "sentinels": ["ffff"]}]
    this = field(type="sum", parts=parts)
    assert codec.decode_bits(this, codec.field_bits(this, [5, 0xFFFF])) is None
    assert codec.encode(this, None) == (0xFFFF, 0xFFFF)


@given(st.integers(0, 2**32 * 1000 - 1))
def test_a_kwh_register_with_a_wh_remainder_survives_the_round_trip(wh: int) -> None:
    this = field(**WH)
    assert codec.decode_bits(this, codec.field_bits(this, codec.encode(this, wh))) == wh


@given(st.integers(-(2**32) + 1, 2**32 - 1))
def test_import_less_export_survives_the_round_trip(watts: int) -> None:
    this = field(**NET)
    assert codec.decode_bits(this, codec.field_bits(this, codec.encode(this, watts))) == watts


@pytest.mark.parametrize(
    ("settings", "bits", "expected"),
    [
        ({"type": "u16"}, 80, Fraction(80)),
        ({"type": "u16", "scale": "0.1"}, 5, Fraction(1, 2)),
        ({"type": "u16"}, 0, None),
        ({"type": "i16"}, 0xFFFF, None),
        ({"type": "u16", "gives": "divisor"}, 5, Fraction(1, 5)),
        ({"type": "u16", "gives": "divisor"}, 0, None),
        ({"type": "f32", "gives": "divisor"}, 0x7FC00000, None),
        ({"type": "i16", "gives": "exponent"}, 4, Fraction(10_000)),
        ({"type": "i16", "gives": "exponent"}, 0xFFFD, Fraction(1, 1000)),
        ({"type": "i16", "gives": "exponent"}, 0x7FFF, None),
        ({"type": "i16", "gives": "exponent", "sentinels": ["8000"]}, 0x8000, None),
        ({"type": "u16", "gives": "index", "steps": ["0.1", 1, 10]}, 2, Fraction(10)),
        ({"type": "u16", "gives": "index", "steps": ["0.1", 1, 10]}, 3, None),
    ],
)
def test_a_variable_gives_a_multiplier_or_none(
    settings: dict[str, object], bits: int, expected: Fraction | None
) -> None:
    this = Variable.model_validate({"id": "scale", "addr": 0, **settings})
    assert codec.decode_bits(this, bits) == expected
    if expected is not None:
        assert codec.field_bits(this, codec.encode(this, expected)) == bits


def scaled_profile() -> MeterProfile:
    """A counter that is to be multiplied by a power of ten in another register."""
    return MeterProfile.model_validate(
        {
            "schema": 1, "id": "exponent-meter", "version": 1, "kind": "meter", "vendor": "X", "model": "Y",
            "status": "community", "sources": [{"name": "test"}],
            "points": [
                {"id": "energy_import_wh", "addr": 10, "type": "u32", "kind": "derived", "scale_by": ["wh_exponent"]},
            ],
            "variables": [{"id": "wh_exponent", "addr": 12, "type": "i16", "gives": "exponent"}],
            "tests": [{"table": "holding", "addr": 10, "words": "0000 2f18 0004",
                       "expect": {"energy_import_wh": 120560000}}],
        }
    )  # fmt: skip


def test_a_point_is_scaled_by_the_exponent_beside_it() -> None:
    profile = scaled_profile()
    whole = codec.decode_block(profile, "holding", 10, [0, 12056, 4])
    assert {name: d.value for name, d in whole.items()} == {"energy_import_wh": 120_560_000.0}
    assert codec.decode_block(profile, "holding", 10, [0, 12056])["energy_import_wh"].value == 12056.0
    assert codec.decode_block(profile, "holding", 10, [0, 12056, 99])["energy_import_wh"].value is None


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "u32", "kind": "derived", "scale_by": ["wh_exponent"]},
        {"type": "u32", "kind": "derived", "byte_order": "little"},
        {"type": "bits", "words": 2, "mask": "00ffffff", "kind": "derived"},
        {"kind": "derived", **{k: v for k, v in WH.items() if k != "addr"}},
    ],
)
def test_what_raw_bits_do_not_prove_has_no_decode_map(settings: dict[str, object]) -> None:
    point = Point.model_validate({"id": "energy_import_wh", "addr": 10, **settings})
    assert not point.evidence
    with pytest.raises(ValueError, match="has no decode map"):
        codec.decode_map(point)


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({"type": "u32", "rollover": "width"}, 2**32),
        ({"type": "i32", "rollover": "width"}, 2**31),
        ({"type": "mod10k", "words": 2, "rollover": "width"}, 10**8),
        ({"type": "bcd", "words": 4, "rollover": "width"}, 10**16),
        ({"type": "u32", "rollover": 10**9}, 10**9),
        ({"type": "f32", "rollover": "unknown"}, None),
    ],
)
def test_a_counter_starts_again_where_the_profile_says(settings: dict[str, object], end: int | None) -> None:
    point = Point.model_validate({"id": "energy_import_wh", "addr": 0, "kind": "counter", **settings})
    assert point.evidence
    assert point.modulus == end


def test_no_value_needs_a_sentinel_to_be_imitated() -> None:
    with pytest.raises(ValueError, match="no sentinel"):
        codec.encode(field(type="u32"), None)
    assert codec.encode(field(type="i32", sentinels=["7fffffff"]), None) == (0x7FFF, 0xFFFF)


@pytest.mark.parametrize("profile_id", ["eastron-sdm630", "schneider-iem3000", "carlogavazzi-em24-e1", "abb-b23-b24"])
def test_the_decode_map_gives_a_verifier_the_same_exact_energy(profile_id: str) -> None:
    profile = load_profile(profile_id)
    assert isinstance(profile, MeterProfile)
    point = profile.point("energy_import_wh")
    mapping = codec.decode_map(point)
    assert set(mapping) == {"fc", "addr", "words", "order", "enc", "lsb"}
    words = codec.encode(point, 123_456_700)
    bits = codec.field_bits(point, words)
    assert codec.exact(bits, mapping) == codec.decode_bits(point, bits)
    # The same once more without our codec: raw frame words, order, encoding, lsb.
    ordered = words if mapping["order"] == "big" else words[::-1]
    raw = b"".join(w.to_bytes(2, "big") for w in ordered)
    plain = struct.unpack(">f", raw)[0] if mapping["enc"] == "f32" else int.from_bytes(raw, "big", signed=True)
    assert Fraction(plain) * Fraction(mapping["lsb"]["num"], mapping["lsb"]["den"]) == codec.exact(bits, mapping)


def test_decode_map_of_the_em24_energy() -> None:
    profile = load_profile("carlogavazzi-em24-e1")
    assert isinstance(profile, MeterProfile)
    assert codec.decode_map(profile.point("energy_import_wh")) == {
        "fc": 4, "addr": 52, "words": 2, "order": "little", "enc": "i32", "lsb": {"num": 100, "den": 1},
    }  # fmt: skip


def test_nan_bits_are_no_reading_under_a_decode_map() -> None:
    assert codec.exact(0x7FC00000, {"enc": "f32", "words": 2, "lsb": {"num": 1000, "den": 1}}) is None


def test_a_ratio_scales_what_the_block_holds_and_is_one_where_it_does_not() -> None:
    point = {"id": "energy_import_wh", "addr": 10, "type": "u32", "scale": 10, "kind": "counter"}
    profile = MeterProfile.model_validate(
        {
            "schema": 1, "id": "ratio-meter", "version": 1, "kind": "meter", "vendor": "X", "model": "Y",
            "status": "community", "sources": [{"name": "test"}],
            "points": [
                {**point, "kind": "derived", "scale_by": ["ct_ratio"]},
                {"id": "ct_ratio", "addr": 0, "type": "u16"},
            ],
            "tests": [{"table": "holding", "addr": 0, "words": "0064", "expect": {"ct_ratio": 100}}],
        }
    )  # fmt: skip
    alone = codec.decode_block(profile, "holding", 10, [0, 5])
    assert alone["energy_import_wh"].value == 50.0
    whole = codec.decode_block(profile, "holding", 0, [100, *[0] * 9, 0, 5])
    assert whole["energy_import_wh"].value == 5000.0


@pytest.mark.parametrize(
    "profile", [p for p in load_profiles().values() if isinstance(p, MeterProfile)], ids=lambda p: p.id
)
def test_every_shipped_point_encodes_and_decodes(profile: MeterProfile) -> None:
    for point in profile.points:
        value: float | str = "12345678" if point.kind == "text" else _plausible(point)
        decoded = codec.decode_bits(point, codec.field_bits(point, codec.encode(point, value)))
        if isinstance(value, str):
            assert decoded == value
        else:
            assert isinstance(decoded, Fraction)
            steps = [point.scale, *(part.scale for part in point.parts), Fraction(value) / 10**6]
            assert abs(decoded - Fraction(value)) <= max(steps)


def _plausible(point: Point) -> float:
    low = point.min if point.min is not None else 0.0
    high = min(point.max if point.max is not None else 10_000.0, 10_000.0)
    most = raw_end(point.type, point.words)
    if most is not None:
        high = min(high, float((most - 1) * point.scale))
    return (max(low, -10_000.0) + high) / 2
