"""A restart in any state: the journal and the positions decide, and only OPEN is ever written again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from agent.curtailment.gates import Gates
from agent.curtailment.journal import LiveOrder
from agent.curtailment.reception import Reception
from agent.errors import LedgerError
from agent.ledger import Txn
from tests.unit.agent_kit import BASE_W, MACHINE_W, Core, running_core
from wire.orders import Hold, Restore
from wire.states import OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


def snapshot(core: Core, folder: Path) -> None:
    folder.mkdir()
    for path in core.path.parent.glob("ledger.*"):
        shutil.copy(path, folder / path.name)


async def crash(core: Core, folder: Path) -> None:
    """The process ends now, and the next one finds the files as they are on disk at this instant."""
    snapshot(core, folder)
    await core.shut()
    core.path = core.plant.ledger_path = folder / "ledger.db"
    await core.boot()


async def test_what_is_held_is_held_after_a_restart_and_comes_back_by_its_release(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    held, wrote = dict(core.journal.held), list(core.plant.writes)
    await core.reboot()
    again = core.journal.live[order.id]
    assert again.state is S.HOLDING
    assert core.journal.held == held
    await core.pass_time(20)
    assert core.plant.writes == wrote, "nothing is written because of a restart"
    await core.release(again)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_a_wave_cut_off_in_the_middle_is_finished_after_the_restart(core: Core, tmp_path: Path) -> None:
    order = await core.give("emergency_trip", restore=AT_ONCE)
    cut = asyncio.Event()

    def note(_kind: str, _target: str) -> None:
        cut.set()
        raise ConnectionError("the process dies here")

    core.plant.at_write = note
    core.wake.set()
    await asyncio.wait_for(cut.wait(), 10)
    core.plant.at_write = lambda _kind, _target: None
    before = list(core.plant.writes)
    assert all(core.plant.switches[t].closed for _, t in before)
    await crash(core, tmp_path / "after")
    assert order.id in core.journal.live
    await core.until(lambda: core.journal.live[order.id].state is S.HOLDING)
    assert core.plant.net_w == BASE_W
    assert {k for k, _ in core.plant.writes} == {"open"}


async def unfinished(core: Core, order: LiveOrder, kind: str, target: str) -> None:
    """An intent whose answer the process did not live to record."""
    await core.ledger.commit(
        Txn()
        .run(
            "INSERT INTO step (order_id, n, kind, target, expected_w, prior, intent_ms) VALUES (?,?,?,?,?,?,?)",
            order.id,
            99,
            kind,
            target,
            14_000,
            '{"mode":"normal"}',
            core.clock.now_ms(),
        )
        .run(
            "INSERT OR IGNORE INTO held VALUES (?,?,?,?,?,?)",
            target,
            "switch" if target.startswith("KM") else "machine",
            order.id,
            '{"mode":"normal"}',
            14_000,
            core.clock.now_ms(),
        ),
        urgent=True,
    )


@pytest.mark.parametrize(
    ("kind", "target", "closed", "writes"),
    [
        ("open", "KM1", True, [("open", "KM1")]),
        ("open", "KM1", False, []),
        ("close", "KM1", True, []),
        ("close", "KM1", False, []),
        ("sleep", "rack1/1", True, []),
        ("wake", "rack1/1", True, []),
    ],
)
async def test_only_open_is_written_again_and_only_where_the_switch_is_not_open(
    core: Core, kind: str, target: str, closed: bool, writes: list[tuple[str, str]]
) -> None:
    order = await core.give("limit", limit_w=ALL_W)
    await core.until_state(order, S.HOLDING)
    await unfinished(core, order, kind, target)
    core.plant.switches["KM1"].closed = closed
    await core.shut()
    await core.boot(run=False)
    assert core.plant.writes == writes
    assert core.journal.open_steps() == [], "every intent has an outcome after recovery"
    assert core.live.switches["KM1"].position is not None
    assert ("KM1" in core.journal.held) is (kind == "open" or (kind == "close" and not closed))


async def test_an_open_of_an_order_that_was_released_meanwhile_is_not_written_again(core: Core) -> None:
    order = await core.give("limit", limit_w=ALL_W, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    await core.shut()
    await core.boot(run=False)
    live = core.journal.live[order.id]
    live.doc.released_by = "somebody"
    await core.journal.move(live, S.RESTORING, "released")
    await unfinished(core, live, "open", "KM1")
    await core.reboot(run=False)
    assert core.plant.writes == []


async def test_an_intent_of_an_order_that_ended_only_gets_its_outcome(core: Core) -> None:
    order = await core.give("limit", limit_w=ALL_W, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    await unfinished(core, order, "open", "KM1")
    await core.reboot(run=False)
    assert core.plant.writes == []
    assert core.journal.open_steps() == []


async def executing(core: Core) -> LiveOrder:
    return await core.give("limit", limit_w=50_000, restore=AT_ONCE)


async def scheduled(core: Core) -> LiveOrder:
    order = await core.give("limit", limit_w=50_000, not_before=core.clock.now_ms() + 30_000, restore=AT_ONCE)
    await core.until_state(order, S.SCHEDULED)
    return order


async def failed(core: Core) -> LiveOrder:
    for machine in core.plant.machines.values():
        machine.refuses = True
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await core.until_state(order, S.FAILED)
    for machine in core.plant.machines.values():
        machine.refuses = False
    return order


async def restoring(core: Core) -> LiveOrder:
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    await core.release(order, not_before=core.clock.now_ms() + 30_000)
    await core.until_state(order, S.RESTORE_BLOCKED)
    return order


@pytest.mark.parametrize("state", [executing, scheduled, restoring])
async def test_an_order_goes_on_where_it_was(core: Core, state: Callable[[Core], object]) -> None:
    order = await state(core)  # type: ignore[misc]  # the table holds coroutine functions
    was = order.state
    await core.reboot()
    again = core.journal.live[order.id]
    assert again.doc.target_w == 50_000
    if state is restoring:
        assert again.state is was
        await core.until(lambda: order.id not in core.journal.live)
        assert core.plant.net_w == ALL_W
        return
    await core.until_state(again, S.HOLDING)
    assert core.plant.net_w <= 50_000


async def test_a_failed_order_stays_failed_and_its_attempts_are_not_forgotten(core: Core) -> None:
    order = await failed(core)
    tries = dict(order.doc.attempts)
    await core.reboot()
    again = core.journal.live[order.id]
    assert again.state is S.FAILED
    assert again.doc.attempts == tries
    wrote = len(core.plant.writes)
    await core.pass_time(60, step_s=5)
    assert len(core.plant.writes) == wrote
    assert again.state is S.FAILED


@contextlib.contextmanager
def cut_before(what: str) -> Iterator[None]:
    """The process dies after an order was accepted, durably and with a signed answer, and before this."""
    with mock.patch.object(Reception, what, side_effect=LedgerError("the process dies here")):
        yield


async def test_a_release_that_was_accepted_and_cut_off_takes_effect_after_the_restart(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    given = core.order("release", target=order.id)
    with cut_before("_apply"):
        assert (await core.send(given))["state"] == "validated"
    assert core.journal.live[order.id].doc.released_by is None
    await core.reboot()
    assert core.journal.live[order.id].doc.released_by == given.id
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_what_a_cut_off_release_would_have_unlocked_stays_locked(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    await core.gates.set_saon_lock("stage 1")
    given, two = core.order("release", target=order.id), (core.people.dispatcher, core.people.second)
    with mock.patch.object(Gates, "set_saon_lock", side_effect=LedgerError("the process dies here")):
        await core.send(given, *two)
    wrote = list(core.plant.writes)
    await core.reboot()
    assert core.journal.live[order.id].doc.released_by == given.id
    await core.pass_time(20)
    assert core.plant.writes == wrote, "a lock is taken off by a release that saw it, never by a restart"
    assert core.gates.saon_lock is not None
    await core.send(core.order("release", target=order.id), *two)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_a_drill_of_a_release_takes_effect_neither_before_nor_after_a_restart(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    await core.release(order, mode="drill")
    await core.reboot()
    await core.pass_time(5)
    assert core.journal.live[order.id].state is S.HOLDING


async def test_an_extension_and_a_cancellation_that_were_cut_off_take_effect_after_the_restart(core: Core) -> None:
    until = core.clock.now_ms() + 600_000
    order = await core.give("limit", limit_w=50_000, hold=Hold(until=until), restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    with cut_before("_apply"):
        await core.send(core.order("extend", target=order.id, hold=Hold(until=until + 60_000)))
        await core.send(core.order("extend", target=order.id, hold=Hold(until=until + 90_000)))
        await core.send(core.order("cancel", target=order.id))
    await core.reboot()
    again = core.journal.live[order.id]
    assert (again.state, again.doc.hold_until, again.doc.stop_shedding) == (S.HOLDING, until + 90_000, True)


async def test_a_supersession_that_was_cut_off_is_finished_after_the_restart(core: Core) -> None:
    old = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await core.until_state(old, S.HOLDING)
    with cut_before("_supersede"):
        new = core.order("limit", limit_w=45_000, supersedes=old.id, restore=AT_ONCE)
        await core.send(new)
    assert {h.order_id for h in core.journal.held.values()} == {old.id}
    await core.reboot()
    await core.until(lambda: old.id not in core.journal.live and core.journal.live[new.id].state is S.HOLDING)
    assert {h.order_id for h in core.journal.held.values()} == {new.id}
    assert core.plant.net_w <= 45_000


async def test_selection_does_not_survive_a_restart(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, not_before=core.clock.now_ms() + 10_000)
    await core.until_state(order, S.SCHEDULED)
    await core.shut()
    await core.boot(run=False)
    live = core.journal.live[order.id]
    await core.journal.move(live, S.ARMED, "plan made")
    await core.reboot(run=False)
    assert core.journal.live[order.id].state is S.VALIDATED


async def test_an_order_that_expired_while_the_agent_was_down_never_acts(core: Core) -> None:
    now = core.clock.now_ms()
    order = await core.give("limit", limit_w=50_000, not_before=now + 30_000, execute_by=now + 60_000)
    await core.until_state(order, S.SCHEDULED)
    await core.shut()
    core.clock.advance(3600)
    core.plant.forbidden = True
    await core.boot()
    await core.pass_time(10)
    assert await core.state(order.id) is S.EXPIRED


async def test_numbers_and_identifiers_are_remembered(core: Core) -> None:
    order = core.order("limit", limit_w=ALL_W)
    await core.send(order)
    await core.reboot()
    other = order.model_copy(update={"limit_w": 10_000})
    assert (await core.send(other))["code"] == "id_reuse"
    low = core.order("limit", limit_w=ALL_W).model_copy(update={"seq": order.seq})
    assert (await core.send(low))["code"] == "old_seq"
    again = await core.send(order)
    assert again["dup"] is True
    assert again["code"] is None


async def takes_nothing(core: Core, full: bool) -> None:
    """The journal's disk takes no byte more. On one that is full for large records alone, small ones still pass."""
    await core.ledger.read(f"PRAGMA query_only={'ON' if full else 'OFF'}")
    if full:
        with pytest.raises(LedgerError):
            await core.ledger.commit(Txn().record("site", "event", {"ev": "x"}), urgent=True)


