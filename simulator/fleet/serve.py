"""A fleet as a program: started, announced as one JSON line, served until a signal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import IO

from simulator.fleet.fleet import SimulatedFleet
from simulator.fleet.kinds import parse_mix
from simulator.loopback import SimulationError


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What the command lines of a fleet set."""

    machines: int = 1000
    mix: str = "antminer-stock=60,luxos=40"
    first_host: str = "127.16.0.1"
    rpc_port: int = 0
    web_port: int = 0
    control_port: int | None = None
    time_scale: float = 1.0
    seed: int = 0
    until_eof: bool = False
    """End when standard input is closed: then no fleet outlives who started it."""


def serve(options: FleetOptions, out: IO[str] = sys.stdout) -> None:
    """Run a fleet until SIGINT or SIGTERM.

    Raises:
        SimulationError: it cannot be started.
        ValueError: machines, mix or time scale are out of range.
    """
    if not 0.001 <= options.time_scale <= 10_000:
        raise ValueError(f"time scale: saw {options.time_scale:g}, expected 0.001 to 10000")
    for port in (options.rpc_port, options.web_port, options.control_port or 0):
        if not 0 <= port <= 65535:
            raise ValueError(f"port: saw {port}, expected 0 to 65535")
    fleet = SimulatedFleet(
        parse_mix(options.mix, options.machines),
        first_host=options.first_host,
        time_scale=options.time_scale,
        seed=options.seed,
    )
    asyncio.run(_run(fleet, options, out))


async def _run(fleet: SimulatedFleet, options: FleetOptions, out: IO[str]) -> None:
    from simulator.fleet.control import FleetControl

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    control = FleetControl(fleet)
    control_port: int | None = None
    await fleet.start(options.rpc_port, options.web_port)
    try:
        if options.control_port is not None:
            try:
                control_port = await control.start(options.control_port)
            except OSError as error:
                raise SimulationError(
                    f"control port {options.control_port}: cannot be bound ({error.strerror})"
                ) from error
        out.write(json.dumps({"control_port": control_port, "groups": fleet.addresses()}) + "\n")
        out.flush()
        if options.until_eof:
            loop.add_reader(sys.stdin.fileno(), _at_eof, stop)
        await stop.wait()
    finally:
        await control.stop()
        await fleet.stop()


def _at_eof(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()
