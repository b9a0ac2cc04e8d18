"""Links, clocks, disks and upgrades: losing them changes nothing that is held, and getting them back frees nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent.curtailment.journal import LiveOrder
from agent.errors import LedgerError
from tests.unit.agent_kit import BASE_W, MACHINE_W, Core, running_core
from wire.orders import Hold, Restore
from wire.states import Flag, OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
LIMIT_W = 50_000
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)
SLOWLY = Restore(stage_permille=100, stage_delay_s=20)
DAY_S = 86_400


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


# the link ------------------------------------------------------------------------------------------------------------


async def scheduled(core: Core) -> LiveOrder:
    order = await core.give("limit", limit_w=LIMIT_W, not_before=core.clock.now_ms() + 20_000, lease_s=60)
    await core.until_state(order, S.SCHEDULED)
    return order


async def acting(core: Core) -> LiveOrder:
    order = await core.give("limit", limit_w=37_000, ramp_w_per_min=2 * MACHINE_W, lease_s=60)
    await core.until(lambda: core.plant.asleep)
    return order


async def holding(core: Core) -> LiveOrder:
    order = await core.give("limit", limit_w=LIMIT_W, lease_s=60)
    await core.until_state(order, S.HOLDING)
    return order


async def failed(core: Core) -> LiveOrder:
    for machine in core.plant.machines.values():
        machine.refuses = True
    order = await core.give("limit", limit_w=LIMIT_W, lease_s=60)
    await core.until_state(order, S.FAILED)
    return order


async def returning(core: Core) -> LiveOrder:
    order = await core.give("limit", limit_w=37_000, lease_s=60, restore=SLOWLY)
    await core.until_state(order, S.HOLDING)
    await core.release(order)
    await core.until(lambda: order.doc.stages >= 1)
    return order


@pytest.mark.parametrize("state", [scheduled, acting, holding, failed, returning])
async def test_the_operator_lost_in_any_state_changes_nothing_that_was_ordered(
    core: Core, state: Callable[[Core], Awaitable[LiveOrder]]
) -> None:
    order = await state(core)
    core.online, core.silence_s = False, 3600.0
    await core.pass_time(600, step_s=2)
    if state is returning:
        assert order.id not in core.journal.live, "what was released comes back: the word was given before"
        assert core.plant.net_w == ALL_W
        return
    assert Flag.ORPHANED in order.flags
    assert "wake" not in {kind for kind, _ in core.plant.writes}
    assert "close" not in {kind for kind, _ in core.plant.writes}
    if state is failed:
        assert (order.state, core.plant.net_w) == (S.FAILED, ALL_W)
    else:
        assert order.state is S.HOLDING
        assert core.plant.net_w <= (order.doc.target_w or 0)
    core.online, core.silence_s = True, 0.0
    await core.pass_time(10)
    assert Flag.ORPHANED not in order.flags
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_a_hold_that_ended_while_the_link_was_down_waits_for_what_the_operator_said_meanwhile(
    core: Core,
) -> None:
    now = core.clock.now_ms()
    order = await core.give(
        "limit", limit_w=LIMIT_W, hold=Hold(until=now + 120_000, restore_auto=True), restore=AT_ONCE
    )
    await core.until_state(order, S.HOLDING)
    core.online, core.silence_s = False, 600.0
    await core.pass_time(600, step_s=2)
    assert (order.state, core.plant.net_w <= LIMIT_W) == (S.HOLDING, True)
    extension = core.order("extend", target=order.id, hold=Hold(until=core.clock.now_ms() + 600_000))
    core.online = True  # the broker is there again; what central kept for the site is on its way
    await core.pass_time(5)
    assert (await core.send(extension))["state"] == "validated"
    core.silence_s = 0.0
    await core.pass_time(300, step_s=2)
    assert order.state is S.HOLDING
    assert core.plant.net_w <= LIMIT_W
    await core.until(lambda: not core.journal.live, within_s=900)
    assert core.plant.net_w == ALL_W


async def test_an_extension_of_what_returns_by_itself_takes_the_load_down_again(core: Core) -> None:
    now = core.clock.now_ms()
    order = await core.give("limit", limit_w=37_000, hold=Hold(until=now + 120_000, restore_auto=True), restore=SLOWLY)
    await core.until_state(order, S.HOLDING)
    await core.until(lambda: order.doc.stages >= 1)
    until = core.clock.now_ms() + 600_000
    answer = await core.send(core.order("extend", target=order.id, hold=Hold(until=until)))
    assert answer["state"] == "validated"
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= 37_000
    await core.reboot()
    again = core.journal.live[order.id]
    await core.pass_time(300, step_s=5)
    assert (again.state, core.plant.net_w <= 37_000) == (S.HOLDING, True)
    await core.until(lambda: not core.journal.live, within_s=900)
    assert core.plant.net_w == ALL_W


async def test_an_extension_of_what_a_person_released_is_refused(core: Core) -> None:
    order = await core.give("limit", limit_w=37_000, restore=SLOWLY)
    await core.until_state(order, S.HOLDING)
    await core.release(order)
    await core.until(lambda: order.doc.stages >= 1)
    answer = await core.send(core.order("extend", target=order.id, hold=Hold(until=core.clock.now_ms() + 600_000)))
    assert (answer["state"], answer["code"]) == ("rejected", "unknown_order")
    assert "released" in answer["text"]
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_site_and_centre_apart_and_together_again_know_one_order(core: Core) -> None:
    """The operator's order came by hand while the link was down; central sends it, and another one, afterwards."""
    core.online, core.silence_s = False, 600.0
    by_hand = core.order("limit", limit_w=LIMIT_W)
    await core.send(by_hand)
    await core.until_state(core.journal.live[by_hand.id], S.HOLDING)
    core.online, core.silence_s = True, 0.0
    again = await core.send(by_hand)
    assert again["dup"] is True
    other = core.order("limit", limit_w=55_000)
    await core.send(other, core.people.second)
    await core.until_state(core.journal.live[other.id], S.HOLDING)
    for _ in range(30):
        await core.step(2)
        assert core.plant.net_w <= LIMIT_W, "the stricter of the two holds, whichever way it came"