@pytest.mark.parametrize("full", ["before", "between"])
async def test_no_journal_no_movement(core: Core, full: str) -> None:
    """The disk takes nothing more before the order, or between its acceptance and its first step."""
    if full == "between":
        order = await core.give("limit", limit_w=50_000, not_before=core.clock.now_ms() + 5_000)
        await core.until_state(order, S.SCHEDULED)
    await takes_nothing(core, True)
    core.plant.forbidden = True
    if full == "before":
        accepted = len(core.journal.live)
        raw = core.order("limit", limit_w=50_000)
        await core.reception.take(_sealed(core, raw), False)
        assert len(core.journal.live) == accepted
        assert core.reception.refused == {"no_journal": 1}
    await core.pass_time(30)
    assert core.plant.net_w == ALL_W
    await takes_nothing(core, False)
    core.plant.forbidden = False
    if full == "between":
        await core.until(lambda: core.plant.net_w <= 50_000)
    else:
        await core.give("limit", limit_w=50_000)
        await core.until(lambda: core.plant.net_w <= 50_000)


async def test_a_repetition_while_the_disk_is_full_does_no_harm(core: Core) -> None:
    order = core.order("limit", limit_w=ALL_W)
    await core.send(order)
    await takes_nothing(core, True)
    await core.reception.take(_sealed(core, order), False)
    assert order.id in core.journal.live


def _sealed(core: Core, order: object) -> bytes:
    from tests.unit.agent_kit import sealed

    return sealed(order, core.people.dispatcher)  # type: ignore[arg-type]  # an Order
