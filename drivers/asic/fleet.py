"""Polling many machines: each at its own fixed phase of the period, the dead never in the way of the living.

One owner runs one :class:`FleetPoller`. Machines that answered last time and machines that did not have lanes of their
own with concurrency of their own, so that however many are dead, a living one waits only for living ones. A machine
that has just died, as hundreds do when a feeder opens, gives its place back after ``patience_s``. Dead ones are tried
ever more seldom, up to ``max_backoff_s``, unless :meth:`FleetPoller.expect` says that they are about to come back. No
machine is ever asked twice at the same time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from zlib import crc32

import structlog

from drivers.asic.descriptors import descriptors_for
from drivers.asic.lanes import Lane
from drivers.capabilities import MinerReader, MinerStatus
from drivers.errors import DriverError
from wire.quality import Quality

OnStatus = Callable[[str, MinerStatus | None, Quality, str | None], None]
"""Called after each poll with machine id, status or ``None``, quality, and the reason where there is no status."""

PATIENT_SHARE = 3
"""So many times the concurrency may wait beyond their patience."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of the fleet. ``subnet`` is whatever shares a bottleneck: a switch, a VLAN, a group."""

    id: str
    reader: MinerReader
    subnet: str = ""


@dataclass(slots=True)
class FleetCounters:
    """Counts since the start; read them at any time."""

    started: int = 0
    answered: int = 0
    failed: int = 0
    late: int = 0
    """Polls of living machines begun more than a tenth of the period after their time."""
    skipped: int = 0
    """Whole periods of living machines passed over because a poll was still waiting or running."""
    lateness_max_s: float = 0.0


class _Slot:
    """One machine's place in the schedule."""

    __slots__ = ("busy", "due_s", "failures", "machine", "number")

    def __init__(self, machine: Machine, due_s: float) -> None:
        self.machine = machine
        self.due_s = due_s
        self.failures = 0
        self.number = 0
        """Of its valid entry in the heap; others of it are void."""
        self.busy = False
        """Waiting its turn in a lane, or being polled."""

    @property
    def subnet(self) -> str:
        """See :class:`drivers.asic.lanes.HasSubnet`."""
        return self.machine.subnet


class _Place:
    """Where an open poll is counted at the moment."""

    __slots__ = ("lane", "subnet")

    def __init__(self, lane: Lane[_Slot], subnet: str) -> None:
        self.lane = lane
        self.subnet = subnet


