"""A disk of a few megabytes that can be filled: a tmpfs, which only root may mount."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest


class SmallDisk:
    """Mounted at ``path``; owner: who made it calls :meth:`close`."""

    def __init__(self, path: Path, megabytes: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"left out: a small disk needs root to mount it ({done.stderr.strip()})")
        self.path = path
        self._files: list[Path] = []

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all space but ``leave_bytes``, to the last page."""
        target = self.path / f"fill-{len(self._files)}"
        self._files.append(target)
        disk = os.statvfs(self.path)
        size = disk.f_bavail * disk.f_frsize - leave_bytes
        with target.open("wb", buffering=0) as file:
            try:
                while size > 0:
                    size -= file.write(bytes(min(size, 65_536)))
                while leave_bytes == 0:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give back everything that :meth:`fill` took."""
        for file in self._files:
            file.unlink(missing_ok=True)
        self._files.clear()

    def close(self) -> None:
        """Unmount."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)
