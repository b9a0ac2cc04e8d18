"""Restoration: only after a release, only what this agent put down, only where nothing is in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.curtailment.journal import LiveOrder
from drivers.asic.fanout import FanOut
from drivers.capabilities import Reading, Sample
from tests.unit.agent_kit import BASE_W, MACHINE_W, SLEEP_W, Core, running_core, small_site
from wire.orders import Escalation, Hold, Restore
from wire.quality import Quality
from wire.states import Flag, OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


async def held(core: Core, action: str = "limit", **changes: Any) -> LiveOrder:
    """An order that holds its load down."""
    changes = {"restore": AT_ONCE, **({"limit_w": 50_000} if action == "limit" else {}), **changes}
    order = await core.give(action, **changes)
    await core.until_state(order, S.HOLDING)
    return order


def closings(core: Core) -> list[tuple[str, str]]:
    return [w for w in core.plant.writes if w[0] in {"close", "wake"}]


async def test_nothing_comes_back_without_a_release(core: Core) -> None:
    order = await held(core)
    await core.pass_time(600, step_s=10)
    assert closings(core) == []
    assert order.state is S.HOLDING


async def test_a_release_wakes_exactly_what_was_put_to_sleep(core: Core) -> None:
    core.plant.machines["rack2/4"].asleep = True  # asleep before the order, for reasons of its owner
    await core.step()
    order = await held(core)
    slept = {t for k, t in core.plant.writes if k == "sleep"}
    assert "rack2/4" not in slept
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)
    assert await core.state(order.id) is S.DONE
    assert {t for _, t in closings(core)} == slept
    assert core.plant.asleep == {"rack2/4"}
    assert core.journal.held == {}
    assert (await core.effects(order.id))[-1]["state"] == "done"


async def test_the_return_is_in_the_stages_of_the_order_whatever_its_release_says(core: Core) -> None:
    order = await held(core, "stop", restore=Restore(stage_permille=250, stage_delay_s=30))
    await core.release(order, restore=AT_ONCE)
    began, seen = core.clock.mono_ns(), []
    while order.id in core.journal.live:
        await core.step()
        seen.append(((core.clock.mono_ns() - began) / 1e9, 8 - len(core.plant.asleep)))
        assert seen[-1][0] < 300
    for at, awake in seen:
        assert awake <= 2 * (int(at // 30) + 1), "two machines a stage, a stage each 30 s"


async def test_the_ramp_of_the_release_slows_the_stages(core: Core) -> None:
    order = await held(core, "stop", restore=Restore(stage_permille=125, stage_delay_s=1))
    await core.release(order, restore=Restore(max_w_per_min=MACHINE_W))
    began = core.clock.mono_ns()
    while order.id in core.journal.live:
        await core.step(5)
        minutes = (core.clock.mono_ns() - began) / 60e9
        assert 8 - len(core.plant.asleep) <= minutes + 1
        assert minutes < 15


async def test_a_ceiling_bounds_what_comes_back(core: Core) -> None:
    order = await held(core, "stop")
    await core.release(order, restore=Restore(ceiling_w=45_000))
    await core.pass_time(120, step_s=5)
    assert order.state is S.RESTORING
    assert 45_000 - MACHINE_W <= core.plant.net_w <= 45_000
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_a_release_for_later_waits(core: Core) -> None:
    order = await held(core)
    await core.release(order, not_before=core.clock.now_ms() + 60_000)
    await core.pass_time(55, step_s=5)
    assert closings(core) == []
    assert order.state is S.RESTORE_BLOCKED
    await core.until(lambda: order.id not in core.journal.live)


async def test_a_silent_meter_never_restores(core: Core) -> None:
    order = await held(core)
    core.plant.meter_silent = True
    core.clock.advance(5)
    core.live.samples.clear()
    await core.release(order)
    await core.pass_time(120, step_s=5)
    assert closings(core) == []
    assert order.state is S.RESTORE_BLOCKED
    assert "not known" in (order.block or "")
    core.plant.meter_silent = False
    await core.until(lambda: order.id not in core.journal.live)


@pytest.mark.parametrize("hz", [49.4, None], ids=["low", "not read"])
async def test_below_its_least_frequency_nothing_comes_back(core: Core, hz: float | None) -> None:
    real = core.live.put_sample

    def put(sample: Sample) -> None:
        reading = Reading(hz, Quality.GOOD if hz is not None else Quality.TIMEOUT)
        real(replace(sample, readings=dict(sample.readings) | {"frequency_hz": reading}))

    order = await held(core, restore=Restore(stage_permille=1000, stage_delay_s=1, min_mhz=49_500))
    core.live.put_sample = put  # type: ignore[method-assign]  # what the meters show of the grid
    await core.step()
    await core.release(order)
    await core.pass_time(30, step_s=5)
    assert closings(core) == []
    assert f"frequency {'unknown' if hz is None else 49_400} mHz" in (order.block or "")
    core.live.put_sample = real  # type: ignore[method-assign]  # 50 Hz again
    await core.until(lambda: order.id not in core.journal.live)


async def test_a_release_never_makes_a_return_faster_than_its_order(core: Core) -> None:
    order = await held(core, "stop", restore=Restore(stage_permille=250, stage_delay_s=1, max_w_per_min=2_000))
    await core.release(order, restore=Restore(max_w_per_min=4_000_000))
    await core.pass_time(60, step_s=5)
    assert order.doc.stages == 1, "a stage of some kW at 2 kW a minute"


async def test_a_release_may_ask_for_a_higher_frequency_than_its_order(core: Core) -> None:
    order = await held(core, restore=Restore(stage_permille=1000, stage_delay_s=1, min_mhz=49_000))
    await core.release(order, restore=Restore(min_mhz=50_500))
    await core.pass_time(30, step_s=5)
    assert closings(core) == []
    assert "needed 50500" in (order.block or "")


async def test_machines_behind_an_open_switch_are_not_spoken_to(core: Core) -> None:
    order = await held(core)
    slept = {t for k, t in core.plant.writes if k == "sleep"}
    switch = core.plant.machines[sorted(slept)[0]].switch
    dark = {m for m in slept if core.plant.machines[m].switch == switch}
    core.plant.switches[switch].closed = False  # by a person
    await core.step()
    await core.release(order)
    await core.pass_time(60, step_s=5)
    assert not {t for _, t in closings(core)} & dark
    assert ("close", switch) not in core.plant.writes, "what a person opened stays open"
    core.plant.switches[switch].closed = True
    await core.until(lambda: order.id not in core.journal.live)


# switches ------------------------------------------------------------------------------------------------------------


async def test_a_switch_that_may_close_by_itself_is_closed_after_the_release(core: Core) -> None:
    order = await held(core, "emergency_trip")
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)
    assert [w for w in core.plant.writes if w[0] == "close"] == [("close", "KM1"), ("close", "KM2")]
    assert core.plant.net_w == ALL_W


async def test_a_switch_for_persons_waits_for_a_person(tmp_path: Path) -> None:
    site = small_site()
    nodes = tuple(n.model_copy(update={"close": "by_person"}) if n.id == "KM1" else n for n in site.nodes)
    async with running_core(tmp_path, site=site.model_copy(update={"nodes": nodes})) as core:
        order = await held(core, "emergency_trip")
        await core.release(order)
        await core.pass_time(60)
        assert ("close", "KM1") not in core.plant.writes
        assert ("close", "KM2") in core.plant.writes
        assert order.waiting == ("KM1",)
        assert core.progress[-1].waiting_for == ("KM1",)
        core.plant.switches["KM1"].closed = True
        await core.until(lambda: order.id not in core.journal.live)


def tag(core: Core) -> Any:
    return core.gates.tag("KM1", "Dana", "permit 12")


BLOCKS: dict[str, Callable[[Core], Any]] = {
    "protection_trip": lambda core: setattr(core.plant.switches["KM1"], "protection_trip", True),
    "lockout": lambda core: setattr(core.plant.switches["KM1"], "lockout", True),
    "local": lambda core: setattr(core.plant.switches["KM1"], "remote", False),
    "spring": lambda core: setattr(core.plant.switches["KM1"], "spring_charged", False),
    "trip_circuit": lambda core: setattr(core.plant.switches["KM1"], "trip_circuit_ok", False),
    "position": lambda core: setattr(core.plant.switches["KM1"], "readable", False),
    "tag": tag,
}


@pytest.mark.parametrize("block", BLOCKS)
async def test_what_blocks_closing(core: Core, block: str) -> None:
    order = await held(core, "emergency_trip")
    done = BLOCKS[block](core)
    if asyncio.iscoroutine(done):
        await done
    await core.step()
    await core.release(order)
    await core.pass_time(60, step_s=2)
    assert ("close", "KM1") not in core.plant.writes
    assert ("close", "KM2") in core.plant.writes
    assert "KM1" in order.waiting
    assert "KM1" in core.journal.held


async def test_a_tag_outlives_a_restart(core: Core) -> None:
    order = await held(core, "emergency_trip")
    await tag(core)
    await core.reboot()
    await core.step()
    await core.release(order.id)
    await core.pass_time(60, step_s=2)
    assert ("close", "KM1") not in core.plant.writes
    await core.gates.untag("KM1", "Dana")
    await core.until(lambda: order.id not in core.journal.live)
    assert ("close", "KM1") in core.plant.writes


async def test_a_switch_that_does_not_close_is_reported_not_hidden(core: Core) -> None:
    order = await held(core, "emergency_trip")
    core.plant.switches["KM1"].closes = False
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)
    assert core.plant.writes.count(("close", "KM1")) == 2
    assert "not returned: KM1" in (await core.effects(order.id))[-1]["text"]


async def test_a_switch_that_was_open_before_the_order_is_not_closed_after_it(core: Core) -> None:
    core.plant.switches["KM1"].closed = False
    await core.step()
    order = await held(core, "emergency_trip")
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)
    assert ("close", "KM1") not in core.plant.writes
    assert not core.plant.switches["KM1"].closed


async def test_after_saon_only_the_system_operator_with_a_second_person_restores(core: Core) -> None:
    order = await held(core)
    await core.gates.set_saon_lock("stage 1")
    await core.pass_time(5)
    alone = await core.send(core.order("release", target=order.id))
    assert (alone["state"], alone["code"]) == ("rejected", "locked")
    others = await core.send(core.order("release", target=order.id), core.people.second, core.people.engineer)
    assert (others["state"], others["code"]) == ("rejected", "locked")
    assert closings(core) == []
    both = await core.send(core.order("release", target=order.id), core.people.dispatcher, core.people.engineer)
    assert both["state"] == "validated"
    await core.until(lambda: order.id not in core.journal.live)
    assert core.gates.saon_lock is None


async def test_lowering_the_mode_blocks_the_return_and_keeps_the_load_down(core: Core) -> None:
    order = await held(core)
    await core.release(order, not_before=core.clock.now_ms() + 10_000)
    await core.step()
    await core.act(core.mode_act("monitor"), core.people.engineer)
    await core.pass_time(30)
    assert closings(core) == []
    assert order.state is S.RESTORE_BLOCKED


# several orders ------------------------------------------------------------------------------------------------------


async def test_the_stricter_of_two_orders_holds_after_the_looser_is_released(core: Core) -> None:
    loose, strict = await held(core, limit_w=52_000), await held(core, limit_w=42_000)
    await core.release(loose)
    for _ in range(60):
        await core.step(2)
        assert core.plant.net_w <= 42_000
    await core.release(strict)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_the_looser_of_two_orders_holds_after_the_stricter_is_released(core: Core) -> None:
    loose, strict = await held(core, limit_w=52_000), await held(core, limit_w=42_000)
    await core.release(strict)
    for _ in range(60):
        await core.step(2)
        assert core.plant.net_w <= 52_000
    assert core.plant.net_w > 42_000
    assert loose.state is S.HOLDING
    await core.release(loose)
    await core.until(lambda: not core.journal.live)


async def test_a_limit_at_another_point_bounds_the_return_too(core: Core) -> None:
    mining = await held(core, limit_w=4 * MACHINE_W, measured_at="gross_mining")
    net = await held(core, limit_w=42_000)
    assert (mining.doc.point, net.doc.point) == ("MINING", "M0")
    await core.release(net)
    for _ in range(60):
        await core.step(2)
        assert core.plant.net_w - BASE_W <= 4 * MACHINE_W + 8 * SLEEP_W


async def test_superseding_hands_over_what_is_held(core: Core) -> None:
    first = await held(core, limit_w=52_000)
    kept = set(core.journal.held)
    second = await held(core, limit_w=45_000, supersedes=first.id)
    await core.pass_time(10)
    assert first.id not in core.journal.live
    assert kept < {h.target for h in core.journal.held_by(second.id)}
    assert core.plant.net_w <= 45_000
    await core.release(second)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_a_release_of_all_frees_what_that_person_ordered(core: Core) -> None:
    mine = await held(core, limit_w=52_000)
    order = core.order("limit", limit_w=45_000, restore=AT_ONCE)
    await core.send(order, core.people.second)
    await core.until_state(core.journal.live[order.id], S.HOLDING)
    await core.release("all")
    await core.pass_time(30)
    assert mine.doc.released_by is not None
    assert core.journal.live[order.id].state is S.HOLDING
    assert core.plant.net_w <= 45_000


async def test_a_release_while_it_still_sheds_is_not_lost(core: Core) -> None:
    """The release and the engine's own move become durable in either order."""
    order = await held(core)
    order.doc.released_by = "somebody"
    await asyncio.gather(
        core.journal.move(order, S.RESTORING, "released by somebody"),
        core.journal.move(order, S.EXECUTING, "load crept above the limit"),
    )
    await core.until(lambda: order.id not in core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_steps_that_wait_their_turn_are_not_made_after_a_release(core: Core) -> None:
    core.shedder._fan_out = FanOut(concurrency=1, patience_s=60.0)
    order = await core.give("stop", restore=AT_ONCE)
    released = asyncio.Event()

    def note(kind: str, target: str) -> None:
        released.set()

    core.plant.at_write = note
    core.clock.advance(1)
    await core.plant.publish(core.live)
    core.wake.set()
    await released.wait()
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)
    assert len([w for w in core.plant.writes if w[0] == "sleep"]) < 8
    assert core.plant.asleep == set()


