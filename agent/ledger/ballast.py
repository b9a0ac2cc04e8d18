"""A file that can be given up when the disk is full, so that the order journal can still be written."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

log = structlog.get_logger()

BALLAST_BYTES = 4 * 1024 * 1024
ROOM_FOR_BALLAST = 4 * BALLAST_BYTES
"""The ballast is made only where this much is free: it must not be what fills the disk."""
NO_SPACE = ("full", "disk I/O error")
"""How SQLite says that the disk took no more: its own word, and what a quota or a file size limit looks like."""


def make_ballast(path: Path) -> None:
    """Lay the ballast of a ledger file down where there is room for it."""
    ballast = path.with_suffix(".ballast")
    if not ballast.exists():
        try:
            if free_bytes(path) < ROOM_FOR_BALLAST:
                return
            with ballast.open("wb") as handle:
                os.posix_fallocate(handle.fileno(), 0, BALLAST_BYTES)
        except OSError:
            ballast.unlink(missing_ok=True)


def give_up_ballast(path: Path) -> bool:
    """Free the ballast; false where there is none left."""
    ballast = path.with_suffix(".ballast")
    if not ballast.exists():
        return False
    ballast.unlink(missing_ok=True)
    log.error("disk_full_ballast_given_up", path=str(ballast), bytes=BALLAST_BYTES)
    return True


def free_bytes(path: Path) -> int:
    """Bytes that may still be written to the disk of a file."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize


def is_no_space(error: Exception) -> bool:
    """True where SQLite's error means that the disk took no more."""
    return any(word in str(error) for word in NO_SPACE)
