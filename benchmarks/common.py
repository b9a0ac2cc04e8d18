"""What every measurement shares: the command line, percentiles, the machine, and where files are put."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog


def parser(description: str) -> argparse.ArgumentParser:
    """A command line with ``--quick``, ``--json`` and ``--folder``."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="smaller sizes, at most 90 s")
    made.add_argument("--json", action="store_true", help="print JSON (otherwise one line per figure)")
    made.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        help="where databases are put (default: here; a RAM disk measures nothing)",
    )
    return made


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """The agent logs as in service, into a file: standard output is for the result."""
    with path.open("w", encoding="utf-8") as file:
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=file), cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.reset_defaults()


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile: a value that was really seen.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values: nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rss_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def machine(folder: Path) -> dict[str, Any]:
    """Cores, processor, Python and the file system the databases are on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "file_system": _file_system(folder),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """Type of the file system that holds a folder: the longest mount point that is a prefix."""
    target, best, kind = folder.resolve(), "", "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, found, *_ = line.split()
        if target.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def report(
    name: str,
    *,
    folder: Path,
    ours: dict[str, Any],
    floor: dict[str, Any],
    ratios: dict[str, Any],
    as_json: bool,
    peers: dict[str, Any] | None = None,
) -> None:
    """Print one result; a peer that was not measured is left out."""
    result = {
        "name": name,
        "machine": machine(folder),
        "ours": ours,
        "peers": peers or {},
        "floor": floor,
        "ratios": ratios,
    }
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for key, value in _flat(result):
        if "." in key:
            sys.stdout.write(f"{name} {key} = {value}\n")


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Figures of groups within groups under names with dots."""
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