# the end of a hold ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auto", "online", "synchronised", "silence_s", "returns"),
    [
        (True, True, True, 0, True),
        (False, True, True, 0, False),
        (True, False, True, 0, False),
        (True, True, False, 0, False),
        (True, True, True, 120, False),
    ],
    ids=["allowed", "not allowed", "off line", "clock not synchronised", "lease lapsed"],
)
async def test_the_end_of_a_hold(
    core: Core, auto: bool, online: bool, synchronised: bool, silence_s: float, returns: bool
) -> None:
    hold = Hold(until=core.clock.now_ms() + 120_000, restore_auto=auto)
    order = await held(core, hold=hold, lease_s=60)
    core.online, core.clock.sync, core.silence_s = online, synchronised, silence_s
    await core.pass_time(180, step_s=5)
    assert (order.id not in core.journal.live) is returns
    assert bool(closings(core)) is returns
    assert (Flag.ORPHANED in order.flags) is (silence_s > 60 or not online)


async def test_extend_moves_the_end_of_a_hold(core: Core) -> None:
    now = core.clock.now_ms()
    order = await held(core, hold=Hold(until=now + 60_000, restore_auto=True))
    answer = await core.send(core.order("extend", target=order.id, hold=Hold(until=now + 300_000)))
    assert answer["state"] == "validated"
    await core.pass_time(120, step_s=5)
    assert order.state is S.HOLDING
    await core.until(lambda: order.id not in core.journal.live)


