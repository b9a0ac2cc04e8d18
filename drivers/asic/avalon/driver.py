"""Driver of Avalon miners."""

from __future__ import annotations

from typing import Any

from drivers.asic.avalon.answers import COMMANDS, FAMILY_NAME, asleep, avalon_status, fields_of
from drivers.asic.cgminer import CgminerClient, refuse_errors
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.family import Address
from drivers.asic.fields import integer, rows
from drivers.asic.given import Given
from drivers.asic.reading import timed
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, NoAnswer, NoConnection, Refused

LEAD_S = 5
"""How far ahead of its own clock a machine is told to act; less, and a slow one finds the time in the past."""


class Avalon(SleepsByControl):
    """One Avalon: :class:`MinerReader` and :class:`Sleeper`.

    Soft off and on are told with a time at which to act, by the machine's own clock. It is read from the machine just
    before, so that a wrong clock does no harm; one that is set anew within those seconds may act at once or never,
    which reading back shows.

    Args:
        at: where it answers.
        given: what every driver is given.
        settle_s: pause before the first read-back.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given, *, settle_s: float = LEAD_S + 1.0) -> None:
        self._given = given
        self._rpc = CgminerClient(at.host, at.rpc(), timeout_s=given.timeouts.rpc_s)
        self._sleep = SleepControl(FAMILY_NAME, self._rpc.name, self, given, settle_s)

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read())

    async def _read(self) -> MinerStatus:
        return avalon_status(await self._rpc.ask(COMMANDS))

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        answer = await self._rpc.command("estats")
        refuse_errors(answer, self._rpc.name, "estats")
        return asleep(fields_of(answer))

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        try:
            clock_s = await self._clock()
        except (NoAnswer, NoConnection, BadAnswer) as error:
            # Nothing was sent, which is more than "unknown" would say.
            raise Refused(f"nothing sent: its clock could not be read: {error}") from error
        verb = "softoff" if asleep else "softon"
        answer = await self._rpc.command("ascset", f"0,{verb},1:{clock_s + LEAD_S}")
        refuse_errors(answer, self._rpc.name, f"ascset {verb}")
        return _message(answer)

    async def _clock(self) -> int:
        """The machine's own time in seconds, which every answer carries.

        Raises:
            DriverError: it could not be read.
        """
        answer = await self._rpc.command("version")
        refuse_errors(answer, self._rpc.name, "version")
        clock_s = integer(next(iter(rows(answer, "STATUS")), {}).get("When"))
        if clock_s is None or clock_s <= 0:
            raise BadAnswer(f"{self._rpc.name}: its answers carry no time, and soft off needs the machine's own")
        return clock_s


def _message(answer: dict[str, Any]) -> str:
    """What it said; ``I`` is success here, as in "success softoff:…"."""
    return str(next(iter(rows(answer, "STATUS")), {}).get("Msg", ""))[:100]
