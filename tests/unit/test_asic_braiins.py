"""Braiins OS: recorded and own answers of its three interfaces, and what its driver makes of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from drivers.asic.braiins import FAMILY, graphql, rest
from drivers.asic.braiins.rpc import rpc_status
from drivers.asic.family import Evidence
from drivers.capabilities import MinerStatus, WriteStatus
from drivers.errors import NoConnection
from simulator.devices.models import Mode
from tests.support.asic_kit import BRIEF, BY_NAME, PATIENT, answers_of, assert_says, own_cases, recorded, until

REST, GRAPHQL = BY_NAME["braiins-rest"], BY_NAME["braiins-graphql"]
PAGES = {
    "details": "miner_details",
    "stats": "miner_stats",
    "boards": "miner_hw_hashboards",
    "cooling": "cooling_state",
    "pools": "pools",
    "errors": "miner_errors",
}

Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a simulated machine; all are stopped in the end."""
    async with AsyncExitStack() as stack:

        async def one(subject: Any = REST, **options: Any) -> Any:
            server = subject.make_server(**options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield one


def read_case(folder: Path) -> MinerStatus:
    answers = answers_of(folder)
    if any(name.startswith("gql_") for name in answers):
        return graphql.graphql_status(answers)
    if any(name.startswith("rpc_") for name in answers):
        return rpc_status({name.removeprefix("rpc_"): answer for name, answer in answers.items()})
    return rest.rest_status(answers)


@pytest.mark.parametrize("folder", own_cases("braiins"))
def test_own_case(folder: Path) -> None:
    assert_says(read_case(folder), folder)


@pytest.mark.parametrize("version", ["v25.07", "v25.11"])
def test_recorded_rest_says_what_its_source_expects(version: str) -> None:
    folder = recorded(f"braiins/{version}")
    expected = json.loads((folder / "expected.json").read_bytes())
    answers = answers_of(folder)
    status = rest.rest_status({page: answers[name] for page, name in PAGES.items()})
    assert status.mac == expected["mac"]
    assert status.firmware == expected["firmware"]
    assert status.serial == expected.get("serial")
    assert (status.power_w, status.power_source) == (expected["wattage_w"], "estimated")
    assert len(status.boards) == expected["boards"]
    assert len(status.fans_rpm) == expected["fans"]
    assert len(status.pools) == expected["pools"]
    assert status.sleeping is not expected["is_mining"]
    limit = rest.limit_state(answers["configuration_miner"], None)
    assert limit is not None
    assert limit.now_w == expected["power_target_w"]
    assert len(status.errors) == len(set(status.errors)) <= 20


@pytest.mark.parametrize("version", ["S9-2022.09", "v24.09", "v25.03"])
def test_recorded_graphql_says_what_its_source_expects(version: str) -> None:
    folder = recorded(f"braiins/{version}")
    answers = answers_of(folder, "gql_")
    status = graphql.graphql_status(answers)
    wanted = folder / "expected.json"
    expected = json.loads(wanted.read_bytes()) if wanted.is_file() else {"boards": 3, "fans": 4, "wattage_w": 3572}
    assert (status.power_w, status.power_source) == (expected["wattage_w"], "estimated")
    assert len(status.boards) == expected["boards"]
    assert len(status.fans_rpm) == expected["fans"]
    assert len(status.pools) == expected.get("pools", 2)
    if "total_chips" in expected:
        assert sum(board.chips or 0 for board in status.boards) == expected["total_chips"]
    assert graphql.limit_state(answers["tuning"]) is not None
    assert status.firmware is not None


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        None,
        {"tuner": {"enabled": False, "power_target": {"watt": 3000}, "tuner_mode": 1}},
        {"tuner": {"enabled": True, "power_target": {"watt": 3000}, "tuner_mode": 2}},
        {"tuner": {"enabled": True, "power_target": None, "tuner_mode": 1}},
    ],
)
def test_a_machine_tuned_to_no_watts_has_no_limit(configuration: object) -> None:
    assert rest.limit_state(configuration, None) is None