# clocks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_s", [-3600, -1, 1, DAY_S], ids=["back 1 h", "back 1 s", "leap second", "forward 1 day"])
async def test_no_step_of_the_clock_ends_a_hold_or_an_order(core: Core, by_s: int) -> None:
    now = core.clock.now_ms()
    order = await core.give(
        "limit", limit_w=LIMIT_W, hold=Hold(until=now + 3_600_000, restore_auto=True), restore=AT_ONCE
    )
    await core.until_state(order, S.HOLDING)
    core.clock.wall_ms += by_s * 1000
    if abs(by_s) > 1:  # what the step watch of the process tells the engine
        core.engine.clock_stepped(by_s * 1000)
    await core.pass_time(600, step_s=10)
    assert order.state is S.HOLDING
    assert core.plant.net_w <= LIMIT_W
    assert "wake" not in {kind for kind, _ in core.plant.writes}
    await core.release(order) if by_s > -3600 else None


# the process and its disk --------------------------------------------------------------------------------------------


async def test_an_upgrade_while_it_holds_keeps_switches_open_and_leaves_their_closing_to_people(core: Core) -> None:
    order = (await core.give("emergency_trip", restore=AT_ONCE)).id
    await core.until(lambda: core.journal.live[order].state is S.HOLDING)
    writes = list(core.plant.writes)
    await core.shut()
    await core.boot(run=False)
    core.gates.profile_version = lambda _profile: "2"  # the new version has other profiles
    core.gates.load()
    await core.go()
    await core.pass_time(60, step_s=2)
    assert core.journal.live[order].state is S.HOLDING
    assert core.plant.writes == writes, "an upgrade moves nothing"
    await core.release(order)
    await core.pass_time(60, step_s=2)
    assert core.plant.writes == writes, "outputs are unarmed until they are proven again"
    assert core.progress[-1].waiting_for == ("KM1", "KM2")
    assert "commissioning lapsed" in core.progress[-1].text
    await core.act(core.commissioning(), core.people.dispatcher, core.people.engineer)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


@pytest.mark.parametrize("table", ["orders", "held", "step", "seq", "record"])
async def test_a_journal_with_a_torn_page_stops_the_start_and_moves_nothing(core: Core, table: str) -> None:
    order = await core.give("emergency_trip")
    await core.until_state(order, S.HOLDING)
    await core.shut()
    with sqlite3.connect(core.path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name=?", (table,)).fetchone()
    db.close()
    whole = core.path.read_bytes()
    torn = bytearray(whole)
    torn[(root - 1) * page_size : root * page_size] = b"\xa5" * page_size
    core.path.write_bytes(torn)
    core.plant.forbidden = True
    closed = core.ledger
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        await core.boot(run=False)
    if core.ledger is not closed:  # the process that could not start is gone, and its lock with it
        await core.ledger.close()
    assert not any(s.closed for s in core.plant.switches.values())
    core.path.write_bytes(whole)
    await core.boot()
    assert core.journal.live[order.id].state is S.HOLDING
