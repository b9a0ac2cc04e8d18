"""Curtailment orders: one signed envelope, one site, one epoch.

Integers only: W, mHz, ms since the Unix epoch (UTC), per mille of the contracted power. Source: ``docs/protocol.md``.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wire import canonical
from wire.checkpoints import parse_checkpoint
from wire.dsse import ORDER_TYPE, Envelope, open_envelope
from wire.errors import BadNote, BadOrder, NotCanonical
from wire.names import EPOCH, SITE, origin
from wire.notes import parse_note
from wire.states import Reason

MAX_ORDER_BYTES = 32_768
MAX_POWER_TEXT = 8_192
MAX_SEEN = 4_096

Watt = Annotated[int, Field(ge=0, le=10_000_000_000)]
Millis = Annotated[int, Field(ge=1_600_000_000_000, le=9_999_999_999_999)]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
Text = Annotated[str, Field(max_length=500)]
Version1 = Annotated[int, Field(ge=1, le=1)]
"""The number 1; ``Literal[1]`` would also take ``true``."""
Ref = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,60}$")]

Action = Literal[
    "limit",
    "reduce",
    "stop",
    "stage",
    "open_feeders",
    "schedule",
    "release",
    "extend",
    "cancel",
    "emergency_trip",
]
Method = Literal["sleep", "power_limit", "outlet", "switch"]
SHEDDING: frozenset[str] = frozenset({"limit", "reduce", "stop", "stage", "open_feeders", "schedule", "emergency_trip"})


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Hold(_Strict):
    """How long what was shed stays shed."""

    until: Millis | None = None
    until_released: bool = False
    restore_auto: bool = False
    """Restore at ``until`` without a release; needs a synchronised clock and a live link."""

    @model_validator(mode="after")
    def _one(self) -> Hold:
        if (self.until is None) == (not self.until_released):
            raise ValueError("hold needs exactly one of until, until_released=true")
        if self.restore_auto and self.until is None:
            raise ValueError("restore_auto needs until")
        return self


class Escalation(_Strict):
    """May the order go from sleep to switches, and after how long without effect at the meter."""

    to: Literal["none", "switch"] = "none"
    after_s: Annotated[int, Field(ge=1, le=3600)] = 60


class Restore(_Strict):
    """How the load comes back."""

    stage_permille: Annotated[int, Field(ge=1, le=1000)] = 200
    stage_delay_s: Annotated[int, Field(ge=1, le=3600)] = 30
    max_w_per_min: Watt | None = None
    min_mhz: Annotated[int, Field(ge=45_000, le=55_000)] | None = None
    ceiling_w: Watt | None = None


class Basis(_Strict):
    """Why, in the dispatcher's terms."""

    code: Ref
    emergency_id: Ref | None = None
    text: Text | None = None
    dispatch_no: Text | None = None
    given_by: Text | None = None
    dispatch_name: Text | None = None
    attachment_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Order(_Strict):
    """One order."""

    v: Version1
    id: Uuid
    site: Annotated[str, Field(pattern=f"^{SITE.pattern}$")]
    epoch: Annotated[str, Field(pattern=f"^{EPOCH.pattern}$")]
    seq: Annotated[int, Field(ge=0, le=canonical.MAX_INT)]
    action: Action
    mode: Literal["live", "drill", "proof_test"] = "live"
    limit_w: Watt | None = None
    reduce_w: Watt | None = None
    permille: Annotated[int, Field(ge=0, le=1000)] | None = None
    stage: Annotated[int, Field(ge=1, le=32)] | None = None
    feeders: tuple[Ref, ...] | None = Field(default=None, max_length=200)
    hours: tuple[Watt, ...] | None = Field(default=None, min_length=24, max_length=24)
    measured_at: Ref = "net_import"
    """``net_import``, ``gross_mining`` or ``point:<id>``."""
    limit_basis: Literal["instant_1min", "slot", "hour_energy"] = "instant_1min"
    tolerance_w: Watt = 0
    issued_at: Millis
    not_before: Millis | None = None
    execute_by: Millis
    expires_at: Millis
    hold: Hold | None = None
    lease_s: Annotated[int, Field(ge=5, le=86_400)] | None = None
    ramp_w_per_min: Watt | None = None
    max_step_w: Watt | None = None
    methods: tuple[Method, ...] = ("sleep",)
    escalation: Escalation = Escalation()
    restore: Restore = Restore()
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    supersedes: Uuid | None = None
    target: Uuid | Literal["all"] | None = None
    """The order that a release, extend or cancel speaks of; ``all`` only for a release."""
    declaration: Annotated[str, Field(max_length=MAX_POWER_TEXT)] | None = None
    """Base64 of the emergency declaration («Авария») under which one person orders more than alone."""
    mandate: Annotated[str, Field(max_length=MAX_POWER_TEXT)] | None = None
    """Base64 of the mandate within which a gateway signs."""
    seen: Annotated[str, Field(max_length=MAX_SEEN)] | None = None
    """The newest cosigned checkpoint of this site's log that the issuer knows, as the text of its note. The site holds
    it against its own log: neither side can be shown another history than the other."""
    basis: Basis

    @property
    def sheds(self) -> bool:
        """True for actions that take load away."""
        return self.action in SHEDDING

    @model_validator(mode="after")
    def _whole(self) -> Order:
        wanted: dict[str, tuple[str, ...]] = {
            "limit": ("limit_w", "permille"),
            "reduce": ("reduce_w", "permille"),
            "stage": ("stage",),
            "open_feeders": ("feeders",),
            "schedule": ("hours",),
        }
        amounts = {
            name
            for name in ("limit_w", "reduce_w", "permille", "stage", "feeders", "hours")
            if getattr(self, name) is not None
        }
        allowed = wanted.get(self.action, ())
        if amounts - set(allowed):
            raise ValueError(f"{self.action} has no {', '.join(sorted(amounts - set(allowed)))}")
        if allowed and len(amounts) != 1:
            raise ValueError(f"{self.action} needs exactly one of {', '.join(allowed)}")
        follow = self.action in {"release", "extend", "cancel"}
        if follow != (self.target is not None):
            raise ValueError("release, extend and cancel name a target order, and only they do")
        if not self.sheds and (self.declaration is not None or self.mandate is not None):
            raise ValueError("declarations and mandates give the right to shed, not to restore")
        if self.target == "all" and self.action != "release":
            raise ValueError("only a release may have target 'all'")
        if (self.hold is not None) != (self.sheds or self.action == "extend"):
            raise ValueError("orders that shed, and extend, have a hold; others have none")
        if not self.issued_at <= self.execute_by <= self.expires_at:
            raise ValueError("issued_at <= execute_by <= expires_at does not hold")
        if self.not_before is not None and self.not_before > self.execute_by:
            raise ValueError("not_before is after execute_by")
        if self.seen is not None and _origin_of(self.seen) != origin(self.site, self.epoch):
            raise ValueError(f"seen is no checkpoint of {origin(self.site, self.epoch)}")
        return self

    def encode(self) -> bytes:
        """Canonical bytes, absent fields left out."""
        return canonical.encode(self.model_dump(mode="json", exclude_none=True))


