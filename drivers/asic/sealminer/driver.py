"""Driver of Sealminers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic, time

from drivers.asic.cgminer import CgminerClient, refuse_errors
from drivers.asic.control import SleepControl, SleepsByControl, within
from drivers.asic.outcome import sleep_for
from drivers.asic.sealminer.answers import COMMANDS, FAMILY_NAME, asleep, sealminer_status
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus


class Sealminer(SleepsByControl):
    """One Sealminer: :class:`MinerReader` and :class:`Sleeper`.

    Args:
        host: address of the machine.
        rpc_port: JSON socket, which asks for no log-in.
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
        rpc_port: int = 4028,
        timeouts: Timeouts | None = None,
        writes_allowed: bool = False,
        wall: Callable[[], float] = time,
        mono: Callable[[], float] = monotonic,
        pause: Callable[[float], Awaitable[None]] = sleep_for,
    ) -> None:
        self.writes_allowed = writes_allowed
        self._timeouts = timeouts or Timeouts()
        self._rpc = CgminerClient(host, rpc_port, timeout_s=self._timeouts.rpc_s)
        self._mono = mono
        self._sleep = SleepControl(
            FAMILY_NAME, self._rpc.name, self, writes_allowed, self._timeouts, wall=wall, pause=pause
        )

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._mono()
        answers = await within(self._timeouts.status_s, self._rpc.name, self._rpc.ask(COMMANDS))
        return sealminer_status(answers, latency_ms=(self._mono() - began) * 1000)

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
