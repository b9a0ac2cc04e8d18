"""Voltage and reactive power around an order: what the account keeps, what the report says, what holds a return up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from obedience_kit import T0, by_agent, by_verifier, facts, obedient

from agent.curtailment.voltage import VoltageGuard
from config.graph import Graph
from config.site import Site
from tests.unit.agent_kit import Core, running_core, small_site
from wire.obedience import Facts
from wire.orders import Restore
from wire.states import OrderState

S = OrderState
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


async def live_on(core: Core, seconds: float) -> None:
    for _ in range(round(seconds)):
        await core.step()
        await core.account.write()


def uq(parts: list[dict[str, Any]], number: int, **columns: list[int | None]) -> None:
    """Voltage and reactive power for a part; ends of spans in s after the order came."""
    ends = [T0 + 1000 * (at or 0) for at in columns.pop("at")]
    steps = [b - a for a, b in zip([parts[number]["t0"], *ends], ends, strict=False)]
    parts[number]["uq"] = [{"mp": "M0", "of": "line", "dt": steps} | columns]


def told(known: Facts, parts: list[dict[str, Any]]) -> dict[str, Any]:
    found = by_agent(known, parts)
    assert by_verifier(known, parts) == found
    return dict(found)


def test_extremes_are_told_before_during_and_after() -> None:
    parts = obedient()
    uq(parts, 0, at=[-60, 0], lo=[10_300_000, 10_250_000], hi=[10_400_000, 10_350_000], qlo=[800, 700], qhi=[900, 950])
    uq(parts, 2, at=[600, 1200, 1201], lo=[10_500_000, 10_600_000, 10_200_000], hi=[10_550_000, 10_900_000, 10_450_000],
       qlo=[-4_000_000, None, None], qhi=[-3_900_000, None, None])  # fmt: skip
    (found,) = told(facts(), parts)["uq"]
    assert found == {
        "mp": "M0",
        "of": "line",
        "before": {"lo_mv": 10_250_000, "hi_mv": 10_400_000, "lo_var": 700, "hi_var": 950},
        "during": {"lo_mv": 10_500_000, "hi_mv": 10_900_000, "lo_var": -4_000_000, "hi_var": -3_900_000},
        "after": {"lo_mv": 10_200_000, "hi_mv": 10_450_000, "lo_var": None, "hi_var": None},
    }


def test_a_trace_from_before_has_none_and_its_report_says_none() -> None:
    assert "uq" not in told(facts(), obedient())


def cut(core: Core, volts: float | None, var: float | None) -> None:
    core.plant.volts = volts
    core.plant.meter_var = {} if var is None else {"em-0": var}


async def test_an_order_tells_the_voltage_and_the_reactive_power_that_it_made(core: Core) -> None:
    cut(core, 230.0, 12_000.0)
    await live_on(core, 120)
    order = await core.give("limit", limit_w=50_000, restore=Restore(stage_permille=400, stage_delay_s=15))
    await live_on(core, 2)
    cut(core, 241.5, -9_000.0)
    await live_on(core, 60)
    cut(core, 246.25, -9_500.0)  # one reading long, in a state in which not everything is kept
    await core.step()
    cut(core, 239.0, -9_000.0)
    await live_on(core, 90)
    await core.release(order)
    await live_on(core, 2)
    cut(core, 231.0, None)
    for _ in range(60):
        await live_on(core, 1)
        if not core.journal.live:
            break
    await live_on(core, 1)
    (said,) = await core.records("cmd_report")
    first = {one["mp"]: one for one in said["uq"]}["M0"]
    assert first["of"] == "phase"
    assert first["before"] == {"lo_mv": 230_000, "hi_mv": 230_000, "lo_var": 12_000, "hi_var": 12_000}
    assert first["during"] == {"lo_mv": 230_000, "hi_mv": 246_250, "lo_var": -9_500, "hi_var": 12_000}
    assert first["after"] == {"lo_mv": 231_000, "hi_mv": 239_000, "lo_var": -9_000, "hi_var": -9_000}
    assert {one["mp"] for one in said["uq"]} == {"M0"}, "of the points that nobody asked about, nothing"


async def test_what_was_read_before_an_order_is_not_told_as_its_work(core: Core) -> None:
    cut(core, 230.0, 12_000.0)
    await live_on(core, 5)  # less than a span
    order = await core.give("limit", limit_w=50_000, restore=Restore(stage_permille=300, stage_delay_s=20))
    cut(core, 240.0, -9_000.0)
    await live_on(core, 120)
    await core.release(order)
    cut(core, 231.0, 8_000.0)
    for _ in range(90):
        await live_on(core, 1)
        if not core.journal.live:
            break
    await live_on(core, 1)
    (said,) = await core.records("cmd_report")
    (found,) = said["uq"]
    assert found["before"] == {"lo_mv": 230_000, "hi_mv": 230_000, "lo_var": 12_000, "hi_var": 12_000}
    assert found["during"] == {"lo_mv": 240_000, "hi_mv": 240_000, "lo_var": -9_000, "hi_var": -9_000}
    assert found["after"] == {"lo_mv": 231_000, "hi_mv": 231_000, "lo_var": 8_000, "hi_var": 8_000}


async def test_what_is_not_read_is_absent_or_null_and_never_zero(core: Core) -> None:
    await live_on(core, 30)
    order = await core.give("limit", limit_w=50_000)
    await live_on(core, 60)
    assert all("uq" not in doc for doc in await core.records("cmd_trace"))
    cut(core, 230.0, None)
    await live_on(core, 60)
    core.plant.meter_silent = True
    await live_on(core, 90)
    rows = [one for doc in await core.records("cmd_trace") for one in doc.get("uq", ()) if doc["id"] == order.id]
    assert {v for one in rows for v in one["lo"]} == {230_000, None}
    assert {v for one in rows for v in (*one["qlo"], *one["qhi"])} == {None}


async def test_a_part_says_no_more_than_it_may_and_nothing_is_lost(core: Core) -> None:
    cut(core, 230.0, 1_000.0)
    await live_on(core, 1000)
    order = await core.give("limit", limit_w=50_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.curtailment.electrical.MAX_SPANS", 7)
        await live_on(core, 61)
    docs = [doc for doc in await core.records("cmd_trace") if doc["id"] == order.id]
    lengths = [len(one["dt"]) for doc in docs for one in doc.get("uq", ())]
    assert max(lengths) == 7
    ends = [at for doc in docs for one in doc.get("uq", ()) for at in ends_of(doc, one)]
    assert ends == sorted(set(ends))
    assert ends[0] <= order.received_ms - 800_000
    assert max(b - a for a, b in pairwise(ends)) <= 17_000


def ends_of(doc: dict[str, Any], one: dict[str, Any]) -> list[int]:
    at, found = doc["t0"], []
    for step in one["dt"]:
        at += step
        found.append(at)
    return found


async def test_a_sum_of_many_feeders_does_not_swell_the_trace(tmp_path: Path) -> None:
    async with running_core(tmp_path, site=with_bank("BOARD2")) as core:
        assert core.account._points("MINING") == {"MINING", "M1", "M2"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agent.curtailment.account.MAX_POINTS", 2)
            assert core.account._points("MINING") == {"MINING", "M2"}, "a bus with capacitors before other feeders"


# the guard -----------------------------------------------------------------------------------------------------------


def with_bank(bus: str) -> Site:
    doc = small_site().model_dump(mode="json", by_alias=True, exclude_unset=True)
    doc["nodes"] += [
        {"id": "QC", "type": "switch", "fed_from": [bus]},
        {"id": "BSK", "type": "compensation", "fed_from": ["QC"], "rated_kvar": 60},
    ]
    return Site.model_validate(doc)


async def test_a_live_bus_with_capacitors_holds_the_return_up_and_a_dead_one_does_not(tmp_path: Path) -> None:
    async with running_core(tmp_path, site=with_bank("BOARD1")) as core:
        core.plant.volts = 230.0
        order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
        await core.until_state(order, S.HOLDING)
        core.plant.meter_volts = {"em-1": 260.0}
        await core.step()
        await core.release(order)
        await core.pass_time(60, step_s=5)
        assert order.block is not None
        assert order.block.startswith("voltage at M1 is 0.26 kV")
        core.plant.switches["KM1"].closed = False  # a dead board says nothing of the voltage
        core.plant.meter_volts = {"em-1": 0.0}
        await core.until(lambda: order.block is None or order.id not in core.journal.live)


def test_a_bus_without_capacitors_is_not_asked_about() -> None:
    site = small_site()
    assert VoltageGuard(site, Graph(site), None, frozenset).buses() == {}  # type: ignore[arg-type]  # reads nothing
    banked = with_bank("BOARD1")
    assert VoltageGuard(banked, Graph(banked), None, frozenset).buses() == {"M1": "BOARD1"}  # type: ignore[arg-type]
