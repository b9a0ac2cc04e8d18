"""Avalon, ePIC, Bitaxe, Sealminer, Marathon, Proto and IceRiver drivers against simulated machines on real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from drivers.asic.avalon import Avalon
from drivers.asic.bitaxe import Bitaxe
from drivers.asic.credentials import Credentials
from drivers.asic.epic import Epic
from drivers.asic.iceriver import IceRiver
from drivers.asic.identify import driver_for, families, identify
from drivers.asic.marathon import Marathon
from drivers.asic.proto import ProtoRig
from drivers.asic.sealminer import Sealminer
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerReader, PowerLimiter, Sleeper, WriteOutcome, WriteStatus
from drivers.errors import BadAnswer, DriverError, NoAnswer, NoConnection, Refused
from simulator.devices.asic_families.avalon import AvalonMiner
from simulator.devices.asic_families.bitaxe import BitaxeMiner
from simulator.devices.asic_families.epic import EpicMiner
from simulator.devices.asic_families.iceriver import IceRiverMiner
from simulator.devices.asic_families.marathon import MarathonMiner
from simulator.devices.asic_families.proto import ProtoMiner
from simulator.devices.asic_families.sealminer import SealminerMiner
from simulator.devices.models import Mode, StandaloneMachine
from tests.support.asic_kit import made

SECRET = "hunter2-marked"
LOGIN = Credentials("root", SECRET)
LONG = Timeouts(rpc_s=10, http_s=10, write_s=10, status_s=20, read_back_s=(0.0, 0.01, 0.05))
QUICK = Timeouts(rpc_s=0.1, http_s=0.1, write_s=0.1, status_s=0.2, read_back_s=(0.0,))
"""For tests whose subject is a machine that does not answer."""
SPEED = 10_000.0


@dataclass(frozen=True)
class Kind:
    """One family: its simulated machine and its driver."""

    server: Callable[..., Any]
    driver: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    login: dict[str, Any] = field(default_factory=dict)
    port: str = "http_port"


KINDS = {
    "avalon": Kind(AvalonMiner, Avalon, {"settle_s": 0.01}, port="rpc_port"),
    "epic": Kind(EpicMiner, Epic, {"credentials": LOGIN}, {"password": SECRET}, port="rpc_port"),
    "bitaxe": Kind(BitaxeMiner, Bitaxe),
    "sealminer": Kind(SealminerMiner, Sealminer, port="rpc_port"),
    "marathon": Kind(MarathonMiner, Marathon, {"credentials": LOGIN}, {"password": SECRET}),
    "proto": Kind(ProtoMiner, ProtoRig, {"credentials": LOGIN}, {"password": SECRET}),
    "iceriver": Kind(IceRiverMiner, IceRiver, port="rpc_port"),
}
SLEEPERS = [name for name in KINDS if name != "iceriver"]
Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a simulated machine of a family; all are stopped in the end."""
    async with AsyncExitStack() as stack:

        async def one(name: str, **options: Any) -> Any:
            machine = options.pop("machine", None) or StandaloneMachine(time_scale=SPEED)
            server = KINDS[name].server(machine, time_scale=SPEED, **KINDS[name].login, **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield one


def driver_of(name: str, server: Any, **options: Any) -> Any:
    kind = KINDS[name]
    given = {"timeouts": LONG, "writes_allowed": True, **kind.options, **options}
    return made(kind.driver, **{kind.port: server.rpc_port}, **given)


@pytest.mark.parametrize("name", KINDS)
async def test_the_whole_machine_is_read(start: Start, name: str) -> None:
    server = await start(name)
    driver = driver_of(name, server)
    assert isinstance(driver, MinerReader)
    status = await driver.status()
    assert status.family == driver.family == name
    assert status.hashrate_ths == pytest.approx(95.0, rel=0.01)
    assert status.hashrate_nominal_ths == pytest.approx(95.0, rel=0.01)
    assert status.sleeping is False
    assert status.mac == "02:00:00:00:00:01"
    assert status.uptime_s is not None
    assert status.fans_rpm
    assert status.temperature_max_c is not None
    assert status.boards
    measured = {
        "proto": "measured",
        "avalon": "measured",
        "epic": "measured",
        "bitaxe": "measured",
        "sealminer": "measured",
    }
    assert status.power_source == measured.get(name, "estimated" if name == "marathon" else "none")
    if status.power_source != "none":
        assert status.power_w == pytest.approx(3250, rel=0.01)
    if name != "marathon":
        assert status.pools[0].user == "site.rack01.u01"
        assert status.pools[0].active is True
    assert status.errors == ()


@pytest.mark.parametrize("name", SLEEPERS)
async def test_asleep_is_read_back_and_woken_to_what_it_was(start: Start, name: str) -> None:
    server = await start(name)
    driver = driver_of(name, server)
    assert isinstance(driver, Sleeper)
    prior = await driver.prior_state()
    assert json.loads(prior)["family"] == name
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    assert server.machine.asleep()
    async with asyncio.timeout(20):
        # The mode reads back at once; the boards come to rest after it.
        while (status := await driver.status()).sleeping is not True or status.hashrate_ths:
            assert status.sleeping is not False or status.errors, "not asleep and nothing said of it"
    outcome = await driver.wake(prior)
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    assert not server.machine.asleep()
    assert (await driver.status()).sleeping is False


@pytest.mark.parametrize("name", SLEEPERS)
async def test_a_machine_asleep_before_stays_asleep(start: Start, name: str) -> None:
    server = await start(name)
    driver = driver_of(name, server)
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    prior = await driver.prior_state()
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    outcome = await driver.wake(prior)
    assert outcome.status is WriteStatus.ACKNOWLEDGED
    assert "left asleep" in outcome.detail
    assert server.machine.asleep()


@pytest.mark.parametrize("name", SLEEPERS)
async def test_a_machine_that_says_ok_and_mines_on_is_not_acknowledged(start: Start, name: str) -> None:
    server = await start(name)
    server.faults.refuses_sleep = True
    driver = driver_of(name, server)
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.UNKNOWN, outcome.detail
    assert "reads back" in outcome.detail
    status = await driver.status()
    assert status.sleeping is False
    assert status.hashrate_ths > 90


@pytest.mark.parametrize("name", SLEEPERS)
async def test_a_machine_that_wakes_itself_is_seen_awake(start: Start, name: str) -> None:
    server = await start(name)
    server.faults.wakes_itself_s = 0.3
    driver = driver_of(name, server, timeouts=Timeouts(10, 10, 10, 20, (0.0, 0.01, 0.05), mode_max_age_s=0.0))
    outcome = await driver.sleep()
    assert outcome.status in (WriteStatus.ACKNOWLEDGED, WriteStatus.UNKNOWN)
    async with asyncio.timeout(20):
        while (await driver.status()).sleeping or server.machine.asleep():  # noqa: ASYNC110 - it has no events
            await asyncio.sleep(0.02)
    assert not server.machine.asleep()


@pytest.mark.parametrize("name", SLEEPERS)
async def test_nothing_is_sent_where_writes_are_not_allowed(start: Start, name: str) -> None:
    server = await start(name)
    driver = driver_of(name, server, writes_allowed=False)
    prior = await driver.prior_state()
    asked = dict(server.commands)
    for outcome in (await driver.sleep(), await driver.wake(prior)):
        assert outcome.status is WriteStatus.REFUSED
        assert "writes_allowed" in outcome.detail
    assert server.commands == asked


@pytest.mark.parametrize("name", SLEEPERS)
async def test_a_lost_answer_to_a_write_is_unknown_and_sent_once(start: Start, name: str) -> None:
    server = await start(name)
    driver = driver_of(name, server, timeouts=Timeouts(1.0, 1.0, 1.0, 2.0, (0.0,)))
    told = {
        "proto": "POST /api/v1/mining/stop",
        "avalon": "ascset",
        "sealminer": "ascset",
        "epic": "POST /miner",
        "bitaxe": "POST /api/system/pause",
    }
    command = told.get(name, "POST /kaonsu/v1/miner_config")

    async def mute() -> None:
        while command not in server.commands:  # noqa: ASYNC110 - the machine watched has no events
            await asyncio.sleep(0)
        server.faults.silent = True

    # It goes silent the moment the command has arrived: done or not done, nobody hears.
    server.faults.slow_s = 0.05
    muting = asyncio.create_task(mute())
    outcome = await driver.sleep()
    await muting
    assert outcome.status is WriteStatus.UNKNOWN, outcome.detail
    assert "nothing sent" not in outcome.detail
    assert server.commands[command] == 1


@pytest.mark.parametrize("name", SLEEPERS)
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"family":"luxos","asleep":false}', "x" * 2000, "[" * 900])
async def test_a_prior_state_of_something_else_is_refused(start: Start, name: str, text: str) -> None:
    server = await start(name)
    outcome = await driver_of(name, server).wake(text)
    assert outcome.status is WriteStatus.REFUSED
    assert not server.commands


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("fault", ["silent", "half_open", "garbage", "unpowered"])
async def test_faults_are_the_drivers_own_errors_within_the_deadline(start: Start, name: str, fault: str) -> None:
    server = await start(name)
    driver = driver_of(name, server, timeouts=LONG if fault in ("garbage", "unpowered") else QUICK)
    if fault == "unpowered":
        server.machine.set_powered(False)
    else:
        setattr(server.faults, fault, True)
    wanted = {"silent": NoAnswer, "half_open": (NoAnswer, BadAnswer), "garbage": BadAnswer, "unpowered": NoConnection}
    async with asyncio.timeout(20):
        with pytest.raises(wanted[fault]):
            await driver.status()
        if name != "iceriver":
            outcome: WriteOutcome = await driver.sleep()
            assert outcome.status in (WriteStatus.REFUSED, WriteStatus.UNKNOWN)
            with pytest.raises(DriverError):
                await driver.prior_state()


