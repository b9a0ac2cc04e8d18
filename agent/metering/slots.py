"""Slot arithmetic of one metering point (``docs/protocol.md``). Pure.

A boundary is a reading of the registers at a slot boundary ``t``, good or failed. A slot with good readings on both
sides is an interval; every other slot is a gap. ``r0`` of a slot *is* ``r1`` of the one before, so sums telescope.
After a gap the next interval states what the registers counted in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wire.energy import interval_wh, primary_wh

IMPORT = "energy_import_wh"
EXPORT = "energy_export_wh"


@dataclass(frozen=True, slots=True)
class Boundary:
    """A reading at slot boundary ``t`` (epoch s); ``bits`` empty when there was none."""

    t: int
    rt_ms: int
    bits: dict[str, int] = field(default_factory=dict)
    frames: tuple[tuple[str, str], ...] = ()
    sn: str | None = None
    why: str | None = None
    tries: int = 1
    power_w: int | None = None
    dark_since_ms: int | None = None
    """Since when the meter's supply is dark behind ``sw``, where that is why it is silent."""
    sw: str | None = None

    @property
    def good(self) -> bool:
        """True where the registers were read."""
        return self.why is None

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
    decode: dict[str, dict[str, Any]]
    """Decode map of each energy register (``bind.pts``)."""
    cfg: str
    """Leaf hash of the ``bind`` record in force."""
    last: Boundary | None = None
    """Newest boundary, good or not."""
    anchor: Boundary | None = None
    """Newest good boundary that an interval has ended with, or the first good one."""
    carried: bool = False
    """True where an interval record already carries the anchor's frames."""

    def close(self, new: Boundary, *, missed: str = "AGENT_DOWN") -> list[SlotRecord]:
        """Records for the slots between the newest boundary and this one.

        Args:
            new: the boundary that is due now.
            missed: why boundaries between the newest one and this one were not read.

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
            records.append(self._slot(previous, absent))
            previous = absent
        records.append(self._slot(previous, new))
        self.last = new
        return records

    def _slot(self, start: Boundary, end: Boundary) -> SlotRecord:
        if not start.good or not end.good:
            bad = end if not end.good else start
            return self._gap(start, end, str(bad.why), bad.tries)
        if start.sn is not None and end.sn is not None and start.sn != end.sn:
            self._restart(end)
            return self._gap(start, end, "SERIAL_CHANGED", end.tries)
        wh = interval_wh(start.bits[IMPORT], end.bits[IMPORT], self.decode[IMPORT])
        export = None
        if EXPORT in self.decode and EXPORT in start.bits and EXPORT in end.bits:
            export = interval_wh(start.bits[EXPORT], end.bits[EXPORT], self.decode[EXPORT])
        if wh is None or wh < 0 or (export is not None and export < 0):
            self._restart(end)
            return self._gap(start, end, "COUNTER_RESET" if wh is not None else "NO_VALUE", end.tries)
        return self._interval(start, end, wh, export)

    def _restart(self, end: Boundary) -> None:
        """The registers before are not comparable with those after: nothing is bridged over this."""
        self.anchor = end
        self.carried = False

    def _gap(self, start: Boundary, end: Boundary, why: str, tries: int) -> SlotRecord:
        if end.good and self.anchor is None:
            self.anchor = end
        fields: dict[str, Any] = {"t0": start.t, "t1": end.t, "why": why, "tries": tries}
        if not start.good and end.sw is not None and end.dark_since_ms is not None:
            if end.dark_since_ms <= start.t * 1000:
                fields["why"] = "DE_ENERGISED"
            fields["sw"] = end.sw
        return SlotRecord("gap", fields)

    def _interval(self, start: Boundary, end: Boundary, wh: int, export: int | None) -> SlotRecord:
        fields: dict[str, Any] = {
            "t0": start.t,
            "t1": end.t,
            "rt0": start.rt_ms,
            "rt1": end.rt_ms,
            "reg": {name: [start.bits[name], end.bits[name]] for name in end.bits if name in start.bits},
            "cfg": self.cfg,
            "wh": wh,
            "exp_wh": export,
            "sn": end.sn,
            "mto": None,
            "q": [],
            "raw": [list(f) for f in end.frames],
        }
        late = 0
        for flag, edge in (("late0", start), ("late1", end)):
            delay = edge.rt_ms - edge.t * 1000
            if delay > self.late_ms:
                fields["q"].append(flag)
                late += abs(edge.power_w or 0) * delay // 3_600_000
        if fields["q"]:
            fields["late_wh"] = late
        anchor = self.anchor
        if anchor is None or anchor.t != start.t or not self.carried:
            fields["raw0"] = [list(f) for f in start.frames]
        if anchor is not None and anchor.t != start.t:
            bridge = interval_wh(anchor.bits[IMPORT], start.bits[IMPORT], self.decode[IMPORT])
            another = None not in {anchor.sn, start.sn} and anchor.sn != start.sn
            if bridge is not None and bridge >= 0 and not another:
                fields["bridge_wh"] = bridge
                fields["bridge_rt"] = anchor.rt_ms
                fields["bridge_reg"] = dict(anchor.bits)
        self.anchor = end
        self.carried = True
        return SlotRecord("interval", fields)


def energy_points(bits: dict[str, int], decode: dict[str, dict[str, Any]]) -> bool:
    """True where the import register was read and is a number."""
    return IMPORT in bits and IMPORT in decode and primary_wh(bits[IMPORT], decode[IMPORT]) is not None
