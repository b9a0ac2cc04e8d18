"""Signed acts of people about one site: raising the agent's mode, commissioning an output, reading a display.

An act is a DSSE document (type ``…act.v1+json``) signed by persons whom the register gives the right ``mode``,
``commission`` or ``inspect``. The agent keeps it verbatim as evidence.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wire import canonical
from wire.dsse import ACT_TYPE, Envelope, open_envelope
from wire.errors import NotCanonical, WireError
from wire.orders import Millis, Ref, Text, Uuid, Version1


class _Act(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModeAct(_Act):
    """A step of the agent's mode: ``monitor`` → ``shadow`` → ``armed``."""

    v: Version1
    ty: Literal["mode"]
    id: Uuid
    site: Ref
    epoch: Ref
    at: Millis
    mode: Literal["monitor", "shadow", "armed"]
    reason: Text


class OutputTest(_Act):
    """What was seen when one output was proven."""

    output: Ref
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 over device, profile, wiring and graph of the output; any change makes the act lapse."""
    expected_w: Annotated[int, Field(ge=0)]
    seen_w: Annotated[int, Field(ge=0)]
    open_ms: Annotated[int, Field(ge=0)]
    stayed_open_s: Annotated[int, Field(ge=0)]
    meter: Ref
    others_moved: tuple[Ref, ...] = ()


class CommissioningAct(_Act):
    """Protocol of a commissioning: outputs proven at the site by named persons."""

    v: Version1
    ty: Literal["commissioning"]
    id: Uuid
    site: Ref
    epoch: Ref
    at: Millis
    outputs: Annotated[tuple[OutputTest, ...], Field(min_length=1, max_length=500)]
    note: Text | None = None


class SpotAct(_Act):
    """What an inspector saw at a meter: the display, its seals. One person signs; needs the right ``inspect``."""

    v: Version1
    ty: Literal["spot"]
    id: Uuid
    site: Ref
    epoch: Ref
    at: Millis
    point: Ref
    seen: Millis
    """When the display was read."""
    display_wh: Annotated[int, Field(ge=0, le=canonical.MAX_INT)]
    """As on the display; see :class:`wire.record_types.Spot`."""
    display_lsb_wh: Annotated[int, Field(ge=1, le=1_000_000)]
    serial: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seals: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=60)], ...], Field(max_length=32)] = ()
    photo_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    note: Text | None = None


Act = ModeAct | CommissioningAct | SpotAct
_MODELS: dict[str, type[ModeAct | CommissioningAct | SpotAct]] = {
    "mode": ModeAct,
    "commissioning": CommissioningAct,
    "spot": SpotAct,
}


def encode_act(act: Act) -> bytes:
    """Canonical bytes of an act."""
    return canonical.encode(act.model_dump(mode="json", exclude_none=True))


def open_act(raw: bytes) -> tuple[Act, Envelope]:
    """Parse an act. Signatures and rights are checked by the agent against the register.

    Raises:
        WireError: not an act.
    """
    try:
        envelope = open_envelope(raw, expected_type=ACT_TYPE)
        kind = canonical.decode(envelope.payload, max_bytes=262_144).get("ty")
        model = _MODELS.get(kind, ModeAct) if isinstance(kind, str) else ModeAct
        return model.model_validate_json(envelope.payload), envelope
    except NotCanonical as error:
        raise WireError(f"act: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise WireError(f"act field {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
