"""The running agent proves outputs at a simulated site, over real Modbus and real miners' interfaces."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from process_kit import Process
from site_kit import SITE, SiteKit, until

from agent.commissioning import judge as judge_module
from agent.commissioning.commissioner import PROGRESS
from agent.inbox import hand_in
from config.site import Site
from drivers.capabilities import Position
from grid.acts import commissioning_act
from tizgin.commands import _agent_commission
from tizgin.commands.agent import app as agent_app
from wire.acts import encode_act
from wire.dsse import ACT_TYPE, seal

PERSONS = ["D. Kim", "B. Akhmetova"]
GUARD_S = 2


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    made = await asyncio.to_thread(SiteKit, tmp_path, stock=2, time_scale=100.0)
    change(made, lambda doc: None)
    try:
        await made.start_plant()
        await running(made)
        yield made
    finally:
        await made.stop()


def change(kit: SiteKit, edit: Any) -> None:
    """Rewrite the site file, with a longer guard and what a test needs."""
    doc = yaml.safe_load(kit.site_file.read_text(encoding="utf-8"))
    for name in ("KM1", "KM2"):
        node(doc, name)["reclose_guard_s"] = GUARD_S
    edit(doc)
    kit.site_file.write_text(yaml.safe_dump(doc, allow_unicode=True, sort_keys=False), encoding="utf-8")
    kit.site = Site.model_validate(doc)


def node(doc: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(n for n in doc["nodes"] if n["id"] == name)
    return found


async def running(kit: SiteKit) -> None:
    await kit.start_agent(wait_connected=False)
    await until(lambda: kit.net_w() is not None and kit.answering() == kit.luxos + kit.stock, 30, "live values")
    app = kit.app
    assert app is not None
    await until(lambda: app.bench.why_unsafe("KM1") is None, 20, lambda: app.bench.why_unsafe("KM1"))


async def ask(kit: SiteKit, **doc: Any) -> tuple[bool, str]:
    raw = json.dumps({"ty": "commission", **doc}).encode()
    return await hand_in(kit.site_dir / "state", f"commission-{id(doc)}", raw)


async def begin(kit: SiteKit, output: str, **wish: Any) -> str:
    wish = {"live_load": True, "return_s": 60} | wish
    good, text = await ask(kit, do="begin", output=output, persons=PERSONS, **wish)
    assert good, text
    return text


def progress(kit: SiteKit) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((kit.site_dir / "state" / PROGRESS).read_text())
    return found


async def waits(kit: SiteKit, what: str) -> None:
    await until(lambda: progress(kit)["waiting_for"] == what or progress(kit)["result"], 60, lambda: progress(kit))
    assert progress(kit)["waiting_for"] == what, progress(kit)


async def result(kit: SiteKit, test: str) -> dict[str, Any]:
    await until(lambda: progress(kit)["id"] == test and progress(kit)["result"] is not None, 90, lambda: progress(kit))
    found: dict[str, Any] = progress(kit)["result"]
    return found


async def records(kit: SiteKit, *events: str) -> list[tuple[str, str, str | None]]:
    return [(r["ev"], r["obj"], r.get("now")) for r in await kit.records("event") if r["ev"] in events]


def closed(kit: SiteKit, switch: str) -> bool:
    assert kit.simulation is not None
    return kit.simulation.plant.switches[switch].closed


def fault(kit: SiteKit, kind: str, target: str, **how: Any) -> None:
    assert kit.simulation is not None
    kit.simulation.faults.set(kind, target, **how)


async def test_a_good_output_is_proven_closed_on_a_persons_word_and_its_load_comes_back(kit: SiteKit) -> None:
    test = await begin(kit, "KM1", live_load=False, awake=3, displays=[["M1", 999_999_999]])
    assert not (await result(kit, test))["passed"], "a display that is not the register's is told before anything moves"
    assert closed(kit, "KM1")
    test = await begin(kit, "KM1", live_load=False, awake=3)
    await waits(kit, "confirm_close")
    assert not closed(kit, "KM1")
    good, text = await ask(kit, do="confirm", test=test, who="Somebody Else")
    assert (good, "not among the persons" in text) == (False, True)
    assert (await ask(kit, do="confirm", test=test, who=PERSONS[1]))[0]
    found = await result(kit, test)
    assert found["passed"], found
    assert closed(kit, "KM1")
    assert (found["slept"], found["cut_live"], found["not_back"], found["closed_by"]) == (3, 3, [], "agent")
    proof = found["proof"]
    assert (proof["meter"], proof["others_moved"]) == ("M1", [])
    assert 0.8 * proof["expected_w"] <= proof["seen_w"] <= 1.2 * proof["expected_w"]
    assert 2800 * 3 * 0.8 < proof["expected_w"] < 2800 * 4, "live power, not nameplate of all six"
    assert proof["stayed_open_s"] >= GUARD_S
    told = await records(kit, "commission_sleep", "commission_open", "commission_close", "commission_test")
    assert [t[0] for t in told[1:]] == ["commission_sleep", "commission_open", "commission_close", "commission_test"]
    assert [t[2] for t in told if t[0] == "commission_test"] == ["failed", "passed"]


@pytest.mark.long
async def test_the_protocol_of_the_command_is_one_that_two_persons_sign_and_the_agent_takes(
    tmp_path: Path, kit: SiteKit
) -> None:
    out = tmp_path / "protocol.json"
    persons = [word for p in PERSONS for word in ("--person", p)]
    words = ["commission", "KM2", "KM1", *persons, "--yes", "--live-load", "--return-s", "60", "--json"]
    words += ["--out", str(out), "--config", str(kit.site_file)]
    done = await asyncio.to_thread(CliRunner().invoke, agent_app, words, standalone_mode=False)
    assert (done.exception, done.return_value) == (None, 0), done.output
    proven = json.loads(done.stdout.splitlines()[-1])  # the agent of this process logs to the same stream
    assert [(r["output"], r["passed"]) for r in proven] == [("KM2", True), ("KM1", True)]
    assert proven[0]["proof"]["meter"] == "M0", "the branch's own meter loses its supply with the branch"
    assert kit.app is not None
    act = commissioning_act(json.loads(out.read_text()), now_ms=kit.app.clock.now_ms())
    await kit.start_central()
    app = kit.app
    await until(lambda: app.register.document is not None, 30, "register at the agent")
    raw = seal(ACT_TYPE, encode_act(act), kit.engineer, kit.second).encode()
    assert (await hand_in(kit.site_dir / "state", "act-1", raw))[0]
    assert set(app.gates.commissioned) == {"KM1", "KM2"}
    assert act.site == SITE


async def test_swapped_relay_wires_are_named_and_both_outputs_refused(kit: SiteKit) -> None:
    await arm_by_hand(kit)
    fault(kit, "swapped", "io-1", first="relay_1", second="relay_2")
    found = await result(kit, await begin(kit, "KM1"))
    assert not found["passed"]
    assert "KM1's command opened what KM2 should" in " ".join(found["why"])
    assert "meter M2 fell" in " ".join(found["why"])
    assert {o for o, _ in found["refused"]} == {"KM1", "KM2"}
    assert kit.app is not None
    assert kit.app.gates.commissioned == {}, "what was proven once is not believed any more"
    assert not closed(kit, "KM2"), "nothing is closed on a guess"


async def test_feeders_that_are_swapped_with_their_contacts_are_named_by_their_meters(tmp_path: Path) -> None:
    """The cabinet is labelled the other way round: contacts agree with the command, and the wrong meter falls."""
    made = await asyncio.to_thread(SiteKit, tmp_path, stock=2, time_scale=100.0)

    def em2_on_control(doc: dict[str, Any]) -> None:
        next(d for d in doc["devices"] if d["id"] == "em-2")["fed_from"] = "CTRL"

    change(made, em2_on_control)
    as_drawn = made.site

    def other_way_round(doc: dict[str, Any]) -> None:
        one, two = node(doc, "KM1"), node(doc, "KM2")
        for key in ("control", "position"):
            one[key], two[key] = two[key], one[key]

    change(made, other_way_round)
    await made.start_plant()
    made.site = as_drawn
    try:
        await running(made)
        found = await result(made, await begin(made, "KM1"))
        assert not found["passed"]
        assert "KM1's command opened what KM2 should (meter M2 fell)" in " ".join(found["why"])
        assert {o for o, _ in found["refused"]} == {"KM1", "KM2"}
        assert "stays open" in found["why"][-1]
    finally:
        await made.stop()


async def test_a_breaker_that_recloses_is_named_and_refused(kit: SiteKit) -> None:
    fault(kit, "reclose", "KM1", after_s=1.0, times=1)
    found = await result(kit, await begin(kit, "KM1"))
    assert not found["passed"]
    assert "re-closing automatics" in found["why"][0]
    assert [o for o, _ in found["refused"]] == ["KM1"]
    assert await records(kit, "commission_test") == [("commission_test", "KM1", "failed")]


async def test_a_welded_contactor_is_refused_and_its_machines_wake(kit: SiteKit) -> None:
    fault(kit, "welded", "KM1")
    found = await result(kit, await begin(kit, "KM1", live_load=False, awake=3))
    assert not found["passed"]
    assert "KM1 did not open: position closed" in found["why"][0]
    assert "no meter shows" in found["why"][0]
    assert (found["slept"], found["left_asleep_count"], found["not_back"]) == (3, 0, [])
    await until(lambda: kit.answering() == kit.luxos + kit.stock, 30, "machines awake")


async def test_a_tag_hung_in_the_middle_stops_the_test_and_nothing_is_closed(kit: SiteKit) -> None:
    test = await begin(kit, "KM1")
    await waits(kit, "confirm_close")
    assert kit.app is not None
    await kit.app.gates.tag("KM1", "A. Serik", "permit 12")
    await ask(kit, do="confirm", test=test, who=PERSONS[0])
    found = await result(kit, test)
    assert not found["passed"]
    assert "A. Serik" in found["why"][0]
    assert not closed(kit, "KM1")
    assert await records(kit, "commission_close") == []
    good, text = await ask(kit, do="begin", output="KM2", persons=PERSONS, live_load=True)
    assert (good, "tag" in text) == (False, True)


async def test_an_agent_that_dies_while_it_is_open_closes_nothing_and_records_the_failure(kit: SiteKit) -> None:
    test = await begin(kit, "KM1", live_load=False, awake=3)
    await waits(kit, "confirm_close")
    await kit.stop_agent()
    assert not closed(kit, "KM1")
    await kit.start_agent(wait_connected=False)
    found = await result(kit, test)
    assert not found["passed"]
    assert "stopped in the middle" in found["why"][0]
    assert "KM1 stays open" in found["why"][1]
    assert found["left_asleep_count"] == 3
    assert not closed(kit, "KM1")
    assert await records(kit, "commission_close") == []
    good, text = await ask(kit, do="give_back", persons=PERSONS)
    assert (good, "close their switch first" in text) == (False, True)
    fault(kit, "write", "io-1", output="relay_1", level=True)
    app = kit.app
    assert app is not None
    await until(lambda: app.live.switches["KM1"].position is Position.CLOSED, 20, "a person closed it")
    good, again = await ask(kit, do="give_back", persons=PERSONS)
    assert good, again
    assert (await result(kit, again))["woken"] == 3
    await until(lambda: kit.answering() == kit.luxos + kit.stock, 60, "machines awake")


async def test_kill_9_while_it_is_open_closes_nothing_and_the_next_start_names_it(tmp_path: Path) -> None:
    made = await asyncio.to_thread(SiteKit, tmp_path, stock=2, time_scale=100.0)
    change(made, lambda doc: None)
    agent = Process("agent", ["agent", "run", "--config", str(made.site_file)], tmp_path / "agent.log")
    state = made.site_dir / "state"
    try:
        await made.start_plant()
        await asyncio.to_thread(agent.start)
        await until((state / "status.json").exists, 60, agent.tail)
        deadline = asyncio.get_running_loop().time() + 60
        while (plan := json.loads((await ask(made, do="plan", output="KM1"))[1]))["not_now"] or not plan["live_w"]:
            assert asyncio.get_running_loop().time() < deadline, plan
        test = await begin(made, "KM1")
        await waits(made, "confirm_close")
        await asyncio.to_thread(agent.kill)
        assert not closed(made, "KM1")
        await asyncio.to_thread(agent.start)
        found = await result(made, test)
        assert not found["passed"]
        assert "stopped in the middle of the test, after commission_open; KM1 is now open" in found["why"][0]
        good, text = await ask(made, do="begin", output="KM1", persons=PERSONS)
        assert (good, "must be read closed" in text) == (False, True)
        assert not closed(made, "KM1")
    finally:
        await asyncio.to_thread(agent.stop)
        await made.stop()


async def test_another_masters_write_spoils_the_test(kit: SiteKit) -> None:
    await begin(kit, "KM1")
    await until(lambda: progress(kit)["phase"] == "watch", 30, lambda: progress(kit))
    fault(kit, "write", "io-1", output="relay_1", level=True)
    found = await result(kit, progress(kit)["id"])
    assert not found["passed"]
    assert "another master" in found["why"][0]


@pytest.mark.long
async def test_a_switch_that_people_close_is_waited_for(tmp_path: Path) -> None:
    made = await asyncio.to_thread(SiteKit, tmp_path, stock=2, time_scale=100.0)
    change(made, lambda doc: node(doc, "KM1").update(close="by_person"))
    try:
        await made.start_plant()
        await running(made)
        test = await begin(made, "KM1")
        await waits(made, "person")
        good, text = await ask(made, do="confirm", test=test, who=PERSONS[0])
        assert (good, "nothing waits" in text) == (False, True)
        assert "KM1 may be closed by a person" in progress(made)["lines"]
        fault(made, "close", "KM1")
        found = await result(made, test)
        assert (found["passed"], found["closed_by"]) == (True, "person"), found
        assert await records(made, "commission_close") == []
    finally:
        await made.stop()


async def test_the_command_shows_what_will_happen_and_moves_nothing_unless_a_person_types_the_name(
    kit: SiteKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def typed(*words: str, answer: str = "") -> Any:
        arguments = ["commission", *words, "--config", str(kit.site_file)]
        return await asyncio.to_thread(CliRunner().invoke, agent_app, arguments, input=answer, standalone_mode=False)

    shown = await typed("KM1", "--plan")
    assert shown.return_value == 0, shown.exception
    for word in ("BOARD1", "M1", "must not move", "by the agent, when a person confirms"):
        assert word in shown.output
    persons = ("--person", "D. Kim", "--person", "B. Akhmetova")
    assert "two persons" in str((await typed("KM1", "--person", "D. Kim", "--yes")).exception)
    assert "--yes" in str((await typed("KM1", *persons)).exception)
    assert "kWh" in str((await typed("KM1", "--plan", "--display", "M1:5")).exception)
    assert "no output" in str((await typed("QF0", "--plan")).exception)
    monkeypatch.setattr(_agent_commission, "interactive", lambda: True)
    refused = await typed("KM1", *persons, answer="KM2\n")
    assert "nothing was moved" in str(refused.exception)
    assert await records(kit, "commission_sleep", "commission_open") == []
    done = await typed("KM1", *persons, "--live-load", "--return-s", "60", answer="KM1\nKM1\n")
    assert (done.exception, done.return_value) == (None, 0), done.output
    assert "passed" in done.output
    assert closed(kit, "KM1")


async def test_too_little_load_to_be_seen_is_told_before_anything_moves(
    kit: SiteKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six sleeping machines draw 180 W; how much is enough depends on the meters' noise, so here it is a number."""
    monkeypatch.setattr(judge_module, "LEAST_W", 1000)
    found = await result(kit, await begin(kit, "KM1", live_load=False, awake=0))
    assert not found["passed"]
    assert "--awake" in found["why"][0]
    assert await records(kit, "commission_sleep", "commission_open") == []


async def test_an_armed_agent_tests_only_on_request_and_not_under_an_order(kit: SiteKit) -> None:
    await arm_by_hand(kit, mode=True)
    good, text = await ask(kit, do="begin", output="KM1", persons=PERSONS, live_load=True)
    assert (good, "--retest" in text) == (False, True)
    test = await begin(kit, "KM1", retest=True)
    await waits(kit, "confirm_close")
    order, raw = kit.order("stop")
    await kit.give(raw)
    found = await result(kit, test)
    assert not found["passed"]
    assert order in found["why"][0]
    assert kit.app is not None
    assert "KM1" in kit.app.gates.commissioned, "the plant did nothing wrong"
    good, text = await ask(kit, do="begin", output="KM2", persons=PERSONS, live_load=True, retest=True)
    assert (good, "is live" in text) == (False, True)


async def arm_by_hand(kit: SiteKit, *, mode: bool = False) -> None:
    """Acts as they would have come, without central: the register is handed over directly."""
    assert kit.app is not None
    await kit.app.register.take(kit.register())
    await kit.arm()
    if not mode:
        kit.app.gates.act_mode = "monitor"
