"""Every recording of every maker: recognised, read by its own driver, and held to what its source says it says."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from drivers.asic.avalon.answers import avalon_status
from drivers.asic.credentials import Credentials
from drivers.asic.family import Evidence
from drivers.asic.identify import FAMILIES, best, driver_for, families, identify
from drivers.asic.repair import parse_answer
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerReader, MinerStatus, PowerLimiter, Sleeper
from drivers.errors import DriverError
from tests.support.asic_replay import ABSENT, FAMILY_OF, Recording, Replay, recordings, replayed

RECORDINGS = recordings()
LOGIN = Credentials("root", "hunter2-marked")
LIMITS = Timeouts(10, 10, 10, 20)

NOT_RECOGNISED = {
    "elphapex/DG-Home1": "it shows nothing of its own without a log-in",
    "elphapex/ElphapexDG1Plus": "it shows nothing of its own without a log-in",
    "braiins/v25.07": "its answer on the JSON socket was not recorded",
    "braiins/v25.11": "its answer on the JSON socket was not recorded",
}
NOT_WHOLE = {
    "bitmain-stock/S19XPHyd-mock-sleeping": "one page, without the JSON socket and the work mode",
    "bitmain-stock/S21-port6060": "the second web port alone",
}
"""Recordings that are too little for a status; a driver has to say so in its own words."""

needs_recordings = pytest.mark.skipif(not RECORDINGS, reason=ABSENT)
by_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=[recording.id for recording in RECORDINGS])


async def read(recording: Recording, *, joins: bool = True) -> MinerStatus:
    with replayed(Replay(recording, joins=joins)):
        return await driver_for(recording.family, "192.0.2.1", credentials=LOGIN, timeouts=LIMITS).status()


def recorded(folder: str) -> Recording:
    return next(recording for recording in RECORDINGS if recording.folder == folder)


@needs_recordings
def test_every_family_of_the_recordings_is_known_here() -> None:
    assert len(RECORDINGS) >= 27
    assert {recording.folder.partition("/")[0] for recording in RECORDINGS} == set(FAMILY_OF)
    assert {recording.family for recording in RECORDINGS} <= set(families())


@needs_recordings
@by_recording
async def test_each_recording_is_recognised_as_its_own_family(recording: Recording) -> None:
    if recording.folder in NOT_RECOGNISED:
        with replayed(Replay(recording)), pytest.raises(DriverError):
            await identify("192.0.2.1", timeouts=LIMITS)
        return
    replay = Replay(recording)
    with replayed(replay):
        assert await identify("192.0.2.1", timeouts=LIMITS) == recording.family
    assert len(replay.asked) <= 9, "few questions"
    assert not any(asked.startswith(("PUT", "PATCH", "DELETE")) for asked in replay.asked)


class BothSockets(Replay):
    """A newer Whatsminer: the old socket still answers, and the framed one beside it."""

    def _framed(self, body: dict[str, Any]) -> bytes:
        self.asked.append(f"framed {body['cmd']}")
        return b'{"code":0,"when":1790000000,"msg":{"miner":{"type":"M60S"},"salt":"abc"},"desc":"get.device.info"}'


@needs_recordings
async def test_a_whatsminer_with_both_sockets_belongs_to_the_newer() -> None:
    replay = BothSockets(recorded("whatsminer/api-v2.0.5"))
    with replayed(replay):
        assert await identify("192.0.2.1", timeouts=LIMITS) == "whatsminer-v3"
    assert replay.asked == ["rpc version", "framed get.device.info"]


@needs_recordings
def test_no_two_families_are_equally_sure_of_a_recorded_answer() -> None:
    ties = []
    for recording in RECORDINGS:
        for name, data in recording.files.items():
            try:
                answer = parse_answer(data)
            except DriverError:
                continue
            asked = [f"/{path.lstrip('/')}" for family in FAMILIES for path in family.pages]
            for evidence in (
                Evidence(version=answer),
                Evidence(version=answer, stats=answer),
                Evidence(framed=answer),
                *(Evidence(pages={path: answer}) for path in asked),
            ):
                sure = sorted((family.certainty(evidence), family.name) for family in FAMILIES)
                if sure[-1][0] and sure[-1][0] == sure[-2][0]:
                    ties.append((recording.folder, name, sure[-2:]))
    assert not ties, ties[:5]


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(),
        Evidence(version={}, stats={}, pages={}, framed={}),
        Evidence(version={"STATUS": "E", "VERSION": 5, "STATS": "x"}, stats={"STATS": [None, 7, []]}),
        Evidence(version={"VERSION": [{"Type": ["Antminer"], "PROD": {"a": 1}, "BMMiner": None}]}),
        Evidence(pages={path: {} for family in FAMILIES for path in family.pages}),
        Evidence(pages={path: {"Software": 7, "system-info": []} for family in FAMILIES for path in family.pages}),
        Evidence(realm=""),
        Evidence(raw_version=b"\xff" * 100, framed={"msg": 7, "code": []}),
    ],
)
def test_certainty_lives_with_rubbish(evidence: Evidence) -> None:
    for family in FAMILIES:
        assert 0 <= family.certainty(evidence) <= 100, family.name


@needs_recordings
@pytest.mark.parametrize("joins", [True, False], ids=["joined", "one by one"])
@by_recording
async def test_each_recording_is_read_by_its_driver(recording: Recording, joins: bool) -> None:
    if recording.folder in NOT_WHOLE:
        with pytest.raises(DriverError):
            await read(recording, joins=joins)
        return
    status = await read(recording, joins=joins)
    assert status.family == recording.family
    assert status.power_source in ("measured", "estimated", "none")
    assert (status.power_w is None) is (status.power_source == "none")
    assert status.hashrate_ths is None or 0 <= status.hashrate_ths < 10_000
    json.dumps(asdict(status), allow_nan=False)
    assert "hunter2-marked" not in repr(status)


SAME_AS: dict[str, Callable[[MinerStatus], Any]] = {
    "mac": lambda status: status.mac and status.mac.upper(),
    "serial": lambda status: status.serial,
    "uptime_s": lambda status: status.uptime_s,
    "wattage_w": lambda status: status.power_w,
    "fans": lambda status: len(status.fans_rpm),
    "fan_rpm": lambda status: status.fans_rpm[0],
    "boards": lambda status: len(status.boards),
    "pools": lambda status: len(status.pools),
    "messages": lambda status: len(status.errors),
    "hashrate_ths": lambda status: status.hashrate_ths,
    "expected_hashrate_ths": lambda status: status.hashrate_nominal_ths,
    "expected_hashrate_mhs": lambda status: (status.hashrate_nominal_ths or 0) * 1e6,
    "total_chips": lambda status: sum(board.chips or 0 for board in status.boards),
    "chips_per_board": lambda status: status.boards[0].chips,
    "board0_chips": lambda status: status.boards[0].chips,
    "board1_chips": lambda status: status.boards[1].chips,
    "board0_active": lambda status: status.boards[0].ok,
    "is_mining": lambda status: status.sleeping is False,
}
"""What the sources' own tests assert, and where it stands in a status."""

