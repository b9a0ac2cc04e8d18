"""The grid operator's own metering of the demo: it reads the plants' true meters itself, past agent and central.

What it read at two slot boundaries it signs with the grid operator's key, for the verifier.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from grid.acts import write_envelope
from grid.errors import GridError
from grid.readings import sign_reading
from wire.keys import SigningKey

SOURCE = "the grid operator's own reading of the simulated meter"
LATE_S = 0.5
"""A reading further behind its boundary than this is not taken for it."""
TRIES = 4


@dataclass(frozen=True, slots=True)
class Taken:
    """True import registers, Wh: site → point → reading, at one slot boundary (epoch s)."""

    at_s: int
    sites: Mapping[str, Mapping[str, float]]


def take(doors: Mapping[str, int], slot_s: int) -> Taken:
    """Wait for the next slot boundary and read every plant.

    Args:
        doors: site → port of its simulation's door.
        slot_s: length of a slot.

    Raises:
        GridError: a plant does not answer in time.
    """
    why = "not tried"
    for _ in range(TRIES):
        at_s = (int(time.time()) // slot_s + 1) * slot_s
        time.sleep(max(0.0, at_s - time.time()))
        try:
            found = {site: _registers(port) for site, port in doors.items()}
        except (httpx.HTTPError, ValueError, KeyError) as error:
            why = f"{type(error).__name__}: {error}"
            continue
        if time.time() - at_s <= LATE_S:
            return Taken(at_s, found)
        why = f"read {time.time() - at_s:.1f} s after the boundary"
    raise GridError(f"the grid operator's own reading: {why}")


def _registers(port: int) -> dict[str, float]:
    state: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/state", timeout=2, trust_env=False).json()
    return {str(point): float(wh) for point, wh in state["import_wh"].items()}


def sign(
    folder: Path, points: Mapping[str, list[str]], first: Taken, last: Taken, key: SigningKey
) -> dict[str, list[str]]:
    """One signed reading per metering point; returns site → files.

    Args:
        points: site → metering points at its boundary.
    """
    files: dict[str, list[str]] = {}
    for site, names in points.items():
        for point in names:
            wh = int(last.sites[site][point]) - int(first.sites[site][point])
            span = {"from_s": first.at_s, "to_s": last.at_s}
            file = folder / f"reading-{site}-{point}.json"
            write_envelope(file, sign_reading(site=site, point=point, wh=wh, source=SOURCE, key=key, **span))
            files.setdefault(site, []).append(str(file))
    return files
