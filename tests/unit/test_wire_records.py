"""Record lines: what is signed comes back byte for byte, and every malformed line is refused by name."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import canonical
from wire.dsse import ORDER_TYPE, pae
from wire.errors import BadRecord
from wire.keys import SigningKey, b64
from wire.records import COMMON, MAX_PAYLOAD, TYPES, RecordLine, check_common, leaf_hash, parse_line

KEY = SigningKey.generate()
FIRST: dict[str, Any] = {
    "v": 1,
    "log": "tizgin/kz-01/e1-0a0b0c0d",
    "st": "cmd",
    "n": 0,
    "p": None,
    "a": None,
    "ty": "cmd_rx",
    "at": 1_795_000_000_000,
    "mono": 17,
    "boot": "00ff",
    "clk": {"s": "S", "off_us": None, "src": "kernel"},
    "fw": "1.0.0",
}
LATER = FIRST | {"n": 1, "p": "ab" * 32}


def line_of(payload: dict[str, Any]) -> bytes:
    """A line around any payload, unchecked, with a signature of the right shape."""
    return b"|".join((b"TZR1", canonical.encode(payload), KEY.kid.encode(), b64(bytes(64)).encode()))


@pytest.mark.parametrize("payload", [FIRST, LATER, LATER | {"text": "a|b|TZR1|c"}, LATER | {"text": "Қ|"}])
def test_a_signed_line_comes_back_byte_for_byte(payload: dict[str, Any]) -> None:
    made = RecordLine.sign(payload, KEY)
    line, document = parse_line(made.encode())
    assert (line, document) == (made, payload)
    assert line.encode() == made.encode()
    assert line.verified_by(KEY.public)


@settings(deadline=None)
@given(st.dictionaries(st.text("abcxyz_", min_size=8, max_size=12), st.text(max_size=20) | st.integers(0, 2**53 - 1)))
def test_any_extra_fields_survive_the_round_trip(extra: dict[str, Any]) -> None:
    made = RecordLine.sign(extra | LATER, KEY)
    line, document = parse_line(made.encode())
    assert line == made
    assert document == extra | LATER


def test_the_leaf_hash_is_that_of_rfc_6962_and_leaves_the_signature_out() -> None:
    made = RecordLine.sign(FIRST, KEY)
    assert made.hash == leaf_hash(made.payload) == hashlib.sha256(b"\0" + made.payload).digest()
    assert RecordLine.sign(FIRST, SigningKey.generate()).hash == made.hash
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_only_the_named_key_over_the_record_type_verifies() -> None:
    made, other = RecordLine.sign(FIRST, KEY), SigningKey.generate()
    assert not made.verified_by(other.public)
    assert not RecordLine(made.payload, other.kid, made.signature).verified_by(KEY.public)
    assert not RecordLine(made.payload + b" ", made.kid, made.signature).verified_by(KEY.public)
    as_order = RecordLine(made.payload, made.kid, KEY.sign(pae(ORDER_TYPE, made.payload)))
    assert not as_order.verified_by(KEY.public)


@pytest.mark.parametrize("name", COMMON)
def test_every_common_field_is_needed(name: str) -> None:
    with pytest.raises(BadRecord, match=repr(name)):
        RecordLine.sign({k: v for k, v in FIRST.items() if k != name}, KEY)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_every_type_of_the_contract_is_taken(kind: str) -> None:
    check_common(FIRST | {"ty": kind})


@pytest.mark.parametrize("stream", ["site", "cmd", "bal", "mp:M0", "mp:main.1_a-b", "mp:" + "x" * 61])
def test_streams_of_the_contract_are_taken(stream: str) -> None:
    check_common(FIRST | {"st": stream})


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"v": 2}, "version"),
        ({"v": True}, "version"),
        ({"v": "1"}, "version"),
        ({"ty": "other"}, "type"),
        ({"ty": []}, "type"),
        ({"ty": {}}, "type"),
        ({"ty": None}, "type"),
        ({"st": "other"}, "stream"),
        ({"st": "mp:"}, "stream"),
        ({"st": "mp:" + "x" * 62}, "stream"),
        ({"st": "mp:a/b"}, "stream"),
        ({"st": "site\n"}, "stream"),
        ({"st": 5}, "stream"),
        ({"n": -1}, "field n"),
        ({"n": "0"}, "field n"),
        ({"n": True, "p": "ab" * 32}, "field n"),
        ({"at": None}, "field at"),
        ({"at": -5}, "field at"),
        ({"mono": []}, "field mono"),
        ({"n": 1}, "p null"),
        ({"p": "ab" * 32}, "p null"),
        ({"n": 1, "p": 5}, "field p"),
        ({"n": 1, "p": "ab"}, "field p"),
        ({"n": 1, "p": "AB" * 32}, "field p"),
        ({"n": 1, "p": "ab" * 32 + "\n"}, "field p"),
        ({"n": 1, "p": ["ab" * 32]}, "field p"),
    ],
    ids=str,
)
def test_common_fields_of_another_shape_are_refused(change: dict[str, Any], because: str) -> None:
    with pytest.raises(BadRecord, match=because):
        check_common(FIRST | change)
    with pytest.raises(BadRecord, match=because):
        parse_line(line_of(FIRST | change))


GOOD = RecordLine.sign(FIRST, KEY).encode()
SIG = GOOD.rpartition(b"|")[2]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"TZR1",
        b"TZR1|||",
        b"|||",
        GOOD[1:],
        GOOD.replace(b"TZR1", b"TZR2"),
        GOOD.replace(b"TZR1", b" TZR1"),
        GOOD + b"\n",
        GOOD + b"|",
        GOOD + b" ",
        GOOD.removesuffix(SIG),
        GOOD.removesuffix(b"|" + SIG),
        GOOD.removesuffix(b"="),
        GOOD.replace(KEY.kid.encode(), KEY.kid.encode()[1:]),
        GOOD.replace(KEY.kid.encode(), b"\xff" * 16),
        GOOD.replace(KEY.kid.encode(), KEY.kid.upper().encode() if not KEY.kid.isdigit() else b"G" * 16),
        GOOD.replace(SIG, b"AA=="[:3]),
        GOOD.replace(SIG, b"\xc4" * 88),
        GOOD.replace(SIG, b"A" * 400),
        GOOD.replace(b'"v":1', b'"v":1.0'),
        GOOD.replace(b'"v":1', b'"v": 1'),
        GOOD.replace(b'{"a":null', b'{"a":null,"a":null'),
        GOOD.replace(b'"mono":17', b'"mono":1e400'),
        b"TZR1|[]|" + KEY.kid.encode() + b"|" + SIG,
        b"TZR1|" + b"[" * 60_000 + b"|" + KEY.kid.encode() + b"|" + SIG,
        b"TZR1|" + b"\xff" * 30 + b"|" + KEY.kid.encode() + b"|" + SIG,
        b"x" * (MAX_PAYLOAD + 257),
    ],
    ids=lambda line: "bytes",
)
def test_malformed_lines_are_refused(line: bytes) -> None:
    assert line != GOOD
    with pytest.raises(BadRecord):
        parse_line(line)


def test_payloads_have_a_largest_size() -> None:
    with pytest.raises(BadRecord, match="at most"):
        RecordLine.sign(FIRST | {"text": "x" * MAX_PAYLOAD}, KEY)
    room = MAX_PAYLOAD - len(canonical.encode(FIRST | {"text": ""}))
    line, _ = parse_line(RecordLine.sign(FIRST | {"text": "x" * room}, KEY).encode())
    assert len(line.payload) == MAX_PAYLOAD


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_lines_are_refused_or_no_longer_verify(data: st.DataObject) -> None:
    raw = bytearray(GOOD)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        line, _ = parse_line(bytes(raw))
    except BadRecord:
        return
    assert line.encode() == bytes(raw)
    assert line.verified_by(KEY.public) == (bytes(raw) == GOOD)
