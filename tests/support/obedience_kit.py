"""Orders with traces, for tests of their reports: the agent's arithmetic and the verifier's, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from verifier.obedience import Curve, Duty, recompute
from wire import canonical
from wire.obedience import Facts, Slot, report
from wire.orders import Order
from wire.record_types import CmdReport

T0 = 497_222 * 3_600_000
"""A full hour and no full day: Monday, 21 September 2026, 19:00 in Kazakhstan."""
ORDER_ID = "01912345-0000-7000-8000-0000000000aa"
Point = tuple[int, int | None]


def order(action: str = "limit", **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "v": 1,
        "id": ORDER_ID,
        "site": "ekb-01",
        "epoch": "e1-0a1b2c3d",
        "seq": 1,
        "action": action,
        "issued_at": T0 - 1000,
        "execute_by": T0 + 600_000,
        "expires_at": T0 + 3_600_000,
        "hold": {"until_released": True},
        "basis": {"code": "test"},
    }
    if action == "limit" and "permille" not in changes:
        fields["limit_w"] = 40_000
    return Order.model_validate_json(canonical.encode(fields | changes))


def facts(made: Order | None = None, **changes: Any) -> Facts:
    fields: dict[str, Any] = {
        "order": made or order(),
        "received_ms": T0,
        "point": "M0",
        "contracted_w": 200_000,
        "before_w": 100_000,
        "target_w": 40_000,
        "slot_s": 900,
        "technological_s": 0,
    }
    return Facts(**(fields | changes))


def steady(begin_s: int, end_s: int, watt: int | None, step_s: int = 5) -> list[Point]:
    """Samples in [begin, end), seconds after the order came."""
    return [(at, watt) for at in range(begin_s, end_s, step_s)]


STATES = [(0, "validated"), (0, "armed"), (0, "executing"), (30, "verifying"), (33, "holding"), (1200, "restoring")]


def part(
    points: Sequence[Point],
    states: Iterable[tuple[int, str]] = (),
    *,
    number: int = 0,
    positions: Iterable[tuple[int, str, str]] = (),
    reasons: Iterable[tuple[int, str, str]] = (),
    base: int = T0,
) -> dict[str, Any]:
    """A part of a trace; times in s after ``base``."""
    t0 = base + points[0][0] * 1000 if points else base
    times = [t0, *(base + at * 1000 for at, _ in points)]
    return {
        "id": ORDER_ID,
        "point": "M0",
        "part": number,
        "t0": t0,
        "dt": [b - a for a, b in pairwise(times)],
        "w": [w for _, w in points],
        "q": [0 if w is not None else 3 for _, w in points] if any(w is None for _, w in points) else [],
        "states": [[base + at * 1000 - t0, state] for at, state in states],
        "pos": [[base + at * 1000 - t0, name, now] for at, name, now in positions],
        "why": [[base + at * 1000 - t0, name, code] for at, name, code in reasons],
    }


def obedient() -> list[dict[str, Any]]:
    """100 kW for 15 min; 70 kW after 10 s, 46 kW after 20 s, 40 kW after 30 s, held 20 min; back up to 101.5 kW."""
    falling = steady(0, 10, 100_000, 1) + steady(10, 20, 70_000, 1) + steady(20, 30, 46_000, 1)
    back = [*steady(1201, 1255, 90_000), (1256, 101_500), (1258, 100_000)]
    done = [*STATES, (1260, "done")]
    return [
        part(steady(-900, 0, 100_000)),
        part(falling + steady(30, 60, 40_000, 1), STATES[:5], number=1),
        part(steady(60, 1201, 40_000) + back, done[5:], number=2),
    ]


def by_agent(
    known: Facts, parts: Sequence[dict[str, Any]], slots: Sequence[Slot] = (), taken: Iterable[int] = ()
) -> CmdReport:
    """The report as the agent computes it."""
    return report(known, parts, slots, set(taken), slots_n=len(slots))


def by_verifier(
    known: Facts, parts: Sequence[dict[str, Any]], slots: Sequence[Slot] = (), taken: Iterable[int] = ()
) -> dict[str, Any]:
    """The same by the verifier's own code, out of the order's signed bytes."""
    curve = Curve()
    for one in parts:
        curve.take(one)
    duty = Duty(canonical.decode(known.order.encode()), known.received_ms, known.before_w, known.target_w)
    found = recompute(
        duty,
        curve,
        [(slot.t0, slot.t1, slot.net_wh) for slot in slots],
        set(taken),
        contracted_w=known.contracted_w,
        grace_s=max(duty.after_s, known.technological_s) if known.order.action == "stop" else duty.after_s,
        slot_s=known.slot_s,
        floor_w=known.floor_w,
    )
    return found | {"slots_n": len(slots)}
