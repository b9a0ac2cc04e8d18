"""The newest few powers of metering points, gathered from the live state while something else is watched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from agent.commissioning.judge import Seen, seen
from agent.live import LiveState

COUNT = 3


class Samples:
    """Fresh powers per point since a moment; :meth:`look` is called again and again."""

    def __init__(self, live: LiveState, points: Iterable[str], since_ns: int) -> None:
        self._live = live
        self._found: dict[str, deque[int]] = {p: deque(maxlen=COUNT) for p in points}
        self._last: dict[str, int] = dict.fromkeys(self._found, since_ns)

    def look(self) -> None:
        """Take what is new; a point that no longer says anything loses what it said before."""
        for point, values in self._found.items():
            power = self._live.power(point)
            if power.value_w is None:
                values.clear()
            elif power.mono_ns > self._last[point]:
                self._last[point] = power.mono_ns
                values.append(power.value_w)

    def full(self, points: Iterable[str]) -> bool:
        """True where each of these points was read often enough."""
        return all(len(self._found[p]) == COUNT for p in points)

    def result(self) -> dict[str, Seen]:
        """Median and spread per point."""
        return {p: seen(tuple(v)) for p, v in self._found.items()}
