"""Secret files: readable by the agent's user only, whole and on disk before anything relies on them."""

from __future__ import annotations

import os
from pathlib import Path

from agent.errors import AgentError


def write_secret(path: Path, data: bytes) -> None:
    """Make a secret file that is on disk when this returns.

    Raises:
        OSError: it exists already, or cannot be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_secret(path: Path) -> bytes:
    """The bytes of a key file that nobody else can read.

    Raises:
        AgentError: missing, or open to others.
    """
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise AgentError(f"{path}: readable by others (mode {mode & 0o777:o}); run: chmod 600 {path}")
        return path.read_bytes()
    except FileNotFoundError:
        raise AgentError(f"{path}: no such key; run: tizgin agent enroll --config <site file>") from None
    except PermissionError as error:
        raise AgentError(f"{path}: cannot be read: {error.strerror}; run the agent as the owner of this file") from None


def sync_folder(folder: Path) -> None:
    """Renames within the folder are on disk when this returns."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