async def test_escalation_is_undone_in_the_order_switch_then_machines(core: Core) -> None:
    for machine in core.plant.machines.values():
        if machine.switch == "KM2":
            machine.refuses = True
    order = await held(core, limit_w=37_000, escalation=Escalation(to="switch", after_s=5))
    await core.pass_time(70)
    await core.release(order)
    await core.until(lambda: order.id not in core.journal.live)
    kinds = [k for k, _ in closings(core)]
    assert kinds == sorted(kinds), "switches close before machines wake"
    assert core.plant.net_w == ALL_W


@pytest.mark.parametrize("kind", ["open", "close"])
async def test_a_tag_hung_while_the_intent_is_being_written_still_stops_the_write(core: Core, kind: str) -> None:
    order = await held(core, "emergency_trip") if kind == "close" else None
    await core.pass_time(60, step_s=10)
    real = core.journal.intend
    writes = len(core.plant.writes)

    async def slow(live: LiveOrder, what: str, target: str, *rest: Any, **more: Any) -> int:
        n = await real(live, what, target, *rest, **more)
        if target == "KM1":
            await core.gates.tag("KM1", "Dana", "permit 12")
        return n

    core.journal.intend = slow  # type: ignore[method-assign]  # a slow disk, and a quick person
    if order is None:
        await core.give("emergency_trip")
    else:
        await core.release(order)
    await core.pass_time(20)
    assert (kind, "KM1") not in core.plant.writes[writes:]
    assert (kind, "KM2") in core.plant.writes[writes:]
    assert core.journal.open_steps() == []


@pytest.mark.parametrize(("volts", "returns"), [(230.0, True), (256.0, False), (200.0, False), (None, True)])
async def test_load_returns_only_at_a_fit_voltage(core: Core, volts: float | None, returns: bool) -> None:
    core.plant.volts = volts
    order = await held(core)
    await core.release(order)
    await core.pass_time(120, step_s=5)
    assert (order.id not in core.journal.live) is returns
    if not returns:
        assert order.block == f"voltage at M0 is {volts / 1000:.2f} kV, needed 0.23 kV ± 10 %"
        core.plant.volts = 231.0
        await core.until(lambda: order.id not in core.journal.live)
