"""Power limits: the rules of a write, with a machine that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from drivers.asic.given import Given
from drivers.asic.power import LimitState, PowerControl, Setting, settable, settings_of
from drivers.asic.timing import Timeouts
from drivers.capabilities import WriteStatus
from drivers.errors import BadAnswer, DriverError, NoAnswer, Refused

FREE = LimitState(now_w=3000, settings={"w": 3000})


@dataclass
class FakeMachine:
    """Holds a limit; raises what it is told to."""

    state: LimitState = FREE
    obeys: bool = True
    on_read: DriverError | None = None
    on_write: DriverError | None = None
    reads: int = 0
    told: list[object] = field(default_factory=list)

    async def read_limit(self) -> LimitState:
        self.reads += 1
        if self.on_read is not None:
            raise self.on_read
        return self.state

    async def tell_limit(self, limit_w: int) -> str:
        return self._take(limit_w, {"w": limit_w}, limit_w)

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        watts = settings["w"]
        return self._take(dict(settings), dict(settings), watts if isinstance(watts, int) else None)

    def _take(self, told: object, settings: dict[str, Setting], now_w: int | None) -> str:
        self.told.append(told)
        if self.obeys:
            self.state = replace(self.state, now_w=now_w, settings=settings)
        if self.on_write is not None:
            raise self.on_write
        return "ok"


async def at_once(_seconds: float) -> None:
    return


def control(machine: FakeMachine, *, writes_allowed: bool = True) -> PowerControl:
    limits = Timeouts(read_back_s=(0.0, 0.0))
    given = Given(timeouts=limits, writes_allowed=writes_allowed, wall=lambda: 5.0, pause=at_once)
    return PowerControl("test", "miner 1", machine, given)


async def test_a_limit_that_reads_back_is_acknowledged() -> None:
    machine = FakeMachine()
    outcome = await control(machine).limit_power(2500)
    assert (outcome.status, outcome.at_ms) == (WriteStatus.ACKNOWLEDGED, 5000)
    assert machine.told == [2500]


async def test_a_limit_that_is_set_already_is_not_sent() -> None:
    machine = FakeMachine()
    assert (await control(machine).limit_power(3000)).status is WriteStatus.ACKNOWLEDGED
    assert machine.told == []


async def test_a_yes_without_effect_is_unknown() -> None:
    machine = FakeMachine(obeys=False)
    outcome = await control(machine).limit_power(2500)
    assert outcome.status is WriteStatus.UNKNOWN
    assert "reads back as 3000 W" in outcome.detail
    assert len(machine.told) == 1


@pytest.mark.parametrize(("obeys", "status"), [(True, WriteStatus.ACKNOWLEDGED), (False, WriteStatus.UNKNOWN)])
async def test_a_lost_answer_is_never_sent_again(obeys: bool, status: WriteStatus) -> None:
    machine = FakeMachine(obeys=obeys, on_write=NoAnswer("silent"))
    assert (await control(machine).limit_power(2500)).status is status
    assert len(machine.told) == 1


async def test_a_no_is_a_refusal() -> None:
    machine = FakeMachine(obeys=False, on_write=Refused("no"))
    assert (await control(machine).limit_power(2500)).status is WriteStatus.REFUSED
    assert machine.reads == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [(NoAnswer("x"), WriteStatus.UNKNOWN), (Refused("x"), WriteStatus.REFUSED), (BadAnswer("x"), WriteStatus.REFUSED)],
)
async def test_what_cannot_be_read_is_not_changed(error: DriverError, status: WriteStatus) -> None:
    machine = FakeMachine(on_read=error)
    for outcome in (
        await control(machine).limit_power(2500),
        await control(machine).restore_limit('{"family":"test","limit":{"w":1}}'),
    ):
        assert outcome.status is status
        assert outcome.detail.startswith("nothing sent")
    assert machine.told == []
    with pytest.raises(DriverError):
        await control(machine).prior_limit()


async def test_the_prior_limit_comes_back() -> None:
    machine = FakeMachine()
    power = control(machine)
    prior = await power.prior_limit()
    assert prior == '{"family":"test","limit":{"w":3000}}'
    assert (await power.restore_limit(prior)).detail.endswith("nothing sent")
    await power.limit_power(2500)
    assert (await power.restore_limit(prior)).status is WriteStatus.ACKNOWLEDGED
    assert machine.state.now_w == 3000


@pytest.mark.parametrize(
    "prior", ["", "[]", "{", '{"family":"other","limit":{}}', '{"family":"test","limit":{"w":[1]}}']
)
async def test_a_prior_limit_of_something_else_is_refused(prior: str) -> None:
    machine = FakeMachine()
    assert (await control(machine).restore_limit(prior)).status is WriteStatus.REFUSED
    assert machine.reads == 0
    with pytest.raises(ValueError):  # noqa: PT011 - json's own and ours, both are ValueError
        settings_of("test", prior)


async def test_without_the_sites_word_nothing_is_sent() -> None:
    machine = FakeMachine()
    power = control(machine, writes_allowed=False)
    assert (await power.limit_power(2500)).status is WriteStatus.REFUSED
    assert (await power.restore_limit('{"family":"test","limit":{"w":1}}')).status is WriteStatus.REFUSED
    assert (machine.told, machine.reads) == ([], 0)


async def test_two_writes_follow_each_other() -> None:
    machine = FakeMachine()
    power = control(machine)
    outcomes = await asyncio.gather(power.limit_power(2500), power.limit_power(2600))
    assert [outcome.status for outcome in outcomes] == [WriteStatus.ACKNOWLEDGED] * 2
    assert machine.told == [2500, 2600]


@pytest.mark.parametrize(
    ("state", "asked_w", "set_w"),
    [
        (FREE, 2500, 2500),
        (replace(FREE, lowest_w=1300, highest_w=3900), 5000, 3900),
        (replace(FREE, lowest_w=1300, highest_w=3900), 1300, 1300),
        (replace(FREE, lowest_w=1300), 1299, None),
        (replace(FREE, steps_w=(1500, 2000, 2500)), 2499, 2000),
        (replace(FREE, steps_w=(1500, 2000, 2500)), 9000, 2500),
        (replace(FREE, steps_w=(1500, 2000, 2500)), 1499, None),
        (FREE, 0, None),
        (FREE, -1, None),
        (FREE, 1_000_001, None),
    ],
)
def test_what_can_be_set(state: LimitState, asked_w: int, set_w: int | None) -> None:
    if set_w is None:
        with pytest.raises(Refused):
            settable(state, asked_w, "miner 1")
    else:
        assert settable(state, asked_w, "miner 1") == set_w
