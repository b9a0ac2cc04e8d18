"""Driver of Braiins OS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from drivers.asic.braiins.rest import NAME
from drivers.asic.braiins.rpc import COMMANDS, rpc_status
from drivers.asic.braiins.web import BraiinsWeb
from drivers.asic.cgminer import CgminerClient
from drivers.asic.cgminer_status import HASHING_THS, Identity, is_hashing, with_sleep
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.power import LimitsByControl, LimitState, PowerControl, Setting, watts_of
from drivers.asic.reading import timed
from drivers.capabilities import MinerStatus
from drivers.errors import DriverError, Refused

WEB_RETRY_S = 60.0
"""Pause after a failed reading over HTTP, so that a broken web page does not slow every poll."""
DOUBT_SHARE = 0.2
"""Part of its age that a state may have while the hash rate speaks against it."""


class Braiins(SleepsByControl, LimitsByControl):
    """One machine with Braiins OS: :class:`MinerReader`, :class:`Sleeper` and :class:`PowerLimiter`.

    Each poll reads the JSON socket. Whether it is paused, MAC and serial number come over HTTP, seldom; where the JSON
    socket is closed, everything does.

    Without its web interface and a log-in there is neither sleep nor limit.
    """

    family = NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._rpc = CgminerClient(at.host, at.rpc(), timeout_s=given.timeouts.rpc_s)
        self._web: BraiinsWeb | None = None
        if at.web() and given.credentials is not None:
            http = HttpClient(at.web_host, at.web(), timeout_s=given.timeouts.http_s)
            self._web = BraiinsWeb(http, given.credentials, mono=given.mono, write_s=given.timeouts.write_s)
        writing = asyncio.Lock()
        self._sleep = SleepControl(NAME, self._rpc.name, self, given, writing=writing)
        self._power = PowerControl(NAME, self._rpc.name, self, given, writing)
        self._identity = Identity()
        self._asleep: bool | None = None
        self._asleep_at = float("-inf")
        self._web_not_before = float("-inf")

    # --- reading -------------------------------------------------------------------------------------------------

    async def status(self) -> MinerStatus:
        """Read the machine; paused with a closed JSON socket is a status, not an error.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read())

    async def _read(self) -> MinerStatus:
        try:
            status = rpc_status(await self._rpc.ask(COMMANDS))
        except DriverError:
            if self._web is None:
                raise
            status = await self._web.status()
            self._took(status)
            return self._complete(status)
        if self._given.mono() - self._asleep_at > self._limit_s(is_hashing(status)):
            await self._refresh()
        return self._complete(status)

    def _complete(self, status: MinerStatus) -> MinerStatus:
        asleep = self._asleep if self._given.mono() - self._asleep_at <= self._given.timeouts.mode_max_age_s else None
        known = Identity.of(status).over(self._identity)
        return with_sleep(known.into(status), asleep, "told to pause, but hashing")

    def _limit_s(self, hashing: bool) -> float:
        """How old the state last read may be before it is read again."""
        if self._asleep and hashing:
            return 0.0
        limit_s = self._given.timeouts.mode_max_age_s
        return limit_s if hashing or self._asleep else limit_s * DOUBT_SHARE

    async def _refresh(self) -> None:
        """Read the state and who the machine is, unless a write holds the web interface or it failed just now."""
        if self._web is None or self._web.busy or self._given.mono() < self._web_not_before:
            return
        try:
            self._took(await self._web.identity_and_state())
        except DriverError:
            self._web_not_before = self._given.mono() + WEB_RETRY_S

    def _took(self, status: MinerStatus) -> None:
        self._asleep, self._asleep_at = status.sleeping, self._given.mono()
        self._identity = Identity.of(status).over(self._identity)

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        asleep = await self._needed_web().asleep()
        if asleep is None:
            rate = rpc_status(await self._rpc.ask(COMMANDS[:1])).hashrate_ths
            asleep = False if rate is not None and rate > HASHING_THS else None
        self._asleep, self._asleep_at = asleep, self._given.mono()
        return asleep

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        self._asleep_at = float("-inf")  # whatever comes of it, the state last read is no longer to be believed
        return await self._needed_web().tell(asleep)

    # --- power limit ---------------------------------------------------------------------------------------------

    async def read_limit(self) -> LimitState:
        """See :class:`~drivers.asic.power.Limited`."""
        state = await self._needed_web().limit()
        if state is None:
            raise Refused(
                f"{self._rpc.name}: it is not tuned to a power target; limiting it would change how it is tuned"
            )
        return state

    async def tell_limit(self, limit_w: int) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self._needed_web().tell_limit(limit_w)

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self.tell_limit(watts_of(settings, "power_target_w", self._rpc.name))

    def _needed_web(self) -> BraiinsWeb:
        if self._web is None:
            raise Refused(f"{self._rpc.name}: this needs its web interface and a log-in; give the group credentials")
        return self._web
