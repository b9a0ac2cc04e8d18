"""DSSE: the payload type is inside the signed bytes, so that one kind of document can never pass for another.

Source: secure-systems-lab/dsse, protocol v1.0.2 (pre-authentication encoding).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wire.errors import BadKey, BadSignature, NotCanonical
from wire.keys import SigningKey, VerifyKey, b64, unb64

ORDER_TYPE = "application/vnd.tizgin.order.v1+json"
RECORD_TYPE = "application/vnd.tizgin.record.v1+json"
KEYS_TYPE = "application/vnd.tizgin.keys.v1+json"
ACT_TYPE = "application/vnd.tizgin.act.v1+json"
"""Acts of people about a site: mode of the agent, commissioning of outputs."""
DECLARATION_TYPE = "application/vnd.tizgin.declaration.v1+json"
MANDATE_TYPE = "application/vnd.tizgin.mandate.v1+json"
READING_TYPE = "application/vnd.tizgin.reading.v1+json"
"""The system operator's own reading of a meter, for a verifier."""
SPOKEN_TYPE = "application/vnd.tizgin.spoken.v1+json"
"""A dispatcher's note that an order was spoken."""
MANIFEST_TYPE = "application/vnd.tizgin.manifest.v1+json"
CSR_TYPE = "application/vnd.tizgin.csr.v1+json"
"""A site's request for a renewed TLS certificate."""

MAX_SIGNATURES = 8
_KID = re.compile(r"[0-9a-f]{16}")


def pae(payload_type: str, body: bytes) -> bytes:
    """Pre-authentication encoding: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its signatures, exactly as carried."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def encode(self) -> bytes:
        """JSON bytes of the envelope."""
        return json.dumps(
            {
                "payloadType": self.payload_type,
                "payload": b64(self.payload),
                "signatures": [{"keyid": kid, "sig": b64(sig)} for kid, sig in self.signatures],
            },
            separators=(",", ":"),
        ).encode()

    def signed_by(self, key: SigningKey) -> Envelope:
        """The same envelope with one more signature (replacing an earlier one of that key)."""
        signature = key.sign(pae(self.payload_type, self.payload))
        rest = tuple(s for s in self.signatures if s[0] != key.kid)
        return Envelope(self.payload_type, self.payload, (*rest, (key.kid, signature)))

    def verify(self, keys: Mapping[str, VerifyKey]) -> tuple[str, ...]:
        """Identifiers of the known keys that signed, in order of appearance.

        Raises:
            BadSignature: a known key's signature is wrong, a key signs twice, or no known key signed.
        """
        message = pae(self.payload_type, self.payload)
        good: list[str] = []
        for kid, signature in self.signatures:
            key = keys.get(kid)
            if key is None:
                continue
            if kid in good:
                raise BadSignature(f"key {kid} signs twice")
            if not key.verifies(message, signature):
                raise BadSignature(f"the signature of key {kid} does not verify")
            good.append(kid)
        if not good:
            seen = ", ".join(kid for kid, _ in self.signatures) or "none"
            raise BadSignature(f"no signature of a known key; signed by: {seen}")
        return tuple(good)


def seal(payload_type: str, payload: bytes, *keys: SigningKey) -> Envelope:
    """Sign a payload with one or more keys."""
    envelope = Envelope(payload_type, payload, ())
    for key in keys:
        envelope = envelope.signed_by(key)
    return envelope


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that names a field twice means different things to different parsers."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotCanonical("envelope names a field twice")
    return found


def open_envelope(data: bytes, *, expected_type: str, max_bytes: int = 262_144) -> Envelope:
    """Parse an envelope of one expected type. Signatures are not checked here.

    Raises:
        NotCanonical: not such an envelope; the message says what was seen.
    """
    if len(data) > max_bytes:
        raise NotCanonical(f"envelope of {len(data)} bytes, at most {max_bytes} are allowed")
    try:
        doc = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except NotCanonical:
        raise
    except (ValueError, RecursionError) as error:
        raise NotCanonical(f"envelope is not JSON: {error}"[:200]) from None
    if not isinstance(doc, dict) or set(doc) != {"payloadType", "payload", "signatures"}:
        raise NotCanonical("envelope needs exactly payloadType, payload and signatures")
    kind = doc["payloadType"]
    if not isinstance(kind, str):
        raise NotCanonical(f"payload type is a JSON {type(kind).__name__}, expected {expected_type!r}")
    if kind != expected_type:
        raise NotCanonical(f"payload type {kind[:80]!r}, expected {expected_type!r}")
    entries = doc["signatures"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_SIGNATURES:
        raise NotCanonical(f"envelope needs 1 to {MAX_SIGNATURES} signatures")
    signatures: list[tuple[str, bytes]] = []
    try:
        if not isinstance(doc["payload"], str):
            raise NotCanonical("payload must be base64 text")
        payload = unb64(doc["payload"], max_bytes=max_bytes)
        for entry in entries:
            if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"}:
                raise NotCanonical("a signature needs exactly keyid and sig")
            kid, sig = entry["keyid"], entry["sig"]
            if not isinstance(kid, str) or not isinstance(sig, str) or not _KID.fullmatch(kid):
                raise NotCanonical("keyid must be 16 hex digits and sig base64")
            signatures.append((kid, unb64(sig, max_bytes=128)))
    except BadKey as error:
        raise NotCanonical(f"envelope: {error}") from None
    return Envelope(expected_type, payload, tuple(signatures))
