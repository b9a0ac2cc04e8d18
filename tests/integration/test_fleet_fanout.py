"""Telling many machines at once: bounded, paced, one result each, and the word weighed against what is seen."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from drivers.asic.credentials import Credentials
from drivers.asic.fanout import Command, FanOut, Written
from drivers.asic.identify import driver_for
from drivers.asic.ladder import Climb, Goal, Verdict, answered, commanded, verdict
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus, WriteOutcome, WriteStatus
from drivers.errors import NoAnswer
from simulator.fleet.fleet import SimulatedFleet
from simulator.fleet.kinds import parse_mix

DONE = WriteOutcome(WriteStatus.ACKNOWLEDGED, 0)


class Gate:
    """Commands that stay open until they are let go; counts how many are."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_together = 0
        self.calls: Counter[str] = Counter()
        self.release = asyncio.Event()

    def command(self, name: str, subnet: str = "") -> Command:
        async def write() -> WriteOutcome:
            self.calls[name] += 1
            self.open[subnet] += 1
            self.most[subnet] = max(self.most[subnet], self.open[subnet])
            self.most_together = max(self.most_together, self.open.total())
            try:
                await self.release.wait()
            finally:
                self.open[subnet] -= 1
            return DONE

        return Command(name, write, subnet)


async def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - the counts watched are plain numbers
            await asyncio.sleep(0.005)


async def test_every_machine_is_told_exactly_once_within_the_limits() -> None:
    gate = Gate()
    commands = [gate.command(f"m{n}", f"net{n % 3}") for n in range(60)]
    running = asyncio.create_task(FanOut(concurrency=7, per_subnet=3, patience_s=60).run(commands))
    await until(lambda: gate.open.total() == 7)
    gate.release.set()
    report = await running
    assert gate.most_together == 7
    assert max(gate.most.values()) <= 3
    assert set(gate.calls.values()) == {1}
    assert len(gate.calls) == report.count(WriteStatus.ACKNOWLEDGED) == 60
    assert report.left_out == ()


async def test_slow_answers_give_their_place_to_the_next_and_are_still_awaited() -> None:
    """All forty wait for their answer at once, although only four may be begun together."""
    gate = Gate()
    plan = FanOut(concurrency=4, per_subnet=4, patience_s=0.02)
    running = asyncio.create_task(plan.run([gate.command(f"m{n}") for n in range(40)]))
    await until(lambda: gate.open.total() == 40)
    gate.release.set()
    assert (await running).count(WriteStatus.ACKNOWLEDGED) == 40


async def test_those_that_wait_are_bounded_too() -> None:
    gate = Gate()
    plan = FanOut(concurrency=4, per_subnet=4, patience_s=0.01, waiting_limit=6)
    running = asyncio.create_task(plan.run([gate.command(f"m{n}") for n in range(40)]))
    await until(lambda: gate.open.total() == 10)
    await asyncio.sleep(0.1)
    assert gate.open.total() == 10
    gate.release.set()
    assert (await running).count(WriteStatus.ACKNOWLEDGED) == 40


async def test_starts_are_paced_and_never_caught_up_with_in_a_burst() -> None:
    started: list[float] = []

    async def write() -> WriteOutcome:
        started.append(time.monotonic())
        if len(started) == 5:
            time.sleep(0.5)  # noqa: ASYNC251 - the whole loop stands still, as on a busy machine
        return DONE

    plan = FanOut(rate_per_s=50)
    report = await plan.run([Command(f"m{n}", write) for n in range(30)])
    assert report.count(WriteStatus.ACKNOWLEDGED) == 30
    for first, last in zip(started, started[10:], strict=False):
        assert last - first >= 10 / 50 - 0.05 - 0.03  # never more than the rate and its small burst


async def test_whatever_goes_wrong_with_one_machine_is_its_own_unknown_result() -> None:
    async def fails() -> WriteOutcome:
        raise KeyError("driver")

    async def lost() -> WriteOutcome:
        raise NoAnswer("its prior state could not be read")

    async def hangs() -> WriteOutcome:
        await asyncio.Event().wait()
        return DONE

    async def fine() -> WriteOutcome:
        return DONE

    def complain(_written: Written) -> None:
        raise RuntimeError("taker")

    plan = FanOut(deadline_s=0.1)
    report = await plan.run(
        [Command("fails", fails), Command("lost", lost), Command("hangs", hangs), Command("fine", fine)],
        on_written=complain,
    )
    said = {one.id: one.outcome for one in report.written}
    assert said["fine"].status is WriteStatus.ACKNOWLEDGED
    assert {said[name].status for name in ("fails", "lost", "hangs")} == {WriteStatus.UNKNOWN}
    assert said["lost"].detail == "its prior state could not be read"
    assert "KeyError" in said["fails"].detail
    assert "0.1 s" in said["hangs"].detail


