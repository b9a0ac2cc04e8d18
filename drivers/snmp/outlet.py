"""One PDU outlet as a switch: off is open, on is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from drivers.capabilities import Position, SwitchState, WriteOutcome, WriteStatus
from drivers.errors import DriverError, NoConnection, Refused
from drivers.snmp.decode import decode_position
from drivers.snmp.profile import Command, OutletState
from drivers.snmp.session import SnmpPeer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class OutletSwitch:
    """Implements :class:`drivers.capabilities.Switch`.

    A command is a level and is sent once. Its numbers come from the profile and are never taken from the state's
    numbers: on some models they are the other way round. Without ``writer`` every command is refused and nothing is
    sent.
    """

    device: str
    number: int
    state: OutletState
    open_command: Command
    close_command: Command
    reader: SnmpPeer = field(repr=False)
    writer: SnmpPeer | None = field(repr=False)
    timeout_s: float
    wall_ms: Callable[[], int] = field(repr=False)
    mono_ns: Callable[[], int] = field(repr=False)
    pending: OutletState | None = None

    async def read(self) -> SwitchState:
        """Position from the outlet's state. Never raises: ``UNKNOWN`` where it could not be read."""
        position, detail = Position.UNKNOWN, None
        try:
            async with asyncio.timeout(self.timeout_s):
                oids = [ref.at(self.number) for ref in (self.state, self.pending) if ref is not None]
                answers = await self.reader.get(oids)
            raw = answers[oids[0]]
            position = decode_position(self.state, raw)
            if position is Position.UNKNOWN:
                detail = f"state {raw!r}; expected off {self.state.off} or on {self.state.on}"
            elif self.pending is not None and answers[oids[1]] in self.pending.on:
                detail = "a delayed command is pending"
        except TimeoutError:
            detail = f"no answer within {self.timeout_s} s"
        except DriverError as error:
            detail = str(error)
        return SwitchState(position, self.wall_ms(), self.mono_ns(), detail=detail)

    async def open(self) -> WriteOutcome:
        """Command the outlet off."""
        return await self._command(self.open_command)

    async def close(self) -> WriteOutcome:
        """Command the outlet on."""
        return await self._command(self.close_command)

    async def _command(self, command: Command) -> WriteOutcome:
        if self.writer is None:
            return self._outcome(
                WriteStatus.REFUSED, "nothing was sent: switching is not allowed here or there is no write credential"
            )
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.writer.set_integer(command.at(self.number), command.value)
        except TimeoutError:
            return self._outcome(WriteStatus.UNKNOWN, f"no answer within {self.timeout_s} s")
        except (NoConnection, Refused) as error:
            # Nothing left this machine, or the device itself said no.
            return self._outcome(WriteStatus.REFUSED, str(error))
        except DriverError as error:
            # The device may have carried it out, or may still: only a read-back tells.
            return self._outcome(WriteStatus.UNKNOWN, str(error))
        return self._outcome(WriteStatus.ACKNOWLEDGED, "")

    def _outcome(self, status: WriteStatus, detail: str) -> WriteOutcome:
        if status is not WriteStatus.ACKNOWLEDGED:
            log.warning("outlet_command_failed", device=self.device, outlet=self.number, status=status.value)
        return WriteOutcome(status, self.wall_ms(), detail)
