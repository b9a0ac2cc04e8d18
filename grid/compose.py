"""From what a dispatcher says to an order: kW and minutes in, W and milliseconds out, defaults that are safe.

Defaults: sleep only, no escalation to switches, hold until released, five minutes for the site to start. Loosening
any of them is something a person says.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grid.errors import ComposeError
from wire import canonical
from wire.errors import NotCanonical
from wire.orders import SHEDDING, Action, Method, Order, uuid7

Kilowatt = Annotated[Decimal, Field(ge=0, le=10_000_000, allow_inf_nan=False)]


class OrderRequest(BaseModel):
    """An order as a person asks for it. Field names are the options of ``tizgin order sign``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    epoch: str
    action: Action
    mode: Literal["live", "drill", "proof_test"] = "live"
    limit_kw: Kilowatt | None = None
    reduce_kw: Kilowatt | None = None
    permille: int | None = None
    stage: int | None = None
    feeders: tuple[str, ...] | None = None
    hours_kw: tuple[Kilowatt, ...] | None = None
    measured_at: str = "net_import"
    limit_basis: Literal["instant_1min", "slot", "hour_energy"] = "instant_1min"
    tolerance_kw: Kilowatt = Decimal(0)
    not_before_ms: int | None = None
    execute_within_s: Annotated[int, Field(ge=1, le=86_400)] = 300
    valid_for_s: Annotated[int, Field(ge=1, le=31 * 86_400)] | None = None
    hold_minutes: Annotated[int, Field(ge=1, le=31 * 1440)] | None = None
    until_released: bool | None = None
    restore_auto: bool = False
    lease_s: int | None = None
    ramp_kw_per_min: Kilowatt | None = None
    max_step_kw: Kilowatt | None = None
    methods: tuple[Method, ...] | None = None
    escalation: Literal["none", "switch"] = "none"
    after_s: int = 60
    restore_stage_permille: int = 200
    restore_stage_delay_s: int = 30
    restore_max_kw_per_min: Kilowatt | None = None
    restore_min_mhz: int | None = None
    restore_ceiling_kw: Kilowatt | None = None
    priority: int = 5
    supersedes: str | None = None
    target: str | None = None
    basis_code: str = "dispatch"
    emergency_id: str | None = None
    text: str | None = None
    dispatch_no: str | None = None
    given_by: str | None = None
    dispatch_name: str | None = None
    attachment_sha256: str | None = None
    declaration: str | None = None
    """Base64 of an emergency declaration's envelope; the command line reads it from a file."""
    seen: str | None = None
    """The newest checkpoint of the site's log that the issuer knows, as a note's text."""


STAGES = frozenset({"restore_stage_permille", "restore_stage_delay_s"})


def read_request(fields: dict[str, Any]) -> OrderRequest:
    """A request from options, a form or a file; absent ones are ``None`` and fall to their defaults.

    Raises:
        ComposeError: a field nobody knows, or a value out of bounds.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return OrderRequest.model_validate(given)
    except ValidationError as error:
        raise ComposeError(_first(error)) from None


def _first(error: ValidationError) -> str:
    lines = [f"{'.'.join(str(p) for p in e['loc']) or 'order'}: {e['msg']}" for e in error.errors()[:5]]
    return "; ".join(lines)


def watt(kilowatt: Decimal | None) -> int | None:
    """kW → W.

    Raises:
        ComposeError: finer than one watt, which an order cannot say.
    """
    if kilowatt is None:
        return None
    value = kilowatt * 1000
    if value != math.floor(value):
        raise ComposeError(f"{kilowatt} kW: an order speaks in whole watts")
    return int(value)


def _hold(request: OrderRequest, start_ms: int) -> dict[str, Any] | None:
    if request.action not in SHEDDING and request.action != "extend":
        if request.hold_minutes is not None or request.until_released or request.restore_auto:
            raise ComposeError(f"{request.action}: has no hold; leave hold and restore_auto out")
        return None
    if request.hold_minutes is not None:
        if request.until_released:
            raise ComposeError("give hold_minutes or until_released, not both")
        return {"until": start_ms + request.hold_minutes * 60_000, "restore_auto": request.restore_auto}
    if request.restore_auto:
        raise ComposeError("restore_auto needs hold_minutes: without an end there is nothing to restore at")
    return {"until_released": True}


def compose(request: OrderRequest, *, now_ms: int, seq: int) -> Order:
    """The order of a request, checked against the contract.

    Raises:
        ComposeError: fields that do not go together; the message names them.
    """
    if request.action == "release" and STAGES & request.model_fields_set:
        raise ComposeError(f"release: load returns in the steps of its order; leave {' and '.join(sorted(STAGES))} out")
    start = max(now_ms, request.not_before_ms or now_ms)
    execute_by = start + request.execute_within_s * 1000
    hold = _hold(request, start)
    until = (hold or {}).get("until", 0)
    expires = max(execute_by, until, now_ms + (request.valid_for_s or 0) * 1000)
    sheds = request.action in SHEDDING
    methods = request.methods or _methods(request)
    body: dict[str, Any] = {
        "v": 1,
        "id": uuid7(now_ms),
        "site": request.site,
        "epoch": request.epoch,
        "seq": seq,
        "action": request.action,
        "mode": request.mode,
        "limit_w": watt(request.limit_kw),
        "reduce_w": watt(request.reduce_kw),
        "permille": request.permille,
        "stage": request.stage,
        "feeders": list(request.feeders) if request.feeders is not None else None,
        "hours": [watt(kw) for kw in request.hours_kw] if request.hours_kw is not None else None,
        "measured_at": request.measured_at,
        "limit_basis": request.limit_basis,
        "tolerance_w": watt(request.tolerance_kw),
        "issued_at": now_ms,
        "not_before": request.not_before_ms,
        "execute_by": execute_by,
        "expires_at": expires,
        "hold": hold,
        "lease_s": request.lease_s,
        "ramp_w_per_min": watt(request.ramp_kw_per_min),
        "max_step_w": watt(request.max_step_kw),
        "methods": list(methods),
        "escalation": {"to": request.escalation if sheds else "none", "after_s": request.after_s},
        "restore": {
            "stage_permille": request.restore_stage_permille,
            "stage_delay_s": request.restore_stage_delay_s,
            "max_w_per_min": watt(request.restore_max_kw_per_min),
            "min_mhz": request.restore_min_mhz,
            "ceiling_w": watt(request.restore_ceiling_kw),
        },
        "priority": request.priority,
        "supersedes": request.supersedes,
        "target": request.target,
        "declaration": request.declaration,
        "seen": request.seen,
        "basis": {
            "code": request.basis_code,
            "emergency_id": request.emergency_id,
            "text": request.text,
            "dispatch_no": request.dispatch_no,
            "given_by": request.given_by,
            "dispatch_name": request.dispatch_name,
            "attachment_sha256": request.attachment_sha256,
        },
    }
    try:
        return Order.model_validate_json(canonical.encode(_without_none(body)))
    except ValidationError as error:
        raise ComposeError(_first(error)) from None
    except NotCanonical as error:
        raise ComposeError(str(error)) from None


def _methods(request: OrderRequest) -> tuple[Method, ...]:
    # Actions that are about switches cannot be carried out by sleeping machines.
    if request.action in {"open_feeders", "emergency_trip"}:
        return ("switch",)
    # Escalation brings its own switches; as a method they would be used from the start.
    return ("sleep",)


def _without_none(body: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in body.items()
        if value is not None
    }
