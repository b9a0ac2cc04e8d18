"""Finding out which firmware a machine has, and finding out again when its answers stop fitting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drivers.asic.identify import driver_for
from drivers.asic.recheck import UNKNOWN_FAMILY, IdentifiedMiner
from drivers.capabilities import MinerStatus, PowerLimiter, PowerRange, Sleeper, WriteOutcome, WriteStatus
from drivers.errors import BadAnswer, DriverError, NoAnswer, Refused


class Machine:
    """What answers, told by the test: its family, and how well it fits the driver asking."""

    def __init__(self, family: str = "one") -> None:
        self.family = family
        self.asked = 0
        self.fails: DriverError | None = None
        self.identify_fails: DriverError | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.thinks = asyncio.Event()
        self.thinks.set()

    async def identify(self) -> str:
        self.asked += 1
        await self.thinks.wait()
        if self.identify_fails is not None:
            raise self.identify_fails
        return self.family


class Driver:
    """The driver of one family: it reads only machines of that family."""

    def __init__(self, family: str, machine: Machine) -> None:
        self.family = family
        self.machine = machine
        self.slept = 0

    async def status(self) -> MinerStatus:
        if self.machine.fails is not None:
            raise self.machine.fails
        if self.machine.family != self.family:
            raise BadAnswer("an answer of another firmware")
        return MinerStatus(family=self.family)


class SleepingDriver(Driver):
    async def prior_state(self) -> str:
        return f"prior of {self.family}"

    async def sleep(self) -> WriteOutcome:
        await self.machine.hold.wait()
        self.slept += 1
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, 0, self.family)

    async def wake(self, prior_state: str) -> WriteOutcome:
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, 0, prior_state)


def miner(
    machine: Machine, *, sleeps: bool = True, clock: list[float] | None = None, **options: Any
) -> IdentifiedMiner:
    now = clock if clock is not None else [0.0]
    kind = SleepingDriver if sleeps else Driver
    return IdentifiedMiner(
        "miner 192.0.2.1",
        machine.identify,
        lambda family: kind(family, machine),
        mono=lambda: now[0],
        **options,
    )


async def test_it_is_asked_once_and_then_read() -> None:
    machine = Machine()
    one = miner(machine)
    assert one.family == UNKNOWN_FAMILY
    for _ in range(5):
        assert (await one.status()).family == "one"
    assert machine.asked == 1
    assert one.family == "one"


async def test_a_machine_that_is_off_is_asked_again_with_the_next_poll() -> None:
    machine = Machine()
    machine.identify_fails = NoAnswer("silence")
    one = miner(machine)
    for _ in range(3):
        with pytest.raises(NoAnswer):
            await one.status()
    assert machine.asked == 3
    machine.identify_fails = None
    assert (await one.status()).family == "one"


async def test_another_firmware_is_found_after_some_misfits_and_read_at_once() -> None:
    machine, clock = Machine(), [0.0]
    one = miner(machine, clock=clock)
    await one.status()
    machine.family, clock[0] = "two", 1000.0
    for _ in range(2):
        with pytest.raises(BadAnswer):
            await one.status()
    assert (await one.status()).family == "two"
    assert machine.asked == 2


async def test_one_misfit_or_any_silence_is_no_reason_to_ask() -> None:
    machine, clock = Machine(), [0.0]
    one = miner(machine, clock=clock)
    await one.status()
    clock[0] = 1000.0
    for fails in (BadAnswer("garbled"), None, BadAnswer("garbled"), NoAnswer("silence"), *[NoAnswer("silence")] * 9):
        machine.fails = fails
        try:
            await one.status()
        except DriverError:
            continue
    assert machine.asked == 1


async def test_it_is_not_asked_again_and_again() -> None:
    machine, clock = Machine(), [0.0]
    one = miner(machine, clock=clock)
    await one.status()
    clock[0] = 1000.0
    machine.fails = BadAnswer("still this firmware, and broken")
    for _ in range(30):
        with pytest.raises(BadAnswer):
            await one.status()
    assert machine.asked == 2
    clock[0] = 1301.0
    with pytest.raises(BadAnswer):
        await one.status()
    assert machine.asked == 3


async def test_the_driver_is_never_changed_during_a_write() -> None:
    machine, clock = Machine(), [0.0]
    one = miner(machine, clock=clock)
    await one.status()
    first = one.driver
    machine.hold.clear()
    write = asyncio.create_task(one.sleep())
    await asyncio.sleep(0)
    machine.family, clock[0] = "two", 1000.0
    for _ in range(6):
        with pytest.raises(BadAnswer):
            await one.status()
    assert one.driver is first
    assert machine.asked == 1
    machine.hold.set()
    assert (await write).detail == "one"
    assert (await one.status()).family == "two", "afterwards it is"


async def test_a_write_begun_while_it_is_asked_keeps_its_driver() -> None:
    machine, clock = Machine(), [0.0]
    one = miner(machine, clock=clock, misfits=1)
    await one.status()
    machine.family, clock[0] = "two", 1000.0
    machine.hold.clear()
    machine.thinks.clear()
    reading = asyncio.create_task(one.status())
    while machine.asked < 2:  # noqa: ASYNC110 - asking has no event of its own
        await asyncio.sleep(0)
    write = asyncio.create_task(one.sleep())
    await asyncio.sleep(0)
    machine.thinks.set()
    with pytest.raises(BadAnswer):
        await reading
    machine.hold.set()
    assert (await write).detail == "one"
    assert one.family == "one"


async def test_a_family_that_cannot_sleep_refuses_in_words() -> None:
    one = miner(Machine(), sleeps=False)
    outcome = await one.sleep()
    assert outcome.status is WriteStatus.REFUSED
    assert "cannot sleep" in outcome.detail
    with pytest.raises(Refused, match="cannot sleep"):
        await one.prior_state()
    assert (await one.limit_power(1000)).status is WriteStatus.REFUSED
    with pytest.raises(Refused, match="no power limit"):
        await one.power_range()


async def test_nothing_is_sent_to_a_machine_of_unknown_family() -> None:
    machine = Machine()
    machine.identify_fails = NoAnswer("silence")
    one = miner(machine)
    for outcome in (await one.sleep(), await one.wake("{}"), await one.limit_power(1), await one.restore_limit("{}")):
        assert outcome.status is WriteStatus.REFUSED
        assert "nothing sent" in outcome.detail


async def test_a_prior_state_goes_to_the_driver_in_use() -> None:
    one = miner(Machine(), family="one")
    assert await one.prior_state() == "prior of one"
    assert (await one.wake("x")).detail == "x"


def test_it_is_a_reader_a_sleeper_and_a_limiter() -> None:
    one = driver_for("auto", "192.0.2.1")
    assert isinstance(one, Sleeper)
    assert isinstance(one, PowerLimiter)
    assert isinstance(PowerRange(None, None, None), PowerRange)
