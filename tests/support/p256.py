"""A P-256 log key for tests, as a security token holds one; and ways to write it and its signatures wrongly."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from wire.logkeys import P256_HEAD, P256Key

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of the group."""


class P256Signer:
    """Used where a ``SigningKey`` is. Signs a message once: ECDSA signatures differ each time, and kits sign anew."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.public = P256Key(self.der())
        self._signed: dict[bytes, bytes] = {}

    @property
    def kid(self) -> str:
        return self.public.kid

    def sign(self, message: bytes) -> bytes:
        if message not in self._signed:
            self._signed[message] = self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        return self._signed[message]

    def der(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def not_this_key(self) -> dict[str, bytes]:
        """Encodings of this and of other keys that no log key may have."""
        der = self.der()
        point = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        compressed = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
        curve = bytes.fromhex(  # ECParameters written out: field, a, b, generator, order (RFC 3279)
            "3081e0020101302c06072a8648ce3d0101022100ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"
            "30440420ffffffff00000001000000000000000000000000fffffffffffffffffffffffc04205ac635d8aa3a93e7b3ebbd557698"
            "86bc651d06b0cc53b0f63bce3c3e27d2604b0441046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2"
            "964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5022100ffffffff00000000ffffffffffffffffbc"
            "e6faada7179e84f3b9cac2fc632551020101"
        )
        inner = bytes.fromhex("06072a8648ce3d0201") + curve
        algorithm = b"\x30\x81" + bytes([len(inner)]) + inner
        body = algorithm + der[len(P256_HEAD) - 3 :]
        explicit = b"\x30\x82" + len(body).to_bytes(2, "big") + body
        other = ec.generate_private_key(ec.SECP384R1()).public_key()
        return {
            "compressed": compressed,
            "explicit": explicit,
            "off the curve": der[:-1] + bytes([der[-1] ^ 1]),
            "all zero": P256_HEAD + b"\x04" + bytes(64),
            "hybrid": P256_HEAD + bytes([6 + (der[-1] & 1)]) + der[-64:],
            "P-384": other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            "longer": der + b"\x00",
            "the point alone": der[-65:],
            "empty": b"",
        }


def other_form(signature: bytes) -> bytes:
    """(r, n−s): as good as (r, s), and anybody can make it."""
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, N - s)


def not_der(signature: bytes) -> dict[str, bytes]:
    """The same two numbers in other encodings, which are none."""
    r, s = decode_dss_signature(signature)
    body = signature[2:]
    size = signature[3]
    return {
        "trailing byte": signature + b"\x00",
        "trailing byte inside": b"\x30" + bytes([len(body) + 1]) + body + b"\x00",
        "long length": b"\x30\x81" + bytes([len(body)]) + body,
        "indefinite length": b"\x30\x80" + body + b"\x00\x00",
        "padded number": b"\x30" + bytes([len(body) + 1]) + b"\x02" + bytes([size + 1]) + b"\x00" + body[2:],
        "raw r and s": r.to_bytes(32, "big") + s.to_bytes(32, "big"),
        "zero": encode_dss_signature(0, s),
        "above the order": encode_dss_signature(r, s + N),
        "empty": b"",
    }
