"""What a large fleet adds to polling: machines that are about to come back, and file descriptors that are too few."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable

from drivers.asic.fleet import FleetPoller, Machine
from drivers.capabilities import MinerStatus
from drivers.errors import NoConnection


class Reader:
    """A machine in memory that is there or not."""

    family = "fake"

    def __init__(self) -> None:
        self.there = False
        self.asked = 0

    async def status(self) -> MinerStatus:
        self.asked += 1
        if not self.there:
            raise NoConnection("off")
        return MinerStatus(family="fake")


async def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - the counters watched are plain numbers
            await asyncio.sleep(0.005)


async def test_machines_that_are_expected_back_are_tried_within_a_period_however_long_they_were_dead() -> None:
    readers = [Reader() for _ in range(20)]
    machines = [Machine(f"m{n}", reader) for n, reader in enumerate(readers)]
    poller = FleetPoller(machines, period_s=0.1, max_backoff_s=3600.0, on_status=lambda *_: None)
    poller.expect(["m0"])  # not running yet: everything is tried at the start anyway
    running = asyncio.create_task(poller.run())
    try:
        await until(lambda: all(reader.asked >= 6 for reader in readers))  # by now the pauses are seconds
        asked = [reader.asked for reader in readers]
        for reader in readers[:10]:
            reader.there = True
        poller.expect([f"m{n}" for n in range(10)] + ["never-heard-of"])
        await until(lambda: poller.counters.answered >= 10 and all(reader.asked > 8 for reader in readers[:10]))
        assert all(reader.asked <= before + 2 for reader, before in zip(readers[10:], asked[10:], strict=True))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


LIMITED = """
import asyncio, json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
import structlog
from drivers.asic.descriptors import descriptors_for
log = []
structlog.configure(processors=[lambda _l, _n, event: log.append(event) or (_ for _ in ()).throw(structlog.DropEvent)])
possible = descriptors_for(int(sys.argv[3]))
print(json.dumps({"possible": possible, "limits": resource.getrlimit(resource.RLIMIT_NOFILE), "log": log}))
"""


def limited(soft: int, hard: int, wanted: int) -> dict[str, object]:
    """What a process with such limits finds possible."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(soft), str(hard), str(wanted)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(json.loads(done.stdout))


def test_the_soft_limit_is_raised_only_where_it_has_to_be() -> None:
    assert limited(1024, 4096, 500) == {"possible": 500, "limits": [1024, 4096], "log": []}
    assert limited(1024, 4096, 2000) == {"possible": 2000, "limits": [4096, 4096], "log": []}


def test_too_low_a_hard_limit_is_said_clearly_and_lived_with() -> None:
    found = limited(512, 1024, 5000)
    assert found["possible"] == 1024 - 256
    assert found["limits"] == [1024, 1024]
    (event,) = found["log"]  # type: ignore[misc]  # a list of one
    assert event["event"] == "file_descriptors_too_few"
    assert (event["limit"], event["needed"], event["connections"]) == (1024, 5256, 768)
    assert "LimitNOFILE=5256" in event["do"]
    assert limited(64, 64, 10)["possible"] == 1
