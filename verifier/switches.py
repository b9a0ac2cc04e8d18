"""Signed positions of switches over time, for slots in which a branch was proven dead."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from verifier.errors import PositionError
from verifier.records import Record


class Switches:
    """Positions from ``switch_position`` events of the ``site`` stream."""

    def __init__(self) -> None:
        self._at: dict[str, list[int]] = {}
        self._now: dict[str, list[str]] = {}
        self._was: dict[str, str | None] = {}
        self.errors: list[PositionError] = []

    def feed(self, records: Iterable[Record]) -> None:
        """Take the position events out of a stream, in the order of the stream."""
        for record in records:
            doc = record.doc
            if record.ty != "event" or doc.get("ev") != "switch_position":
                continue
            switch, now = doc.get("obj"), doc.get("now")
            if not isinstance(switch, str) or not (now is None or isinstance(now, str)):
                self.errors.append(PositionError(f"{record.where}: a position names its switch and its position"))
                continue
            if switch not in self._at:
                self._was[switch] = doc.get("was")
            times = self._at.setdefault(switch, [])
            # A clock set back must not let a later record speak about earlier time.
            times.append(max(record.at, times[-1]) if times else record.at)
            self._now.setdefault(switch, []).append(now or "unknown")

    def open_through(self, switch: str, from_s: int, to_s: int) -> bool:
        """True if signed events show the switch open over the whole of [from_s, to_s]."""
        times = self._at.get(switch)
        if not times:
            return False
        first = bisect_right(times, from_s * 1000)
        last = bisect_right(times, to_s * 1000)
        before = self._now[switch][first - 1] if first else self._was[switch]
        return before == "open" and all(now == "open" for now in self._now[switch][first:last])

    def open_ms(self, switch: str, from_ms: int, to_ms: int) -> int:
        """For how long of [from_ms, to_ms] signed events show the switch open."""
        times = self._at.get(switch)
        if not times or to_ms <= from_ms:
            return 0
        first, last = bisect_right(times, from_ms), bisect_right(times, to_ms)
        position = self._now[switch][first - 1] if first else self._was[switch]
        found, since = 0, from_ms
        for at, now in zip(times[first:last], self._now[switch][first:last], strict=True):
            found += at - since if position == "open" else 0
            position, since = now, at
        return found + (to_ms - since if position == "open" else 0)
