"""Maintenance: left out of every plan while it lasts, over by itself, and an alarm where the object is not healthy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.maintenance import HOUR_MS, Maintenance
from config.graph import Graph
from tests.unit.agent_kit import Core, running_core
from wire.errors import WireError
from wire.states import OrderState as S


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


def made(core: Core) -> Maintenance:
    found = Maintenance(core.site, Graph(core.site), core.ledger, core.clock, core.trusted)
    found.load()
    core.gates.maintained = found.why
    return found


def ask(obj: str, hours: float = 4, **changes: Any) -> dict[str, Any]:
    return {"object": obj, "hours": hours, "who": "A. Serik", "permit": "12", "reason": "contactor"} | changes


async def events(core: Core) -> list[tuple[str, str]]:
    return [(e["obj"], e["now"]) for e in await core.records("event", "site") if e["ev"] == "maintenance"]


async def test_a_switch_in_maintenance_is_neither_opened_nor_closed(core: Core) -> None:
    care = made(core)
    await care.begin(ask("KM1"))
    assert "permit 12" in (core.gates.may_open("KM1") or "")
    assert "permit 12" in (core.gates.may_close("KM1") or "")
    order = await core.give("emergency_trip")
    await core.until(lambda: not core.plant.switches["KM2"].closed)
    await core.pass_time(10)
    assert core.plant.switches["KM1"].closed
    await care.end({"object": "KM1", "who": "A. Serik"})
    assert core.gates.unusable("KM1") is None
    await core.until(lambda: not core.plant.switches["KM1"].closed)
    assert await events(core) == [("KM1", "begun"), ("KM1", "ended")]
    assert order.id in core.journal.live


async def test_the_module_s_maintenance_is_its_switches(core: Core) -> None:
    care = made(core)
    module = core.gates.switches["KM1"].control
    assert module is not None
    await care.begin(ask(module.device))
    assert core.gates.may_open("KM1") is not None


async def test_machines_in_maintenance_are_not_put_to_sleep_and_not_woken(core: Core) -> None:
    care = made(core)
    order = await core.give("stop", methods=("sleep",), escalation={"to": "none", "after_s": 5})
    await core.until(lambda: len(core.plant.asleep) == 8)
    await care.begin(ask("rack1"))
    await core.release(order)
    await core.pass_time(240, step_s=5)
    assert {m.partition("/")[0] for m in core.plant.asleep} == {"rack1"}, "people work there"
    assert order.state is not S.DONE
    await care.end({"object": "rack1", "who": "A. Serik"})
    await core.until_state(order, S.DONE)
    await care.begin(ask("rack2"))
    assert {m.id.partition("/")[0] for m in core.fleet.sleepers({})} == {"rack1"}


async def test_it_ends_by_itself_and_says_what_is_not_healthy(core: Core) -> None:
    care = made(core)
    trouble: dict[str, str] = {"KM1": "its position is faulty"}
    care.unhealthy = trouble.get
    await care.begin(ask("KM1", 0.5))
    await care.begin(ask("KM2", 0.5))
    core.clock.advance(1800)
    assert care.active() == []
    assert core.gates.unusable("KM1") is None, "not for a moment longer than people said"
    await care.tick()
    assert care.unhealthy_now() == ["KM1"]
    assert made(core).unhealthy_now() == ["KM1"], "the alarm outlives a restart"
    trouble.clear()
    await care.tick()
    assert care.unhealthy_now() == []
    assert (await events(core))[2:] == [("KM1", "ended"), ("KM2", "ended"), ("KM1", "healthy")]


async def test_it_outlives_a_restart_is_renewed_and_a_clock_set_back_makes_it_no_longer(core: Core) -> None:
    await made(core).begin(ask("KM1", 1))
    await core.reboot()
    care = made(core)
    assert core.gates.may_open("KM1") is not None
    core.clock.advance(1800)
    await care.begin(ask("KM1", 1))
    assert care.active()[0].until_ms == core.clock.now_ms() + HOUR_MS
    assert (await events(core))[-1] == ("KM1", "renewed")
    core.clock.advance(3700)
    core.trusted.raise_to(core.clock.now_ms())
    core.clock.wall_ms -= 3 * HOUR_MS
    assert care.active() == []


async def test_its_alarms_are_one(core: Core) -> None:
    care = made(core)
    await care.begin(ask("em-1"))
    found = {"meter_silent:em-1", "meter_silent:em-2", "storage"}
    assert care.grouped(found) == {"meter_silent:em-2", "storage"}
    core.clock.advance(5 * 3600)
    assert care.grouped(found) == found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hours": 12.1}, "at most 12"),
        ({"hours": 0}, "more than 0"),
        ({"hours": float("nan")}, "expected a number"),
        ({"hours": True}, "expected a number"),
        ({"object": "KM9"}, "no switch, device or group"),
        ({"permit": ""}, "permit: missing"),
        ({"who": " "}, "who: missing"),
    ],
)
async def test_what_cannot_be_declared_is_refused(core: Core, change: dict[str, Any], why: str) -> None:
    care = made(core)
    with pytest.raises(WireError, match=why):
        await care.begin(ask("KM1") | change)
    with pytest.raises(WireError, match="not in maintenance"):
        await care.end({"object": "KM1", "who": "A. Serik"})
    assert await events(core) == []


async def test_what_is_not_on_disk_is_not_in_force(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.errors import LedgerError

    async def full(*_: Any, **__: Any) -> None:
        raise LedgerError("disk full")

    care = made(core)
    monkeypatch.setattr(core.ledger, "commit", full)
    with pytest.raises(LedgerError):
        await care.begin(ask("KM1"))
    assert care.why("KM1") is None