@pytest.mark.parametrize("name", KINDS)
async def test_a_slow_machine_is_read_all_the_same(start: Start, name: str) -> None:
    server = await start(name)
    server.faults.slow_s = 0.05
    assert (await driver_of(name, server).status()).hashrate_ths == pytest.approx(95.0, rel=0.01)


@pytest.mark.parametrize("name", ["epic", "marathon", "proto"])
async def test_a_wrong_password_is_named_as_the_cause_and_never_repeated(start: Start, name: str) -> None:
    server = await start(name)
    driver = driver_of(name, server, credentials=Credentials("root", "other-secret-9"))
    with structlog.testing.capture_logs() as logs:
        outcome = await driver.sleep()
    assert outcome.status is WriteStatus.REFUSED, outcome.detail
    assert "other-secret-9" not in outcome.detail + repr(logs) + repr(vars(driver))
    assert not server.machine.asleep()


@pytest.mark.parametrize("name", ["epic", "marathon", "proto"])
async def test_without_a_log_in_a_command_is_refused_unsent(start: Start, name: str) -> None:
    server = await start(name)
    outcome = await driver_of(name, server, credentials=None).sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "configured" in outcome.detail


# The name of a Marathon stands on the JSON socket alone, which is not simulated; see the evidence tests.
@pytest.mark.parametrize("name", [name for name in KINDS if name != "marathon"])
async def test_it_is_recognised_and_driven_by_name(start: Start, name: str) -> None:
    server = await start(name)
    # A line socket hears a JSON command without its end of line and waits: that deadline is waited for, twice.
    limits = Timeouts(rpc_s=1.0) if name == "iceriver" else LONG
    assert await identify("127.0.0.1", rpc_port=server.rpc_port, http_port=0, timeouts=limits) == name
    driver = driver_for(name, "127.0.0.1", rpc_port=server.rpc_port, credentials=LOGIN, timeouts=LONG)
    assert (await driver.status()).family == name


