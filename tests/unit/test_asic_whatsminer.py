"""Whatsminer, API 2 and 3: recorded and own answers, tokens, ciphers, and codes that say why not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.asic.credentials import Credentials
from drivers.asic.family import Evidence
from drivers.asic.framed import FramedClient, frame
from drivers.asic.whatsminer_v2 import FAMILY as V2
from drivers.asic.whatsminer_v2.answers import hashrate_ths, limit_from
from drivers.asic.whatsminer_v2.answers import is_off as v2_is_off
from drivers.asic.whatsminer_v2.answers import whatsminer_status as v2_status
from drivers.asic.whatsminer_v2.cipher import Token, make_token, password_key, seal, unseal
from drivers.asic.whatsminer_v3 import FAMILY as V3
from drivers.asic.whatsminer_v3.answers import limit_from as v3_limit_from
from drivers.asic.whatsminer_v3.answers import refusal, write_token
from drivers.asic.whatsminer_v3.answers import whatsminer_status as v3_status
from drivers.capabilities import WriteStatus
from drivers.errors import BadAnswer, DriverError, NoAnswer, NoConnection
from tests.support.asic_kit import BY_NAME, PASSWORD, answers_of, assert_says, own_cases, recorded, until

# --- API 2: answers ---


@pytest.mark.parametrize("folder", own_cases("whatsminer-v2"))
def test_own_case_of_api_2(folder: Path) -> None:
    assert_says(v2_status(answers_of(folder)), folder)


@pytest.mark.parametrize("folder", ["whatsminer/api-v1.4-M2x", "whatsminer/api-v2.0.5"])
def test_recorded_api_2_says_what_its_source_expects(folder: str) -> None:
    path = recorded(folder)
    expected = json.loads((path / "expected.json").read_bytes())
    answers = answers_of(path)
    status = v2_status(answers)
    assert status.mac == expected["mac"].lower()
    assert status.firmware == expected["firmware"]
    assert status.hashrate_ths == pytest.approx(expected["hashrate_ths"])
    assert status.hashrate_nominal_ths == pytest.approx(expected["expected_hashrate_ths"])
    assert (status.power_w, status.power_source) == (expected["wattage_w"], "measured")
    assert status.uptime_s == expected["uptime_s"]
    assert len(status.fans_rpm) == expected["fans"]
    assert len(status.pools) == expected["pools"]
    assert limit_from(answers["summary"], None) == expected["power_limit_w"]
    assert status.sleeping is False


def test_recorded_errors_of_both_apis_are_told() -> None:
    old, new = answers_of(recorded("whatsminer/api-v1.4-M2x")), answers_of(recorded("whatsminer/api-v2.0.5"))
    assert v2_status({"summary": old["summary_with_errors"]}).errors == ("110", "600")
    told = v2_status({"get_error_code": new["get_error_code_with_errors"]}).errors
    assert told == ("218 (2024-06-15 10:30:00)", "110 (2024-06-15 09:15:00)")


def test_recorded_rate_in_terahash_is_not_taken_for_megahash() -> None:
    status = v2_status(answers_of(recorded("whatsminer/protofleet-M60S-VK40"), "rpc__"))
    assert status.hashrate_ths == pytest.approx(110.52)
    assert status.model == "M60SVK40"
    assert len(status.pools) == 2  # the third slot is empty
    assert [board.chips for board in status.boards] == [114, 114, 114]


@pytest.mark.parametrize(
    ("summary", "rate"),
    [
        ({"HS RT": 67394800.97, "MHS av": 67753251.19}, 67.3948),
        ({"HS RT": 110.52, "MHS 1m": 110520000.0}, 110.52),
        ({"HS RT": 5000.0, "MHS 5s": 5100.0}, 0.005),
        ({"HS RT": 126.0, "Factory GHS": 126000}, 126.0),
        ({"HS RT": 126000000.0, "Factory GHS": 126000}, 126.0),
        ({"HS RT": 0, "MHS av": 90000000.0}, 0.0),
        ({"MHS 5s": 90000000.0, "MHS av": 80000000.0}, 90.0),
        ({"MHS av": 0.0}, 0.0),
        ({"HS RT": -1, "MHS av": "nan"}, None),
        ({}, None),
    ],
)
def test_the_unit_of_the_rate_is_found_out(summary: dict[str, Any], rate: float | None) -> None:
    assert hashrate_ths(summary) == (None if rate is None else pytest.approx(rate, rel=1e-4, abs=1e-9))


@pytest.mark.parametrize(
    ("message", "off"),
    [
        ({"mineroff": "true"}, True),
        ({"mineroff": "false"}, False),
        ({"btmineroff": "true"}, True),
        ({"mineroff": False}, False),
        ({"mineroff": "perhaps"}, None),
        ({"CGMiner": "Running"}, None),
        ("Running", None),
    ],
)
def test_whether_it_is_off(message: object, off: bool | None) -> None:
    assert v2_is_off({"STATUS": "S", "Msg": message}) is off


# --- API 2: tokens and ciphers ---

MESSAGE = {"time": "5039", "salt": "BQ5hoXV9", "newsalt": "P5NTAcEp"}


def token_of(message: dict[str, Any]) -> Token:
    return make_token(message, password_key(message, "admin"))


def test_the_token_is_that_of_the_published_example() -> None:
    token = token_of(MESSAGE)
    assert token.sign == "W7vZynrBZBwIIjR5dvDJb0"
    assert token_of({**MESSAGE, "time": "1678185039"}) == token
    assert token.sign not in repr(token)
    assert token.aes_key.hex() not in repr(token)


@pytest.mark.parametrize(
    "message", [{}, {**MESSAGE, "salt": 'a"; rm'}, {**MESSAGE, "time": "now"}, {**MESSAGE, "newsalt": "x" * 400}]
)
def test_an_odd_token_answer_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer, match="time, salt and newsalt"):
        token_of(message)


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=40), max_size=4))
def test_what_is_sealed_can_be_unsealed(parameters: dict[str, str]) -> None:
    token = token_of(MESSAGE)
    plain = unseal(token, {"enc": seal(token, "power_off", {})["data"]}, "test")
    assert plain == {"token": token.sign, "cmd": "power_off"}
    sealed = seal(token, "x", {f"p_{name}": value for name, value in parameters.items()})
    opened = unseal(token, {"enc": sealed["data"]}, "test")
    assert {name: opened[f"p_{name}"] for name in parameters} == parameters


@given(st.one_of(st.text(max_size=200), st.binary(max_size=64).map(bytes.hex), st.none(), st.integers()))
def test_a_damaged_answer_is_a_bad_answer_or_a_plain_one(sealed: object) -> None:
    with contextlib.suppress(BadAnswer):  # and nothing else
        unseal(token_of(MESSAGE), {"enc": sealed}, "test")


# --- API 2: the machine says why not ---


@pytest.fixture
async def v2() -> AsyncIterator[Any]:
    server = BY_NAME["whatsminer-v2"].make_server()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def v3() -> AsyncIterator[Any]:
    server = BY_NAME["whatsminer-v3"].make_server()
    await server.start()
    yield server
    await server.stop()


async def test_a_write_api_that_is_off_is_named(v2: Any) -> None:
    v2.api_switch = False
    outcome = await BY_NAME["whatsminer-v2"].make_driver(v2).sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "WhatsMinerTool" in outcome.detail


async def test_one_token_serves_many_writes_and_none_is_taken_where_nothing_may_be_written(v2: Any) -> None:
    watching = BY_NAME["whatsminer-v2"].make_driver(v2, writes_allowed=False)
    for _ in range(5):
        await watching.status()
    assert "get_token" not in v2.commands
    driver = BY_NAME["whatsminer-v2"].make_driver(v2)
    prior = await driver.prior_state()
    for _ in range(4):
        await driver.sleep()
        await driver.wake(prior)
        await driver.status()
    assert v2.commands["get_token"] == 1


async def test_a_token_is_there_before_it_is_needed(v2: Any) -> None:
    now_s = 1000.0
    driver = BY_NAME["whatsminer-v2"].make_driver(v2, mono=lambda: now_s)
    for _ in range(3):
        await driver.status()
    assert v2.commands["get_token"] == 1
    now_s += 26 * 60.0
    await driver.status()
    assert v2.commands["get_token"] == 2
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    assert v2.commands["get_token"] == 2


async def test_a_machine_that_could_not_be_told_says_so_in_good_time(v2: Any) -> None:
    now_s = 1000.0
    v2.api_switch = False
    driver = BY_NAME["whatsminer-v2"].make_driver(v2, mono=lambda: now_s)
    for _ in range(3):
        status = await driver.status()
    assert len(status.errors) == 1
    assert status.errors[0].startswith("cannot be told to sleep")
    assert v2.commands["get_token"] == 1
    v2.api_switch = True
    now_s += 61.0
    assert (await driver.status()).errors == ()


async def test_the_costly_half_of_a_token_is_kept_while_the_salt_stays(
    v2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(message: dict[str, Any], password: str) -> str:
        made.append(str(message["salt"]))
        return password_key(message, password)

    monkeypatch.setattr("drivers.asic.whatsminer_v2.api.password_key", counted)
    now_s = 1000.0
    driver = BY_NAME["whatsminer-v2"].make_driver(v2, mono=lambda: now_s)
    for _ in range(3):
        await driver.status()
        now_s += 26 * 60.0
    v2.set_password(PASSWORD)
    await driver.status()
    assert len(made) == 2
    assert len(set(made)) == 2
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED


async def test_an_old_token_is_replaced_before_the_machine_forgets_it(v2: Any) -> None:
    now_s = 1000.0
    driver = BY_NAME["whatsminer-v2"].make_driver(v2, mono=lambda: now_s)
    prior = await driver.prior_state()
    await driver.sleep()
    now_s += 26 * 60.0
    assert (await driver.wake(prior)).status is WriteStatus.ACKNOWLEDGED
    assert v2.commands["get_token"] == 2


async def test_too_many_tokens_are_a_refusal_with_a_reason(v2: Any) -> None:
    for _ in range(32):
        driver = BY_NAME["whatsminer-v2"].make_driver(v2)
        await driver.tell(False)
    outcome = await BY_NAME["whatsminer-v2"].make_driver(v2).sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "32 tokens" in outcome.detail


async def test_with_its_boards_off_it_is_asked_for_its_state_and_hashing_it_is_not(v2: Any) -> None:
    driver = BY_NAME["whatsminer-v2"].make_driver(v2)
    await driver.status()
    assert "status" not in v2.commands
    v2.machine.request_sleep()
    await until(lambda: v2.machine.hashrate_ths() == 0.0)
    assert (await driver.status()).sleeping is True
    assert v2.commands["status"] == 1


async def test_errors_and_identity_are_read_seldom(v2: Any) -> None:
    now_s = 1000.0
    v2.errors["218"] = "2026-01-01 00:00:00"
    driver = BY_NAME["whatsminer-v2"].make_driver(v2, mono=lambda: now_s)
    for _ in range(3):
        status = await driver.status()
    assert status.errors == ("218 (2026-01-01 00:00:00)",)
    assert (status.mac, status.serial) == ("02:00:00:00:00:01", "SIM0000000000001")
    assert (v2.commands["get_error_code"], v2.commands["get_version"]) == (1, 1)
    now_s += 61.0
    v2.errors.clear()
    assert (await driver.status()).errors == ()
    assert v2.commands["get_version"] == 1


# --- API 3 ---


@pytest.mark.parametrize("folder", own_cases("whatsminer-v3"))
def test_own_case_of_api_3(folder: Path) -> None:
    answers = answers_of(folder)
    assert_says(v3_status(answers["status"], answers["info"]), folder)


def test_recorded_api_3() -> None:
    answers = answers_of(recorded("whatsminer/M50S-api-v3-vendor-mock"))
    parts = {name: answers[f"get.miner.status_{name}"]["msg"][name] for name in ("summary", "edevs", "pools")}
    status = v3_status({"code": 0, "msg": parts})
    assert status.hashrate_ths == pytest.approx(101.847)
    assert (status.power_w, status.power_source) == (3268.0, "measured")
    assert status.boards[0].chips == 70
    assert status.pools[0].accepted is None
    assert v3_limit_from(answers["get.miner.setting"]) == 3500
    assert refusal(answers["error_invalid_command"]) == (-2, "invalid command")
    assert refusal(answers["error_no_permission"]) == (-4, "no permission")
    assert refusal(answers["set.miner.service_ok"]) is None


def test_the_token_of_api_3_is_eight_letters_of_a_hash() -> None:
    # echo -n 'set.miner.serviceabcdefgQbVy1Ou31700000000' | openssl dgst -sha256 -binary | base64
    assert write_token("set.miner.service", "abcdefg", "QbVy1Ou3", 1700000000) == "dgyje6kE"


async def test_a_clock_that_is_wrong_is_named(v3: Any) -> None:
    driver = BY_NAME["whatsminer-v3"].make_driver(v3, wall=lambda: 1_000_000.0)
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "clock" in outcome.detail


async def test_an_account_without_permission_is_named(v3: Any) -> None:
    v3.api_switch = False
    outcome = await BY_NAME["whatsminer-v3"].make_driver(v3).sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "no permission" in outcome.detail
    assert "switch its API on" in outcome.detail


@pytest.mark.parametrize(("user", "accepted"), [("root", True), ("admin", True), ("user1", True), ("guest", False)])
async def test_the_account_is_super_where_none_is_named(v3: Any, user: str, accepted: bool) -> None:
    driver = BY_NAME["whatsminer-v3"].make_driver(v3, credentials=Credentials(user, PASSWORD))
    assert ((await driver.sleep()).status is WriteStatus.ACKNOWLEDGED) is accepted


async def test_error_codes_come_with_their_reason(v3: Any) -> None:
    v3.errors["264"] = "power supply transfer error"
    status = await BY_NAME["whatsminer-v3"].make_driver(v3).status()
    assert status.errors == ("264 (2026-01-01 00:00:00): power supply transfer error",)


# --- the framed socket ---


async def served(answer: bytes, *, hold: bool = False) -> DriverError:
    """What a client makes of an answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(answer)
        await writer.drain()
        if hold:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DriverError) as caught:
            await FramedClient("127.0.0.1", port, timeout_s=0.3, max_bytes=1000).command("get.device.info")
        return caught.value


