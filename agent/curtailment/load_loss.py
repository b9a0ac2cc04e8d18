"""Load that goes by itself: more than a tenth within ten seconds, and no command of ours. With the likely cause.

Meters are read once in some seconds, so a dip of a fraction of a second is seen only where a meter happens to be read
in it: no dip seen does not mean that there was none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Held, Journal
from agent.curtailment.voltage import LINES, PHASES
from agent.live import LiveState
from config.site import Site
from drivers.capabilities import Position

WITHIN_NS = 10_000_000_000
SHARE_PERMILLE = 100
"""More of the load than this, lost within :data:`WITHIN_NS`, is told."""
LEAST_PERMILLE = 20
"""Of the contracted power: a smaller fall is nobody's concern."""
JUDGE_NS = 10_000_000_000
"""So long after the fall is waited for what tells its cause."""
AROUND_NS = 15_000_000_000
"""What happened so long before the fall was seen may be its cause."""
SLEEPS_NS = 35_000_000_000
"""A machine takes up to half a minute to sleep: so long its fall may be our doing."""
DIP_PERMILLE = 900


@dataclass(frozen=True, slots=True)
class Loss:
    """A fall of ``point`` from ``was_w`` to ``now_w`` in ``within_ms``; ``ours_w`` of it may be our own doing."""

    point: str
    at_ms: int
    was_w: int
    now_w: int
    within_ms: int
    ours_w: int
    cause: str
    """``protection_trip switch_opened voltage_dip pools_down unknown``."""
    evidence: tuple[str, ...]
    """Switches, meters or groups that show the cause."""

    def record(self) -> dict[str, object]:
        """Fields of its ``event`` record."""
        return {
            "ev": "load_loss",
            "obj": self.point,
            "was": str(self.was_w),
            "now": str(self.now_w),
            "detail": {
                "at": self.at_ms,
                "within_ms": self.within_ms,
                "ours_w": self.ours_w,
                "cause": self.cause,
                "evidence": list(self.evidence)[:50],
            },
        }


@dataclass(slots=True)
class Fall:
    """A fall whose cause is still looked for."""

    at_ms: int
    seen_ns: int
    was_w: int
    now_w: int
    within_ns: int
    ours_w: int


