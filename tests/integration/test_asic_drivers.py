"""Drivers against simulated miners on real sockets: sleep, wake, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from drivers.asic.antminer_stock import AntminerStock
from drivers.asic.cgminer import CgminerClient
from drivers.asic.credentials import Credentials
from drivers.asic.generic import GenericCgminer
from drivers.asic.http import HttpClient
from drivers.asic.identify import driver_for, identify
from drivers.asic.luxos import LuxOs
from drivers.asic.probe import probe
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerReader, Sleeper, WriteStatus
from drivers.errors import BadAnswer, DriverError, NoAnswer, NoConnection, Refused
from simulator.devices.asic import AsicServer, Faults, LuxosMiner, StockAntminer
from simulator.devices.models import Mode, StandaloneMachine
from tests.support.asic_kit import made

LOGIN = Credentials("root", "root")
QUICK = Timeouts(rpc_s=0.4, http_s=0.4, write_s=0.6, status_s=1.0, read_back_s=(0.0, 0.0), mode_max_age_s=60.0)
SPEED = 10_000.0
"""Time scale: a write of 21 s is answered after 2 ms, ramps end at once."""

Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a simulated miner; all are stopped in the end."""
    async with AsyncExitStack() as stack:

        async def one(kind: type[AsicServer] = StockAntminer, **options: Any) -> Any:
            machine = options.pop("machine", None) or StandaloneMachine(time_scale=SPEED)
            server = kind(machine, time_scale=options.pop("time_scale", SPEED), **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield one


def stock(server: StockAntminer, **options: Any) -> Any:
    options = {"credentials": LOGIN, "timeouts": QUICK, "writes_allowed": True, **options}
    return made(AntminerStock, server.rpc_port, server.http_port, **options)


def luxos(server: LuxosMiner, **options: Any) -> Any:
    options = {"timeouts": QUICK, "writes_allowed": True, "logon_pauses_s": (0.0, 0.0), **options}
    return made(LuxOs, server.rpc_port, **options)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the machine watched has no events
            await asyncio.sleep(0.005)


# --- stock ---


async def test_stock_status_reads_the_whole_machine(start: Start) -> None:
    server = await start()
    driver = stock(server)
    status = await driver.status()
    assert isinstance(driver, MinerReader)
    assert isinstance(driver, Sleeper)
    assert status.hashrate_ths == pytest.approx(95.0)
    assert status.sleeping is False
    assert (status.mac, status.serial) == ("02:00:00:00:00:01", "SIM0000000000001")
    assert (status.power_w, status.power_source) == (None, "none")
    assert len(status.boards) == 3
    assert len(status.fans_rpm) == 4


async def test_power_that_stock_firmware_gives_without_saying_how_is_an_estimate(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start()
    plain = server.answer

    def with_power(command: str, parameter: str) -> Any:
        answer = plain(command, parameter)
        if command == "stats":
            answer["STATS"][1]["chain_power"] = "3250 W"
        return answer

    monkeypatch.setattr(server, "answer", with_power)
    status = await stock(server).status()
    assert (status.power_w, status.power_source) == (3250.0, "estimated")


@pytest.mark.parametrize("joins", [True, False])
async def test_whether_commands_can_be_joined_is_found_out_once(start: Start, joins: bool) -> None:
    server = await start(joins=joins)
    driver = stock(server)
    for _ in range(3):
        await driver.status()
    joined = "summary+stats+pools"
    assert server.commands[joined] == (3 if joins else 1)
    assert server.commands.get("summary", 0) == (0 if joins else 3)


async def test_stock_sleeps_and_wakes_to_the_mode_it_had(start: Start) -> None:
    machine = StandaloneMachine(time_scale=SPEED, mode=Mode.LOW)
    server = await start(machine=machine)
    driver = stock(server)
    prior = await driver.prior_state()
    assert json.loads(prior) == {"family": "antminer-stock", "mode": 3}
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.ACKNOWLEDGED
    assert server.written[0]["miner-mode"] == 1
    assert server.written[0]["bitmain-work-mode"] == "1"
    assert server.written[0]["pools"][0]["url"].startswith("stratum+tcp://")
    await until(lambda: machine.hashrate_ths() == 0.0)
    asleep = await driver.status()
    assert (asleep.sleeping, asleep.hashrate_ths) == (True, 0.0)
    outcome = await driver.wake(prior)
    assert outcome.status is WriteStatus.ACKNOWLEDGED
    assert machine.mode == Mode.LOW
    await until(lambda: machine.hashrate_ths() > 90)
    assert (await driver.status()).sleeping is False


@pytest.mark.parametrize("kind", [StockAntminer, LuxosMiner])
async def test_a_machine_asleep_before_stays_asleep(start: Start, kind: type[AsicServer]) -> None:
    machine = StandaloneMachine(time_scale=SPEED, mode=Mode.SLEEP)
    server = await start(kind, machine=machine)
    driver: Any = stock(server) if isinstance(server, StockAntminer) else luxos(server)
    prior = await driver.prior_state()
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    outcome = await driver.wake(prior)
    assert outcome.status is WriteStatus.ACKNOWLEDGED
    assert "left asleep" in outcome.detail
    assert machine.mode == Mode.SLEEP
    assert not getattr(server, "written", [])
    assert "curtail" not in server.commands


@pytest.mark.parametrize("kind", [StockAntminer, LuxosMiner])
async def test_without_the_sites_word_nothing_is_written(start: Start, kind: type[AsicServer]) -> None:
    server = await start(kind)
    driver: Any = (
        stock(server, writes_allowed=False)
        if isinstance(server, StockAntminer)
        else luxos(server, writes_allowed=False)
    )
    prior = await driver.prior_state()
    for outcome in (await driver.sleep(), await driver.wake(prior)):
        assert outcome.status is WriteStatus.REFUSED
        assert "writes_allowed" in outcome.detail
    assert server.machine.mode == Mode.NORMAL


async def test_stock_that_says_ok_and_does_nothing_is_found_out(start: Start) -> None:
    server = await start()
    server.faults.refuses_sleep = True
    outcome = await stock(server).sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "reads back as 0" in outcome.detail
    assert len(server.written) == 1


async def test_a_write_answered_too_late_is_unknown_unless_it_reads_back(start: Start) -> None:
    server = await start(time_scale=1.0)
    outcome = await stock(server, timeouts=Timeouts(http_s=0.4, write_s=0.2, read_back_s=(0.0,))).sleep()
    assert outcome.status is WriteStatus.UNKNOWN
    assert len(server.written) == 1


async def test_a_write_whose_answer_is_lost_but_that_reads_back_is_acknowledged(start: Start) -> None:
    server = await start(time_scale=1.0, write_answer_s=0.4)
    limits = Timeouts(http_s=0.4, write_s=0.2, read_back_s=(0.0, 0.5))
    task = asyncio.create_task(stock(server, timeouts=limits).sleep())
    await until(lambda: len(server.written) == 1)
    server.machine.request_sleep()
    outcome = await task
    assert outcome.status is WriteStatus.ACKNOWLEDGED
    assert "lost" in outcome.detail


async def test_a_server_error_after_the_write_is_not_taken_for_a_refusal(start: Start) -> None:
    server = await start()
    server.faults.write_error = True
    assert (await stock(server).sleep()).status is WriteStatus.ACKNOWLEDGED
    assert server.machine.mode == Mode.SLEEP
    server = await start()
    server.faults.write_error = server.faults.refuses_sleep = True
    assert (await stock(server).sleep()).status is WriteStatus.UNKNOWN


async def test_two_writes_to_one_machine_follow_each_other(start: Start) -> None:
    server = await start(time_scale=200.0)
    driver = stock(server)
    prior = await driver.prior_state()
    outcomes = await asyncio.gather(driver.sleep(), driver.wake(prior))
    assert [outcome.status for outcome in outcomes] == [WriteStatus.ACKNOWLEDGED] * 2
    assert [body["miner-mode"] for body in server.written] == [1, 0]
    assert server.machine.mode == Mode.NORMAL


async def test_status_goes_on_while_a_write_waits_for_its_answer(start: Start) -> None:
    server = await start(time_scale=1.0, write_answer_s=0.3)
    driver = stock(server)
    await driver.status()
    task = asyncio.create_task(driver.sleep())
    await until(lambda: len(server.written) == 1)
    async with asyncio.timeout(0.2):
        status = await driver.status()
    assert status.hashrate_ths == pytest.approx(95.0)
    assert not task.done()
    assert (await task).status is WriteStatus.ACKNOWLEDGED


async def test_sleep_done_by_somebody_else_is_noticed(start: Start) -> None:
    server = await start()
    now_s = 1000.0
    driver = stock(server, mono=lambda: now_s)
    await driver.status()
    server.machine.request_sleep()
    await until(lambda: server.machine.hashrate_ths() == 0.0)
    now_s += QUICK.mode_max_age_s / 4
    assert (await driver.status()).sleeping is True


async def test_a_mode_that_grew_old_and_cannot_be_read_again_is_unknown(start: Start) -> None:
    server = await start()
    now_s = 1000.0
    driver = stock(server, mono=lambda: now_s)
    await driver.sleep()
    await until(lambda: server.machine.hashrate_ths() == 0.0)
    assert (await driver.status()).sleeping is True
    server.faults.http_down = True
    now_s += QUICK.mode_max_age_s + 1
    assert (await driver.status()).sleeping is None


async def test_a_silent_machine_gives_unknown_within_its_deadline(start: Start) -> None:
    server = await start()
    server.faults.silent = True
    outcome = await stock(server).sleep()
    assert outcome.status is WriteStatus.UNKNOWN
    assert outcome.detail.startswith("nothing written")
    with pytest.raises(NoAnswer):
        await stock(server).prior_state()


async def test_a_wrong_password_is_named_and_nothing_is_written(start: Start) -> None:
    server = await start(password="another")
    outcome = await stock(server).sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "log-in is wrong" in outcome.detail
    assert server.written == []
    status = await stock(server).status()
    assert status.hashrate_ths == pytest.approx(95.0)


async def test_without_a_log_in_there_is_status_but_no_sleep(start: Start) -> None:
    server = await start()
    driver = stock(server, credentials=None)
    assert (await driver.status()).sleeping is False
    assert (await driver.sleep()).status is WriteStatus.REFUSED


async def test_asleep_with_a_closed_socket_is_asleep_and_not_offline(start: Start) -> None:
    server = await start(rpc_closed_asleep=True)
    driver = stock(server)
    await driver.status()
    await driver.sleep()
    status = await driver.status()
    assert status.sleeping is True
    assert status.hashrate_ths is None
    assert status.model == "Antminer S19"
    server.faults.http_down = True
    with pytest.raises(NoConnection):
        await driver.status()


async def test_without_power_nothing_answers(start: Start) -> None:
    server = await start()
    driver = stock(server)
    await driver.status()
    await driver.sleep()
    server.machine.set_powered(False)
    with pytest.raises(NoConnection):
        await driver.status()
    server.machine.set_powered(True)
    assert (await driver.status()).sleeping is True


async def test_a_machine_told_to_sleep_that_still_hashes_is_not_called_asleep(start: Start) -> None:
    server = await start(machine=StandaloneMachine(time_scale=1.0, sleep_ramp_s=3600.0))
    driver = stock(server)
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    status = await driver.status()
    assert status.sleeping is False
    assert status.errors == ("configured to sleep, but hashing",)


async def test_a_machine_that_wakes_itself_is_seen_awake(start: Start) -> None:
    server = await start()
    server.faults.wakes_itself_s = 0.05
    driver = stock(server)
    await driver.sleep()
    await until(lambda: server.machine.mode == Mode.NORMAL and server.machine.hashrate_ths() > 90)
    assert (await driver.status()).sleeping is False


async def test_stock_drops_a_write_with_one_key_alone(start: Start) -> None:
    """The quirk the simulator shares with real ones, so that the driver's care for both keys is really tried."""
    server = await start()
    web = HttpClient("127.0.0.1", server.http_port, credentials=LOGIN, timeout_s=1.0)
    conf = await web.get_json("/cgi-bin/get_miner_conf.cgi")
    for body in ({**conf, "miner-mode": 1}, {**conf, "bitmain-work-mode": "1"}):
        assert (await web.post_json("/cgi-bin/set_miner_conf.cgi", body))["stats"] == "success"
        assert server.machine.mode == Mode.NORMAL


# --- LuxOS ---


@pytest.mark.parametrize(("metered", "source"), [(False, "estimated"), (True, "measured")])
async def test_luxos_sleeps_wakes_and_says_whose_watts(start: Start, metered: bool, source: str) -> None:
    server = await start(LuxosMiner, metered=metered)
    driver = luxos(server)
    prior = await driver.prior_state()
    status = await driver.status()
    assert (status.power_w, status.power_source) == (3250.0, source)
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    assert not server.session_open
    await until(lambda: server.machine.hashrate_ths() == 0.0)
    asleep = await driver.status()
    assert (asleep.sleeping, asleep.power_w) == (True, 30.0)
    assert (await driver.wake(prior)).status is WriteStatus.ACKNOWLEDGED
    assert server.machine.mode == Mode.NORMAL
    assert not server.session_open


async def test_luxos_leaves_somebody_elses_session_alone(start: Start) -> None:
    server = await start(LuxosMiner, time_scale=1.0)
    session = server.open_session()
    outcome = await luxos(server).sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "402" in outcome.detail
    assert server.commands["logon"] == 3
    assert "logoff" not in server.commands
    server.answer("logoff", session)
    assert (await luxos(server).sleep()).status is WriteStatus.ACKNOWLEDGED


async def test_luxos_that_does_nothing_is_unknown_and_logged_off(start: Start) -> None:
    server = await start(LuxosMiner, time_scale=1.0)
    server.faults.refuses_sleep = True
    outcome = await luxos(server).sleep()
    assert outcome.status is WriteStatus.UNKNOWN
    assert not server.session_open


async def test_luxos_silent_is_unknown(start: Start) -> None:
    server = await start(LuxosMiner)
    server.faults.silent = True
    assert (await luxos(server).sleep()).status is WriteStatus.UNKNOWN


# --- transport ---


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(silent=True), NoAnswer),
        (Faults(half_open=True), NoAnswer),
        (Faults(slow_s=5.0), NoAnswer),
        (Faults(garbage=True), BadAnswer),
    ],
)
@pytest.mark.parametrize("kind", [StockAntminer, LuxosMiner])
async def test_a_bad_machine_costs_no_more_than_its_deadline(
    start: Start, kind: type[AsicServer], faults: Faults, error: type[DriverError]
) -> None:
    server = await start(kind)
    server.faults = faults
    driver: Any = stock(server) if isinstance(server, StockAntminer) else luxos(server)
    async with asyncio.timeout(QUICK.status_s + 0.5):
        with pytest.raises(error, match=rf"127\.0\.0\.1:{server.rpc_port}"):
            await driver.status()


