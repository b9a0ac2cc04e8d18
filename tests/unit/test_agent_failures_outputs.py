"""Outputs and the person at the panel: what a position says, what a meter says, and whose switch it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drivers.capabilities import Position, SwitchState, WriteOutcome, WriteStatus
from tests.unit.agent_kit import BASE_W, MACHINE_W, Core, PlayedSwitch, running_core, small_site
from wire.orders import Escalation, Restore
from wire.states import Flag, OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
RACK_W = 4 * MACHINE_W
ONE_RACK_W = BASE_W + RACK_W + 1000
BY_SWITCH: dict[str, Any] = {"methods": ("switch",), "escalation": Escalation(to="switch", after_s=5)}
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


def opens(core: Core) -> list[str]:
    return [target for kind, target in core.plant.writes if kind == "open"]


# what the module answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [2, 3, 4, 6])
async def test_no_exception_of_a_module_is_taken_for_an_opening(core: Core, code: int) -> None:
    for name in ("KM1", "KM2"):
        refuse(core, core.plant.switches[name], f"exception {code}")
    order = await core.give("limit", limit_w=ONE_RACK_W, **BY_SWITCH)
    await core.until_state(order, S.FAILED)
    await core.pass_time(60, step_s=5)
    assert order.state is S.FAILED
    assert sorted(order.doc.not_open) == ["KM1", "KM2"]
    assert max(opens(core).count(name) for name in ("KM1", "KM2")) <= 2
    rows = await core.ledger.read("SELECT status, detail FROM step WHERE kind='open'")
    assert {status for status, _ in rows} == {"not_open"}
    assert all(f"exception {code}" in detail for _, detail in rows), "the journal keeps what the module said"


def refuse(core: Core, switch: PlayedSwitch, why: str) -> None:
    async def refused() -> WriteOutcome:
        core.plant.written("open", switch.id)
        return WriteOutcome(WriteStatus.REFUSED, core.clock.now_ms(), why)

    switch.open = refused  # type: ignore[method-assign]  # a played part stands in for the real one


async def test_a_position_that_follows_late_is_waited_for_and_no_third_write_is_made(core: Core) -> None:
    late(core, core.plant.switches["KM1"], 4.0)
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    await core.until_state(order, S.HOLDING)
    assert opens(core) == ["KM1"] * len(opens(core))
    assert len(opens(core)) <= 2
    assert order.doc.not_open == []
    assert Flag.DEGRADED not in order.flags
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert core.plant.switches["KM1"].closed


async def test_a_switch_that_somebody_opened_after_ours_failed_is_his_to_close(core: Core) -> None:
    switch = core.plant.switches["KM1"]
    switch.stuck = True
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",), restore=AT_ONCE)
    await core.until_state(order, S.FAILED)
    await core.pass_time(30)
    switch.closed = False  # an electrician, by hand
    await core.until_state(order, S.HOLDING)
    assert "KM1 was opened by others: they close it" in [e["text"] for e in await core.effects(order.id)]
    switch.stuck = False
    await core.pass_time(60, step_s=5)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert not switch.closed
    assert "close" not in {kind for kind, _ in core.plant.writes}


def late(core: Core, switch: PlayedSwitch, seconds: float) -> None:
    """Its gateway shows positions of so many seconds ago."""
    real, seen = switch.read, [(0, Position.CLOSED)]

    async def read() -> SwitchState:
        state = await real()
        seen.append((core.clock.mono_ns(), state.position))
        then = core.clock.mono_ns() - round(seconds * 1e9)
        return replace(state, position=[p for at, p in seen if at <= then][-1])

    switch.read = read  # type: ignore[method-assign]  # a played part stands in for the real one


# contacts that lie ---------------------------------------------------------------------------------------------------


def lie(switch: PlayedSwitch, *, welded: bool = True) -> None:
    """Its auxiliary contact follows the command; the main contacts do not."""
    switch.stuck = welded
    real = switch.read

    async def read() -> SwitchState:
        state = await real()
        return replace(state, position=Position.OPEN) if "open" in [k for k, _ in switch.plant.writes] else state

    switch.read = read  # type: ignore[method-assign]  # its auxiliary contact is broken


async def test_a_named_feeder_whose_meter_shows_load_is_not_called_open(core: Core) -> None:
    lie(core.plant.switches["KM1"])
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    for _ in range(60):
        await core.step()
        assert order.state is not S.HOLDING
    assert order.state is S.FAILED
    effect = (await core.effects(order.id))[-1]
    assert (effect["state"], "degraded" in effect["flags"]) == ("failed", True)
    assert "KM1 is read open, and M1 shows 14.0 kW" in effect["text"]
    core.plant.switches["KM1"].stuck = False
    core.plant.switches["KM1"].closed = False  # somebody opened it by hand
    await core.until_state(order, S.HOLDING)


async def test_a_named_feeder_whose_meter_is_silent_or_dark_is_open_by_its_position(core: Core) -> None:
    core.plant.dark_meters = {"em-1": "KM1"}
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    await core.until_state(order, S.HOLDING, within_s=60)
    assert Flag.DEGRADED not in order.flags


async def test_a_contact_that_reads_the_other_way_round_opens_nothing_twice_and_closes_nothing(core: Core) -> None:
    switch = core.plant.switches["KM1"]
    turned = {Position.OPEN: Position.CLOSED, Position.CLOSED: Position.OPEN}
    real = switch.read

    async def read() -> SwitchState:
        state = await real()
        return replace(state, position=turned.get(state.position, state.position))

    switch.read = read  # type: ignore[method-assign]  # wired to the wrong terminals
    await core.step()
    order = await core.give("limit", limit_w=ONE_RACK_W, **BY_SWITCH)
    await core.until_state(order, S.HOLDING)
    assert opens(core) == ["KM2"], "what reads open is not told to open, and the meter asks for another"
    assert core.plant.net_w <= ONE_RACK_W
    await core.pass_time(60, step_s=5)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert [t for k, t in core.plant.writes if k == "close"] == ["KM2"]


# other masters, watchdogs, people ------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [True, False], ids=["module back", "module locked"])
async def test_what_a_watchdog_opened_is_not_ours_and_stays_open(core: Core, returned: bool) -> None:
    order = await core.give("limit", limit_w=BASE_W + RACK_W + 8000, restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    slept = set(core.plant.asleep)
    core.plant.switches["KM1"].closed = False  # the module lost its master and fell to its safe state
    if not returned:
        refuse(core, core.plant.switches["KM1"], "exception 4: outputs are locked")
    await core.pass_time(60)
    await core.release(order)
    await core.pass_time(120, step_s=2)
    assert not core.plant.switches["KM1"].closed
    assert "close" not in {kind for kind, _ in core.plant.writes}
    woken = {t for k, t in core.plant.writes if k == "wake"}
    assert woken <= {m for m in slept if core.plant.machines[m].switch == "KM2"}


async def test_outputs_that_a_module_locks_are_reported_and_others_do_the_work(core: Core) -> None:
    first = core.plant.switches["KM1"]
    first.stuck = True  # it acknowledges, and its outputs stay as they are until a person unlocks them
    order = await core.give("limit", limit_w=ONE_RACK_W, **BY_SWITCH)
    await core.until_state(order, S.HOLDING)
    assert (first.closed, core.plant.switches["KM2"].closed) == (True, False)
    assert order.doc.not_open == (["KM1"] if "KM1" in opens(core) else [])


async def test_another_master_that_closes_what_is_held_is_answered_by_opening_alone(core: Core) -> None:
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    await core.until_state(order, S.HOLDING)
    await core.pass_time(10)
    core.plant.switches["KM1"].closed = True
    await core.until(lambda: not core.plant.switches["KM1"].closed, within_s=30)
    core.plant.switches["KM1"].closed = True
    await core.pass_time(60)
    assert opens(core) == ["KM1", "KM1"], "no war of two masters"
    assert "close" not in {kind for kind, _ in core.plant.writes}
    texts = [e["text"] for e in await core.effects(order.id)]
    assert texts.count("KM1 was closed by others") == 2
    assert Flag.LOCAL_OVERRIDE in order.flags


async def test_a_person_at_the_panel_who_closes_it_keeps_it_and_the_dispatcher_hears(core: Core) -> None:
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",), restore=AT_ONCE)
    await core.until_state(order, S.HOLDING)
    switch = core.plant.switches["KM1"]
    switch.remote, switch.closed = False, True
    await core.pass_time(30)
    assert opens(core) == ["KM1"]
    assert "KM1 was closed by others" in [e["text"] for e in await core.effects(order.id)]
    switch.closed = False  # and opens it again
    switch.remote = True
    await core.pass_time(60, step_s=2)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert "close" not in {kind for kind, _ in core.plant.writes}, "since he moved it, it is not ours to close"


async def test_a_switch_that_automatics_close_again_is_never_called_open_and_is_unarmed(core: Core) -> None:
    switch, guard_s = core.plant.switches["KM1"], core.gates.switches["KM1"].reclose_guard_s
    assert guard_s > 2
    recloses(switch, 2.0)
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    for _ in range(60):
        await core.step()
        assert order.state is not S.HOLDING
    assert "holding" not in [e["state"] for e in await core.effects(order.id)]
    assert opens(core) == ["KM1", "KM1"]
    assert any("KM1 is unarmed" in e["text"] for e in await core.effects(order.id))
    assert core.gates.unusable("KM1") == "not commissioned"
    assert [e["obj"] for e in await core.records("event", "site") if e["ev"] == "unarmed"] == ["KM1"]
    await core.reboot()
    assert core.gates.unusable("KM1") == "not commissioned"
    assert core.gates.unusable("KM2") is None


def recloses(switch: PlayedSwitch, after_s: float) -> None:
    """АПВ: it closes by itself so long after each opening."""
    real_open, real_read, due = switch.open, switch.read, [0]

    async def opened() -> WriteOutcome:
        due[0] = switch.plant.clock.mono_ns() + round(after_s * 1e9)
        return await real_open()

    async def read() -> SwitchState:
        if due[0] and switch.plant.clock.mono_ns() >= due[0]:
            switch.closed, due[0] = True, 0
        return await real_read()

    switch.open = opened  # type: ignore[method-assign]  # a played part stands in for the real one
    switch.read = read  # type: ignore[method-assign]  # as above


async def test_a_person_who_closes_it_later_unarms_nothing(core: Core) -> None:
    order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
    await core.until_state(order, S.HOLDING)
    for _ in range(3):
        await core.pass_time(30)
        core.plant.switches["KM1"].closed = True
    await core.pass_time(30)
    assert core.gates.unusable("KM1") is None


# protection, tags ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["auto", "by_person"])
async def test_after_a_trip_of_protection_the_release_closes_nothing_and_says_why(tmp_path: Path, rule: str) -> None:
    site = small_site()
    nodes = tuple(n.model_copy(update={"close": rule}) if n.id == "KM1" else n for n in site.nodes)
    async with running_core(tmp_path, site=site.model_copy(update={"nodes": nodes})) as core:
        order = await core.give("emergency_trip", restore=AT_ONCE)
        await core.until_state(order, S.HOLDING)
        core.plant.switches["KM1"].protection_trip = True
        await core.pass_time(60, step_s=5)
        await core.release(order)
        await core.pass_time(120, step_s=5)
        assert not core.plant.switches["KM1"].closed
        assert core.plant.switches["KM2"].closed
        said = core.progress[-1]
        assert said.waiting_for == ("KM1",)
        assert "KM1: tripped by protection" in said.text
        core.plant.switches["KM1"].protection_trip = False  # acknowledged by a person
        await core.pass_time(30, step_s=5)
        if rule == "by_person":
            assert core.progress[-1].text == "KM1: may be closed, by a person"
        assert core.plant.switches["KM1"].closed is (rule == "auto")


async def tagged(core: Core) -> None:
    await core.gates.tag("KM1", "Dana", "permit 12")


async def unlocked(core: Core) -> None:
    await core.gates.set_saon_lock("stage 1")
    await core.pass_time(5)
    (order,) = core.journal.live.values()
    answer = await core.send(core.order("release", target=order.id), core.people.dispatcher, core.people.engineer)
    assert answer["state"] == "validated"
    assert core.gates.saon_lock is None


async def restarted(core: Core) -> None:
    await core.reboot()


async def upgraded(core: Core) -> None:
    """Another version of the program, with another version of the profiles."""
    await core.shut()
    await core.boot(run=False)
    core.gates.profile_version = lambda _profile: "2"
    core.gates.load()
    await core.go()


async def released(core: Core) -> None:
    for order in list(core.journal.live.values()):
        await core.release(order)


STEPS: dict[str, Callable[[Core], Any]] = {
    "release": released,
    "САОН unlock": unlocked,
    "restart": restarted,
    "upgrade": upgraded,
}


@pytest.mark.parametrize("way", [("release",), ("САОН unlock",), ("restart", "release"), ("upgrade", "release")])
async def test_under_a_tag_nothing_closes_whatever_comes(core: Core, way: tuple[str, ...]) -> None:
    order = (await core.give("emergency_trip", restore=AT_ONCE)).id
    await core.until(lambda: core.journal.live[order].state is S.HOLDING)
    await tagged(core)
    for step in way:
        await STEPS[step](core)
        await core.pass_time(60, step_s=2)
    await core.pass_time(60, step_s=2)
    assert not core.plant.switches["KM1"].closed
    assert ("close", "KM1") not in core.plant.writes
    assert "KM1" in core.journal.held, "it is still the order's to give back once the tag is off"
