"""Answers changed at random, given to every driver: its own error or a status that can be sent on, nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable
from dataclasses import asdict
from random import Random
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.asic.credentials import Credentials
from drivers.asic.identify import driver_for, identify
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus, PowerLimiter, PowerRange, Sleeper, WriteOutcome
from drivers.errors import DriverError
from tests.support.asic_mutate import mutated
from tests.support.asic_replay import ABSENT, Recording, Replay, recordings, replayed

Result = TypeVar("Result")
SECRET = "hunter2-marked"
RECORDINGS = recordings()
LIMITS = Timeouts(10, 10, 10, 20, read_back_s=(0.0,))
LONG_S = float(os.environ.get("TIZGIN_FUZZ_S", "600"))
SLOWEST_S = 3.0
"""No answer may keep the agent's only loop busy for longer, however hostile; a machine under other load included."""

pytestmark = pytest.mark.skipif(not RECORDINGS, reason=ABSENT)


def check(status: MinerStatus) -> None:
    """What a status has to be, whatever was answered."""
    text = json.dumps(asdict(status), allow_nan=False, ensure_ascii=False)
    text.encode()  # half of a surrogate pair could not be stored
    assert len(text) < 200_000
    assert SECRET not in text
    assert status.hashrate_ths is None or status.hashrate_ths >= 0
    assert status.power_w is None or status.power_w >= 0
    assert status.power_source in ("measured", "estimated", "none")
    assert status.sleeping in (True, False, None)
    assert all(isinstance(speed, int) for speed in status.fans_rpm)
    assert len(status.boards) <= 64
    assert len(status.pools) <= 64


async def one(recording: Recording, seed: int) -> str:
    """Read, identify, sleep and wake one machine whose answers are changed; what came of it."""
    random = Random(seed)
    damaged = random.choice([1.0, 1.0, 0.5, 0.2])
    replay = Replay(
        recording,
        joins=random.random() < 0.5,
        mutate=lambda data: mutated(data, random) if random.random() < damaged else data,
    )
    login = Credentials("root", SECRET)
    ended = "read"
    with replayed(replay):
        driver = driver_for(recording.family, "192.0.2.1", credentials=login, timeouts=LIMITS, writes_allowed=True)
        for _ in range(2):
            status, error = await _tried(driver.status())
            if status is not None:
                check(status)
            ended = "read" if error is None else type(error).__name__
        if random.random() < 0.3:
            await _tried(identify("192.0.2.1", timeouts=LIMITS))
        if random.random() < 0.3:
            await _write(driver)
    return ended


async def _tried(reading: Awaitable[Result]) -> tuple[Result | None, DriverError | None]:
    """The result, or the driver's own error, which has a reason and no secret in it."""
    try:
        return await reading, None
    except DriverError as caught:
        error = caught
    assert str(error), "an error without a reason"
    assert SECRET not in str(error)
    return None, error


async def _write(driver: object) -> None:
    outcomes: list[WriteOutcome] = []
    if isinstance(driver, Sleeper):
        prior, _ = await _tried(driver.prior_state())
        outcomes += [await driver.sleep(), await driver.wake(prior or "{}")]
    if isinstance(driver, PowerLimiter):
        bounds, _ = await _tried(driver.power_range())
        assert bounds is None or isinstance(bounds, PowerRange)
        prior, _ = await _tried(driver.prior_limit())
        outcomes += [await driver.limit_power(2000), await driver.restore_limit(prior or "{}")]
    for outcome in outcomes:
        assert isinstance(outcome, WriteOutcome)
        assert SECRET not in outcome.detail


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(recording=st.sampled_from(RECORDINGS or [None]), seed=st.integers(0, 2**32))
def test_changed_answers_are_read_or_refused_in_the_drivers_own_words(recording: Recording, seed: int) -> None:
    began = time.process_time()
    asyncio.run(one(recording, seed))
    assert time.process_time() - began < SLOWEST_S


@pytest.mark.long
@pytest.mark.timeout(LONG_S + 120)
def test_the_same_for_minutes() -> None:
    seed = int(time.time())
    ends: dict[str, int] = {}
    slowest = (0.0, "", 0)
    until = time.monotonic() + LONG_S

    async def run() -> None:
        nonlocal seed, slowest
        while time.monotonic() < until:
            for recording in RECORDINGS:
                seed += 1
                began = time.process_time()
                try:
                    ended = await one(recording, seed)
                except Exception as error:
                    raise AssertionError(f"{recording.folder} with seed {seed}: {error!r}") from error
                ends[ended] = ends.get(ended, 0) + 1
                slowest = max(slowest, (time.process_time() - began, recording.folder, seed))

    asyncio.run(run())
    assert sum(ends.values()) > LONG_S
    assert slowest[0] < SLOWEST_S, slowest
    print(f"{sum(ends.values())} machines, {ends}, slowest {slowest}")
