"""Envelopes: what is signed is the type and the bytes, and only known keys count."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.dsse import ACT_TYPE, MAX_SIGNATURES, ORDER_TYPE, Envelope, open_envelope, pae, seal
from wire.errors import BadSignature, NotCanonical
from wire.keys import SigningKey, b64

KEY = SigningKey.generate()
OTHER = SigningKey.generate()
KNOWN = {KEY.kid: KEY.public, OTHER.kid: OTHER.public}


def test_pre_authentication_encoding_of_the_specification() -> None:
    """The example of the DSSE protocol document, "hello world"."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected


def test_lengths_are_counted_in_bytes() -> None:
    assert pae("тип", "€".encode()) == "DSSEv1 6 тип 3 €".encode()
    assert pae("", b"") == b"DSSEv1 0  0 "


@settings(deadline=None)
@given(st.text(max_size=20), st.binary(max_size=20), st.text(max_size=20), st.binary(max_size=20))
def test_two_documents_never_share_an_encoding(kind1: str, body1: bytes, kind2: str, body2: bytes) -> None:
    assert (pae(kind1, body1) == pae(kind2, body2)) == ((kind1, body1) == (kind2, body2))


def test_what_is_sealed_opens_with_the_same_bytes() -> None:
    envelope = seal(ORDER_TYPE, b'{"a":1}', KEY, OTHER)
    opened = open_envelope(envelope.encode(), expected_type=ORDER_TYPE)
    assert opened == envelope
    assert opened.verify(KNOWN) == (KEY.kid, OTHER.kid)


def test_a_document_cannot_pass_for_one_of_another_type() -> None:
    signed = seal(ORDER_TYPE, b"{}", KEY)
    with pytest.raises(NotCanonical, match="expected"):
        open_envelope(signed.encode(), expected_type=ACT_TYPE)
    renamed = Envelope(ACT_TYPE, signed.payload, signed.signatures)
    with pytest.raises(BadSignature, match="does not verify"):
        renamed.verify(KNOWN)


def test_signing_again_replaces_the_earlier_signature() -> None:
    envelope = seal(ORDER_TYPE, b"{}", KEY, OTHER, KEY)
    assert [kid for kid, _ in envelope.signatures] == [OTHER.kid, KEY.kid]


def test_unknown_signers_are_passed_over_and_alone_do_not_count() -> None:
    stranger = SigningKey.generate()
    assert seal(ORDER_TYPE, b"{}", stranger, KEY).verify(KNOWN) == (KEY.kid,)
    with pytest.raises(BadSignature, match=f"signed by: {stranger.kid}"):
        seal(ORDER_TYPE, b"{}", stranger).verify(KNOWN)
    with pytest.raises(BadSignature, match="none"):
        Envelope(ORDER_TYPE, b"{}", ()).verify(KNOWN)


def test_one_wrong_signature_of_a_known_key_spoils_the_whole() -> None:
    good = seal(ORDER_TYPE, b"{}", KEY)
    bad = Envelope(ORDER_TYPE, b"{}", (*good.signatures, (OTHER.kid, bytes(64))))
    with pytest.raises(BadSignature, match=OTHER.kid):
        bad.verify(KNOWN)


def test_a_key_that_signs_twice_does_not_count_twice() -> None:
    good = seal(ORDER_TYPE, b"{}", KEY)
    with pytest.raises(BadSignature, match="signs twice"):
        Envelope(ORDER_TYPE, b"{}", good.signatures * 2).verify(KNOWN)


def test_a_signature_under_another_keys_name_is_refused() -> None:
    _, signature = seal(ORDER_TYPE, b"{}", KEY).signatures[0]
    with pytest.raises(BadSignature):
        Envelope(ORDER_TYPE, b"{}", ((OTHER.kid, signature),)).verify(KNOWN)


GOOD = {"payloadType": ORDER_TYPE, "payload": "e30=", "signatures": [{"keyid": "0" * 16, "sig": b64(bytes(64))}]}
ONE = GOOD["signatures"][0]


@pytest.mark.parametrize(
    ("raw", "because"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "exactly"),
        (b"1" * 5000, "not JSON"),
        ({k: v for k, v in GOOD.items() if k != "payload"}, "exactly"),
        (GOOD | {"extra": 1}, "exactly"),
        (GOOD | {"payloadType": ACT_TYPE}, "expected"),
        (GOOD | {"payloadType": [[]]}, "expected"),
        (GOOD | {"payloadType": None}, "expected"),
        (GOOD | {"payload": 5}, "base64"),
        (GOOD | {"payload": "e30"}, "base64"),
        (GOOD | {"payload": "e31="}, "base64"),
        (GOOD | {"payload": "e3 0="}, "base64"),
        (GOOD | {"payload": "\ud800"}, "base64"),
        (GOOD | {"signatures": []}, "signatures"),
        (GOOD | {"signatures": {}}, "signatures"),
        (GOOD | {"signatures": [ONE] * (MAX_SIGNATURES + 1)}, "signatures"),
        (GOOD | {"signatures": [[]]}, "exactly keyid and sig"),
        (GOOD | {"signatures": [ONE | {"x": 1}]}, "exactly keyid and sig"),
        (GOOD | {"signatures": [ONE | {"keyid": 5}]}, "16 hex"),
        (GOOD | {"signatures": [ONE | {"keyid": "0" * 15}]}, "16 hex"),
        (GOOD | {"signatures": [ONE | {"keyid": "A" * 16}]}, "16 hex"),
        (GOOD | {"signatures": [ONE | {"keyid": "\ud800" * 16}]}, "16 hex"),
        (GOOD | {"signatures": [ONE | {"keyid": "0" * 16 + "\n"}]}, "16 hex"),
        (GOOD | {"signatures": [ONE | {"sig": None}]}, "base64"),
        (GOOD | {"signatures": [ONE | {"sig": "A" * 1000}]}, "longer"),
        (b'{"payload":"","payload":"e30=",' + json.dumps(GOOD).encode()[1:], "twice"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[-60:],
)
def test_malformed_envelopes_are_refused(raw: bytes | dict, because: str) -> None:
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    with pytest.raises(NotCanonical, match=because):
        open_envelope(data, expected_type=ORDER_TYPE)


def test_the_reference_envelope_of_these_tests_is_good() -> None:
    assert open_envelope(json.dumps(GOOD).encode(), expected_type=ORDER_TYPE).payload == b"{}"


def test_size_is_judged_first() -> None:
    with pytest.raises(NotCanonical, match="at most 10 are allowed"):
        open_envelope(b"x" * 11, expected_type=ORDER_TYPE, max_bytes=10)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_envelopes_open_to_the_same_document_or_are_refused(data: st.DataObject) -> None:
    raw = bytearray(seal(ORDER_TYPE, b'{"a":1}', KEY).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        envelope = open_envelope(bytes(raw), expected_type=ORDER_TYPE)
        envelope.verify(KNOWN)
    except (NotCanonical, BadSignature):
        return
    assert envelope.payload == b'{"a":1}'
