"""Cancellations and releases that came before the order they name: it is void when it comes.

Messages overtake each other. Who cancels an order that the site has not seen means that it must not act; refusing the
cancellation would let it. So it is kept, for as long as it is valid itself, and no more than so many at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wire.orders import Order

AT_MOST = 64
"""Waiting at one time; as many again would be no mistake but an attack, and are refused."""
EACH = 16
"""Of them by one person."""


@dataclass(frozen=True, slots=True)
class Void:
    """``by`` voids ``target`` where it comes no later than ``until_ms``."""

    by: str
    target: str
    until_ms: int
    persons: frozenset[str]

    def covers(self, persons: Iterable[str]) -> bool:
        """True for an order of these persons: none beside those who cancelled, or no more of them."""
        others = frozenset(persons)
        return others <= self.persons or len(others) <= len(self.persons)


@dataclass(slots=True)
class Voids:
    """What waits, by the order that it waits for. Memory of what the journal holds."""

    _waiting: dict[str, tuple[Void, ...]] = field(default_factory=dict)

    def add(self, void: Void) -> None:
        """It is durable."""
        self._waiting[void.target] = (*self._waiting.get(void.target, ()), void)

    def drop(self, target: str) -> None:
        """The order came."""
        self._waiting.pop(target, None)

    def forget(self, now_ms: int) -> None:
        """Those that are over wait no longer."""
        for target, found in list(self._waiting.items()):
            left = tuple(void for void in found if void.until_ms >= now_ms)
            if left:
                self._waiting[target] = left
            else:
                del self._waiting[target]

    def full(self, persons: Iterable[str]) -> str | None:
        """Why no other one of these persons is kept; ``None`` where there is room."""
        waiting = [void for found in self._waiting.values() for void in found]
        if len(waiting) >= AT_MOST:
            return f"{len(waiting)} cancellations wait for their orders already, at most {AT_MOST}"
        for person in persons:
            own = sum(1 for void in waiting if person in void.persons)
            if own >= EACH:
                return f"{own} cancellations of {person} wait for their orders already, at most {EACH}"
        return None

    def of(self, target: str, now_ms: int) -> tuple[Void, ...]:
        """What is in force for an order that comes now; ``now_ms`` is the trusted time."""
        return tuple(void for void in self._waiting.get(target, ()) if void.until_ms >= now_ms)


def void_of(order: Order, persons: Iterable[str], known: Mapping[str, object]) -> Void | None:
    """What an order voids that is not there yet; ``None`` where it names none, or one that was seen before."""
    names_one = order.action in {"cancel", "release"} and order.mode == "live"
    if not names_one or order.target is None or order.target == "all" or order.target in known:
        return None
    return Void(order.id, order.target, order.expires_at, frozenset(persons))
