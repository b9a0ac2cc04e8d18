"""Machines that say one thing and do another, late, not at all, or too many at once: the meter judges, others do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drivers.asic.fanout import Command
from drivers.capabilities import WriteOutcome, WriteStatus
from tests.unit.agent_kit import BASE_W, MACHINE_W, Core, PlayedMachine, running_core, small_site
from wire.orders import Escalation, Restore
from wire.states import Flag, OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
LIMIT_W = 50_000
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)
SWITCH = Escalation(to="switch", after_s=60)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


def slow(machine: PlayedMachine, seconds: float) -> None:
    """It acknowledges sleep at once and does it so much later."""
    real = machine.plant.publish
    due: list[int] = []

    async def sleep() -> WriteOutcome:
        machine.plant.written("sleep", machine.id)
        due.append(machine.plant.clock.mono_ns() + round(seconds * 1e9))
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, machine.plant.clock.now_ms())

    async def publish(live: object) -> None:
        if due and machine.plant.clock.mono_ns() >= due[0]:
            machine.asleep = True
            due.clear()
        await real(live)  # type: ignore[arg-type]  # the live state

    machine.sleep = sleep  # type: ignore[method-assign]  # a played part stands in for the real one
    machine.plant.publish = publish  # type: ignore[method-assign]  # as above


async def test_machines_that_need_21_seconds_are_waited_for_and_nothing_else_is_touched(tmp_path: Path) -> None:
    async with running_core(tmp_path, site=small_site(sleep_confirm_s=45)) as core:
        for machine in core.plant.machines.values():
            slow(machine, 21)
        order = await core.give("limit", limit_w=LIMIT_W, escalation=SWITCH)
        await core.until_state(order, S.HOLDING, within_s=60)
        assert len(core.plant.writes) == 3, "no more machines than needed, each told once, no switch"
        assert order.doc.confirmed_ms is not None
        assert order.doc.confirmed_ms >= 21_000


async def test_a_third_of_the_fleet_out_of_reach_is_made_up_for_by_the_others(core: Core) -> None:
    gone = {"rack1/1", "rack1/2", "rack2/1"}
    for name in gone:
        core.plant.machines[name].answers_at_ns = 2**62  # it mines on, and nobody reaches it
    await core.step()
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    assert not gone & {target for _, target in core.plant.writes}
    assert Flag.DEGRADED not in order.flags
    short = await core.give("stop", supersedes=order.id)
    await core.until_state(short, S.HOLDING)
    assert {"open"} <= {kind for kind, _ in core.plant.writes}, "what cannot be put to sleep is cut off after its time"
    assert core.plant.net_w <= 36_000


async def test_a_fleet_that_falls_silent_between_plan_and_command_costs_nobody_else_time(core: Core) -> None:
    class Silent:
        async def wait(self) -> WriteOutcome:
            await asyncio.sleep(0.2)
            return WriteOutcome(WriteStatus.UNKNOWN, core.clock.now_ms(), "no answer within 1 s")

    for name in ("rack1/1", "rack1/2"):
        machine = core.plant.machines[name]

        async def silent(m: PlayedMachine = machine) -> WriteOutcome:
            core.plant.written("sleep", m.id)
            return await Silent().wait()

        machine.sleep = silent  # type: ignore[method-assign]  # a played part stands in for the real one
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= LIMIT_W
    assert all(core.plant.writes.count(("sleep", name)) <= 2 for name in core.plant.machines)


async def test_a_machine_that_restarts_and_mines_again_sleeps_again_each_time(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    name = sorted(core.plant.asleep)[0]
    machine = core.plant.machines[name]
    for _ in range(4):
        machine.answers_at_ns = core.clock.mono_ns() + 60_000_000_000
        machine.full_at_ns = core.clock.mono_ns() + 90_000_000_000
        machine.asleep = False
        await core.pass_time(150, step_s=2)
        assert core.plant.net_w <= LIMIT_W
    assert order.state is S.HOLDING
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_two_managers_that_wake_it_again_and_again_are_answered_and_told(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    name = sorted(core.plant.asleep)[0]
    over_s = 0.0
    for second in range(300):
        if second % 30 == 0:
            core.plant.machines[name].asleep = False  # its firmware's schedule, or somebody else's program
        await core.step()
        over_s += core.plant.net_w > LIMIT_W
    assert over_s <= 100, "each time within seconds, whoever wins in the end"
    assert core.plant.net_w <= LIMIT_W
    assert "load crept above the limit" in await causes(core, order.id)


async def causes(core: Core, order: str) -> set[str]:
    return {cause for (cause,) in await core.ledger.read("SELECT cause FROM transition WHERE order_id=?", order)}


async def test_machines_that_do_not_take_their_old_mode_are_named_and_tried_for_a_time(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    name = sorted(core.plant.asleep)[0]

    async def stays(prior_state: str) -> WriteOutcome:
        core.plant.written("wake", name)
        return WriteOutcome(WriteStatus.REFUSED, core.clock.now_ms(), f"mode {prior_state} not accepted")

    core.plant.machines[name].wake = stays  # type: ignore[method-assign]  # a played part stands in for the real one
    await core.release(order)
    await core.until(lambda: len(core.plant.asleep) == 1)
    await core.pass_time(60, step_s=5)
    assert order.id in core.journal.live, "it is not done while something of it may still return"
    await core.until(lambda: not core.journal.live, within_s=2000, step_s=20)
    assert f"not returned: {name}" in (await core.effects(order.id))[-1]["text"]
    assert core.plant.asleep == {name}


async def test_a_machine_that_says_it_woke_and_draws_nothing_is_counted_at_the_end(core: Core) -> None:
    order = await core.give("limit", limit_w=LIMIT_W, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    name = sorted(core.plant.asleep)[0]

    async def lies(_prior_state: str) -> WriteOutcome:
        core.plant.written("wake", name)
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, core.clock.now_ms(), "awake")

    core.plant.machines[name].wake = lies  # type: ignore[method-assign]  # a played part stands in for the real one
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert core.plant.asleep == {name}
    said = (await core.effects(order.id))[-1]["text"]
    assert said.startswith("told to return; "), "no word that the load is back while it is not"
    assert "woken machines do not draw yet" in said


async def test_sleep_that_outlasts_the_cut_ends_with_the_release(core: Core) -> None:
    core.plant.extra_w = 4_100  # what sleep leaves is above the reservation: switches open over sleeping machines
    order = await core.give("stop", restore=AT_ONCE)
    await core.until(lambda: not all(s.closed for s in core.plant.switches.values()), within_s=300)
    await core.until(lambda: order.state in {S.HOLDING, S.FAILED})
    cut = {m.id for m in core.plant.machines.values() if not core.plant.switches[m.switch].closed}
    assert cut
    assert cut <= core.plant.asleep
    core.plant.extra_w = 0
    await core.pass_time(60, step_s=2)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert core.plant.asleep == set()
    assert core.plant.net_w == ALL_W
    back = [(kind, target) for kind, target in core.plant.writes if kind in {"close", "wake"}]
    for machine in cut:
        assert back.index(("close", core.plant.machines[machine].switch)) < back.index(("wake", machine))


async def test_five_thousand_machines_are_never_all_spoken_to_at_once(core: Core) -> None:
    """The agent's own fan-out: at most so many begun together, and those that wait for an answer bounded as well."""
    plan, now, most, told = core.shedder._fan_out, 0, 0, 0

    async def write() -> WriteOutcome:
        nonlocal now, most, told
        now, told = now + 1, told + 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, 0)

    report = await plan.run([Command(f"m{n}", write, f"group {n // 500}") for n in range(5000)])
    assert told == report.count(WriteStatus.ACKNOWLEDGED) == 5000
    assert most <= 64


async def test_a_command_for_which_no_socket_is_left_is_tried_again(core: Core) -> None:
    """The machine of a command that never left mines on; the next wave tells it once more, or another."""
    refused = {"left": 3}
    for machine in core.plant.machines.values():
        real = machine.sleep

        async def sleep(m: PlayedMachine = machine, go: object = real) -> WriteOutcome:
            if refused["left"]:
                refused["left"] -= 1
                core.plant.written("sleep", m.id)
                return WriteOutcome(WriteStatus.REFUSED, core.clock.now_ms(), "not sent: too many open files")
            return await go()  # type: ignore[operator]  # the machine's own

        machine.sleep = sleep  # type: ignore[method-assign]  # a played part stands in for the real one
    order = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= LIMIT_W
    assert len(core.plant.asleep) == 3
