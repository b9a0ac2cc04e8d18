"""The other side of links in tests: a device of its own process, and one that answers late."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from drivers.modbus import MeterDevice, ModbusLink
from drivers.profiles import load_profile
from drivers.profiles.model import MeterProfile

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "benchmarks" / "fieldbus_sides" / "benchmark_32_floats.yaml"
POINTS = ("power_w", "frequency_hz")


class Device:
    """Many units as a process of their own, so that its speed is not ours."""

    def __init__(self, ports: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fieldbus_sides.device", str(ports)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.ports: list[int] = json.loads(self._process.stdout.readline())["ports"]

    def tell(self, order: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def meter(unit: int) -> MeterDevice:
    profile = load_profile(PROFILE)
    assert isinstance(profile, MeterProfile)
    return MeterDevice(f"m{unit}", unit, profile)


@contextlib.asynccontextmanager
async def running(*links: ModbusLink) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(link.run()) for link in links]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the conditions watch counters that set no event
            await asyncio.sleep(0.01)


class Slow:
    """Answers each connection after a while; notes how many questions of a unit and in all are open at once."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.open: list[int] = []
        self.most = 0
        self.twice = False
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readexactly(12)
                unit, count = request[6], request[11]
                self.twice = self.twice or unit in self.open
                self.open.append(unit)
                self.most = max(self.most, len(self.open))
                await asyncio.sleep(self.delay_s)
                self.open.remove(unit)
                writer.write(request[:4] + (3 + 2 * count).to_bytes(2, "big") + request[6:8] + bytes((2 * count,)))
                writer.write(bytes(2 * count))
        writer.close()


@contextlib.asynccontextmanager
async def served(handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[int]:
    listener = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
