"""How an order was obeyed, recomputed from the trace and the meter's slots: this program's own arithmetic.

``docs/protocol.md`` defines the figures. Power over time is a sum of rectangles: each sample stands until the next,
15 s at most. All divisions round down.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from verifier.canonical import Object
from verifier.schedule import LISTED, plan_of, worst
from verifier.supply import MAX_POINTS, Supply, listed, rows_of, share

STANDS_MS, LATE_MS, MAX_DUTY_MS = 15_000, 60_000, 400 * 86_400_000
OVER = frozenset({"restoring", "superseded", "done", "cancelled", "expired"})
REASONS = frozenset({"tag", "unsafe_cooling", "not_commissioned", "local_override", "saon"})
STATES = OVER | {"validated", "scheduled", "armed", "executing", "verifying", "holding", "failed", "restore_blocked"}
Slots = Sequence[tuple[int, int, int | None]]
"""(begin, end in epoch s, import minus export in Wh or null)."""


@dataclass(slots=True)
class Curve:
    """The trace of one order."""

    points: list[tuple[int, int | None]] = field(default_factory=list)
    switches: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    states: list[tuple[int, str]] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    parts: int = 0
    point: str | None = None
    supply: Supply = field(default_factory=Supply)
    batteries: dict[str, Curve] = field(default_factory=dict)
    _edges: list[int] = field(default_factory=list)
    _energy: list[int] = field(default_factory=list)
    _known: list[int] = field(default_factory=list)
    _rates: list[tuple[int, int]] = field(default_factory=list)

    def take(self, doc: Object) -> None:
        """Add a part.

        Raises:
            ValueError: it is not the next one, or not what a trace holds.
        """
        t0, steps, watts, codes = doc.get("t0"), *(_listed(doc, name) for name in ("dt", "w", "q"))
        if type(t0) is not int or any(type(n) is not int for n in (*steps, *codes)):
            raise ValueError("t0, dt and q of a trace are whole numbers")
        if any(w is not None and type(w) is not int for w in watts):
            raise ValueError("powers of a trace are whole W or null")
        if len(steps) != len(watts) or len(codes) not in {0, len(watts)}:
            raise ValueError("dt, w and q of a trace have different lengths")
        if any(code and w is not None for code, w in zip(codes, watts, strict=False)):
            raise ValueError("a sample of bad quality has a power")
        if doc.get("part") != self.parts or not isinstance(doc.get("point"), str):
            raise ValueError(f"part {str(doc.get('part'))[:20]}, expected {self.parts} of a named point")
        if self.point not in {None, doc["point"]}:
            raise ValueError(f"is of point {doc['point'][:60]}, its trace began at {self.point}")
        notes = [self._notes(_listed(doc, name), width) for name, width in (("pos", 3), ("states", 2), ("why", 3))]
        self.supply.take(doc, t0)
        for one in listed(doc, "bat"):
            self._battery(t0, one)
        self.parts, self.point, self._edges = self.parts + 1, doc["point"], []
        at = t0
        for step, watt in zip(steps, watts, strict=True):
            at += step
            if not self.points or self.points[-1][0] < at:
                self.points.append((at, watt))
        for after, name, position in notes[0]:
            self.switches.setdefault(name, []).append((doc["t0"] + after, position))
        self.states.extend((doc["t0"] + after, state) for after, state in notes[1])
        self.reasons.update(code for _, _, code in notes[2])
        if not {state for _, state in self.states} <= STATES or not self.reasons <= REASONS:
            raise ValueError("a state or a reason that is not in the contract")

    def _battery(self, t0: int, one: Object) -> None:
        if not isinstance(one.get("mp"), str) or len(self.batteries) > MAX_POINTS:
            raise ValueError(f"bat of a trace names points, at most {MAX_POINTS}")
        own = self.batteries.setdefault(one["mp"], Curve())
        own._edges = []
        for at, (watt,) in rows_of(t0, one.get("dt"), [one.get("w")]):
            if not own.points or own.points[-1][0] < at:
                own.points.append((at, watt))

    @staticmethod
    def _notes(rows: list[Any], width: int) -> list[list[Any]]:
        shape = (int, str, str)[:width]
        if any(not isinstance(row, list) or tuple(map(type, row)) != shape for row in rows):
            raise ValueError("pos, states and why of a trace are lists of time and texts")
        return rows

    def end(self, begin: int) -> int:
        """When the duty was over."""
        over = next((at for at, state in self.states if state in OVER), None)
        if over is None:
            over = max([begin] + [at for at, _ in self.points[-1:]] + [at for at, _ in self.states[-1:]])
        return max(begin, over)

    def _build(self) -> None:
        """Rectangles as running sums: edges, energy and known time up to each edge, and what follows it."""
        edges: list[int] = []
        rates: list[tuple[int, int]] = []
        for number, (at, watt) in enumerate(self.points):
            edges.append(at)
            rates.append((0, 0) if watt is None else (watt, 1))
            follows = self.points[number + 1][0] if number + 1 < len(self.points) else None
            if watt is not None and (follows is None or follows > at + STANDS_MS):
                edges.append(at + STANDS_MS)
                rates.append((0, 0))
        widths = [b - a for a, b in pairwise(edges)]
        self._edges, self._rates = edges, rates
        self._energy = [0, *accumulate(width * rate for width, (rate, _) in zip(widths, rates, strict=False))]
        self._known = [0, *accumulate(width * one for width, (_, one) in zip(widths, rates, strict=False))]

    def _until(self, at: int) -> tuple[int, int]:
        i = bisect_right(self._edges, at) - 1
        if i < 0:
            return 0, 0
        rate, one = self._rates[i]
        return self._energy[i] + (at - self._edges[i]) * rate, self._known[i] + (at - self._edges[i]) * one

    def mean(self, begin: int, end: int) -> int | None:
        """Mean power; null where not three quarters of the time are known."""
        if not self.points:
            return None
        if not self._edges:
            self._build()
        (e0, k0), (e1, k1) = self._until(begin), self._until(end)
        return None if k1 == k0 or (k1 - k0) * 4 < (end - begin) * 3 else (e1 - e0) // (k1 - k0)

    def between(self, begin: int, end: int) -> list[tuple[int, int | None]]:
        """Samples in [begin, end)."""
        return self.points[bisect_left(self.points, (begin,)) : bisect_left(self.points, (end,))]


def _listed(doc: Object, name: str) -> list[Any]:
    found = doc.get(name)
    if not isinstance(found, list):
        raise ValueError(f"{name} of a trace is a list")
    return found


@dataclass(frozen=True, slots=True)
class Duty:
    """An accepted order: its own fields, and what was fixed when it came."""

    order: Object
    received: int
    before: int | None
    target: int | None

    @property
    def begin(self) -> int:
        """When the duty began, ms."""
        return max(self.received, self.order.get("not_before") or 0)

    @property
    def after_s(self) -> int:
        """Time to the target without the site's technological time, s."""
        seconds = int((self.order.get("escalation") or {}).get("after_s", 60))
        ramp = self.order.get("ramp_w_per_min") or 0
        if ramp > 0 and self.before is not None and self.target is not None and self.before > self.target:
            seconds += (self.before - self.target) * 60 // ramp
        return seconds

    def ordered(self, contracted_w: int) -> int | None:
        """Power that the order's own words ask for."""
        order = self.order
        permille = order.get("permille")
        amount = order.get("limit_w" if order.get("action") == "limit" else "reduce_w")
        amount = contracted_w * permille // 1000 if permille is not None else amount
        if amount is None or order.get("action") not in {"limit", "reduce"}:
            return None
        if order["action"] == "limit":
            return int(amount)
        return None if self.before is None else self.before - int(amount)


