"""Canonical JSON: one byte string per meaning, and nothing else is taken."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import canonical
from wire.errors import NotCanonical

KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTS = st.integers(-canonical.MAX_INT, canonical.MAX_INT)
VALUES = st.recursive(
    st.none() | st.booleans() | INTS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=6)


def nested(depth: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    return (opening * depth + "0" + closing * depth).encode()


@settings(deadline=None)
@given(DOCUMENTS)
def test_bytes_are_those_of_an_independent_rfc_8785_encoder(document: canonical.Json) -> None:
    assert canonical.encode(document) == rfc8785.dumps(document)


@settings(deadline=None)
@given(DOCUMENTS)
def test_what_is_encoded_decodes_to_the_same(document: canonical.Json) -> None:
    data = canonical.encode(document)
    assert canonical.decode(data) == document
    assert canonical.encode(canonical.decode(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"a":0}',
        b'{"a":-1,"b":[true,false,null]}',
        b'{"a":9007199254740991}',
        b'{"a":-9007199254740991}',
        '{"a":"Қазақстан €😀\u2028\x7f"}'.encode(),
        b'{"a":"\\u0000\\b\\t\\n\\f\\r\\u001f\\"\\\\/"}',
        b'{"a_b":{"c0":[[]]}}',
        b'{"1":1,"10":2,"2":3,"_":4,"a":5}',
    ],
)
def test_accepts(data: bytes) -> None:
    assert canonical.encode(canonical.decode(data)) == data


@pytest.mark.parametrize(
    ("data", "because"),
    [
        (b"", "not JSON"),
        (b"nonsense", "not JSON"),
        (b'{"a":1', "not JSON"),
        (b'{"a":1}x', "not JSON"),
        (b"[]", "expected an object"),
        (b"1", "expected an object"),
        (b'"a"', "expected an object"),
        (b"null", "expected an object"),
        (b'{"a":1,"a":1}', "names a key twice"),
        (b'{"a":{"b":1,"b":2}}', "names a key twice"),
        (b'{"a":1.0}', "floats are not allowed"),
        (b'{"a":1e2}', "floats are not allowed"),
        (b'{"a":1e400}', "floats are not allowed"),
        (b'{"a":-0.0}', "floats are not allowed"),
        (b'{"a":NaN}', "floats are not allowed"),
        (b'{"a":Infinity}', "floats are not allowed"),
        (b'{"a":-Infinity}', "floats are not allowed"),
        (b'{"a":-0}', "not the canonical encoding"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":+1}', "not JSON"),
        (b'{"a":9007199254740992}', "53"),
        (b'{"a":-9007199254740992}', "53"),
        (b'{"a":' + b"9" * 5000 + b"}", "53 bits"),
        (b'{"a":"\\ud800"}', "lone surrogate"),
        (b'{"a":"\\udc00\\ud800"}', "lone surrogate"),
        (b'{"a":["\\udfff"]}', "lone surrogate"),
        (b'{"\\ud800":1}', "object key"),
        (b'{"A":1}', "object key"),
        (b'{"":1}', "object key"),
        (b'{"a b":1}', "object key"),
        (b'{"a\\n":1}', "object key"),
        (b'{"' + b"a" * 65 + b'":1}', "object key"),
        ('{"ключ":1}'.encode(), "object key"),
        (b'{"b":1,"a":2}', "not the canonical encoding"),
        (b'{ "a":1}', "not the canonical encoding"),
        (b'{"a":1}\n', "not the canonical encoding"),
        (b'\t{"a":1}', "not the canonical encoding"),
        (b'{"a":"\\u0061"}', "not the canonical encoding"),
        (b'{"a":"\\/"}', "not the canonical encoding"),
        (b'{"a":"\\u001F"}', "not the canonical encoding"),
        (b'{"a":"\\ud83d\\ude00"}', "not the canonical encoding"),
        (b'{"a":"\x00"}', "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b'{"a":"\xed\xa0\x80"}', "not JSON"),
        (b'{"a":"\xc0\xaf"}', "not JSON"),
        (b'\xef\xbb\xbf{"a":1}', "not JSON"),
        ('{"a":1}'.encode("utf-16"), "not JSON"),
        (nested(canonical.MAX_DEPTH + 1), "nested deeper"),
        (nested(canonical.MAX_DEPTH + 1, "[", "]"), "expected an object"),
        (b'{"a":' + nested(canonical.MAX_DEPTH + 1, "[", "]") + b"}", "nested deeper"),
        (nested(9_000), ""),
        (b'{"a":' * 10_000, ""),
        (b"[" * 60_000, ""),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else None,
)
def test_refuses(data: bytes, because: str) -> None:
    with pytest.raises(NotCanonical) as caught:
        canonical.decode(data)
    assert because in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_deepest_allowed_document_is_taken() -> None:
    data = nested(canonical.MAX_DEPTH)
    assert canonical.encode(canonical.decode(data)) == data


def test_size_is_judged_before_the_content() -> None:
    with pytest.raises(NotCanonical, match="8 bytes, at most 7"):
        canonical.decode(b"nonsense", max_bytes=7)
    assert canonical.decode(b'{"a":1}', max_bytes=7) == {"a": 1}


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1.0},
        {"a": float("nan")},
        {"a": 2**53},
        {"a": -(2**53)},
        {"a": 10**5000},
        {"a": "\ud800"},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {1: "number as key"},
        {None: 1},
        {"Ä": 1},
        {"a": object()},
    ],
    ids=[
        "float",
        "nan",
        "2**53",
        "-2**53",
        "10**5000",
        "surrogate",
        "bytes",
        "set",
        "int key",
        "null key",
        "letter",
        "object",
    ],
)
def test_encoding_refuses(value: canonical.Json) -> None:
    with pytest.raises(NotCanonical):
        canonical.encode(value)


def test_a_document_that_holds_itself_is_refused() -> None:
    document: canonical.Json = {}
    document["a"] = document
    with pytest.raises(NotCanonical, match="nested deeper"):
        canonical.encode(document)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_either_canonical_or_refused(data: bytes) -> None:
    try:
        document = canonical.decode(data)
    except NotCanonical:
        return
    assert canonical.encode(document) == data


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, st.data())
def test_any_damage_of_canonical_bytes_is_either_canonical_or_refused(
    document: canonical.Json, data: st.DataObject
) -> None:
    raw = bytearray(canonical.encode(document))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        found = canonical.decode(bytes(raw))
    except NotCanonical:
        return
    assert canonical.encode(found) == bytes(raw)


@settings(deadline=None)
@given(DOCUMENTS)
def test_every_other_spelling_is_refused(document: canonical.Json) -> None:
    ours = canonical.encode(document)
    spellings = [
        json.dumps(document, sort_keys=True, ensure_ascii=False).encode(),
        json.dumps(document, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps(dict(sorted(document.items(), reverse=True)), separators=(",", ":"), ensure_ascii=False).encode(),
        json.dumps(document, sort_keys=True, indent=0).encode(),
    ]
    for other in spellings:
        if other != ours:
            with pytest.raises(NotCanonical):
                canonical.decode(other)
