"""One request, one answer, one TCP connection: the exchange that 30,000 machines a minute are read with.

Straight on the socket, because a transport with its protocol, streams or an HTTP session costs a multiple of what a
machine's few hundred bytes are worth. Nothing is kept between exchanges, so nothing can leak from one to the next: the
socket is closed when :func:`exchange` returns, however it ends.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drivers.errors import BadAnswer, NoAnswer, NoConnection

_CHUNK_BYTES = 32 * 1024
_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)
_IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY)
_NO_WAIT = (BlockingIOError, InterruptedError)

Complete = Callable[[bytearray, int], int]
"""Looks at what came so far and at where the newest part begins; the length of the whole answer once it is there,
-1 before."""


class _Exchange:
    """The socket of one exchange and what came so far."""

    __slots__ = (
        "_answer",
        "_complete",
        "_fd",
        "_loop",
        "_max_bytes",
        "_reading",
        "_received",
        "_request",
        "_sock",
        "_timer",
        "_writing",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, request: bytes, complete: Complete, max_bytes: int
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._request = request
        self._complete = complete
        self._max_bytes = max_bytes
        self._received = bytearray()
        self._answer: asyncio.Future[bytes] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._reading = False

    async def run(self, address: tuple[str, int], timeout_s: float) -> bytes:
        """See :func:`exchange`."""
        self._timer = self._loop.call_later(timeout_s, self._too_late)
        try:
            code = self._sock.connect_ex(address)
            if code and code not in _IN_PROGRESS:
                raise OSError(code, os.strerror(code))
            # Writable means connected or failed; sending tells which.
            self._loop.add_writer(self._fd, self._writable)
            self._writing = True
            return await self._answer
        finally:
            self._timer.cancel()
            self._stop_writing()
            self._stop_reading()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _too_late(self) -> None:
        self._fail(TimeoutError())

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._request)
        except _NO_WAIT:
            return
        except OSError as error:
            self._fail(error)
            return
        if sent < len(self._request):
            self._request = self._request[sent:]
            return
        self._stop_writing()
        if not self._answer.done():
            self._loop.add_reader(self._fd, self._readable)
            self._reading = True

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_CHUNK_BYTES)
        except _NO_WAIT:
            return
        except OSError as error:
            self._fail(error)
            return
        if self._answer.done():
            return
        received = self._received
        before = len(received)
        received += data
        try:
            end = self._complete(received, before)
        except BadAnswer as error:
            self._fail(error)
            return
        if (len(received) if end < 0 else end) > self._max_bytes:
            self._fail(BadAnswer(f"answer larger than {self._max_bytes} bytes"))
        elif end >= 0:
            self._answer.set_result(bytes(memoryview(received)[:end]))
        elif data:
            return
        elif received:
            self._answer.set_result(bytes(received))
        else:
            self._fail(ConnectionResetError(errno.ECONNRESET, "closed without an answer"))
        # One answer is all that is wanted; and a stream at its end would call again at once.
        self._stop_reading()

    def _fail(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)


async def exchange(
    host: str, port: int, request: bytes, *, timeout_s: float, complete: Complete, max_bytes: int
) -> bytes:
    """Connect, send, and receive until the answer is whole or the other side closes.

    Args:
        host: an address, or a name, which costs a look-up each time.
        port: TCP port.
        request: what is sent.
        timeout_s: hard limit of everything together.
        complete: says where the answer ends; an answer that ends only with the stream is returned at its end.
        max_bytes: larger answers are refused while they arrive.

    Raises:
        TimeoutError: not whole within ``timeout_s``.
        OSError: refused, unreachable, broken, closed without an answer, or no file descriptor left.
        BadAnswer: larger than ``max_bytes``, or ``complete`` raised it.
    """
    loop = asyncio.get_running_loop()
    family = _family(host)
    if family is None:
        began = loop.time()
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # Miners speak IPv4; a name that has both is asked there.
        family, _, _, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
        host = str(address[0])
        timeout_s -= loop.time() - began
    with socket.socket(family, socket.SOCK_STREAM | _NONBLOCK) as sock:
        if not _NONBLOCK:
            sock.setblocking(False)
        return await _Exchange(loop, sock, request, complete, max_bytes).run((host, port), timeout_s)


@contextmanager
def named(what: str, timeout_s: float) -> Iterator[None]:
    """Errors of :func:`exchange` become the drivers' own, and say ``what`` was asked of whom.

    Raises:
        NoConnection: refused, unreachable, or closed without an answer.
        NoAnswer: nothing complete within the deadline.
        BadAnswer: too large, or not to be understood.
    """
    try:
        yield
    except TimeoutError as error:
        raise NoAnswer(f"{what}: no complete answer within {timeout_s:g} s") from error
    except OSError as error:
        raise NoConnection(f"{what}: {error}") from error
    except BadAnswer as error:
        raise BadAnswer(f"{what}: {error}") from error


def _family(host: str) -> socket.AddressFamily | None:
    """Of an address; ``None`` for a name."""
    if ":" in host:
        return socket.AF_INET6
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return None
    return socket.AF_INET


def until_nul(received: bytearray, newest: int) -> int:
    """An answer ends before its first NUL: cgminer and its kin."""
    return received.find(0, newest)
