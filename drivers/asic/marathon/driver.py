"""Driver of Marathon's firmware."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from drivers.asic.cgminer_status import Identity
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.marathon.answers import (
    FAMILY_NAME,
    SLEEP,
    Prior,
    changes_of,
    identity_of,
    limit_state,
    limited_to,
    marathon_status,
    with_mode,
    work_mode,
)
from drivers.asic.outcome import acknowledged, not_allowed, refused, unknown
from drivers.asic.power import LimitsByControl, LimitState, PowerControl, Setting
from drivers.asic.reading import if_time, with_latency, within
from drivers.capabilities import MinerStatus, WriteOutcome
from drivers.errors import BadAnswer, DriverError, Refused

ROOT = "/kaonsu/v1/"


class Marathon(LimitsByControl):
    """One machine with MARAFW: :class:`MinerReader`, :class:`Sleeper` and :class:`PowerLimiter`.

    Without its digest log-in nothing can be read.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._http = HttpClient(at.web_host, at.web(), credentials=given.credentials, timeout_s=given.timeouts.http_s)
        self._writing = asyncio.Lock()
        self._identity = Identity()
        self._identity_at = float("-inf")
        self._mode: str | None = None
        self._mode_at = float("-inf")
        self._power = PowerControl(FAMILY_NAME, self._http.name, self, given, self._writing)

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

    async def _config(self) -> dict[str, Any]:
        """The configuration, only if it is correct JSON: it is going to be written back."""
        config = await self._http.get_json(f"{ROOT}miner_config", strict=True)
        self._took_mode(config)
        return config

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def prior_state(self) -> str:
        """The work mode now, as compact JSON.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        mode = work_mode(await self._config())
        if mode is None:
            raise BadAnswer(f"{self._http.name}: no work mode in its configuration; it must not be changed")
        return Prior(mode).to_text()

    async def sleep(self) -> WriteOutcome:
        """Ask it to sleep. Never raises; "acknowledged" means that the mode reads back."""
        return await self._set_mode(SLEEP)

    async def wake(self, prior_state: str) -> WriteOutcome:
        """Put the mode back that it had before; asleep before stays asleep. Never raises."""
        try:
            prior = Prior.from_text(prior_state)
        except ValueError as error:
            return refused(self._given.wall, f"{self._http.name}: nothing written: {error}")
        if prior.asleep:
            return acknowledged(self._given.wall, "was asleep before; left asleep, nothing written")
        return await self._set_mode(prior.mode)

    async def _set_mode(self, mode: str) -> WriteOutcome:
        if not self._given.writes_allowed:
            return not_allowed(self._given.wall, self._http.name)
        async with self._writing:
            try:
                config = await self._config()
                if work_mode(config) == mode:
                    return acknowledged(self._given.wall, f"mode is {mode} already; nothing written")
                body = with_mode(config, {"work-mode-selector": mode}, name=self._http.name)
            except (Refused, BadAnswer) as error:
                return refused(self._given.wall, f"nothing written: {error}")
            except DriverError as error:
                return unknown(self._given.wall, f"nothing written: {error}")
            lost: DriverError | None = None
            try:
                await self._write(body)
            except Refused as error:
                return refused(self._given.wall, str(error))
            except DriverError as error:
                lost = error
            return await self._seen(mode, lost)

    async def _seen(self, mode: str, lost: DriverError | None) -> WriteOutcome:
        seen: str | None = None
        for pause_s in self._given.timeouts.read_back_s:
            await self._given.pause(pause_s)
            try:
                seen = work_mode(await self._config())
            except DriverError:
                continue
            if seen == mode:
                note = f"; the answer to the write was lost ({lost})" if lost is not None else ""
                return acknowledged(self._given.wall, f"mode {mode} written and read back{note}")
        what = str(lost) if lost is not None else f"{self._http.name}: the write was answered"
        return unknown(self._given.wall, f"{what}; mode reads back as {seen}")

    async def _write(self, body: dict[str, Any]) -> None:
        self._mode_at = float("-inf")  # whatever comes of it, the mode last read is no longer to be believed
        await self._http.post_json(f"{ROOT}miner_config", body, timeout_s=self._given.timeouts.write_s)

    # --- power limit ---------------------------------------------------------------------------------------------

    async def read_limit(self) -> LimitState:
        """See :class:`~drivers.asic.power.Limited`."""
        return limit_state(await self._config(), name=self._http.name)

    async def tell_limit(self, limit_w: int) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self._change(limited_to(limit_w))

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self._change(changes_of(settings))

    async def _change(self, changes: dict[str, Any]) -> str:
        try:
            config = await self._config()
            if work_mode(config) == SLEEP:
                raise Refused(f"{self._http.name}: it sleeps, and a power target would wake it; wake it first")
            body = with_mode(config, changes, name=self._http.name)
        except DriverError as error:
            raise Refused(f"nothing written: {error}") from error
        await self._write(body)
        return "taken"
