"""Our side: links, scheduler, decoding to samples.

    python -m benchmarks.fieldbus_sides.ours '{"ports": [...], "units": 100, "period_s": 1.0, "timeout_s": 0.5}'

``period_s: 0`` asks as fast as answers come. Each line on standard input is answered by one line of JSON; ``reset``
begins to count anew, ``figures`` tells. Ends when standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from drivers.capabilities import Sample
from drivers.modbus import MeterDevice, ModbusLink
from drivers.profiles import load_profile
from drivers.profiles.model import MeterProfile

FLAT_OUT_PERIOD_S = 1e-6
"""Times the square of the units: shorter than a round over all of them takes."""
PROFILE = Path(__file__).with_name("benchmark_32_floats.yaml")


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


class Ours:
    """All devices, spread over the ports."""

    def __init__(self, wanted: dict[str, Any], base_mb: float) -> None:
        profile = load_profile(PROFILE)
        assert isinstance(profile, MeterProfile)
        self.profile = profile
        self.points = tuple(p.id for p in profile.points)
        self.period_s = float(wanted["period_s"])
        self.units = int(wanted["units"])
        ports = wanted["ports"]
        self.links = [
            ModbusLink(f"modbus://127.0.0.1:{port}", name=f"port-{port}", timeout_s=float(wanted["timeout_s"]))
            for port in ports
        ]
        self.devices = [(self.links[n % len(ports)], MeterDevice(f"m{n}", n + 1, profile)) for n in range(self.units)]
        self.base_mb = base_mb
        self.reset()

    def reset(self) -> None:
        """Count from now on."""
        self.good = self.bad = 0
        self.begun, self.cpu = time.monotonic(), time.process_time()
        for link in self.links:
            link.stats.lateness_ms.clear()
            link.stats.on_time = link.stats.late = 0

    def take(self, sample: Sample) -> None:
        """A sample: counted, and looked at as an agent would."""
        if sample.ok:
            self.good += 1
        else:
            self.bad += 1

    def figures(self) -> dict[str, Any]:
        """What was counted."""
        passed = time.monotonic() - self.begun
        lateness = sorted(ms for link in self.links for ms in link.stats.lateness_ms)
        return {
            "seconds": passed,
            "samples": self.good,
            "failed": self.bad,
            "on_time": sum(link.stats.on_time for link in self.links),
            "late": sum(link.stats.late for link in self.links),
            "lateness_ms": lateness,
            "cpu_share": (time.process_time() - self.cpu) / passed,
            "rss_mb": _rss_mb(),
            "base_mb": self.base_mb,
        }

    async def run(self) -> None:
        """Until standard input ends."""
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(link.run()) for link in self.links]
        # Flat out: a period that no link can keep, so that it is never idle.
        period_s = self.period_s or FLAT_OUT_PERIOD_S * self.units**2
        for link, device in self.devices:
            link.poll(device, self.points, period_s, self.take)
        orders: asyncio.Queue[str] = asyncio.Queue()

        def read() -> None:
            text = os.read(sys.stdin.fileno(), 4096).decode()
            for line in text.splitlines() or ["end"]:
                orders.put_nowait(line)

        loop.add_reader(sys.stdin.fileno(), read)
        sys.stdout.write(json.dumps({"ready": True}) + "\n")
        sys.stdout.flush()
        while (order := await orders.get()) != "end":
            if order == "reset":
                self.reset()
            sys.stdout.write(json.dumps(self.figures()) + "\n")
            sys.stdout.flush()
        loop.remove_reader(sys.stdin.fileno())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
    asyncio.run(Ours(json.loads(sys.argv[1]), _rss_mb()).run())
