"""What a plan would do, before it is handed over; and where a plan stands, from the journal."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from grid.errors import GridError
from grid.gateway.checks import check_plan, check_step
from grid.gateway.dispatcher import Central
from grid.gateway.inbox import Handed
from grid.gateway.journal import Journal
from grid.gateway.members import Member
from grid.gateway.pace import shares_of
from grid.gateway.run import JOURNAL
from grid.gateway.view import read_view
from wire.registry import KeysDocument
from wire.states import OrderState

OVER = frozenset({OrderState.REJECTED, OrderState.EXPIRED, OrderState.CANCELLED, OrderState.DONE})


def preview(handed: Handed, kid: str, register: KeysDocument, central: Central, now_ms: int) -> dict[str, Any]:
    """Shares of a plan as they would be now.

    Raises:
        PlanRefused: it may not be carried out; the message says why and what to do.
        CentralUnreachable: nobody knows what the sites draw.
    """
    plan = handed.plan
    powers = check_plan(plan, handed.mandate, handed.declaration, kid=kid, register=register, now_ms=now_ms)
    sites = {site.id: site for site in register.sites if site.zone in plan.zones}
    wanted = plan.target.model_dump(exclude_none=True) | {"method": list(plan.methods)}
    asked = central.shares(plan.zones, ramp_w_per_min=plan.ramp_w_per_min, max_cut_w=powers.max_cut_w, **wanted)
    view = read_view(asked, sites)
    members = [Member(name, site.zone, site.contracted_w, view.sites[name]) for name, site in sorted(sites.items())]
    total = sum(member.power_w for member in members)
    target = plan.target.total_w if plan.target.total_w is not None else total * (plan.target.permille or 0) // 1000
    shares = shares_of(members, powers, total - target)
    zones: dict[str, int] = {}
    for member in members:
        zones[member.zone] = zones.get(member.zone, 0) + shares[member.site]
    check_step(plan, powers, zones)
    return {
        "plan": plan.id,
        "total_w": total,
        "target_w": target,
        "missing_w": max(0, total - target - sum(shares.values())),
        "central": list(view.objections),
        "sites": [
            {
                "site": member.site,
                "power_w": member.power_w,
                "measured": member.seen.net_w is not None,
                "share_w": shares[member.site],
                "why": member.seen.why_not,
                "phone": member.seen.phone,
            }
            for member in members
        ],
    }


def story(folder: Path, plan_id: str | None) -> dict[str, Any]:
    """Where a plan stands.

    Raises:
        GridError: no such plan.
    """
    path = folder / JOURNAL
    if not path.exists():
        raise GridError(f"{path}: no gateway has run there yet")
    with contextlib.closing(Journal(path)) as journal:
        plans = journal.plans()
        found = next((plan for plan in plans if plan_id is None or plan.id == plan_id), None)
        if found is None:
            raise GridError(
                f"plan {plan_id or ''}: not known here; known are {', '.join(p.id for p in plans) or 'none'}"
            )
        orders = journal.issued(found.id)
        said = journal.said(found.id)
    # What the site never received is named as well: it may still have arrived.
    standing = [order for order in orders if not order.replaced and order.state not in OVER]
    return {
        "plan": found.id,
        "state": found.state,
        "text": found.text,
        "started_ms": found.started_ms,
        "total_w": found.total_w,
        "target_w": found.target_w,
        "said": [{"at": s.at, "site": s.site, "code": s.code, "text": s.text} for s in said],
        "orders": [
            {"order": o.id, "site": o.site, "limit_w": o.limit_w, "state": o.state, "replaced": o.replaced}
            for o in orders
        ],
        "release": [{"site": order.site, "order": order.id} for order in standing],
    }