class FleetPoller:
    """Polls all machines once per period until cancelled.

    Args:
        machines: the fleet; ids are unique.
        period_s: time between polls of one machine.
        concurrency: polls of living machines open at once; by default as many as begin within ``patience_s``, for none
            keeps its place longer: 500 for 30,000 machines a minute, at least 256 and at most 2048. More would only
            make a busy network busier. Fewer where the process may not open so many connections, with a warning.
        per_subnet: the same, per subnet.
        deadline_s: hard limit of one poll.
        on_status: takes the results; called on the event loop, has to be quick.
        doubtful_concurrency: polls of machines that did not answer last time, open at once; an eighth by default.
        max_backoff_s: longest pause between attempts at a dead machine.
        patience_s: how long a poll keeps a place among the living; healthy machines answer in 0.02 to 2 s. Up to three
            times ``concurrency`` polls may wait beyond it.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        *,
        period_s: float,
        on_status: OnStatus,
        concurrency: int | None = None,
        per_subnet: int = 64,
        deadline_s: float = 8.0,
        doubtful_concurrency: int | None = None,
        max_backoff_s: float = 300.0,
        patience_s: float = 1.0,
    ) -> None:
        if len({machine.id for machine in machines}) != len(machines):
            raise ValueError("two machines of the fleet have the same id; every id must be there once")
        if concurrency is None:
            concurrency = max(256, min(2048, ceil(len(machines) / period_s * patience_s)))
        self.counters = FleetCounters()
        self._machines = machines
        self._period_s = period_s
        self._deadline_s = deadline_s
        self._on_status = on_status
        self._max_backoff_s = max(max_backoff_s, period_s)
        self._patience_s = patience_s
        self._patient_limit = PATIENT_SHARE * concurrency
        self._living: Lane[_Slot] = Lane(concurrency, per_subnet)
        doubtful = doubtful_concurrency if doubtful_concurrency is not None else max(2, concurrency // 8)
        self._doubtful: Lane[_Slot] = Lane(doubtful, max(1, min(per_subnet, doubtful // 2)))
        self._slots: dict[str, _Slot] = {}
        self._due: list[tuple[float, int, _Slot]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger(__name__)

    async def run(self) -> None:
        """Poll until cancelled; cancelling ends every open poll before it returns."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        self._fit()
        for machine in self._machines:
            # The phase follows from the id alone, so that restarts do not shift it and neighbours do not share it.
            self._slots[machine.id] = slot = _Slot(machine, start_s + self._phase_s(machine.id))
            self._schedule(slot)
        self._pump()
        try:
            await loop.create_future()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._due.clear()
            self._slots.clear()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def expect(self, ids: Iterable[str]) -> None:
        """Machines that are about to answer again, because their feeder was closed or they were woken.

        Those that are being tried seldom are tried within the next period, each at its phase.
        """
        if not self._slots:
            return  # not running: everything is tried at once at the start
        now_s = asyncio.get_running_loop().time()
        for machine_id in ids:
            slot = self._slots.get(machine_id)
            if slot is None or slot.busy or slot.due_s <= now_s + self._period_s:
                continue
            slot.failures = 1  # still doubtful, and no longer backed off
            slot.due_s -= self._period_s * ((slot.due_s - now_s) // self._period_s)
            self._schedule(slot)
        self._pump()

    def _fit(self) -> None:
        """Keep within the file descriptors there are, in the proportions that were asked for."""
        most = min(len(self._machines), self._living.limit + self._patient_limit + self._doubtful.limit)
        possible = descriptors_for(most)
        if possible < most:
            share = possible / (self._living.limit + self._patient_limit + self._doubtful.limit)
            self._living.limit = max(1, int(self._living.limit * share))
            self._doubtful.limit = max(1, int(self._doubtful.limit * share))
            self._patient_limit = max(0, possible - self._living.limit - self._doubtful.limit)

    def _phase_s(self, machine_id: str) -> float:
        return crc32(machine_id.encode()) / 2**32 * self._period_s

    def _schedule(self, slot: _Slot) -> None:
        self._number += 1
        slot.number = self._number
        heapq.heappush(self._due, (slot.due_s, self._number, slot))

    def _pump(self) -> None:
        """Move what is due into its lane, start what may start, and set the timer for the next."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._due and self._due[0][0] <= now_s:
            _, number, slot = heapq.heappop(self._due)
            if number != slot.number or slot.busy:
                continue
            slot.busy = True
            (self._doubtful if slot.failures else self._living).put(slot)
        self._start(self._living, loop)
        self._start(self._doubtful, loop)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer = loop.call_at(self._due[0][0], self._pump)

    def _start(self, lane: Lane[_Slot], loop: asyncio.AbstractEventLoop) -> None:
        while (slot := lane.take()) is not None:
            if lane is self._living:
                lateness_s = max(0.0, loop.time() - slot.due_s)
                self.counters.lateness_max_s = max(self.counters.lateness_max_s, lateness_s)
                self.counters.late += lateness_s > self._period_s / 10
            self.counters.started += 1
            task = loop.create_task(self._poll(slot, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _poll(self, slot: _Slot, lane: Lane[_Slot]) -> None:
        machine = slot.machine
        status: MinerStatus | None = None
        quality, reason = Quality.GOOD, None
        place = _Place(lane, machine.subnet)
        patience = asyncio.get_running_loop().call_later(self._patience_s, self._lose_patience, place)
        try:
            async with asyncio.timeout(self._deadline_s):
                status = await machine.reader.status()
        except DriverError as error:
            quality, reason = error.quality, str(error)
        except TimeoutError:
            quality, reason = Quality.TIMEOUT, f"{machine.id}: no status within {self._deadline_s:g} s"
        except Exception as error:  # a driver's mistake about one machine must not end the fleet
            quality, reason = Quality.DECODE, f"{machine.id}: {type(error).__name__}: {error}"
            self._log.exception("miner_driver_failed", machine=machine.id)
        finally:
            patience.cancel()
            place.lane.give_back(machine.subnet)
        self._after(slot, status is not None)
        self._tell(machine.id, status, quality, reason)
        self._pump_after(place.lane)

    def _lose_patience(self, place: _Place) -> None:
        """Let the next living machine in; this poll goes on until its deadline, counted among the doubtful."""
        if place.lane is self._living and self._doubtful.running < self._patient_limit:
            self._living.give_back(place.subnet)
            self._doubtful.adopt(place.subnet)
            place.lane = self._doubtful
            self._start(self._living, asyncio.get_running_loop())

    def _pump_after(self, lane: Lane[_Slot]) -> None:
        loop = asyncio.get_running_loop()
        self._start(lane, loop)
        if self._due and (self._timer is None or self._timer.when() > self._due[0][0]):
            self._pump()

    def _after(self, slot: _Slot, answered: bool) -> None:
        """Set the next time: on the machine's own phase, later where it keeps being dead."""
        slot.busy = False
        if answered:
            self.counters.answered += 1
            slot.failures = 0
        else:
            self.counters.failed += 1
            slot.failures += 1
        now_s = asyncio.get_running_loop().time()
        # The first failure is tried again after one period, so that one lost packet costs one value.
        wait_s = min(self._period_s * 2 ** min(max(slot.failures - 1, 0), 16), self._max_backoff_s)
        periods = max(1, round(wait_s / self._period_s))
        missed = max(0, int((now_s - slot.due_s) // self._period_s))
        if answered:
            self.counters.skipped += missed
        slot.due_s += self._period_s * max(periods, missed + 1)
        self._schedule(slot)

    def _tell(self, machine_id: str, status: MinerStatus | None, quality: Quality, reason: str | None) -> None:
        try:
            self._on_status(machine_id, status, quality, reason)
        except Exception:  # nor may its taker's
            self._log.exception("miner_status_callback_failed", machine=machine_id)
