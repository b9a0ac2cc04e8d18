"""Ports for tests, each given to one process only.

Ports below 32768 are never taken by Linux for outgoing connections, and a lock file per port keeps test processes that
run side by side apart: between the moment a port is chosen and the moment a broker binds it, nobody else can get it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, LAST = 5_000, 11_999
_LOCKS = Path(tempfile.gettempdir()) / f"tizgin-test-ports-{os.getuid()}"


class _Ports:
    """The ports this process holds; their lock files stay open until it ends."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._next = FIRST + (os.getpid() * 61) % (LAST - FIRST)

    def take(self, count: int) -> int:
        """First of ``count`` neighbouring ports that nobody listens on and no other test process was given."""
        for _ in range(LAST - FIRST):
            first = self._next
            if first + count > LAST:
                self._next = FIRST
                continue
            self._next += count
            locks = [_lock(port) for port in range(first, first + count)]
            got = [lock for lock in locks if lock is not None]
            if len(got) == count and all(_free(port) for port in range(first, first + count)):
                self._held += got
                return first
            for lock in got:
                os.close(lock)
        raise AssertionError(f"no {count} neighbouring free ports between {FIRST} and {LAST}")


def _lock(port: int) -> int | None:
    _LOCKS.mkdir(exist_ok=True)
    descriptor = os.open(_LOCKS / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


_PORTS = _Ports()


def free_ports(count: int) -> list[int]:
    """That many ports that nobody listens on, for a process that is told its port in a file."""
    return [_PORTS.take(1) for _ in range(count)]


def port_run(count: int) -> int:
    """First of ``count`` free ports in a row."""
    return _PORTS.take(count)
