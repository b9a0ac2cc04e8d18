"""Driver of Whatsminers with API 3."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from drivers.asic.cgminer_status import Identity, is_hashing, with_sleep
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.family import Address
from drivers.asic.fields import integer
from drivers.asic.framed import PORT, FramedClient
from drivers.asic.given import Given
from drivers.asic.power import LimitsByControl, LimitState, PowerControl, Setting, watts_of
from drivers.asic.reading import timed
from drivers.asic.whatsminer_v3.answers import (
    NAME,
    STOPPED,
    errors_from,
    identity_from,
    is_asleep,
    limit_from,
    refusal,
    salt_of,
    whatsminer_status,
    write_token,
)
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError, Refused

STATUS_PARTS = "summary+pools+edevs"
INFO_MAX_AGE_S = 60.0
ACCOUNT = "super"
NO_ACCOUNT = ("", "root", "admin")
"""Users that API 3 does not know: the defaults of log-ins that name none."""
INVALID_COMMAND = -2
NO_PERMISSION = -4
CLOCK_MARGIN_S = 30.0
WRITE_S = 10.0
"""A write is answered at once; meanwhile the machine cannot be read, so no longer than this."""


class WhatsminerV3(SleepsByControl, LimitsByControl):
    """One Whatsminer with API 3: :class:`MinerReader`, :class:`Sleeper` and :class:`PowerLimiter`.

    Only writes need an account and its password; the account is ``super`` where none is named.
    """

    family = NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._rpc = FramedClient(at.host, at.rpc(PORT), timeout_s=given.timeouts.rpc_s)
        writing = asyncio.Lock()
        self._sleep = SleepControl(NAME, self._rpc.name, self, given, writing=writing)
        self._power = PowerControl(NAME, self._rpc.name, self, given, writing)
        self._salt: str | None = None
        self._ahead_s: float | None = None
        """How far the machine's clock was ahead of the agent's when it last said the time."""
        self._identity = Identity()
        self._errors: tuple[str, ...] = ()
        self._info_at = float("-inf")

    # --- reading -------------------------------------------------------------------------------------------------

    async def status(self) -> MinerStatus:
        """Read the machine; with its service stopped it still answers, and is asleep.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read())

    async def _read(self) -> MinerStatus:
        status = whatsminer_status(await self._ask("get.miner.status", STATUS_PARTS))
        if not is_hashing(status) or self._given.mono() - self._info_at > INFO_MAX_AGE_S:
            info = await self._info()
            status = with_sleep(status, is_asleep(info), STOPPED)
        return replace(self._identity.into(status), errors=(*status.errors, *self._errors))

    async def _info(self) -> dict[str, Any] | None:
        """``get.device.info``, which a status can do without."""
        try:
            info = await self._ask("get.device.info")
        except DriverError:
            return None
        self._identity = identity_from(info).over(self._identity)
        self._errors = errors_from(info)
        self._salt = salt_of(info)  # so that a write need not ask for it first
        self._info_at = self._given.mono()
        return info

    async def _ask(self, command: str, param: object = None) -> dict[str, Any]:
        answer = await self._rpc.command(command, param)
        self._note_clock(answer)
        error = refusal(answer)
        if error is not None:
            raise Refused(f"{self._rpc.name}: {command} refused with code {error[0]} ({error[1]})")
        return answer

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        return is_asleep(await self._ask("get.device.info", "miner"))

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        return await self._write("set.miner.service", "stop" if asleep else "start")

    # --- power limit ---------------------------------------------------------------------------------------------

    async def read_limit(self) -> LimitState:
        """See :class:`~drivers.asic.power.Limited`."""
        limit_w = limit_from(await self._ask("get.miner.setting"))
        if limit_w is None:
            limit_w = limit_from(await self._ask("get.miner.status", "summary"))
        if limit_w is None:
            raise BadAnswer(f"{self._rpc.name}: it tells no power limit; it must not be changed")
        return LimitState(now_w=limit_w, settings={"power_limit_w": limit_w})

    async def tell_limit(self, limit_w: int) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self._write("set.miner.power_limit", limit_w)

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self.tell_limit(watts_of(settings, "power_limit_w", self._rpc.name))

    # --- writing -------------------------------------------------------------------------------------------------

    async def _write(self, command: str, param: str | int) -> str:
        """Give one privileged command; what it answered.

        Raises:
            Refused: it said no, or there is no password: nothing happened.
            DriverError: its answer was lost or cannot be read; then it is not known what happened.
        """
        fresh = self._salt is None
        answer = await self._send(command, param)
        error = refusal(answer)
        if error is not None and not fresh and (error[0] == NO_PERMISSION or "token" in error[1].lower()):
            # The salt may have changed since; it says so before doing anything.
            self._salt = None
            answer = await self._send(command, param)
            error = refusal(answer)
        if error is not None:
            self._salt = None
            raise Refused(
                f"{self._rpc.name}: {command} refused with code {error[0]} ({error[1]}){self._hint(error[0])}"
            )
        return str(answer.get("msg", ""))[:200]

    async def _send(self, command: str, param: str | int) -> dict[str, Any]:
        if self._given.credentials is None:
            raise Refused(f"{self._rpc.name}: writing needs an account's password; give the group credentials")
        if self._salt is None:
            self._salt = salt_of(await self._ask("get.device.info", "salt"))
            if self._salt is None:
                raise Refused(f"{self._rpc.name}: get.device.info gave no salt; nothing sent")
        ts = int(self._given.wall())
        user = self._given.credentials.user
        request = {
            "cmd": command,
            "param": param,
            "ts": ts,
            "token": write_token(command, self._given.credentials.password, self._salt, ts),
            "account": ACCOUNT if user in NO_ACCOUNT else user,
        }
        answer = await self._rpc.request(request, min(self._given.timeouts.write_s, WRITE_S))
        self._note_clock(answer)
        return answer

    def _note_clock(self, answer: dict[str, Any]) -> None:
        when = integer(answer.get("when"))
        self._ahead_s = None if not when else when - self._given.wall()

    def _hint(self, code: int | None) -> str:
        if self._ahead_s is not None and abs(self._ahead_s) > CLOCK_MARGIN_S:
            return f"; its clock is {self._ahead_s:+.0f} s from the agent's: set it right"
        if code == INVALID_COMMAND:
            return ""
        return "; switch its API on for this account, and correct the group's credentials"
