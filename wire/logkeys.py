"""Public keys that sign a site's checkpoints: Ed25519, or P-256 where the key lives in a security token.

As text a log key is base64 of 32 bytes, a raw Ed25519 key, or of 91 bytes, the SubjectPublicKeyInfo DER of a P-256 key
(named curve, uncompressed point). ``kid`` = first 16 hex digits of SHA-256 of these bytes. A P-256 signature is the DER
of ECDSA over SHA-256; of every signature (r, s) there is a second one (r, n−s) that anybody can make and that is as
good, so nothing may take the bytes of a signature for a name of what was signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from wire.errors import BadKey
from wire.keys import VerifyKey, b64, kid_of, unb64

P256_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""DER before the point: id-ecPublicKey, secp256r1 by name, a bit string of 65 bytes."""
P256_BYTES = len(P256_HEAD) + 65
MAX_SIGNATURE = 72
"""DER of two integers of at most 33 bytes."""


@dataclass(frozen=True, slots=True)
class P256Key:
    """A P-256 public key that has passed the strict checks; ``raw`` is its SubjectPublicKeyInfo DER."""

    raw: bytes
    kid: str = field(init=False)
    _key: ec.EllipticCurvePublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        head, point = self.raw[: len(P256_HEAD)], self.raw[len(P256_HEAD) :]
        # One encoding per key: a compressed point or written-out curve would be a second name of the same key.
        if len(self.raw) != P256_BYTES or head != P256_HEAD or point[:1] != b"\x04":
            raise BadKey(
                f"expected a P-256 public key as SubjectPublicKeyInfo DER of {P256_BYTES} bytes with the curve's name "
                f"and an uncompressed point, this has {len(self.raw)} bytes and begins {self.raw[:27].hex()}"
            )
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError:
            raise BadKey("P-256 public key is not a point of the curve") from None
        object.__setattr__(self, "kid", kid_of(self.raw))
        object.__setattr__(self, "_key", key)

    @property
    def text(self) -> str:
        """Base64 of the DER."""
        return b64(self.raw)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """True if the signature (strict DER, ECDSA over SHA-256) is this key's over the message."""
        try:
            if encode_dss_signature(*decode_dss_signature(signature)) != signature:
                return False
            self._key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except (ValueError, InvalidSignature):
            return False
        return True


LogKey = VerifyKey | P256Key


def log_public(raw: bytes) -> LogKey:
    """A log key of its bytes.

    Raises:
        BadKey: neither of the two, or one that must not be used.
    """
    if len(raw) == 32:
        return VerifyKey(raw)
    if len(raw) == P256_BYTES:
        return P256Key(raw)
    raise BadKey(f"a log key of {len(raw)} bytes, expected 32 (Ed25519) or {P256_BYTES} (P-256)")


def read_log_key(text: str) -> LogKey:
    """A log key of its text.

    Raises:
        BadKey: see :func:`log_public`.
    """
    return log_public(unb64(text, max_bytes=128))
