"""What is possible at all: the same questions without scheduler and without decoding.

    python -m benchmarks.fieldbus_sides.floor pymodbus|ahead PORT UNITS SECONDS

``pymodbus``: its asynchronous client in a loop. ``ahead``: questions sent ahead on a bare socket, which nobody may do
to a real device: what the device side could give if nobody waited.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from itertools import cycle

from pymodbus.client import AsyncModbusTcpClient

BLOCKS = ((0, 60), (342, 4))
"""Address and count of the two requests that read the 32 values."""


async def bare_pymodbus(port: int, units: int, seconds: float) -> None:
    """Read the blocks of each unit in turn."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0, reconnect_delay=0)
    await client.connect()
    end = time.monotonic() + seconds
    for unit in cycle(range(1, units + 1)):
        for address, count in BLOCKS:
            answer = await client.read_input_registers(address, count=count, device_id=unit)
            assert len(answer.registers) == count
        if time.monotonic() >= end:
            break
    client.close()


def ahead(port: int, units: int, seconds: float) -> None:
    """Questions sent ahead of their answers: the most that the device side can give."""
    burst = b"".join(
        struct.pack(">HHHBBHH", unit, 0, 6, unit, 4, address, count)
        for unit in range(1, units + 1)
        for address, count in BLOCKS
    )
    wanted = units * sum(9 + 2 * count for _, count in BLOCKS)
    end = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while time.monotonic() < end:
            sock.sendall(burst)
            left = wanted
            while left:
                left -= len(sock.recv(65536))


if __name__ == "__main__":
    kind, port, units, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    if kind == "pymodbus":
        asyncio.run(bare_pymodbus(port, units, seconds))
    else:
        ahead(port, units, seconds)
