"""Simulated machines in a process of their own, so that the agent is measured and not the simulator.

``python -m benchmarks.miners N`` prints the ports as one JSON line and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from simulator.devices.asic import AsicServer, LuxosMiner, StockAntminer
from simulator.devices.models import StandaloneMachine


@dataclass(frozen=True, slots=True)
class MinerPorts:
    """Where one simulated machine answers."""

    family: str
    rpc_port: int
    http_port: int | None


async def _serve(count: int) -> None:
    servers: list[tuple[str, AsicServer]] = [
        ("antminer-stock", StockAntminer(StandaloneMachine()))
        if i % 2 == 0
        else ("luxos", LuxosMiner(StandaloneMachine()))
        for i in range(count)
    ]
    try:
        for _, server in servers:
            await server.start()
        ports = [[family, server.rpc_port, server.http_port] for family, server in servers]
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
    finally:
        for _, server in servers:
            await server.stop()


@contextlib.asynccontextmanager
async def simulated_miners(count: int) -> AsyncIterator[list[MinerPorts]]:
    """Machines on free ports of the loopback, half of each family, for as long as the block runs."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.miners",
        str(count),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        line = await asyncio.wait_for(child.stdout.readline(), 30)
        if not line:
            raise RuntimeError("the simulated machines did not start; their message is above")
        yield [MinerPorts(*entry) for entry in json.loads(line)]
    finally:
        child.stdin.close()
        try:
            await asyncio.wait_for(child.wait(), 10)
        except TimeoutError:
            child.kill()
            await child.wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
