"""Central's knowledge as plain JSON. The pages use the same functions, so that both tell the same."""

from __future__ import annotations

from typing import Any

from central.dispatch import OrderView
from central.history import acknowledged, as_dicts, history
from central.live import FRESH_MS, Freshness, LiveSite
from central.service import CentralService
from central.shares import Proposal, SiteNow
from wire.errors import BadOrder
from wire.keys import b64
from wire.orders import parse_order
from wire.registry import KeysDocument


def site_summary(service: CentralService, site_id: str) -> dict[str, Any]:
    """One site, short."""
    settings, live, now = service.sites[site_id], service.live.sites[site_id], service.now_ms()
    net = live.net(now)
    state = live.state
    register = service.registers.document.site(site_id) if service.registers.document else None
    return {
        "id": site_id,
        "name": settings.name.model_dump(),
        "zone": settings.zone,
        "phone": settings.phone,
        "contracted_w": round(settings.contracted_kw * 1000),
        "emergency_w": round(settings.emergency_kw * 1000),
        "measured_at": settings.measured_at,
        "simulation": bool(state.simulation) if state else bool(register.simulation) if register else False,
        "presence": live.presence(broker_up=service.live.broker_up).value,
        "mode": state.mode if state else None,
        "epoch": state.epoch if state else None,
        "boot": state.boot if state else None,
        "agent_version": state.agent_version if state else None,
        "power_w": net.power_w,
        "age_ms": net.age_ms,
        "freshness": net.freshness.value,
        "limit_w": live.live.limit_w if live.live else None,
        "curtailable": curtailable(live, now),
        "unavailable": dict(live.live.unavailable) if live.live else {},
        "order": live.live.order if live.live else None,
        "alarms": sorted(live.alarms) + (list(live.live.alarms) if live.live else []),
    }


def curtailable(live: LiveSite, now_ms: int) -> dict[str, int | None] | None:
    """What the site says it could take off now, W; null where it does not say, or said it too long ago."""
    if live.live is None or live.live.curtailable is None or live.live_seen_ms is None:
        return None
    return live.live.curtailable.model_dump() if now_ms - live.live_seen_ms <= FRESH_MS else None


def site_detail(service: CentralService, site_id: str, latest: OrderView | None) -> dict[str, Any]:
    """One site with everything that is live of it."""
    live, now = service.live.sites[site_id], service.now_ms()
    return site_summary(service, site_id) | {
        "live": live.live.model_dump(mode="json") if live.live else None,
        "ages": ages(live, now),
        "heads": live.heads.model_dump(mode="json") if live.heads else None,
        "latest_order": order_summary(latest) if latest else None,
    }


def ages(live: LiveSite, now_ms: int) -> dict[str, int | None]:
    """How long ago each kind of message came, ms; null where none did."""

    def age(seen: int | None) -> int | None:
        return None if seen is None else max(0, now_ms - seen)

    return {
        "live_ms": age(live.live_seen_ms),
        "state_ms": age(live.state_seen_ms),
        "heads_ms": age(live.heads_seen_ms),
    }


def order_summary(view: OrderView) -> dict[str, Any]:
    """One order, short."""
    return {
        "id": view.order.id,
        "site": view.order.site,
        "epoch": view.order.epoch,
        "action": view.order.action,
        "mode": _mode(view),
        "posted_at": view.order.posted_at,
        "execute_by": view.order.execute_by,
        "state": view.state.value if view.state else None,
        "signed_state": view.signed_state.value if view.signed_state else None,
        "phase": view.phase.value,
        "delivered": view.delivered_at,
        "not_delivered": view.not_delivered,
        "acknowledged": acknowledged(view),
    }


def _mode(view: OrderView) -> str | None:
    """``live drill proof_test`` as signed; null where the bytes cannot be decoded."""
    try:
        return parse_order(view.order.raw).order.mode
    except BadOrder:
        return None


def order_detail(view: OrderView, phone: str | None, keys: KeysDocument | None) -> dict[str, Any]:
    """One order with its envelope, progress, answers, words of people, and all of them in one history."""
    return order_summary(view) | {
        "digest": view.order.digest,
        "envelope": b64(view.order.raw),
        "progress": [p.model_dump(mode="json") for p in view.progress],
        "answers": [a.line.decode() for a in view.answers],
        "answers_verified": [a.verified for a in view.answers],
        "notes": [b64(n.envelope) for n in view.notes],
        "words": [w.line.decode() for w in view.words],
        "history": as_dicts(history(view, keys)),
        "phone": phone,
    }


def zone_of(service: CentralService, site_id: str) -> str:
    """The zone of a site: the register's word, else the settings'."""
    entry = service.registers.document.site(site_id) if service.registers.document else None
    return entry.zone if entry else service.sites[site_id].zone


def site_now(service: CentralService, site_id: str) -> SiteNow:
    """What a proposal of shares is made from. The larger of two reservations counts."""
    settings, live, now = service.sites[site_id], service.live.sites[site_id], service.now_ms()
    entry = service.registers.document.site(site_id) if service.registers.document else None
    net, said, inventory = live.net(now), live.live, live.inventory
    claimed = inventory.emergency_w if inventory and inventory.emergency_w is not None else 0
    registered = entry.emergency_w if entry else round(settings.emergency_kw * 1000)
    return SiteNow(
        id=site_id,
        zone=zone_of(service, site_id),
        presence=live.presence(broker_up=service.live.broker_up).value,
        mode=live.state.mode if live.state else None,
        net_w=net.power_w if net.freshness is Freshness.FRESH else None,
        age_ms=net.age_ms,
        last_w=said.net_w if said else None,
        contracted_w=entry.contracted_w if entry else round(settings.contracted_kw * 1000),
        floor_w=max(claimed, registered),
        mining_w=said.mining_w if said else None,
        awake=said.asics_hashing if said else None,
        outputs_usable=sum(inventory.outputs.values()) if inventory else None,
        limit_w=said.limit_w if said else None,
    )


def proposal(service: CentralService, found: Proposal) -> dict[str, Any]:
    """Shares of a target as JSON. Unsigned, and says so."""
    return {
        "signed": False,
        "total_w": found.total_w,
        "known_w": found.known_w,
        "target_w": found.target_w,
        "cut_w": found.cut_w,
        "shortfall_w": found.shortfall_w,
        "objections": list(found.objections),
        "sites": [
            {
                "id": share.site.id,
                "zone": share.site.zone,
                "phone": service.sites[share.site.id].phone,
                "presence": share.site.presence,
                "mode": share.site.mode,
                "net_w": share.site.net_w,
                "age_ms": share.site.age_ms,
                "at": live.live.at if (live := service.live.sites[share.site.id]).live else None,
                "last_w": share.site.last_w,
                "floor_w": share.site.floor_w,
                "limit_now_w": share.site.limit_w,
                "available_w": share.available_w,
                "share_w": share.share_w,
                "limit_w": share.limit_w,
                "left_out": share.code,
                "why": share.why,
            }
            for share in found.shares
        ],
    }
