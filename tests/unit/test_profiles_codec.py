"""Words, bits and exact values: round trips, sentinels, word order, and the decode map a verifier uses."""

from __future__ import annotations

import csv
import struct
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import BadAnswer
from drivers.profiles import codec
from drivers.profiles.fields import RegisterField
from drivers.profiles.loader import load_profile, load_profiles
from drivers.profiles.model import MeterProfile, Point

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
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
                {**point, "rollover": "unknown", "scale_by": ["ct_ratio"]},
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
            assert abs(decoded - Fraction(value)) <= max(point.scale, Fraction(value) / 10**6)


def _plausible(point: Point) -> float:
    low = point.min if point.min is not None else 0.0
    high = min(point.max if point.max is not None else 10_000.0, 10_000.0)
    return (max(low, -10_000.0) + high) / 2


def test_register_vectors_of_the_shared_facts_decode() -> None:
    path = SHARED / "meters" / "vectors.tsv"
    if not path.is_file():
        pytest.skip("left out: shared/data/meters/vectors.tsv is not beside the project")
    known = {
        ("eastron_sdm630", "4370 8000"): ("eastron-sdm630", "voltage_l1_n_v", Fraction("240.5")),
        ("carlogavazzi_em330_em340", "FFFF 7FFF"): ("carlogavazzi-em340", "power_w", None),
        ("abb_b23_b24", "FFFF FFFF FFFF FFFF"): ("abb-b23-b24", "energy_import_wh", None),
    }
    met = 0
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            case = known.get((row["model"], row["raw_hex"]))
            if case is None:
                continue
            profile = load_profile(case[0])
            assert isinstance(profile, MeterProfile)
            point = profile.point(case[1])
            words = [int(w, 16) for w in row["raw_hex"].split()]
            assert codec.decode_bits(point, codec.field_bits(point, words)) == case[2]
            met += 1
    assert met == len(known)
