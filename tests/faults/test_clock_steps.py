"""Somebody sets the wall clock: recorded, the slot is a gap, nothing is expired, released or closed by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import site_kit
from site_kit import SiteKit, now_ms, until

from agent.app import AgentApp
from agent.clock import Clock, StepWatch
from wire.orders import Hold
from wire.states import Flag

HOUR_MS = 3_600_000


class SteeredClock:
    """The machine's clocks, the wall moved by ``offset_ms``; synchronised or not as a test says."""

    def __init__(self) -> None:
        self.offset_ms = 0
        self.synced = True

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.offset_ms

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def synchronised(self) -> bool:
        return self.synced

    @property
    def source(self) -> str:
        return "host"


class SteeredKit(SiteKit):
    """A site whose agent takes its time from :attr:`clock`."""

    clock: SteeredClock

    async def start(self) -> None:
        self.clock = SteeredClock()
        clock: Clock = self.clock

        def with_clock(*args: Any, **kwargs: Any) -> AgentApp:
            return AgentApp(*args, clock=clock, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(site_kit, "AgentApp", with_clock)
            await super().start()


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SteeredKit]:
    made = await asyncio.to_thread(SteeredKit, tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def slots(kit: SiteKit, point: str) -> list[dict[str, Any]]:
    found = [*await kit.records("interval"), *await kit.records("gap")]
    return sorted((r for r in found if r["st"] == f"mp:{point}"), key=lambda r: int(r["n"]))


async def codes(kit: SiteKit) -> list[str | None]:
    return [r["code"] for r in await kit.records("cmd_ack")]


@pytest.mark.parametrize(("moved_ms", "seen"), [(1900, False), (-1900, False), (2500, True), (-2500, True)])
def test_a_step_is_what_slewing_cannot_do(moved_ms: int, seen: bool) -> None:
    clock = SteeredClock()
    watch = StepWatch(clock)
    clock.offset_ms = moved_ms
    step = watch.check()
    assert (step is not None) is seen
    if step is not None:
        assert abs(step.step_ms - moved_ms) <= 5
    assert watch.check() is None, "told once"


@pytest.mark.long
async def test_forward_by_hours_records_the_step_fills_the_slots_with_gaps_and_restores_nothing(
    kit: SteeredKit,
) -> None:
    app = kit.app
    assert app is not None
    await until(lambda: all(s.chain and s.chain.carried for s in app.closer.states.values()), 40, "an interval each")
    before = kit.net_w()
    assert before is not None
    hold = Hold(until=now_ms() + HOUR_MS, restore_auto=True)
    order, raw = kit.order("limit", limit_w=round(before * 0.7), hold=hold)
    await kit.give(raw)
    await kit.wait_state(order, "holding", within_s=40)
    kit.clock.offset_ms += 6 * HOUR_MS
    await until(lambda: Flag.CLOCK_SUSPECT in app.journal.live[order].flags, 5, "told")

    def after_step() -> bool:
        last = [s.chain.last for s in app.closer.states.values() if s.chain is not None]
        return all(b is not None and b.good and b.t * 1000 > now_ms() + 5 * HOUR_MS for b in last)

    await until(after_step, 40, "slots go on in the new time")
    assert kit.state_of(order) == "holding", "what was to end in an hour did not end because the clock says so"
    (record,) = await kit.records("clock")
    assert abs(record["step_ms"] - 6 * HOUR_MS) < 100
    assert record["now"] - record["was"] == record["step_ms"]
    found = await slots(kit, "M0")
    times = [(s["t0"], s["t1"]) for s in found]
    assert all(a[1] == b[0] for a, b in pairwise(times)), "every slot is accounted for"
    gaps = [s for s in found if s["ty"] == "gap"]
    assert {s["why"] for s in gaps} == {"CLOCK"}
    assert len(gaps) >= 6 * 360 - 1
    # An order signed now is hours too late by this clock, and the clock is all the agent has.
    _, late = kit.order("limit", limit_w=round(before * 0.5))
    await kit.give(late)
    assert (await codes(kit))[-1] == "expired"


@pytest.mark.long
async def test_back_by_an_hour_writes_no_slot_twice_and_takes_orders_by_the_trusted_time(kit: SteeredKit) -> None:
    app = kit.app
    assert app is not None
    await until(lambda: all(s.chain and s.chain.carried for s in app.closer.states.values()), 40, "an interval each")
    await asyncio.sleep(0.3)  # the chain knows a slot a moment before it is on disk
    written = len(await slots(kit, "M0"))
    kit.clock.offset_ms -= HOUR_MS
    await until(lambda: all(s.stepped for s in app.closer.states.values()), 5, "step seen")
    before = kit.net_w()
    assert before is not None
    # The present is at least the trusted time: an order of now is neither early nor late.
    order, raw = kit.order("limit", limit_w=round(before * 0.7))
    await kit.give(raw)
    assert (await codes(kit))[-1] is None
    _, expired = kit.order("limit", limit_w=1, execute_by=now_ms() - 60_000, issued_at=now_ms() - 61_000)
    await kit.give(expired)
    assert (await codes(kit))[-1] in {"expired", "before_genesis"}
    await kit.wait_state(order, "holding", within_s=40)
    await asyncio.sleep(max(0.0, 11 - time.time() % 10 if time.time() % 10 > 9 else 10 - time.time() % 10) + 1.5)
    assert len(await slots(kit, "M0")) == written, "the hour that is lived again has its records already"
    kit.clock.offset_ms += HOUR_MS
    await until(lambda: not any(s.stepped for s in app.closer.states.values()), 30, "recorded once time is new again")
    assert [r["step_ms"] // 1_000_000 for r in await kit.records("clock")] == [-4, 3]
    found = await slots(kit, "M0")
    times = [(s["t0"], s["t1"]) for s in found]
    assert all(a[1] == b[0] for a, b in pairwise(times))
    assert {s["why"] for s in found[written:] if s["ty"] == "gap"} == {"CLOCK"}


async def test_with_an_unsynchronised_clock_one_person_sheds_and_two_release(kit: SteeredKit) -> None:
    app = kit.app
    assert app is not None
    before = kit.net_w()
    assert before is not None
    kit.clock.synced = False
    order, raw = kit.order("limit", limit_w=round(before * 0.7))
    await kit.give(raw)
    assert Flag.CLOCK_SUSPECT in app.journal.live[order].flags
    await kit.wait_state(order, "holding", within_s=40)
    assert "clock_unsynchronised" in app.reports.alarms()
    _, alone = kit.order("release", target=order)
    await kit.give(alone)
    assert (await codes(kit))[-1] == "clock"
    assert kit.state_of(order) == "holding"
    _, together = kit.order("release", target=order, signers=(kit.dispatcher, kit.second))
    await kit.give(together)
    assert (await codes(kit))[-1] is None
    await kit.wait_state(order, "done", within_s=40)
    assert (await kit.records("cmd_rx"))[-1]["clk"]["s"] == "U"
