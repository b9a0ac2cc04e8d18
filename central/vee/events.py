"""V23: a meter's own event counters that moved without a signed event of the site that explains it. Pure.

What a meter does by itself (its clock set over the air, say) is told too where its counter counts it and nobody
declared it: then the declaration is what lacks.
"""

from __future__ import annotations

from collections.abc import Iterator

from central.vee.model import Bind, Finding, Point, Said, Severity, SiteSlots, Slot, Unjudged

SEVERITY: dict[str, Severity] = {
    "power_off": "warn",
    "clock_set": "suspect",
    "programmed": "suspect",
    "cover_open": "suspect",
    "phase_loss": "warn",
    "reset": "suspect",
}
TEXTS = {event: f"event_{event}" for event in SEVERITY}
"""Event → key of the explanation where its counter moved on."""
DARK = frozenset({"DE_ENERGISED", "NO_POWER"})
MARGIN_MS = 60_000
"""Counters are read after the registers: what happened so long after the end of a slot may be in them."""


def events(site: SiteSlots, _limits: object) -> Iterator[Said]:
    """V23: each counter against the reading before of the same meter, history included."""
    for point in site.points.values():
        judged = False
        last: dict[str, Slot] = {}
        meter: Bind | None = None
        for slot in point.slots:
            if not slot.events:
                continue
            bind = point.bind_of(slot)
            if not _same(meter, bind):
                last.clear()
            meter = bind
            for event, count in slot.events.items():
                before = last.get(event)
                last[event] = slot
                if before is None or slot.t0 < site.start or slot.t0 >= site.end:
                    continue
                judged = True
                if count != before.events[event]:
                    yield from _moved(site, point, event, before, slot)
        if not judged:
            yield Unjudged("V23", point.id, "no_data")


def _same(before: Bind | None, now: Bind | None) -> bool:
    """True where both name one meter: the same bind, or a later one of the same serial number."""
    if before is None or now is None:
        return before is now
    return before.hash == now.hash or (before.sn is not None and before.sn == now.sn)


def _moved(site: SiteSlots, point: Point, event: str, before: Slot, now: Slot) -> Iterator[Finding]:
    was, count = before.events[event], now.events[event]
    fell = count < was
    if _explained(site, point, before, now) or (event == "power_off" and not fell and _dark(site, point, before, now)):
        return
    yield Finding(
        "V23", "suspect" if fell else SEVERITY[event], point.id, now.t0, now.t1, count, was, "count",
        "event_fell" if fell else TEXTS[event],
        params={"event": event, "since": before.t1}, evidence=(before.hash, now.hash),
    )  # fmt: skip


def _explained(site: SiteSlots, point: Point, before: Slot, now: Slot) -> bool:
    """True where people declared work on the meter, its node or its point in that time."""
    bind = point.bind_of(now)
    names = {point.id} | ({bind.device, bind.node} if bind is not None else set())
    since, until = before.t1 * 1000, now.t1 * 1000 + MARGIN_MS
    return any(work.object in names and work.from_ms < until and work.to_ms > since for work in site.works)


def _dark(site: SiteSlots, point: Point, before: Slot, now: Slot) -> bool:
    """True where the site says why the meter was without supply: a gap for that reason, or its own switch opened."""
    gaps = (s for s in point.slots if s.ty == "gap" and before.t1 <= s.t0 < now.t1)
    if any(gap.why in DARK or gap.switch is not None for gap in gaps):
        return True
    bind = point.bind_of(now)
    since, until = before.t1 * 1000, now.t1 * 1000 + MARGIN_MS
    opened = (e for e in site.switched if e.now == "open" and bind is not None and e.switch == bind.node)
    return any(since <= e.at_ms < until for e in opened)
