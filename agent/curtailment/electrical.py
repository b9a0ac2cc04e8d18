"""Voltage and reactive power at the points of an order, for its account: extremes of short spans, nothing between lost.

A span ends with the last reading in it and holds the least and the greatest of everything that was read since the one
before. Memory only; :mod:`agent.curtailment.account` writes it down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from agent.clock import Clock
from agent.curtailment.voltage import LINES, PHASES
from agent.live import LiveState
from agent.metering.phases import phase_ratios, whole
from config.site import Site

ACTING_MS, LASTING_MS = 5_000, 15_000
"""Length of a span while orders act, and otherwise."""
BEFORE = 60
"""Spans kept in memory of each point, from before an order."""
MAX_SPANS = 200
"""Spans in one part of a trace, all points together."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """Least and greatest since the span before, up to ``at`` ms: voltage in mV, reactive power in var."""

    at: int
    lo: int | None = None
    hi: int | None = None
    qlo: int | None = None
    qhi: int | None = None

    @property
    def known(self) -> bool:
        """False where nothing was read."""
        return self.lo is not None or self.qlo is not None


@dataclass(slots=True)
class _Gathered:
    """What one point has read since its last span."""

    of: str | None = None
    """``line`` or ``phase``: the voltages that were read first, lines where both were; ``None`` before."""
    mono_ns: int = -1
    quiet_ms: int = LASTING_MS
    """Nothing read for so long is told."""
    begun_ms: int | None = None
    read: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    """Time, mV and var of each reading."""
    ring: deque[Span] = field(default_factory=lambda: deque(maxlen=BEFORE))


@dataclass(slots=True)
class Electrical:
    """Every point of the site; asked with every pass of the engine."""

    site: Site
    live: LiveState
    clock: Clock
    _seen: dict[str, _Gathered] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = (*(p.id for p in self.site.metering_points), *(v.id for v in self.site.virtual_points))
        self._seen = {name: _Gathered() for name in names}
        periods = {device.id: device.period_s for device in self.site.devices}
        for point in self.site.metering_points:
            self._seen[point.id].quiet_ms = max(LASTING_MS, round(3000 * periods.get(point.device, 1.0)) + 1000)

    def look(self, now: int, *, acting: bool, cut: int | None = None) -> list[tuple[str, Span]]:
        """Take in what is new; the spans that ended, with their points.

        Args:
            now: ms.
            acting: whether spans are short.
            cut: end all spans at this moment (ms); what was read after it belongs to the next ones.
        """
        for point in self.site.metering_points:
            sample, seen = self.live.samples.get(point.device), self._seen[point.id]
            if sample is None or sample.mono_ns <= seen.mono_ns:
                continue
            volts = phase_ratios(point.passport)[0] * 1000
            read = {
                of: [mv for name in names if (mv := whole(sample.readings.get(name), volts)) is not None]
                for of, names in (("line", LINES), ("phase", PHASES))
            }
            seen.of = seen.of or next((of for of, values in read.items() if values), None)
            self._take(seen, now, sample.mono_ns, sample.at_ms, read.get(seen.of or "", []), point.id)
        for virtual in self.site.virtual_points:
            seen, mono = self._seen[virtual.id], self.clock.mono_ns()
            if mono - seen.mono_ns >= 1_000_000_000:
                self._take(seen, now, mono, now, [], virtual.id)
        length = ACTING_MS if acting else LASTING_MS
        return [(name, span) for name, seen in self._seen.items() for span in _ended(seen, now, length, cut)]

    def _take(self, seen: _Gathered, now: int, mono_ns: int, at_ms: int, mv: list[int], point: str) -> None:
        var = self.live.reactive_var(point)
        seen.mono_ns = mono_ns
        if mv or var is not None:
            seen.read.append((at_ms, mv, [] if var is None else [var]))
        seen.begun_ms = now if seen.begun_ms is None else seen.begun_ms

    def before(self, point: str, since: int) -> list[Span]:
        """Spans in memory that ended at ``since`` or later."""
        return [span for span in self._seen[point].ring if span.at >= since]

    def part(self, spans: Mapping[str, Sequence[Span]], t0: int) -> list[dict[str, Any]]:
        """Field ``uq`` of a trace."""
        found = []
        for point in sorted(spans):
            times = [t0, *(span.at for span in spans[point])]
            found.append(
                {"mp": point, "of": self._seen[point].of, "dt": [after - before for before, after in pairwise(times)]}
                | {name: [getattr(span, name) for span in spans[point]] for name in ("lo", "hi", "qlo", "qhi")}
            )
        return found


def _ended(seen: _Gathered, now: int, length_ms: int, cut: int | None) -> list[Span]:
    """The span that is over, if one is; one without any reading is told once, after one that had some."""
    if seen.begun_ms is None or (cut is None and abs(now - seen.begun_ms) < length_ms):
        return []
    done = [one for one in seen.read if cut is None or one[0] <= cut]
    if done:
        mv, var = [v for _, values, _ in done for v in values], [v for _, _, values in done for v in values]
        lo, hi = (min(mv), max(mv)) if mv else (None, None)
        qlo, qhi = (min(var), max(var)) if var else (None, None)
        span = Span(done[-1][0], lo, hi, qlo, qhi)
    elif cut is None and seen.ring and seen.ring[-1].known and abs(now - seen.ring[-1].at) >= seen.quiet_ms:
        span = Span(now)
    else:
        return []
    seen.read, seen.begun_ms = [one for one in seen.read if cut is not None and one[0] > cut], now
    seen.ring.append(span)
    return [span]


def first(kept: Mapping[str, Sequence[T]], room: int) -> dict[str, list[T]]:
    """What of each point goes into one part, at most ``room`` together."""
    found: dict[str, list[T]] = {}
    for point in sorted(kept):
        if kept[point] and room > 0:
            found[point] = list(kept[point][:room])
            room -= len(found[point])
    return found
