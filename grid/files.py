"""Files that must survive a power cut, and files that nobody else may read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from grid.errors import GridError, KeyFileError

MAX_SECRET_BYTES = 65_536


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """A whole file of at most ``max_bytes``.

    Raises:
        GridError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise GridError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > max_bytes:
        raise GridError(f"{path}: larger than {max_bytes} bytes; this is not the file it should be")
    return data


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of that file, against other programs of the same person."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_new_private(path: Path, data: bytes) -> None:
    """A new file of mode 0600 on disk. An existing file is never overwritten.

    Raises:
        KeyFileError: it exists already, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists already and is not overwritten; choose another name") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be created: {error.strerror or error}") from None
    with os.fdopen(handle, "wb") as file:
        # The mode given at creation is cut by the umask, never widened; this sets it exactly.
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file as one step: readers and a power cut see the old or the new one whole.

    Raises:
        GridError: it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise GridError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise GridError(f"{path}: cannot be written: {error.strerror or error}") from None
    sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """A secret from a file that only its owner can read.

    Raises:
        KeyFileError: missing, not a regular file, readable by others, or owned by someone else.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    with os.fdopen(handle, "rb") as file:
        # Asked of the open file, so that it cannot be exchanged between the question and the reading.
        seen = os.fstat(file.fileno())
        if not stat.S_ISREG(seen.st_mode):
            raise KeyFileError(f"{path}: not a regular file")
        others = stat.S_IMODE(seen.st_mode) & 0o077
        if others:
            raise KeyFileError(
                f"{path}: mode {stat.S_IMODE(seen.st_mode):04o} lets group or others at a secret, expected 0600; "
                f"run 'chmod 600 {path}', and make a new key if anybody may have read it"
            )
        if seen.st_uid not in {os.geteuid(), 0}:
            raise KeyFileError(f"{path}: belongs to user {seen.st_uid}, expected {os.geteuid()}")
        data = file.read(MAX_SECRET_BYTES + 1)
    if len(data) > MAX_SECRET_BYTES:
        raise KeyFileError(f"{path}: larger than {MAX_SECRET_BYTES} bytes, so it is no key")
    return data
