"""How much of a reduction was a battery: figures by hand, the agent's records, and what nobody may change in them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_kit import Site, codes, fresh, good_site, judged
from obedience_kit import T0, by_agent, by_verifier, facts, obedient, order
from order_kit import with_order
from storage_kit import battery_core

from tests.unit.agent_kit import Core
from wire.obedience import Facts
from wire.orders import Restore
from wire.states import OrderState

S = OrderState


def told(known: Facts, parts: list[dict[str, Any]]) -> dict[str, Any]:
    found = by_agent(known, parts)
    assert by_verifier(known, parts) == found
    return dict(found)


def bat(parts: list[dict[str, Any]], number: int, since_s: int, powers: list[int | None]) -> None:
    """Power of battery M7 from so many s after the order on, one sample in 5 s."""
    steps = [T0 + since_s * 1000 - parts[number]["t0"], *([5000] * (len(powers) - 1))]
    parts[number]["bat"] = [{"mp": "M7", "dt": steps, "w": powers}]


def with_battery(before: list[int | None], during: list[int | None]) -> list[dict[str, Any]]:
    """Of :func:`obedient`: 100 kW to 40 kW, judged by the 19 minutes from 60 s to 1,200 s."""
    parts = obedient()
    bat(parts, 0, -60, before)
    bat(parts, 2, 60, during)
    return parts


def test_what_it_gave_and_what_it_charged_less_are_told_apart() -> None:
    found = told(facts(), with_battery([10_000] * 12, [-20_000] * 228))["storage"]
    assert found == {
        "reduced_wh": 60_000 * 19 // 60,
        "points": [
            {
                "mp": "M7",
                "before_w": 10_000,
                "discharge_wh": 20_000 * 19 // 60,
                "more_discharge_wh": 20_000 * 19 // 60,
                "less_charge_wh": 10_000 * 19 // 60,
                "missing": 0,
            }
        ],
    }


def test_what_it_gave_already_is_no_part_of_the_reduction() -> None:
    (found,) = told(facts(), with_battery([-15_000] * 12, [-20_000] * 228))["storage"]["points"]
    assert (found["discharge_wh"], found["more_discharge_wh"], found["less_charge_wh"]) == (6_333, 1_583, 0)
    (found,) = told(facts(), with_battery([-15_000] * 12, [8_000] * 228))["storage"]["points"]
    assert (found["discharge_wh"], found["more_discharge_wh"], found["less_charge_wh"]) == (0, 0, 0)


def test_what_was_not_read_is_missing_and_not_zero() -> None:
    (found,) = told(facts(), with_battery([None] * 12, [None] * 108 + [-20_000] * 120))["storage"]["points"]
    assert (found["before_w"], found["more_discharge_wh"], found["less_charge_wh"]) == (None, None, None)
    assert (found["discharge_wh"], found["missing"]) == (20_000 * 10 // 60, 9)


def test_of_mining_a_battery_is_no_part() -> None:
    known = facts(order(measured_at="gross_mining"))
    assert "storage" not in told(known, with_battery([10_000] * 12, [-20_000] * 228))
    assert "storage" not in told(facts(), obedient())


async def live_on(core: Core, seconds: float) -> None:
    for _ in range(round(seconds)):
        await core.step()
        await core.account.write()


async def reported(core: Core, **fields: Any) -> dict[str, Any]:
    """An order met by the battery alone, which gives 15 kW as soon as it came; its report."""
    await live_on(core, 120)
    order = await core.give("limit", restore=Restore(stage_permille=1000, stage_delay_s=1), **fields)
    core.plant.battery_w = -15_000
    await live_on(core, 240)
    assert order.state is S.HOLDING
    await core.release(order)
    for _ in range(60):
        await live_on(core, 1)
        if not core.journal.live:
            break
    await live_on(core, 1)
    (said,) = await core.records("cmd_report")
    return said


async def test_a_limit_met_by_a_battery_says_so_and_is_not_taken_for_mining(tmp_path: Path) -> None:
    async with battery_core(tmp_path, 0) as core:
        said = await reported(core, limit_w=50_000)
        assert (said["verdict"], core.plant.writes) == ("obeyed", [])
        (found,) = said["storage"]["points"]
        assert (found["mp"], found["before_w"], found["less_charge_wh"], found["missing"]) == ("M3", 0, 0, 0)
        assert found["more_discharge_wh"] == found["discharge_wh"] == said["storage"]["reduced_wh"] > 0


async def test_an_order_by_mining_records_no_battery(tmp_path: Path) -> None:
    async with battery_core(tmp_path, 0) as core:
        said = await reported(core, limit_w=20_000, measured_at="gross_mining")
        assert "storage" not in said
        assert all("bat" not in doc for doc in await core.records("cmd_trace"))
        assert "sleep" in {kind for kind, _ in core.plant.writes}, "the battery's 15 kW are none of it"


async def test_a_battery_that_falls_silent_is_unknown_in_the_records(tmp_path: Path) -> None:
    async with battery_core(tmp_path, 5_000) as core:
        await live_on(core, 30)
        await core.give("limit", limit_w=60_000)
        await live_on(core, 60)
        core.plant.battery_silent = True
        await live_on(core, 70)
        rows = [one for doc in await core.records("cmd_trace") for one in doc.get("bat", ())]
        assert {watt for one in rows for watt in one["w"]} == {5_000, None}


BAT = [{"mp": "M7", "dt": [-5000, *([5000] * 20)], "w": [9_000, *([-20_000] * 20)]}]
FORGED: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "a discharge made mining": lambda said, _: said["storage"]["points"][0].update(more_discharge_wh=0),
    "a reduction made larger": lambda said, _: said["storage"].update(reduced_wh=10**6),
    "left out of the report": lambda said, _: said.pop("storage"),
    "a battery left out": lambda said, _: said["storage"].update(points=[]),
    "a power that is no number": lambda _, part: part["bat"][0]["w"].__setitem__(3, "1"),
    "columns of two lengths": lambda _, part: part["bat"][0]["dt"].pop(),
    "nothing, told as a list": lambda _, part: part.update(bat=[]),
}


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


def test_a_report_with_a_battery_is_recomputed(template: Site, tmp_path: Path) -> None:
    site = with_order(fresh(template), bat=BAT)
    assert site.streams["cmd"][-1]["storage"]["points"][0]["mp"] == "M7"
    found = judged(tmp_path, site)
    assert (found.exit, found.reports, codes(found)) == (0, 1, set()), found.to_text()


@pytest.mark.parametrize("name", FORGED)
def test_attack_41_an_altered_share_is_found(template: Site, tmp_path: Path, name: str) -> None:
    site = with_order(fresh(template), bat=copy.deepcopy(BAT))
    docs = site.streams["cmd"]
    FORGED[name](docs[-1], next(doc for doc in docs if doc.get("part") == 0))
    found = judged(tmp_path, site)
    assert (found.exit, codes(found)) == (2, {"COMMAND"})
