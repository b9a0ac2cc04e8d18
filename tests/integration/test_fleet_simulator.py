"""A simulated fleet over real sockets: the product's own drivers see each machine at its own address."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from drivers.asic.credentials import Credentials
from drivers.asic.identify import driver_for
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus, WriteOutcome, WriteStatus
from drivers.errors import BadAnswer, DriverError, NoAnswer, NoConnection
from simulator.fleet.control import FleetControl
from simulator.fleet.fleet import SimulatedFleet
from simulator.fleet.kinds import KINDS, parse_mix
from simulator.loopback import SimulationError

STOCK, LUXOS = 0, 5
"""Numbers of machines in the fleet of ten."""


@pytest.fixture
async def fleet() -> AsyncIterator[SimulatedFleet]:
    made = SimulatedFleet(parse_mix("antminer-stock=1,luxos=1", 10), time_scale=100.0)
    await made.start()
    yield made
    await made.stop()


def driver(fleet: SimulatedFleet, number: int, **options: Any) -> Any:
    family = "antminer-stock" if number < LUXOS else "luxos"
    return driver_for(
        family,
        fleet.host_of(number),
        rpc_port=fleet.rpc_port,
        http_port=fleet.web_port,
        credentials=Credentials("root", "root"),
        timeouts=Timeouts(rpc_s=5.0, status_s=8.0, **options),
        writes_allowed=True,
    )


async def until_hashing(machine: Any, hashing: bool, limit_s: float = 20.0) -> MinerStatus:
    async with asyncio.timeout(limit_s):
        while True:
            status: MinerStatus = await machine.status()
            if (status.hashrate_ths != 0) is hashing:
                return status
            await asyncio.sleep(0.02)


async def until_drawing(fleet: SimulatedFleet, power_w: float, limit_s: float = 20.0) -> None:
    """A machine says that it sleeps before its draw has come down."""
    async with asyncio.timeout(limit_s):
        while True:
            if fleet.power_w() == pytest.approx(power_w):
                return
            await asyncio.sleep(0.02)


async def test_ten_machines_share_two_ports_and_each_is_itself(fleet: SimulatedFleet) -> None:
    statuses = [await driver(fleet, number).status() for number in range(10)]
    assert [status.serial for status in statuses] == [f"FLEET{number:08d}" for number in range(10)]
    assert [status.hashrate_ths for status in statuses] == [95.0] * 5 + [120.0] * 5
    assert {status.family for status in statuses} == {"antminer-stock", "luxos"}


async def test_nobody_answers_where_nobody_stands(fleet: SimulatedFleet) -> None:
    with pytest.raises(NoConnection):
        await driver_for("luxos", "127.16.0.11", rpc_port=fleet.rpc_port).status()


@pytest.mark.parametrize("number", [STOCK, LUXOS])
async def test_one_machine_sleeps_and_wakes_and_the_others_do_not_notice(fleet: SimulatedFleet, number: int) -> None:
    machine = driver(fleet, number)
    full_w = fleet.power_w()
    prior = await machine.prior_state()
    outcome: WriteOutcome = await machine.sleep()
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    assert (await until_hashing(machine, False)).sleeping is True
    plate = fleet.machines[number].nameplate
    await until_drawing(fleet, full_w - plate.power_w + plate.sleep_w)
    assert (await driver(fleet, number + 1).status()).sleeping is False
    assert (await machine.wake(prior)).status is WriteStatus.ACKNOWLEDGED
    assert (await until_hashing(machine, True)).sleeping is False


# An Avalon sleeps at an hour of its own clock, seconds later; its driver's own tests wait for that.
@pytest.mark.parametrize("family", [name for name in KINDS if name != "avalon"])
async def test_machines_of_every_kind_are_read_put_to_sleep_and_woken_by_the_products_driver(family: str) -> None:
    fleet = SimulatedFleet(parse_mix(f"{family}=1", 3), time_scale=200.0)
    await fleet.start()
    kind = KINDS[family]
    try:
        machine: Any = driver_for(
            family,
            fleet.host_of(1),
            rpc_port=fleet.rpc_port,
            http_port=fleet.web_port if kind.has_web else None,
            credentials=Credentials(*kind.login) if kind.login else None,
            writes_allowed=True,
        )
        assert (await machine.status()).hashrate_ths == pytest.approx(kind.plate.hashrate_ths, rel=0.01)
        prior = await machine.prior_state()
        assert (await machine.sleep()).status is WriteStatus.ACKNOWLEDGED
        assert (await until_hashing(machine, False)).sleeping is True
        assert (await machine.wake(prior)).status is WriteStatus.ACKNOWLEDGED
        assert (await until_hashing(machine, True)).sleeping is False
        assert fleet.machines[0].power_w() == fleet.machines[2].power_w() == kind.plate.power_w
    finally:
        await fleet.stop()


@pytest.mark.parametrize(
    ("fault", "error"),
    [("silent", NoAnswer), ("half_open", NoAnswer), ("garbage", BadAnswer), ("dead", NoConnection)],
)
@pytest.mark.parametrize("number", [STOCK, LUXOS])
async def test_a_fault_hits_the_machines_it_was_given_and_goes_away(
    fleet: SimulatedFleet, number: int, fault: str, error: type[DriverError]
) -> None:
    fleet.fault(fault, [number])
    hurt = driver_for(
        "luxos" if number == LUXOS else "antminer-stock",
        fleet.host_of(number),
        rpc_port=fleet.rpc_port,
        http_port=None,
        timeouts=Timeouts(rpc_s=0.3, status_s=0.6),
    )
    with pytest.raises(error):
        await hurt.status()
    assert (await driver(fleet, number + 1).status()).hashrate_ths
    fleet.fault(fault, [number], on=False)
    assert (await until_answer(hurt)).family


async def until_answer(machine: Any, limit_s: float = 20.0) -> MinerStatus:
    async with asyncio.timeout(limit_s):
        while True:
            try:
                return await machine.status()  # type: ignore[no-any-return]  # a driver of any family
            except DriverError:
                await asyncio.sleep(0.02)


async def test_a_slow_machine_answers_late(fleet: SimulatedFleet) -> None:
    fleet.fault("slow", [LUXOS], seconds=0.2)
    status = await driver(fleet, LUXOS).status()
    assert status.latency_ms >= 200


async def test_a_rebooting_machine_is_away_and_comes_back_with_a_small_uptime(fleet: SimulatedFleet) -> None:
    machine = driver(fleet, LUXOS)
    before = await machine.status()
    fleet.fault("reboot", [LUXOS])
    with pytest.raises(NoConnection):
        await machine.status()
    after = await until_answer(machine)
    assert after.uptime_s < before.uptime_s


@pytest.mark.parametrize("number", [STOCK, LUXOS])
async def test_refusal_lie_and_waking_by_itself_look_as_they_should(fleet: SimulatedFleet, number: int) -> None:
    machine = driver(fleet, number)
    fleet.fault("denies_sleep", [number])
    assert (await machine.sleep()).status is WriteStatus.REFUSED
    fleet.fault("denies_sleep", [number], on=False)
    fleet.fault("mode_only", [number])
    lie = await machine.sleep()
    assert lie.status is WriteStatus.ACKNOWLEDGED
    assert (await machine.status()).hashrate_ths > 90  # it says so, and mines on
    fleet.fault("mode_only", [number], on=False)
    assert (
        await machine.wake(
            '{"asleep":false,"family":"luxos"}' if number == LUXOS else '{"family":"antminer-stock","mode":0}'
        )
    ).status
    fleet.fault("wakes_itself", [number], seconds=0.3)
    assert (await machine.sleep()).status is WriteStatus.ACKNOWLEDGED
    await until_hashing(machine, False)
    assert (await until_hashing(machine, True)).hashrate_ths


async def test_a_port_that_is_taken_is_said_to_be(fleet: SimulatedFleet) -> None:
    other = SimulatedFleet(parse_mix("luxos=1", 1), first_host="127.17.0.1")
    with pytest.raises(SimulationError, match=f"port {fleet.rpc_port} cannot be listened on"):
        await other.start(rpc_port=fleet.rpc_port)


async def test_the_control_door_switches_faults_and_tells_the_truth(fleet: SimulatedFleet) -> None:
    control = FleetControl(fleet)
    port = await control.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.post("/faults", json={"kind": "dead", "family": "luxos", "share": 0.4}) as answer:
                hit = (await answer.json())["numbers"]
            assert len(hit) == 2
            assert all(number >= LUXOS for number in hit)
            async with session.get("/state") as answer:
                state = await answer.json()
            assert state["states"]["unpowered"] == 2
            assert state["power_w"] == 5 * 3250 + 3 * 2760
            for wrong in (
                {"kind": "nonsense"},
                {"kind": "silent", "numbers": [10]},
                {"kind": "silent", "numbers": [True]},
                {"kind": "silent", "share": 1.5},
                {"kind": "silent", "family": "none"},
                {"kind": "silent", "first": -1},
                {"kind": "silent", "surprise": 1},
                {"kind": 3},
                ["silent"],
            ):
                async with session.post("/faults", json=wrong) as answer:
                    assert answer.status == 400
                    assert (await answer.json())["error"]
            async with session.post("/faults", json={"kind": "silent"}, headers={"Origin": "http://x"}) as answer:
                assert answer.status == 403
        assert not any(fleet.server(number).faults.silent for number in range(10))
    finally:
        await control.stop()


@pytest.mark.parametrize(
    "program", [("-m", "simulator.fleet", "--machines", "3"), ("-m", "tizgin", "simulate", "--fleet", "3")]
)
async def test_the_program_says_where_its_machines_are_and_ends_with_a_signal(program: tuple[str, ...]) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, *program, "--mix", "luxos=1", "--control-port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            ready = json.loads(await child.stdout.readline())
            hosts, _, port = ready["groups"][0]["rpc"].rpartition(":")
            assert hosts == "127.16.0.1-127.16.0.3"
            status = await driver_for("luxos", "127.16.0.3", rpc_port=int(port)).status()
            assert status.serial == "FLEET00000002"
            child.send_signal(signal.SIGTERM)
            assert await child.wait() == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
