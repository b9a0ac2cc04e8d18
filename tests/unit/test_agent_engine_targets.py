"""What an order allows: stages and hours, the end of a process, energy instead of power, and a partial release."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.curtailment.targets import HOUR_MS, hour_of
from tests.unit.agent_kit import (
    BASE_W,
    EMERGENCY_W,
    MACHINE_W,
    SLEEP_W,
    Core,
    issuer,
    register,
    running_core,
    small_site,
)
from wire.orders import Hold
from wire.registry import Stage
from wire.states import Flag, OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


def registered(core: Core, **changes: Any) -> None:
    """The site's entry in the register, changed; everybody may order everything."""
    assert core.keys is not None
    site = core.keys.sites[0].model_copy(update=changes)
    rights = (*core.keys.issuers[0].rights, "stage", "schedule")
    issuers = tuple(i.model_copy(update={"rights": rights}) for i in core.keys.issuers)
    core.keys = core.keys.model_copy(update={"sites": (site,), "issuers": issuers})


# stages and hours ----------------------------------------------------------------------------------------------------


async def test_a_stage_is_the_limit_that_the_register_gives_it(core: Core) -> None:
    registered(core, stages=(Stage(stage=1, limit_w=55_000), Stage(stage=2, limit_w=45_000)))
    order = await core.give("stage", stage=2)
    await core.until_state(order, S.HOLDING)
    assert order.doc.target_w == 45_000
    assert 0.95 * 45_000 - MACHINE_W <= core.plant.net_w <= 45_000


async def test_a_stage_that_nobody_registered_is_refused_with_what_to_do(core: Core) -> None:
    registered(core, stages=(Stage(stage=1, limit_w=55_000),))
    answer = await core.send(core.order("stage", stage=3))
    assert (answer["state"], answer["code"]) == ("rejected", "unsupported")
    assert "no stage 3" in answer["text"]
    assert core.plant.writes == []


def hours(core: Core, *limits: int) -> tuple[int, ...]:
    """A day's limits in W: these from the present hour on, the last of them for the rest."""
    now = hour_of(core.clock.now_ms())
    day = [limits[-1]] * 24
    for n, limit in enumerate(limits):
        day[(now + n) % 24] = limit
    return tuple(day)


async def next_hour(core: Core) -> None:
    left_s = (HOUR_MS - core.clock.now_ms() % HOUR_MS) / 1000
    await core.pass_time(left_s + 30, step_s=30)


async def test_a_schedule_follows_its_hours_down_and_gives_nothing_back_by_itself(core: Core) -> None:
    registered(core)
    order = await core.give("schedule", hours=hours(core, 55_000, 45_000, 60_000))
    await core.until_state(order, S.HOLDING)
    assert 45_000 < core.plant.net_w <= 55_000
    await next_hour(core)
    await core.pass_time(60)
    assert order.state is S.HOLDING
    assert core.plant.net_w <= 45_000
    await next_hour(core)
    await core.pass_time(600, step_s=10)
    assert order.doc.target_w == 60_000
    assert core.plant.net_w <= 45_000, "no release, and the order did not say that it may end by itself"


async def test_a_schedule_that_may_end_by_itself_also_gives_back_by_the_hour(core: Core) -> None:
    registered(core)
    until = core.clock.now_ms() + 20 * HOUR_MS
    order = await core.give(
        "schedule", hours=hours(core, 45_000, 55_000, 40_000), hold=Hold(until=until, restore_auto=True)
    )
    await core.until_state(order, S.HOLDING)
    low = core.plant.net_w
    await next_hour(core)
    await core.pass_time(600, step_s=10)
    assert order.state is S.HOLDING
    assert low + MACHINE_W <= core.plant.net_w <= 55_000
    assert 55_000 - core.plant.net_w < MACHINE_W + 1000, "as much as there is room for"
    await next_hour(core)
    await core.pass_time(60)
    assert order.state is S.HOLDING
    assert core.plant.net_w <= 40_000
    texts = [e["text"] for e in await core.effects(order.id)]
    assert any("45.0 kW -> 55.0 kW" in t for t in texts), texts


