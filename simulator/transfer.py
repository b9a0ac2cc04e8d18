"""Automatic transfer (АВР): a section breaker that closes by itself when one of its buses loses its feed.

It acts once: it opens the dead bus's incomer, closes the section breaker, and leaves the way back to a person. It does
not act where the incomer was opened on purpose, nor where both buses are dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.nodes import Switch

if TYPE_CHECKING:
    from simulator.plant import Plant


class Transfer:
    """All automatic transfers of one plant."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._sections = {
            n.id: n.between for n in plant.site.nodes if isinstance(n, Switch) and n.avr and n.between is not None
        }
        self._due_s: dict[str, float] = {}
        self.enabled = True

    @property
    def next_s(self) -> float | None:
        """When the next one acts."""
        return min(self._due_s.values(), default=None)

    def look(self, now_s: float) -> None:
        """The feeding paths changed: start or stop the delays."""
        for section in self._sections:
            if self.enabled and self._dead_bus(section) is not None:
                self._due_s.setdefault(section, now_s + self._plant.latencies.transfer.delay_s.value)
            else:
                self._due_s.pop(section, None)

    def run(self, now_s: float) -> bool:
        """Act where a delay has ended; True where something began to move."""
        acted = False
        for section in [name for name, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[section]
            dead = self._dead_bus(section)
            if dead is None:
                continue
            for incomer in self._incomers(dead):
                self._plant.switches[incomer].drive(False, now_s, deliberate=False)
            acted |= self._plant.switches[section].drive(True, now_s, deliberate=False)
        return acted

    def _incomers(self, bus: str) -> list[str]:
        return [p for p in self._plant.graph.parents(bus) if p in self._plant.switches and p not in self._sections]

    def _dead_bus(self, section: str) -> str | None:
        plant = self._plant
        if plant.switches[section].closed:
            return None
        first, second = self._sections[section]
        if (first in plant.energised) == (second in plant.energised):
            return None
        dead = second if first in plant.energised else first
        on_purpose = any(not plant.switches[i].closed and plant.switches[i].deliberate for i in self._incomers(dead))
        return None if on_purpose else dead