async def test_stopping_begins_nobody_else_and_awaits_those_that_are_out() -> None:
    gate = Gate()
    plan = FanOut(concurrency=3, per_subnet=3, patience_s=60)
    running = asyncio.create_task(plan.run([gate.command(f"m{n}") for n in range(20)], stop=gate.release.is_set))
    await until(lambda: gate.open.total() == 3)
    gate.release.set()
    report = await running
    assert sorted(one.id for one in report.written) == ["m0", "m1", "m2"]
    assert len(report.left_out) == 17
    assert set(gate.calls) == {"m0", "m1", "m2"}


async def test_cancelling_ends_the_open_commands_before_it_returns() -> None:
    gate = Gate()
    running = asyncio.create_task(FanOut().run([gate.command(f"m{n}") for n in range(5)]))
    await until(lambda: gate.open.total() == 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert gate.open.total() == 0


async def test_nobody_to_tell_is_done_at_once_and_twice_the_same_is_refused() -> None:
    assert (await FanOut().run([])).written == ()
    gate = Gate()
    with pytest.raises(ValueError, match="told once"):
        await FanOut().run([gate.command("m"), gate.command("m")])
    assert not gate.calls
    with pytest.raises(ValueError, match="rate_per_s"):
        FanOut(rate_per_s=0)


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


async def test_a_fleet_with_liars_and_refusers_in_it_is_seen_through() -> None:
    """Two hundred machines of two families over real sockets; the verdict on each is what the fleet was made to do."""
    fleet = SimulatedFleet(parse_mix("antminer-stock=1,luxos=1", 200), time_scale=200.0)
    await fleet.start()
    groups = {"denies_sleep": range(0, 200, 20), "mode_only": range(1, 200, 20), "silent": range(2, 200, 20)}
    expected = dict.fromkeys(range(200), Verdict.OBEYED)
    for fault, verdict_of in (
        ("denies_sleep", Verdict.REFUSED),
        ("mode_only", Verdict.LIED),
        ("silent", Verdict.UNKNOWN),
    ):
        expected |= dict.fromkeys(groups[fault], verdict_of)
    limits = Timeouts(rpc_s=1.5, http_s=1.5, write_s=10.0, status_s=3.0, read_back_s=(0.0, 0.05))
    drivers = {
        str(number): driver_for(
            "antminer-stock" if number < 100 else "luxos",
            fleet.host_of(number),
            rpc_port=fleet.rpc_port,
            http_port=fleet.web_port,
            credentials=Credentials("root", "root"),
            timeouts=limits,
            writes_allowed=True,
        )
        for number in range(200)
    }
    before = {name: await driver.status() for name, driver in drivers.items()}
    for fault, numbers in groups.items():
        fleet.fault(fault, numbers)
    climbs: dict[str, Climb] = {}
    full_w = fleet.power_w()

    def telling(name: str) -> Callable[[], Awaitable[WriteOutcome]]:
        async def write() -> WriteOutcome:
            climbs[name] = commanded(Goal.ASLEEP, now_ms(), within_s=1.0, before=before[name])
            return await drivers[name].sleep()  # type: ignore[union-attr,no-any-return]  # both families can

        return write

    def take(written: Written) -> None:
        climbs[written.id] = answered(climbs[written.id], written.outcome, now_ms())

    async def look(name: str) -> MinerStatus:
        return await drivers[name].status()

    try:
        plan = FanOut(per_subnet=256)
        report = await plan.run([Command(name, telling(name)) for name in drivers], on_written=take)
        assert len(report.written) == 200
        final = await plan.confirm(climbs, look, now_ms=now_ms, step_s=0.2)
        fleet.fault("silent", groups["silent"], on=False)
    finally:
        await fleet.stop()
    said = {int(name): verdict(climb, now_ms()) for name, climb in final.items()}
    assert said == expected
    obeyed = [number for number, what in said.items() if what is Verdict.OBEYED]
    fell_w = sum(fleet.machines[n].nameplate.power_w - fleet.machines[n].nameplate.sleep_w for n in obeyed)
    assert full_w - fleet.power_w() == pytest.approx(fell_w)