async def test_with_a_clock_in_doubt_the_strictest_hour_counts(core: Core) -> None:
    registered(core)
    core.clock.sync = False
    order = await core.give("schedule", hours=hours(core, 60_000, 45_000))
    assert order.doc.target_w == 45_000
    assert Flag.CLOCK_SUSPECT in order.flags


def test_the_hour_is_that_of_kazakhstan() -> None:
    midnight_utc = 1_790_000_000_000 - 1_790_000_000_000 % (24 * HOUR_MS)
    assert [hour_of(midnight_utc), hour_of(midnight_utc + 18 * HOUR_MS), hour_of(midnight_utc + 19 * HOUR_MS)] == [
        5,
        23,
        0,
    ]


# a stop that leaves a process its time -------------------------------------------------------------------------------


async def test_a_stop_leaves_the_technological_reservation_its_minutes_and_then_goes_on(core: Core) -> None:
    registered(core, technological_w=50_000, technological_min=10)
    order = await core.give("stop")
    assert order.doc.target_w == EMERGENCY_W
    await core.until(lambda: core.plant.net_w <= 50_000)
    await core.pass_time(500, step_s=5)
    assert 50_000 - MACHINE_W - 1000 <= core.plant.net_w <= 50_000, "a process still runs"
    assert order.state is S.VERIFYING, "and it is not said to be done before its time is over"
    await core.pass_time(300, step_s=5)
    assert order.state is S.HOLDING
    assert core.plant.net_w <= EMERGENCY_W


async def test_a_trip_leaves_no_process_its_time(core: Core) -> None:
    registered(core, technological_w=50_000, technological_min=10)
    order = await core.give("emergency_trip")
    await core.until_state(order, S.HOLDING)
    assert order.doc.target_w == EMERGENCY_W
    assert core.plant.net_w <= EMERGENCY_W


# energy --------------------------------------------------------------------------------------------------------------


async def used_wh(core: Core, seconds: float, step_s: float = 5) -> float:
    """What the plant draws while time passes, by its own physics."""
    drawn = 0.0
    for _ in range(round(seconds / step_s)):
        before = core.plant.net_w
        await core.step(step_s)
        drawn += before * step_s / 3600
    return drawn


async def test_an_hour_s_energy_may_be_used_as_the_site_likes(core: Core) -> None:
    core.clock.advance((HOUR_MS - core.clock.now_ms() % HOUR_MS) / 1000 + 1)
    await core.plant.publish(core.live)
    order = await core.give("limit", limit_w=50_000, limit_basis="hour_energy")
    began = core.clock.now_ms()
    await core.until_state(order, S.HOLDING)
    drawn = 0.0
    for machine in core.plant.machines.values():  # the load falls by itself for a while
        machine.draw_w = 1000
    drawn += await used_wh(core, 1200)
    for machine in core.plant.machines.values():
        machine.draw_w = MACHINE_W
    writes = len(core.plant.writes)
    core.plant.extra_w = 5000  # and is higher afterwards: what was saved may be used
    drawn += await used_wh(core, 300)
    assert core.plant.net_w > 50_000
    assert core.plant.writes[writes:] == [], "the energy of the hour allows it"
    drawn += await used_wh(core, 3600 - (core.clock.now_ms() - began) / 1000)
    assert drawn <= 50_000 * 1.001


async def test_what_was_used_too_much_is_saved_before_the_slot_ends(core: Core) -> None:
    slot_s = core.site.agent.slot_s
    core.clock.advance(slot_s - core.clock.now_ms() / 1000 % slot_s + 1)
    await core.plant.publish(core.live)
    for machine in core.plant.machines.values():
        machine.refuses = True
    order = await core.give("limit", limit_w=52_000, limit_basis="slot")
    await core.pass_time(200, step_s=5)
    for machine in core.plant.machines.values():
        machine.refuses = False
    order.doc.attempts.clear()  # a shift engineer repaired them
    await core.pass_time(slot_s - 230, step_s=5)
    window = order.doc.window
    assert window is not None
    assert window["used_mwh"] / 1000 <= 52_000 * slot_s / 3600
    assert core.plant.net_w < 50_000, "below the limit, to make up for the beginning"