def recompute(
    duty: Duty,
    curve: Curve,
    slots: Slots,
    taken: set[int],
    *,
    contracted_w: int,
    grace_s: int,
    slot_s: int,
    floor_w: object = None,
) -> Object:
    """What the report has to say, without ``slots_n``.

    Args:
        taken: days since 1970 in UTC+5 with traces of other orders.
        floor_w: as the report of a schedule states it.

    Raises:
        ValueError: an order that lasted longer than any does.
    """
    order, begin, before, target = duty.order, duty.begin, duty.before, duty.target
    end = curve.end(begin)
    if end - begin > MAX_DUTY_MS or begin > 10**14:
        raise ValueError("lasts longer than 400 days")
    tolerance, basis = order.get("tolerance_w", 0), order.get("limit_basis", "instant_1min")
    first = begin + grace_s * 1000
    plan = plan_of(order, floor_w)
    starts, step, name = _starts(basis, slot_s, first, end)
    judged = starts
    if plan is not None and name == "1min":
        late = int((order.get("escalation") or {}).get("after_s", 60))
        judged = plan.judged(starts, begin_ms=begin, after_s=late, ramp=order.get("ramp_w_per_min") or 0)
    method, powers = _powers(curve, slots, starts, step, name)
    windows = [(at, powers[at]) for at in judged]
    known = [(w, target if plan is None else plan.allowed(at)) for at, w in windows if w is not None]
    due = [(w, limit) for w, limit in known if limit is not None]
    lost = len(windows) - len(known)
    met = [w for w, limit in due if _met(w, before, limit, tolerance)]
    cut = before - target if before is not None and target is not None and before > target else None
    cuts = [(max(0, before - limit), max(0, before - w)) for w, limit in due] if before is not None else []
    asked, given = sum(ordered for ordered, _ in cuts), sum(min(pair) for pair in cuts)
    excess = [w - limit - tolerance for w, limit in due if w > limit + tolerance]
    later = [w for at, w in curve.points if at > end and w is not None]
    reasons = set(curve.reasons)
    if duty.received - order["issued_at"] > LATE_MS:
        reasons.add("not_delivered")
    if (before is None and (target is not None or plan is not None)) or lost * 20 > len(windows):
        reasons.add("no_meter")
    wanted = duty.ordered(contracted_w)
    if (wanted is not None and target is not None and target > wanted) or (plan and plan.raised(judged)):
        reasons.add("reservation")
    minutes = {f"m{k}_w": _minute(curve, begin, end, k) for k in (1, 5, 15)}
    told: Object = {
        "verdict": _verdict(duty, curve, first, end, len(windows), lost, len(known) - len(met)),
    }
    if plan is not None:
        rows = plan.listed(windows, lambda w, limit: _met(w, before, limit, tolerance))
        told |= {"floor_w": plan.floor, "hours": rows[:LISTED]}
        if told["verdict"] != "not_due":
            told["verdict"] = worst(rows)
    if curve.supply.spans:
        told["uq"] = curve.supply.figures(begin, end)
    if curve.batteries and order.get("measured_at", "net_import") == "net_import":
        means = {name: own.mean for name, own in curve.batteries.items()}
        told["storage"] = share(means, windows, before, begin, step)
    return {
        "id": order["id"],
        "basis": basis,
        "method": method,
        "point": curve.point,
        "contracted_w": contracted_w,
        "before_w": before,
        "target_w": target,
        "grace_s": grace_s,
        "begin": begin,
        "end": end,
        "parts": curve.parts,
        "baseline": _baseline(curve, slots, taken, begin, end),
        "delivered_permille": given * 1000 // asked if asked else None,
        "shortfall_wh": sum(excess) * step // 3600 if due else None,
        "t50_ms": None if cut is None else _first(curve, begin, end, 2, cut + 2 * (target or 0)),
        "t90_ms": None if cut is None else _first(curve, begin, end, 10, cut + 10 * (target or 0)),
        "t100_ms": _first(curve, begin, end, 1, target + tolerance) if target is not None else None,
        "mw": minutes,
        "hold_permille": len(met) * 1000 // len(known) if due else None,
        "overshoot_w": max(0, *(limit - w for w, limit in due)) if due else None,
        "rebound_w": max(0, max(later) - before) if later and before is not None else None,
        "missing_permille": lost * 1000 // len(windows) if windows else None,
        "excuses": sorted(reasons),
    } | told


