"""Telling thousands of machines one thing at once, and finding out afterwards which of them did it.

The caller decides what a command is (its prior state read, its intent on disk, then the driver's own ``sleep`` or
``wake``) and what follows from the results; here is only the crowd: how many at once, how many per subnet, how many
starts per second, one result per machine whatever happens, and none told twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, time

import structlog

from drivers.asic.descriptors import descriptors_for
from drivers.asic.ladder import Climb, Verdict, seen, verdict
from drivers.asic.lanes import Lane
from drivers.asic.outcome import unknown
from drivers.capabilities import MinerStatus, WriteOutcome, WriteStatus
from drivers.errors import DriverError

Look = Callable[[str], Awaitable[MinerStatus]]
"""Reads the status of the machine with that id; may raise :class:`DriverError`."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command to one machine. ``write`` is called once at most; a :class:`DriverError` of it is ``UNKNOWN``."""

    id: str
    write: Callable[[], Awaitable[WriteOutcome]]
    subnet: str = ""
    """What shares a bottleneck with it: a switch, a VLAN, a group."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one command."""

    id: str
    outcome: WriteOutcome
    started_s: float
    """Since the fan-out began."""
    answered_s: float
    """The same."""


@dataclass(frozen=True, slots=True)
class FanOutReport:
    """What became of all commands."""

    written: tuple[Written, ...]
    """In the order in which the answers came."""
    left_out: tuple[str, ...]
    """Machines that were never told, because the fan-out was ended before their turn."""
    started_s: float
    """When the last command was begun, since the beginning."""
    took_s: float

    def count(self, status: WriteStatus) -> int:
        """How many machines answered so."""
        return sum(one.outcome.status is status for one in self.written)


OnWritten = Callable[[Written], None]

BURST_S = 0.05
"""Starts that are paced may come together by so much."""


