"""V17: phases of a meter that are lost, carry current without voltage, run backwards, or are far from each other. Pure.

What was read by phase is a check, no register: a finding here never changes a number. An earth fault in a network whose
neutral is not earthed looks like a lost phase where the voltage is measured to earth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from central.vee.limits import PhaseLimits, Thresholds
from central.vee.model import Finding, Phases, Point, Said, SiteSlots, Slot, Unjudged, of_run, runs
from central.vee.values import read

PHASES = range(3)


def phases(site: SiteSlots, limits: Thresholds) -> Iterator[Said]:
    """V17, phase by phase; what one kind of fault explains is not told as another one again."""
    rule = limits.phases
    for point in site.points.values():
        if rule is None:
            yield Unjudged("V17", point.id, "no_threshold")
            continue
        told = [s for s in read(site, point) if s.phases is not None and s.phases.n >= rule.polls]
        if not any(_comparable(s.phases) for s in told if s.phases is not None):
            yield Unjudged("V17", point.id, "no_data")
            continue
        yield from _judged(point, told, rule)


def _comparable(found: Phases) -> bool:
    """True where at least two phases can be held against each other."""
    return any(sum(one is not None for one in three) > 1 for three in (found.u_mv, found.i_ma, found.p_w))


def _judged(point: Point, told: Sequence[Slot], rule: PhaseLimits) -> Iterator[Finding]:
    most = max((_energy(s) for s in point.slots), default=0)
    loaded = {s.t0 for s in told if _energy(s) * 1000 >= most * rule.load and _energy(s) > 0}
    explained: set[tuple[int, int]] = set()
    for phase in PHASES:
        bad = {s.t0: share for s in told if (share := _unfed(s.phases, phase, rule)) is not None}
        explained |= {(t0, phase) for t0 in bad}
        for run in runs(s for s in told if s.t0 in bad):
            yield of_run(
                "V17", "suspect", point.id, run, max(bad[s.t0] for s in run), rule.unfed, "permille", "phase_unfed",
                phase=phase + 1,
            )  # fmt: skip
    for phase in PHASES:
        left = [s for s in told if (s.t0, phase) not in explained]
        bad = {s.t0: share for s in left if (share := _lost(s, phase, rule)) is not None}
        explained |= {(t0, phase) for t0 in bad}
        for run in runs(s for s in left if s.t0 in bad):
            yield of_run(
                "V17", "suspect", point.id, run, min(bad[s.t0] for s in run), rule.loss, "permille", "phase_lost",
                phase=phase + 1,
            )  # fmt: skip
    for phase in PHASES:
        bad = {s.t0: share for s in told if s.t0 in loaded and (share := _backwards(s.phases, phase, rule)) is not None}
        for run in runs(s for s in told if s.t0 in bad):
            yield of_run(
                "V17", "suspect", point.id, run, max(bad[s.t0] for s in run), rule.backwards, "permille",
                "phase_backwards", phase=phase + 1,
            )  # fmt: skip
    unlike = {s.t0: share for s in told if s.t0 in loaded and (share := _unbalance(s.phases)) is not None}
    known = {t0 for t0, _ in explained}
    for run in runs(s for s in told if unlike.get(s.t0, 0) > rule.unbalance and s.t0 not in known):
        if len(run) >= rule.unbalance_slots:
            worst = max(unlike[s.t0] for s in run)
            yield of_run("V17", "warn", point.id, run, worst, rule.unbalance, "permille", "phase_unbalance")


def _energy(slot: Slot) -> int:
    return max(slot.wh or 0, slot.exp_wh or 0)


def _unfed(found: Phases | None, phase: int, rule: PhaseLimits) -> int | None:
    """Share of the polls in which a phase carried current without voltage."""
    share = 0 if found is None else found.unfed[phase] * 1000 // found.n
    return share if share >= rule.unfed else None


def _lost(slot: Slot, phase: int, rule: PhaseLimits) -> int | None:
    """Least voltage of a phase against the median of the others', while anything flowed."""
    found = slot.phases
    if found is None or not (_energy(slot) or any(found.i_ma)):
        return None
    own = found.u_mv[phase]
    others = [mv for k, mv in enumerate(found.u_mv) if k != phase and mv is not None]
    if own is None or not others or not sum(others):
        return None
    share = own * 1000 * len(others) // sum(others)
    return share if share < rule.loss else None


def _backwards(found: Phases | None, phase: int, rule: PhaseLimits) -> int | None:
    """Share of the polls in which the power of a phase ran against the sum; a trickle is none."""
    if found is None:
        return None
    power, share = found.p_w[phase], found.backwards[phase] * 1000 // found.n
    total = sum(abs(w) for w in found.p_w if w is not None)
    if power is None or abs(power) * 1000 < total * rule.backwards_power:
        return None
    return share if share >= rule.backwards else None


def _unbalance(found: Phases | None) -> int | None:
    """How far one mean current is from the mean of all three, of that mean."""
    known = [] if found is None else [ma for ma in found.i_ma if ma is not None]
    total = sum(known)
    if len(known) < 3 or not total:
        return None
    return max(abs(3 * ma - total) for ma in known) * 1000 // total
