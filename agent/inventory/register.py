"""The register list: machines as the papers name them, and the normalised file the agent keeps of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.errors import AgentError

FILE = "inventory.json"
MAX_BYTES = 64 * 1024 * 1024


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One machine of the register. ``serial`` and ``mac`` are keys of :mod:`agent.inventory.identity`; one is given."""

    row: int
    """Row of the list it came from, for people."""
    serial: str | None = None
    mac: str | None = None
    model: str | None = None
    owner: str | None = None
    group: str | None = None
    """Place or group as written."""
    address: str | None = None
    nameplate_w: float | None = None
    nominal_ths: float | None = None
    entered: str | None = None
    """Day of entry in the register, YYYY-MM-DD."""
    registration_no: str | None = None
    customs_no: str | None = None


class RegisterList(msgspec.Struct, frozen=True):
    """A whole list, as it was imported."""

    source: str
    """Name of the file it came from."""
    source_sha256: str
    imported_ms: int
    entries: tuple[Entry, ...]
    v: int = 1


def store(state_dir: Path, register: RegisterList) -> Path:
    """Write the normalised list, whole or not at all.

    Raises:
        AgentError: it cannot be written.
    """
    return write_atomically(state_dir / FILE, msgspec.json.format(msgspec.json.encode(register), indent=0))


def load(state_dir: Path) -> RegisterList | None:
    """The list that was imported, or ``None`` where none was.

    Raises:
        AgentError: the file cannot be read or is not what this program wrote.
    """
    path = state_dir / FILE
    raw = read_bounded(path, MAX_BYTES)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=RegisterList)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AgentError(f"{path}: not a register list ({error}); import the list again") from None


def owners(entries: Sequence[Entry]) -> dict[str | None, int]:
    """Machines of the register per owner; ``None`` is "not written down"."""
    found: dict[str | None, int] = {}
    for entry in entries:
        found[entry.owner] = found.get(entry.owner, 0) + 1
    return found


def read_bounded(path: Path, most: int) -> bytes | None:
    """A file of at most ``most`` bytes; ``None`` where there is none.

    Raises:
        AgentError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AgentError(f"{path}: cannot be read: {error.strerror}; check the path and its rights") from None
    if len(raw) > most:
        raise AgentError(f"{path}: larger than {most >> 20} MB; expected a smaller file")
    return raw


def write_atomically(path: Path, raw: bytes, *, mode: int = 0o640) -> Path:
    """Write a file so that a reader, or a power cut, sees the old one or the new one.

    Raises:
        AgentError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(raw)
            file.flush()
            _give(file.fileno(), path.parent)
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AgentError(f"{path}: cannot be written: {error.strerror}; check rights and free space") from None
    return path


def _give(descriptor: int, folder: Path) -> None:
    """A file that root makes belongs to the folder's owner: the agent runs as somebody else and has to read it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
