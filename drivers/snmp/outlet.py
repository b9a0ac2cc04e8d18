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

READ_BACK_S = 2.0
"""How long an outlet may take to show what it was commanded to; its relay needs a fraction of a second."""
READ_BACK_EVERY_S = 0.2


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
    refused: str | None = None
    """Why no command is sent, where none may be."""
    read_back_s: float = READ_BACK_S

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
        """Command the outlet off, and read its state back."""
        return await self._command(self.open_command, Position.OPEN)

    async def close(self) -> WriteOutcome:
        """Command the outlet on, and read its state back."""
        return await self._command(self.close_command, Position.CLOSED)

    async def _command(self, command: Command, wanted: Position) -> WriteOutcome:
        if self.writer is None or self.refused is not None:
            why = self.refused or "there is no write credential"
            return self._outcome(WriteStatus.REFUSED, f"nothing was sent: {why}")
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
        return await self._read_back(wanted)

    async def _read_back(self, wanted: Position) -> WriteOutcome:
        """Read the state until it is as commanded. Another state in the end makes the outcome unknown, never done."""
        end_ns = self.mono_ns() + int(self.read_back_s * 1e9)
        while True:
            state = await self.read()
            if state.position is wanted:
                return self._outcome(WriteStatus.ACKNOWLEDGED, f"acknowledged; state reads {wanted.value}")
            if self.mono_ns() >= end_ns:
                break
            await asyncio.sleep(READ_BACK_EVERY_S)
        if state.position in {Position.OPEN, Position.CLOSED}:
            text = f"acknowledged, but the state reads {state.position.value}, expected {wanted.value}"
            return self._outcome(WriteStatus.UNKNOWN, text)
        text = f"acknowledged; state not read back: {state.detail or state.position.value}"
        return self._outcome(WriteStatus.ACKNOWLEDGED, text)

    def _outcome(self, status: WriteStatus, detail: str) -> WriteOutcome:
        if status is not WriteStatus.ACKNOWLEDGED:
            log.warning("outlet_command_failed", device=self.device, outlet=self.number, status=status.value)
        return WriteOutcome(status, self.wall_ms(), detail)
