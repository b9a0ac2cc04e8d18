"""Sleep and wake; the rules of a write, in one place.

A family says how to read its state and how to tell it; everything that must not be got wrong is here: nothing is sent
where writes are not allowed, the state is read first, a lost answer is ``UNKNOWN`` and never sent again, and
"acknowledged" means that the machine's own state was read back. Most firmwares know just asleep and awake
(:class:`SleepControl`); some have work modes in a configuration (:mod:`drivers.asic.work_mode`).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from drivers.asic.given import Given
from drivers.asic.outcome import acknowledged, not_allowed, nothing_done, refused, unknown
from drivers.asic.prior import prior_text, prior_value
from drivers.asic.sending import send
from drivers.capabilities import Sleeper, WriteOutcome
from drivers.errors import BadAnswer, DriverError, Refused

State = TypeVar("State")


def asleep_from(family: str, prior: str) -> bool:
    """Whether a machine slept before, from its prior state.

    Raises:
        ValueError: it is something else, or of another family.
    """
    expected = f"prior state of {family} with asleep true or false"
    return bool(prior_value(family, "asleep", prior, lambda value: isinstance(value, bool), expected))


class TwoStates(Protocol):
    """What a family gives: reading and telling. Both raise :class:`DriverError`, ``Refused`` where nothing happened."""

    async def read_asleep(self) -> bool | None:
        """Whether it sleeps by its own word now; ``None`` where it does not say."""
        ...

    async def tell(self, asleep: bool) -> str:
        """Send the command; what it answered, for people."""
        ...


class StateControl(ABC, Generic[State]):
    """Sleep and wake of a machine that is changed from state to state, one of which is sleep."""

    name: str
    """What errors call the machine."""
    given: Given
    writing: asyncio.Lock
    """Shared with everything else that writes to the machine."""
    verb = "sent"

    async def sleep(self) -> WriteOutcome:
        """Ask it to sleep. Never raises."""
        return await self._allowed(self._sleeping())

    async def wake(self, prior_state: str) -> WriteOutcome:
        """Put the state back that it had before, unless it slept. Never raises."""
        try:
            prior = self._prior(prior_state)
        except ValueError as error:
            return refused(self.given.wall, f"{self.name}: nothing {self.verb}: {error}")
        if prior == self._sleeping():
            return acknowledged(self.given.wall, f"was asleep before; left asleep, nothing {self.verb}")
        return await self._allowed(prior)

    async def _allowed(self, state: State) -> WriteOutcome:
        if not self.given.writes_allowed:
            return not_allowed(self.given.wall, self.name)
        async with self.writing:
            try:
                return await self._change(state)
            except Refused as error:
                return refused(self.given.wall, str(error))

    @abstractmethod
    def _sleeping(self) -> State:
        """The state that is sleep."""

    @abstractmethod
    def _prior(self, prior_state: str) -> State:
        """The state in what ``prior_state`` gave; ``ValueError`` where it is something else."""

    @abstractmethod
    async def _change(self, state: State) -> WriteOutcome:
        """Read, write and read back; raises ``Refused`` where the machine refused the write."""


@dataclass(slots=True)
class SleepControl(StateControl[bool]):
    """Sleep and wake of one machine whose firmware knows just these two states."""

    family: str
    name: str
    machine: TwoStates
    given: Given
    settle_s: float = 0.0
    """Pause before the first read-back, where the firmware itself waits that long."""
    always_tell: bool = False
    """A command to sleep is sent also to one that sleeps: it may do so for another cause, which ends by itself."""
    session: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """What has to be open around a command and its reading back; where opening it fails, nothing was sent."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def prior_state(self) -> str:
        """Whether it sleeps now, as compact JSON.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        asleep = await self.machine.read_asleep()
        if asleep is None:
            raise BadAnswer(f"{self.name}: it does not say whether it sleeps; it must not be changed")
        return prior_text(self.family, "asleep", asleep)

    def _sleeping(self) -> bool:
        return True

    def _prior(self, prior_state: str) -> bool:
        return asleep_from(self.family, prior_state)

    async def _change(self, state: bool) -> WriteOutcome:
        word = "asleep" if state else "awake"
        async with AsyncExitStack() as opened:
            try:
                now = await self.machine.read_asleep()
                if now is state and not (state and self.always_tell):
                    return acknowledged(self.given.wall, f"{word} already; nothing sent")
                await opened.enter_async_context(self.session())
            except DriverError as error:
                return nothing_done(self.given.wall, error)
            sent = await send(
                self.given,
                lambda: self.machine.tell(state),
                self.machine.read_asleep,
                lambda seen: seen is state,
                settle_s=self.settle_s,
            )
        if sent.seen is state:
            return acknowledged(self.given.wall, f"told, and {word} reads back{sent.note}")
        return unknown(self.given.wall, f"{sent.answer(self.name)}; whether it sleeps reads back as {sent.seen}")


class SleepsByControl:
    """:class:`~drivers.capabilities.Sleeper` of a driver that has a :class:`StateControl`."""

    _sleep: Sleeper

    async def prior_state(self) -> str:
        """What has to be put back on waking, as compact JSON.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        return await self._sleep.prior_state()

    async def sleep(self) -> WriteOutcome:
        """Put it to sleep. Never raises; "acknowledged" means that it says itself that it sleeps."""
        return await self._sleep.sleep()

    async def wake(self, prior_state: str) -> WriteOutcome:
        """Wake it, unless it slept before. Never raises."""
        return await self._sleep.wake(prior_state)
