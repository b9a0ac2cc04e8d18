"""Driver of ESP-Miner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Any

from drivers.asic.bitaxe.answers import FAMILY_NAME, asleep, bitaxe_status
from drivers.asic.control import SleepControl, SleepsByControl, within
from drivers.asic.http import HttpClient
from drivers.asic.outcome import sleep_for
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer

INFO = "/api/system/info"


class Bitaxe(SleepsByControl):
    """One machine with ESP-Miner: :class:`MinerReader` and :class:`Sleeper`.

    It has no log-in, and before version 2.14 no pause: then a command to sleep is refused and nothing is sent.

    Args:
        host: address of the machine.
        port: its web interface.
        timeouts: time limits.
        writes_allowed: the site's allow-list; False makes every write ``REFUSED``.
        wall: UTC clock in seconds.
        mono: monotonic clock in seconds.
        pause: waits for seconds.
    """

    family = FAMILY_NAME

    def __init__(
        self,
        host: str,
        *,
        port: int = 80,
        timeouts: Timeouts | None = None,
        writes_allowed: bool = False,
        wall: Callable[[], float] = time,
        mono: Callable[[], float] = monotonic,
        pause: Callable[[float], Awaitable[None]] = sleep_for,
    ) -> None:
        self.writes_allowed = writes_allowed
        self._timeouts = timeouts or Timeouts()
        self._http = HttpClient(host, port, timeout_s=self._timeouts.http_s)
        self._mono = mono
        self._sleep = SleepControl(
            FAMILY_NAME, self._http.name, self, writes_allowed, self._timeouts, wall=wall, pause=pause
        )

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._mono()
        info = await within(self._timeouts.status_s, self._http.name, self._info())
        return bitaxe_status(info, latency_ms=(self._mono() - began) * 1000)

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`; a version that does not say cannot be told either."""
        paused = asleep(await self._info())
        if paused is None:
            raise BadAnswer(f"{self._http.name}: its version cannot be paused (2.14 can); use a switch")
        return paused

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        what = "pause" if asleep else "resume"
        await self._http.request("POST", f"/api/system/{what}", body=b"", timeout_s=self._timeouts.write_s)
        return what

    async def _info(self) -> dict[str, Any]:
        info = await self._http.get_json(INFO)
        if "ASICModel" not in info and "hashRate" not in info:
            raise BadAnswer(f"{self._http.name}{INFO}: neither ASICModel nor hashRate in it; not ESP-Miner")
        return info
