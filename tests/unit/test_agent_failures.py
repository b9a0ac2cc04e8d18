"""What goes wrong at outputs, meters, links and in the order of messages: nothing is called met that is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drivers.capabilities import Position, SwitchState, WriteOutcome, WriteStatus
from tests.unit.agent_kit import BASE_W, MACHINE_W, Core, PlayedSwitch, running_core, sealed
from wire.orders import Escalation, Restore
from wire.states import Flag, OrderState

S = OrderState
RACK_W = 4 * MACHINE_W
ONE_RACK_W = BASE_W + RACK_W + 1000
"""One board less is enough for this limit."""
BY_SWITCH: dict[str, Any] = {"methods": ("switch",), "escalation": Escalation(to="switch", after_s=5)}


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


def opens(core: Core) -> list[str]:
    return [target for kind, target in core.plant.writes if kind == "open"]


# outputs -------------------------------------------------------------------------------------------------------------


async def test_a_time_out_after_the_write_took_effect_is_settled_by_the_position(core: Core) -> None:
    for switch in core.plant.switches.values():
        unsure(switch)
    order = await core.give("limit", limit_w=ONE_RACK_W, **BY_SWITCH)
    await core.until_state(order, S.HOLDING)
    assert len(opens(core)) == 1, "it is never just told again"
    assert order.doc.not_open == []


def unsure(switch: PlayedSwitch) -> None:
    real = switch.open

    async def late() -> WriteOutcome:
        return replace(await real(), status=WriteStatus.UNKNOWN, detail="no answer within 1 s")

    switch.open = late  # type: ignore[method-assign]  # the answer is lost, the write is not


async def test_an_output_that_answers_with_an_exception_is_planned_around(core: Core) -> None:
    first = core.plant.switches["KM1"]

    async def refused() -> WriteOutcome:
        core.plant.written("open", "KM1")
        return WriteOutcome(WriteStatus.REFUSED, core.clock.now_ms(), "exception 6: device busy")

    first.open = refused  # type: ignore[method-assign]  # a played part stands in for the real one
    order = await core.give("limit", limit_w=ONE_RACK_W, **BY_SWITCH)
    await core.until_state(order, S.HOLDING)
    assert "KM2" in opens(core)
    assert (first.closed, core.plant.net_w <= ONE_RACK_W) == (True, True)
    assert order.doc.not_open == ["KM1"]


async def test_a_contact_that_says_open_while_power_flows_proves_nothing(core: Core) -> None:
    lie(core.plant.switches["KM1"])
    order = await core.give("limit", limit_w=ONE_RACK_W, **BY_SWITCH)
    await core.until_state(order, S.HOLDING)
    assert set(opens(core)) == {"KM1", "KM2"}, "the meter said that the first brought nothing"
    assert core.plant.net_w <= ONE_RACK_W


def lie(switch: PlayedSwitch) -> None:
    switch.stuck = True
    real = switch.read

    async def read() -> SwitchState:
        state = await real()
        return replace(state, position=Position.OPEN) if "open" in [k for k, _ in switch.plant.writes] else state

    switch.read = read  # type: ignore[method-assign]  # its auxiliary contact is broken


async def test_a_loose_contact_is_no_proof_until_it_stays(core: Core) -> None:
    switch, loose = core.plant.switches["KM1"], True
    real, turn = switch.read, 0

    async def read() -> SwitchState:
        nonlocal turn
        turn += 1
        state = await real()
        return replace(state, position=Position.MOVING) if loose and not switch.closed and turn % 3 == 0 else state

    switch.read = read  # type: ignore[method-assign]  # a played part stands in for the real one
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    for _ in range(60):
        await core.step()
        assert order.state is not S.HOLDING or core.live.switches["KM1"].position is Position.OPEN
    loose = False
    await core.until_state(order, S.HOLDING)
    assert opens(core) == ["KM1"]


async def test_what_tripped_by_itself_is_not_ours_to_close(core: Core) -> None:
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    await core.until_state(order, S.HOLDING)
    core.plant.switches["KM2"].closed = False
    await core.pass_time(70, step_s=5)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert core.plant.switches["KM1"].closed
    assert not core.plant.switches["KM2"].closed


# meters --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra_w", [-400_000, 40_000_000])
async def test_power_that_cannot_be_is_not_known_and_meets_nothing(core: Core, extra_w: int) -> None:
    """A sign that was reversed, a register that jumped: the site has no generation, and no such contract."""
    order = await core.give("limit", limit_w=50_000)
    core.plant.extra_w = extra_w
    await core.pass_time(60)
    assert order.state is not S.HOLDING
    assert Flag.BLIND in order.flags
    assert core.live.power("M0").value_w is None
    core.plant.extra_w = 0
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= 50_000


async def test_load_that_jumps_up_in_the_middle_of_a_return_stops_it_at_the_other_limit(core: Core) -> None:
    restore = Restore(stage_permille=200, stage_delay_s=10)
    strict = await core.give("limit", limit_w=37_000, restore=restore)
    loose = await core.give("limit", limit_w=56_000)
    await core.until_state(strict, S.HOLDING)
    await core.until_state(loose, S.HOLDING)
    await core.release(strict)
    await core.until(lambda: strict.doc.stages >= 3)
    core.plant.extra_w = 8_000
    over_s = 0
    for _ in range(60):
        await core.step(5)
        over_s += 5 * (core.plant.net_w > 56_000)
    assert over_s <= 30, "what came too much goes down again at once"
    assert core.plant.net_w <= 56_000
    assert loose.state is S.HOLDING


# messages ------------------------------------------------------------------------------------------------------------


async def test_a_second_release_changes_nothing_and_is_answered(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    release = core.order("release", target=order.id)
    assert (await core.send(release))["state"] == "validated"
    await core.until(lambda: not core.journal.live)
    writes = len(core.plant.writes)
    await core.reception.take(sealed(release, core.people.dispatcher), False)
    assert (await core.answers())[-1]["code"] == "replay"
    assert (await core.send(core.order("release", target=order.id)))["code"] == "unknown_order"
    await core.pass_time(30)
    assert len(core.plant.writes) == writes


async def test_a_release_of_what_was_superseded_gives_nothing_back(core: Core) -> None:
    first = await core.give("limit", limit_w=50_000)
    await core.until_state(first, S.HOLDING)
    second = await core.give("limit", limit_w=45_000, supersedes=first.id)
    await core.until(lambda: first.id not in core.journal.live and second.state is S.HOLDING)
    assert (await core.send(core.order("release", target=first.id)))["code"] == "unknown_order"
    await core.pass_time(60)
    assert core.plant.net_w <= 45_000


async def test_an_order_in_the_middle_of_a_return_takes_load_down_again(core: Core) -> None:
    first = await core.give("limit", limit_w=37_000, restore=Restore(stage_permille=200, stage_delay_s=10))
    await core.until_state(first, S.HOLDING)
    await core.release(first)
    await core.until(lambda: first.doc.stages >= 2)
    second = await core.give("limit", limit_w=40_000)
    await core.until_state(second, S.HOLDING)
    await core.pass_time(300, step_s=5)
    assert core.plant.net_w <= 40_000


# the process and its links -------------------------------------------------------------------------------------------


async def test_three_days_without_a_link_change_nothing(core: Core) -> None:
    order = await core.give("limit", limit_w=45_000, lease_s=60)
    await core.until_state(order, S.HOLDING)
    core.online, core.silence_s = False, 3600.0
    writes = len(core.plant.writes)
    await core.pass_time(72 * 3600, step_s=1200)
    assert (order.state, len(core.plant.writes)) == (S.HOLDING, writes)
    assert Flag.ORPHANED in order.flags
    core.online, core.silence_s = True, 0.0
    await core.release(order)
    await core.until(lambda: not core.journal.live)


async def test_a_process_that_got_no_time_for_a_minute_still_ends_where_it_should(core: Core) -> None:
    order = await core.give("limit", limit_w=45_000)
    for _ in range(8):
        await core.step(60)
    assert order.state is S.HOLDING
    assert 45_000 - 2 * MACHINE_W < core.plant.net_w <= 45_000
