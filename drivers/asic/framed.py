"""The length-framed socket of Whatsminer's API 3: four bytes of length, little end first, then JSON; both ways.

One TCP connection per command, never more than one open request per machine, a hard deadline on each.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from drivers.asic.exchange import exchange, named
from drivers.asic.repair import MAX_BYTES, parse_answer
from drivers.errors import BadAnswer

PORT = 4433
_HEAD_BYTES = 4


def frame(body: bytes) -> bytes:
    """A message as it goes over the wire."""
    return len(body).to_bytes(_HEAD_BYTES, "little") + body


class FramedClient:
    """Client of one machine's length-framed socket.

    Args:
        host: address or name.
        port: TCP port.
        timeout_s: deadline of one command, waiting for a previous one not included.
        max_bytes: larger answers are refused as soon as their length is told.
    """

    def __init__(self, host: str, port: int = PORT, *, timeout_s: float = 3.0, max_bytes: int = MAX_BYTES) -> None:
        self.host = host
        self.port = port
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()

    @property
    def name(self) -> str:
        """What errors call the machine."""
        return f"miner {self.host}:{self.port}"

    async def command(self, name: str, param: object = None, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Give one command and return its whole answer, error answers included.

        Raises:
            DriverError: as of :meth:`request`.
        """
        return await self.request({"cmd": name} if param is None else {"cmd": name, "param": param}, timeout_s)

    async def request(self, value: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        """Send a request and return its whole answer; errors repeat nothing of it but ``cmd``.

        Raises:
            NoConnection: refused, unreachable, or closed without an answer.
            NoAnswer: nothing complete within the deadline.
            BadAnswer: not readable even tolerantly, cut off, or too large.
        """
        what = f"{self.name}: {value.get('cmd')}"
        limit_s = timeout_s or self._timeout_s
        with named(what, limit_s):
            async with self._lock:
                data = await exchange(
                    self.host,
                    self.port,
                    frame(msgspec.json.encode(value)),
                    timeout_s=limit_s,
                    complete=self._complete,
                    max_bytes=self._max_bytes + _HEAD_BYTES,
                )
        if self._complete(bytearray(data), 0) != len(data):
            raise BadAnswer(f"{what}: closed after {len(data)} bytes, in the middle of its answer")
        return parse_answer(data[_HEAD_BYTES:], source=what, max_bytes=self._max_bytes)

    def _complete(self, received: bytearray, newest: int) -> int:
        del newest
        if len(received) < _HEAD_BYTES:
            return -1
        length = int.from_bytes(received[:_HEAD_BYTES], "little")
        if length > self._max_bytes:
            raise BadAnswer(f"announces an answer of {length} bytes, at most {self._max_bytes} expected")
        whole = _HEAD_BYTES + length
        return whole if len(received) >= whole else -1
