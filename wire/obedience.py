"""How an order was obeyed: every figure out of signed records, in whole numbers, the same for whoever computes it.

Pure. ``docs/protocol.md`` defines each figure; the verifier has an implementation of its own. All divisions round
down. What is not known is ``None`` and is counted as missing, never as 0.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wire.orders import Order
from wire.record_types import Baseline, BaselineFigure, CmdReport
from wire.supply import battery_parts, storage_share, supply_figures
from wire.windows import Window, by_hour, told, verdict

HOLD_MS = 15_000
"""A sample stands for the time until the next one, at most so long."""
DELIVERY_MS = 60_000
"""An order that reached the site later than this after it was signed was not delivered in time."""
MINUTE_MS, HOUR_MS, HOUR_S, DAY_S, LOCAL_S = 60_000, 3_600_000, 3_600, 86_400, 18_000
GUARD_MS, WINDOW_MS = 60_000, 600_000
FRESH = 3
LIKE_DAYS, LIKE_DAYS_BACK, BEST_DAYS = 5, 45, 4
BLIND_PERMILLE = 50
MAX_HOURS = 744
"""Hours of a schedule that a report lists; its verdict is over all."""
EXCUSES = frozenset(
    {
        "not_delivered",
        "tag",
        "reservation",
        "unsafe_cooling",
        "no_meter",
        "local_override",
        "saon",
        "not_commissioned",
    }
)
VERDICTS = frozenset({"obeyed", "short", "unknown", "not_due"})
ENDS = frozenset({"restoring", "superseded", "done", "cancelled", "expired"})
"""States with which the duty to stay below the target is over."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The order and what was fixed when it was accepted. Powers in W."""

    order: Order
    received_ms: int
    point: str
    contracted_w: int
    before_w: int | None
    target_w: int | None
    slot_s: int
    technological_s: int
    """Time of the technological reservation, which a ``stop`` leaves to the site."""
    floor_w: int | None = None
    """Of a schedule: below which no hour's limit counts; ``None`` in accounts begun before schedules were judged."""

    def due_w(self, at_ms: int) -> int | None:
        """What the order allows at a moment, W."""
        if self.order.hours is None or self.floor_w is None:
            return self.target_w
        return max(self.hour_w(at_ms), self.floor_w)

    def hour_w(self, at_ms: int) -> int:
        """What a schedule says of the hour of a moment, W."""
        return (self.order.hours or (0,) * 24)[(at_ms // 1000 + LOCAL_S) // HOUR_S % 24]

    def settling(self, at_ms: int) -> bool:
        """True in the time that a schedule judged by power leaves to come down to a stricter hour."""
        hour = at_ms // HOUR_MS * HOUR_MS
        before, after = self.due_w(hour - 1), self.due_w(hour)
        if self.order.hours is None or self.order.limit_basis != "instant_1min" or before is None or after is None:
            return False
        if hour <= self.begin_ms or before <= after:
            return False
        ramp = self.order.ramp_w_per_min
        span = self.order.escalation.after_s + ((before - after) * 60 // ramp if ramp else 0)
        return at_ms < hour + span * 1000

    @property
    def begin_ms(self) -> int:
        """When the duty began."""
        return max(self.received_ms, self.order.not_before or 0)

    @property
    def grace_s(self) -> int:
        """Time to reach the target: until escalation, the ordered ramp, and for a stop the technological time."""
        grace = self.order.escalation.after_s
        ramp = self.order.ramp_w_per_min
        if ramp and self.before_w is not None and self.target_w is not None:
            grace += max(0, self.before_w - self.target_w) * 60 // ramp
        return max(grace, self.technological_s) if self.order.action == "stop" else grace


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot of the point: [t0, t1) epoch s, import minus export; ``None`` in a gap."""

    t0: int
    t1: int
    net_wh: int | None


def slots_of(records: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Slot]:
    """Slots from the records (type, fields) of a metering point, in their order."""
    inverted, found = False, []
    for ty, doc in records:
        if ty == "bind":
            inverted = doc["inverted"]
        elif ty == "gap":
            found.append(Slot(doc["t0"], doc["t1"], None))
        elif ty == "interval":
            net = None if "frozen" in doc["q"] else doc["wh"] - (doc["exp_wh"] or 0)
            found.append(Slot(doc["t0"], doc["t1"], -net if inverted and net is not None else net))
    return found


def local_day(at_ms: int) -> int:
    """Number of the day in Kazakhstan; 0 is Thursday, 1 January 1970."""
    return (at_ms // 1000 + LOCAL_S) // DAY_S


class Trace:
    """All parts of an order's trace put together; a sample not later than the one before it does not count."""

    def __init__(self, parts: Iterable[Mapping[str, Any]]) -> None:
        self.samples: list[tuple[int, int | None]] = []
        self.positions: list[tuple[int, str, str]] = []
        self.states: list[tuple[int, str]] = []
        self.reasons: set[str] = set()
        for part in parts:
            at = part["t0"]
            for step, watt in zip(part["dt"], part["w"], strict=True):
                at += step
                if not self.samples or at > self.samples[-1][0]:
                    self.samples.append((at, watt))
            self.positions += [(part["t0"] + after, name, now) for after, name, now in part["pos"]]
            self.states += [(part["t0"] + after, state) for after, state in part["states"]]
            self.reasons |= {code for _, _, code in part["why"]}
        self._held = [
            (at, min(after, at + HOLD_MS), watt)
            for (at, watt), after in zip(self.samples, [*(t for t, _ in self.samples[1:]), 2**53], strict=False)
            if watt is not None
        ]
        self._starts = [at for at, _, _ in self._held]

    def mean(self, begin: int, end: int) -> int | None:
        """Mean power over [begin, end) ms; ``None`` where less than three quarters of it are covered."""
        energy = covered = 0
        i = max(0, bisect_right(self._starts, begin) - 1)
        while i < len(self._held) and self._held[i][0] < end:
            since, until, watt = self._held[i]
            lasts = min(until, end) - max(since, begin)
            if lasts > 0:
                energy, covered = energy + watt * lasts, covered + lasts
            i += 1
        return energy // covered if covered and 4 * covered >= 3 * (end - begin) else None

    def stays(self, begin: int, end: int, watt_at_most: int, times: int = 1) -> int | None:
        """Time of the first of three samples in a row in [begin, end] with ``times`` · power at most so much, ms after
        ``begin``."""
        run, since = 0, 0
        for at, watt in self.samples:
            if begin <= at <= end:
                run = run + 1 if watt is not None and times * watt <= watt_at_most else 0
                since = at if run == 1 else since
                if run == FRESH:
                    return since - begin
        return None

    def end_ms(self, begin: int) -> int:
        """When the duty ended: the first state that ends it, or the last that is known."""
        ends = [at for at, state in self.states if state in ENDS]
        last = [at for at, _ in self.samples[-1:]] + [at for at, _ in self.states[-1:]]
        return max(begin, ends[0] if ends else max(last, default=begin))


def report(
    facts: Facts, parts: Sequence[Mapping[str, Any]], slots: Sequence[Slot], taken: Collection[int], slots_n: int = 0
) -> CmdReport:
    """Fields of ``cmd_report``.

    Args:
        facts: the order.
        parts: fields of every ``cmd_trace`` of it, in their order.
        slots: of its point.
        taken: days (:func:`local_day`) on which traces of other orders were written.
        slots_n: how many records of the point's stream were read for ``slots``.
    """
    trace, order = Trace(parts), facts.order
    begin = facts.begin_ms
    end = trace.end_ms(begin)
    first = begin + facts.grace_s * 1000
    method, step_s, windows = _windows(facts, trace, slots, first, end)
    before, target = facts.before_w, facts.target_w
    known = [one for one in windows if one.watt is not None]
    missing = len(windows) - len(known)
    delta = None if before is None or target is None or before <= target else before - target
    asked, shares = sum(one.asked(before) for one in known), sum(one.gave(before) for one in known)
    due = bool(known) and all(one.target is not None for one in known)
    after = [watt for at, watt in trace.samples if at > end and watt is not None]
    blind = bool(windows) and missing * 1000 > BLIND_PERMILLE * len(windows)
    good = sum(one.met(before, order.tolerance_w) for one in known)
    found: CmdReport = {
        "id": order.id,
        "basis": order.limit_basis,
        "method": method,
        "point": facts.point,
        "contracted_w": facts.contracted_w,
        "before_w": before,
        "target_w": target,
        "grace_s": facts.grace_s,
        "begin": begin,
        "end": end,
        "parts": len(parts),
        "slots_n": slots_n,
        "baseline": baselines(facts, trace, slots, taken, end),
        "delivered_permille": shares * 1000 // asked if asked else None,
        "shortfall_wh": sum(one.over(order.tolerance_w) for one in known) * step_s // HOUR_S if due else None,
        "t50_ms": _reached(trace, begin, end, delta, before, target, 2),
        "t90_ms": _reached(trace, begin, end, delta, before, target, 10),
        "t100_ms": None if target is None else trace.stays(begin, end, target + order.tolerance_w),
        "mw": {
            "m1_w": _minute(trace, begin, end, 1),
            "m5_w": _minute(trace, begin, end, 5),
            "m15_w": _minute(trace, begin, end, 15),
        },
        "hold_permille": good * 1000 // len(known) if due else None,
        "overshoot_w": max(one.below() for one in known) if due else None,
        "rebound_w": None if before is None or not after else max(0, max(after) - before),
        "missing_permille": missing * 1000 // len(windows) if windows else None,
        "excuses": sorted(_excuses(facts, trace, windows, blind=blind)),
        "verdict": _verdict(facts, trace, first, end, windows),
    }
    if order.hours is not None and facts.floor_w is not None:
        found["floor_w"] = facts.floor_w
        found["hours"] = [told(hour, before, order.tolerance_w) for hour in by_hour(windows)[:MAX_HOURS]]
    if supply := supply_figures(parts, begin, end):
        found["uq"] = supply
    if (own := battery_parts(parts)) and order.measured_at == "net_import":
        means = {point: Trace(told).mean for point, told in own.items()}
        found["storage"] = storage_share(means, windows, before, begin, step_s)
    return found


def _windows(facts: Facts, trace: Trace, slots: Sequence[Slot], first: int, end: int) -> tuple[str, int, list[Window]]:
    """(method, length in s, every whole window of the duty)."""
    steps = {"instant_1min": 60, "slot": facts.slot_s, "hour_energy": HOUR_S}
    step_s = steps[facts.order.limit_basis]
    step = step_s * 1000
    starts = range(-(-first // step) * step, end - step + 1, step)
    name = {"instant_1min": "1min", "slot": "slot", "hour_energy": "hour"}[facts.order.limit_basis]
    inside = [slot for slot in slots if starts and starts[0] <= slot.t0 * 1000 < starts[-1] + step]
    if name == "1min" or not inside:
        powers = {at: trace.mean(at, at + step) for at in starts}
        method = f"trace_{name}"
    else:
        known = energies(inside, step_s)
        powers = {at: None if (wh := known.get(at // 1000)) is None else wh * HOUR_S // step_s for at in starts}
        method = f"interval_{name}"
    return method, step_s, [Window(at, w, facts.due_w(at)) for at, w in powers.items() if not facts.settling(at)]


def energies(slots: Iterable[Slot], step_s: int) -> dict[int, int]:
    """Begin of each whole window (s) → Wh, where its slots are all known."""
    sums: dict[int, list[int]] = {}
    seen: set[int] = set()
    for slot in slots:
        if slot.t0 not in seen:
            seen.add(slot.t0)
            if slot.net_wh is not None:
                total = sums.setdefault(slot.t0 // step_s * step_s, [0, 0])
                total[0] += slot.net_wh
                total[1] += slot.t1 - slot.t0
    return {at: wh for at, (wh, length) in sums.items() if length == step_s}


def _reached(
    trace: Trace, begin: int, end: int, delta: int | None, before: int | None, target: int | None, parts: int
) -> int | None:
    """When all but one of ``parts`` equal parts of the ordered reduction were there, for three samples."""
    if delta is None or before is None or target is None:
        return None
    return trace.stays(begin, end, before + (parts - 1) * target, parts)


def _minute(trace: Trace, begin: int, end: int, number: int) -> int | None:
    until = begin + number * MINUTE_MS
    return trace.mean(until - MINUTE_MS, until) if until <= end else None


def _excuses(facts: Facts, trace: Trace, windows: Iterable[Window], *, blind: bool) -> set[str]:
    order, found = facts.order, trace.reasons & EXCUSES
    if facts.received_ms - order.issued_at > DELIVERY_MS:
        found.add("not_delivered")
    limited = facts.due_w(facts.begin_ms) is not None
    if blind or (limited and facts.before_w is None):
        found.add("no_meter")
    floor = facts.floor_w
    if order.hours is not None and floor is not None and any(facts.hour_w(one.at_ms) < floor for one in windows):
        found.add("reservation")
    wanted = None
    if order.action == "limit":
        wanted = order.limit_w
    elif order.action == "reduce" and order.reduce_w is not None and facts.before_w is not None:
        wanted = facts.before_w - order.reduce_w
    if order.permille is not None:
        share = facts.contracted_w * order.permille // 1000
        wanted = share if order.action == "limit" else None if facts.before_w is None else facts.before_w - share
    if wanted is not None and facts.target_w is not None and facts.target_w > wanted:
        found.add("reservation")
    return found


def _verdict(facts: Facts, trace: Trace, first: int, end: int, windows: Sequence[Window]) -> str:
    if not windows or all(state != "executing" for _, state in trace.states):
        return "not_due"
    if windows[0].target is None:
        return _opened(trace, facts.order.feeders or (), first, end)
    parts = by_hour(windows) if facts.order.hours is not None else [windows]
    found = {verdict(part, facts.before_w, facts.order.tolerance_w) for part in parts}
    return next(worst for worst in ("short", "unknown", "obeyed") if worst in found)


def _opened(trace: Trace, feeders: Sequence[str], first: int, end: int) -> str:
    """Verdict where feeders were to be opened and no power was ordered."""
    found = set()
    for feeder in feeders:
        told = [(at, now) for at, name, now in trace.positions if name == feeder and at <= end]
        found |= {now for _, now in [p for p in told if p[0] <= first][-1:]} or {"unknown"}
        found |= {now for at, now in told if at > first}
    if found - {"open", "unknown", "moving"}:
        return "short"
    return "obeyed" if found == {"open"} else "unknown"


# baselines -----------------------------------------------------------------------------------------------------------


def baselines(facts: Facts, trace: Trace, slots: Sequence[Slot], taken: Collection[int], end: int) -> Baseline:
    """The three baselines."""
    begin = facts.begin_ms
    window = begin - GUARD_MS - WINDOW_MS, begin - GUARD_MS
    mean = trace.mean(*window)
    count = sum(1 for at, watt in trace.samples if window[0] <= at < window[1] and watt is not None)
    hours = energies(slots, HOUR_S)
    found: dict[str, BaselineFigure | str] = {
        "before_after": "too_few_samples" if mean is None else {"b_w": mean, "n": count},
        "same_day_3_2": same_day(hours, begin, end),
        "high_4_of_5": high_4_of_5(hours, begin, end, taken),
    }
    lacking = {name: value for name, value in found.items() if isinstance(value, str)}
    good = {name: None if isinstance(value, str) else value for name, value in found.items()}
    return {
        "before_after": good["before_after"],
        "same_day_3_2": good["same_day_3_2"],
        "high_4_of_5": good["high_4_of_5"],
        "lacking": lacking,
    }


def same_day(hours: Mapping[int, int], begin: int, end: int) -> BaselineFigure | str:
    """Mean of three hours before the order, one skipped, and two after it, one skipped; or why there is none.

    Args:
        hours: begin of an hour (s) → Wh.
    """
    first, last = begin // HOUR_MS * HOUR_S, -(-end // HOUR_MS) * HOUR_S
    before = [hours.get(first - k * HOUR_S) for k in (2, 3, 4)]
    after = [hours.get(last + k * HOUR_S) for k in (1, 2)]
    if None in before:
        return "hours_before_missing"
    if None in after:
        return "hours_after_missing"
    return {"b_w": sum(wh for wh in before + after if wh is not None) // 5, "n": 5}


def high_4_of_5(hours: Mapping[int, int], begin: int, end: int, taken: Collection[int]) -> BaselineFigure | str:
    """Mean over the hours of the order on the four highest of the five last like days; or why there is none.

    Like days are workdays (Monday to Friday) for a workday and weekend days for a weekend day, without any order.
    """
    asked = range(begin // HOUR_MS * HOUR_S, max(-(-end // HOUR_MS), begin // HOUR_MS + 1) * HOUR_S, HOUR_S)
    if len(asked) > 24:
        return "longer_than_a_day"
    today, sums = local_day(begin), []
    for back in range(1, LIKE_DAYS_BACK + 1):
        there = [hours.get(hour - back * DAY_S) for hour in asked]
        like = _weekend(today - back) == _weekend(today) and today - back not in taken
        if like and None not in there:
            sums.append(sum(wh for wh in there if wh is not None))
        if len(sums) == LIKE_DAYS:
            return {"b_w": sum(sorted(sums)[-BEST_DAYS:]) // (BEST_DAYS * len(asked)), "n": BEST_DAYS}
    return "too_few_days"


def _weekend(day: int) -> bool:
    return (day + 3) % 7 >= 5
