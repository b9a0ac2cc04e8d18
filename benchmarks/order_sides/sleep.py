"""Cuts by sleep alone, at real machines' pace: how soon the ordered power is off, and how soon it is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common import percentile
from benchmarks.order_sides.dispatcher import Dispatcher
from benchmarks.order_sides.families import BARS_S, SHARE, SleepingSite, wakes_truly
from benchmarks.order_sides.plant import SLEEPERS_PERIOD_S
from simulator.latencies import load_latencies
from wire.states import OrderState

IN_TWO_STAGES = {"restore_stage_permille": 550, "restore_stage_delay_s": 5}
AT_ONCE = {"restore_stage_permille": 1000, "restore_stage_delay_s": 1}
"""How an order's load returns: at once where that is not told, or else in two stages. These terms belong to the order,
not to its release (``docs/protocol.md``); without them there would be five or six stages, 30 s apart."""
ANSWER_S, HELD_S, RETURN_S, BACK_S = 20.0, 240.0, 300.0, 300.0
"""How long is waited for the answer, the signed ``holding``, the signed end of the return, and for full power."""
HOLD_S = 5.0
LOOK_S = 0.1
Sample = tuple[int, float]
"""(wall clock ms, W)"""


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut, s."""

    down_s: float
    """From the order's arrival by the site's own word until the share of what was ordered is off for good."""
    back_s: float
    """From the arrival of its release until every machine mines at full power."""


@dataclass(slots=True)
class Watch:
    """The simulation's own power of a site, looked at again and again by a thread; no meter's delay is in it."""

    desk: Dispatcher
    seen: list[Sample] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            power_w = self.desk.plant.true_power_w(self.desk.plan)
            self.seen.append((_now_ms(), power_w))


def cuts_by_sleep(desk: Dispatcher, site: SleepingSite) -> list[Cut]:
    """Limits at half the power, each held and given back whole before the next.

    Raises:
        RuntimeError: one was not held, or not given back.
    """
    family = load_latencies().family(site.family)
    desk.plant.slow_answers(desk.plan)
    return [_cut(desk, IN_TWO_STAGES if wakes_truly(family) else AT_ONCE) for _ in range(site.cuts)]


def _cut(desk: Dispatcher, terms: dict[str, int]) -> Cut:
    _wait_for_all(desk)
    time.sleep(SLEEPERS_PERIOD_S + 2)  # the agent has to see it too
    before_w = desk.plant.true_power_w(desk.plan)
    limit_w = round(before_w / 2000) * 1000
    with Watch(desk) as watch:
        order = desk.order(
            action="limit",
            limit_kw=limit_w / 1000,
            methods=("sleep",),
            until_released=True,
            execute_within_s=60,
            **terms,
        )
        desk.send(order)
        desk.wait(order, "cmd_eff", str(OrderState.HOLDING), within_s=HELD_S)
        time.sleep(HOLD_S)
    received = desk.first(order, "cmd_rx")
    fell_ms = fell_for_good_ms(watch.seen, before_w=before_w, limit_w=limit_w)
    if received is None or received.rx_ms is None or fell_ms is None:
        raise RuntimeError(f"{desk.plan.id}: {SHARE:.0%} of {before_w - limit_w:.0f} W never went for good")
    release = desk.order(action="release", target=order.order.id)
    desk.send(release)
    desk.wait(release, "cmd_ack", within_s=ANSWER_S)
    desk.wait(order, "cmd_eff", str(OrderState.DONE), within_s=RETURN_S)
    for signed in (order, release):
        desk.story(signed)
    released = desk.first(release, "cmd_rx")
    if released is None or released.rx_ms is None:
        raise RuntimeError(f"{desk.plan.id}: no signed moment of the release's arrival")
    back_ms = _wait_for_all(desk)
    return Cut((fell_ms - received.rx_ms) / 1000, (back_ms - released.rx_ms) / 1000)


def fell_for_good_ms(seen: Sequence[Sample], *, before_w: float, limit_w: float) -> int | None:
    """The first moment from which on the share of the ordered power stays off; ``None`` where it does not."""
    enough_w = before_w - SHARE * (before_w - limit_w)
    last_over = max((i for i, (_, power_w) in enumerate(seen) if power_w > enough_w), default=-1)
    return seen[last_over + 1][0] if last_over + 1 < len(seen) else None


def _wait_for_all(desk: Dispatcher) -> int:
    """Wait until every machine mines at full power; the moment, wall clock ms."""
    end = time.monotonic() + BACK_S
    while not desk.plant.all_mine(desk.plan):
        if time.monotonic() > end:
            power_w = desk.plant.true_power_w(desk.plan)
            raise RuntimeError(f"{desk.plan.id}: not every machine mines after {BACK_S:g} s; {power_w:.0f} W")
        time.sleep(LOOK_S)
    return _now_ms()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def by_family(found: Sequence[tuple[SleepingSite, list[Cut]]]) -> dict[str, dict[str, Any]]:
    """Figures of each family, over all of its sites. Seconds; ``met`` where the slowest cut is within the bar.

    How soon the power is back is told only of machines that wake at their true pace.
    """
    figures: dict[str, dict[str, Any]] = {}
    latencies = load_latencies()
    for name in dict.fromkeys(site.family for site, _ in found):
        own = [(site, cuts) for site, cuts in found if site.family == name]
        cuts = [cut for _, several in own for cut in several]
        down = [cut.down_s for cut in cuts]
        bar_s = BARS_S.get(name)
        figures[name] = {
            "sites": len(own),
            "machines_per_site": own[0][0].machines,
            "runs": len(cuts),
            "p50_s": round(percentile(down, 0.5), 2),
            "max_s": round(max(down), 2),
            "bar_s": bar_s,
            "met": None if bar_s is None else max(down) <= bar_s,
        }
        if wakes_truly(latencies.family(name)):
            back = [cut.back_s for cut in cuts]
            figures[name] |= {"back_p50_s": round(percentile(back, 0.5), 2), "back_max_s": round(max(back), 2)}
    return figures
