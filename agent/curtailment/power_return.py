"""Supply that was lost comes back under a live limit: everything behind starts by itself, at full power.

Nothing can be put to sleep before it has power. So the dispatcher is told beforehand what will come and for how long,
and when it comes, machines are put to sleep as they answer, by what they will draw rather than by what they draw yet.
What this agent holds open stays open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.curtailment.journal import Journal
from agent.live import LiveState
from config.site import Site

DARK_S = 5.0
"""Without a word from meter and machines for this long, the supply counts as lost."""
ANSWER_S = 10.0
DEAD_V = 10.0
"""A meter with a battery reads its dead inputs below this."""


class Change(StrEnum):
    """What became of the supply."""

    LOST = "lost"
    BACK = "back"


@dataclass(slots=True)
class PowerReturn:
    """Watches the supply at the point that net import is measured at."""

    site: Site
    live: LiveState
    fleet: Fleet
    journal: Journal
    clock: Clock
    _silent_ns: int | None = None
    """Since when neither meter nor machines speak."""
    _lost_ns: int | None = None
    _back_ns: int | None = None

    def look(self) -> Change | None:
        """Call often; a change is told once."""
        now = self.clock.mono_ns()
        if not self._dark():
            self._silent_ns = None
            if self._lost_ns is None:
                return None
            self._lost_ns, self._back_ns = None, now
            return Change.BACK
        self._silent_ns = self._silent_ns or now
        if self._lost_ns is None and now - self._silent_ns >= DARK_S * 1e9:
            self._lost_ns = self._silent_ns
            return Change.LOST
        return None

    def _dark(self) -> bool:
        now = self.clock.mono_ns()
        point = self.site.measured_at.net_import
        power = self.live.power(point)
        if power.value_w is not None and not self._dead(point):
            return False
        return not any(
            seen.status is not None and (now - seen.mono_ns) / 1e9 <= ANSWER_S for seen in self.live.miners.values()
        )

    def _dead(self, point: str) -> bool:
        """True where every meter of the point reads no voltage on any phase that it has."""
        members = {name for v in self.site.virtual_points if v.id == point for _, name in v.terms()} or {point}
        devices = [p.device for p in self.site.metering_points if p.id in members]
        seen = [
            reading.value
            for device in devices
            for phase in ("voltage_l1_n_v", "voltage_l2_n_v", "voltage_l3_n_v", "voltage_l1_l2_v")
            if (reading := self.live.reading(device, phase)).quality.usable
        ]
        return bool(seen) and all(isinstance(volts, int | float) and volts < DEAD_V for volts in seen)

    def awaited(self) -> bool:
        """True for some minutes after the supply came back: what is behind is still starting."""
        if self._back_ns is None:
            return False
        return (self.clock.mono_ns() - self._back_ns) / 1e9 <= self.site.agent.timing.return_s

    def on_return_w(self) -> int:
        """What starts when the supply returns: the nameplate of every machine that is not behind an open switch."""
        fed = self.fleet.energised(self.fleet.positions())
        return sum(round(m.group.nameplate_w) for m in self.fleet.machines.values() if m.group.load in fed)

    def ahead_w(self) -> int:
        """Power that is still to come on top of what the meter shows, while machines start."""
        if not self.awaited():
            return 0
        fed = self.fleet.energised(self.fleet.positions())
        total = 0
        for machine in self.fleet.machines.values():
            if machine.group.load not in fed:
                continue
            seen, held = self.live.miners.get(machine.id), self.journal.held.get(machine.id)
            if held is not None and seen is not None and seen.at_ms <= held.since_ms + 1000:
                continue  # told to sleep, and not heard since
            if seen is None or seen.status is None or seen.mono_ns < (self._back_ns or 0):
                total += round(machine.group.nameplate_w)
            elif not seen.status.sleeping:
                total += max(0, round(machine.group.nameplate_w - (seen.status.power_w or 0)))
        return total
