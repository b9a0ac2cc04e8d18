"""Sleep, wake and power limits of the families with a log-in: the same rules for all, over real sockets."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from drivers.asic.credentials import Credentials
from drivers.capabilities import MinerReader, PowerLimiter, Sleeper, WriteStatus
from drivers.errors import BadAnswer, DriverError, NoAnswer, NoConnection
from simulator.devices.models import Mode, StandaloneMachine
from tests.support.asic_kit import BRIEF, LOSING, PASSWORD, SPEED, SUBJECTS, Subject, until

Start = Callable[..., Any]

pytestmark = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a simulated machine; all are stopped in the end."""
    async with AsyncExitStack() as stack:

        async def one(subject: Subject, machine: StandaloneMachine | None = None, **options: Any) -> Any:
            server = subject.make_server(machine, **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield one


async def test_status_reads_the_whole_machine(subject: Subject, start: Start) -> None:
    server = await start(subject)
    driver = subject.make_driver(server)
    status = await driver.status()
    assert isinstance(driver, MinerReader)
    assert isinstance(driver, Sleeper)
    assert isinstance(driver, PowerLimiter)
    assert status.family == driver.family
    assert status.hashrate_ths == pytest.approx(95.0)
    assert status.sleeping is False
    assert status.power_w == pytest.approx(3250.0, abs=1.0)
    assert status.power_source == ("estimated" if subject.name.startswith("braiins") else "measured")
    assert status.model == "Antminer S19"
    assert status.firmware
    assert len(status.boards) == 3
    assert all(board.ok for board in status.boards)
    assert sum(board.hashrate_ths or 0.0 for board in status.boards) == pytest.approx(95.0)
    assert status.fans_rpm
    assert [(pool.url, pool.active) for pool in status.pools] == [("stratum+tcp://pool.example:3333", True)]
    assert status.errors == ()


async def test_asleep_it_reads_as_asleep_and_awake_again_after_the_wake(subject: Subject, start: Start) -> None:
    server = await start(subject)
    driver = subject.make_driver(server)
    prior = await driver.prior_state()
    assert json.loads(prior) == {"asleep": False, "family": driver.family}
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    assert server.machine.mode == Mode.SLEEP
    await until(lambda: server.machine.hashrate_ths() == 0.0)
    asleep = await driver.status()
    assert (asleep.sleeping, asleep.hashrate_ths) == (True, 0.0)
    assert (await driver.sleep()).detail.endswith("nothing sent")
    outcome = await driver.wake(prior)
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    assert server.machine.mode == Mode.NORMAL
    await until(lambda: server.machine.hashrate_ths() > 90.0)
    assert (await driver.status()).sleeping is False


async def test_a_machine_that_says_yes_and_mines_on_is_not_believed(subject: Subject, start: Start) -> None:
    server = await start(subject)
    server.faults.refuses_sleep = True
    driver = subject.make_driver(server)
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.UNKNOWN
    assert "reads back as False" in outcome.detail
    status = await driver.status()
    assert status.sleeping is False
    assert status.hashrate_ths == pytest.approx(95.0)


async def test_a_machine_that_wakes_itself_is_seen_mining(subject: Subject, start: Start) -> None:
    server = await start(subject)
    server.faults.wakes_itself_s = 0.05
    driver = subject.make_driver(server)
    await driver.sleep()
    await until(lambda: server.machine.mode == Mode.NORMAL and server.machine.hashrate_ths() > 90.0)
    assert (await driver.status()).sleeping is False


async def test_a_machine_asleep_before_stays_asleep(subject: Subject, start: Start) -> None:
    server = await start(subject, StandaloneMachine(time_scale=SPEED, mode=Mode.SLEEP))
    driver = subject.make_driver(server)
    prior = await driver.prior_state()
    assert json.loads(prior)["asleep"] is True
    outcome = await driver.wake(prior)
    assert outcome.status is WriteStatus.ACKNOWLEDGED
    assert "left asleep" in outcome.detail
    assert server.machine.mode == Mode.SLEEP


@pytest.mark.parametrize("prior", ["", "{}", '{"family":"luxos","asleep":false}'])
async def test_a_prior_state_of_something_else_wakes_nothing(subject: Subject, start: Start, prior: str) -> None:
    server = await start(subject, StandaloneMachine(time_scale=SPEED, mode=Mode.SLEEP))
    driver = subject.make_driver(server)
    assert (await driver.wake(prior)).status is WriteStatus.REFUSED
    assert (await driver.restore_limit(prior)).status is WriteStatus.REFUSED
    assert server.machine.mode == Mode.SLEEP


async def test_without_the_sites_word_nothing_is_written(subject: Subject, start: Start) -> None:
    server = await start(subject)
    driver = subject.make_driver(server, writes_allowed=False)
    prior, limit = await driver.prior_state(), await driver.prior_limit()
    outcomes = [
        await driver.sleep(),
        await driver.wake(prior),
        await driver.limit_power(2500),
        await driver.restore_limit(limit),
    ]
    for outcome in outcomes:
        assert outcome.status is WriteStatus.REFUSED
        assert "writes_allowed" in outcome.detail
    assert server.machine.mode == Mode.NORMAL
    assert await driver.prior_limit() == limit


async def test_a_wrong_password_is_refused_and_said_nowhere(
    subject: Subject, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start(subject)
    wrong = "wr0ng-Pa55-marked"
    driver = subject.make_driver(server, credentials=Credentials(subject.user, wrong))
    with caplog.at_level(logging.DEBUG), capture_logs() as logs:
        outcomes = [await driver.sleep(), await driver.limit_power(2500)]
        try:
            await driver.power_range()
        except DriverError as error:
            said = f"{error!r} {error} {error.__cause__!r}"
        else:
            said = ""
        said += repr(vars(driver))
    for outcome in outcomes:
        assert outcome.status is WriteStatus.REFUSED, outcome.detail
        assert wrong not in outcome.detail
    assert "credentials" in outcomes[0].detail
    assert wrong not in said
    assert wrong not in repr(logs)
    assert wrong not in caplog.text
    assert server.machine.mode == Mode.NORMAL


async def test_without_a_log_in_it_is_read_but_never_told(subject: Subject, start: Start) -> None:
    server = await start(subject)
    driver = subject.make_driver(server, credentials=None)
    status = await driver.status()
    assert status.hashrate_ths == pytest.approx(95.0)
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "credentials" in outcome.detail
    assert server.machine.mode == Mode.NORMAL


async def test_the_answer_to_a_write_that_is_lost_leaves_it_unknown(subject: Subject, start: Start) -> None:
    server = await start(subject)
    server.lose_writes = True
    driver = subject.make_driver(server, timeouts=LOSING)
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.UNKNOWN, outcome.detail
    assert server.machine.mode == Mode.SLEEP  # it happened all the same


async def test_a_lost_answer_that_reads_back_is_acknowledged(subject: Subject, start: Start) -> None:
    server = await start(subject)
    server.lose_writes = True

    async def speaks_again(_seconds: float) -> None:
        server.faults.silent = False

    driver = subject.make_driver(server, timeouts=replace(LOSING, read_back_s=(0.0,)), pause=speaks_again)
    outcome = await driver.sleep()
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    assert "lost" in outcome.detail


async def test_a_refused_sleep_is_refused(subject: Subject, start: Start) -> None:
    server = await start(subject)
    server.faults.denies_sleep = True
    outcome = await subject.make_driver(server).sleep()
    assert outcome.status is WriteStatus.REFUSED, outcome.detail
    assert server.machine.mode == Mode.NORMAL


@pytest.mark.parametrize("fault", ["silent", "half_open", "garbage", "slow"])
async def test_whatever_it_sends_a_reading_ends_in_a_driver_error_in_time(
    subject: Subject, start: Start, fault: str
) -> None:
    server = await start(subject)
    if fault == "slow":
        server.faults.slow_s = 30.0
    else:
        setattr(server.faults, fault, True)
    driver = subject.make_driver(server, timeouts=BRIEF)
    with pytest.raises((NoAnswer, NoConnection, BadAnswer)):
        await driver.status()
    with pytest.raises(DriverError):
        await driver.prior_state()
    outcome = await driver.sleep()
    assert outcome.status is not WriteStatus.ACKNOWLEDGED
    assert outcome.detail.startswith("nothing sent")
    assert server.machine.mode == Mode.NORMAL


async def test_without_power_nothing_answers(subject: Subject, start: Start) -> None:
    server = await start(subject)
    server.machine.set_powered(False)
    with pytest.raises(NoConnection):
        await subject.make_driver(server).status()


async def test_tokens_are_used_again_and_replaced_when_the_machine_forgot_them(subject: Subject, start: Start) -> None:
    server = await start(subject)
    driver = subject.make_driver(server)
    prior = await driver.prior_state()
    for _ in range(3):
        assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
        assert (await driver.wake(prior)).status is WriteStatus.ACKNOWLEDGED
    logins = ("get_token", "POST /api/v1/auth/login", "POST /api/v1/unlock", "POST /token")
    assert sum(server.commands.get(name, 0) for name in logins) <= 1
    forget = getattr(server, "forget_tokens", None) or getattr(server, "forget_sessions", None)
    if forget is None:
        server.salt = "another1"
    else:
        forget()
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED


async def test_a_power_limit_is_set_read_back_and_put_back(subject: Subject, start: Start) -> None:
    server = await start(subject)
    driver = subject.make_driver(server)
    before = await driver.power_range()
    prior = await driver.prior_limit()
    outcome = await driver.limit_power(2510)
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    limited = await driver.power_range()
    assert limited.now_w == (2500 if subject.name == "vnish" else 2510)
    assert (await driver.limit_power(2510)).detail.endswith("already; nothing sent")
    outcome = await driver.restore_limit(prior)
    assert outcome.status is WriteStatus.ACKNOWLEDGED, outcome.detail
    assert await driver.prior_limit() == prior
    assert await driver.power_range() == before


async def test_a_limit_whose_answer_is_lost_is_unknown(subject: Subject, start: Start) -> None:
    server = await start(subject)
    driver = subject.make_driver(server, timeouts=LOSING)
    await driver.prior_limit()
    server.lose_writes = True
    outcome = await driver.limit_power(2510)
    assert outcome.status is WriteStatus.UNKNOWN, outcome.detail


@pytest.mark.parametrize("limit_w", [0, -5, 10_000_000])
async def test_a_limit_that_is_none_is_refused(subject: Subject, start: Start, limit_w: int) -> None:
    server = await start(subject)
    outcome = await subject.make_driver(server).limit_power(limit_w)
    assert outcome.status is WriteStatus.REFUSED
    assert f"{limit_w} W" in outcome.detail


async def test_the_right_password_is_said_nowhere_either(subject: Subject, start: Start) -> None:
    server = await start(subject)
    driver = subject.make_driver(server, timeouts=BRIEF)
    server.faults.silent = True
    with pytest.raises(DriverError) as caught:
        await driver.status()
    outcome = await driver.sleep()
    for said in (repr(vars(driver)), str(caught.value), repr(caught.value.__cause__), outcome.detail):
        assert PASSWORD not in said
