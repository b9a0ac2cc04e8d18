"""VNish: recorded and own answers, presets as limits, and a log-in that shuts out whoever tries too often."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from drivers.asic.credentials import Credentials
from drivers.asic.family import Address, Evidence
from drivers.asic.given import Given
from drivers.asic.vnish import FAMILY
from drivers.asic.vnish.answers import (
    is_asleep,
    limit_state,
    overclock_of,
    preset_watts,
    presets_of,
    vnish_status,
    with_preset,
)
from drivers.capabilities import WriteStatus
from drivers.errors import NoConnection
from tests.support.asic_kit import BY_NAME, PATIENT, answers_of, assert_says, own_cases, recorded, until

VNISH = BY_NAME["vnish"]


@pytest.fixture
async def server() -> AsyncIterator[Any]:
    one = VNISH.make_server()
    await one.start()
    yield one
    await one.stop()


@pytest.mark.parametrize("folder", own_cases("vnish"))
def test_own_case(folder: Path) -> None:
    answers = answers_of(folder)
    assert_says(vnish_status(answers["summary"], answers.get("info")), folder)


def test_recorded_machine() -> None:
    answers = answers_of(recorded("vnish/S21Pro-1.2.7"), "web__")
    status = vnish_status(answers["summary"], answers["info"])
    assert (status.model, status.firmware) == ("Antminer S21 Pro", "Vnish 1.2.7")
    assert (status.mac, status.serial) == ("02:00:00:0a:09:01", None)
    assert status.hashrate_ths == pytest.approx(173.871, abs=0.001)
    assert status.hashrate_nominal_ths == pytest.approx(196.517, abs=0.001)
    assert (status.power_w, status.power_source) == (2583.0, "measured")
    assert [board.chips for board in status.boards] == [65, 65, 65]
    assert status.fans_rpm == (5880, 5880, 5940, 5940)
    assert [pool.user for pool in status.pools] == ["site.rack01.u01", "site.rack01.u02"]  # and not the vendor's row
    assert (status.sleeping, status.errors) == (False, ())


def test_recorded_presets_are_the_limits_there_are() -> None:
    answers = answers_of(recorded("vnish/S21Pro-1.2.7"), "web__")
    presets = presets_of(answers["autotune__presets"], modded_psu=False)
    assert len(presets) == 25
    assert (min(presets), max(presets)) == (2550, 4690)
    overclock = overclock_of(answers["settings"])
    state = limit_state(overclock, tuple(presets))
    assert state is not None
    assert state.now_w is None  # the switcher moves it
    assert dict(state.settings) == {"preset": "3160", "switcher": True}
    changed = with_preset(overclock, "2800", False)["miner"]["overclock"]
    assert (changed["preset"], changed["preset_switcher"]["enabled"]) == ("2800", False)
    assert with_preset(changed, "3160", True)["miner"]["overclock"] == overclock


@pytest.mark.parametrize(
    ("name", "watts"), [("2550", 2550), (" 900 ", 900), ("disabled", None), ("3kW", None), (None, None), (3000, None)]
)
def test_watts_of_a_preset(name: object, watts: int | None) -> None:
    assert preset_watts(name) == watts


@pytest.mark.parametrize(
    ("state", "asleep"),
    [
        ("stopped", True),
        ("mining", False),
        ("starting", False),
        ("shutting-down", None),
        ("failure", None),
        (None, None),
    ],
)
def test_states(state: str | None, asleep: bool | None) -> None:
    assert is_asleep(state) is asleep


async def test_reading_wants_no_log_in(server: Any) -> None:
    driver = VNISH.make_driver(server, credentials=None)
    for _ in range(3):
        assert (await driver.status()).power_source == "measured"
    assert "POST /api/v1/unlock" not in server.commands
    assert server.commands["GET /api/v1/info"] == 1


async def test_a_wrong_password_is_tried_once_and_then_rests(server: Any) -> None:
    now_s = 1000.0
    driver = VNISH.make_driver(server, credentials=Credentials("", "wrong"), mono=lambda: now_s)
    for _ in range(5):
        assert (await driver.sleep()).status is WriteStatus.REFUSED
    assert server.commands["POST /api/v1/unlock"] == 1
    now_s += 21.0
    await driver.sleep()
    assert server.commands["POST /api/v1/unlock"] == 2
    assert (await driver.status()).sleeping is False


async def test_too_many_log_ins_wait_as_long_as_the_machine_says(server: Any) -> None:
    now_s = 1000.0
    for _ in range(5):
        await VNISH.make_driver(server, credentials=Credentials("", "wrong")).sleep()
    driver = VNISH.make_driver(server, mono=lambda: now_s)
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "HTTP 429" in outcome.detail
    asked = server.commands["POST /api/v1/unlock"]
    now_s += 29.0
    await driver.sleep()
    assert server.commands["POST /api/v1/unlock"] == asked
    now_s += 2.0
    await driver.sleep()
    assert server.commands["POST /api/v1/unlock"] == asked + 1


async def test_a_limit_stops_the_switcher_and_puts_it_back(server: Any) -> None:
    before = json.loads(json.dumps(server.overclock))
    driver = VNISH.make_driver(server)
    bounds = await driver.power_range()
    assert (bounds.lowest_w, bounds.highest_w, bounds.now_w) == (1500, 3500, None)
    prior = await driver.prior_limit()
    assert (await driver.limit_power(2999)).status is WriteStatus.ACKNOWLEDGED
    assert server.overclock["preset"] == "2500"
    assert server.overclock["preset_switcher"] == {**before["preset_switcher"], "enabled": False}
    assert server.overclock["globals"] == before["globals"]
    assert (await driver.restore_limit(prior)).status is WriteStatus.ACKNOWLEDGED
    assert server.overclock == before


async def test_a_limit_below_every_preset_is_refused(server: Any) -> None:
    outcome = await VNISH.make_driver(server).limit_power(1000)
    assert outcome.status is WriteStatus.REFUSED
    assert "1500 W or more" in outcome.detail
    assert server.overclock["preset"] == "3000"


async def test_presets_for_a_modified_power_supply_need_one(server: Any) -> None:
    driver = VNISH.make_driver(server)
    await driver.limit_power(4500)
    assert server.overclock["preset"] == "3500"
    server.overclock["modded_psu"] = True
    await driver.limit_power(4500)
    assert server.overclock["preset"] == "4000"


async def test_a_saved_preset_that_wants_a_restart_gets_it() -> None:
    server = VNISH.make_server(restart_wanted=True)
    await server.start()
    try:
        assert (await VNISH.make_driver(server).limit_power(2500)).status is WriteStatus.ACKNOWLEDGED
        assert server.commands["POST /api/v1/mining/restart"] == 1
    finally:
        await server.stop()


async def test_a_failure_says_why_and_is_neither_asleep_nor_awake(server: Any) -> None:
    server.failure = "fan check failed"
    server.machine.request_sleep()
    await until(lambda: server.machine.hashrate_ths() == 0.0)
    status = await VNISH.make_driver(server).status()
    assert status.sleeping is None
    assert status.errors[0] == "failure 8: fan check failed"


def test_it_is_recognised_by_socket_and_web_page() -> None:
    answers = answers_of(recorded("vnish/S21Pro-1.2.7"))
    assert FAMILY.certainty(Evidence(version=answers["rpc__version"], stats=answers["rpc__stats"])) > 80
    assert FAMILY.certainty(Evidence(pages={"/api/v1/info": answers["web__info"]})) > 80
    assert FAMILY.certainty(Evidence(version=answers["rpc__version"])) == 0


async def test_without_a_port_of_its_web_interface_it_says_what_is_missing() -> None:
    driver = FAMILY.make(Address("127.0.0.1", rpc_port=14028, http_port=0), Given(timeouts=PATIENT))
    with pytest.raises(NoConnection, match="port of its web interface is not known"):
        await driver.status()
