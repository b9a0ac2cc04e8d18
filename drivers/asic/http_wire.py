"""HTTP/1.1 as far as a miner's web page needs it: one request, one answer, one connection.

An HTTP library's session costs milliseconds of CPU per request, which a fleet told to sleep pays ten thousand times at
once. Here are only the bytes: lengths by ``Content-Length``, by chunks or by the end of the stream, everything bounded.
No redirects, cookies, compression or proxies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from drivers.asic.exchange import exchange
from drivers.errors import BadAnswer

MAX_HEAD_BYTES = 32 * 1024
_CHUNK_LINE_BYTES = 256
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: |$)")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,8}")
_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_TARGET = re.compile(r"/[!-~]{0,2000}")
_CONTINUE = range(100, 200)
_NO_BODY = (204, 304)


class NotHttp(BadAnswer):
    """What came is no HTTP answer, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``repr`` shows neither headers nor body: either may hold a token."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Names in lower case, as often and in the order they came."""
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """The first header of a (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> tuple[str, ...]:
        """Every header of a (lower-case) name."""
        return tuple(value for key, value in self.headers if key == name)


@dataclass(frozen=True, slots=True)
class _Head:
    """Status and headers, and how long the body is."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body_at: int
    length: int | None
    """``None`` where chunks or the end of the stream tell."""
    chunked: bool


class _Reader:
    """Finds the end of one answer while it arrives; keeps its place, so that a slow drip costs no quadratic time."""

    __slots__ = ("_at", "_begins", "_searched", "bytes", "head", "whole")

    def __init__(self) -> None:
        self.head: _Head | None = None
        self.bytes = bytearray()
        """Body put together from chunks."""
        self.whole = False
        """True once the last chunk came."""
        self._begins = 0
        self._searched = 0
        self._at = 0

    def __call__(self, received: bytearray, _newest: int) -> int:
        """See :data:`drivers.asic.exchange.Complete`."""
        while self.head is None:
            found = _HEAD_END.search(received, max(self._begins, self._searched - 3))
            self._searched = len(received)
            if found is None:
                if len(received) - self._begins > MAX_HEAD_BYTES:
                    raise NotHttp(f"no end of the HTTP head within {MAX_HEAD_BYTES} bytes")
                return -1
            head = _head(bytes(memoryview(received)[self._begins : found.start()]), found.end())
            if head.status in _CONTINUE:
                self._begins = self._searched = head.body_at
                continue
            self.head, self._at = head, head.body_at
        if self.head.chunked:
            return self._chunks(received)
        if self.head.length is None:
            return -1
        end = self.head.body_at + self.head.length
        return end if len(received) >= end else -1

    def _chunks(self, received: bytearray) -> int:
        while True:
            line_end = received.find(b"\n", self._at, self._at + _CHUNK_LINE_BYTES)
            if line_end < 0:
                if len(received) - self._at >= _CHUNK_LINE_BYTES:
                    raise NotHttp("a chunk of the HTTP answer has no length")
                return -1
            size = _HEX.match(received, self._at, line_end)
            if size is None:
                raise NotHttp("a chunk of the HTTP answer has no length")
            length = int(size.group(), 16)
            if length == 0:
                self.whole = True
                return line_end + 1  # trailers are of no use here
            data_end = line_end + 1 + length
            if len(received) < data_end + 2:
                # A length announced is refused before it is filled, by the caller's limit on what arrives.
                return -1
            self.bytes += memoryview(received)[line_end + 1 : data_end]
            self._at = data_end + (2 if received[data_end] == 0x0D else 1)


def _head(head: bytes, body_at: int) -> _Head:
    lines = head.split(b"\n")
    status = _STATUS_LINE.match(lines[0].rstrip(b"\r"))
    if status is None:
        # What came instead is not repeated: it may hold the password that was sent.
        raise NotHttp("no HTTP status line in the answer")
    headers = []
    for line in lines[1:200]:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            headers.append((name.strip().lower(), value.strip()))
    code = int(status.group(1))
    named = dict(reversed(headers))
    chunked = named.get("transfer-encoding", "").lower().endswith("chunked")
    length = named.get("content-length")
    if code in _NO_BODY:
        return _Head(code, tuple(headers), body_at, 0, False)
    if chunked or length is None:
        return _Head(code, tuple(headers), body_at, None, chunked)
    if not (length.isascii() and length.isdecimal() and len(length) <= 12):
        raise NotHttp("Content-Length: a number expected")
    return _Head(code, tuple(headers), body_at, int(length), False)


def request_bytes(
    method: str, target: str, host: str, port: int, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    """One request as sent.

    Raises:
        ValueError: a method, target or header that would break the request's shape. The message names no value.
    """
    if _WORD.fullmatch(method) is None or _TARGET.fullmatch(target) is None:
        raise ValueError("HTTP request: a method and a target that begins with / and has no spaces expected")
    named = f"[{host}]" if ":" in host else host
    lines = [f"{method} {target} HTTP/1.1", f"Host: {named}" if port == 80 else f"Host: {named}:{port}"]
    lines += ["Accept: */*", "Connection: close"]
    for name, value in headers.items():
        if _WORD.fullmatch(name) is None or not value.isprintable():
            raise ValueError(f"HTTP header {name[:40]!r}: printable text expected")
        lines.append(f"{name}: {value}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


async def http_exchange(
    host: str,
    port: int,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float,
    max_bytes: int,
) -> Reply:
    """One request, its whole answer, whatever its status.

    Args:
        host: an address or a name.
        port: TCP port.
        method: ``GET``, ``POST``, …
        target: path, and query after ``?``, already encoded.
        headers: besides ``Host``, ``Connection`` and ``Content-Length``.
        body: sent after the headers.
        timeout_s: hard limit of everything together.
        max_bytes: larger bodies are refused while they arrive.

    Raises:
        TimeoutError: not whole within ``timeout_s``.
        OSError: refused, unreachable, broken, closed without an answer or in the middle of one.
        BadAnswer: no HTTP, or larger than ``max_bytes``.
        ValueError: the request cannot be written.
    """
    request = request_bytes(method, target, host, port, headers or {}, body)
    reader = _Reader()
    received = await exchange(
        host, port, request, timeout_s=timeout_s, complete=reader, max_bytes=max_bytes + MAX_HEAD_BYTES
    )
    return _reply(reader, received, max_bytes)


def _reply(reader: _Reader, received: bytes, max_bytes: int) -> Reply:
    head = reader.head
    if head is None:
        raise NotHttp(f"no HTTP answer in {len(received)} bytes")
    content = bytes(reader.bytes) if head.chunked else received[head.body_at :]
    if head.length is not None and len(content) < head.length:
        raise ConnectionResetError("closed in the middle of an answer")
    if head.chunked and not reader.whole:
        raise ConnectionResetError("closed in the middle of an answer")
    if len(content) > max_bytes:
        raise BadAnswer(f"answer larger than {max_bytes} bytes")
    return Reply(head.status, head.headers, content)
