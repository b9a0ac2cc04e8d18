"""Plans on their way to the running gateway: one file each, taken whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from grid.errors import GridError
from grid.files import read_bounded, replace_file
from grid.gateway.plan import Plan, parse_plan
from wire.orders import MAX_POWER_TEXT

MAX_BYTES = 65_536 + 2 * MAX_POWER_TEXT


@dataclass(frozen=True, slots=True)
class Handed:
    """A plan with its powers, as base64 of their envelopes."""

    plan: Plan
    mandate: str
    declaration: str | None = None


def open_folder(folder: Path) -> Path:
    """The gateway's own folder, made if absent.

    Raises:
        GridError: others may write there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "inbox").mkdir(mode=0o700, exist_ok=True)
        seen = folder.stat()
    except OSError as error:
        raise GridError(f"{folder}: {error.strerror or error}") from None
    if stat.S_IMODE(seen.st_mode) & 0o022 or seen.st_uid not in {os.geteuid(), 0}:
        raise GridError(f"{folder}: others may write there and start plans; run 'chmod 700 {folder}'")
    return folder


def hand_over(folder: Path, handed: Handed) -> Path:
    """Put a plan where the running gateway finds it.

    Raises:
        GridError: the folder cannot be written.
    """
    path = open_folder(folder) / "inbox" / f"{handed.plan.id}.json"
    body = {"plan": handed.plan.encode().decode(), "mandate": handed.mandate, "declaration": handed.declaration}
    replace_file(path, json.dumps(body).encode(), mode=0o600)
    return path


def waiting(folder: Path) -> list[Path]:
    """Plans that wait, oldest id first."""
    return sorted((folder / "inbox").glob("*.json"))


def take(path: Path) -> Handed:
    """A plan that waits.

    Raises:
        GridError: not such a file.
    """
    try:
        doc = json.loads(read_bounded(path, MAX_BYTES))
        plan, mandate, declaration = doc["plan"], doc["mandate"], doc["declaration"]
        good = isinstance(plan, str) and isinstance(mandate, str) and isinstance(declaration, str | None)
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise GridError(f"{path}: not a plan that 'tizgin gateway plan' handed over")
    return Handed(parse_plan(plan.encode()), mandate, declaration)