@pytest.mark.parametrize("name", KINDS)
def test_what_a_family_says_of_itself_is_what_its_driver_can(name: str) -> None:
    family = families()[name]
    driver = driver_for(name, "127.0.0.1")
    assert isinstance(driver, Sleeper) is family.sleeps
    assert isinstance(driver, PowerLimiter) is family.limits_power


# --- one family's own ---


@pytest.mark.parametrize("ahead_s", [0.0, 86_400.0, -1.7e9])
async def test_an_avalon_with_a_wrong_clock_is_told_the_time_it_has(start: Start, ahead_s: float) -> None:
    server = await start("avalon", clock_ahead_s=ahead_s, wall=lambda: 1.8e9)
    outcome = await driver_of("avalon", server).sleep()
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail


async def test_an_avalon_whose_clock_jumps_is_unknown_rather_than_asleep(start: Start) -> None:
    server = await start("avalon")
    plain = server.answer

    def jumping(command: str, parameter: str) -> Any:
        said = plain(command, parameter)
        if command == "version":
            server.clock_ahead_s -= 50_000.0  # a time server set it back: the time told is hours away
        return said

    server.answer = jumping
    outcome = await driver_of("avalon", server).sleep()
    assert outcome.status is WriteStatus.UNKNOWN


async def test_an_avalon_that_answers_in_text_is_read_alike(start: Start) -> None:
    server = await start("avalon")
    as_json = await driver_of("avalon", server).status()
    plain = server.answer

    def in_text(request: object) -> bytes:
        command = request["command"] if isinstance(request, dict) else ""
        if "+" in command:
            return b"STATUS=E,When=1,Code=14,Msg=Invalid command,Description=cgminer 4.11.1|"
        said = plain(command, "")
        parts = []
        for name, rows in said.items():
            for row in rows if isinstance(rows, list) else ():
                first = {"POOLS": "", "STATUS": ""}.get(name, name if name != "STATS" else "")
                fields = [f"{key}={value}" for key, value in row.items()]
                parts.append(",".join([first, *fields] if first else fields))
        return ("|".join(parts) + "|").encode()

    server.answer_bytes = in_text
    as_text = await driver_of("avalon", server).status()
    for name in ("hashrate_ths", "power_w", "sleeping", "mac", "serial", "fans_rpm", "model", "temperature_max_c"):
        assert getattr(as_text, name) == pytest.approx(getattr(as_json, name)), name
    assert len(as_text.pools) == len(as_json.pools)


