"""Recorded and own answers of miners, read to the values they are known to say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from drivers.asic.antminer_stock import conf
from drivers.asic.cgminer_status import status_from
from drivers.asic.control import asleep_from
from drivers.asic.fields import integer, mac, number, temperatures, to_ths
from drivers.asic.identify import family_of
from drivers.asic.luxos.answers import curtailed, luxos_status, session_id
from drivers.asic.repair import parse_answer
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer

ROOT = Path(__file__).parents[2]
DRIVERS = ROOT / "drivers" / "asic"
RECORDED = ROOT.parent / "shared" / "data" / "asic"

Answers = dict[str, dict[str, Any]]


def stock_status(answers: Answers) -> MinerStatus:
    return status_from("antminer-stock", answers)


def own_cases() -> list[Any]:
    readers: dict[str, Callable[[Answers], MinerStatus]] = {"antminer_stock": stock_status, "luxos": luxos_status}
    return [
        pytest.param(folder, read, id=f"{name}-{folder.name}")
        for name, read in readers.items()
        for folder in sorted((DRIVERS / name / "cases").iterdir())
    ]


@pytest.mark.parametrize(("folder", "read"), own_cases())
def test_own_case(folder: Path, read: Callable[[Answers], MinerStatus]) -> None:
    answers = {f.stem: parse_answer(f.read_bytes()) for f in folder.glob("*.json") if f.stem != "expected"}
    expected = json.loads((folder / "expected.json").read_bytes())
    said = json.loads(json.dumps(asdict(read(answers))))
    assert {name: said[name] for name in expected} == expected


def recorded(folder: str) -> Path:
    path = RECORDED / folder
    if not path.is_dir():
        pytest.skip("left out: ../shared/data is not beside this checkout")
    return path


def answers_of(folder: Path, prefix: str = "") -> Answers:
    return {
        file.stem.removeprefix(prefix): parse_answer(file.read_bytes())
        for file in folder.glob(f"{prefix}*.json")
        if file.stem not in ("expected", "manifest")
    }


def test_recorded_luxos_says_what_its_source_expects() -> None:
    folder = recorded("luxos/S19kPro")
    expected = json.loads((folder / "expected.json").read_bytes())
    status = luxos_status(answers_of(folder))
    assert status.mac == expected["mac"]
    assert status.serial == expected["serial"]
    assert status.firmware == expected["firmware"]
    assert (status.power_w, status.power_source) == (expected["wattage_w"], "estimated")
    assert len(status.fans_rpm) == expected["fans"]
    assert status.boards[0].chips == expected["board0_chips"]
    assert len(status.errors) == expected["messages"]
    assert status.sleeping is False
    assert status.hashrate_ths == pytest.approx(59.756, abs=0.01)
    assert status.hashrate_nominal_ths == pytest.approx(61.954, abs=0.01)


def test_recorded_stock_antminer_on_the_socket_and_over_http() -> None:
    folder = recorded("bitmain-stock/protofleet-S19")
    status = stock_status(answers_of(folder, "rpc__"))
    assert status.model == "Antminer S19"
    assert status.hashrate_ths == pytest.approx(88.422)
    assert len(status.pools) == 3
    assert [pool.active for pool in status.pools] == [True, False, False]
    assert (status.power_w, status.power_source) == (None, "none")
    web = stock_status(answers_of(folder, "web__"))
    assert web.hashrate_ths == pytest.approx(88.422)
    assert web.hashrate_nominal_ths == pytest.approx(95.0)
    assert web.fans_rpm == (4080, 4380, 3750, 3690)
    assert [board.temperature_max_c for board in web.boards] == [67.0, 68.0, 70.0]
    settings = parse_answer((folder / "web__get_miner_conf.json").read_bytes())
    assert conf.mode_of(settings) == conf.NORMAL


def test_recorded_sleeping_machine_has_no_hash_rate_rather_than_zero() -> None:
    folder = recorded("bitmain-stock/S19XPHyd-mock-sleeping")
    stats = parse_answer((folder / "cgi-bin-stats.cgi.json").read_bytes())
    status = stock_status({"summary": {}, "stats": stats})
    assert status.model == "Antminer S19 XP Hyd."
    assert status.hashrate_ths is None
    assert status.boards == ()


def test_recorded_relative_has_only_the_boards_that_are_there() -> None:
    status = stock_status(answers_of(recorded("mskminer/MSKMinerS19NoPIC"), "rpc_") | {"summary": {}})
    assert [board.chips for board in status.boards] == [88, 88, 88]
    assert status.fans_rpm == (5010, 5160, 5070, 5040)
    assert status.hashrate_ths == pytest.approx(99.99, abs=0.01)


def test_every_recorded_json_answer_is_read_without_an_error() -> None:
    root = recorded(".")
    files = [file for file in sorted(root.rglob("*.json")) if file.name not in ("expected.json", "index.json")]
    unread = []
    for file in files:
        try:
            value = json.loads(file.read_bytes())
        except ValueError:
            value = {}
        if not isinstance(value, dict):
            continue
        try:
            answer = parse_answer(file.read_bytes(), source=file.name)
        except BadAnswer as error:
            unread.append(str(error))
        else:
            status_from("cgminer", dict.fromkeys(("summary", "stats", "pools", "version"), answer))
            luxos_status(dict.fromkeys(("summary", "stats", "pools", "power", "config", "events"), answer))
    assert len(files) > 200
    assert unread == []


@pytest.mark.parametrize(
    ("folder", "file", "family"),
    [
        ("luxos/S19kPro", "version.json", "luxos"),
        ("luxos/S19kPro", "stats.json", "luxos"),
        ("bitmain-stock/protofleet-S19", "rpc__version.json", "antminer-stock"),
        ("mskminer/MSKMinerS19NoPIC", "rpc_version.json", "cgminer"),
        ("hammer/HammerD10", "rpc_version.json", "cgminer"),
        ("vnish/S21Pro-1.2.7", "rpc__stats.json", "vnish"),
        ("braiins/S9-2022.09", "version.json", "braiins"),
        ("sealminer/A2", "version.json", "sealminer"),
        ("avalon/AvalonQ", "version.json", "avalon"),
        ("whatsminer/api-v2.0.5", "get_version.json", "whatsminer-v2"),
    ],
)
def test_recorded_firmware_is_recognised(folder: str, file: str, family: str) -> None:
    assert family_of(parse_answer((recorded(folder) / file).read_bytes())) == family


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (5, 5.0),
        ("7903.729", 7903.729),
        ("58.94W", 58.94),
        ("3250 W", 3250.0),
        (" -1 ", -1.0),
        ("1e3", 1000.0),
        ("", None),
        ("m-m", None),
        ("12 34", None),
        (True, None),
        (None, None),
        (float("nan"), None),
        ("9" * 400, None),
        ([1], None),
    ],
)
def test_numbers_as_miners_write_them(value: object, read: float | None) -> None:
    assert number(value) == read


def test_units_of_hash_rates() -> None:
    assert to_ths("95000", "GH/s") == pytest.approx(95.0)
    assert to_ths(95, "TH/s") == pytest.approx(95.0)
    assert to_ths(95e6, "MH") == pytest.approx(95.0)
    assert to_ths(0.0, "H/s") == 0.0
    assert to_ths(1, "furlongs") is None
    assert to_ths(-1) is None


def test_temperatures_of_missing_sensors_are_left_out() -> None:
    assert temperatures("47-0-34-m") == [47.0, 34.0]
    assert temperatures([255, 61.5]) == [61.5]
    assert temperatures(None) == []


def test_addresses_and_integers() -> None:
    assert mac("02-00-00-0A-00-01") == "02:00:00:0a:00:01"
    assert mac("00:00:00:00:00:00") is None
    assert mac("02:00") is None
    assert integer(1e300) is None


def test_a_write_carries_both_keys_and_everything_that_was_read() -> None:
    read = {
        "pools": [{"url": "u", "pass": "p"}],
        "x-unknown": [1],
        "bitmain-work-mode": "0",
        "bitmain-freq-level": "90",
    }
    assert conf.with_mode(read, conf.SLEEP) == {
        "pools": [{"url": "u", "pass": "p"}],
        "x-unknown": [1],
        "bitmain-work-mode": "1",
        "bitmain-freq-level": "90",
        "freq-level": "90",
        "miner-mode": 1,
    }


@pytest.mark.parametrize("read", [{}, {"pools": []}, {"miner-mode": 0}, {"pools": "none", "miner-mode": 0}])
def test_a_configuration_that_is_not_whole_is_never_written_back(read: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer, match="not whole"):
        conf.with_mode(read, conf.SLEEP)


def test_the_new_key_decides_the_mode() -> None:
    assert conf.mode_of({"miner-mode": 0, "bitmain-work-mode": "1"}) == 0
    assert conf.mode_of({"bitmain-work-mode": "1"}) == 1
    assert conf.mode_of({"bitmain-work-mode": ""}) is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"family":"luxos","mode":0}', '{"family":"antminer-stock","mode":99}']
)
def test_a_prior_state_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own and ours, both are ValueError
        conf.MODES.prior_mode(text)
    with pytest.raises(ValueError):  # noqa: PT011 - see above
        asleep_from("luxos", text)


def test_a_session_id_that_could_carry_a_second_parameter_is_refused() -> None:
    assert session_id({"SESSION": [{"SessionID": "a1B2c3D4"}]}) == "a1B2c3D4"
    for bad in ("", "abc,sleep", 5, None):
        with pytest.raises(BadAnswer):
            session_id({"SESSION": [{"SessionID": bad}]})


def test_an_unknown_curtail_mode_is_unknown() -> None:
    assert curtailed({"CONFIG": [{"CurtailMode": "Sleep"}]}) is True
    assert curtailed({"CONFIG": [{"CurtailMode": "None"}]}) is False
    assert curtailed({"CONFIG": [{"CurtailMode": "Standby"}]}) is None
    assert curtailed({}) is None
