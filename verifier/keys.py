"""Ed25519 and P-256 keys under strict rules, strict base64 and DSSE.

RFC 8032 leaves verifiers room that a party choosing its own key can use: keys of low order make one signature valid
for many messages, keys in non-canonical form have two encodings. Both are refused by decoding the point here (the
curve arithmetic is a dozen lines) before the library sees it. A P-256 key signs checkpoints only; its encoding is the
one that RFC 5480 gives for a named curve and an uncompressed point, compared byte by byte.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from verifier.errors import InputLimit

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""SubjectPublicKeyInfo up to the 64 bytes of the point: id-ecPublicKey, secp256r1, uncompressed."""
P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MAX_P256_SIGNATURE = 72
Point = tuple[int, int]


def decode_base64(text: object, max_bytes: int) -> bytes:
    """Strict base64: one text per value.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(text, str) or len(text) > max_bytes * 4 // 3 + 8:
        raise ValueError(f"expected base64 text of at most {max_bytes} bytes")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("not base64") from None
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 that could be written in two ways")
    return data


def decode_point(raw: bytes) -> Point:
    """The curve point of a public key (RFC 8032, 5.1.3).

    Raises:
        ValueError: not canonical, or not on the curve.
    """
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= P:
        raise ValueError("not in canonical form")
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == (-u) % P:
        x = x * SQRT_M1 % P
    if v * x * x % P != u:
        raise ValueError("not a point of the curve")
    if x == 0 and sign:
        raise ValueError("not in canonical form")
    return (P - x if x & 1 != sign else x), y


def _add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + t, P - 2, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - t, P - 2, P) % P,
    )


def has_low_order(point: Point) -> bool:
    """True if eight times the point is the neutral element."""
    for _ in range(3):
        point = _add(point, point)
    return point == (0, 1)


@dataclass(frozen=True, slots=True)
class Key:
    """A public key that passed, and its identifier (first 16 hex digits of SHA-256)."""

    raw: bytes
    kid: str
    public: Ed25519PublicKey

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        """To another process as its bytes: the library's own key objects cannot travel."""
        return _key, (self.raw,)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """True if this key signed the message."""
        if len(signature) != 64:
            return False
        try:
            self.public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def load_key(text: object) -> Key:
    """A key from base64 of its 32 bytes.

    Raises:
        ValueError: why it must not be used.
    """
    raw = decode_base64(text, 64)
    if len(raw) != 32:
        raise ValueError(f"{len(raw)} bytes, expected 32")
    if has_low_order(decode_point(raw)):
        raise ValueError("a point of low order")
    return _key(raw)


def _key(raw: bytes) -> Key:
    return Key(raw, hashlib.sha256(raw).hexdigest()[:16], Ed25519PublicKey.from_public_bytes(raw))


@dataclass(frozen=True, slots=True)
class P256Key:
    """A P-256 public key that passed: its SubjectPublicKeyInfo DER, and its identifier, as of :class:`Key`."""

    raw: bytes
    kid: str
    public: ec.EllipticCurvePublicKey

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        """To another process as its bytes."""
        return _p256_key, (self.raw,)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """True if this key signed the message: ECDSA over SHA-256, one DER of two numbers from 1 to n−1."""
        if not _is_ecdsa_der(signature):
            return False
        try:
            self.public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


def load_checkpoint_key(text: object) -> Key | P256Key:
    """A key that signs checkpoints, from base64 of 32 bytes (Ed25519) or of 91 (P-256, SubjectPublicKeyInfo DER).

    Raises:
        ValueError: why it must not be used.
    """
    raw = decode_base64(text, 128)
    return _p256_key(raw) if len(raw) == len(P256_SPKI) + 64 else load_key(text)


def _p256_key(raw: bytes) -> P256Key:
    if len(raw) != len(P256_SPKI) + 64 or not raw.startswith(P256_SPKI):
        raise ValueError("no P-256 key with the curve's name and an uncompressed point")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw[len(P256_SPKI) - 1 :])
    return P256Key(raw, hashlib.sha256(raw).hexdigest()[:16], public)


def _is_ecdsa_der(signature: bytes) -> bool:
    """True for exactly one SEQUENCE of two INTEGERs in DER, each from 1 to n−1, and nothing after it."""
    if not 8 <= len(signature) <= MAX_P256_SIGNATURE or signature[0] != 0x30 or signature[1] != len(signature) - 2:
        return False
    at = 2
    for _ in range(2):
        if len(signature) < at + 3 or signature[at] != 0x02:
            return False
        size = signature[at + 1]
        body = signature[at + 2 : at + 2 + size]
        if not 1 <= size <= 33 or len(body) != size:
            return False
        # A leading zero byte only where the number would otherwise be negative; none of the two is negative.
        if body[0] & 0x80 or (size > 1 and body[0] == 0 and not body[1] & 0x80):
            return False
        if not 0 < int.from_bytes(body, "big") < P256_N:
            return False
        at += 2 + size
    return at == len(signature)


def pae(kind: str, body: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding: what a signature is over."""
    return b"DSSEv1 %d %s %d " % (len(kind), kind.encode(), len(body)) + body


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope: payload and (kid, signature) pairs."""

    kind: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def good_signers(self, keys: Mapping[str, Key]) -> list[str]:
        """Known keys that signed.

        Raises:
            ValueError: the signature of a known key is wrong, or a key signs twice.
        """
        good: list[str] = []
        for kid, signature in self.signatures:
            if kid in good:
                raise ValueError(f"key {kid} signs twice")
            if kid in keys:
                if not keys[kid].verifies(pae(self.kind, self.payload), signature):
                    raise ValueError(f"the signature of key {kid} does not verify")
                good.append(kid)
        return good


def read_envelope(data: bytes, kind: str, *, max_bytes: int, max_signatures: int = 8) -> Envelope:
    """An envelope out of its JSON bytes.

    Raises:
        ValueError: not an envelope of this kind.
        InputLimit: more bytes, depth or signatures than any honest writer's.
    """
    if len(data) > 2 * max_bytes:
        raise InputLimit(f"{len(data)} bytes, at most {2 * max_bytes} are expected")
    try:
        doc: object = json.loads(data.decode("utf-8"), object_pairs_hook=_no_twins)
    except RecursionError:
        raise InputLimit("JSON nested too deeply") from None
    if not isinstance(doc, dict) or set(doc) != {"payloadType", "payload", "signatures"}:
        raise ValueError("expected an object of payloadType, payload and signatures")
    if doc["payloadType"] != kind:
        raise ValueError(f"payload type {str(doc['payloadType'])[:80]!r}, expected {kind!r}")
    entries = doc["signatures"]
    if isinstance(entries, list) and len(entries) > max_signatures:
        raise InputLimit(f"{len(entries)} signatures, at most {max_signatures} are read")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"expected 1 to {max_signatures} signatures")
    return Envelope(kind, decode_base64(doc["payload"], max_bytes), tuple(_signature(entry) for entry in entries))


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a key twice")
    return found


def _signature(entry: object) -> tuple[str, bytes]:
    if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"} or not isinstance(entry["keyid"], str):
        raise ValueError("a signature is an object of keyid and sig")
    signature = decode_base64(entry["sig"], 64)
    if len(signature) != 64:
        raise ValueError(f"a signature of {len(signature)} bytes, expected 64")
    return entry["keyid"], signature


def by_kid(keys: Sequence[Key]) -> dict[str, Key]:
    """Keys by identifier."""
    return {key.kid: key for key in keys}
