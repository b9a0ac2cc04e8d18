"""Free loopback ports for a demo: blocks below the range from which the system takes ports for clients."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

from tizgin.demo.errors import DemoError

HOST = "127.0.0.1"
FIRST, LAST = 12_000, 31_999
"""Linux gives clients ports from 32768 on by default: what is found free below stays free until it is bound."""
TRIES = 200


def is_free(port: int) -> bool:
    """True where nothing on 127.0.0.1 holds the port, neither TCP nor UDP."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                return False
    return True


class Ports:
    """Hands out blocks of neighbouring ports, each port once.

    Args:
        rng: where a search begins; two demos started together then seldom look at the same block.
        free: asked for each port.
    """

    def __init__(self, rng: random.Random, free: Callable[[int], bool] = is_free) -> None:
        self._rng = rng
        self._free = free
        self._given: set[int] = set()

    def block(self, count: int) -> int:
        """First port of ``count`` neighbouring free ones.

        Raises:
            DemoError: no such block was found.
        """
        for _ in range(TRIES):
            first = self._rng.randint(FIRST, LAST - count)
            wanted = range(first, first + count)
            if self._given.isdisjoint(wanted) and all(self._free(port) for port in wanted):
                self._given.update(wanted)
                return first
        raise DemoError(
            f"no {count} neighbouring free ports found on {HOST} between {FIRST} and {LAST}; "
            "stop what holds them, or start fewer ASICs (--asics)"
        )