@pytest.mark.parametrize(
    ("data", "asleep"),
    [
        ({"bos": {"uptime": {"durationS": 9000}}, "bosminer": {"uptime": None}}, True),
        ({"bos": {"uptime": {"durationS": 90}}, "bosminer": {"uptime": None}}, None),
        ({"bos": {"uptime": {"durationS": 9000}}, "bosminer": {"uptime": {"durationS": 1}}}, False),
        ({"bos": {"uptime": {"durationS": 9000}}, "bosminer": {}}, None),
        ({"bos": None, "bosminer": {"uptime": None}}, None),
        (None, None),
    ],
)
def test_a_mining_program_without_uptime_is_stopped_unless_the_system_boots(data: object, asleep: bool | None) -> None:
    assert graphql.is_asleep({"data": data}) is asleep


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"bosminer": {"stop": {"message": "not now"}}}, "not now"),
        ({"bosminer": {"config": {"updateAutotuning": {"message": "out of range"}}}}, "out of range"),
        ({"bosminer": {"stop": {"void": None}}}, None),
        ({"bosminer": {"stop": {}}}, None),
        (None, None),
    ],
)
def test_a_mutation_that_was_denied_says_why(data: object, said: str | None) -> None:
    assert graphql.denial({"data": data}) == said


def test_a_session_is_taken_from_its_cookie() -> None:
    assert graphql.session_of(("a=b", "session_id=abc; Path=/; HttpOnly")) == "abc"
    assert graphql.session_of(()) == ""


@pytest.mark.parametrize("subject", [REST, GRAPHQL], ids=lambda subject: subject.name)
async def test_paused_with_a_closed_socket_is_asleep_and_not_offline(start: Start, subject: Any) -> None:
    server = await start(subject, rpc_closed_asleep=True)
    driver = subject.make_driver(server)
    prior = await driver.prior_state()
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    await until(lambda: server.machine.hashrate_ths() == 0.0)
    status = await driver.status()
    assert status.sleeping is True
    assert status.firmware is not None
    with pytest.raises(NoConnection):
        await subject.make_driver(server, credentials=None).status()
    assert (await driver.wake(prior)).status is WriteStatus.ACKNOWLEDGED
    assert server.machine.mode == Mode.NORMAL


async def test_the_state_is_read_seldom_while_it_hashes_and_more_often_while_it_does_not(start: Start) -> None:
    now_s = 1000.0
    server = await start()
    driver = REST.make_driver(server, mono=lambda: now_s)
    for _ in range(5):
        assert (await driver.status()).serial == "SIM0000000000001"
    details = "GET /api/v1/miner/details"
    assert server.commands[details] == 1
    server.machine.request_sleep()
    await until(lambda: server.machine.hashrate_ths() == 0.0)
    now_s += PATIENT.mode_max_age_s / 4
    assert (await driver.status()).sleeping is True
    assert server.commands[details] == 2


async def test_a_broken_web_page_costs_the_status_its_state_and_nothing_else(start: Start) -> None:
    server = await start()
    server.faults.http_down = True
    status = await REST.make_driver(server, timeouts=BRIEF).status()
    assert status.hashrate_ths == pytest.approx(95.0)
    assert status.sleeping is False


@pytest.mark.parametrize("subject", [REST, GRAPHQL], ids=lambda subject: subject.name)
async def test_limits_outside_its_bounds(start: Start, subject: Any) -> None:
    server = await start(subject)
    driver = subject.make_driver(server)
    bounds = await driver.power_range()
    assert (bounds.lowest_w, bounds.highest_w, bounds.now_w) == (1300, 3900, 3250)
    low = await driver.limit_power(1299)
    assert low.status is WriteStatus.REFUSED
    assert "1300 W or more" in low.detail
    assert (await driver.limit_power(5000)).status is WriteStatus.ACKNOWLEDGED
    assert server.power_target_w == 3900


@pytest.mark.parametrize("subject", [REST, GRAPHQL], ids=lambda subject: subject.name)
async def test_a_machine_tuned_to_a_hash_rate_is_left_as_it_is(start: Start, subject: Any) -> None:
    server = await start(subject)
    server.power_target_w = None
    outcome = await subject.make_driver(server).limit_power(2500)
    assert outcome.status is WriteStatus.REFUSED
    assert "not tuned to a power target" in outcome.detail
    assert server.power_target_w is None


def test_it_is_recognised_by_its_name() -> None:
    for version in ("v25.03", "v24.09", "S9-2022.09"):
        answer = answers_of(recorded(f"braiins/{version}"))["version"]
        assert FAMILY.certainty(Evidence(version=answer)) > 80
    assert FAMILY.certainty(Evidence()) == 0
