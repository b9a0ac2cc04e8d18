"""A plan: what the total of some zones shall come down to, how fast, and on which terms.

Written as YAML; powers may be given in kW (``total_kw``, ``ramp_kw_per_min``), ``hold.until`` as a date. It is not
signed: the mandate that names its id bounds it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from grid.errors import GridError
from grid.registrar.register import ease, load_yaml
from wire import canonical
from wire.errors import NotCanonical
from wire.orders import Basis, Escalation, Hold, Method, Ref, Restore, Uuid, Version1, Watt, uuid7


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Target(_Strict):
    """The total to reach: W, or per mille of the total when the plan starts."""

    total_w: Annotated[int, Field(ge=0, le=10**13)] | None = None
    permille: Annotated[int, Field(ge=0, le=1000)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Target:
        if (self.total_w is None) == (self.permille is None):
            raise ValueError("give exactly one of total_w (total_kw), permille")
        return self


class Plan(_Strict):
    """One plan."""

    v: Version1
    id: Uuid
    zones: Annotated[tuple[Ref, ...], Field(min_length=1, max_length=64)]
    target: Target
    ramp_w_per_min: Annotated[Watt, Field(ge=1)] | None = None
    """How fast the total falls; without it the whole cut is one step."""
    hold: Hold
    restore: Restore = Restore()
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("sleep",)
    escalation: Escalation = Escalation()
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    begin_within_s: Annotated[int, Field(ge=15, le=3600)] = 60
    """A site that has not begun by then does not begin any more: a late one would cut twice."""
    reach_within_s: Annotated[int, Field(ge=15, le=3600)] = 180
    """So long after its ramp a site has to be held, or it counts as late."""
    basis: Basis

    @model_validator(mode="after")
    def _persons_restore(self) -> Plan:
        if self.hold.restore_auto:
            raise ValueError("hold.restore_auto: a gateway gives no load back; a person releases each order")
        if len(set(self.zones)) != len(self.zones):
            raise ValueError("a zone is named twice")
        return self

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical.encode(self.model_dump(mode="json", exclude_none=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, hex."""
        return hashlib.sha256(self.encode()).hexdigest()


def load_plan(path: Path, *, now_ms: int) -> Plan:
    """A plan from a YAML file.

    Raises:
        GridError: not a plan; the message names the field.
    """
    body = ease(load_yaml(path), "")
    if "id" not in body:
        raise GridError(f"{path}: a plan needs an id, which its mandate names; for example 'id: {uuid7(now_ms)}'")
    try:
        return parse_plan(canonical.encode({"v": 1, **body}))
    except NotCanonical as error:
        raise GridError(f"{path}: {error}") from None
    except GridError as error:
        raise GridError(f"{path}: {error}") from None


def parse_plan(raw: bytes) -> Plan:
    """A plan from its canonical bytes.

    Raises:
        GridError: not a plan.
    """
    try:
        return Plan.model_validate_json(raw)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'plan'}: {e['msg']}" for e in error.errors()[:5]]
        raise GridError("; ".join(lines)) from None