async def test_an_epic_that_lost_its_pool_is_told_to_sleep_and_woken_again(start: Start) -> None:
    server = await start("epic")
    server.pool_connected = False
    driver = driver_of("epic", server)
    status = await driver.status()
    assert status.sleeping is True
    assert "idles without a pool" in status.errors
    prior = await driver.prior_state()
    assert json.loads(prior)["asleep"] is False, "nobody told it to"
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    assert server.machine.asleep(), "else it would mine when the pool is back"
    server.pool_connected = True
    assert (await driver.wake(prior)).status is WriteStatus.ACKNOWLEDGED
    assert not server.machine.asleep()


async def test_an_epic_that_mines_is_not_started_again(start: Start) -> None:
    server = await start("epic")
    driver = driver_of("epic", server)
    assert (await driver.wake(await driver.prior_state())).status is WriteStatus.ACKNOWLEDGED
    assert "POST /miner" not in server.commands


async def test_a_bitaxe_that_cannot_pause_is_refused_unsent(start: Start) -> None:
    server = await start("bitaxe", pauses=False)
    driver = driver_of("bitaxe", server)
    assert (await driver.status()).sleeping is False
    with pytest.raises(BadAnswer, match=r"2\.14"):
        await driver.prior_state()
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert not any(command.startswith("POST") for command in server.commands)


async def test_a_sealminer_that_calls_itself_something_new_is_unknown(start: Start) -> None:
    server = await start("sealminer")
    server.suspended_word = "Dormant"
    driver = driver_of("sealminer", server)
    prior = await driver.prior_state()
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.UNKNOWN
    assert (await driver.status()).sleeping is None
    assert (await driver.wake(prior)).status is WriteStatus.ACKNOWLEDGED


async def test_a_running_sealminer_is_not_restarted(start: Start) -> None:
    server = await start("sealminer")
    driver = driver_of("sealminer", server)
    assert (await driver.wake(await driver.prior_state())).status is WriteStatus.ACKNOWLEDGED
    assert "restart" not in server.commands


async def test_a_marathon_write_carries_everything_that_was_read(start: Start) -> None:
    server = await start("marathon")
    before = json.loads(json.dumps(server.config))
    driver = driver_of("marathon", server)
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    wanted = {**before, "mode": {**before["mode"], "work-mode-selector": "Sleep"}}
    assert server.config == wanted


async def test_a_marathon_power_target_is_read_back_and_put_back(start: Start) -> None:
    server = await start("marathon")
    before = json.loads(json.dumps(server.config))
    driver = driver_of("marathon", server)
    assert (await driver.power_range()).now_w is None, "a target that is not followed is none"
    prior = await driver.prior_limit()
    outcome = await driver.limit_power(2100)
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    assert (await driver.power_range()).now_w == 2100
    assert server.config["mode"]["concorde"]["hash-target"] == 90
    assert (await driver.restore_limit(prior)).status is WriteStatus.ACKNOWLEDGED
    assert server.config == before


async def test_a_marathon_that_sleeps_is_not_woken_by_a_limit(start: Start) -> None:
    server = await start("marathon", machine=StandaloneMachine(mode=Mode.SLEEP))
    server.config["mode"]["work-mode-selector"] = "Sleep"
    outcome = await driver_of("marathon", server).limit_power(2000)
    assert outcome.status is WriteStatus.REFUSED
    assert "wake it first" in outcome.detail


async def test_a_proto_rig_whose_token_expired_is_logged_in_to_again(start: Start) -> None:
    server = await start("proto")
    driver = driver_of("proto", server)
    await driver.status()
    server.token = "another"
    assert (await driver.status()).hashrate_ths == pytest.approx(95.0, rel=0.01)
    assert server.commands["POST /api/v1/auth/login"] == 2


async def test_an_iceriver_cannot_sleep_and_says_so(start: Start) -> None:
    server = await start("iceriver")
    driver = driver_of("iceriver", server)
    assert not isinstance(driver, Sleeper)
    assert families()["iceriver"].sleeps is False


async def test_an_iceriver_that_refuses_the_first_question_is_refused(start: Start) -> None:
    server = await start("iceriver")
    from drivers.asic.iceriver.driver import ask

    with pytest.raises(Refused, match="code 1"):
        await ask("127.0.0.1", server.rpc_port, "reboot", 5.0)
