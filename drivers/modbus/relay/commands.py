"""The command interface of a breaker: one block of registers written at once, and the reading of its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from drivers.capabilities import WriteOutcome, WriteStatus
from drivers.modbus.pdu import read_request, read_words, write_registers_request
from drivers.modbus.scheduler import Answer
from drivers.profiles.switching import CommandInterface

POLL_S = 0.1


def command_request(interface: CommandInterface, code: int, password: bytes | None) -> bytes:
    """The one write that carries a command, its length, its destination and its password.

    Raises:
        ValueError: a password is needed and is not four ASCII characters.
    """
    secret = bytes(4)
    if interface.password == "required":  # noqa: S105 - says whether there is one
        if password is None or len(password) != 4 or not password.isascii():
            raise ValueError("command interface: a password of four ASCII characters is needed")
        secret = password
    head = [code, interface.length_bytes, interface.destination, interface.security]
    words = [*head, int.from_bytes(secret[:2], "big"), int.from_bytes(secret[2:], "big")]
    return write_registers_request(interface.addr, words + [0] * (interface.words - len(words)))


@dataclass(frozen=True, slots=True)
class Unread:
    """What had to be known before a write, or after it, and could not be read."""

    why: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Result:
    """Last command of a command interface, and its status."""

    code: int
    status: int
    at_ms: int

    @property
    def error(self) -> int:
        """Error code of a finished command: the low byte of its status; 0 is success."""
        return self.status & 0xFF


@dataclass(frozen=True, slots=True)
class CommandPort:
    """One breaker's command interface. Whoever uses it lets no other command of ours in between."""

    interface: CommandInterface
    ask: Callable[[bytes], Awaitable[Answer]] = field(repr=False)
    monotonic_ns: Callable[[], int] = field(repr=False)

    async def give(self, code: int, send: Callable[[], Awaitable[WriteOutcome]]) -> WriteOutcome:
        """Send a command where none is running, and wait for what the breaker says of it."""
        before = await self.result()
        if isinstance(before, Unread):
            return WriteOutcome(WriteStatus.REFUSED, before.at_ms, f"nothing was sent: {before.why}")
        if before.status == self.interface.in_progress:
            text = f"nothing was sent: command {before.code} of another master is being carried out"
            return WriteOutcome(WriteStatus.REFUSED, before.at_ms, text)
        outcome = await send()
        return await self._finished(code) if outcome.status is WriteStatus.ACKNOWLEDGED else outcome

    async def result(self) -> Result | Unread:
        """The last command's code and status."""
        answer = await self.ask(read_request(3, self.interface.result_addr, 2))
        if not answer.ok:
            return Unread(f"the command interface's result cannot be read: {answer.error}", answer.at_ms)
        code, status = read_words(answer.request, answer.answer)
        return Result(code, status, answer.at_ms)

    async def _finished(self, code: int) -> WriteOutcome:
        end_ns = self.monotonic_ns() + self.interface.within_ms * 1_000_000
        while True:
            await asyncio.sleep(POLL_S)
            result = await self.result()
            if isinstance(result, Result) and result.status != self.interface.in_progress:
                return _judged(code, result)
            if self.monotonic_ns() > end_ns:
                still = f"still running after {self.interface.within_ms} ms"
                what = result.why if isinstance(result, Unread) else still
                return WriteOutcome(WriteStatus.UNKNOWN, result.at_ms, f"command {code}: {what}")


def _judged(code: int, result: Result) -> WriteOutcome:
    if result.code != code:
        text = f"command {code}: the result is of command {result.code}; another master uses the command interface"
        return WriteOutcome(WriteStatus.UNKNOWN, result.at_ms, text)
    if result.error:
        text = f"command {code}: refused by the breaker with error {result.error}"
        return WriteOutcome(WriteStatus.REFUSED, result.at_ms, text)
    return WriteOutcome(WriteStatus.ACKNOWLEDGED, result.at_ms, f"command {code}: reported as done")
