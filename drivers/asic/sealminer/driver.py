"""Driver of Sealminers."""

from __future__ import annotations

from drivers.asic.cgminer import CgminerClient, refuse_errors
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.reading import timed
from drivers.asic.sealminer.answers import COMMANDS, FAMILY_NAME, asleep, sealminer_status
from drivers.capabilities import MinerStatus


class Sealminer(SleepsByControl):
    """One Sealminer: :class:`MinerReader` and :class:`Sleeper`.

    The JSON socket asks for no log-in.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._rpc = CgminerClient(at.host, at.rpc(), timeout_s=given.timeouts.rpc_s)
        self._sleep = SleepControl(FAMILY_NAME, self._rpc.name, self, given)

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read())

    async def _read(self) -> MinerStatus:
        return sealminer_status(await self._rpc.ask(COMMANDS))

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        answer = await self._rpc.command("stats")
        refuse_errors(answer, self._rpc.name, "stats")
        return asleep(answer)

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`; never sent to one that runs, which a restart would stop."""
        if asleep:
            answer = await self._rpc.command("ascset", "0,suspend")
            refuse_errors(answer, self._rpc.name, "ascset suspend")
            return "suspend"
        answer = await self._rpc.command("restart")
        refuse_errors(answer, self._rpc.name, "restart")
        return "restart"
