"""Errors of the contract: what arrived is not what the contract says."""

from __future__ import annotations


class WireError(ValueError):
    """Base: the message names what was seen and what was expected."""


class NotCanonical(WireError):
    """The bytes are not the one canonical encoding of their meaning."""


class BadSignature(WireError):
    """A signature of a known key does not verify, or none is there that counts."""


class BadKey(WireError):
    """A public key that must not be used: wrong length, not canonical, or of low order."""


class BadRecord(WireError):
    """A record line that breaks the format."""


class BadOrder(WireError):
    """An order that breaks the format; ``code`` is the published reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BadBatch(WireError):
    """A telemetry batch that breaks the format or its limits."""


class BadProof(WireError):
    """A Merkle proof does not prove what it should."""


class BadNote(WireError):
    """Not a signed note, checkpoint, cosignature or policy, or not signed by whom it should be."""
