"""Sleep and wake of machines whose firmware knows just these two states; the rules of a write, in one place.

A family says how to read whether it sleeps and how to tell it; everything that must not be got wrong is here: nothing
is sent where writes are not allowed, the state is read first, a lost answer is ``UNKNOWN`` and never sent again, and
"acknowledged" means that the machine's own state was read back.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Protocol

from drivers.asic.given import Given
from drivers.asic.outcome import acknowledged, not_allowed, refused, unknown
from drivers.capabilities import WriteOutcome
from drivers.errors import BadAnswer, DriverError, Refused


@dataclass(frozen=True, slots=True)
class Prior:
    """Whether it slept before the agent touched it."""

    family: str
    asleep: bool

    def to_text(self) -> str:
        """Compact JSON, for the journal."""
        return json.dumps({"asleep": self.asleep, "family": self.family}, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_text(cls, family: str, prior: str) -> Prior:
        """Read what :meth:`to_text` wrote.

        Raises:
            ValueError: it is something else, or of another family.
        """
        value = json.loads(prior[:1000])
        asleep = value.get("asleep") if isinstance(value, dict) and value.get("family") == family else None
        if not isinstance(asleep, bool):
            raise ValueError(f"prior state of {family} with asleep true or false expected, seen {prior[:80]!r}")
        return cls(family, asleep)


class TwoStates(Protocol):
    """What a family gives: reading and telling. Both raise :class:`DriverError`, ``Refused`` where nothing happened."""

    async def read_asleep(self) -> bool | None:
        """Whether it sleeps by its own word now; ``None`` where it does not say."""
        ...

    async def tell(self, asleep: bool) -> str:
        """Send the command; what it answered, for people."""
        ...


@dataclass(slots=True)
class SleepControl:
    """Sleep and wake of one machine."""

    family: str
    name: str
    """What errors call the machine."""
    machine: TwoStates
    given: Given
    settle_s: float = 0.0
    """Pause before the first read-back, where the firmware itself waits that long."""
    always_tell: bool = False
    """A command to sleep is sent also to one that sleeps: it may do so for another cause, which ends by itself."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Shared with everything else that writes to the machine."""

    async def prior_state(self) -> str:
        """Whether it sleeps now, as compact JSON.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        asleep = await self.machine.read_asleep()
        if asleep is None:
            raise BadAnswer(f"{self.name}: it does not say whether it sleeps; it must not be changed")
        return Prior(self.family, asleep).to_text()

    async def sleep(self) -> WriteOutcome:
        """Ask it to sleep. Never raises."""
        return await self._change(True)

    async def wake(self, prior_state: str) -> WriteOutcome:
        """Wake it, unless it slept before. Never raises."""
        try:
            prior = Prior.from_text(self.family, prior_state)
        except ValueError as error:
            return refused(self.given.wall, f"{self.name}: nothing sent: {error}")
        if prior.asleep:
            return acknowledged(self.given.wall, "was asleep before; left asleep, nothing sent")
        return await self._change(False)

    async def _change(self, asleep: bool) -> WriteOutcome:
        if not self.given.writes_allowed:
            return not_allowed(self.given.wall, self.name)
        async with self.writing:
            try:
                now = await self.machine.read_asleep()
            except (Refused, BadAnswer) as error:
                return refused(self.given.wall, f"nothing sent: {error}")
            except DriverError as error:
                return unknown(self.given.wall, f"nothing sent: {error}")
            if now is asleep and not (asleep and self.always_tell):
                return acknowledged(self.given.wall, f"{_word(asleep)} already; nothing sent")
            return await self._tell(asleep)

    async def _tell(self, asleep: bool) -> WriteOutcome:
        lost: DriverError | None = None
        said = ""
        try:
            said = await self.machine.tell(asleep)
        except Refused as error:
            return refused(self.given.wall, str(error))
        except DriverError as error:
            lost = error
        seen = await self._read_back(asleep)
        if seen is asleep:
            note = f"; the answer was lost ({lost})" if lost is not None else ""
            return acknowledged(self.given.wall, f"told, and {_word(asleep)} reads back{note}")
        what = str(lost) if lost is not None else f"{self.name}: answered {said!r}"
        return unknown(self.given.wall, f"{what}; whether it sleeps reads back as {seen}")

    async def _read_back(self, asleep: bool) -> bool | None:
        seen: bool | None = None
        for number, pause_s in enumerate(self.given.timeouts.read_back_s):
            await self.given.pause(pause_s + (self.settle_s if number == 0 else 0.0))
            try:
                seen = await self.machine.read_asleep()
            except DriverError:
                continue
            if seen is asleep:
                break
        return seen


class SleepsByControl:
    """:class:`~drivers.capabilities.Sleeper` of a driver that gives reading and telling (:class:`TwoStates`)."""

    _sleep: SleepControl

    async def prior_state(self) -> str:
        """Whether it sleeps now, as compact JSON.

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


def _word(asleep: bool) -> str:
    return "asleep" if asleep else "awake"
