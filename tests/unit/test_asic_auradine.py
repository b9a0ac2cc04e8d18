"""Auradine: recorded and own answers, and what its driver does where only one of its two interfaces answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from drivers.asic.auradine import FAMILY
from drivers.asic.auradine.answers import auradine_status, is_asleep, limit_state
from drivers.asic.credentials import Credentials
from drivers.asic.family import Evidence
from drivers.capabilities import WriteStatus
from drivers.errors import NoConnection
from tests.support.asic_kit import BRIEF, BY_NAME, answers_of, assert_says, own_cases, recorded, until

AURADINE = BY_NAME["auradine"]


@pytest.fixture
async def server() -> AsyncIterator[Any]:
    one = AURADINE.make_server(rpc_closed_asleep=True)
    await one.start()
    yield one
    await one.stop()


@pytest.mark.parametrize("folder", own_cases("auradine"))
def test_own_case(folder: Path) -> None:
    answers = answers_of(folder)
    assert_says(auradine_status(answers, answers), folder)


def test_recorded_machine_says_what_its_source_expects() -> None:
    folder = recorded("auradine/AT1500")
    expected = json.loads((folder / "expected.json").read_bytes())
    answers = answers_of(folder)
    status = auradine_status(answers, answers)
    assert status.serial == expected["serial"]
    assert status.firmware == expected["firmware"]
    assert status.uptime_s == expected["uptime_s"]
    assert (status.power_w, status.power_source) == (expected["wattage_w"], "measured")
    assert status.hashrate_nominal_ths == expected["expected_hashrate_ths"]
    assert len(status.fans_rpm) == expected["fans"]
    assert [board.chips for board in status.boards] == [expected["chips_per_board"]] * expected["boards"]
    assert sum(board.chips or 0 for board in status.boards) == expected["total_chips"]
    assert len(status.pools) == expected["pools"]
    assert status.sleeping is not expected["is_mining"]
    limit = limit_state(answers["mode"])
    assert limit is not None
    assert limit.now_w == expected["power_target_w"]


@pytest.mark.parametrize(
    ("said", "asleep"), [("on", True), ("off", False), ("On", True), (True, True), ("", None), (None, None), (3, None)]
)
def test_whether_it_sleeps(said: object, asleep: bool | None) -> None:
    assert is_asleep({"Mode": [{"Sleep": said}]}) is asleep


@pytest.mark.parametrize(
    ("row", "now_w", "settings"),
    [
        ({"Mode": "eco"}, None, {"mode": "eco"}),
        ({"Mode": "Custom", "Tune": "power", "Power": 2500}, 2500, {"mode": "custom", "tune": "power", "power": 2500}),
        (
            {"Mode": "custom", "Tune": "ths", "Ths": 150.5, "Power": 0},
            None,
            {"mode": "custom", "tune": "ths", "ths": 150.5},
        ),
    ],
)
def test_modes_as_limits(row: dict[str, Any], now_w: int | None, settings: dict[str, Any]) -> None:
    state = limit_state({"Mode": [row]})
    assert state is not None
    assert (state.now_w, dict(state.settings)) == (now_w, settings)


async def test_asleep_with_a_closed_socket_is_asleep_and_not_offline(server: Any) -> None:
    driver = AURADINE.make_driver(server)
    await driver.status()
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    await until(lambda: server.machine.hashrate_ths() == 0.0)
    status = await driver.status()
    assert status.sleeping is True
    assert status.power_w == pytest.approx(30.0)
    assert status.serial == "SIM0000000000001"
    with pytest.raises(NoConnection):
        await AURADINE.make_driver(server, credentials=None).status()


@pytest.mark.parametrize("credentials", [None, Credentials("admin", "wrong")])
async def test_without_a_good_log_in_there_is_no_power_but_a_hash_rate(server: Any, credentials: Any) -> None:
    driver = AURADINE.make_driver(server, credentials=credentials)
    for _ in range(3):
        status = await driver.status()
    assert status.hashrate_ths == pytest.approx(95.0)
    assert (status.power_w, status.power_source, status.fans_rpm) == (None, "none", ())
    assert server.commands.get("POST /token", 0) <= 1


async def test_a_broken_web_page_costs_the_status_its_power_and_rests(server: Any) -> None:
    now_s = 1000.0
    driver = AURADINE.make_driver(server, timeouts=BRIEF, mono=lambda: now_s)
    server.faults.http_down = True
    assert (await driver.status()).power_w is None
    server.faults.http_down = False
    assert (await driver.status()).power_w is None  # not asked again so soon
    now_s += 61.0
    driver = AURADINE.make_driver(server, mono=lambda: now_s)
    assert (await driver.status()).power_w == pytest.approx(3250.0)


async def test_its_lamp_tells_of_errors(server: Any) -> None:
    server.led = "Fan fault"
    assert (await AURADINE.make_driver(server).status()).errors == ("Fan fault",)


async def test_a_mode_that_is_no_limit_comes_back_after_one(server: Any) -> None:
    server.mode = {"Mode": "turbo"}
    driver = AURADINE.make_driver(server)
    prior = await driver.prior_limit()
    assert (await driver.power_range()).now_w is None
    assert (await driver.limit_power(2000)).status is WriteStatus.ACKNOWLEDGED
    assert server.mode == {"Mode": "custom", "Tune": "power", "Power": 2000}
    assert (await driver.restore_limit(prior)).status is WriteStatus.ACKNOWLEDGED
    assert server.mode == {"Mode": "turbo"}


def test_it_is_recognised_by_its_name() -> None:
    folder = recorded("auradine/AT1500")
    assert FAMILY.certainty(Evidence(version=answers_of(folder)["version"])) > 80
    assert FAMILY.certainty(Evidence()) == 0
