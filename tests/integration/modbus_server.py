"""A small Modbus server of raw sockets, and a link to it, for tests: no library on the other side."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from drivers.modbus import ModbusLink
from drivers.profiles import load_profile
from drivers.profiles.codec import encode
from drivers.profiles.model import MeterProfile, RelayProfile

POINTS = ("power_w", "voltage_l1_n_v", "energy_import_wh")


def meter_profile() -> MeterProfile:
    profile = load_profile("eastron-sdm630")
    assert isinstance(profile, MeterProfile)
    return profile


def relay_profile(name: str = "waveshare-modbus-relay") -> RelayProfile:
    profile = load_profile(name)
    assert isinstance(profile, RelayProfile)
    return profile


@dataclass
class Server:
    """Registers and coils of many units behind one TCP port; behaves as badly as it is told to."""

    dead: set[int] = field(default_factory=set)
    words: dict[tuple[int, int], int] = field(default_factory=dict)
    """(function, address) → word, the same for each unit."""
    coils: dict[int, bool] = field(default_factory=dict)
    inputs: dict[int, bool] = field(default_factory=dict)
    refuse: set[tuple[int, int]] = field(default_factory=set)
    """(function, address) answered with exception 2."""
    swallow_functions: set[int] = field(default_factory=set)
    delay_s: float = 0.0
    late: dict[int, float] = field(default_factory=dict)
    """Unit → seconds by which its answers come late."""
    log: list[tuple[float, int, bytes]] = field(default_factory=list)
    port: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while True:
                head = await reader.readexactly(7)
                pdu = await reader.readexactly(int.from_bytes(head[4:6], "big") - 1)
                unit = head[6]
                self.log.append((time.monotonic(), unit, pdu))
                if unit in self.dead or pdu[0] in self.swallow_functions:
                    continue
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                body = self.answer(pdu)
                frame = head[:4] + (len(body) + 1).to_bytes(2, "big") + head[6:7] + body
                if unit in self.late:
                    task = asyncio.create_task(self._later(writer, frame, self.late[unit]))
                    self.tasks.add(task)
                else:
                    writer.write(frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _later(self, writer: asyncio.StreamWriter, frame: bytes, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        writer.write(frame)

    def answer(self, pdu: bytes) -> bytes:
        function, addr, count = pdu[0], int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        if (function, addr) in self.refuse:
            return bytes((function | 0x80, 2))
        if function in {3, 4}:
            data = b"".join(self.words.get((function, addr + i), 0).to_bytes(2, "big") for i in range(count))
            return bytes((function, len(data))) + data
        if function in {1, 2}:
            bank = self.coils if function == 1 else self.inputs
            data = bytearray((count + 7) // 8)
            for i in range(count):
                data[i // 8] |= bank.get(addr + i, False) << i % 8
            return bytes((function, len(data))) + bytes(data)
        if function == 5:
            self.coils[addr] = count == 0xFF00
            return pdu
        return bytes((function | 0x80, 1))

    def hold(self, profile: MeterProfile, values: dict[str, float]) -> None:
        for name, value in values.items():
            point = profile.point(name)
            for i, word in enumerate(encode(point, value)):
                self.words[(4 if point.table == "input" else 3, point.addr + i)] = word

    def drop_connections(self) -> None:
        for writer in list(self.writers):
            writer.transport.abort()


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """A server with a meter's values behind a free port."""
    served = Server()
    listener = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = listener.sockets[0].getsockname()[1]
    served.hold(meter_profile(), {"power_w": 4932.0, "voltage_l1_n_v": 240.5, "energy_import_wh": 1_000_000.0})
    yield served
    for task in served.tasks:
        task.cancel()
    listener.close()
    served.drop_connections()


@contextlib.asynccontextmanager
async def running(port: int, **settings: object) -> AsyncIterator[ModbusLink]:
    link = ModbusLink(f"modbus://127.0.0.1:{port}", name="test", **{"timeout_s": 0.2, **settings})  # type: ignore[arg-type]  # keywords differ per test
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the conditions watch a server and counters that set no event
            await asyncio.sleep(0.005)