@dataclass(slots=True)
class LossWatch:
    """Looks at the net point, the switches, the meters' voltages and the machines' pools. Moves nothing."""

    site: Site
    live: LiveState
    fleet: Fleet
    gates: Gates
    journal: Journal
    clock: Clock
    _recent: deque[tuple[int, int]] = field(default_factory=deque)
    """(monotonic ns, W) of the last ten seconds."""
    _closed: dict[str, int] = field(default_factory=dict)
    """Switch → when it was last read closed (monotonic)."""
    _volts: dict[str, deque[tuple[int, float]]] = field(default_factory=dict)
    """Meter → (monotonic ns, lowest voltage of its kind) of the last minute."""
    _fall: Fall | None = None

    def observe(self, mono_ns: int, watt: int) -> Fall | None:
        """A fresh reading of the net point; a fall in the moment in which it is seen, before its cause is known."""
        while self._recent and mono_ns - self._recent[0][0] > WITHIN_NS:
            self._recent.popleft()
        since, top = max(self._recent, key=lambda seen: seen[1], default=(mono_ns, watt))
        self._recent.append((mono_ns, watt))
        fell = top - watt
        if self._fall is not None:
            self._fall.now_w = min(self._fall.now_w, watt)
            return None
        least = round(self.site.site.contracted_kw * LEAST_PERMILLE)
        if fell * 1000 <= top * SHARE_PERMILLE or fell <= least:
            return None
        ours = self._ours_w(mono_ns)
        if (fell - ours) * 1000 <= top * SHARE_PERMILLE:
            return None
        self._fall = Fall(self.clock.now_ms(), mono_ns, top, watt, mono_ns - since, ours)
        return self._fall

    def look(self) -> Loss | None:
        """Call with every pass; a loss once its cause has been looked for."""
        now = self.clock.mono_ns()
        self._remember(now)
        fall = self._fall
        if fall is None or now - fall.seen_ns < JUDGE_NS:
            return None
        self._fall = None
        self._recent.clear()
        cause, evidence = self._cause(fall.seen_ns)
        return Loss(
            self.site.measured_at.net_import,
            fall.at_ms,
            fall.was_w,
            fall.now_w,
            fall.within_ns // 1_000_000,
            fall.ours_w,
            cause,
            evidence,
        )

    def _ours_w(self, now: int) -> int:
        """What we put down so lately that it may be falling now."""
        return sum(h.expected_w for h in self.journal.held.values() if self._falls(h, now))

    def _falls(self, held: Held, now: int) -> bool:
        since = held.since_mono_ns
        if since is None:
            return False
        if held.kind != "machine" or now - since <= WITHIN_NS + SLEEPS_NS:
            return now - since <= WITHIN_NS + SLEEPS_NS
        seen = self.live.miners.get(held.target)
        asleep = seen is not None and seen.status is not None and seen.status.sleeping
        return not asleep and now - since <= self.site.agent.timing.sleep_confirm_s * 1e9

    # the cause -----------------------------------------------------------------------------------------------------

    def _remember(self, now: int) -> None:
        for name, state in self.live.switches.items():
            if state.position is Position.CLOSED:
                self._closed[name] = now
        for point in self.site.metering_points:
            sample = self.live.samples.get(point.device)
            volts = [
                value
                for name in (*LINES, *PHASES)
                if sample is not None
                and (reading := sample.readings.get(name)) is not None
                and reading.quality.usable
                and isinstance(value := reading.value, int | float)
            ]
            seen = self._volts.setdefault(point.device, deque(maxlen=300))
            if sample is not None and volts and (not seen or seen[-1][0] < sample.mono_ns):
                # The lowest of line voltages is above the highest of phase voltages: one kind is enough to compare.
                seen.append((sample.mono_ns, min(volts)))

    def _cause(self, seen_ns: int) -> tuple[str, tuple[str, ...]]:
        tripped = sorted(n for n, s in self.live.switches.items() if s.protection_trip and self._lately(n, seen_ns))
        if tripped:
            return "protection_trip", tuple(tripped)
        opened = sorted(n for n, s in self.live.switches.items() if s.position is Position.OPEN)
        opened = [n for n in opened if n not in self.journal.held and self._lately(n, seen_ns)]
        if opened:
            return "switch_opened", tuple(opened)
        dips = sorted(meter for meter, seen in self._volts.items() if _dipped(seen, seen_ns))
        if dips:
            return "voltage_dip", tuple(dips)
        down = sorted(group for group, share in self._without_pool().items() if share > 0.5)
        return ("pools_down", tuple(down)) if down else ("unknown", ())

    def _lately(self, switch: str, seen_ns: int) -> bool:
        """True where it was still read closed shortly before the fall, and is not any more."""
        state = self.live.switches[switch]
        closed = self._closed.get(switch)
        return state.position is not Position.CLOSED and closed is not None and closed >= seen_ns - AROUND_NS

    def _without_pool(self) -> Mapping[str, float]:
        """Group → share of its machines that answer, do not sleep and say that no pool is active."""
        told: dict[str, list[bool]] = {}
        for name, seen in self.live.miners.items():
            status, known = seen.status, self.fleet.machines.get(name)
            if status is None or known is None or status.sleeping or not status.pools:
                continue
            known_pools = [pool.active for pool in status.pools if pool.active is not None]
            if known_pools:
                told.setdefault(known.group.id, []).append(not any(known_pools))
        return {group: sum(down) / len(down) for group, down in told.items()}


def _dipped(seen: deque[tuple[int, float]], at_ns: int) -> bool:
    before = [volts for ns, volts in seen if at_ns - 60_000_000_000 <= ns <= at_ns + JUDGE_NS]
    around = [volts for ns, volts in seen if at_ns - AROUND_NS <= ns <= at_ns + JUDGE_NS]
    return bool(around) and min(around) * 1000 < max(before) * DIP_PERMILLE
