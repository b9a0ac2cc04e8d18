"""Slot arithmetic of one metering point (``docs/protocol.md``). Pure.

A boundary is a reading of the registers at a slot boundary ``t``, good or failed. A slot with good readings on both
sides is an interval; every other slot is a gap. ``r0`` of a slot *is* ``r1`` of the one before, so sums telescope.
After a gap the next interval states what the registers counted in between.

A slot in which the meter lost its supply behind a switch, or got it back, is a gap too; where the register was read
while the branch was live, the gap carries the first and the last of these readings (``e0``, ``e1``) and what was
counted between them. Read, dead, read: the energy of every part is then known from registers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.metering.counter import Counted, counted, stands_still
from agent.metering.integral import Integral
from agent.metering.registers import EXPORT, IMPORT, DecodeMaps, Frames, ratios_differ
from wire.energy import primary_wh
from wire.record_types import PhaseValues

__all__ = ["EXPORT", "IMPORT", "Boundary", "Drop", "Edge", "SlotChain", "SlotRecord", "energy_points"]

FROZEN_COUNTS = 3
"""A register that should have moved by so many counts and did not is flagged."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A reading of the registers between two boundaries."""

    rt_ms: int
    bits: dict[str, int]
    frames: Frames
    power_w: int | None = None

    def doc(self) -> dict[str, Any]:
        """For a record and for the ledger's boundary table."""
        return {"rt": self.rt_ms, "reg": self.bits, "raw": [list(f) for f in self.frames], "w": self.power_w}

    @classmethod
    def from_doc(cls, doc: dict[str, Any] | None) -> Edge | None:
        """Back from the ledger."""
        if doc is None:
            return None
        frames = tuple((str(a), str(b)) for a, b in doc["raw"])
        return cls(int(doc["rt"]), {str(k): int(v) for k, v in doc["reg"].items()}, frames, doc["w"])


@dataclass(frozen=True, slots=True)
class Drop:
    """How the nearest live meter above saw a branch go dark. Powers in W, as drawn downwards."""

    mp: str
    was_w: int
    """Just before, while the meter of the branch still answered."""
    now_w: int
    """The least since then."""
    own_w: int
    """What the branch itself drew last."""
    seen: bool | None
    """``None``: it drew too little to be seen from above."""

    def doc(self) -> dict[str, Any]:
        """For a record and for the ledger's boundary table."""
        return {"mp": self.mp, "was_w": self.was_w, "now_w": self.now_w, "own_w": self.own_w, "seen": self.seen}

    @classmethod
    def from_doc(cls, doc: dict[str, Any] | None) -> Drop | None:
        """Back from the ledger."""
        return None if doc is None else cls(doc["mp"], doc["was_w"], doc["now_w"], doc["own_w"], doc["seen"])


@dataclass(frozen=True, slots=True)
class Boundary:
    """A reading at slot boundary ``t`` (epoch s); ``bits`` empty when there was none."""

    t: int
    rt_ms: int
    bits: dict[str, int] = field(default_factory=dict)
    frames: Frames = ()
    sn: str | None = None
    why: str | None = None
    tries: int = 1
    power_w: int | None = None
    dark_since_ms: int | None = None
    """Since when the meter's supply is dark behind ``sw``, where that is why it is silent."""
    sw: str | None = None
    ratios: str | None = None
    """Transformer ratios as the meter is set, see :func:`agent.metering.registers.read_ratios`."""
    mto_ms: int | None = None
    """The meter's clock minus ours."""
    integral: Integral | None = None
    """Of the slot that ends here."""
    phases: PhaseValues | None = None
    """Likewise."""
    events: dict[str, int] = field(default_factory=dict)
    """The meter's own event counters, by event; those that were read."""
    first: Edge | None = None
    """First reading since the branch came back within the slot that ends here."""
    last: Edge | None = None
    """Last reading before the branch went dark within the slot that ends here."""
    drop: Drop | None = None

    @property
    def good(self) -> bool:
        """True where the registers were read."""
        return self.why is None

    @property
    def edge(self) -> Edge:
        """The same reading as an edge of a part of a slot."""
        return Edge(self.rt_ms, self.bits, self.frames, self.power_w)

    def doc(self) -> dict[str, Any]:
        """For the ledger's boundary table."""
        return {
            "t": self.t,
            "rt": self.rt_ms,
            "bits": self.bits,
            "frames": [list(f) for f in self.frames],
            "sn": self.sn,
            "why": self.why,
            "tries": self.tries,
            "power": self.power_w,
            "dark": self.dark_since_ms,
            "sw": self.sw,
            "ratios": self.ratios,
            "drop": self.drop.doc() if self.drop else None,
        }

    @classmethod
    def from_doc(cls, doc: dict[str, Any]) -> Boundary:
        """Back from the ledger."""
        return cls(
            int(doc["t"]),
            int(doc["rt"]),
            {str(k): int(v) for k, v in doc["bits"].items()},
            tuple((str(a), str(b)) for a, b in doc["frames"]),
            doc["sn"],
            doc["why"],
            int(doc["tries"]),
            doc["power"],
            doc["dark"],
            doc["sw"],
            doc.get("ratios"),
            drop=Drop.from_doc(doc.get("drop")),
        )


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """What to record for one slot."""

    ty: str
    fields: dict[str, Any]


