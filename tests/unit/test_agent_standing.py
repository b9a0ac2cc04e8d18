"""Standing limits of the connection: told always, kept where the site file says so, given back by whoever took."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.curtailment.journal import STANDING
from agent.reports import standing_alarms
from config.site import Site
from drivers.capabilities import Pool
from tests.unit.agent_kit import BASE_W, MACHINE_W, START_MS, Core, running_core, small_site
from wire.orders import Restore
from wire.states import OrderState

S = OrderState
FULL_W = BASE_W + 8 * MACHINE_W
"""60 kW: everything runs."""
PERMITTED_W = 50_000


def limited(**standing: Any) -> Site:
    """The small site with standing limits; enforced unless they say otherwise."""
    site = small_site()
    found = site.site.standing.model_copy(update={"enforce": True} | standing)
    groups = tuple(g.model_copy(update={"lowest_power_w": 2000.0}) for g in site.miners)
    return site.model_copy(update={"site": site.site.model_copy(update={"standing": found}), "miners": groups})


@contextlib.asynccontextmanager
async def core_with(folder: Path, **standing: Any) -> AsyncIterator[Core]:
    async with running_core(folder, site=limited(**standing)) as core:
        yield core


@pytest.fixture
async def permitted(tmp_path: Path) -> AsyncIterator[Core]:
    async with core_with(tmp_path, permitted_kw=PERMITTED_W / 1000) as core:
        yield core


async def told(core: Core, ev: str = "standing_limit") -> list[tuple[str, str]]:
    return [(e["obj"], e["now"]) for e in await core.records("event", "site") if e["ev"] == ev]


def kinds(core: Core) -> set[str]:
    return {kind for kind, _ in core.plant.writes}


async def steps_of_orders(core: Core) -> list[str]:
    rows = await core.ledger.read("SELECT DISTINCT order_id FROM step")
    return [row[0] for row in rows]


async def test_a_limit_that_is_not_enforced_is_told_and_moves_nothing(tmp_path: Path) -> None:
    async with core_with(tmp_path, permitted_kw=50, enforce=False) as core:
        core.plant.forbidden = True
        await core.pass_time(120)
        assert await told(core) == [("permitted_power", "exceeded")]
        assert standing_alarms(core.engine.standing) == {"permitted_power"}
        core.plant.extra_w = -12_000
        await core.pass_time(3)
        assert "near_permitted_power" in standing_alarms(core.engine.standing), "48 of 50 kW"
        assert await told(core) == [("permitted_power", "exceeded"), ("permitted_power", "within")]


async def test_the_permitted_power_is_kept_by_machines_alone_and_under_no_orders_id(permitted: Core) -> None:
    core = permitted
    await core.until(lambda: core.plant.net_w <= PERMITTED_W)
    await core.pass_time(40)
    assert core.plant.net_w > PERMITTED_W - 2 * MACHINE_W, "and no more than had to go"
    assert kinds(core) == {"sleep"}
    assert await steps_of_orders(core) == [STANDING]
    assert await core.records("cmd_ack") == await core.records("cmd_eff") == []
    assert not await core.ledger.read("SELECT 1 FROM orders")
    assert await told(core) == [("permitted_power", "shedding"), ("site", "holding")]
    assert "standing_limit" in standing_alarms(core.engine.standing)
    assert core.journal.live == {}


async def test_what_cannot_sleep_is_limited_and_no_switch_is_ever_moved(permitted: Core) -> None:
    core = permitted
    for machine in core.plant.machines.values():
        machine.refuses = True
    core.plant.extra_w = 100_000
    await core.until(lambda: core.engine.standing.state == "short", within_s=300)
    assert kinds(core) == {"sleep", "limit"}
    assert all(m.limit_w == 2000 for m in core.plant.machines.values())


async def test_it_acts_neither_unarmed_nor_without_a_meter(tmp_path: Path) -> None:
    async with running_core(tmp_path, site=limited(permitted_kw=50.0), armed=False) as core:
        core.plant.forbidden = True
        await core.pass_time(30)
        core.plant.meter_silent = True
        await core.pass_time(60)
        await core.arm()
        await core.pass_time(60)


async def test_it_is_given_back_below_the_margin_in_stages_and_not_before(permitted: Core) -> None:
    core = permitted
    await core.until(lambda: core.engine.standing.state == "holding")
    held = set(core.journal.held)
    core.plant.extra_w = -15_000
    woken: list[float] = []
    began = core.clock.mono_ns()
    while core.journal.held and (core.clock.mono_ns() - began) / 1e9 < 600:
        was = len(core.journal.held)
        await core.step()
        woken += [(core.clock.mono_ns() - began) / 1e9] * (was - len(core.journal.held))
        assert core.plant.net_w <= PERMITTED_W * 0.95, "never up to the limit again"
    assert core.plant.asleep == set()
    assert woken[0] >= 30, "it waits whether the load stays down"
    assert woken[-1] - woken[0] >= 30 * (len(held) - 1) - 5, "one after the other"
    await core.step()
    assert (await told(core))[-1] == ("site", "idle")


@pytest.mark.parametrize("obstacle", ["clock", "saon", "tag", "meter"])
async def test_doubt_gives_nothing_back(permitted: Core, obstacle: str) -> None:
    core = permitted
    await core.until(lambda: core.engine.standing.state == "holding")
    held = set(core.journal.held)
    core.plant.extra_w = -15_000
    match obstacle:
        case "clock":
            core.clock.sync = False
        case "saon":
            await core.gates.set_saon_lock("stage 1 at KM1")
        case "tag":
            await core.gates.tag("KM1", "Dana", "permit 7")
            await core.gates.tag("KM2", "Dana", "permit 7")
        case _:
            core.plant.meter_silent = True
    await core.pass_time(300, step_s=2)
    assert set(core.journal.held) == held
    assert "wake" not in kinds(core)


async def test_a_stricter_order_takes_over_what_it_puts_down_and_a_looser_one_changes_nothing(permitted: Core) -> None:
    core = permitted
    await core.until(lambda: core.engine.standing.state == "holding")
    ours = set(core.journal.held)
    order = await core.give("limit", limit_w=40_000, restore=Restore(stage_delay_s=5, stage_permille=500))
    await core.until_state(order, S.HOLDING)
    theirs = {h.target for h in core.journal.held_by(order.id)}
    assert theirs
    assert not theirs & ours
    await core.pass_time(120, step_s=2)
    assert {h.target for h in core.journal.held_by(STANDING)} == ours, "the order's limit forbids it"
    await core.release(order)
    await core.until(lambda: not core.journal.live or core.plant.net_w > 44_000, within_s=900)
    await core.pass_time(300, step_s=2)
    assert core.plant.net_w <= PERMITTED_W, "a release does not lift what the connection permits"


async def test_it_never_wakes_what_an_order_put_down(permitted: Core) -> None:
    core = permitted
    await core.until(lambda: core.engine.standing.state == "holding")
    mine = next(iter(core.journal.held))
    core.plant.machines[mine].asleep = False  # somebody woke it, and an order meets it
    order = await core.give("limit", limit_w=33_000)
    await core.until_state(order, S.HOLDING)
    assert core.journal.held[mine].order_id == order.id
    core.plant.extra_w = -30_000
    await core.pass_time(300, step_s=2)
    assert core.plant.machines[mine].asleep


async def test_it_survives_a_restart_and_a_site_file_that_enforces_no_more(permitted: Core) -> None:
    core = permitted
    await core.until(lambda: core.engine.standing.state == "holding")
    held = set(core.journal.held)
    await core.reboot()
    assert set(core.journal.held) == held
    await core.pass_time(60)
    assert set(core.journal.held) == held
    core.site = limited(permitted_kw=50.0, enforce=False)
    await core.reboot()
    await core.until(lambda: not core.journal.held, within_s=900)
    assert core.plant.asleep == set()


async def test_the_plan_of_the_hour_is_kept_and_the_least_of_three_with_a_clock_in_doubt(tmp_path: Path) -> None:
    hour = (START_MS + 5 * 3_600_000) // 3_600_000 % 24
    plan = [100.0] * 24
    plan[(hour + 1) % 24] = 48.0
    async with core_with(tmp_path, hourly_plan_kw=tuple(plan)) as core:
        await core.pass_time(30)
        assert core.plant.writes == []
        core.clock.sync = False
        await core.until(lambda: core.plant.net_w <= 48_000)
        assert (await told(core))[0] == ("hourly_plan", "shedding")
        core.clock.sync = True
        await core.until(lambda: not core.journal.held, within_s=900)
        core.clock.advance(3_600_000 / 1000)
        await core.until(lambda: core.plant.net_w <= 48_000)


async def test_machines_that_start_by_themselves_rise_no_faster_than_the_ramp(tmp_path: Path) -> None:
    async with core_with(tmp_path, ramp_kw_per_min=8) as core:
        for machine in core.plant.machines.values():
            machine.asleep = True
        await core.pass_time(90)
        assert core.plant.writes == []
        for machine in core.plant.machines.values():
            machine.asleep = False  # all at once
        seen: list[tuple[int, int]] = []
        for _ in range(600):
            await core.step()
            seen.append((core.clock.mono_ns(), core.plant.net_w))
        settled = seen[10:]
        rises = [later - now for i, (at, now) in enumerate(settled) for t, later in settled[i:] if t - at <= 60e9]
        assert 0 < max(rises) <= 8_000
        assert seen[-1][1] == FULL_W, "and all of it came back by itself"
        assert ("ramp_up", "shedding") in await told(core)


async def test_a_release_returns_no_faster_than_the_sites_ramp_but_returns(tmp_path: Path) -> None:
    async with core_with(tmp_path, ramp_kw_per_min=5) as core:
        everything = Restore(stage_permille=1000, stage_delay_s=1)
        order = await core.give("stop", restore=everything)
        await core.until_state(order, S.HOLDING)
        await core.pass_time(70)
        await core.release(order)
        low = core.plant.net_w
        began = core.clock.mono_ns()
        await core.until(lambda: not core.journal.live, within_s=1500)
        took_min = (core.clock.mono_ns() - began) / 60e9
        assert core.plant.net_w == FULL_W
        assert (FULL_W - low) / 1000 / took_min <= 8


async def test_a_switch_with_more_behind_it_than_the_ramp_closes_after_a_quiet_minute(tmp_path: Path) -> None:
    async with core_with(tmp_path, ramp_kw_per_min=5) as core:
        order = await core.give("open_feeders", feeders=("KM1",), methods=("switch",))
        await core.until_state(order, S.HOLDING)
        await core.release(order)
        await core.until(lambda: core.plant.switches["KM1"].closed, within_s=300)


# load that goes by itself --------------------------------------------------------------------------------------------


async def losses(core: Core) -> list[dict[str, Any]]:
    return [e for e in await core.records("event", "site") if e["ev"] == "load_loss"]


async def drop_rack(core: Core) -> None:
    for machine in core.plant.machines.values():
        if machine.switch == "KM1":
            machine.draw_w = 500


@pytest.mark.parametrize("cause", ["unknown", "voltage_dip", "protection_trip", "switch_opened", "pools_down"])
async def test_load_that_goes_by_no_command_is_told_with_its_likely_cause(tmp_path: Path, cause: str) -> None:
    async with core_with(tmp_path, enforce=False) as core:
        core.plant.volts = 230.0
        await core.pass_time(30)
        match cause:
            case "voltage_dip":
                core.plant.volts = 180.0
                await core.step()
                core.plant.volts = 230.0
                await drop_rack(core)
            case "protection_trip" | "switch_opened":
                core.plant.switches["KM1"].closed = False
                core.plant.switches["KM1"].protection_trip = cause == "protection_trip"
            case "pools_down":
                for machine in core.plant.machines.values():
                    machine.pools = (Pool("stratum+tcp://pool", "w", active=False, accepted=1, rejected=0),)
                await drop_rack(core)
            case _:
                await drop_rack(core)
        await core.pass_time(30)
        (found,) = await losses(core)
        assert found["detail"]["cause"] == cause
        assert found["was"] == str(FULL_W)
        assert found["detail"]["ours_w"] == 0
        assert "load_loss" in standing_alarms(core.engine.standing)
        assert core.plant.writes == []


async def test_what_an_order_takes_away_is_no_event(core: Core) -> None:
    order = await core.give("limit", limit_w=40_000)
    await core.until_state(order, S.HOLDING)
    await core.pass_time(60)
    assert await losses(core) == []
    await drop_rack(core)
    await core.pass_time(90)
    assert core.plant.net_w < 40_000
    assert not await losses(core) or (await losses(core))[0]["detail"]["cause"] == "unknown"


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with core_with(tmp_path) as found:
        yield found


async def test_what_was_lost_comes_back_in_steps_although_no_ramp_is_named(core: Core) -> None:
    await core.pass_time(30)
    for machine in core.plant.machines.values():
        machine.asleep = True  # a dip: their power supplies let go
    await core.pass_time(30)
    assert len(await losses(core)) == 1
    for machine in core.plant.machines.values():
        machine.asleep = False
    await core.pass_time(15)
    assert core.plant.net_w < FULL_W - 4 * MACHINE_W, "not all at once"
    assert kinds(core) == {"sleep"}
    assert ("return_after_loss", "shedding") in await told(core)
    await core.until(lambda: core.plant.net_w == FULL_W and not core.journal.held, within_s=1200)