async def test_an_endless_answer_is_cut_at_its_limit() -> None:
    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b'{"a":"' + b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = CgminerClient("127.0.0.1", port, timeout_s=3.0, max_bytes=200_000)
        with pytest.raises(BadAnswer, match="larger than 200000"):
            await client.command("summary")


async def test_one_request_at_a_time_per_machine() -> None:
    most = now = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await reader.read(100)
        await asyncio.sleep(0.01)
        now -= 1
        writer.write(b'{"STATUS":[{"STATUS":"S"}]}\x00')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        client = CgminerClient("127.0.0.1", server.sockets[0].getsockname()[1])
        await asyncio.gather(*(client.command("summary") for _ in range(8)))
    assert most == 1


async def test_http_does_not_follow_redirects_and_never_names_the_password() -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\n"
        writer.write(head + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with server:
        secret = Credentials("root", "hunter2-secret")
        client = HttpClient("127.0.0.1", server.sockets[0].getsockname()[1], credentials=secret)
        with pytest.raises(Refused, match="HTTP 302") as caught:
            await client.get_json("/")
    assert "hunter2" not in str(caught.value) + repr(secret) + repr(client.__dict__)


# --- identification and probe ---


async def test_families_are_told_apart(start: Start) -> None:
    bitmain, luxor = await start(), await start(LuxosMiner)
    assert await identify("127.0.0.1", rpc_port=bitmain.rpc_port, http_port=None) == "antminer-stock"
    assert await identify("127.0.0.1", rpc_port=luxor.rpc_port, http_port=None) == "luxos"


async def test_a_stock_machine_with_a_closed_socket_is_known_by_its_web_page(start: Start) -> None:
    server = await start(rpc_closed_asleep=True, machine=StandaloneMachine(mode=Mode.SLEEP))
    assert await identify("127.0.0.1", rpc_port=server.rpc_port, http_port=server.http_port) == "antminer-stock"


async def test_probe_prints_the_contracts_shape(start: Start) -> None:
    server = await start()
    said = await probe(f"asic://127.0.0.1:{server.rpc_port}?http={server.http_port}", credentials=LOGIN)
    wanted = {"family", "model", "firmware", "mac", "serial", "uptime_s", "sleeping", "latency_ms", "errors"}
    wanted |= {"hashrate_ths", "hashrate_nominal_ths", "power_w", "power_source", "temperature_max_c", "fans_rpm"}
    wanted |= {"boards", "pools"}
    assert wanted <= set(said)
    assert set(said["boards"][0]) == {"index", "hashrate_ths", "chips", "temperature_max_c", "ok"}
    assert set(said["pools"][0]) == {"url", "user", "active", "accepted", "rejected"}
    json.dumps(said, allow_nan=False)


async def test_probe_says_why_nothing_answers(start: Start) -> None:
    server = await start()
    server.machine.set_powered(False)
    said = await probe(f"asic://127.0.0.1:{server.rpc_port}?http={server.http_port}", timeouts=QUICK)
    assert said["responds"] is False
    assert str(server.rpc_port) in said["reason"]


async def test_a_machine_of_no_known_family_is_read_and_can_only_be_read(start: Start) -> None:
    server = await start()
    driver = driver_for("cgminer", "127.0.0.1", rpc_port=server.rpc_port)
    assert isinstance(driver, GenericCgminer)
    assert not isinstance(driver, Sleeper)
    assert (await driver.status()).hashrate_ths == pytest.approx(95.0)


def test_nothing_is_imported_from_the_simulator() -> None:
    root = Path(__file__).parents[2] / "drivers" / "asic"
    for file in root.rglob("*.py"):
        assert "simulator" not in file.read_text(encoding="utf-8"), file