class FanOut:
    """Carries out commands side by side.

    Args:
        concurrency: commands that are being worked on at once.
        per_subnet: the same, per subnet.
        rate_per_s: starts per second at most, for waking in stages; ``None``: as fast as they go.
        patience_s: how long a command counts against ``concurrency``. Stock Antminers answer a write after 20 s and
            cost nothing meanwhile but a connection; ten thousand of them must not wait for each other. Nobody loses
            his place while this computer itself is behind.
        waiting_limit: commands that may be open beyond their patience. Fewer where the process may not open so many
            connections, with a warning.
        deadline_s: hard limit of one command; then its result is ``UNKNOWN``.
        mono: monotonic clock in seconds.
        wall: UTC clock in seconds.
    """

    def __init__(
        self,
        *,
        concurrency: int = 512,
        per_subnet: int = 128,
        rate_per_s: float | None = None,
        patience_s: float = 0.3,
        waiting_limit: int = 10_000,
        deadline_s: float = 90.0,
        mono: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        if rate_per_s is not None and rate_per_s <= 0:
            raise ValueError(f"rate_per_s: saw {rate_per_s:g}, expected a number above 0, or None for no limit")
        self._concurrency = concurrency
        self._per_subnet = per_subnet
        self._rate_per_s = rate_per_s
        self._patience_s = patience_s
        self._waiting_limit = waiting_limit
        self._deadline_s = deadline_s
        self._mono = mono
        self._wall = wall
        self._log = structlog.get_logger(__name__)

    async def run(
        self,
        commands: Sequence[Command],
        *,
        on_written: OnWritten | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> FanOutReport:
        """Give every command once and wait for all answers.

        Args:
            commands: ids are unique; each subnet is served in its turn.
            on_written: takes each result as it comes; called on the event loop, has to be quick.
            stop: asked before each start; once it says True, no further command is begun and the open ones are
                awaited.

        Raises:
            ValueError: an id is there twice; nothing was begun.
        """
        if len({command.id for command in commands}) != len(commands):
            raise ValueError("two commands have the same machine; each must be told once")
        crowd = _Crowd(self, commands, on_written, stop)
        return await crowd.run()

    async def confirm(
        self,
        climbs: Mapping[str, Climb],
        look: Look,
        *,
        now_ms: Callable[[], int],
        subnets: Mapping[str, str] | None = None,
        step_s: float = 2.0,
        on_seen: Callable[[str, Climb], None] | None = None,
    ) -> dict[str, Climb]:
        """Look at machines until each has shown what it was told, or its time is over.

        For callers without a poller; those that have one feed :func:`drivers.asic.ladder.seen` from it.

        Args:
            climbs: commands given, by machine; those that were refused are not looked at.
            look: reads one machine.
            now_ms: the clock of the climbs.
            subnets: of the machines.
            step_s: pause between rounds.
            on_seen: told of each change.

        Returns:
            All climbs; :func:`drivers.asic.ladder.verdict` tells what to think of each.
        """
        known = dict(climbs)

        async def one(machine: str) -> WriteOutcome:
            at_ms = now_ms()
            try:
                status = await look(machine)
            except DriverError as error:
                return unknown(self._wall, str(error))
            after = seen(known[machine], status, at_ms)
            if after != known[machine]:
                known[machine] = after
                if on_seen is not None:
                    on_seen(machine, after)
            return WriteOutcome(WriteStatus.ACKNOWLEDGED, round(self._wall() * 1000))

        final: set[str] = set()
        """Looked at once more after their time was over: what they show then is the verdict."""
        while True:
            at_ms = now_ms()
            open_now = [m for m, climb in known.items() if m not in final and _undecided(climb, at_ms)]
            if not open_now:
                return known
            final.update(machine for machine in open_now if at_ms >= known[machine].due_ms)
            where = subnets or {}
            await self.run([Command(m, lambda m=m: one(m), where.get(m, "")) for m in open_now])  # type: ignore[misc]  # the default binds the loop variable
            await asyncio.sleep(step_s)


def _undecided(climb: Climb, now_ms: int) -> bool:
    return verdict(climb, now_ms) in (Verdict.PENDING, Verdict.UNKNOWN)


class _Waiting:
    """A command that has not been begun, or that is open."""

    __slots__ = ("command", "lane", "patience", "started_s")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.patience: asyncio.TimerHandle | None = None
        self.lane: Lane[_Waiting] | None = None
        self.started_s = 0.0

    @property
    def subnet(self) -> str:
        """See :class:`drivers.asic.lanes.HasSubnet`."""
        return self.command.subnet


class _Crowd:
    """One run."""

    def __init__(
        self, plan: FanOut, commands: Sequence[Command], on_written: OnWritten | None, stop: Callable[[], bool]
    ) -> None:
        self._plan = plan
        self._on_written = on_written
        self._stop = stop
        possible = descriptors_for(min(len(commands), plan._concurrency + plan._waiting_limit))
        self._lane: Lane[_Waiting] = Lane(max(1, min(plan._concurrency, possible)), plan._per_subnet)
        self._patient_limit = max(0, possible - self._lane.limit)
        self._patient = 0
        for command in commands:
            self._lane.put(_Waiting(command))
        self._left = len(commands)
        self._written: list[Written] = []
        self._left_out: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_s = 0.0
        """When the next one may begin, where starts are paced."""
        self._began_s = plan._mono()
        self._last_start_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._done = asyncio.Event()

    async def run(self) -> FanOutReport:
        """See :meth:`FanOut.run`."""
        try:
            self._pump()
            await self._done.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return FanOutReport(tuple(self._written), tuple(self._left_out), self._last_start_s, self._since())

    def _since(self) -> float:
        return self._plan._mono() - self._began_s

    def _pump(self) -> None:
        """Begin what may be begun now."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rate = self._plan._rate_per_s
        while True:
            if self._stop():
                self._left_out += [waiting.command.id for waiting in self._lane.drain()]
                self._left = len(self._tasks)
                break
            if rate is not None and (wait_s := self._next_s - self._since()) > 0:
                self._timer = loop.call_later(wait_s, self._pump)
                break
            waiting = self._lane.take()
            if waiting is None:
                break
            if rate is not None:
                # What was missed while nothing could begin is not caught up with in one burst.
                self._next_s = max(self._next_s, self._since() - BURST_S) + 1 / rate
            waiting.lane = self._lane
            waiting.started_s = self._last_start_s = self._since()
            task = loop.create_task(self._carry_out(waiting))
            self._tasks.add(task)
        if not self._left:
            self._done.set()

    async def _carry_out(self, waiting: _Waiting) -> None:
        plan, command = self._plan, waiting.command
        self._be_patient(waiting)
        try:
            async with asyncio.timeout(plan._deadline_s):
                outcome = await command.write()
        except TimeoutError:
            outcome = unknown(plan._wall, f"{command.id}: nothing known after {plan._deadline_s:g} s")
        except DriverError as error:
            outcome = unknown(plan._wall, str(error))
        except Exception as error:  # one machine's driver must not take the others with it
            outcome = unknown(plan._wall, f"{command.id}: {type(error).__name__}: {error}")
            plan._log.exception("fan_out_command_failed", machine=command.id)
        finally:
            if waiting.patience is not None:
                waiting.patience.cancel()
            if waiting.lane is None:
                self._patient -= 1
            else:
                waiting.lane.give_back(command.subnet)
        self._finish(Written(command.id, outcome, waiting.started_s, self._since()))

    def _be_patient(self, waiting: _Waiting) -> None:
        waiting.patience = asyncio.get_running_loop().call_later(self._plan._patience_s, self._lose_patience, waiting)

    def _lose_patience(self, waiting: _Waiting) -> None:
        """Let the next one begin; this one goes on waiting for its answer."""
        if waiting.patience is not None:
            late_s = asyncio.get_running_loop().time() - waiting.patience.when()
            if late_s > self._plan._patience_s / 2:
                # This computer is behind, not the machine: beginning more would only make all of them late.
                self._be_patient(waiting)
                return
        if waiting.lane is not None and self._patient < self._patient_limit:
            waiting.lane.give_back(waiting.subnet)
            waiting.lane = None
            self._patient += 1
            self._pump()

    def _finish(self, written: Written) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.discard(task)
        self._left -= 1
        self._written.append(written)
        if self._on_written is not None:
            try:
                self._on_written(written)
            except Exception:  # nor may the taker of results
                self._plan._log.exception("fan_out_callback_failed", machine=written.id)
        self._pump()
