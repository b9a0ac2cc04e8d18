"""Shedding: what an order takes away, in which order, and what is said when it does not suffice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.agent_kit import (
    BASE_W,
    EMERGENCY_W,
    MACHINE_W,
    SLEEP_W,
    Core,
    make_order,
    running_core,
)
from wire.orders import Escalation
from wire.states import Flag, OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


async def test_a_limit_is_met_by_sleep_alone_and_held(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= 50_000
    assert {kind for kind, _ in core.plant.writes} == {"sleep"}
    assert len(core.plant.asleep) == 3, "no more machines than needed"
    assert order.flags == set()
    assert set(core.journal.held) == core.plant.asleep
    effect = (await core.effects(order.id))[-1]
    assert (effect["state"], effect["target_w"], effect["proof"]["point"]) == ("holding", 50_000, "M0")
    assert effect["power_w"] == core.plant.net_w
    assert effect["ms"]["confirmed"] is not None


async def test_a_limit_that_is_met_already_moves_nothing(core: Core) -> None:
    order = await core.give("limit", limit_w=ALL_W + 1000)
    await core.until_state(order, S.HOLDING)
    assert core.plant.writes == []


async def test_reduce_takes_its_amount_off_what_the_meter_shows(core: Core) -> None:
    order = await core.give("reduce", reduce_w=10_000)
    assert order.doc.target_w == ALL_W - 10_000
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= ALL_W - 10_000


async def test_no_target_goes_below_the_emergency_reservation(core: Core) -> None:
    order = await core.give("limit", limit_w=1000)
    assert order.doc.target_w == EMERGENCY_W


async def test_a_confirmation_needs_two_fresh_samples_read_after_the_last_write(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.VERIFYING)
    core.plant.meter_silent = True
    await core.pass_time(3)
    assert order.state is S.VERIFYING, "an old sample below the limit confirms nothing"
    core.plant.meter_silent = False
    await core.step()
    assert order.state is S.VERIFYING
    await core.until_state(order, S.HOLDING, within_s=2)


async def test_machines_that_refuse_are_planned_around(core: Core) -> None:
    for name in ("rack1/1", "rack1/2"):
        core.plant.machines[name].refuses = True
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= 50_000
    assert not {"rack1/1", "rack1/2"} & core.plant.asleep


async def test_an_acknowledgement_is_no_proof_a_deaf_machine_is_tried_twice_at_most(core: Core) -> None:
    for machine in core.plant.machines.values():
        machine.deaf = True
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.FAILED)
    await core.pass_time(60)
    for name in core.plant.machines:
        assert core.plant.writes.count(("sleep", name)) <= 2
    assert order.state is S.FAILED
    assert Flag.DEGRADED in order.flags


async def test_a_machine_whose_prior_state_cannot_be_read_is_not_changed(core: Core) -> None:
    for machine in core.plant.machines.values():
        machine.mute = True
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.FAILED)
    assert core.plant.writes == []
    assert core.journal.held == {}


async def test_without_permission_sleep_that_fails_does_not_escalate(core: Core) -> None:
    for machine in core.plant.machines.values():
        machine.refuses = True
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.FAILED)
    await core.pass_time(30)
    assert "open" not in {kind for kind, _ in core.plant.writes}
    effect = (await core.effects(order.id))[-1]
    assert effect["state"] == "failed"
    assert "missing 10.0 kW" in effect["text"]


async def test_with_permission_it_escalates_to_the_fewest_switches(core: Core) -> None:
    for machine in core.plant.machines.values():
        machine.refuses = True
    order = await core.give("limit", limit_w=50_000, escalation=Escalation(to="switch", after_s=5))
    await core.until_state(order, S.HOLDING)
    assert [w for w in core.plant.writes if w[0] == "open"] in ([("open", "KM1")], [("open", "KM2")])
    assert len(order.doc.escalated) == 1
    assert (await core.effects(order.id))[-1]["positions"] == [[order.doc.escalated[0], "open"]]


async def test_a_switch_that_does_not_open_is_planned_around_and_reported(core: Core) -> None:
    for machine in core.plant.machines.values():
        machine.refuses = True
    core.plant.switches["KM1"].stuck = True
    core.plant.switches["KM2"].stuck = False
    order = await core.give("limit", limit_w=50_000, escalation=Escalation(to="switch", after_s=5))
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= 50_000
    assert not core.plant.switches["KM2"].closed
    if ("open", "KM1") in core.plant.writes:
        assert order.doc.not_open == ["KM1"]
        assert Flag.DEGRADED in order.flags


async def test_no_switch_is_told_to_open_more_than_twice_under_one_order(core: Core) -> None:
    for switch in core.plant.switches.values():
        switch.stuck = True
    for machine in core.plant.machines.values():
        machine.refuses = True
    order = await core.give("limit", limit_w=40_000, escalation=Escalation(to="switch", after_s=5))
    await core.until_state(order, S.FAILED)
    await core.pass_time(120, step_s=5)
    for name in core.plant.switches:
        assert core.plant.writes.count(("open", name)) == 2
    assert sorted(order.doc.not_open) == ["KM1", "KM2"]
    assert order.state is S.FAILED


async def test_opening_named_feeders_is_proved_by_their_positions(core: Core) -> None:
    order = await core.give("open_feeders", feeders=("KM2",))
    await core.until_state(order, S.HOLDING, within_s=30)
    assert core.plant.writes == [("open", "KM2")]
    assert Flag.DEGRADED not in order.flags


async def test_a_named_feeder_that_does_not_open_is_tried_twice_and_then_failed(core: Core) -> None:
    core.plant.switches["KM2"].stuck = True
    order = await core.give("open_feeders", feeders=("KM2",))
    await core.until_state(order, S.FAILED, within_s=60)
    await core.pass_time(60, step_s=5)
    assert core.plant.writes == [("open", "KM2")] * 2
    assert order.state is S.FAILED
    assert Flag.DEGRADED in order.flags


async def test_a_stop_sleeps_first_and_opens_only_after_the_cool_down(core: Core) -> None:
    opened_after: dict[str, int] = {}
    slept_at: dict[str, int] = {}

    def note(kind: str, target: str) -> None:
        if kind == "sleep":
            slept_at[target] = core.clock.now_ms()
        else:
            opened_after[target] = core.clock.now_ms()

    core.plant.at_write = note
    core.plant.extra_w = 4_100  # what sleeping leaves is above the reservation: switches are needed
    order = await core.give("stop")
    await core.until(lambda: len(core.plant.asleep) == 8, within_s=10)
    await core.until(lambda: opened_after, within_s=300)
    await core.until(lambda: order.state in {S.HOLDING, S.FAILED})
    for switch, at in opened_after.items():
        for name, machine in core.plant.machines.items():
            if machine.switch == switch:
                assert at - slept_at[name] >= 60_000, f"{switch} opened before {name} had cooled down"


async def test_a_stop_that_sleep_achieves_opens_nothing(core: Core) -> None:
    order = await core.give("stop")
    await core.until_state(order, S.HOLDING)
    assert len(core.plant.asleep) == 8
    assert core.plant.net_w == BASE_W + 8 * SLEEP_W
    assert {kind for kind, _ in core.plant.writes} == {"sleep"}


async def test_an_emergency_trip_opens_at_once_without_sleep(core: Core) -> None:
    began = core.clock.now_ms()
    order = await core.give("emergency_trip")
    await core.until(lambda: core.plant.writes)
    assert set(core.plant.writes) == {("open", "KM1"), ("open", "KM2")}
    assert core.clock.now_ms() - began < 5_000
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w == BASE_W


async def test_a_ramp_holds_the_pace_and_says_nothing_of_failure_while_it_runs(core: Core) -> None:
    order = await core.give(
        "limit", limit_w=40_000, ramp_w_per_min=10_000, escalation=Escalation(to="switch", after_s=5)
    )
    began, states = core.clock.mono_ns(), set()
    while order.state is not S.HOLDING:
        await core.step()
        minutes = (core.clock.mono_ns() - began) / 60e9
        states.add(order.state)
        assert ALL_W - core.plant.net_w <= 10_000 * (minutes + 1 / 6) + 1, "faster than the ramp"
        assert minutes < 5, "the ramp never ends"
    assert S.FAILED not in states
    assert "open" not in {kind for kind, _ in core.plant.writes}, "what the ramp holds back is no reason to escalate"
    assert [e["state"] for e in await core.effects(order.id)] == ["holding"]


async def test_a_silent_meter_makes_an_order_blind_and_it_sheds_on(core: Core) -> None:
    core.plant.meter_silent = True
    await core.pass_time(15)
    order = await core.give("limit", limit_w=50_000)
    assert Flag.BLIND in order.flags
    await core.until(lambda: len(core.plant.asleep) == 8, within_s=10)
    await core.pass_time(30)
    assert order.state is not S.HOLDING, "nothing is confirmed that no meter has shown"
    assert Flag.BLIND in order.flags
    core.plant.meter_silent = False
    await core.until_state(order, S.HOLDING)
    assert Flag.BLIND not in order.flags


async def test_load_that_creeps_above_the_limit_is_answered(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    before = set(core.plant.asleep)
    core.plant.extra_w = 3_000
    await core.until(lambda: core.plant.asleep > before, within_s=30)
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= 50_000


async def test_a_machine_that_others_woke_is_put_to_sleep_again(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    await core.pass_time(5)
    woken = sorted(core.plant.asleep)[0]
    core.plant.machines[woken].asleep = False
    await core.until(lambda: core.plant.net_w <= 50_000, within_s=30)
    await core.until_state(order, S.HOLDING)


async def test_creep_that_nothing_answers_is_not_called_held_in_good_order(core: Core) -> None:
    order = await core.give("stop")
    await core.until_state(order, S.HOLDING)
    for switch in core.plant.switches.values():
        switch.remote = False
    core.plant.extra_w = 20_000
    await core.pass_time(30)
    assert Flag.DEGRADED in order.flags, "the load is above the limit and nothing more can be done: that is said"
    assert any("degraded" in e["flags"] for e in await core.effects(order.id))
    core.plant.extra_w = 0
    await core.pass_time(10)
    assert order.state is S.HOLDING
    assert Flag.DEGRADED not in order.flags


async def test_a_held_switch_that_others_close_is_opened_again_within_its_attempts(core: Core) -> None:
    order = await core.give("emergency_trip")
    await core.until_state(order, S.HOLDING)
    await core.pass_time(5)
    core.plant.switches["KM1"].closed = True
    await core.until(lambda: not core.plant.switches["KM1"].closed, within_s=20)
    core.plant.switches["KM1"].closed = True
    await core.pass_time(30)
    assert core.plant.writes.count(("open", "KM1")) == 2, "a third attempt is not made"


async def test_a_switch_taken_over_locally_is_not_fought_for(core: Core) -> None:
    order = await core.give("emergency_trip")
    await core.until_state(order, S.HOLDING)
    core.plant.switches["KM1"].remote = False
    core.plant.switches["KM1"].closed = True
    await core.pass_time(10)
    assert core.plant.writes.count(("open", "KM1")) == 1
    assert Flag.LOCAL_OVERRIDE in order.flags


async def test_a_scheduled_order_waits_for_its_time(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, not_before=core.clock.now_ms() + 60_000)
    await core.pass_time(50, step_s=5)
    assert order.state is S.SCHEDULED
    assert core.plant.writes == []
    await core.until_state(order, S.HOLDING)
    assert core.plant.net_w <= 50_000


async def test_an_order_that_could_not_begin_in_time_expires_and_never_acts(core: Core) -> None:
    now = core.clock.now_ms()
    order = await core.give("limit", limit_w=50_000, not_before=now + 1_000, execute_by=now + 1_000)
    core.plant.forbidden = True
    core.clock.advance(5)
    await core.pass_time(20)
    assert await core.state(order.id) is S.EXPIRED
    assert core.plant.net_w == ALL_W


async def test_cancel_before_it_begins_voids_and_later_keeps_what_is_shed(core: Core) -> None:
    waiting = await core.give("limit", limit_w=50_000, not_before=core.clock.now_ms() + 60_000)
    await core.send(core.order("cancel", target=waiting.id))
    assert await core.state(waiting.id) is S.CANCELLED
    running = await core.give("limit", limit_w=50_000)
    await core.until_state(running, S.HOLDING)
    asleep = set(core.plant.asleep)
    await core.send(core.order("cancel", target=running.id))
    core.plant.extra_w = 5_000
    await core.pass_time(30)
    assert core.plant.asleep == asleep, "nothing more is shed, nothing comes back"
    assert running.state is S.HOLDING


async def test_nothing_moves_in_shadow_and_the_answer_says_what_would(core: Core) -> None:
    await core.act(core.mode_act("shadow"), core.people.dispatcher, core.people.engineer)
    core.plant.forbidden = True
    answer = await core.send(core.order("stop"))
    assert answer["state"] == "validated"
    assert answer["agent_mode"] == "shadow"
    assert "would put 8 machines to sleep" in answer["text"]
    await core.pass_time(20)
    assert core.plant.net_w == ALL_W
    assert (await core.records("cmd_eff"))[-1]["state"] == "done"


@pytest.mark.parametrize("mode", ["armed", "shadow", "monitor"])
async def test_a_drill_reaches_no_port(core: Core, mode: str) -> None:
    if mode != "armed":
        await core.act(core.mode_act(mode), core.people.dispatcher, core.people.engineer)
    core.plant.forbidden = True
    for action in ("stop", "emergency_trip"):
        answer = await core.send(core.order(action, mode="drill"))
        assert answer["state"] == "validated", answer
        assert answer["order_mode"] == "drill"
        assert answer["text"].startswith("DRILL")
    await core.send(core.order("open_feeders", feeders=("KM1",), mode="drill"))
    await core.pass_time(30)
    assert core.plant.net_w == ALL_W
    assert all("drill" in e["flags"] for e in await core.records("cmd_eff"))


async def test_a_drill_neither_supersedes_nor_releases_what_is_live(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    held = dict(core.journal.held)
    await core.send(core.order("limit", limit_w=200_000, mode="drill", supersedes=order.id))
    await core.send(core.order("release", target=order.id, mode="drill"))
    await core.pass_time(60, step_s=5)
    assert order.state is S.HOLDING
    assert core.journal.held == held
    assert core.plant.net_w <= 50_000


@pytest.mark.parametrize("why", ["not commissioned", "tagged", "local", "trip circuit"])
async def test_outputs_that_are_not_ready_are_left_and_named(tmp_path: Path, why: str) -> None:
    async with running_core(tmp_path, armed=False) as core:
        outputs = ("KM2",) if why == "not commissioned" else ("KM1", "KM2")
        await core.act(core.commissioning(*outputs), core.people.dispatcher, core.people.engineer)
        await core.act(core.mode_act("armed"), core.people.dispatcher, core.people.engineer)
        if why == "tagged":
            await core.gates.tag("KM1", "Dana", "work on the board")
        elif why == "local":
            core.plant.switches["KM1"].remote = False
        elif why == "trip circuit":
            core.plant.switches["KM1"].trip_circuit_ok = False
        await core.step()
        order = await core.give("emergency_trip")
        await core.until(lambda: order.state in {S.FAILED, S.HOLDING})
        assert [w for w in core.plant.writes if w[1] == "KM1"] == []
        assert ("open", "KM2") in core.plant.writes
        assert "KM1: " in (await core.effects(order.id))[-1]["text"]


async def test_a_stranger_s_clock_never_makes_an_old_order_act(core: Core) -> None:
    old = make_order(core.clock, core.ledger.epoch, 1, "stop", execute_by=core.clock.now_ms() + 1000)
    core.clock.advance(3600)
    core.clock.wall_ms -= 3_600_000  # somebody turned the wall clock back
    core.trusted.raise_to(core.clock.now_ms() + 3_600_000)
    core.plant.forbidden = True
    answer = await core.send(old)
    assert (answer["state"], answer["code"]) == ("rejected", "expired")
    await core.pass_time(5)


async def test_no_switch_is_opened_that_is_larger_than_the_ordered_step(core: Core) -> None:
    """Each contactor carries four machines, 14 kW; the order allows steps of 10 kW."""
    order = await core.give("limit", limit_w=50_000, methods=("switch",), max_step_w=10_000)
    await core.until_state(order, S.FAILED)
    assert "open" not in {kind for kind, _ in core.plant.writes}
    other = await core.give("limit", limit_w=50_000, methods=("switch",), max_step_w=20_000)
    await core.until_state(other, S.HOLDING)
    assert [kind for kind, _ in core.plant.writes].count("open") == 1, "one of them suffices, and is within the step"


async def test_a_loss_of_load_that_is_not_ours_is_not_called_obedience(core: Core) -> None:
    for number in range(1, 5):
        core.plant.machines[f"rack1/{number}"].draw_w = 100  # their pool is gone
    before = core.plant.net_w + 4 * (MACHINE_W - 100)
    core.plant.extra_w = 4 * (MACHINE_W - 100)
    await core.plant.publish(core.live)
    order = await core.give("limit", limit_w=before - 3000)
    core.plant.extra_w = 0
    await core.until_state(order, S.HOLDING)
    (told,) = [e["text"] for e in await core.effects(order.id) if e["state"] == "holding"]
    assert "kW fell without our doing" in told
    assert len(core.plant.asleep) <= 1
    for number in range(1, 5):  # the pool is back: what was not ours to keep is answered
        core.plant.machines[f"rack1/{number}"].draw_w = MACHINE_W
    await core.pass_time(60)
    assert core.plant.net_w <= before - 3000


def dark_behind_km1(core: Core, *, seen: bool) -> None:
    """The meter of rack 1 is fed from behind KM1; whether the meter above saw the branch fall is given."""
    core.plant.dark_meters = {"em-1": "KM1"}
    core.live.dark_w = lambda p: 0 if p == "M1" and seen and not core.plant.switches["KM1"].closed else None


async def test_a_meter_that_goes_dark_with_its_branch_is_judged_from_above(core: Core) -> None:
    dark_behind_km1(core, seen=True)
    for machine in core.plant.machines.values():
        machine.refuses = machine.switch == "KM1"
    order = await core.give(
        "limit", limit_w=4 * MACHINE_W, measured_at="gross_mining", escalation=Escalation(to="switch", after_s=5)
    )
    await core.until_state(order, S.HOLDING)
    assert not core.plant.switches["KM1"].closed
    (told,) = [e for e in await core.effects(order.id) if e["state"] == "holding"]
    assert "confirmed by the meter above the dark branch" in told["text"]
    assert (told["power_w"], told["proof"]) == (None, None), "what was not read is not written down as read"
    await core.pass_time(70, step_s=5)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert core.plant.switches["KM1"].closed


async def test_silence_that_nobody_above_saw_is_no_proof(core: Core) -> None:
    dark_behind_km1(core, seen=False)
    for machine in core.plant.machines.values():
        machine.refuses = machine.switch == "KM1"
    order = await core.give(
        "limit", limit_w=4 * MACHINE_W, measured_at="gross_mining", escalation=Escalation(to="switch", after_s=5)
    )
    await core.pass_time(120)
    assert not core.plant.switches["KM1"].closed
    assert order.state is not S.HOLDING
    assert Flag.BLIND in order.flags


async def test_a_battery_meets_a_limit_of_net_import_and_none_of_mining(core: Core) -> None:
    core.plant.extra_w = -20_000  # it discharges
    await core.plant.publish(core.live)
    net = await core.give("limit", limit_w=45_000)
    await core.until_state(net, S.HOLDING)
    assert core.plant.writes == []
    mining = await core.give("limit", limit_w=5 * MACHINE_W, measured_at="gross_mining")
    await core.until_state(mining, S.HOLDING)
    assert sum(core.plant.feeder_w(s) for s in ("KM1", "KM2")) <= 5 * MACHINE_W
