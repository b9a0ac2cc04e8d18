"""Driver of ESP-Miner."""

from __future__ import annotations

from typing import Any

from drivers.asic.bitaxe.answers import FAMILY_NAME, asleep, bitaxe_status
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.reading import timed
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer

INFO = "/api/system/info"


class Bitaxe(SleepsByControl):
    """One machine with ESP-Miner: :class:`MinerReader` and :class:`Sleeper`.

    It has no log-in, and before version 2.14 no pause: then a command to sleep is refused and nothing is sent.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._http = HttpClient(at.web_host, at.web(), timeout_s=given.timeouts.http_s)
        self._sleep = SleepControl(FAMILY_NAME, self._http.name, self, given)

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._http.name, self._read())

    async def _read(self) -> MinerStatus:
        return bitaxe_status(await self._info())

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`; a version that does not say cannot be told either."""
        paused = asleep(await self._info())
        if paused is None:
            raise BadAnswer(f"{self._http.name}: its version cannot be paused (2.14 can); use a switch")
        return paused

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        what = "pause" if asleep else "resume"
        await self._http.request("POST", f"/api/system/{what}", body=b"", timeout_s=self._given.timeouts.write_s)
        return what

    async def _info(self) -> dict[str, Any]:
        info = await self._http.get_json(INFO)
        if "ASICModel" not in info and "hashRate" not in info:
            raise BadAnswer(f"{self._http.name}{INFO}: neither ASICModel nor hashRate in it; not ESP-Miner")
        return info
