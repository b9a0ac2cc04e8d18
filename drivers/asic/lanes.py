"""Who may go next: bounded numbers at once, altogether and per subnet, every subnet in its turn. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar


class HasSubnet(Protocol):
    """Whatever waits in a lane."""

    @property
    def subnet(self) -> str:
        """What shares a bottleneck with it: a switch, a VLAN, a group."""
        ...


Waiter = TypeVar("Waiter", bound=HasSubnet)


class Lane(Generic[Waiter]):
    """Those waiting for their turn, by subnet, and how many are out at the moment.

    Args:
        limit: most that may be out at once.
        per_subnet: the same, per subnet.
    """

    __slots__ = ("_busy", "_in_turn", "_turn", "_waiting", "limit", "per_subnet", "running")

    def __init__(self, limit: int, per_subnet: int) -> None:
        if limit < 1 or per_subnet < 1:
            raise ValueError(f"saw room for {limit} and {per_subnet} per subnet, expected at least 1 of each")
        self.limit = limit
        self.per_subnet = per_subnet
        self.running = 0
        self._waiting: dict[str, deque[Waiter]] = {}
        self._turn: deque[str] = deque()
        """Subnets that have somebody waiting and room for one more; each stands here at most once."""
        self._in_turn: set[str] = set()
        self._busy: dict[str, int] = {}

    def put(self, waiter: Waiter) -> None:
        """Let somebody wait."""
        subnet = waiter.subnet
        self._waiting.setdefault(subnet, deque()).append(waiter)
        self._offer(subnet)

    def take(self) -> Waiter | None:
        """The next one that may go now; the caller must :meth:`give_back` its place."""
        while self.running < self.limit and self._turn:
            subnet = self._turn.popleft()
            self._in_turn.discard(subnet)
            if self._busy.get(subnet, 0) >= self.per_subnet:
                continue  # filled up by adoption; offered again when a place comes back
            waiter = self._waiting[subnet].popleft()
            if not self._waiting[subnet]:
                del self._waiting[subnet]
            self.adopt(subnet)
            self._offer(subnet)
            return waiter
        return None

    def drain(self) -> list[Waiter]:
        """Send everybody home who has not gone yet."""
        left = [waiter for queue in self._waiting.values() for waiter in queue]
        self._waiting.clear()
        self._turn.clear()
        self._in_turn.clear()
        return left

    def adopt(self, subnet: str) -> None:
        """Count one more that is out, whether or not there is room."""
        self.running += 1
        self._busy[subnet] = self._busy.get(subnet, 0) + 1

    def give_back(self, subnet: str) -> None:
        """One is back."""
        self.running -= 1
        self._busy[subnet] -= 1
        if not self._busy[subnet]:
            del self._busy[subnet]
        self._offer(subnet)

    def _offer(self, subnet: str) -> None:
        if subnet in self._waiting and subnet not in self._in_turn and self._busy.get(subnet, 0) < self.per_subnet:
            self._in_turn.add(subnet)
            self._turn.append(subnet)
