"""V04 to V09: is a slot's energy possible? Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from central.vee.limits import Thresholds
from central.vee.model import IMPORT, Bind, Point, Said, SiteSlots, Slot, Unjudged, of_run, runs
from wire.energy import quantum_wh
from wire.errors import BadRecord


def read(site: SiteSlots, point: Point) -> list[Slot]:
    """Intervals of the judged time."""
    return [s for s in site.judged(point) if s.ty == "interval" and s.wh is not None]


def quantum(point: Point, slot: Slot) -> int | None:
    """The least the import register can move by, whole Wh upwards; ``None`` where its map is not known."""
    bind, bits = point.bind_of(slot), slot.reg.get(IMPORT)
    if bind is None or bits is None or IMPORT not in bind.pts:
        return None
    try:
        found = quantum_wh(bits[1], bind.pts[IMPORT])
    except BadRecord:
        return None
    return None if found is None else math.ceil(found)


def negative(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V04: energy below zero, or a register that was found set back."""
    for point in site.points.values():
        for slot in site.judged(point):
            if slot.wh is not None and slot.wh < 0:
                yield of_run("V04", "fail", point.id, [slot], slot.wh, 0, "wh", "negative")
            elif slot.why == "COUNTER_RESET":
                yield of_run("V04", "fail", point.id, [slot], None, None, "", "counter_reset")


def rollover(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V05: a register that ran over; one that would stand for more than can have flowed is no rollover."""
    for point in site.points.values():
        if site.contracted_w is None:
            yield Unjudged("V05", point.id, "no_register")
            continue
        for slot in read(site, point):
            most = site.contracted_w * (slot.t1 - slot.t0) * limits.slots.rollover_over_contract // 3_600_000
            if "rollover" in slot.flags and (slot.wh or 0) > most:
                yield of_run("V05", "fail", point.id, [slot], slot.wh, most, "wh", "rollover")


def high(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V06: more than contracted at the boundary, or than transformers and meter are made for."""
    for point in site.points.values():
        judged = False
        over: list[tuple[Slot, int]] = []
        for slot in read(site, point):
            most = _most(site, point.bind_of(slot), limits)
            judged = judged or most is not None
            if most is not None and (slot.wh or 0) > most * (slot.t1 - slot.t0) // 3600:
                over.append((slot, most * (slot.t1 - slot.t0) // 3600))
        if not judged:
            yield Unjudged("V06", point.id, "no_passport")
        bounds = {slot.t0: most for slot, most in over}
        for run in runs(slot for slot, _ in over):
            worst = max(run, key=lambda s: s.wh or 0)
            yield of_run("V06", "fail", point.id, run, worst.wh, bounds[worst.t0], "wh", "high")


def _most(site: SiteSlots, bind: Bind | None, limits: Thresholds) -> int | None:
    """Most power in W that can be, by contract and by ratings; ``None`` where neither is known."""
    found: list[float] = []
    if bind is not None and bind.boundary and site.contracted_w is not None:
        found.append(site.contracted_w * limits.slots.high_over_contract / 1000)
    passport = bind.passport if bind else None
    if passport is not None:
        if passport.ct is not None and passport.vt is not None:
            rated = math.sqrt(3) * passport.ct.num * passport.vt.num
            found.append(rated * limits.slots.high_over_rating / 1000)
        if passport.nominal_kw is not None:
            found.append(passport.nominal_kw * limits.slots.high_over_rating)
    return math.ceil(min(found)) if found else None


def zero(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V07: nothing counted while machines draw power by their own figures, or the meter's power says otherwise."""
    machines = {(b.t0, p): m for b in site.balances for p, m in b.asic.items()}
    for point in site.points.values():
        bad: list[Slot] = []
        witnesses = 0
        for slot in read(site, point):
            own = machines.get((slot.t0, point.id))
            drawn = own.wh if own is not None and own.seen else None
            witnesses += drawn is not None or slot.pi_wh is not None
            coarse = quantum(point, slot) or 0
            if slot.wh == 0 and max(drawn or 0, slot.pi_wh or 0) > max(coarse, 1):
                bad.append(slot)
        if not witnesses:
            yield Unjudged("V07", point.id, "no_data")
        for run in runs(bad):
            expected = max((machines[s.t0, point.id].wh or 0) if (s.t0, point.id) in machines else 0 for s in run)
            expected = max(expected, *(s.pi_wh or 0 for s in run))
            yield of_run("V07", "suspect", point.id, run, 0, expected, "wh", "zero")


def spikes(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V08: one slot far above its neighbours and the point's usual load, with no order, switch or start near it.

    A moment of full load between two outages is far above its neighbours and no spike. A slot is judged once neighbours
    on both sides are there, as a load that returns in the last minutes of a day is no spike either: what is judged lies
    earlier by that many slots.
    """
    rule = limits.slots
    wait = rule.spike_around * site.slot_s
    explained = {ms // 1000 // site.slot_s for ms in site.disturbed_ms}
    for point in site.points.values():
        every = [s for s in point.slots if s.wh is not None and s.bridge_wh is None]
        judged = False
        level = median(s.wh or 0 for s in every) if every else 0
        for at, slot in enumerate(every):
            if not site.start - wait <= slot.t0 < site.end - wait:
                continue
            before = [s.wh or 0 for s in every[max(0, at - rule.spike_around) : at] if s.t0 >= slot.t0 - wait]
            after = [s.wh or 0 for s in every[at + 1 : at + 1 + rule.spike_around] if s.t0 <= slot.t0 + wait]
            if min(len(before), len(after)) * 2 < rule.spike_around:
                continue
            around = before + after
            judged = True
            near = median(around)
            usual = max(near, level)
            spread = max(
                1.4826 * median(abs(wh - near) for wh in around),
                usual * rule.spike_floor / 1000,
                quantum(point, slot) or 1,
            )
            place = slot.t0 // site.slot_s
            if (slot.wh or 0) - usual > rule.spike_z * spread and not any(
                p in explained for p in range(place - rule.explained_slots, place + rule.explained_slots + 1)
            ):
                limit = round(usual + rule.spike_z * spread)
                yield of_run("V08", "suspect", point.id, [slot], slot.wh, limit, "wh", "spike", usual=round(usual))
        if not judged:
            yield Unjudged("V08", point.id, "short_history")


def frozen(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V09: the register stood still against its power, or the same energy again and again while power changed."""
    for point in site.points.values():
        slots = read(site, point)
        if not any(s.pi_wh is not None for s in slots):
            yield Unjudged("V09", point.id, "no_data")
            continue
        for run in runs(s for s in slots if "frozen" in s.flags):
            yield of_run("V09", "suspect", point.id, run, 0, max(s.pi_wh or 0 for s in run), "wh", "frozen")
        for run in runs(s for s in slots if s.wh):
            yield from _equal(point, run, limits.slots.frozen_run)


def _equal(point: Point, run: list[Slot], least: int) -> Iterator[Said]:
    first = 0
    for at in range(1, len(run) + 1):
        if at < len(run) and run[at].wh == run[first].wh:
            continue
        same = run[first:at]
        own = [s.pi_wh for s in same if s.pi_wh is not None]
        moved = max(own) - min(own) if own else 0
        if len(same) >= least and moved > 2 * (quantum(point, same[0]) or 1):
            yield of_run("V09", "suspect", point.id, same, len(same), least - 1, "count", "equal", moved=moved)
        first = at
