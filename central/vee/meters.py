"""V13 to V16, V19: clock, identity, ratios and units of a meter, and the check meter. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from central.vee.limits import Thresholds
from central.vee.model import Bind, Finding, Point, Said, SiteSlots, Slot, Unjudged, of_run, runs
from central.vee.values import quantum, read
from config.rules.passports import ratio_agrees

HOUR_MS = 3_600_000


def clock(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V13: the meter's own clock; whole hours away is another time zone."""
    rule = limits.meters
    for point in site.points.values():
        told = [s for s in read(site, point) if s.mto is not None]
        if not told:
            yield Unjudged("V13", point.id, "no_data")
        for run in runs(s for s in told if abs(s.mto or 0) > rule.clock_warn_ms):
            worst = max(run, key=lambda s: abs(s.mto or 0))
            away = abs(worst.mto or 0)
            hours, rest = divmod(away + rule.clock_fail_ms, HOUR_MS)
            zone = 1 <= hours <= 14 and rest <= 2 * rule.clock_fail_ms
            fails = away > rule.clock_fail_ms
            yield of_run(
                "V13", "fail" if fails else "warn", point.id, run, worst.mto,
                rule.clock_fail_ms if fails else rule.clock_warn_ms, "ms", "clock_zone" if zone else "clock",
            )  # fmt: skip


def identity(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V14: the serial number that was read, against register and bind."""
    for point in site.points.values():
        wanted = point.registered.serial if point.registered is not None else None
        bad: list[Slot] = []
        judged = False
        for slot in read(site, point):
            bind = point.bind_of(slot)
            expected = wanted or (bind.sn if bind else None)
            if slot.sn is None or expected is None:
                continue
            judged = True
            if slot.sn != expected:
                bad.append(slot)
        if not judged:
            yield Unjudged("V14", point.id, "no_data" if site.registered else "no_register")
        for run in runs(bad):
            bind = point.bind_of(run[0])
            expected = wanted or (bind.sn if bind else None) or ""
            yield of_run(
                "V14", "fail", point.id, run, None, None, "", "serial",
                was_read=str(run[0].sn)[:64], registered=expected[:64],
            )  # fmt: skip


def ratios(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V15: transformer ratios of bind, register and meter."""
    for point in site.points.values():
        entry = point.registered
        if entry is None:
            yield Unjudged("V15", point.id, "no_register")
            continue
        wanted = Fraction(entry.ct_num, entry.ct_den), Fraction(entry.vt_num, entry.vt_den)
        bad: list[Slot] = []
        for slot in read(site, point):
            bind = point.bind_of(slot)
            if bind is not None and ((bind.ct, bind.vt) != wanted or _set_otherwise(bind)):
                bad.append(slot)
        for run in runs(bad):
            bind = point.bind_of(run[0])
            seen = f"{bind.ct} {bind.vt}, {bind.ct_read} {bind.vt_read}" if bind else ""
            yield of_run(
                "V15", "fail", point.id, run, None, None, "", "ratio",
                was_bound=seen.replace("None", "?"), registered=f"{wanted[0]} {wanted[1]}",
            )  # fmt: skip


def _set_otherwise(bind: Bind) -> bool:
    return bind.passport is not None and ratio_agrees(bind.passport, bind.ct_read, bind.vt_read) is False


def units(site: SiteSlots, _limits: Thresholds) -> Iterator[Said]:
    """V16: the same meter read by another map than before: another register, encoding or Wh per count."""
    for point in site.points.values():
        binds = sorted(point.binds.values(), key=lambda b: b.n)
        pairs = [(a, b) for a, b in pairwise(binds) if a.sn is not None and a.sn == b.sn]
        if not pairs:
            yield Unjudged("V16", point.id, "no_data")
        for before, now in pairs:
            changed = sorted(name for name in before.pts.keys() & now.pts.keys() if before.pts[name] != now.pts[name])
            used = [s for s in read(site, point) if s.cfg == now.hash]
            # Ratios that the agent multiplies into the map may change with an act; V15 looks at them.
            if changed and used and (before.ct, before.vt) == (now.ct, now.vt):
                yield of_run("V16", "fail", point.id, used, None, None, "", "unit", registers=" ".join(changed)[:200])


def check_meters(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V19: a point against the check meter at the same node, over the slots that both have."""
    checks = {p.newest_bind.node: p for p in site.points.values() if p.newest_bind and p.newest_bind.role == "check"}
    for point in site.points.values():
        bind = point.newest_bind
        if bind is None or bind.role == "check" or bind.node not in checks:
            yield Unjudged("V19", point.id, "no_data")
            continue
        other = checks[bind.node]
        theirs = {s.t0: s for s in read(site, other) if not s.flags}
        both = [(s, theirs[s.t0]) for s in read(site, point) if s.t0 in theirs and not s.flags]
        if len(both) < limits.meters.check_slots:
            yield Unjudged("V19", point.id, "short_history")
            continue
        yield from _compare(point, other, both, limits)


def _compare(point: Point, other: Point, both: list[tuple[Slot, Slot]], limits: Thresholds) -> Iterator[Finding]:
    mine, theirs = sum(a.wh or 0 for a, _ in both), sum(b.wh or 0 for _, b in both)
    run = [a for a, _ in both]
    if mine and all(a.wh == b.wh for a, b in both) and len({a.wh for a, _ in both}) > 1:
        # Two meters never agree to the Wh in every slot: one of them is not a measurement of its own.
        yield of_run("V19", "suspect", point.id, run, mine, theirs, "wh", "check_identical", other=other.id)
        return
    error = math.hypot(_class(point.newest_bind, limits), _class(other.newest_bind, limits))
    coarse = (quantum(point, both[-1][0]) or 0) + (quantum(other, both[-1][1]) or 0)
    if abs(mine - theirs) > error * max(mine, theirs) + coarse:
        yield of_run("V19", "suspect", point.id, run, mine, theirs, "wh", "check_differs", other=other.id)


def _class(bind: Bind | None, limits: Thresholds) -> float:
    """Limit of error as a share: meter and transformers by their classes; the default where one is not written down."""
    passport = bind.passport if bind else None
    parts = [passport.accuracy_class] if passport else [None]
    parts += [r.accuracy_class for r in (passport.ct, passport.vt) if r is not None] if passport else []
    found = [share(text) for text in parts]
    if any(one is None for one in found):
        return limits.meters.check_class / 1000
    return 1.1 * math.sqrt(sum((one or 0) ** 2 for one in found))


def share(accuracy_class: str | None) -> float | None:
    """``0.5S`` → 0.005; ``None`` where the text is no class."""
    try:
        value = float((accuracy_class or "").rstrip("SsPpАа ").replace(",", "."))
    except ValueError:
        return None
    return value / 100 if 0 < value <= 5 else None
