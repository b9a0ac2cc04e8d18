"""What was seen of each machine, kept over a restart: one JSON line per machine, written a piece at a time.

A site has up to 30,000 machines: encoding them in one go would hold up whatever else the process does.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import msgspec

from agent.errors import AgentError
from agent.inventory.identity import Identity
from agent.inventory.register import read_bounded, write_atomically
from agent.inventory.switches import PoolHistory, SeenPool

FILE = "inventory_seen.jsonl"
SECRET_FILE = "inventory.secret"  # noqa: S105 - a file's name
MAX_BYTES = 128 * 1024 * 1024
PIECE = 500


class Seen(msgspec.Struct, omit_defaults=True):
    """One machine as it was last seen. Times in ms, UTC."""

    machine: str
    serial: str | None = None
    mac: str | None = None
    model: str | None = None
    firmware: str | None = None
    before: tuple[str | None, str | None, str | None, str | None] | None = None
    """Serial number, MAC, model, firmware before the last change."""
    changed_ms: int | None = None
    pools: tuple[SeenPool, ...] = ()
    history: PoolHistory = msgspec.field(default_factory=PoolHistory)
    first_ms: int = 0
    last_ms: int = 0
    print: int | None = None
    """Of its last answer, to see quickly that nothing changed; means nothing in another process."""

    @property
    def identity(self) -> Identity:
        """What it said of itself."""
        return Identity(self.serial, self.mac, self.model, self.firmware)

    @property
    def identity_before(self) -> Identity | None:
        """What stood here before the last change."""
        return None if self.before is None else Identity(*self.before)


class _Head(msgspec.Struct):
    saved_ms: int
    machines: int
    v: int = 1


def save(state_dir: Path, seen: Iterable[Seen], now_ms: int) -> None:
    """Write them all, whole or not at all. For a thread.

    Raises:
        OSError: it cannot be written.
    """
    rows = list(seen)
    path = state_dir / FILE
    part = path.with_name(path.name + ".part")
    encoder = msgspec.json.Encoder()
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb") as file:
        file.write(encoder.encode(_Head(now_ms, len(rows))) + b"\n")
        todo = iter(rows)
        while piece := list(islice(todo, PIECE)):
            file.write(encoder.encode_lines(piece))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(state_dir: Path) -> tuple[int, dict[str, Seen]] | None:
    """(when saved, machines by id); ``None`` where nothing was saved.

    Raises:
        AgentError: the file cannot be read or is not what this program wrote.
    """
    path = state_dir / FILE
    raw = read_bounded(path, MAX_BYTES)
    if raw is None:
        return None
    decoder = msgspec.json.Decoder(Seen)
    lines = raw.splitlines()
    try:
        head = msgspec.json.decode(lines[0] if lines else b"", type=_Head)
        rows = [decoder.decode(line) for line in lines[1:]]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AgentError(f"{path}: not readable ({error}); remove it: what was seen before is then forgotten") from None
    for row in rows:
        row.print = None
    return head.saved_ms, {row.machine: row for row in rows}


def site_secret(state_dir: Path) -> bytes:
    """The key of this site's account digests; made at the first use, readable by the agent's user alone.

    Raises:
        AgentError: it cannot be read or made.
    """
    path = state_dir / SECRET_FILE
    found = read_bounded(path, 1024)
    if found is not None and len(found) >= 32:
        return found
    fresh = secrets.token_bytes(32)
    write_atomically(path, fresh, mode=0o600)
    return fresh