OTHERWISE = {
    ("sealminer/A2", "hashrate_ths"): "the source takes the average since the start, which hides a sleep",
}


EXPECTED = [recording for recording in RECORDINGS if recording.expected and recording.folder != "avalon/AvalonQ"]
"""Recordings of whose whole the source expects something; for the one left out see the next test."""


@needs_recordings
@pytest.mark.parametrize("recording", EXPECTED, ids=[recording.id for recording in EXPECTED])
async def test_what_the_source_expects_is_what_is_read(recording: Recording) -> None:
    status = await read(recording)
    checked = 0
    for name, wanted in recording.expected.items():
        if name == "firmware":
            assert str(wanted) in (status.firmware or ""), name
        elif name in SAME_AS and (recording.folder, name) not in OTHERWISE:
            said = SAME_AS[name](status)
            if isinstance(wanted, float):
                assert said == pytest.approx(wanted), name
            else:
                assert said == (wanted.upper() if name == "mac" else wanted), name
        else:
            continue
        checked += 1
    assert checked >= 3


@needs_recordings
@pytest.mark.parametrize("file", ["stats", "avalon_a_stats", "litestats"])
def test_each_avalon_answer_says_what_its_source_expects(file: str) -> None:
    recording = recorded("avalon/AvalonQ")
    expected = recording.expected[file]
    status = avalon_status({"estats": parse_answer(recording.files[file])})
    assert len(status.fans_rpm) == expected["fans"]
    if file == "avalon_a_stats":
        assert (status.power_w, status.power_source) == (expected["wattage_w"], "measured")
        assert status.serial == expected["serial"]
        assert status.hashrate_nominal_ths == pytest.approx(expected["expected_hashrate_ths"])
        assert status.hashrate_ths == pytest.approx(81.07268), "of the moment, not since the start"
        assert status.boards[0].chips == expected["chips_board0"]
        assert status.boards[0].temperature_max_c == expected["board0_outlet_c"]
        assert status.uptime_s == expected["uptime_s"]
        assert status.sleeping is False
    else:
        assert sum(board.chips or 0 for board in status.boards) == 160
        assert (status.sleeping, status.hashrate_ths, status.power_w) == (True, 0.0, 0.0)


@pytest.mark.parametrize("name", sorted(families()))
def test_each_family_says_of_itself_what_its_driver_can(name: str) -> None:
    family = families()[name]
    driver = driver_for(name, "192.0.2.1", credentials=LOGIN)
    assert isinstance(driver, MinerReader)
    assert driver.family == family.name == name
    assert isinstance(driver, Sleeper) is family.sleeps
    assert isinstance(driver, PowerLimiter) is family.limits_power
    assert family.title


def test_the_surest_family_of_nothing_is_not_sure() -> None:
    assert best(Evidence())[1] == 0
    assert not math.isnan(best(Evidence())[1])


async def test_an_address_where_nothing_answers_is_no_family(unused_tcp_port: int) -> None:
    with pytest.raises(DriverError, match=str(unused_tcp_port)):
        await asyncio.wait_for(
            identify("127.0.0.1", rpc_port=unused_tcp_port, timeouts=Timeouts(rpc_s=2, http_s=2)), timeout=30
        )
