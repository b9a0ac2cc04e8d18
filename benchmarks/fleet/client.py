"""One measured client in a process of its own: a task as JSON on standard input, figures as JSON on standard output.

Tasks: ``poll`` (the product's fleet poller at a steady rate, machines falling silent when the measuring begins),
``fill`` (the same as fast as it goes), ``floor`` (a bare asyncio loop that exchanges the same bytes at the same rate
and understands nothing), ``sleep`` (the product's fan-out of sleep commands).
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.fleet.simulated import Fleet
from config.addresses import expand
from drivers.asic.credentials import Credentials
from drivers.asic.fanout import Command, FanOut
from drivers.asic.fleet import FleetPoller, Machine
from drivers.asic.identify import driver_for
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerReader, MinerStatus, Sleeper, WriteOutcome, WriteStatus
from wire.quality import Quality

LOGIN = Credentials("root", "root")
FLOOR_COMMANDS = {
    "antminer-stock": ("summary", "stats", "pools"),
    "luxos": ("summary+stats+pools+power+config+events+version",),
}
"""What a poll of each family sends; the floor sends just the same."""


@dataclass(slots=True)
class Results:
    """What the poller told."""

    last: dict[str, MinerStatus | None]
    failed: dict[str, int]

    def take(self, machine: str, status: MinerStatus | None, quality: Quality, reason: str | None) -> None:
        """See :data:`drivers.asic.fleet.OnStatus`."""
        del quality, reason
        self.last[machine] = status
        if status is None:
            self.failed[machine] = self.failed.get(machine, 0) + 1


def machines_of(fleet: Fleet, *, writes_allowed: bool = False) -> list[Machine]:
    """The product's own drivers for all machines; ids are the fleet's numbers; a subnet is a /24."""
    made: list[Machine] = []
    for group in fleet.groups:
        web_port = expand(group["http"])[0][1] if group["http"] else None
        for host, port in expand(group["rpc"]):
            driver: MinerReader = driver_for(
                group["family"],
                host,
                rpc_port=port,
                http_port=web_port,
                credentials=LOGIN,
                timeouts=Timeouts(),
                writes_allowed=writes_allowed,
            )
            made.append(Machine(str(len(made)), driver, subnet=host.rpartition(".")[0]))
    return made


def rss_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


async def _first_answers(results: Results, count: int, limit_s: float) -> None:
    give_up_s = time.monotonic() + limit_s
    while sum(status is not None for status in results.last.values()) < count:
        if time.monotonic() > give_up_s:
            good = sum(status is not None for status in results.last.values())
            raise RuntimeError(f"{good} of {count} simulated machines answered within {limit_s:g} s")
        await asyncio.sleep(0.2)


async def poll(fleet: Fleet, task: dict[str, Any]) -> dict[str, Any]:
    """Steady polling; the machines that fall silent do so when the measuring begins, which is the hard moment."""
    machines = machines_of(fleet)
    results = Results({}, {})
    period_s, window_s = float(task["period_s"]), float(task["window_s"])
    poller = FleetPoller(machines, period_s=period_s, on_status=results.take, per_subnet=128)
    running = asyncio.create_task(poller.run())
    try:
        await _first_answers(results, len(machines), period_s * 4 + 30)
        await asyncio.sleep(period_s)  # the first round asks for what later ones know: measured is the steady state
        dead: set[str] = set()
        if task["dead_share"]:
            numbers = await asyncio.to_thread(fleet.fault, "silent", share=task["dead_share"])
            dead = {str(number) for number in numbers}
        results.failed.clear()
        counters = poller.counters
        before = (counters.answered, counters.late, counters.skipped)
        counters.lateness_max_s = 0.0
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        await asyncio.sleep(window_s)
        took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
        answered, late, skipped = (
            now - then for now, then in zip((counters.answered, counters.late, counters.skipped), before, strict=True)
        )
        lost = sum(count for machine, count in results.failed.items() if machine not in dead)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return {
        "polls_per_s": round(answered / took_s, 1),
        "cpu_ms_per_machine": round(cpu_s / answered * 1000, 4),
        "cpu_share": round(cpu_s / took_s, 3),
        # A living machine's poll is on time if it was begun within a tenth of the period and answered.
        "on_time_share": round(max(0.0, (answered - late) / (answered + skipped + lost)), 5),
        "living_not_answered": lost,
        "lateness_max_ms": round(counters.lateness_max_s * 1000, 1),
        "rss_mb": rss_mb(),
    }


async def fill(fleet: Fleet, task: dict[str, Any]) -> dict[str, Any]:
    """As many polls as one process manages: every machine is due again as soon as it has answered."""
    machines = machines_of(fleet)
    results = Results({}, {})
    poller = FleetPoller(machines, period_s=0.001, max_backoff_s=1.0, on_status=results.take, per_subnet=256)
    running = asyncio.create_task(poller.run())
    try:
        await _first_answers(results, len(machines), 60)
        before, began_s, began_cpu_s = poller.counters.answered, time.monotonic(), time.process_time()
        await asyncio.sleep(task["window_s"])
        answered = poller.counters.answered - before
        took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return {"polls_per_s": round(answered / took_s, 1), "cpu_ms_per_machine": round(cpu_s / answered * 1000, 4)}


class _Bare(asyncio.Protocol):
    """Sends one request, collects one answer."""

    def __init__(self, request: bytes, answer: asyncio.Future[bytes]) -> None:
        self._request = request
        self._answer = answer
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if data.endswith(b"\x00") and not self._answer.done():
            self._answer.set_result(bytes(self._received))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed without an answer"))


async def floor(fleet: Fleet, task: dict[str, Any]) -> dict[str, Any]:
    """The least there is with asyncio: the same connections and bytes at the same rate, nothing parsed, no deadline."""
    loop = asyncio.get_running_loop()
    targets = [(at, FLOOR_COMMANDS[group["family"]]) for group in fleet.groups for at in expand(group["rpc"])]
    rate = len(targets) / float(task["period_s"])

    async def one(host: str, port: int, commands: tuple[str, ...]) -> None:
        for command in commands:
            answer: asyncio.Future[bytes] = loop.create_future()
            request = json.dumps({"command": command}).encode()
            transport, _ = await loop.create_connection(partial(_Bare, request, answer), host, port)
            await answer
            transport.close()

    open_: set[asyncio.Task[None]] = set()
    began_s, began_cpu_s = loop.time(), time.process_time()
    count = round(rate * task["window_s"])
    for number in range(count):
        wait_s = began_s + number / rate - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        (host, port), commands = targets[number % len(targets)]
        polled = asyncio.create_task(one(host, port, commands))
        open_.add(polled)
        polled.add_done_callback(open_.discard)
    await asyncio.gather(*open_)
    took_s, cpu_s = loop.time() - began_s, time.process_time() - began_cpu_s
    return {
        "polls_per_s": round(count / took_s, 1),
        "cpu_ms_per_machine": round(cpu_s / count * 1000, 4),
        "rss_mb": rss_mb(),
    }


async def sleep(fleet: Fleet, task: dict[str, Any]) -> dict[str, Any]:
    """Every machine read once as in service, then all told to sleep: prior state, command, read-back."""
    machines = machines_of(fleet, writes_allowed=True)
    results = Results({}, {})
    poller = FleetPoller(machines, period_s=task["period_s"], on_status=results.take, per_subnet=128)
    running = asyncio.create_task(poller.run())
    try:
        await _first_answers(results, len(machines), task["period_s"] * 4 + 60)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    commands = [Command(machine.id, _sleep_of(machine.reader), machine.subnet) for machine in machines]
    began_cpu_s = time.process_time()
    report = await FanOut().run(commands)
    cpu_s = time.process_time() - began_cpu_s
    if (good := report.count(WriteStatus.ACKNOWLEDGED)) < len(machines):
        first = next(one for one in report.written if one.outcome.status is not WriteStatus.ACKNOWLEDGED)
        raise RuntimeError(f"{good} of {len(machines)} machines acknowledged; first other: {first.outcome.detail}")
    return {
        "sleep_fanout_s": round(report.started_s, 2),
        "sleep_acknowledged_s": round(report.took_s, 2),
        "sleep_cpu_ms_per_machine": round(cpu_s / len(machines) * 1000, 3),
    }


def _sleep_of(driver: MinerReader) -> Any:
    if not isinstance(driver, Sleeper):
        raise TypeError(f"{driver.family} cannot sleep")
    sleeper = driver

    async def told() -> WriteOutcome:
        await sleeper.prior_state()
        return await sleeper.sleep()

    return told


TASKS = {"poll": poll, "fill": fill, "floor": floor, "sleep": sleep}


def main() -> None:
    """Read the task, do it, print the figures."""
    task = json.load(sys.stdin)
    fleet = Fleet(task["groups"], task["control_port"])
    gc.collect()
    sys.stdout.write(json.dumps(asyncio.run(TASKS[task["task"]](fleet, task))) + "\n")


if __name__ == "__main__":
    main()
