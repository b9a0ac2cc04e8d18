"""A dispatcher's signed note that an order was spoken: who gave it, who took it, when, and the recording's number.

DSSE type ``…spoken.v1+json``. It is evidence beside the order of the same id; no agent ever acts on it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wire import canonical
from wire.dsse import SPOKEN_TYPE, Envelope, open_envelope
from wire.errors import BadSignature, NotCanonical, WireError
from wire.names import SITE
from wire.orders import Millis, Text, Uuid, Version1
from wire.registry import Issuer, KeysDocument

MAX_NOTE_BYTES = 8192
WITNESSING = frozenset({"limit", "reduce", "stop", "open_feeders", "emergency_trip", "release", "extend", "cancel"})
"""Whoever may order something at a site may note what was spoken to it."""
PersonName = Annotated[str, Field(min_length=1, max_length=100)]


class SpokenNote(BaseModel):
    """What was spoken, about one order."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Version1
    order: Uuid
    site: Annotated[str, Field(pattern=f"^{SITE.pattern}$")]
    given_by: PersonName
    taken_by: PersonName
    at: Millis
    """When it was spoken."""
    recording_no: Annotated[str, Field(max_length=60)] | None = None
    text: Text

    @field_validator("given_by", "taken_by", "recording_no", "text")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and any(not c.isprintable() for c in value):
            raise ValueError("holds characters that cannot be printed")
        return value

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical.encode(self.model_dump(mode="json", exclude_none=True))


def open_note(raw: bytes) -> tuple[SpokenNote, Envelope]:
    """Parse a note; its signature is checked by :func:`signer`.

    Raises:
        WireError: not a note.
    """
    try:
        envelope = open_envelope(raw, expected_type=SPOKEN_TYPE, max_bytes=MAX_NOTE_BYTES)
        canonical.decode(envelope.payload, max_bytes=MAX_NOTE_BYTES)
        return SpokenNote.model_validate_json(envelope.payload), envelope
    except NotCanonical as error:
        raise WireError(f"spoken note: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise WireError(f"spoken note field {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def signer(note: SpokenNote, envelope: Envelope, keys: KeysDocument) -> Issuer:
    """The registered dispatcher who signed a note.

    Raises:
        WireError: nobody who may order at this site signed it.
    """
    try:
        kid = envelope.verify(keys.verify_keys())[0]
    except BadSignature as error:
        raise WireError(f"spoken note: {error}") from None
    issuer, site = keys.issuer(kid), keys.site(note.site)
    if issuer is None or keys.revoked_at(kid) is not None or not issuer.valid_from <= note.at <= issuer.valid_to:
        raise WireError(f"spoken note: key {kid} was revoked, or not valid when it was spoken")
    if note.site not in issuer.sites and (site is None or site.zone not in issuer.zones):
        raise WireError(f"spoken note: key {kid} has no right at site {note.site}")
    if not WITNESSING & set(issuer.rights):
        raise WireError(f"spoken note: key {kid} has no right to order anything at site {note.site}")
    return issuer
