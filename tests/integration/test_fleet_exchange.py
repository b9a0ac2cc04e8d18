"""The bare socket exchange against servers that misbehave; whatever happens, the socket is closed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from drivers.asic.exchange import exchange, until_nul
from drivers.errors import BadAnswer

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ENDLESS_S = 60.0


@contextlib.asynccontextmanager
async def serving(behave: Behaviour) -> AsyncIterator[int]:
    """A server on a free port; its connections end with the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await behave(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ask(port: int, request: bytes = b"?", *, timeout_s: float = 10.0, max_bytes: int = 100_000) -> bytes:
    return await exchange("127.0.0.1", port, request, timeout_s=timeout_s, complete=until_nul, max_bytes=max_bytes)


def sockets_open() -> int:
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(link.readlink()).startswith("socket:")
    return found


async def say(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.005)


async def test_an_answer_ends_at_its_nul_however_it_drips() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await say(writer, *(b"%c" % byte for byte in b"hello"), b"\x00junk")
        await asyncio.sleep(ENDLESS_S)

    async with serving(drip) as port:
        assert await ask(port) == b"hello"


async def test_an_answer_without_nul_ends_with_the_stream() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await say(writer, b"hel", b"lo")
        writer.close()

    async with serving(close) as port:
        assert await ask(port) == b"hello"


async def test_a_request_larger_than_the_socket_takes_at_once_arrives_whole() -> None:
    request = b"x" * 3_000_000

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = 0
        while seen < len(request):
            seen += len(await reader.read(65_536))
        await say(writer, b"%d\x00" % seen)

    async with serving(count) as port:
        assert await ask(port, request) == b"3000000"


async def test_silence_costs_the_deadline_and_not_more() -> None:
    async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(ENDLESS_S)

    async with serving(hang) as port:
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await ask(port, timeout_s=0.1)
        assert asyncio.get_running_loop().time() - began_s < ENDLESS_S / 4


async def test_a_drip_that_never_ends_costs_the_deadline_too() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        while True:
            await say(writer, b" ")

    async with serving(drip) as port:
        with pytest.raises(TimeoutError):
            await ask(port, timeout_s=0.15)


async def test_an_answer_without_end_is_refused_while_it_arrives() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with serving(flood) as port:
        with pytest.raises(BadAnswer, match="larger than 100000 bytes"):
            await ask(port)


async def test_a_reset_and_a_closed_door_are_told_apart_from_silence() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with serving(reset) as port:
        with pytest.raises(ConnectionResetError):
            await ask(port)
    async with serving(close) as port:
        with pytest.raises(ConnectionResetError, match="closed without an answer"):
            await ask(port)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses, and nobody else can take it
        with pytest.raises(ConnectionRefusedError):
            await ask(unused.getsockname()[1])


async def test_whatever_happens_no_socket_stays_open() -> None:
    async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(ENDLESS_S)

    before = sockets_open()
    async with serving(hang) as port:
        with pytest.raises(TimeoutError):
            await ask(port, timeout_s=0.05)
        cancelled = [asyncio.create_task(ask(port)) for _ in range(5)]
        async with asyncio.timeout(20):
            while sockets_open() < before + 6:  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)
        for task in cancelled:
            task.cancel()
        assert all(
            isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*cancelled, return_exceptions=True)
        )
    async with asyncio.timeout(20):
        while sockets_open() > before:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.01)


async def test_names_are_resolved_and_ipv6_addresses_understood() -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await say(writer, b"hello\x00")

    async with serving(hello) as port:
        by_name = await exchange("localhost", port, b"?", timeout_s=10, complete=until_nul, max_bytes=100)
        assert by_name == b"hello"
    try:
        server = await asyncio.start_server(hello, "::1", 0)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        pytest.skip("this machine has no IPv6 loopback")
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await exchange("::1", port, b"?", timeout_s=10, complete=until_nul, max_bytes=100) == b"hello"
