"""Power limits of machines whose firmware takes one in watts; the rules of a write, in one place.

The sister of :mod:`drivers.asic.control`: nothing is sent where writes are not allowed, the limit is read first, a lost
answer is ``UNKNOWN`` and never sent again, and "acknowledged" means that the limit was read back from the machine.
Whether it keeps to it, only a meter can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from drivers.asic.given import Given
from drivers.asic.outcome import acknowledged, not_allowed, nothing_done, refused, unknown
from drivers.asic.prior import prior_text, prior_value
from drivers.asic.sending import send
from drivers.capabilities import PowerRange, WriteOutcome
from drivers.errors import DriverError, Refused

MAX_LIMIT_W = 1_000_000

Setting = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class LimitState:
    """The limit of a machine as it says itself."""

    now_w: int | None
    """``None`` where none is set."""
    settings: Mapping[str, Setting]
    """What has to be put back to have this state again."""
    lowest_w: int | None = None
    highest_w: int | None = None
    steps_w: tuple[int, ...] = ()
    """The only limits there are, where the firmware knows nothing between them."""


class Limited(Protocol):
    """What a family gives. All raise :class:`DriverError`, ``Refused`` where nothing happened."""

    async def read_limit(self) -> LimitState:
        """The limit now."""
        ...

    async def tell_limit(self, limit_w: int) -> str:
        """Send a limit; what it answered, for people."""
        ...

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        """Put back what :attr:`LimitState.settings` held; what it answered, for people."""
        ...


@dataclass(slots=True)
class PowerControl:
    """Power limit of one machine."""

    family: str
    name: str
    """What errors call the machine."""
    machine: Limited
    given: Given
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Shared with everything else that writes to the machine."""

    async def power_range(self) -> PowerRange:
        """What it accepts and what is set.

        Raises:
            DriverError: it could not be read.
        """
        state = await self.machine.read_limit()
        lowest = min(state.steps_w) if state.steps_w else state.lowest_w
        highest = max(state.steps_w) if state.steps_w else state.highest_w
        return PowerRange(lowest, highest, state.now_w)

    async def prior_limit(self) -> str:
        """What has to be put back later, as compact JSON.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        state = await self.machine.read_limit()
        return prior_text(self.family, "limit", dict(state.settings))

    async def limit_power(self, limit_w: int) -> WriteOutcome:
        """Ask it to stay at or under ``limit_w``. Never raises."""
        if not self.given.writes_allowed:
            return not_allowed(self.given.wall, self.name)
        async with self.writing:
            try:
                state = await self.machine.read_limit()
                wanted_w = settable(state, limit_w, self.name)
            except DriverError as error:
                return nothing_done(self.given.wall, error)
            if state.now_w == wanted_w:
                return acknowledged(self.given.wall, f"limit is {wanted_w} W already; nothing sent")
            return await self._tell(
                lambda: self.machine.tell_limit(wanted_w), lambda seen: seen.now_w == wanted_w, f"limit {wanted_w} W"
            )

    async def restore_limit(self, prior: str) -> WriteOutcome:
        """Put the prior limit back. Never raises."""
        try:
            wanted = settings_of(self.family, prior)
        except ValueError as error:
            return refused(self.given.wall, f"{self.name}: nothing sent: {error}")
        if not self.given.writes_allowed:
            return not_allowed(self.given.wall, self.name)
        async with self.writing:
            try:
                state = await self.machine.read_limit()
            except DriverError as error:
                return nothing_done(self.given.wall, error)
            if dict(state.settings) == wanted:
                return acknowledged(self.given.wall, "the prior limit is set already; nothing sent")
            return await self._tell(
                lambda: self.machine.tell_settings(wanted),
                lambda seen: dict(seen.settings) == wanted,
                "the prior limit",
            )

    async def _tell(
        self, tell: Callable[[], Awaitable[str]], done: Callable[[LimitState], bool], what: str
    ) -> WriteOutcome:
        try:
            sent = await send(self.given, tell, self.machine.read_limit, lambda seen: seen is not None and done(seen))
        except Refused as error:
            return refused(self.given.wall, str(error))
        seen = sent.seen
        if seen is not None and done(seen):
            return acknowledged(self.given.wall, f"{what} told and read back{sent.note}")
        reads = "cannot be read" if seen is None else f"reads back as {seen.now_w} W"
        return unknown(self.given.wall, f"{sent.answer(self.name)}; the limit {reads}")


class LimitsByControl:
    """:class:`~drivers.capabilities.PowerLimiter` of a driver that gives reading and telling (:class:`Limited`)."""

    _power: PowerControl

    async def power_range(self) -> PowerRange:
        """What it accepts and what is set, as far as it says.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        return await self._power.power_range()

    async def prior_limit(self) -> str:
        """What has to be put back later, as compact JSON.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        return await self._power.prior_limit()

    async def limit_power(self, limit_w: int) -> WriteOutcome:
        """Ask it to stay at or under ``limit_w``. Never raises."""
        return await self._power.limit_power(limit_w)

    async def restore_limit(self, prior: str) -> WriteOutcome:
        """Put the prior limit back. Never raises."""
        return await self._power.restore_limit(prior)


def settable(state: LimitState, limit_w: int, name: str) -> int:
    """The highest limit at or under ``limit_w`` that the machine knows.

    Raises:
        Refused: there is none.
    """
    lowest = min(state.steps_w) if state.steps_w else state.lowest_w
    if not 0 < limit_w <= MAX_LIMIT_W or (lowest is not None and limit_w < lowest):
        raise Refused(f"{name}: limit {limit_w} W: {lowest or 1} W or more expected; sleep it instead")
    if state.steps_w:
        return max(step for step in state.steps_w if step <= limit_w)
    return limit_w if state.highest_w is None else min(limit_w, state.highest_w)


def settings_of(family: str, prior: str) -> dict[str, Setting]:
    """What :meth:`PowerControl.prior_limit` wrote.

    Raises:
        ValueError: it is something else, or of another family.
    """
    limit: dict[str, Setting] = prior_value(family, "limit", prior, _are_settings, f"prior limit of {family}")
    return limit


def _are_settings(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(part, Setting) for part in value.values())


def watts_of(settings: Mapping[str, Setting], key: str, name: str) -> int:
    """The watts under ``key`` in settings that are put back.

    Raises:
        Refused: there are none.
    """
    watts = settings.get(key)
    if not isinstance(watts, int) or isinstance(watts, bool):
        raise Refused(f"{name}: the prior limit holds no watts; nothing sent")
    return watts
