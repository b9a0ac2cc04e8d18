"""A machine whose firmware is found out, kept, and found out again when its answers stop fitting.

Firmwares are replaced in the field: a stock Antminer comes back from repair with LuxOS, and its old driver then only
ever reads misfits. This wrapper notices, asks once more who is there, and goes on with the right driver; never while a
write is under way, and never so often that asking would be a load of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic, time

import structlog

from drivers.asic.outcome import Wall, refused
from drivers.capabilities import MinerReader, MinerStatus, PowerLimiter, PowerRange, Sleeper, WriteOutcome
from drivers.errors import BadAnswer, DriverError, Refused

Identify = Callable[[], Awaitable[str]]
"""Asks the machine which family it is; raises ``DriverError`` where that cannot be said."""
Make = Callable[[str], MinerReader]
"""Makes the driver of a family for this machine."""

UNKNOWN_FAMILY = "unknown"
MISFITS = 3
"""Consecutive answers that do not fit before the machine is asked who it is; one alone is a hiccup."""
RETRY_S = 300.0
"""Shortest time between two identifications of one machine."""


class IdentifiedMiner:
    """One machine read by the driver of whatever firmware it has: reader, sleeper and limiter as far as that one is.

    Args:
        name: what errors call the machine.
        identify: asks it who it is.
        make: makes the driver of a family.
        family: the family to begin with; ``None`` asks at the first use.
        misfits: consecutive misfits before asking again.
        retry_s: shortest time between two identifications.
        wall: UTC clock in seconds.
        mono: monotonic clock in seconds.
    """

    def __init__(
        self,
        name: str,
        identify: Identify,
        make: Make,
        *,
        family: str | None = None,
        misfits: int = MISFITS,
        retry_s: float = RETRY_S,
        wall: Wall = time,
        mono: Callable[[], float] = monotonic,
    ) -> None:
        self._name = name
        self._identify = identify
        self._make = make
        self._driver: MinerReader | None = None if family is None else make(family)
        self.family = UNKNOWN_FAMILY if self._driver is None else self._driver.family
        """The family found; ``unknown`` before it was."""
        self._limit = misfits
        self._retry_s = retry_s
        self._wall = wall
        self._mono = mono
        self._misfits = 0
        self._asked_at = float("-inf")
        self._asking = False
        self._writes = 0
        self._log = structlog.get_logger(__name__)

    @property
    def driver(self) -> MinerReader | None:
        """The driver in use."""
        return self._driver

    async def status(self) -> MinerStatus:
        """Read the machine by its driver, found out first where there is none.

        Raises:
            DriverError: it did not answer, not in a way that can be understood, or is of no known family.
        """
        driver = await self._needed()
        try:
            status = await driver.status()
        except (BadAnswer, Refused):
            # It is there and speaks, but not as this family does. Silence says nothing about who is silent.
            self._misfits += 1
            if self._misfits < self._limit or not await self._changed():
                raise
            return await (await self._needed()).status()
        except DriverError:
            self._misfits = 0
            raise
        self._misfits = 0
        return status

    async def prior_state(self) -> str:
        """See :class:`~drivers.capabilities.Sleeper`.

        Raises:
            DriverError: it could not be read, or its firmware cannot sleep; then it must not be changed.
        """
        driver = await self._needed()
        if not isinstance(driver, Sleeper):
            raise Refused(f"{self._name}: {driver.family} cannot sleep; use a switch")
        return await driver.prior_state()

    async def sleep(self) -> WriteOutcome:
        """Ask it to sleep. Never raises."""
        return await self._sleeping(lambda sleeper: sleeper.sleep())

    async def wake(self, prior_state: str) -> WriteOutcome:
        """Put the prior state back. Never raises; one taken by another firmware is refused by this one's driver."""
        return await self._sleeping(lambda sleeper: sleeper.wake(prior_state))

    async def power_range(self) -> PowerRange:
        """See :class:`~drivers.capabilities.PowerLimiter`.

        Raises:
            DriverError: it could not be read, or its firmware takes no limit.
        """
        return await (await self._limiter()).power_range()

    async def prior_limit(self) -> str:
        """See :class:`~drivers.capabilities.PowerLimiter`.

        Raises:
            DriverError: it could not be read, or its firmware takes no limit.
        """
        return await (await self._limiter()).prior_limit()

    async def limit_power(self, limit_w: int) -> WriteOutcome:
        """Ask it to stay at or under a limit. Never raises."""
        return await self._limiting(lambda limiter: limiter.limit_power(limit_w))

    async def restore_limit(self, prior: str) -> WriteOutcome:
        """Put the prior limit back. Never raises."""
        return await self._limiting(lambda limiter: limiter.restore_limit(prior))

    # --- who it is -----------------------------------------------------------------------------------------------

    async def _needed(self) -> MinerReader:
        if self._driver is None:
            if self._asking or self._mono() - self._asked_at < self._retry_s:
                raise BadAnswer(f"{self._name}: of no known family yet; it is asked again every {self._retry_s:g} s")
            await self._ask()
        if self._driver is None:
            raise BadAnswer(f"{self._name}: of no known family")
        return self._driver

    async def _changed(self) -> bool:
        """Ask again who it is; True where it is now read by another driver."""
        if self._asking or self._writes or self._mono() - self._asked_at < self._retry_s:
            return False
        before = self.family
        try:
            await self._ask()
        except DriverError:
            return False
        return self.family != before

    async def _ask(self) -> None:
        self._asking = True
        try:
            found = await self._identify()
        except DriverError:
            if self._driver is not None:
                self._asked_at = self._mono()
            # A machine never yet identified may just be off: it is asked again with the next poll.
            raise
        finally:
            self._asking = False
        self._asked_at = self._mono()
        # A write may have begun meanwhile; what it was begun with, it has to end with.
        if self._writes or found == self.family:
            return
        if self._driver is not None:
            self._log.warning("miner_family_changed", machine=self._name, before=self.family, found=found)
        self._driver = self._make(found)
        self.family = self._driver.family
        self._misfits = 0

    # --- writes --------------------------------------------------------------------------------------------------

    async def _sleeping(self, ask: Callable[[Sleeper], Awaitable[WriteOutcome]]) -> WriteOutcome:
        try:
            driver = await self._needed()
        except DriverError as error:
            return refused(self._wall, f"nothing sent: {error}")
        if not isinstance(driver, Sleeper):
            return refused(self._wall, f"{self._name}: nothing sent: {driver.family} cannot sleep; use a switch")
        return await self._held(ask(driver))

    async def _limiting(self, ask: Callable[[PowerLimiter], Awaitable[WriteOutcome]]) -> WriteOutcome:
        try:
            limiter = await self._limiter()
        except DriverError as error:
            return refused(self._wall, f"nothing sent: {error}")
        return await self._held(ask(limiter))

    async def _limiter(self) -> PowerLimiter:
        driver = await self._needed()
        if not isinstance(driver, PowerLimiter):
            raise Refused(f"{self._name}: {driver.family} takes no power limit")
        return driver

    async def _held(self, write: Awaitable[WriteOutcome]) -> WriteOutcome:
        """The write, with the driver held fast meanwhile."""
        self._writes += 1
        try:
            return await write
        finally:
            self._writes -= 1
