"""A link in a storm: answers late, doubled, of others, damaged, cut, or none; the connection lost at any time.

Every register says which unit and address it belongs to, so that a mixed-up answer cannot pass for the right one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from drivers.modbus import Klass, ModbusLink
from drivers.modbus.pdu import read_request
from drivers.modbus.rtu import with_crc
from wire.quality import Quality

TIMEOUT_S = 0.05
UNITS = range(1, 9)
FAULTS = (
    "none", "none", "none", "none", "late", "silent", "twice", "wrong unit", "wrong number", "wrong length",
    "damaged", "cut", "garbage", "busy", "lost", "others",
)  # fmt: skip


def words(unit: int, addr: int, count: int) -> bytes:
    return b"".join(((unit << 8 | at & 0xFF) ^ 0x5A5A).to_bytes(2, "big") for at in range(addr, addr + count))


class Storm:
    """A gateway gone mad, in the framing it is told."""

    def __init__(self, seed: int, *, rtu: bool) -> None:
        self._rng = random.Random(seed)
        self._rtu = rtu
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: Counter[str] = Counter()
        self.calm = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                if self._rtu:
                    request = (await reader.readexactly(8))[:6]
                    number = b""
                else:
                    head = await reader.readexactly(6)
                    number, request = head[:4], await reader.readexactly(int.from_bytes(head[4:6], "big"))
                fault = "none" if self.calm else self._rng.choice(FAULTS)
                self.seen[fault] += 1
                if fault == "lost":
                    break
                await self._answer(writer, number, request, fault)
        self._writers.discard(writer)
        writer.close()

    def _frame(self, number: bytes, body: bytes) -> bytes:
        return with_crc(body) if self._rtu else number + len(body).to_bytes(2, "big") + body

    async def _answer(self, writer: asyncio.StreamWriter, number: bytes, request: bytes, fault: str) -> None:
        unit, addr, count = request[0], int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
        body = request[:2] + bytes((2 * count,)) + words(unit, addr, count)
        whole = self._frame(number, body)
        if fault == "none":
            writer.write(whole)
        elif fault == "late":
            self._later(writer, whole, self._rng.uniform(1.05, 1.7) * TIMEOUT_S)
        elif fault == "twice":
            writer.write(whole + whole)
        elif fault == "wrong unit":
            writer.write(self._frame(number, bytes((unit ^ 0x40,)) + body[1:]) + whole)
        elif fault == "wrong number":
            writer.write(
                self._frame(b"\xee\xee\x00\x00", request[:2] + body[2:3] + bytes(2 * count)) if number else b""
            )
        elif fault == "wrong length":
            writer.write(self._frame(number, request[:2] + bytes((2 * count + 2,)) + bytes(2 * count + 2)))
        elif fault == "damaged" and self._rtu:
            at = self._rng.randrange(len(whole))
            writer.write(whole[:at] + bytes((whole[at] ^ 0x04,)) + whole[at + 1 :])
        elif fault == "cut":
            writer.write(whole[: self._rng.randrange(1, len(whole))])
        elif fault == "garbage":
            writer.write(self._rng.randbytes(self._rng.randrange(1, 60)) + (whole if self._rtu else b""))
        elif fault == "busy":
            writer.write(self._frame(number, bytes((unit, request[1] | 0x80, 6))))
        elif fault == "others":
            theirs = bytes((unit ^ 0x20, 3)) + request[2:6]
            writer.write(self._frame(b"\xdd\xdd\x00\x00", theirs) + whole)

    def _later(self, writer: asyncio.StreamWriter, data: bytes, delay_s: float) -> None:
        async def send() -> None:
            await asyncio.sleep(delay_s)
            with contextlib.suppress(ConnectionError):
                writer.write(data)

        task = asyncio.create_task(send())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in list(self._writers):
            writer.transport.abort()
        async with asyncio.timeout(10):
            while self._writers:  # noqa: ASYNC110 - the handlers end one by one
                await asyncio.sleep(0.01)


class Meter:
    """What the link asks of a device."""

    timeout_s, gap_s, turnaround_s, functions = None, 0.0, 0.0, frozenset({4})

    def __init__(self, unit: int) -> None:
        self.id, self.unit = f"u{unit}", unit


@contextlib.asynccontextmanager
async def stormy(scheme: str, seed: int, connections: int = 1) -> AsyncIterator[tuple[Storm, ModbusLink]]:
    storm = Storm(seed, rtu=scheme == "rtutcp")
    listener = await asyncio.start_server(storm.serve, "127.0.0.1", 0)
    link = ModbusLink(
        f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}",
        name="storm",
        timeout_s=TIMEOUT_S,
        rng=random.Random(seed),
        probe_share=1.0,
        connections=connections,
    )
    task = asyncio.create_task(link.run())
    try:
        yield storm, link
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await storm.close()
        listener.close()


async def ask(link: ModbusLink, unit: int, addr: int, count: int) -> Quality:
    pdu = read_request(4, addr, count)
    (answer,) = await link.exchange(Meter(unit), (pdu,), klass=Klass.VERIFICATION, deadline_s=0.5)
    if answer.quality is Quality.GOOD:
        assert answer.answer == bytes((unit, 4, 2 * count)) + words(unit, addr, count)
    return answer.quality


@pytest.mark.parametrize(("scheme", "connections"), [("modbus", 1), ("modbus", 3), ("rtutcp", 1)])
@pytest.mark.parametrize(("seed", "questions"), [(1, 90), pytest.param(2, 1000, marks=pytest.mark.long)])
async def test_no_wrong_value_comes_out_of_a_storm_and_calm_is_found_again(
    scheme: str, connections: int, seed: int, questions: int
) -> None:
    rng = random.Random(seed)
    got: Counter[Quality] = Counter()
    async with stormy(scheme, seed, connections) as (storm, link):

        async def caller(unit: int) -> None:
            while storm.seen.total() < questions:
                quality = await ask(link, unit, rng.randrange(0, 200), rng.choice((1, 2, 4)))
                got[quality] += 1
                if quality is Quality.NO_CONNECTION:
                    await asyncio.sleep(0.02)

        async with asyncio.timeout(100):
            await asyncio.gather(*(caller(unit) for unit in UNITS))
        assert set(storm.seen) == set(FAULTS)
        assert got[Quality.GOOD] > questions / 10
        storm.calm = True
        async with asyncio.timeout(60):
            for unit in UNITS:
                while await ask(link, unit, 7, 2) is not Quality.GOOD:  # noqa: ASYNC110 - the link sets no event
                    await asyncio.sleep(0.05)
    assert not link.stats.connected
