"""Polling over Modbus TCP: throughput, what silent units cost the others, lateness, processor time and memory.

    python -m benchmarks.fieldbus [--quick] [--json] [--cache FOLDER] [--only NAME ...]

One device of 32 floats (30 in a row and two apart: two requests where they are put together, 32 where not). All sides
ask the same device process, which counts for all of them. ``regs_per_s_1`` and ``_100``: flat out, one unit and 100
units behind one connection, all sides in turn, medians. ``on_time_share_N_dead``: 100 units each second, N of them fall
silent as the count begins; the share of the polls of the others that came. ``lateness``: from due to decoded, nobody
silent. ``cpu_share_100x32`` of one core and ``rss_mb`` while 100 units are read each second. Delivery to a broker is in
no side.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.fieldbus_sides.peers import PEERS, TIMEOUT_S, Command, Peer, PeerError, Task, cache_folder

ROOT = Path(__file__).parents[1]
UNITS = 100
PERIOD_S = 1.0
DEAD = {1: "5", 10: "5,15,25,35,45,55,65,75,85,95"}
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long each part takes."""

    flat_s: float
    watch_s: float
    calm_s: float
    repeats: int


FULL = Sizes(flat_s=4.0, watch_s=15.0, calm_s=3.0, repeats=3)
QUICK = Sizes(flat_s=1.0, watch_s=2.2, calm_s=0.3, repeats=1)


class Spoken:
    """A process that answers lines with lines of JSON."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip
        self.first = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told

    def tell(self, order: str) -> dict[str, Any]:
        """One order and its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it by the end of its input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def device(ports: int = 1) -> Iterator[Spoken]:
    """The device side."""
    made = Spoken("benchmarks.fieldbus_sides.device", str(ports))
    try:
        yield made
    finally:
        made.close()


def cpu_s(pid: int) -> float:
    """Processor time a process has used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


@contextlib.contextmanager
def started(command: Command) -> Iterator[subprocess.Popen[bytes]]:
    """A peer at work; killed at the end."""
    process = subprocess.Popen(
        command.argv,
        cwd=command.folder,
        env=os.environ | command.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_requests(side: Spoken, process: subprocess.Popen[Any], at_least: int) -> None:
    """Until a side asks.

    Raises:
        PeerError: it ended, or never asked.
    """
    end = time.monotonic() + START_S
    while side.tell("counts")["requests"] < at_least:
        if process.poll() is not None:
            raise PeerError(f"ended with {process.returncode} before it asked anything")
        if time.monotonic() > end:
            raise PeerError(f"asked nothing for {START_S:g} s")
        time.sleep(0.1)


def counted(side: Spoken, seconds: float) -> dict[str, Any]:
    """What was asked of the device in the next seconds."""
    side.tell("reset")
    time.sleep(seconds)
    return side.tell("counts")


def share(counts: dict[str, Any], dead: str, *, by_port: bool = False) -> float:
    """Polls of the healthy units that came, of those that were due; no unit makes up for another."""
    silent = {int(n.lstrip("@")) for n in dead.split(",") if n}
    due = int(counts["seconds"] / PERIOD_S)
    came = {(port if by_port else unit): n for port, unit, n in counts["polls"]}
    healthy = [n for n in (range(UNITS) if by_port else range(1, UNITS + 1)) if n not in silent]
    return float(sum(min(1.0, came.get(n, 0) / due) for n in healthy) / len(healthy))


def watched(side: Spoken, process: subprocess.Popen[Any], sizes: Sizes) -> dict[str, Any]:
    """The figures at a real rate, for any side that polls now."""
    before = cpu_s(process.pid)
    calm = counted(side, sizes.watch_s)
    found: dict[str, Any] = {
        "on_time_share_0_dead": share(calm, ""),
        "cpu_share_100x32": (cpu_s(process.pid) - before) / calm["seconds"],
        "rss_mb": rss_mb(process.pid),
    }
    for number, names in DEAD.items():
        side.tell(f"dead {names}")
        found[f"on_time_share_{number}_dead"] = share(counted(side, sizes.watch_s), names)
        side.tell("dead")
        time.sleep(sizes.calm_s)
    return found


# -- sides -------------------------------------------------------------------------------------------------------------

Start = Callable[[int, int, float, Path], contextlib.AbstractContextManager[subprocess.Popen[Any]]]
"""(port, units, period in s, folder for files) → a side at work."""


def start_peer(peer: Peer, home: Path) -> Start:
    """How a peer that is installed is put to work."""
    return lambda port, units, period_s, folder: started(peer.command(home, Task(port, units, period_s, folder)))


def start_floor(kind: str) -> Start:
    """How a floor is put to work."""

    def start(
        port: int, units: int, _period_s: float, _folder: Path
    ) -> contextlib.AbstractContextManager[subprocess.Popen[Any]]:
        argv = [sys.executable, "-m", "benchmarks.fieldbus_sides.floor", kind, str(port), str(units), "3600"]
        return started(Command(argv, {}, ROOT))

    return start


@contextlib.contextmanager
def start_ours(port: int, units: int, period_s: float, _folder: Path) -> Iterator[subprocess.Popen[Any]]:
    """Our links at work, judged from outside alone."""
    with ours([port], units, period_s) as us:
        yield us.process


def flat_out(start: Start, units: int, sizes: Sizes) -> float:
    """Registers a second, as fast as a side can."""
    with (
        tempfile.TemporaryDirectory() as folder,
        device() as side,
        start(side.first["ports"][0], units, 0.0, Path(folder)) as process,
    ):
        wait_for_requests(side, process, 10 * units)
        counts = counted(side, sizes.flat_s)
        return float(counts["registers"] / counts["seconds"])


def at_a_real_rate(start: Start, sizes: Sizes) -> dict[str, Any]:
    """A peer polling 100 units each second."""
    with (
        tempfile.TemporaryDirectory() as folder,
        device() as side,
        start(side.first["ports"][0], UNITS, PERIOD_S, Path(folder)) as process,
    ):
        wait_for_requests(side, process, 2 * UNITS)
        time.sleep(sizes.calm_s)
        return watched(side, process, sizes)


@contextlib.contextmanager
def ours(ports: Sequence[int], units: int, period_s: float) -> Iterator[Spoken]:
    """Our links at work."""
    wanted = {"ports": list(ports), "units": units, "period_s": period_s, "timeout_s": TIMEOUT_S}
    made = Spoken("benchmarks.fieldbus_sides.ours", json.dumps(wanted))
    try:
        yield made
    finally:
        made.close()


def our_figures(sizes: Sizes) -> dict[str, Any]:
    """Our side at a real rate, with 100 hosts, and with what only we can tell."""
    with device() as side, ours(side.first["ports"], UNITS, PERIOD_S) as us:
        wait_for_requests(side, us.process, 2 * UNITS)
        time.sleep(sizes.calm_s)
        us.tell("reset")
        found = watched_ours(side, us, sizes)
    with device(UNITS) as side, ours(side.first["ports"], UNITS, PERIOD_S) as us:
        wait_for_requests(side, us.process, 2 * UNITS)
        names = ",".join(f"@{n}" for n in range(4, UNITS, 10))
        side.tell(f"dead {names}")
        found["on_time_share_10_dead_hosts"] = share(counted(side, sizes.watch_s), names, by_port=True)
    return found


def watched_ours(side: Spoken, us: Spoken, sizes: Sizes) -> dict[str, Any]:
    """Like :func:`watched`, with the lateness that only we can tell."""
    before = cpu_s(us.process.pid)
    calm = counted(side, sizes.watch_s)
    told = us.tell("figures")
    found: dict[str, Any] = {
        "on_time_share_0_dead": share(calm, ""),
        "cpu_share_100x32": (cpu_s(us.process.pid) - before) / calm["seconds"],
        "rss_mb": rss_mb(us.process.pid),
        "rss_over_base_mb": round(rss_mb(us.process.pid) - told["base_mb"], 1),
        "lateness_p50_ms": common.percentile(told["lateness_ms"], 0.5),
        "lateness_p99_ms": common.percentile(told["lateness_ms"], 0.99),
    }
    for number, names in DEAD.items():
        us.tell("reset")
        side.tell(f"dead {names}")
        found[f"on_time_share_{number}_dead"] = share(counted(side, sizes.watch_s), names)
        found[f"lateness_p99_{number}_dead_ms"] = common.percentile(us.tell("figures")["lateness_ms"], 0.99)
        side.tell("dead")
        time.sleep(sizes.calm_s)
    return found


def throughput(sides: dict[str, Start], sizes: Sizes) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Registers a second of all sides, in turn and again, so that a busy moment hits all of them; and who failed."""
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
    failed: dict[str, str] = {}
    for _ in range(sizes.repeats):
        for units in (1, UNITS):
            for name, start in sides.items():
                if name in failed:
                    continue
                try:
                    rates[name].setdefault(f"regs_per_s_{units}", []).append(flat_out(start, units, sizes))
                except (PeerError, OSError) as error:
                    failed[name] = str(error)
    return {n: {k: statistics.median(v) for k, v in found.items()} for n, found in rates.items()}, failed


