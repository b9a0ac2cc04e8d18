"""The order of one site of a plan: a limit, with the mandate inside, on the plan's terms."""

from __future__ import annotations

from pydantic import ValidationError

from grid.errors import GridError
from grid.gateway.checks import Powers
from grid.gateway.pace import Turn
from grid.gateway.plan import Plan
from grid.ordering import current_epoch
from wire import canonical
from wire.orders import Order, uuid7
from wire.registry import KeysDocument, Zone


def return_part(register: KeysDocument, zone: Zone, contracted_w: int) -> int | None:
    """A site's part of its zone's return, W per minute, so that all released at once stay below it; ``None``: the
    register sets the zone no bound."""
    if zone.max_return_w_per_min is None:
        return None
    contracted = sum(site.contracted_w for site in register.sites if site.zone == zone.id)
    return max(1, zone.max_return_w_per_min * contracted_w // max(1, contracted))


def site_order(
    plan: Plan, powers: Powers, turn: Turn, register: KeysDocument, *, seq: int, now_ms: int, seen: str | None = None
) -> Order:
    """The order for a turn; ``seen`` is the newest checkpoint of the site's log that the gateway knows.

    Raises:
        GridError: the register has no epoch of the site, or the fields make no order.
    """
    member = turn.member
    zone = powers.zone(member.zone)
    execute_by = now_ms + plan.begin_within_s * 1000
    restore = plan.restore.model_dump(mode="json", exclude_none=True)
    part = return_part(register, zone, member.contracted_w)
    if part is not None:
        restore["max_w_per_min"] = min(part, plan.restore.max_w_per_min or part)
    if member.seen.net_w is None:
        raise GridError(f"site {member.site}: its power is not known, so no limit can be given")
    body = {
        "v": 1,
        "id": uuid7(now_ms),
        "site": member.site,
        "epoch": current_epoch(register, member.site),
        "seq": seq,
        "action": "limit",
        "limit_w": max(member.seen.net_w - turn.cut_w, member.seen.floor_w),
        "issued_at": now_ms,
        "execute_by": execute_by,
        "expires_at": max(execute_by, plan.hold.until or 0),
        "hold": plan.hold.model_dump(mode="json", exclude_none=True),
        "ramp_w_per_min": turn.ramp,
        "max_step_w": powers.max_step_w(zone),
        "methods": list(plan.methods),
        "escalation": plan.escalation.model_dump(mode="json"),
        "restore": restore,
        "priority": plan.priority,
        "mandate": powers.mandate_text,
        "basis": plan.basis.model_dump(mode="json", exclude_none=True),
    }
    if member.given is not None:
        body["supersedes"] = member.given.signed.order.id
    if seen is not None:
        body["seen"] = seen
    if powers.declaration_text is not None:
        body["declaration"] = powers.declaration_text
    try:
        return Order.model_validate_json(canonical.encode(body))
    except ValidationError as error:
        first = error.errors()[0]
        raise GridError(f"site {member.site}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
