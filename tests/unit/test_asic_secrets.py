"""A marked password, given to every family's driver and looked for everywhere it must not be."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

import pytest
import structlog

from drivers.asic import probe as asic_probe
from drivers.asic.credentials import Credentials
from drivers.asic.identify import driver_for, families
from drivers.asic.timing import Timeouts
from drivers.capabilities import PowerLimiter, Sleeper, WriteOutcome
from drivers.errors import DriverError
from tests.support.asic_replay import ABSENT, Recording, Replay, recordings, replayed

SECRET = "hunter2-MARKED-9f3c"
LOGIN = Credentials("operator", SECRET)
LIMITS = Timeouts(10, 10, 10, 20, read_back_s=(0.0,))
RECORDINGS = recordings()
IN_CLEAR = {"epic", "vnish", "braiins", "auradine", "proto"}
"""Firmwares that want the password itself, in the body of a request; all others get a digest or a cipher of it."""

pytestmark = pytest.mark.skipif(not RECORDINGS, reason=ABSENT)
by_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=[recording.id for recording in RECORDINGS])

_JSON = b'{"STATUS":[{"STATUS":"E","Code":45,"Msg":"wrong password %s"}],"error":"%s","result":false,"message":"%s"}'
ECHOES = {
    "taken": b"HTTP/1.1 200 X\r\n\r\n" + _JSON,
    "refused": b"HTTP/1.1 403 X\r\n\r\n" + _JSON,
    "as text": b"HTTP/1.1 200 X\r\n\r\n%s is wrong",
    "no HTTP": b"password %s is wrong\r\n\r\n",
    "as status": b"HTTP/1.1 4%s\r\n\r\n",
}


async def everything(driver: Any) -> list[str]:
    """Everything a driver says in reading and writing."""
    said: list[str] = []

    async def tried(reading: Any) -> Any:
        try:
            result = await reading
        except DriverError as error:
            said.append(f"{error!r} {error} {error.__cause__!r}")
            return None
        said.append(json.dumps(asdict(result)) if hasattr(result, "family") else repr(result))
        return result

    await tried(driver.status())
    if isinstance(driver, Sleeper):
        prior = await tried(driver.prior_state())
        said += [repr(await driver.sleep()), repr(await driver.wake(prior or "{}"))]
    if isinstance(driver, PowerLimiter):
        await tried(driver.power_range())
        prior = await tried(driver.prior_limit())
        outcome: WriteOutcome = await driver.limit_power(2000)
        said += [repr(outcome), repr(await driver.restore_limit(prior or "{}"))]
    await tried(driver.status())
    said.append(repr(driver) + repr(vars(driver)))
    return said


@by_recording
async def test_no_password_in_what_a_driver_says_logs_or_keeps(
    recording: Recording, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with replayed(Replay(recording)), structlog.testing.capture_logs() as logs:
        driver = driver_for(recording.family, "192.0.2.1", credentials=LOGIN, timeouts=LIMITS, writes_allowed=True)
        said = await everything(driver)
    assert said
    printed = capsys.readouterr()
    for text in (*said, repr(logs), caplog.text, printed.out, printed.err):
        assert SECRET not in text


class Repeating(Replay):
    """A machine that repeats what it was told wherever it was told the password."""

    def __init__(self, recording: Recording, echo: bytes) -> None:
        super().__init__(recording)
        self._echo = echo

    def altered(self, request: bytes, answer: bytes) -> bytes:
        """See :class:`Replay`."""
        return self._echo.replace(b"%s", SECRET.encode()) if SECRET.encode() in request else answer


@pytest.mark.parametrize("echo", ECHOES)
@by_recording
async def test_not_even_where_the_machine_repeats_it(recording: Recording, echo: str) -> None:
    with replayed(Repeating(recording, ECHOES[echo])), structlog.testing.capture_logs() as logs:
        driver = driver_for(recording.family, "192.0.2.1", credentials=LOGIN, timeouts=LIMITS, writes_allowed=True)
        said = await everything(driver)
    assert SECRET not in repr(said) + repr(logs)


@by_recording
async def test_the_password_itself_goes_only_to_firmwares_that_want_it(recording: Recording) -> None:
    replay = Replay(recording)
    with replayed(replay):
        driver = driver_for(recording.family, "192.0.2.1", credentials=LOGIN, timeouts=LIMITS, writes_allowed=True)
        await everything(driver)
    told = [request for request in replay.sent if SECRET.encode() in request]
    if recording.family not in IN_CLEAR:
        assert not told, told[0][:80]
    for request in told:
        head = request.partition(b"\r\n\r\n")[0]
        assert SECRET.encode() not in head, "never in an address line or a header, where proxies keep it"


@by_recording
async def test_probe_prints_no_password(recording: Recording) -> None:
    with replayed(Replay(recording)):
        said = await asic_probe.probe("asic://192.0.2.1", family=recording.family, credentials=LOGIN, timeouts=LIMITS)
    assert SECRET not in json.dumps(said)


def test_every_family_that_can_write_is_looked_at_here() -> None:
    seen = {recording.family for recording in RECORDINGS}
    assert {name for name, family in families().items() if family.sleeps} - seen <= {"marathon"}