async def test_the_energy_used_outlives_a_restart_and_the_time_away_counts_in_full(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, limit_basis="hour_energy")
    await core.until_state(order, S.HOLDING)
    await core.pass_time(120, step_s=10)
    before = dict(core.journal.live[order.id].doc.window or {})
    core.clock.advance(60)
    await core.reboot()
    await core.step()
    after = core.journal.live[order.id].doc.window
    assert after is not None
    assert after["from_ms"] == before["from_ms"]
    # At least the minute before was durable; the time without a process is taken at the most it can have been.
    assert after["used_mwh"] >= before["used_mwh"] - 50_000 * 60 * 1000 // 3600 + 220_000 * 60 * 1000 // 3600


# partial release -----------------------------------------------------------------------------------------------------


async def test_a_looser_order_that_supersedes_gives_back_what_it_has_room_for(core: Core) -> None:
    first = await core.give("limit", limit_w=40_000)
    await core.until_state(first, S.HOLDING)
    asleep = len(core.plant.asleep)
    second = await core.give("limit", limit_w=52_000, supersedes=first.id)
    await core.pass_time(600, step_s=5)
    assert second.state is S.HOLDING
    assert len(core.plant.asleep) < asleep
    assert 52_000 - MACHINE_W - 1000 < core.plant.net_w <= 52_000
    await core.release(second)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_giving_back_by_a_looser_order_needs_the_right_to_release(core: Core) -> None:
    first = await core.give("limit", limit_w=40_000)
    await core.until_state(first, S.HOLDING)
    only = issuer(core.people.dispatcher, "aru", rights=("limit",))
    core.keys = register(core.people, issuers=(only,))
    writes = len(core.plant.writes)
    answer = await core.send(core.order("limit", limit_w=52_000, supersedes=first.id))
    assert (answer["state"], answer["code"]) == ("rejected", "no_right")
    stricter = await core.send(core.order("limit", limit_w=36_000, supersedes=first.id))
    assert stricter["state"] == "validated", "stricter gives nothing back"
    assert all(kind != "wake" for kind, _ in core.plant.writes[writes:])


async def test_a_stricter_order_that_supersedes_gives_nothing_back(core: Core) -> None:
    first = await core.give("limit", limit_w=50_000)
    await core.until_state(first, S.HOLDING)
    second = await core.give("limit", limit_w=40_000, supersedes=first.id)
    await core.pass_time(300, step_s=5)
    assert second.state is S.HOLDING
    assert core.plant.net_w <= 40_000
    assert all(kind != "wake" for kind, _ in core.plant.writes)


async def test_a_release_in_the_middle_of_a_partial_return_releases_everything(core: Core) -> None:
    first = await core.give("limit", limit_w=37_000)
    await core.until_state(first, S.HOLDING)
    second = await core.give("limit", limit_w=52_000, supersedes=first.id)
    await core.until(lambda: second.state is S.RESTORING)
    await core.release(second)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


async def test_a_restart_in_the_middle_of_a_partial_return_never_passes_the_limit(core: Core) -> None:
    first = await core.give("limit", limit_w=37_000)
    await core.until_state(first, S.HOLDING)
    second = await core.give("limit", limit_w=52_000, supersedes=first.id)
    await core.until(lambda: second.state is S.RESTORING)
    await core.reboot()
    for _ in range(120):
        await core.step(5)
        assert core.plant.net_w <= 52_000
    assert core.journal.live[second.id].state is S.HOLDING
    assert core.plant.net_w > 52_000 - MACHINE_W - 1000


# who has a say -------------------------------------------------------------------------------------------------------


async def test_both_dispatchers_are_told_at_once_that_they_order_one_site(core: Core) -> None:
    first = await core.give("limit", limit_w=55_000)
    await core.until_state(first, S.HOLDING)
    other = core.order("limit", limit_w=45_000)
    assert (await core.send(other, core.people.second))["state"] == "validated"
    assert f"{other.id} of bek is in force too" in (await core.effects(first.id))[-1]["text"]
    assert f"{first.id} of aru is in force too" in (await core.effects(other.id))[0]["text"]
    await core.until_state(core.journal.live[other.id], S.HOLDING)
    assert core.plant.net_w <= 45_000


