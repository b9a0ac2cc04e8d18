"""The JSON socket of cgminer and its kin: one TCP connection per command, the answer ends with NUL or end of stream.

The server side is single-threaded with a small backlog, so there is never more than one open request per machine, and
each has a hard deadline: a machine that accepts and then says nothing costs exactly ``timeout_s``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from drivers.asic.exchange import exchange, named, until_nul
from drivers.asic.repair import MAX_BYTES, parse_answer
from drivers.errors import BadAnswer, DriverError, NoConnection, Refused

ACCESS_DENIED = 45
"""cgminer code: the API group of this client may not give that command."""


class CgminerClient:
    """Client of one machine's JSON socket.

    Args:
        host: address or name.
        port: TCP port, 4028 unless the owner moved it.
        timeout_s: deadline of one command, waiting for a previous one not included.
        max_bytes: larger answers are refused while they arrive.
    """

    def __init__(self, host: str, port: int = 4028, *, timeout_s: float = 3.0, max_bytes: int = MAX_BYTES) -> None:
        self.host = host
        self.port = port
        self.joins: bool | None = None
        """Whether ``a+b`` works there; ``None`` until it was tried."""
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()

    @property
    def name(self) -> str:
        """What errors call the machine."""
        return f"miner {self.host}:{self.port}"

    async def command(
        self, name: str, parameter: str | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Give one command and return its whole answer, error answers included.

        Raises:
            NoConnection: refused, unreachable, or closed without an answer.
            NoAnswer: nothing complete within the deadline.
            BadAnswer: not readable even tolerantly, or too large.
        """
        request: dict[str, str] = {"command": name}
        if parameter is not None:
            request["parameter"] = parameter
        async with self._lock:
            data = await self._exchange(msgspec.json.encode(request), name, timeout_s or self._timeout_s)
        return parse_answer(data, source=f"{self.name} {name}", max_bytes=self._max_bytes)

    async def request(self, value: dict[str, Any], what: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Send a request of another form than ``{"command": …}`` and return its whole answer.

        Args:
            value: the request as it goes out; it may be encrypted or hold a token, so no error repeats it.
            what: what to call it in errors.
            timeout_s: deadline; the client's own by default.

        Raises:
            DriverError: as of :meth:`command`.
        """
        async with self._lock:
            data = await self._exchange(msgspec.json.encode(value), what, timeout_s or self._timeout_s)
        return parse_answer(data, source=f"{self.name} {what}", max_bytes=self._max_bytes)

    async def ask(self, commands: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Give several commands, joined where the firmware can, one by one where not (found out once, remembered).

        The answer of the first command is needed; later ones are left out of the result where they are refused or
        damaged.

        Raises:
            DriverError: the first command was not answered or refused, or the machine was lost on the way.
        """
        if self.joins is not False:
            joined = await self._joined(commands)
            if joined is not None:
                return joined
        answers: dict[str, dict[str, Any]] = {}
        for number, command in enumerate(commands):
            try:
                answer = await self.command(command)
                refuse_errors(answer, self.name, command)
            except (Refused, BadAnswer):
                if number == 0:
                    raise
                continue
            answers[command] = answer
        return answers

    async def _joined(self, commands: Sequence[str]) -> dict[str, dict[str, Any]] | None:
        try:
            # Half the time while it is not known: some firmwares do not answer a joined command at all.
            timeout_s = self._timeout_s if self.joins else self._timeout_s / 2
            answer = await self.command("+".join(commands), timeout_s=timeout_s)
        except DriverError as error:
            if self.joins or (isinstance(error, NoConnection) and isinstance(error.__cause__, ConnectionRefusedError)):
                raise
            await self._must_answer(commands[0])
            self.joins = False
            return None
        sections = {name: part for name in commands if (part := section(answer, name)) is not None}
        if commands[0] not in sections:
            self.joins = False
            return None
        self.joins = True
        refuse_errors(sections[commands[0]], self.name, commands[0])
        return {name: part for name, part in sections.items() if error_of(part) is None}

    async def _must_answer(self, command: str) -> None:
        """A machine that is merely silent says nothing about joining: then this raises."""
        await self.command(command, timeout_s=self._timeout_s / 2)

    async def _exchange(self, request: bytes, command: str, timeout_s: float) -> bytes:
        with named(f"{self.name}: {command}", timeout_s):
            return await exchange(
                self.host,
                self.port,
                request,
                timeout_s=timeout_s,
                complete=until_nul,
                max_bytes=self._max_bytes,
            )


def section(answer: dict[str, Any], command: str) -> dict[str, Any] | None:
    """The part of a joined answer that belongs to one command, ``{"summary": [{…}], …}``, or ``None``."""
    part = answer.get(command)
    if isinstance(part, list):
        part = part[0] if part else None
    return part if isinstance(part, dict) else None


def error_of(answer: dict[str, Any]) -> tuple[int | None, str] | None:
    """``(code, message)`` of an error answer (``STATUS`` E or F), ``None`` for any other.

    ``STATUS`` is a list of objects, an object, or in old answers a plain letter with ``Code`` and ``Msg`` beside it.
    """
    status = answer.get("STATUS")
    if isinstance(status, list):
        status = status[0] if status else None
    if isinstance(status, str):
        status = answer
    if not isinstance(status, dict) or status.get("STATUS") not in ("E", "F"):
        return None
    code = status.get("Code")
    return (code if isinstance(code, int) else None, str(status.get("Msg", ""))[:200])


def refuse_errors(answer: dict[str, Any], name: str, command: str) -> None:
    """Turn an error answer into an exception.

    Raises:
        Refused: the answer's status is an error.
    """
    error = error_of(answer)
    if error is not None:
        code, message = error
        hint = "; the machine's api-allow does not let this host give it" if code == ACCESS_DENIED else ""
        raise Refused(f"{name}: {command} refused with code {code} ({message}){hint}")