async def test_broken_frames_end_in_driver_errors() -> None:
    assert isinstance(await served((2000).to_bytes(4, "little")), BadAnswer)
    assert isinstance(await served(b"\xff\xff\xff\xff" + b"{}" * 10), BadAnswer)
    assert isinstance(await served((100).to_bytes(4, "little") + b"{}"), BadAnswer)
    assert isinstance(await served(b"\x02"), BadAnswer)
    assert isinstance(await served(b""), NoConnection)
    assert isinstance(await served(frame(b"<html>")), BadAnswer)
    assert isinstance(await served((100).to_bytes(4, "little") + b"{}", hold=True), NoAnswer)


# --- recognition ---


def test_each_api_knows_its_own() -> None:
    v1 = answers_of(recorded("whatsminer/api-v1.4-M2x"))["get_version"]
    plain = answers_of(recorded("whatsminer/api-v2.0.5"))["get_version"]
    odd = answers_of(recorded("whatsminer/protofleet-M60S-VK40"), "rpc__")["version"]
    invalid = {"STATUS": "E", "Code": 14, "Msg": "invalid cmd", "Description": "whatsminer v1.1"}
    for version in (v1, plain, odd, invalid):
        evidence = Evidence(version=version)
        assert V2.certainty(evidence) > 50
        assert V3.certainty(evidence) == 0
    framed = Evidence(version=odd, framed={"code": 0, "msg": {"miner": {}}, "desc": "get.device.info"})
    assert V3.certainty(framed) > 50
    assert V2.certainty(framed) == 0
    stock = {"STATUS": [{"Description": "bmminer"}], "VERSION": [{"BMMiner": "1.0.0", "Type": "Antminer S19"}]}
    assert V2.certainty(Evidence(version=stock)) == 0