@pytest.mark.parametrize(
    ("action", "who", "accepted"),
    [
        ("limit", "dispatcher", True),
        ("limit", "second", True),
        ("open_feeders", "dispatcher", True),
        ("open_feeders", "second", False),
        ("limit", "engineer", False),
    ],
)
async def test_switches_are_for_the_one_in_control_and_load_for_those_with_jurisdiction_too(
    core: Core, action: str, who: str, accepted: bool
) -> None:
    registered(core, operational_control="SO", operational_jurisdiction=("Grid",))
    fields: dict[str, Any] = {"limit_w": 55_000} if action == "limit" else {"feeders": ("KM1",), "methods": ("switch",)}
    answer = await core.send(core.order(action, **fields), getattr(core.people, who))
    assert (answer["state"] == "validated") is accepted, answer
    if not accepted:
        assert answer["code"] == "no_right"


# power limits --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def throttled(tmp_path: Path) -> AsyncIterator[Core]:
    site = small_site()
    groups = tuple(g.model_copy(update={"lowest_power_w": 2000.0}) for g in site.miners)
    async with running_core(tmp_path, site=site.model_copy(update={"miners": groups})) as found:
        yield found


async def test_power_limits_alone_meet_a_limit_and_go_back_to_what_they_were(throttled: Core) -> None:
    core = throttled
    core.plant.machines["rack1/1"].limit_w = 3000  # its owner's own limit
    await core.plant.publish(core.live)
    order = await core.give("limit", limit_w=52_000, methods=("power_limit",))
    await core.until_state(order, S.HOLDING)
    assert 0.95 * 52_000 <= core.plant.net_w <= 52_000
    assert core.plant.asleep == set()
    assert {kind for kind, _ in core.plant.writes} == {"limit"}
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert {m.limit_w for m in core.plant.machines.values()} == {10**6, 3000}
    assert core.plant.machines["rack1/1"].limit_w == 3000


async def test_where_power_limits_do_not_suffice_nothing_goes_below_the_owner_s_lowest(throttled: Core) -> None:
    core = throttled
    order = await core.give("limit", limit_w=40_000, methods=("power_limit",))
    await core.until_state(order, S.FAILED)
    assert core.plant.net_w == BASE_W + 8 * 2000
    assert "missing 8.0 kW" in order.doc.text


async def test_machines_that_refuse_sleep_are_limited_before_a_switch_opens(throttled: Core) -> None:
    core = throttled
    for machine in core.plant.machines.values():
        machine.refuses = machine.switch == "KM2"
    order = await core.give("limit", limit_w=42_500, methods=("sleep", "power_limit"))
    await core.until_state(order, S.HOLDING)
    assert core.plant.asleep == {f"rack1/{n}" for n in range(1, 5)}
    assert {t for k, t in core.plant.writes if k == "limit"} == {f"limit:rack2/{n}" for n in range(1, 5)}
    assert core.plant.net_w <= 42_500
    assert core.plant.net_w >= 4 * SLEEP_W + BASE_W + 4 * 2000


async def test_without_the_owner_s_word_no_power_is_limited(core: Core) -> None:
    order = await core.give("limit", limit_w=52_000, methods=("power_limit",))
    await core.until_state(order, S.FAILED)
    assert core.plant.writes == []


async def test_alone_one_person_schedules_no_more_than_one_person_may_order(core: Core) -> None:
    """The strictest hour counts, however far away it is."""
    rights = ("schedule", "release")
    only = issuer(core.people.dispatcher, "aru", rights=rights, solo_w=12_000)
    second = issuer(core.people.second, "bek", rights=rights, solo_w=12_000)
    core.keys = register(core.people, issuers=(only, second))
    answer = await core.send(core.order("schedule", hours=hours(core, 55_000, 55_000, 40_000)))
    assert (answer["state"], answer["code"]) == ("rejected", "solo_limit")
    order = core.order("schedule", hours=hours(core, 55_000, 55_000, 40_000))
    assert (await core.send(order, core.people.dispatcher, core.people.second))["state"] == "validated"
