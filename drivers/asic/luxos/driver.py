"""Driver of LuxOS."""

from __future__ import annotations

import asyncio

import structlog

from drivers.asic.cgminer import CgminerClient, error_of, refuse_errors
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.luxos.answers import COMMANDS, FAMILY_NAME, SESSION_ACTIVE, Prior, curtailed, luxos_status, session_id
from drivers.asic.outcome import acknowledged, not_allowed, refused, unknown
from drivers.asic.reading import timed
from drivers.capabilities import MinerStatus, WriteOutcome
from drivers.errors import BadAnswer, DriverError, Refused


class LuxOs:
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
        self._writing = asyncio.Lock()
        self._log = structlog.get_logger(__name__)

    async def status(self) -> MinerStatus:
        """Read the machine.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read())

    async def _read(self) -> MinerStatus:
        return luxos_status(await self._rpc.ask(COMMANDS))

    async def prior_state(self) -> str:
        """Whether it sleeps now, as compact JSON.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        asleep = await self._curtailed()
        if asleep is None:
            raise BadAnswer(f"{self._rpc.name}: its config does not say whether it sleeps; it must not be changed")
        return Prior(asleep).to_text()

    async def sleep(self) -> WriteOutcome:
        """Ask it to sleep. Never raises; "acknowledged" means that its own config says so."""
        return await self._set_asleep(True)

    async def wake(self, prior_state: str) -> WriteOutcome:
        """Wake it, unless it was asleep before. Never raises."""
        try:
            prior = Prior.from_text(prior_state)
        except ValueError as error:
            return refused(self._given.wall, f"{self._rpc.name}: nothing sent: {error}")
        if prior.asleep:
            return acknowledged(self._given.wall, "was asleep before; left asleep, nothing sent")
        return await self._set_asleep(False)

    async def _set_asleep(self, asleep: bool) -> WriteOutcome:
        if not self._given.writes_allowed:
            return not_allowed(self._given.wall, self._rpc.name)
        async with self._writing:
            try:
                if await self._curtailed() is asleep:
                    return acknowledged(self._given.wall, f"{'asleep' if asleep else 'awake'} already; nothing sent")
                session = await self._logon()
            except (Refused, BadAnswer) as error:
                return refused(self._given.wall, f"nothing sent: {error}")
            except DriverError as error:
                return unknown(self._given.wall, f"nothing sent: {error}")
            try:
                return await self._curtail(session, asleep)
            finally:
                await self._logoff(session)

    async def _curtail(self, session: str, asleep: bool) -> WriteOutcome:
        action = "sleep" if asleep else "wakeup"
        lost: DriverError | None = None
        try:
            answer = await self._rpc.command("curtail", f"{session},{action}")
            refuse_errors(answer, self._rpc.name, f"curtail {action}")
        except Refused as error:
            return refused(self._given.wall, str(error))
        except DriverError as error:
            lost = error
        seen = await self._read_back(asleep)
        if seen is asleep:
            note = f"; the answer was lost ({lost})" if lost is not None else ""
            return acknowledged(self._given.wall, f"curtail {action} sent and read back{note}")
        # Its answer only says that the command was sent on, so that nothing seen yet is no proof of refusal.
        what = str(lost) if lost is not None else f"{self._rpc.name}: curtail {action} was answered with success"
        return unknown(self._given.wall, f"{what}; asleep reads back as {seen}")

    async def _read_back(self, asleep: bool) -> bool | None:
        seen: bool | None = None
        for pause_s in self._given.timeouts.read_back_s:
            await self._given.pause(pause_s)
            try:
                seen = await self._curtailed()
            except DriverError:
                continue
            if seen is asleep:
                break
        return seen

    async def _curtailed(self) -> bool | None:
        answer = await self._rpc.command("config")
        refuse_errors(answer, self._rpc.name, "config")
        return curtailed(answer)

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
