"""Keys: which public keys are believed, and that base64 has one spelling."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import BadKey
from wire.keys import SigningKey, VerifyKey, b64, kid_of, unb64

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """Edwards addition in affine coordinates."""
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P,
    )


def recover_x(y: int) -> int | None:
    """An x on the curve for y, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x * x % P == square else None


def multiply(point: Point, times: int) -> Point:
    result: Point = (0, 1)
    while times:
        if times & 1:
            result = add(result, point)
        point = add(point, point)
        times >>= 1
    return result


def torsion() -> list[Point]:
    """The eight points of small order, found by arithmetic: any point times the order of the prime subgroup."""
    prime_order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 1000):
        x = recover_x(y)
        if x is None:
            continue
        small = multiply((x, y), prime_order)
        points = [multiply(small, i) for i in range(8)]
        if len(set(points)) == 8:
            return points
    raise AssertionError("no generator of the torsion subgroup below 1000")


def encoded(y: int, sign: int) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


def low_order_keys() -> list[bytes]:
    """Every encoding of the eight points, with either sign bit and, where it fits, as y + p."""
    found = set()
    for _, y in torsion():
        for sign in (0, 1):
            found.add(encoded(y, sign))
            if y + P < 2**255:
                found.add(encoded(y + P, sign))
    return sorted(found)


def test_there_are_fourteen_encodings_of_low_order_points() -> None:
    assert len(low_order_keys()) == 14


@pytest.mark.parametrize("raw", low_order_keys(), ids=bytes.hex)
def test_keys_of_low_order_are_refused(raw: bytes) -> None:
    with pytest.raises(BadKey, match=r"low order|canonical"):
        VerifyKey(raw)


def test_such_a_key_would_accept_one_signature_for_every_message() -> None:
    """Why they are refused: the library under us takes it. Were it to stop, the check would still cost nothing."""
    neutral = encoded(1, 0)
    forged = neutral + bytes(32)
    key = Ed25519PublicKey.from_public_bytes(neutral)
    for message in (b"open feeder 1", b"close feeder 1"):
        key.verify(forged, message)


@pytest.mark.parametrize("y", [P, P + 1, P + 5, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_keys_in_non_canonical_form_are_refused(y: int, sign: int) -> None:
    with pytest.raises(BadKey, match="canonical"):
        VerifyKey(encoded(y, sign))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(BadKey, match="32 bytes"):
        VerifyKey(b"\x09" * length)


def test_identifier_is_the_head_of_the_hash() -> None:
    assert kid_of(bytes(32)) == "66687aadf862bd77"
    key = SigningKey.generate()
    assert key.kid == key.public.kid == kid_of(key.public.raw)


def test_sign_and_verify() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"message")
    assert key.public.verifies(b"message", signature)
    assert not key.public.verifies(b"messagE", signature)
    assert not other.public.verifies(b"message", signature)


@pytest.mark.parametrize("damage", [lambda s: b"", lambda s: s[:-1], lambda s: s + b"\0", lambda s: bytes(64)])
def test_signatures_of_another_shape_do_not_verify(damage) -> None:
    key = SigningKey.generate()
    assert not key.public.verifies(b"m", damage(key.sign(b"m")))


def test_a_signature_with_the_group_order_added_does_not_verify() -> None:
    """Malleability: s and s + L would both satisfy the equation."""
    key = SigningKey.generate()
    signature = key.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    assert not key.public.verifies(b"m", signature[:32] + s.to_bytes(32, "little"))


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_any_32_bytes_are_a_key_or_refused_as_one(raw: bytes) -> None:
    try:
        key = VerifyKey(raw)
    except BadKey:
        return
    assert VerifyKey.from_text(key.text) == key
    assert key.verifies(b"m", bytes(64)) is False


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_base64_round_trip(data: bytes) -> None:
    assert unb64(b64(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AA",
        "AA=",
        "AAA",
        "AB==",
        "AAB=",
        "AA==\n",
        " AA==",
        "AA ==",
        "AA===",
        "A-_=",
        "-_-_",
        "ÄÄÄÄ",
        "\ud800AAA",
        "====",
    ],
)
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(BadKey):
        unb64(text)


@settings(deadline=None)
@given(st.text("ABCabc+/-_= \n0", max_size=12))
def test_base64_text_is_refused_or_the_only_spelling(text: str) -> None:
    try:
        data = unb64(text)
    except BadKey:
        return
    assert base64.b64encode(data).decode() == text


def test_long_base64_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadKey, match="longer than allowed"):
        unb64("A" * 1000, max_bytes=64)


def test_private_keys_travel_as_pem_with_or_without_a_passphrase() -> None:
    key = SigningKey.generate()
    assert SigningKey.from_pem(key.to_pem()).kid == key.kid
    locked = key.to_pem(b"long words")
    assert SigningKey.from_pem(locked, b"long words").kid == key.kid
    for wrong in (None, b"other words"):
        with pytest.raises(BadKey):
            SigningKey.from_pem(locked, wrong)


def test_private_keys_of_another_kind_are_refused() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(BadKey, match="Ed25519"):
        SigningKey.from_pem(pem)
    with pytest.raises(BadKey):
        SigningKey.from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def test_a_private_key_shows_only_its_identifier() -> None:
    key = SigningKey.generate()
    assert repr(key) == f"SigningKey(kid={key.kid})"
    assert not hasattr(key, "__dict__")
