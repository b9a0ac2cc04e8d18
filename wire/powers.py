"""Powers that two persons sign: an emergency declaration («Авария») and a gateway's mandate.

Both travel inside the orders that use them, so that an agent off line from everything but that order can judge it. A
declaration lets one person shed within its cap; a mandate lets a gateway, which is no person, sign per-site orders of a
plan within its bounds. Neither gives a right to restore, to override or to change keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wire import canonical
from wire.dsse import DECLARATION_TYPE, MANDATE_TYPE, open_envelope, seal
from wire.errors import BadKey, BadSignature, NotCanonical, WireError
from wire.keys import SigningKey, unb64
from wire.orders import MAX_POWER_TEXT, Millis, Ref, Text, Uuid, Version1, Watt
from wire.registry import KeysDocument, Kid

MAX_POWER_BYTES = 8_192
MAX_DECLARATION_MS = 24 * 3_600_000
MAX_MANDATE_MS = 7 * 24 * 3_600_000


class _Power(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Version1
    id: Uuid
    zones: Annotated[tuple[Ref, ...], Field(min_length=1, max_length=64)]
    issued_at: Millis
    valid_from: Millis
    valid_to: Millis

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical.encode(self.model_dump(mode="json", exclude_none=True))

    def live(self, at_ms: int) -> bool:
        """True while it may be used."""
        return self.valid_from <= at_ms <= self.valid_to


class Declaration(_Power):
    """«Авария»: while it lives, one signature sheds up to ``cap_w`` per site of the zones."""

    cap_w: Watt
    text: Text

    @model_validator(mode="after")
    def _bounded(self) -> Declaration:
        if not 0 < self.valid_to - self.valid_from <= MAX_DECLARATION_MS:
            raise ValueError("a declaration lives at most 24 hours")
        return self


class Mandate(_Power):
    """What a gateway may order for a plan, per site and order. Total and ramp of the plan are the gateway's to keep."""

    plan: Uuid
    gateway: Kid
    actions: Annotated[tuple[Literal["limit", "reduce"], ...], Field(min_length=1, max_length=2)]
    band_w: Watt
    """How far the total may be off the plan."""
    max_cut_w: Watt
    """Most that one site may be made to shed."""
    max_step_w: Watt
    max_ramp_w_per_min: Watt

    @model_validator(mode="after")
    def _bounded(self) -> Mandate:
        if not 0 < self.valid_to - self.valid_from <= MAX_MANDATE_MS:
            raise ValueError("a mandate lives at most 7 days")
        return self


P = TypeVar("P", Declaration, Mandate)


def sign_power(power: Declaration | Mandate, keys: Sequence[SigningKey]) -> bytes:
    """Envelope bytes of a declaration or mandate."""
    kind = DECLARATION_TYPE if isinstance(power, Declaration) else MANDATE_TYPE
    return seal(kind, power.encode(), *keys).encode()


def peek(text: str) -> tuple[Declaration | Mandate, tuple[str, ...]] | None:
    """A power and its signers' keys as they stand there, unchecked: to be shown, never to be gone by."""
    for kind, model in ((DECLARATION_TYPE, Declaration), (MANDATE_TYPE, Mandate)):
        try:
            raw = unb64(text, max_bytes=MAX_POWER_TEXT)
            envelope = open_envelope(raw, expected_type=kind, max_bytes=MAX_POWER_BYTES)
            return model.model_validate_json(envelope.payload), tuple(kid for kid, _ in envelope.signatures)
        except (ValidationError, WireError):
            continue
    return None


def open_declaration(text: str, register: KeysDocument, *, zone: str | None, at_ms: int) -> Declaration:
    """A declaration out of an order's field, checked against the register.

    Args:
        text: base64 of the envelope.
        register: persons, keys and rights.
        zone: zone of the site that is ordered.
        at_ms: the present as far as it can be trusted.

    Raises:
        WireError: why it gives no power here and now.
    """
    return _open(text, Declaration, DECLARATION_TYPE, "declare", register, zone, at_ms)


def open_mandate(text: str, register: KeysDocument, *, zone: str | None, at_ms: int) -> Mandate:
    """A mandate out of an order's field; see :func:`open_declaration`."""
    return _open(text, Mandate, MANDATE_TYPE, "mandate", register, zone, at_ms)


def _open(text: str, model: type[P], kind: str, right: str, register: KeysDocument, zone: str | None, at_ms: int) -> P:
    name = model.__name__.lower()
    try:
        envelope = open_envelope(unb64(text, max_bytes=MAX_POWER_TEXT), expected_type=kind, max_bytes=MAX_POWER_BYTES)
        canonical.decode(envelope.payload, max_bytes=MAX_POWER_BYTES)
        power = model.model_validate_json(envelope.payload)
        kids = envelope.verify(register.verify_keys())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or name
        raise WireError(f"{name} field {where}: {first['msg']}") from None
    except (NotCanonical, BadSignature, BadKey) as error:
        raise WireError(f"{name}: {error}") from None
    persons: set[str] = set()
    for kid in kids:
        issuer = register.issuer(kid)
        if issuer is None or not issuer.valid_from <= power.issued_at <= issuer.valid_to:
            raise WireError(f"{name}: key {kid} was not valid when it was issued")
        if register.revoked_at(kid) is not None:
            raise WireError(f"{name}: key {kid} was revoked")
        if right not in issuer.rights:
            raise WireError(f"{name}: key {kid} has no right to {right}")
        if not set(power.zones) <= set(issuer.zones):
            raise WireError(f"{name}: key {kid} has no right in all of the zones {', '.join(power.zones)}")
        persons.add(issuer.person)
    if len(persons) < 2:
        raise WireError(f"{name}: signed by {', '.join(sorted(persons))} alone; two persons have to sign it")
    if zone not in power.zones:
        raise WireError(f"{name}: for zones {', '.join(power.zones)}, this site is in {zone}")
    if not power.live(at_ms):
        raise WireError(f"{name}: valid from {power.valid_from} to {power.valid_to}, now is {at_ms}")
    return power
