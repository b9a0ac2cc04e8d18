"""Since when the link stands, and whether what the operator said while it was down has had the time to arrive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import Clock

SETTLED_S = 30.0
"""So long after the link came back an extension or a stricter order that central kept has arrived."""


@dataclass(slots=True)
class LinkWatch:
    """Asked before anything returns by itself."""

    clock: Clock
    online: Callable[[], bool]
    silence_s: Callable[[], float]
    """Seconds since central last spoke."""
    _since_ns: int | None = None

    def look(self) -> None:
        """Call with every pass."""
        if not self.online():
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = self.clock.mono_ns()

    def settled(self) -> bool:
        """The link stands, and central has spoken and had the time to say everything since it came up."""
        if self._since_ns is None or not self.online():
            return False
        stands_s = (self.clock.mono_ns() - self._since_ns) / 1e9
        return stands_s >= SETTLED_S and self.silence_s() < stands_s