def ratios(us: dict[str, Any], floor: dict[str, Any], peers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ours to theirs. For processor time and memory less is better."""
    found: dict[str, Any] = {
        f"{key}_to_floor": us[key] / floor[key] for key in ("regs_per_s_1", "regs_per_s_100") if floor.get(key)
    }
    for name, figures in peers.items():
        for key in ("regs_per_s_1", "regs_per_s_100", "cpu_share_100x32", "rss_mb", "on_time_share_10_dead"):
            if figures.get(key):
                found[f"{key}_to_{name}"] = us[key] / figures[key]
    return found


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures as they are printed: four digits say what a run is worth."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figures.items()}


def main() -> None:
    """Measure and print."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--cache", type=Path, default=cache_folder(), help="where peers are installed, once")
    arguments.add_argument("--only", nargs="*", default=None, help="these peers alone (none: no peer)")
    given = arguments.parse_args()
    sizes = QUICK if given.quick else FULL
    peers: dict[str, dict[str, Any]] = {}
    sides: dict[str, Start] = {"ours": start_ours, "pymodbus": start_floor("pymodbus")}
    for peer in PEERS:
        if given.only is None or peer.name in given.only:
            peers[peer.name] = {"version": peer.version}
            try:
                sides[peer.name] = start_peer(peer, peer.install(given.cache))
            except (PeerError, OSError) as error:
                peers[peer.name]["error"] = str(error)
    rates, failed = throughput(sides, sizes)
    us: dict[str, Any] = rounded(rates["ours"] | our_figures(sizes))
    floor = rounded(rates["pymodbus"] | {"device_regs_per_s": flat_out(start_floor("ahead"), UNITS, sizes)})
    for name, figures in peers.items():
        if name not in sides:
            continue
        figures.update(rounded(rates[name]))
        try:
            if name in failed:
                raise PeerError(failed[name])
            figures.update(rounded(at_a_real_rate(sides[name], sizes)))
        except (PeerError, OSError) as error:
            figures["error"] = str(error)
    common.report(
        "fieldbus",
        folder=given.folder,
        ours=us,
        floor=floor,
        ratios=rounded(ratios(us, floor, peers)),
        as_json=given.json,
        peers=peers,
    )


if __name__ == "__main__":
    main()
