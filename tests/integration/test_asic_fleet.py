"""The fleet poller: on time, bounded, and never held up by the dead."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from drivers.asic.antminer_stock import AntminerStock
from drivers.asic.fleet import FleetPoller, Machine
from drivers.asic.luxos import LuxOs
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus
from drivers.errors import NoConnection
from simulator.devices.asic import AsicServer, LuxosMiner, StockAntminer
from simulator.devices.models import StandaloneMachine
from tests.support.asic_kit import made
from wire.quality import Quality

Result = tuple[str, MinerStatus | None, Quality, str | None]


class FakeReader:
    """A machine in memory: answers after ``delay_s``, hangs where that is ``None``, or raises."""

    family = "fake"

    def __init__(self, delay_s: float | None = 0.0, error: Exception | None = None) -> None:
        self.delay_s = delay_s
        self.error = error
        self.open = 0
        self.most_open = 0
        self.asked_s: list[float] = []

    async def status(self) -> MinerStatus:
        loop = asyncio.get_running_loop()
        self.asked_s.append(loop.time())
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.delay_s is None:
                await loop.create_future()
            await asyncio.sleep(self.delay_s or 0.0)
            if self.error is not None:
                raise self.error
            return MinerStatus(family="fake")
        finally:
            self.open -= 1


async def run_until(poller: FleetPoller, condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    task = asyncio.create_task(poller.run())
    try:
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110 - the counters watched are plain numbers
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_machine_is_polled_once_per_period_at_its_own_phase() -> None:
    readers = {f"m{n}": FakeReader() for n in range(50)}
    poller = FleetPoller([Machine(name, r) for name, r in readers.items()], period_s=0.2, on_status=lambda *_: None)
    await run_until(poller, lambda: all(len(r.asked_s) >= 4 for r in readers.values()))
    begin_s = min(r.asked_s[0] for r in readers.values())
    assert max(r.asked_s[0] for r in readers.values()) - begin_s > 0.1
    for reader in readers.values():
        third_s = reader.asked_s[3] - reader.asked_s[0]
        assert third_s == pytest.approx(0.6, abs=0.1)


async def test_machines_that_die_together_never_delay_living_ones() -> None:
    """Twice as many hang as live, and far more than may be open at once: a feeder was opened."""
    living = {f"ok{n}": FakeReader(0.002) for n in range(60)}
    dead = {f"dead{n}": FakeReader(0.002) for n in range(120)}
    results: Counter[tuple[str, Quality]] = Counter()

    def note(machine: str, _status: MinerStatus | None, quality: Quality, _reason: str | None) -> None:
        results[machine, quality] += 1

    poller = FleetPoller(
        [Machine(name, r, "rack") for name, r in (living | dead).items()],
        period_s=0.5,
        concurrency=32,
        per_subnet=32,
        deadline_s=5.0,
        patience_s=0.05,
        on_status=note,
    )

    def died_and_went_on() -> bool:
        if poller.counters.started >= 180:
            for reader in dead.values():
                reader.delay_s = None
        return min(results[name, Quality.GOOD] for name in living) >= 4

    await run_until(poller, died_and_went_on, 40.0)
    assert sum(reader.open for reader in dead.values()) == 0
    assert all(reader.delay_s is None for reader in dead.values())
    assert min(results[name, Quality.GOOD] for name in living) > max(results[name, Quality.GOOD] for name in dead)
    # Had they waited for the dead, they would have waited for the deadline of 5 s.
    assert poller.counters.lateness_max_s < 2.5
    assert poller.counters.skipped < poller.counters.answered / 4


async def test_the_known_dead_are_given_few_places() -> None:
    dead = [FakeReader(None) for _ in range(40)]
    poller = FleetPoller(
        [Machine(f"dead{n}", reader) for n, reader in enumerate(dead)],
        period_s=0.05,
        deadline_s=0.05,
        concurrency=64,
        doubtful_concurrency=4,  # of which one subnet gets half
        max_backoff_s=0.05,
        on_status=lambda *_: None,
    )
    most = 0

    def tried_again() -> bool:
        nonlocal most
        if poller.counters.failed >= 40:
            most = max(most, sum(reader.open for reader in dead))
        return poller.counters.failed >= 60

    await run_until(poller, tried_again)
    assert most == 2


async def test_dead_machines_are_tried_ever_more_seldom_and_come_back() -> None:
    reader = FakeReader(0.0, NoConnection("off"))
    results: list[Result] = []
    poller = FleetPoller(
        [Machine("m", reader)],
        period_s=0.02,
        max_backoff_s=0.16,
        on_status=lambda *result: results.append(result),
    )

    def come_back() -> bool:
        if len(results) >= 6:
            reader.error = None
        return len(results) >= 10

    await run_until(poller, come_back)
    gaps = [b - a for a, b in zip(reader.asked_s, reader.asked_s[1:], strict=False)]
    assert gaps[3] > 3 * gaps[0]
    assert max(gaps) < 0.35
    assert [quality for _, _, quality, _ in results[:6]] == [Quality.NO_CONNECTION] * 6
    assert results[6][2] is Quality.GOOD
    assert results[0][3] == "off"


async def test_concurrency_and_subnet_limits_hold() -> None:
    now = most = 0
    in_subnet: Counter[str] = Counter()
    most_in_subnet = 0

    class Counting(FakeReader):
        def __init__(self, subnet: str) -> None:
            super().__init__()
            self.subnet = subnet

        async def status(self) -> MinerStatus:
            nonlocal now, most, most_in_subnet
            now += 1
            in_subnet[self.subnet] += 1
            most = max(most, now)
            most_in_subnet = max(most_in_subnet, in_subnet[self.subnet])
            await asyncio.sleep(0.01)
            now -= 1
            in_subnet[self.subnet] -= 1
            return MinerStatus(family="fake")

    machines = [Machine(f"m{n}", Counting(f"net{n % 4}"), f"net{n % 4}") for n in range(100)]
    poller = FleetPoller(machines, period_s=0.05, concurrency=8, per_subnet=3, on_status=lambda *_: None)
    await run_until(poller, lambda: poller.counters.answered >= 300)
    assert most == 8
    assert most_in_subnet <= 3


async def test_a_slow_machine_is_never_asked_twice_at_once_and_its_periods_are_counted() -> None:
    reader = FakeReader(0.05)
    poller = FleetPoller([Machine("slow", reader)], period_s=0.01, on_status=lambda *_: None)
    await run_until(poller, lambda: poller.counters.answered >= 5)
    assert reader.most_open == 1
    assert poller.counters.skipped > 0


async def test_mistakes_in_a_driver_or_a_callback_do_not_end_the_fleet() -> None:
    results: list[Result] = []

    def note(*result: object) -> None:
        results.append(result)  # type: ignore[arg-type]  # the callback's own signature, taken whole
        raise RuntimeError("callback")

    machines = [Machine("bad", FakeReader(0.0, KeyError("driver"))), Machine("good", FakeReader())]
    poller = FleetPoller(machines, period_s=0.02, on_status=note, max_backoff_s=0.02)
    await run_until(poller, lambda: len(results) >= 8)
    said = {(machine, quality) for machine, _, quality, _ in results}
    assert said == {("bad", Quality.DECODE), ("good", Quality.GOOD)}


async def test_stopping_ends_open_polls() -> None:
    reader = FakeReader(None)
    poller = FleetPoller([Machine("hangs", reader)], period_s=0.01, on_status=lambda *_: None)
    await run_until(poller, lambda: reader.open == 1)
    assert reader.open == 0


def test_the_same_id_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        FleetPoller([Machine("m", FakeReader()), Machine("m", FakeReader())], period_s=1.0, on_status=lambda *_: None)


async def test_three_hundred_simulated_machines_with_dead_ones_among_them() -> None:
    servers: list[AsicServer] = []
    machines: list[Machine] = []
    limits = Timeouts(rpc_s=0.5, status_s=0.8)
    for number in range(150):
        stock, lux = StockAntminer(StandaloneMachine()), LuxosMiner(StandaloneMachine())
        await stock.start()
        await lux.start()
        servers += [stock, lux]
        machines += [
            Machine(f"s{number}", made(AntminerStock, stock.rpc_port, timeouts=limits), "a"),
            Machine(f"l{number}", made(LuxOs, lux.rpc_port, timeouts=limits), "b"),
        ]
    for server in servers[::10]:
        server.faults.silent = True
    for server in servers[1::10]:
        server.machine.set_powered(False)  # type: ignore[attr-defined]  # all of them stand alone
    last: dict[str, tuple[MinerStatus | None, Quality]] = {}

    def note(machine: str, status: MinerStatus | None, quality: Quality, _reason: str | None) -> None:
        last[machine] = (status, quality)

    poller = FleetPoller(machines, period_s=1.0, on_status=note)
    try:
        await run_until(poller, lambda: len(last) == 300, 15.0)
    finally:
        for server in servers:
            await server.stop()
    said = Counter(quality for _, quality in last.values())
    assert said == {Quality.GOOD: 240, Quality.TIMEOUT: 30, Quality.NO_CONNECTION: 30}
    assert all(status.hashrate_ths == pytest.approx(95.0) for status, _ in last.values() if status is not None)
