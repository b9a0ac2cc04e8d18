"""Machines behind an output under test: laid down before it opens, put back as they were after it closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from agent.clock import Clock
from agent.curtailment.fleet import Fleet, KnownMachine, draw_w
from agent.live import LiveState
from drivers.capabilities import MinerStatus, WriteStatus
from drivers.errors import DriverError

log = structlog.get_logger()

RETRY_S = 3.0


@dataclass(slots=True)
class Machines:
    """Sleep and wake of the machines behind one output."""

    fleet: Fleet
    live: LiveState
    clock: Clock
    concurrency: int
    wake_per_s: float

    def behind(self, output: str) -> list[KnownMachine]:
        """Machines that an opening cuts off."""
        return self.fleet.machines_behind(output, self.fleet.positions())

    def running(self, machines: Sequence[KnownMachine]) -> list[KnownMachine]:
        """Those that answer and are not asleep."""
        return [m for m in machines if (s := self._status(m.id)) is not None and not s.sleeping]

    def draw_w(self, machine: KnownMachine) -> int:
        """What one machine draws now as far as is known; 0 where it does not answer."""
        status = self._status(machine.id)
        return 0 if status is None else draw_w(status, machine.group)

    def asleep(self, machine: str) -> bool:
        """True where its newest answer says that it sleeps."""
        status = self._status(machine)
        return status is not None and status.sleeping is True

    def _status(self, machine: str) -> MinerStatus | None:
        seen = self.live.miners.get(machine)
        return None if seen is None else seen.status

    async def priors(self, machines: Sequence[KnownMachine]) -> tuple[dict[str, str], dict[str, str]]:
        """What has to be put back later, per machine; and why it could not be read, per machine."""
        found: dict[str, str] = {}
        failed: dict[str, str] = {}
        slots = asyncio.Semaphore(self.concurrency)

        async def one(machine: KnownMachine) -> None:
            if machine.sleeper is None:
                failed[machine.id] = "it cannot sleep"
                return
            async with slots:
                try:
                    found[machine.id] = await machine.sleeper.prior_state()
                except DriverError as error:
                    failed[machine.id] = str(error)

        async with asyncio.TaskGroup() as group:
            for machine in machines:
                group.create_task(one(machine))
        return found, failed

    async def lay_down(self, machines: Sequence[str]) -> None:
        """Tell machines to sleep; what they really do is read from them afterwards."""
        slots = asyncio.Semaphore(self.concurrency)

        async def one(name: str) -> None:
            sleeper = self.fleet.machines[name].sleeper
            if sleeper is None:
                return
            async with slots:
                outcome = await sleeper.sleep()
            if outcome.status is not WriteStatus.ACKNOWLEDGED:
                log.warning("sleep_not_acknowledged", machine=name, status=outcome.status, detail=outcome.detail)

        async with asyncio.TaskGroup() as group:
            for name in machines:
                group.create_task(one(name))

    async def put_back(
        self, priors: Mapping[str, str], within_s: float, held_up: Callable[[], str | None]
    ) -> list[str]:
        """Give machines their prior state; returns those that could not be reached within the time.

        Args:
            held_up: why nothing may wake now; asked before each write.
        """
        deadline = self.clock.mono_ns() + int(within_s * 1e9)
        slots = asyncio.Semaphore(self.concurrency)
        lost: list[str] = []

        async def one(name: str, prior: str, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            while held_up() is not None or not await self._wake(name, prior, slots):
                if held_up() is not None or self.clock.mono_ns() >= deadline:
                    lost.append(name)
                    return
                await asyncio.sleep(RETRY_S)

        async with asyncio.TaskGroup() as group:
            for number, (name, prior) in enumerate(priors.items()):
                group.create_task(one(name, prior, number / self.wake_per_s))
        return sorted(lost)

    async def _wake(self, name: str, prior: str, slots: asyncio.Semaphore) -> bool:
        known = self.fleet.machines.get(name)
        if known is None or known.sleeper is None:
            return False
        async with slots:
            outcome = await known.sleeper.wake(prior)
            if outcome.status is WriteStatus.ACKNOWLEDGED:
                return True
            # After an unknown answer the machine itself is asked; it is not just told again.
            status = getattr(known.sleeper, "status", None)
            try:
                return status is not None and (await status()).sleeping is False
            except DriverError:
                return False
