"""Driver of Marathon's firmware."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from drivers.asic.cgminer_status import Identity
from drivers.asic.control import SleepsByControl
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.marathon.answers import (
    FAMILY_NAME,
    MODES,
    SLEEP,
    changes_of,
    identity_of,
    limit_state,
    limited_to,
    marathon_status,
    with_mode,
    work_mode,
)
from drivers.asic.power import LimitsByControl, LimitState, PowerControl, Setting
from drivers.asic.reading import if_time, with_latency, within
from drivers.asic.work_mode import ModeControl
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError, Refused

ROOT = "/kaonsu/v1/"


class Marathon(SleepsByControl, LimitsByControl):
    """One machine with MARAFW: :class:`MinerReader`, :class:`Sleeper` and :class:`PowerLimiter`.

    Without its digest log-in nothing can be read.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._http = HttpClient(at.web_host, at.web(), credentials=given.credentials, timeout_s=given.timeouts.http_s)
        writing = asyncio.Lock()
        self._identity = Identity()
        self._identity_at = float("-inf")
        self._mode: str | None = None
        self._mode_at = float("-inf")
        self._power = PowerControl(FAMILY_NAME, self._http.name, self, given, writing)
        self._sleep = ModeControl(self._http.name, self, MODES, given, writing)

    # --- reading -------------------------------------------------------------------------------------------------

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._given.mono()
        brief = await within(self._given.timeouts.status_s, self._http.name, self._brief())
        hashboards = await self._optional("hashboards", began)
        fans = await self._optional("fans", began)
        if self._given.mono() - self._mode_at > self._given.timeouts.mode_max_age_s:
            self._took_mode(await self._optional("miner_config", began))
        if self._given.mono() - self._identity_at > self._given.timeouts.identity_max_age_s:
            overview = await self._optional("overview", began)
            if overview:
                self._identity, self._identity_at = identity_of(overview), self._given.mono()
        status = marathon_status(brief, hashboards, fans, self._identity, self._mode)
        return with_latency(status, self._given, began)

    async def _brief(self) -> dict[str, Any]:
        brief = await self._http.get_json(f"{ROOT}brief")
        if "status" not in brief and "hashrate_realtime" not in brief:
            raise BadAnswer(f"{self._http.name}{ROOT}brief: neither status nor hashrate_realtime in it; not MARAFW")
        return brief

    async def _optional(self, page: str, began: float) -> dict[str, Any]:
        """A page in what is left of a status's time; empty where that fails or a write holds the interface."""
        if self._http.busy:
            return {}
        where = f"{ROOT}{page}"
        return await if_time(self._given, began, lambda left_s: self._http.get_json(where, timeout_s=left_s))

    def _took_mode(self, config: dict[str, Any]) -> None:
        mode = work_mode(config)
        if mode is not None:
            self._mode, self._mode_at = mode, self._given.mono()

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def read_config(self) -> dict[str, Any]:
        """See :class:`~drivers.asic.work_mode.Configured`."""
        config = await self._http.get_json(f"{ROOT}miner_config", strict=True)
        self._took_mode(config)
        return config

    async def write_config(self, config: dict[str, Any]) -> str:
        """See :class:`~drivers.asic.work_mode.Configured`."""
        self._mode_at = float("-inf")  # whatever comes of it, the mode last read is no longer to be believed
        await self._http.post_json(f"{ROOT}miner_config", config, timeout_s=self._given.timeouts.write_s)
        return "taken"

    # --- power limit ---------------------------------------------------------------------------------------------

    async def read_limit(self) -> LimitState:
        """See :class:`~drivers.asic.power.Limited`."""
        return limit_state(await self.read_config(), name=self._http.name)

    async def tell_limit(self, limit_w: int) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self._change(limited_to(limit_w))

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self._change(changes_of(settings))

    async def _change(self, changes: dict[str, Any]) -> str:
        try:
            config = await self.read_config()
            if work_mode(config) == SLEEP:
                raise Refused(f"{self._http.name}: it sleeps, and a power target would wake it; wake it first")
            body = with_mode(config, changes, name=self._http.name)
        except DriverError as error:
            raise Refused(f"nothing written: {error}") from error
        return await self.write_config(body)