def _met(watt: int, before: int | None, target: int, tolerance: int) -> bool:
    """At most the target and its tolerance; or at most 2 % above and 95 % of the ordered reduction delivered."""
    if watt - target <= tolerance:
        return True
    near = 50 * (watt - target) <= target
    if before is None or before <= target:
        return near
    return near and 20 * (before - watt) >= 19 * (before - target)


def _starts(basis: str, slot_s: int, first: int, end: int) -> tuple[list[int], int, str]:
    """Begin (s) of every whole window between two times (ms), how long each is, and what it is called."""
    step_s, name = {"instant_1min": (60, "1min"), "slot": (slot_s, "slot"), "hour_energy": (3600, "hour")}[basis]
    starts = []
    at = (first + step_s * 1000 - 1) // (step_s * 1000) * step_s
    while (at + step_s) * 1000 <= end:
        starts.append(at)
        at += step_s
    return starts, step_s, name


def _powers(
    curve: Curve, slots: Slots, starts: Sequence[int], step_s: int, name: str
) -> tuple[str, dict[int, int | None]]:
    """(method, begin of each window → mean W)."""
    inside = [slot for slot in slots if starts and starts[0] <= slot[0] < starts[-1] + step_s]
    if name == "1min" or not inside:
        return f"trace_{name}", {s: curve.mean(s * 1000, (s + step_s) * 1000) for s in starts}
    sums = _hours(inside, step_s)
    return f"interval_{name}", {s: sums[s] * 3600 // step_s if s in sums else None for s in starts}


def _hours(slots: Slots, length_s: int) -> dict[int, int]:
    """Energy of each whole stretch of this length, Wh; of a slot told twice the first counts."""
    told: dict[int, tuple[int, int | None]] = {}
    for t0, t1, wh in slots:
        told.setdefault(t0, (t1, wh))
    known: dict[int, list[tuple[int, int]]] = {}
    for t0, (t1, wh) in told.items():
        if wh is not None:
            known.setdefault(t0 - t0 % length_s, []).append((t1 - t0, wh))
    return {at: sum(wh for _, wh in found) for at, found in known.items() if sum(span for span, _ in found) == length_s}


def _first(curve: Curve, begin: int, end: int, times: int, bound: int) -> int | None:
    """When three samples in a row are at most so much: time of the first of them after ``begin``."""
    inside = curve.between(begin, end + 1)
    good = [w is not None and times * w <= bound for _, w in inside]
    return next((inside[i][0] - begin for i in range(len(good) - 2) if all(good[i : i + 3])), None)


def _minute(curve: Curve, begin: int, end: int, number: int) -> int | None:
    since = begin + 60_000 * (number - 1)
    return curve.mean(since, since + 60_000) if since + 60_000 <= end else None


def _verdict(duty: Duty, curve: Curve, first: int, end: int, windows: int, lost: int, bad: int) -> str:
    if windows == 0 or "executing" not in {state for _, state in curve.states}:
        return "not_due"
    if duty.target is not None:
        return "short" if bad * 20 > windows else "unknown" if lost * 20 > windows else "obeyed"
    seen: set[str] = set()
    for feeder in duty.order.get("feeders") or ():
        told = [(at, position) for at, position in curve.switches.get(feeder, ()) if at <= end]
        before = [position for at, position in told if at <= first]
        seen.add(before[-1] if before else "unknown")
        seen.update(position for at, position in told if at > first)
    if seen - {"open", "moving", "unknown"}:
        return "short"
    return "obeyed" if seen == {"open"} else "unknown"


def _baseline(curve: Curve, slots: Slots, taken: set[int], begin: int, end: int) -> Object:
    hours = _hours(slots, 3600)
    found: dict[str, Any] = {"before_after": None, "same_day_3_2": None, "high_4_of_5": None}
    lacking: dict[str, str] = {}
    since, until = begin - 660_000, begin - 60_000
    mean = curve.mean(since, until)
    if mean is None:
        lacking["before_after"] = "too_few_samples"
    else:
        count = len([w for _, w in curve.between(since, until) if w is not None])
        found["before_after"] = {"b_w": mean, "n": count}
    h0, h1 = begin // 3_600_000, (end + 3_599_999) // 3_600_000
    early, late = ([hours.get(3600 * h) for h in span] for span in ((h0 - 4, h0 - 3, h0 - 2), (h1 + 1, h1 + 2)))
    if any(wh is None for wh in early):
        lacking["same_day_3_2"] = "hours_before_missing"
    elif any(wh is None for wh in late):
        lacking["same_day_3_2"] = "hours_after_missing"
    else:
        found["same_day_3_2"] = {"b_w": sum(wh for wh in early + late if wh is not None) // 5, "n": 5}
    asked = list(range(h0, max(h1, h0 + 1)))
    day = (begin // 1000 + 18_000) // 86_400
    alike = [d for d in range(1, 46) if _weekday(day - d) == _weekday(day) and day - d not in taken]
    sums = [whole for d in alike if (whole := _whole(hours, [3600 * h - 86_400 * d for h in asked])) is not None][:5]
    if len(asked) > 24:
        lacking["high_4_of_5"] = "longer_than_a_day"
    elif len(sums) < 5:
        lacking["high_4_of_5"] = "too_few_days"
    else:
        found["high_4_of_5"] = {"b_w": (sum(sums) - min(sums)) // (4 * len(asked)), "n": 4}
    return found | {"lacking": lacking}


def _whole(hours: Mapping[int, int], asked: Iterable[int]) -> int | None:
    parts = [hours.get(at) for at in asked]
    return None if None in parts else sum(wh for wh in parts if wh is not None)


def _weekday(day: int) -> bool:
    """True from Monday to Friday; day 0 was a Thursday."""
    return (day + 3) % 7 < 5
