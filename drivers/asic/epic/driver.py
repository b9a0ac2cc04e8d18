"""Driver of ePIC's PowerPlay."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from drivers.asic.cgminer_status import Identity
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.epic.answers import (
    FAMILY_NAME,
    asleep,
    chips_per_board,
    epic_status,
    identity_of,
    lost_its_pool,
    refusal,
)
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.prior import prior_text
from drivers.asic.reading import with_latency, within
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError, Refused


class Epic(SleepsByControl):
    """One machine with PowerPlay: :class:`MinerReader` and :class:`Sleeper`.

    Reads need no log-in; each command carries the password in its body, as the firmware wants it.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        # Its API over HTTP is where others have the JSON socket.
        self._http = HttpClient(at.host, at.rpc(), timeout_s=given.timeouts.http_s)
        self._identity = Identity()
        self._chips: int | None = None
        self._identity_at = float("-inf")
        # It idles also for want of a pool, and would go on by itself: a command to sleep is therefore always sent.
        self._sleep = SleepControl(FAMILY_NAME, self._http.name, self, given, always_tell=True)

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._given.mono()
        summary = await within(self._given.timeouts.status_s, self._http.name, self._summary())
        if self._given.mono() - self._identity_at > self._given.timeouts.identity_max_age_s:
            await self._refresh_identity(self._given.timeouts.status_s - (self._given.mono() - began))
        status = epic_status(summary, self._identity)
        boards = tuple(replace(board, chips=self._chips if board.ok else None) for board in status.boards)
        return with_latency(replace(status, boards=boards), self._given, began)

    async def prior_state(self) -> str:
        """Whether it was told to be off before, as compact JSON; idling for want of a pool is not that.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        summary = await within(self._given.timeouts.status_s, self._http.name, self._summary())
        off = asleep(summary)
        if off is None:
            raise BadAnswer(f"{self._http.name}: it does not say whether it sleeps; it must not be changed")
        return prior_text(FAMILY_NAME, "asleep", off and not lost_its_pool(summary))

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        return asleep(await self._summary())

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        if self._given.credentials is None:
            raise Refused(f"{self._http.name}: commands need its password and none is configured; give the group one")
        body = {"param": "Stop" if asleep else "Autostart", "password": self._given.credentials.password}
        answer = await self._http.post_json("/miner", body, timeout_s=self._given.timeouts.write_s)
        reason = refusal(answer)
        if reason is not None:
            said = reason.replace(self._given.credentials.password, "…")[:100]
            raise Refused(f"{self._http.name}: {body['param']} was refused: {said}")
        return "taken"

    async def _summary(self) -> dict[str, Any]:
        summary = await self._http.get_json("/summary")
        if not any(name in summary for name in ("Status", "Session", "HBs")):
            raise BadAnswer(f"{self._http.name}/summary: neither Status nor Session nor HBs in it; not PowerPlay")
        return summary

    async def _refresh_identity(self, left_s: float) -> None:
        """What seldom changes, in what is left of the time; the old one stays where that fails."""
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                capabilities = await self._http.get_json("/capabilities")
                network = await self._http.get_json("/network")
        except (TimeoutError, DriverError):
            return
        self._identity, self._chips = identity_of(capabilities, network), chips_per_board(capabilities)
        self._identity_at = self._given.mono()