@dataclass(frozen=True, slots=True)
class SignedOrder:
    """An order with the exact bytes it came in. Signatures are not yet checked."""

    order: Order
    envelope: Envelope
    raw: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the signed payload, hex."""
        return hashlib.sha256(self.envelope.payload).hexdigest()


def _origin_of(note: str) -> str | None:
    try:
        return parse_checkpoint(parse_note(note.encode("utf-8", "replace")).text).origin
    except BadNote:
        return None


def parse_order(raw: bytes) -> SignedOrder:
    """Parse an order envelope.

    Raises:
        BadOrder: with code ``format`` and what was wrong.
    """
    try:
        envelope = open_envelope(raw, expected_type=ORDER_TYPE, max_bytes=MAX_ORDER_BYTES)
        doc = canonical.decode(envelope.payload, max_bytes=MAX_ORDER_BYTES)
        order = Order.model_validate_json(envelope.payload)
    except NotCanonical as error:
        raise BadOrder(Reason.FORMAT, f"order: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "order"
        raise BadOrder(
            Reason.FORMAT, f"order field {where}: {first['msg']} (and {error.error_count() - 1} more)"
        ) from None
    if "v" not in doc:
        raise BadOrder(Reason.FORMAT, "order has no version")
    return SignedOrder(order, envelope, raw)


def uuid7(now_ms: int) -> str:
    """UUID version 7 (RFC 9562): time-ordered, 74 random bits."""
    value = bytearray((now_ms & (2**48 - 1)).to_bytes(6, "big") + os.urandom(10))
    value[6] = 0x70 | (value[6] & 0x0F)
    value[8] = 0x80 | (value[8] & 0x3F)
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
