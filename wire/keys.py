"""Ed25519 keys: identifiers, strict public keys, signing.

``kid`` = first 16 hex digits of SHA-256 of the raw public key. Public keys of low order or in non-canonical form are
refused: with such a key one signature can be made valid for several messages.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wire.errors import BadKey

_P = 2**255 - 19
_LOW_ORDER_Y = frozenset(
    {
        0,
        1,
        _P - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)


def b64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode()


def unb64(text: str, *, max_bytes: int = 262_144) -> bytes:
    """Strict base64: only the alphabet, correct padding, one encoding per value.

    Raises:
        BadKey: anything else. (The caller names what it was decoding.)
    """
    if len(text) > max_bytes * 2:
        raise BadKey(f"base64 text of {len(text)} characters is longer than allowed")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadKey(f"not base64: {error}") from None
    if b64(data) != text:
        raise BadKey("not strict base64: padding or trailing bits differ")
    return data


def kid_of(public: bytes) -> str:
    """Key identifier of a raw public key."""
    return hashlib.sha256(public).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key that has passed the strict checks."""

    raw: bytes
    kid: str = field(init=False)
    _key: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise BadKey(f"an Ed25519 public key has 32 bytes, this has {len(self.raw)}")
        y = int.from_bytes(self.raw, "little") & (2**255 - 1)
        if y >= _P:
            raise BadKey("Ed25519 public key is not in canonical form")
        if y in _LOW_ORDER_Y:
            raise BadKey("Ed25519 public key is a point of low order")
        object.__setattr__(self, "kid", kid_of(self.raw))
        object.__setattr__(self, "_key", Ed25519PublicKey.from_public_bytes(self.raw))

    @classmethod
    def from_text(cls, text: str) -> VerifyKey:
        """From base64 of the raw 32 bytes."""
        return cls(unb64(text, max_bytes=64))

    @property
    def text(self) -> str:
        """Base64 of the raw key."""
        return b64(self.raw)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """True if the signature is this key's over the message."""
        if len(signature) != 64:
            return False
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key; shows only its identifier."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = VerifyKey(
            key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        )

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid})"

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's random source."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, password: bytes | None = None) -> SigningKey:
        """From PKCS#8 PEM.

        Raises:
            BadKey: not an Ed25519 private key, or the passphrase is wrong.
        """
        try:
            key = serialization.load_pem_private_key(pem, password)
        except (ValueError, TypeError) as error:
            raise BadKey(f"private key cannot be read: {error}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKey(f"expected an Ed25519 private key, found {type(key).__name__}")
        return cls(key)

    def to_pem(self, password: bytes | None = None) -> bytes:
        """PKCS#8 PEM, encrypted when a passphrase is given."""
        encryption: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        )
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    @property
    def kid(self) -> str:
        """Key identifier."""
        return self.public.kid

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._key.sign(message)
