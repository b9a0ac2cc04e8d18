"""Every recorded answer of every maker, given to the drivers the agent uses: never a crash, never a made-up zero."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from drivers.asic.fleet import FleetPoller, Machine
from drivers.asic.identify import driver_for, families
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus
from wire.quality import Quality

ZERO = r'"?\s*[:=\[]\s*\[?"?\s*0+(\.0+)?\s*("|,|\]|\}|\s|$|[A-Za-z])'
SAID_ZERO = {
    "hashrate_ths": re.compile(rf"(hs|rate|rt|hash)[^\n:=\[]{{0,40}}{ZERO}", re.IGNORECASE),
    "power_w": re.compile(rf"(power|watt|consum|PS)[^\n:=\[]{{0,40}}{ZERO}", re.IGNORECASE),
}
"""Where a status says 0, the machine has to have said 0 of something of the kind."""

WAYS = {
    "as recorded": lambda data: data + b"\x00",
    "without the final NUL": lambda data: data,
    "cut in half": lambda data: data[: len(data) // 2],
    "twice": lambda data: data + data + b"\x00",
    "with bytes of another alphabet": lambda data: data.replace(b'"', b'\xff"', 3) + b"\x00",
}


@dataclass(frozen=True)
class Seen:
    status: MinerStatus | None
    quality: Quality
    error: str | None


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A machine that says the same to everything it is asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(4096)
            writer.write(answer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def poll(answers: dict[str, bytes]) -> dict[str, Seen]:
    """Each answer read by each driver, through the fleet poller."""
    seen: dict[str, Seen] = {}
    done = asyncio.Event()
    servers = []
    machines = []
    for name, answer in answers.items():
        server = answering(answer)
        port = await server.__aenter__()
        servers.append(server)
        for family in families():
            driver = driver_for(
                family, "127.0.0.1", rpc_port=port, http_port=None, timeouts=Timeouts(rpc_s=2.0, status_s=6.0)
            )
            machines.append(Machine(f"{family}:{name}", driver))

    def take(machine: str, status: MinerStatus | None, quality: Quality, error: str | None) -> None:
        seen.setdefault(machine, Seen(status, quality, error))
        if len(seen) == len(machines):
            done.set()

    poller = asyncio.create_task(FleetPoller(machines, period_s=2.0, deadline_s=8.0, on_status=take).run())
    try:
        async with asyncio.timeout(50):
            await done.wait()
    finally:
        poller.cancel()
        await asyncio.gather(poller, return_exceptions=True)
        for server in servers:
            await server.__aexit__(None, None, None)
    return seen


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "asic"
    if not folder.is_dir():
        pytest.skip("left out: ../shared/data is not beside this checkout")
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix in {".json", ".txt"}]
    files = [f for f in files if f.name != "expected.json" and f.parent.name != "LICENSES"]
    assert len(files) > 100
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


@pytest.mark.parametrize("way", WAYS)
async def test_no_recorded_answer_crashes_a_driver_or_becomes_a_zero_it_did_not_say(
    recordings: dict[str, bytes], way: str
) -> None:
    answers = {name: WAYS[way](data) for name, data in recordings.items()}
    with structlog.testing.capture_logs() as logs:
        seen = await poll(answers)
    crashed = [(line["machine"], line) for line in logs if line["event"] == "miner_driver_failed"]
    assert not crashed, crashed[:3]
    assert len(seen) == len(answers) * len(families())
    if way == "as recorded":
        assert sum(found.status is not None for found in seen.values()) > 50, "many can be read"
    for machine, found in seen.items():
        if found.status is None:
            assert found.quality is not Quality.GOOD, machine
            assert found.error, f"{machine}: unknown without a reason"
            continue
        said = answers[machine.partition(":")[2]].decode("utf-8", "replace")
        for field, pattern in SAID_ZERO.items():
            if getattr(found.status, field) == 0:
                assert pattern.search(said), f"{machine}: {field} is 0 and the machine said no such thing"
        assert found.status.temperature_max_c != 0, f"{machine}: 0 °C is no temperature of a chip"
        assert all(board.hashrate_ths is None or board.hashrate_ths >= 0 for board in found.status.boards)
