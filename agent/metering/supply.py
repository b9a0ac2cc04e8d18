"""Which meters are dark behind an open switch, since when, and what the meter above saw.

A meter that is fed from behind a switch falls silent exactly when it should prove the cut. Silence is no proof: its
branch is judged by the position read back, by the nearest live meter above, and by the registers before and after. So
the last reading before it fell silent and the first one after it came back are kept, with their frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from agent.clock import Clock
from agent.live import LiveState
from agent.metering.registers import IMPORT, DecodeMaps, energy_frames, whole_number
from agent.metering.slots import Boundary, Drop, Edge
from config.graph import Graph
from config.site import Site
from drivers.capabilities import Position, Sample

HISTORY = 60
"""Readings of power that are kept of each metering point."""
WATCH_S = 30.0
"""How long after the opening a fall is looked for, beside two poll periods of the meter above."""
FRESH_S = 5.0
"""A position that was read longer ago proves nothing."""
VISIBLE_W = 500
VISIBLE_SHARE = 50
"""A branch that drew less than 500 W, or a fiftieth of what the meter above shows, cannot be seen to fall there."""


@dataclass(slots=True)
class Dark:
    """One meter without supply."""

    sw: str
    since_ms: int
    since_ns: int
    edge: Edge | None
    """Its last reading."""
    up: str | None
    """Nearest live metering point above."""
    was_w: int | None
    own_w: int | None
    until_ns: int = 0
    """How long the meter above is watched."""
    least_w: int | None = None
    """The least that the meter above showed shortly after."""


@dataclass(frozen=True, slots=True)
class _Power:
    mono_ns: int
    w: int


@dataclass(slots=True)
class SupplyWatch:
    """Told of samples and of positions; asked at each boundary. Knows devices, not metering points."""

    site: Site
    graph: Graph
    live: LiveState
    clock: Clock
    meters: dict[str, tuple[DecodeMaps, Fraction]] = field(default_factory=dict)
    """Device → decode maps of the metering point it measures, and the ratio that its powers are multiplied by."""
    dark: dict[str, Dark] = field(default_factory=dict)
    _newest: dict[str, tuple[int, Edge]] = field(default_factory=dict)
    """Device → (monotonic ns, last usable reading of its import register)."""
    _back: dict[str, Edge | None] = field(default_factory=dict)
    """Device → first reading since its supply came back within this slot; ``None`` until there is one."""
    _history: dict[str, deque[_Power]] = field(default_factory=dict)
    """Metering point → its power of the last minutes, as drawn downwards."""
    _drops: dict[str, Drop] = field(default_factory=dict)
    """Device → how its going dark was seen, of the present or the last darkness."""

    def take(self, sample: Sample) -> None:
        """A meter was read, by a poll or at a boundary."""
        self._keep_power(sample)
        maps, factor = self.meters.get(sample.device, (None, Fraction(1)))
        reading = sample.readings.get(IMPORT)
        power = whole_number(sample.readings.get("power_w"))
        if maps is None or reading is None or not reading.quality.usable or IMPORT not in sample.bits:
            return
        bits = {p: b for p, b in sample.bits.items() if p in maps}
        power_w = None if power is None else round(power * factor)
        edge = Edge(sample.at_ms, bits, energy_frames(sample.frames, maps), power_w)
        newest = self._newest.get(sample.device)
        if newest is None or sample.mono_ns >= newest[0]:
            self._newest[sample.device] = (sample.mono_ns, edge)
            if sample.device in self.dark:  # on a battery it may go on answering for a while
                self.dark[sample.device].edge = edge
        if sample.device not in self.dark and self._back.get(sample.device, edge) is None:
            self._back[sample.device] = edge

    def _keep_power(self, sample: Sample) -> None:
        power = whole_number(sample.readings.get("power_w"))
        if power is None:
            return
        power = round(power * self.meters.get(sample.device, ({}, Fraction(1)))[1])
        for point in self.site.metering_points:
            if point.device == sample.device:
                kept = self._history.setdefault(point.id, deque(maxlen=HISTORY))
                now = _Power(sample.mono_ns, -power if point.inverted else power)
                kept.append(now)
                for dark in self.dark.values():
                    if dark.up == point.id and dark.since_ns <= now.mono_ns <= dark.until_ns:
                        dark.least_w = now.w if dark.least_w is None else min(dark.least_w, now.w)

    def positions_changed(self, positions: Mapping[str, bool]) -> None:
        """Positions of the switches (closed?) as last read."""
        energised = self.graph.energised(positions)
        for device in self.site.devices:
            if device.kind != "meter":
                continue
            if device.fed_from is None or device.fed_from in energised:
                if device.id in self.dark:
                    self.drop(device.id)
                    del self.dark[device.id]
                    self._back.setdefault(device.id, None)
            elif device.id not in self.dark:
                self._went_dark(device.id, device.fed_from, positions, energised)

    def _went_dark(self, device: str, node: str, positions: Mapping[str, bool], energised: frozenset[str]) -> None:
        opened = [
            s
            for s in self.graph.upstream_path(node, self.graph.normal_positions())
            if s in self.graph.switches and not positions.get(s, True)
        ]
        seen = [
            s for s in opened if (state := self.live.switches.get(s)) is not None and state.position is Position.OPEN
        ]
        if not seen:
            return
        up = self.graph.nearest_live_meter(seen[0], positions, self.graph.alive_devices(energised))
        newest = self._newest.get(device)
        if newest is not None:
            self._drops.pop(device, None)  # it tells of an earlier darkness
        was_w = None if up is None or newest is None else self._power_at(up, newest[0])
        own_w = None if newest is None or newest[1].power_w is None else abs(newest[1].power_w)
        edge = None if newest is None else newest[1]
        since_ns = self.clock.mono_ns()
        until_ns = since_ns + round((WATCH_S + 2 * self._period_s(up)) * 1e9)
        now_ms = self.clock.now_ms()
        self.dark[device] = Dark(seen[0], now_ms, since_ns, edge, up, was_w, own_w, until_ns)

    def _period_s(self, point: str | None) -> float:
        device = next((p.device for p in self.site.metering_points if p.id == point), None)
        return next((d.period_s for d in self.site.devices if d.id == device), 0.0)

    def _power_at(self, point: str, mono_ns: int) -> int | None:
        """Power at a metering point when something else was last read: the newest reading up to a second later."""
        kept = [p for p in self._history.get(point, ()) if p.mono_ns <= mono_ns]
        return kept[-1].w if kept else None

    def drop(self, device: str) -> Drop | None:
        """How the branch was seen to fall from above; ``None`` where there is nothing to go by."""
        dark = self.dark.get(device)
        if dark is None or dark.up is None or dark.was_w is None or dark.own_w is None or dark.least_w is None:
            return self._drops.get(device)
        visible = dark.own_w >= max(VISIBLE_W, abs(dark.was_w) // VISIBLE_SHARE)
        fell = dark.was_w - dark.least_w
        found = Drop(dark.up, dark.was_w, dark.least_w, dark.own_w, 2 * fell >= dark.own_w if visible else None)
        self._drops[device] = found
        return found

    def dark_w(self, device: str) -> int | None:
        """The most that a dark branch can draw now, W; ``None`` where its darkness is not proven.

        Its switch has to be read open, lately, and the meter above has to have seen it fall: then it is 0. A branch
        that drew too little to be seen from above counts with what it drew last.
        """
        dark, drop = self.dark.get(device), self.drop(device)
        state = self.live.switches.get(dark.sw) if dark is not None else None
        if state is None or drop is None or drop.seen is False or state.position is not Position.OPEN:
            return None
        if (self.clock.mono_ns() - state.mono_ns) / 1e9 > FRESH_S:
            return None
        return 0 if drop.seen else drop.own_w

    def restore(self, device: str, boundary: Boundary) -> None:
        """After a start: how the darkness began that the last boundary on disk tells of."""
        if boundary.drop is not None and boundary.sw is not None:
            self._drops[device] = boundary.drop

    def mark(self, device: str, boundary: Boundary) -> Boundary:
        """Add to a boundary what is known of the supply in the slot that ends there; call once per slot."""
        dark = self.dark.get(device)
        first = self._back.get(device)
        if boundary.good:
            self._back.pop(device, None)
            marked = replace(boundary, first=first, drop=self.drop(device))
            self._drops.pop(device, None)
            return marked
        if first is not None:
            del self._back[device]
        if dark is None:
            return replace(boundary, first=first)
        return replace(
            boundary,
            why="NO_POWER",
            sw=dark.sw,
            dark_since_ms=dark.since_ms,
            first=first,
            last=dark.edge,
            drop=self.drop(device),
        )
