"""Driver of LuxOS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from drivers.asic.cgminer import CgminerClient, error_of, refuse_errors
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.luxos.answers import COMMANDS, FAMILY_NAME, SESSION_ACTIVE, curtailed, luxos_status, session_id
from drivers.asic.reading import timed
from drivers.capabilities import MinerStatus
from drivers.errors import DriverError, Refused


class LuxOs(SleepsByControl):
    """One machine with LuxOS: :class:`MinerReader` and :class:`Sleeper`.

    Sleep outlives a reboot and a power cut there; only a wake ends it.

    Args:
        at: where it answers.
        given: what every driver is given.
        logon_pauses_s: pauses before further attempts while somebody else's session is open.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given, *, logon_pauses_s: tuple[float, ...] = (1.0, 2.0, 4.0)) -> None:
        self._given = given
        self._rpc = CgminerClient(at.host, at.rpc(), timeout_s=given.timeouts.rpc_s)
        self._logon_pauses_s = logon_pauses_s
        self._session = ""
        self._sleep = SleepControl(FAMILY_NAME, self._rpc.name, self, given, session=self._open)
        self._log = structlog.get_logger(__name__)

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read())

    async def _read(self) -> MinerStatus:
        return luxos_status(await self._rpc.ask(COMMANDS))

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        answer = await self._rpc.command("config")
        refuse_errors(answer, self._rpc.name, "config")
        return curtailed(answer)

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`; its answer only says that the command was sent on."""
        action = "sleep" if asleep else "wakeup"
        answer = await self._rpc.command("curtail", f"{self._session},{action}")
        refuse_errors(answer, self._rpc.name, f"curtail {action}")
        return f"curtail {action}"

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        """A session, without which it takes no command."""
        self._session = await self._logon()
        try:
            yield
        finally:
            await self._logoff(self._session)

    async def _logon(self) -> str:
        """Open the machine's only session, waiting a little for somebody else's to end.

        Raises:
            DriverError: no session; nothing was changed.
        """
        for pause_s in (*self._logon_pauses_s, None):
            answer = await self._rpc.command("logon")
            error = error_of(answer)
            if error is None:
                return session_id(answer)
            code, message = error
            if pause_s is None or not (code == SESSION_ACTIVE or "session" in message.lower()):
                break
            await self._given.pause(pause_s)
        raise Refused(f"{self._rpc.name}: logon refused with code {code} ({message}); end the other session")

    async def _logoff(self, session: str) -> None:
        """Always tried: an open session shuts everybody else out for 60 s."""
        try:
            answer = await self._rpc.command("logoff", session)
            refuse_errors(answer, self._rpc.name, "logoff")
        except DriverError as error:
            self._log.warning("luxos_logoff_failed", machine=self._rpc.name, reason=str(error))
