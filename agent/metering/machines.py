"""What the machines behind each feeder drew by their own figures, slot by slot: a check of the meters, no measurement.

Each machine's power is taken as even between two of its answers. Two answers further apart than three of its poll
periods leave a hole: what was drawn in it is not known and not made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.live import Miner
from config.addresses import count
from config.devices import MinerGroup
from wire.record_types import SeenMachines

HOLE_PERIODS = 3
NS_PER_H = 3_600_000_000_000


@dataclass(slots=True)
class _Known:
    """One machine: its last answer, and how long of the slot it is known for."""

    answer_ns: int
    counted_ns: int
    w: int
    covered_ns: int = 0


@dataclass(slots=True)
class MachineEnergy:
    """Told of every answer; cut at each slot boundary.

    Args:
        feeder_of: group → the feeder of the balance that it is behind. Groups behind none are not counted.
        groups: group → its machines.
    """

    feeder_of: Mapping[str, str]
    groups: Mapping[str, MinerGroup]
    _known: dict[str, _Known] = field(default_factory=dict)
    _drawn: dict[str, int] = field(default_factory=dict)
    """Feeder → W·ns of this slot."""
    _expected: dict[str, int] = field(init=False)
    _began_ns: int | None = None

    def __post_init__(self) -> None:
        self._expected = {}
        for group, feeder in self.feeder_of.items():
            self._expected[feeder] = self._expected.get(feeder, 0) + count(self.groups[group])

    def take(self, machine: str, seen: Miner, draw_w: int | None) -> None:
        """A machine was polled; ``draw_w`` is ``None`` where it did not answer."""
        group = machine.partition("/")[0]
        feeder = self.feeder_of.get(group)
        if feeder is None:
            return
        known = self._known.get(machine)
        if known is not None:
            self._count(known, feeder, self.groups[group], seen.mono_ns, draw_w)
        if draw_w is None:
            return  # its last answer still stands, until it is too old
        if known is None:
            self._known[machine] = _Known(seen.mono_ns, seen.mono_ns, draw_w)
        else:
            known.answer_ns = known.counted_ns = seen.mono_ns
            known.w = draw_w

    def _count(self, known: _Known, feeder: str, group: MinerGroup, now_ns: int, now_w: int | None) -> None:
        limit_ns = known.answer_ns + round(HOLE_PERIODS * group.period_s * 1e9)
        if now_ns > limit_ns:
            known.counted_ns = now_ns  # a hole: from the last answer that was counted up to here
            return
        if now_w is None:
            return
        span = now_ns - known.counted_ns
        self._drawn[feeder] = self._drawn.get(feeder, 0) + (known.w + now_w) * span // 2
        known.covered_ns += span

    def cut(self, now_ns: int) -> dict[str, SeenMachines]:
        """Feeder → what was seen since the last cut; a new slot begins."""
        for machine, known in self._known.items():
            group = machine.partition("/")[0]
            self._count(known, self.feeder_of[group], self.groups[group], now_ns, known.w)
            known.counted_ns = now_ns
        slot_ns = None if self._began_ns is None else now_ns - self._began_ns
        seen = self._seen(slot_ns)
        found = {
            feeder: SeenMachines(
                mp=feeder,
                seen=seen.get(feeder, 0),
                expected=expected,
                wh=None if 2 * seen.get(feeder, 0) < expected else self._drawn.get(feeder, 0) // NS_PER_H,
            )
            for feeder, expected in self._expected.items()
        }
        self._drawn.clear()
        for known in self._known.values():
            known.covered_ns = 0
        self._began_ns = now_ns
        return found

    def _seen(self, slot_ns: int | None) -> dict[str, int]:
        found: dict[str, int] = {}
        if slot_ns is None:
            return found  # the first cut ends no slot that was watched from its beginning
        for machine, known in self._known.items():
            if 2 * known.covered_ns >= slot_ns:
                feeder = self.feeder_of[machine.partition("/")[0]]
                found[feeder] = found.get(feeder, 0) + 1
        return found


def feeders_of(groups: Iterable[MinerGroup], loads_behind: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Group → feeder.

    Args:
        loads_behind: feeder → loads fed through it in the normal scheme.
    """
    by_load = {load: feeder for feeder, loads in loads_behind.items() for load in loads}
    return {group.id: by_load[group.load] for group in groups if group.load in by_load}