@dataclass(slots=True)
class SlotChain:
    """The chain of slots of one metering point.

    Feed :meth:`close` with each boundary in order; it returns the records of every slot up to that boundary.
    """

    slot_s: int
    late_ms: int
    """Beyond this after the boundary a reading is flagged late (1 s TCP, 3 s serial)."""
    decode: DecodeMaps
    """Decode map of each energy register (``bind.pts``)."""
    cfg: str
    """Leaf hash of the ``bind`` record in force."""
    limit_w: int | None = None
    """The most that the connection carries, for telling a rollover from a reset."""
    last: Boundary | None = None
    """Newest boundary, good or not."""
    anchor: Boundary | None = None
    """Newest good boundary that an interval has ended with, or the first good one."""
    carried: bool = False
    """True where an interval record already carries the anchor's frames."""

    def close(self, new: Boundary, *, missed: str = "AGENT_DOWN", broken: str | None = None) -> list[SlotRecord]:
        """Records for the slots between the newest boundary and this one.

        Args:
            new: the boundary that is due now.
            missed: why boundaries between the newest one and this one were not read.
            broken: why the registers at this boundary are known not to continue those before, however they look.

        Raises:
            ValueError: the boundary is not on the grid or not after the newest one.
        """
        if new.t % self.slot_s:
            raise ValueError(f"boundary {new.t} is not on the grid of {self.slot_s} s")
        if self.last is None:
            self.last = new
            if new.good:
                self.anchor = new
            return []
        if new.t <= self.last.t:
            raise ValueError(f"boundary {new.t} does not come after {self.last.t}")
        records: list[SlotRecord] = []
        previous = self.last
        for t in range(self.last.t + self.slot_s, new.t, self.slot_s):
            absent = Boundary(t, t * 1000, why=missed, tries=0)
            records.append(self._slot(previous, absent, None))
            previous = absent
        records.append(self._slot(previous, new, broken))
        self.last = new
        return records

    def _slot(self, start: Boundary, end: Boundary, broken: str | None) -> SlotRecord:
        if not start.good or not end.good:
            bad = end if not end.good else start
            record = self._gap(start, end, str(bad.why), bad.tries)
            if broken is not None and end.good:
                self._restart(end)
            return record
        why = broken or _another(start, end)
        if why is not None:
            self._restart(end)
            return self._gap(start, end, why, end.tries)
        main = self._counted(IMPORT, start, end)
        export = None
        if EXPORT in self.decode and EXPORT in start.bits and EXPORT in end.bits:
            export = self._counted(EXPORT, start, end)
        for part in (main, export):
            if part is not None and part.why is not None:
                self._restart(end)
                return self._gap(start, end, part.why, end.tries)
        return self._interval(start, end, main, export)

    def _counted(self, point: str, before: Boundary | Edge, after: Boundary | Edge) -> Counted:
        seconds = max(0, after.rt_ms - before.rt_ms) / 1000
        return counted(before.bits[point], after.bits[point], self.decode[point], seconds=seconds, limit_w=self.limit_w)

    def _restart(self, end: Boundary) -> None:
        """The registers before are not comparable with those after: nothing is bridged over this."""
        self.anchor = end
        self.carried = False

    def _gap(self, start: Boundary, end: Boundary, why: str, tries: int) -> SlotRecord:
        fields: dict[str, Any] = {"t0": start.t, "t1": end.t, "why": why, "tries": tries}
        switch = end.sw or start.sw
        if switch is not None and not (start.good and end.good):
            fields |= self._dark(start, end, switch)
        if end.good and self.anchor is None:
            self.anchor = end
        return SlotRecord("gap", fields)

    def _dark(self, start: Boundary, end: Boundary, switch: str) -> dict[str, Any]:
        """What is known of a slot in which the branch was dark, wholly or in part."""
        found: dict[str, Any] = {"sw": switch}
        drop = end.drop or start.drop
        if drop is not None:
            found["up"] = drop.doc()
        if not start.good and end.dark_since_ms is not None and end.dark_since_ms <= start.t * 1000:
            # Open for the whole slot, and the fall was seen from above or was too small to be.
            if drop is not None and drop.seen is not False:
                found["why"] = "DE_ENERGISED"
            return found
        first = start.edge if start.good else end.first
        last = end.edge if end.good else end.last
        first, last = (self._plausible(edge, start, end) for edge in (first, last))
        if first is not None and last is not None and first.rt_ms <= last.rt_ms:
            part = self._counted(IMPORT, first, last)
            if part.wh is not None and not part.wrapped:
                found["part_wh"] = part.wh
        for name, edge in (("e0", first), ("e1", last)):
            if edge is not None:
                found[name] = edge.doc()
        return found

    def _plausible(self, edge: Edge | None, start: Boundary, end: Boundary) -> Edge | None:
        """An edge that lies in the slot and follows from the last good boundary; nonsense is not evidence."""
        if edge is None or edge.rt_ms < start.t * 1000 or IMPORT not in edge.bits:
            return None
        if edge.rt_ms > end.t * 1000 and not end.good:
            return None
        if self.anchor is None:
            return edge
        since = self._counted(IMPORT, self.anchor, edge)
        if since.wh is None or since.wrapped:
            return None
        if self.limit_w is not None and since.wh * 3_600_000 > self.limit_w * (edge.rt_ms - self.anchor.rt_ms + 60_000):
            return None
        return edge

    def _interval(self, start: Boundary, end: Boundary, main: Counted, export: Counted | None) -> SlotRecord:
        fields: dict[str, Any] = {
            "t0": start.t,
            "t1": end.t,
            "rt0": start.rt_ms,
            "rt1": end.rt_ms,
            "reg": {name: [start.bits[name], end.bits[name]] for name in end.bits if name in start.bits},
            "cfg": self.cfg,
            "wh": main.wh,
            "exp_wh": export.wh if export else None,
            "sn": end.sn,
            "mto": end.mto_ms,
            "q": [],
            "raw": [list(f) for f in end.frames],
        }
        self._lateness(fields, start, end)
        if main.wrapped or (export is not None and export.wrapped):
            fields["q"].append("rollover")
        if end.integral is not None:
            fields["pi"] = end.integral.doc()
            if stands_still(start.bits, end.bits, self.decode, end.integral.wh, FROZEN_COUNTS):
                fields["q"].append("frozen")
        if end.phases is not None:
            fields["ph"] = end.phases
        if end.events:
            fields["ev"] = end.events
        anchor = self.anchor
        if anchor is None or anchor.t != start.t or not self.carried:
            fields["raw0"] = [list(f) for f in start.frames]
        if anchor is not None and anchor.t != start.t and _another(anchor, start) is None:
            bridge = self._counted(IMPORT, anchor, start)
            if bridge.wh is not None:
                fields["bridge_wh"] = bridge.wh
                fields["bridge_rt"] = anchor.rt_ms
                fields["bridge_reg"] = dict(anchor.bits)
                if bridge.wrapped and "rollover" not in fields["q"]:
                    fields["q"].append("rollover")
        self.anchor = end
        self.carried = True
        return SlotRecord("interval", fields)

    def _lateness(self, fields: dict[str, Any], start: Boundary, end: Boundary) -> None:
        """Flag readings that came late, with the energy that this may have moved to the neighbour."""
        late_wh: int | None = 0
        delays: list[int] = []
        for flag, edge in (("late0", start), ("late1", end)):
            delay = edge.rt_ms - edge.t * 1000
            if delay <= self.late_ms:
                continue
            fields["q"].append(flag)
            delays.append(delay)
            known = late_wh is not None and edge.power_w is not None
            late_wh = (late_wh or 0) + abs(edge.power_w or 0) * delay // 3_600_000 if known else None
        if delays:
            fields["late_ms"] = max(delays)
            fields["late_wh"] = late_wh


def _another(before: Boundary, after: Boundary) -> str | None:
    """Why the registers of two readings cannot be compared; ``None`` where they can."""
    if before.sn is not None and after.sn is not None and before.sn != after.sn:
        return "SERIAL_CHANGED"
    return "RATIO_CHANGED" if ratios_differ(before.ratios, after.ratios) else None


def energy_points(bits: dict[str, int], decode: DecodeMaps) -> bool:
    """True where the import register was read and is a number."""
    return IMPORT in bits and IMPORT in decode and primary_wh(bits[IMPORT], decode[IMPORT]) is not None
