"""Driver of VNish."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.credentials import Credentials
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.power import LimitsByControl, LimitState, PowerControl, Setting
from drivers.asic.reading import timed
from drivers.asic.session import SessionHttp, Token, bearer, checked, try_
from drivers.asic.vnish.answers import (
    NAME,
    ROOT,
    is_asleep,
    limit_state,
    overclock_of,
    part,
    presets_of,
    state_of,
    vnish_status,
    with_preset,
)
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError, Refused

TOKEN_LIFE_S = 1800.0
INFO_RETRY_S = 60.0


async def log_in(http: HttpClient, credentials: Credentials) -> Token:
    """``unlock``: a password without a user; too many attempts are answered with HTTP 429."""
    path = ROOT + "unlock"
    answer = await http.exchange("POST", path, body=msgspec.json.encode({"pw": credentials.password}))
    token = part(checked(http, path, answer)).get("token")
    if not isinstance(token, str):
        raise BadAnswer(f"{http.name}{path}: no token in the answer; nothing else was sent")
    return Token(token, TOKEN_LIFE_S)


class Vnish(SleepsByControl, LimitsByControl):
    """One machine with VNish: :class:`MinerReader`, :class:`Sleeper` and :class:`PowerLimiter` (by presets in watts).

    Only writes and the power limit need its password.
    """

    family = NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._http = HttpClient(at.web_host, at.web(), timeout_s=given.timeouts.http_s)
        self._session = SessionHttp(self._http, given.credentials, log_in=log_in, header=bearer, mono=given.mono)
        writing = asyncio.Lock()
        self._sleep = SleepControl(NAME, self._http.name, self, given, writing=writing)
        self._power = PowerControl(NAME, self._http.name, self, given, writing)
        self._info: Any = None
        self._info_until = float("-inf")
        self._presets: dict[int, str] = {}

    # --- reading -------------------------------------------------------------------------------------------------

    async def status(self) -> MinerStatus:
        """Read the machine; stopped it still answers, and is asleep.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._http.name, self._read())

    async def _read(self) -> MinerStatus:
        summary = await self._session.get(ROOT + "summary", open_=True)
        if not isinstance(summary, dict):
            raise BadAnswer(f"{self._http.name}{ROOT}summary: an object expected")
        state = state_of(summary)
        if state is None:
            state = state_of(await self._session.get(ROOT + "status", open_=True))
        if state is None and not part(summary, "miner"):
            raise BadAnswer(f"{self._http.name}: neither summary nor status tells a state; not VNish?")
        if self._given.mono() >= self._info_until:
            info = await try_(self._session.get(ROOT + "info", open_=True))
            self._info = info if isinstance(info, dict) else self._info
            kept_s = self._given.timeouts.identity_max_age_s if isinstance(info, dict) else INFO_RETRY_S
            self._info_until = self._given.mono() + kept_s
        return vnish_status(summary, self._info, state=state)

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        state = state_of(await self._session.get(ROOT + "status", open_=True))
        if state is None:
            state = state_of(await self._session.get(ROOT + "summary", open_=True))
        return is_asleep(state)

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        return await self._order("mining/stop" if asleep else "mining/start")

    # --- power limit ---------------------------------------------------------------------------------------------

    async def read_limit(self) -> LimitState:
        """See :class:`~drivers.asic.power.Limited`."""
        overclock = await self._overclock()
        presets = await self._session.get(ROOT + "autotune/presets")
        self._presets = presets_of(presets, modded_psu=overclock.get("modded_psu") is True)
        state = limit_state(overclock, tuple(sorted(self._presets)))
        if state is None:
            raise Refused(f"{self._http.name}: it has no presets in watts; its draw cannot be limited")
        return state

    async def tell_limit(self, limit_w: int) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self._set_preset(self._presets[limit_w], switching=False)

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        preset, switching = settings.get("preset"), settings.get("switcher")
        if not isinstance(preset, str) or not isinstance(switching, bool | None):
            raise Refused(f"{self._http.name}: the prior limit holds no preset; nothing sent")
        return await self._set_preset(preset, switching=switching)

    async def _set_preset(self, preset: str, *, switching: bool | None) -> str:
        body = with_preset(await self._overclock(), preset, switching)
        said = part(await self._session.call("POST", ROOT + "settings", body, timeout_s=self._given.timeouts.write_s))
        if said.get("restart_required") is True:
            try:
                await self._order("mining/restart")
            except DriverError as error:
                # The setting is written all the same; what it does not say is when it comes into force.
                raise BadAnswer(
                    f"{self._http.name}: preset {preset} saved, restarting for it failed: {error}"
                ) from error
        return f"preset {preset} saved"

    async def _overclock(self) -> dict[str, Any]:
        """The setting that is going to be written back.

        Raises:
            DriverError: it could not be read, or holds no preset.
        """
        overclock = overclock_of(await self._session.get(ROOT + "settings"))
        if not isinstance(overclock.get("preset"), str):
            raise Refused(f"{self._http.name}: its settings name no preset; they must not be changed")
        return overclock

    async def _order(self, command: str) -> str:
        said = part(await self._session.call("POST", ROOT + command, timeout_s=self._given.timeouts.write_s))
        if said.get("success") is False:
            raise Refused(f"{self._http.name}: {command} was answered with success: false")
        return "success"
