"""Driver of Whatsminers with API 1 or 2."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from drivers.asic.cgminer import CgminerClient, error_of, refuse_errors
from drivers.asic.cgminer_status import HASHING_THS, Answers, Identity, is_hashing, with_sleep
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.power import LimitsByControl, LimitState, PowerControl, Setting, watts_of
from drivers.asic.reading import timed
from drivers.asic.whatsminer_v2.answers import (
    NAME,
    TOLD,
    errors_from,
    identity_from,
    is_off,
    limit_from,
    whatsminer_status,
)
from drivers.asic.whatsminer_v2.api import WriteApi
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError, Refused

COMMANDS = ("summary", "devs", "pools")
SLOW_COMMANDS = ("get_version", "get_miner_info", "devdetails")
ERRORS_MAX_AGE_S = 60.0
WRITE_S = 10.0
"""A write is answered before it is carried out; meanwhile the machine cannot be read, so no longer than this."""


class WhatsminerV2(SleepsByControl, LimitsByControl):
    """One Whatsminer with API 1 or 2: :class:`MinerReader`, :class:`Sleeper` and :class:`PowerLimiter`.

    Only writes need its admin password.
    """

    family = NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._rpc = CgminerClient(at.host, at.rpc(), timeout_s=given.timeouts.rpc_s)
        self._write = WriteApi(self._rpc, given.credentials, given.mono)
        writing = asyncio.Lock()
        self._sleep = SleepControl(NAME, self._rpc.name, self, given, writing=writing)
        self._power = PowerControl(NAME, self._rpc.name, self, given, writing)
        self._identity = Identity()
        self._identity_at = float("-inf")
        self._errors: tuple[str, ...] = ()
        self._errors_at = float("-inf")
        self._uptime_s: int | None = None

    # --- reading -------------------------------------------------------------------------------------------------

    async def status(self) -> MinerStatus:
        """Read the machine; with its boards off it still answers, and is asleep.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read())

    async def _read(self) -> MinerStatus:
        try:
            answers: Answers = await self._rpc.ask(COMMANDS)
        except Refused:
            # Some versions refuse to sum up while off; their state they always tell.
            answers = {"status": await self._state()}
        status = whatsminer_status(answers)
        if "status" not in answers and not is_hashing(status):
            status = with_sleep(status, is_off(await self._optional("status")), TOLD)
        if status.uptime_s is not None and self._uptime_s is not None and status.uptime_s < self._uptime_s:
            self._identity_at = float("-inf")
        self._uptime_s = status.uptime_s
        await self._refresh()
        if self._given.writes_allowed:
            await self._write.keep_ready()
            if self._write.not_ready is not None:
                status = replace(status, errors=(*status.errors, self._write.not_ready))
        status = self._identity.over(Identity.of(status)).into(status)
        return replace(status, errors=tuple(dict.fromkeys((*status.errors, *self._errors))))

    async def _refresh(self) -> None:
        """Read what seldom changes, when it has grown old."""
        if self._given.mono() - self._identity_at > self._given.timeouts.identity_max_age_s:
            found = {name: answer for name in SLOW_COMMANDS if (answer := await self._optional(name)) is not None}
            self._identity = identity_from(found).over(self._identity)
            self._identity_at = self._given.mono()
        if self._given.mono() - self._errors_at > ERRORS_MAX_AGE_S:
            answer = await self._optional("get_error_code")
            self._errors = errors_from({"get_error_code": answer}) if answer is not None else ()
            self._errors_at = self._given.mono()

    async def _optional(self, command: str) -> dict[str, Any] | None:
        try:
            answer = await self._rpc.command(command)
        except DriverError:
            return None
        return answer if error_of(answer) is None else None

    async def _state(self) -> dict[str, Any]:
        answer = await self._rpc.command("status")
        refuse_errors(answer, self._rpc.name, "status")
        return answer

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        off = is_off(await self._state())
        if off is None:
            rate = whatsminer_status({"summary": await self._rpc.command("summary")}).hashrate_ths
            off = False if rate is not None and rate > HASHING_THS else None
        return off

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        timeout_s = min(self._given.timeouts.write_s, WRITE_S)
        if asleep:
            # A string, not a truth value; with it the machine answers before it cuts its boards off.
            return await self._write.tell("power_off", {"respbefore": "true"}, timeout_s=timeout_s)
        return await self._write.tell("power_on", timeout_s=timeout_s)

    # --- power limit ---------------------------------------------------------------------------------------------

    async def read_limit(self) -> LimitState:
        """See :class:`~drivers.asic.power.Limited`."""
        summary = await self._optional("summary")
        limit_w = limit_from(summary, None)
        if limit_w is None:
            limit_w = limit_from(None, await self._state())
        if limit_w is None:
            raise BadAnswer(f"{self._rpc.name}: it tells no power limit; it must not be changed")
        return LimitState(now_w=limit_w, settings={"power_limit_w": limit_w})

    async def tell_limit(self, limit_w: int) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        parameters = {"power_limit": str(limit_w)}
        return await self._write.tell(
            "adjust_power_limit", parameters, timeout_s=min(self._given.timeouts.write_s, WRITE_S)
        )

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self.tell_limit(watts_of(settings, "power_limit_w", self._rpc.name))
