"""The standing limits of a connection: what may be drawn now by the technical conditions (ТУ), without any order.

Permitted power, the plan of the hour, how fast load may rise, and how fast what was lost may come back. Here they are
only judged; :mod:`agent.curtailment.site_limits` acts on them where the site file says ``enforce``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.curtailment.targets import hour_of
from config.site import Site

WINDOW_NS = 60_000_000_000
"""A rise is measured over one minute."""
NEAR_PERMILLE = 950
"""From here on it is warned of; what was put down comes back only up to here."""
NOISE_PERMILLE = 10
"""Of the contracted power: a rise by less above the ramp is the meter's noise."""
RETURN_MIN = 5
"""Minutes over which lost load comes back where the site file names no ramp."""
RETURN_NS = 3_600_000_000_000
"""After so long nothing of a loss is awaited any more."""

PERMITTED, PLAN, RAMP, LOSS = "permitted_power", "hourly_plan", "ramp_up", "return_after_loss"


@dataclass(frozen=True, slots=True)
class Limit:
    """What may be drawn now, W; up to where load comes back by itself; what above it is noise."""

    name: str
    watt: int
    back_w: int
    noise_w: int = 0


@dataclass(slots=True)
class Comeback:
    """Load that was lost: it may rise from ``base_w`` (reached at ``since_ns``) by ``per_min_w`` up to ``top_w``."""

    top_w: int
    base_w: int
    since_ns: int
    began_ns: int
    per_min_w: int


@dataclass(slots=True)
class StandingLimits:
    """Fed with every fresh reading of the net point; pure but for the clock."""

    site: Site
    clock: Clock
    _history: deque[tuple[int, int]] = field(default_factory=deque)
    """(monotonic ns, W) of the last minute."""
    _first_ns: int | None = None
    """Since when the point is read without a break of a minute."""
    _lost: Comeback | None = None

    @property
    def enforced(self) -> bool:
        """True where the site file lets the agent act on them."""
        return self.site.site.standing.enforce

    @property
    def noise_w(self) -> int:
        """What above a ramp is noise, W."""
        return round(self.site.site.contracted_kw * NOISE_PERMILLE)

    def observe(self, mono_ns: int, watt: int) -> None:
        """A fresh reading."""
        self._forget(mono_ns)
        if not self._history:
            self._first_ns = mono_ns
        self._history.append((mono_ns, watt))
        lost = self._lost
        if lost is not None and watt <= lost.base_w:
            lost.base_w, lost.since_ns = watt, mono_ns
        if lost is not None and (self._loss_w(lost, mono_ns) >= lost.top_w or mono_ns - lost.began_ns > RETURN_NS):
            self._lost = None

    def _forget(self, mono_ns: int) -> None:
        while self._history and mono_ns - self._history[0][0] > WINDOW_NS:
            self._history.popleft()

    def lost(self, top_w: int, now_w: int) -> None:
        """Load fell from ``top_w`` to ``now_w`` by no command: it is to come back in steps, not all at once."""
        now, ramp = self.clock.mono_ns(), self._ramp_w()
        largest = round(max((group.nameplate_w for group in self.site.miners), default=0))
        rate = ramp if ramp is not None else max(1, largest, (top_w - now_w) // RETURN_MIN)
        self._lost = Comeback(top_w, now_w, now, now, rate)

    def returning(self) -> bool:
        """True while lost load may still come back."""
        return self._lost is not None

    def _loss_w(self, lost: Comeback, now_ns: int) -> int:
        """What may be drawn now on the way back, with a minute's rise in advance: machines come in steps."""
        return lost.base_w + lost.per_min_w * max(WINDOW_NS, now_ns - lost.since_ns) // WINDOW_NS

    def _ramp_w(self) -> int | None:
        ramp = self.site.site.standing.ramp_kw_per_min
        return None if ramp is None else round(ramp * 1000)

    def limits(self) -> tuple[Limit, ...]:
        """Every limit that holds now, the strictest first."""
        own, found = self.site.site.standing, []
        if own.permitted_kw is not None:
            found.append(_steady(PERMITTED, round(own.permitted_kw * 1000)))
        if own.hourly_plan_kw is not None:
            found.append(_steady(PLAN, self._plan_w(own.hourly_plan_kw)))
        now, ramp = self.clock.mono_ns(), self._ramp_w()
        self._forget(now)
        if ramp is not None and self._history:
            watt = min(w for _, w in self._history) + ramp
            found.append(Limit(RAMP, watt, watt, self.noise_w))
        if self._lost is not None:
            watt = self._loss_w(self._lost, now)
            found.append(Limit(LOSS, watt, watt, self.noise_w))
        return tuple(sorted(found, key=lambda limit: limit.watt))

    def _plan_w(self, plan_kw: tuple[float, ...]) -> int:
        """The plan of the hour; with a clock in doubt the least of this hour and its neighbours."""
        hour = hour_of(self.clock.now_ms())
        hours = [hour] if self.clock.synchronised() else [hour - 1, hour, hour + 1]
        return round(min(plan_kw[h % 24] for h in hours) * 1000)

    def level_w(self) -> int | None:
        """Above which no return goes, W, the ramp aside; ``None`` where nothing bounds it or nothing is enforced."""
        if not self.enforced:
            return None
        return min((x.watt for x in self.limits() if x.name in {PERMITTED, PLAN}), default=None)

    def back_w(self) -> int | None:
        """The same for what was put down under a standing limit: lower, so that it is not put down again at once."""
        if not self.enforced:
            return None
        return min((x.back_w for x in self.limits() if x.name in {PERMITTED, PLAN}), default=None)

    def rise_w(self) -> int | None:
        """Up to where load may rise in this moment, W; ``None`` where no ramp is enforced."""
        if not self.enforced:
            return None
        return min((x.watt for x in self.limits() if x.name in {RAMP, LOSS}), default=None)

    def per_minute_w(self) -> int:
        """The most that load may ever rise in a minute, W, where a ramp is enforced."""
        rates = [r for r in (self._ramp_w(), None if self._lost is None else self._lost.per_min_w) if r is not None]
        return min(rates, default=0)

    def steady(self) -> bool:
        """True where load did not rise for a whole minute."""
        now = self.clock.mono_ns()
        self._forget(now)
        if self._first_ns is None or not self._history or now - self._first_ns < WINDOW_NS:
            return False
        return self._history[-1][1] - min(w for _, w in self._history) <= self.noise_w


def _steady(name: str, watt: int) -> Limit:
    return Limit(name, watt, watt * NEAR_PERMILLE // 1000)
