"""Machines that speak cgminer's JSON but whose firmware has no driver of its own: read only, by construction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from drivers.asic.cgminer import CgminerClient
from drivers.asic.cgminer_status import status_from
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus
from drivers.errors import NoAnswer

FAMILY = "cgminer"


class GenericCgminer:
    """One machine read by ``summary``, ``stats``, ``pools`` and ``version``: :class:`MinerReader`, no ``Sleeper``."""

    family = FAMILY

    def __init__(
        self,
        host: str,
        *,
        rpc_port: int = 4028,
        timeouts: Timeouts | None = None,
        mono: Callable[[], float] = monotonic,
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._rpc = CgminerClient(host, rpc_port, timeout_s=self._timeouts.rpc_s)
        self._mono = mono

    async def status(self) -> MinerStatus:
        """Read the machine; ``sleeping`` is False where it hashes and unknown where it does not.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._mono()
        try:
            async with asyncio.timeout(self._timeouts.status_s):
                answers = await self._rpc.ask(("summary", "stats", "pools", "version"))
        except TimeoutError as error:
            raise NoAnswer(f"{self._rpc.name}: not read within {self._timeouts.status_s:g} s") from error
        status = status_from(FAMILY, answers, latency_ms=(self._mono() - began) * 1000)
        return replace(status, sleeping=False if status.hashrate_ths else None)
