"""One metering point: the rules that need its own records alone, judged as these are read.

What the rules between points need is kept: one number a slot, from the history on.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from verifier.canonical import Object
from verifier.dark import IMPORT
from verifier.energy import DecodeMap
from verifier.plausible.around import Context
from verifier.plausible.bound import Bound, bound
from verifier.plausible.gaps import Gaps
from verifier.plausible.kept import Kept
from verifier.plausible.rules import CLASS, JITTER_S, PROFILE_COUNTS
from verifier.plausible.said import Said
from verifier.plausible.side import MeterSide
from verifier.plausible.spikes import judge_spikes
from verifier.plausible.still import Powered
from verifier.readings import EXPORT, Bind
from verifier.standing import NONE


@dataclass(slots=True)
class Gather:
    """Walks the readings of one point; ``start_s`` and ``slots`` are of the asked period."""

    point: str
    start_s: int
    slots: int
    slot_s: int
    context: Context
    said: Said = field(init=False)
    wh: array[int] = field(init=False)
    """Import as drawn downwards, of each slot from the history on."""
    register_wh: array[int] | None = None
    """As the import register has it, once a meter was connected the other way round."""
    bound: Bound | None = None
    read: int = 0
    """Intervals of the asked period."""
    _bits: int = 0
    """Newest content of the import register."""
    _most_wh: int | None = None
    """The most that a slot can hold."""
    _limited: bool = False
    _remapped: bool = False
    _pairs: bool = False
    """A meter was bound again, so two maps could be compared."""
    _powered: Powered = field(init=False)
    _side: MeterSide = field(init=False)
    _gaps: Gaps = field(init=False)

    def __post_init__(self) -> None:
        size = (self.start_s - self.context.since_s) // self.slot_s + self.slots
        self.wh = array("q", [NONE]) * size
        self.said = Said(self.point, self.start_s, self.slot_s, self.slots)
        self._powered = Powered(self.said, self.count_wh)
        self._side = MeterSide(self.said, self.context.works_ms)
        self._gaps = Gaps(self.said)

    def bind(self, doc: Object, how: Bind) -> None:
        """A meter is bound, or bound anew."""
        before, now = self.bound, bound(doc, how, self.context.contracted_w)
        self.bound = now
        self._most_wh = None if now.most_w is None else now.most_w * self.slot_s // 3600
        self._limited = self._limited or self._most_wh is not None
        if before is None or now.swapped or now.serial != before.serial:
            self._side.other_meter()
            self._remapped = False
        elif now.serial is not None:
            self._pairs = True
            self._remapped = self._remapped or now.changed_map(before)

    def interval(self, doc: Object, bits: int) -> None:
        """A slot that was read and checked; ``bits`` of its import register at the end.

        Raises:
            ValueError: an optional field that is not what it should be.
        """
        meter = self.bound
        if meter is None:
            return
        t0, wh, given = doc["t0"], doc["wh"], doc["exp_wh"]
        place = (t0 - self.context.since_s) // self.slot_s
        if meter.inverted and self.register_wh is None:
            self.register_wh = array("q", self.wh)
        if self.register_wh is not None and 0 <= place < len(self.wh):
            self.register_wh[place] = wh
        if meter.inverted:
            wh, given = given, wh
        if 0 <= place < len(self.wh) and wh is not None:
            self.wh[place] = wh
        asked = 0 <= t0 - self.start_s < self.slots * self.slot_s
        if "ev" in doc:
            self._side.counters(doc["ev"], t0, (self.point, meter.node, meter.device), asked=asked)
        if not asked:
            return
        self._bits = bits
        self.read += 1
        if wh is not None:
            if self._most_wh is not None and wh > self._most_wh:
                self.said.slot("V06", "fail", t0, wh, self._most_wh, "Wh", "more than can be, by contract or ratings")
            self._powered.interval(doc, t0, wh, inverted=meter.inverted)
        if given is not None and EXPORT in meter.how.maps:
            self._export(t0, given, meter)
        if doc.get("mto") is not None:
            self._side.clock(t0, doc["mto"])
        if "ph" in doc:
            self._side.by_phase(doc, t0)
        self._registers(doc, t0, meter)

    def _registers(self, doc: Object, t0: int, meter: Bound) -> None:
        if self._remapped:
            self.said.slot("V16", "fail", t0, None, None, "", "the same meter is read by another map than before")
        lacking = len(meter.how.maps) - len(doc["reg"])
        if lacking > 0:
            self.said.slot("V24", "warn", t0, lacking, 0, "count", "registers that the bind maps are lacking")

    def count_wh(self, name: str = IMPORT) -> int:
        """The least that a register can move by, whole Wh upwards."""
        how: DecodeMap | None = self.bound.how.maps.get(name) if self.bound else None
        return max(1, math.ceil(how.quantum_wh(self._bits))) if how is not None else 1

    def _export(self, t0: int, given: int, meter: Bound) -> None:
        if meter.boundary or self.point in self.context.mains:
            return
        self.said.judged.add("V18")
        if given > 0 and given > self.count_wh(IMPORT if meter.inverted else EXPORT):
            self.said.slot("V18", "suspect", t0, given, 0, "Wh", "energy came out of a point that only takes")

    def gap(self, doc: Object) -> None:
        """A slot that was not read."""
        self._powered.end_run()
        if 0 <= doc["t0"] - self.start_s < self.slots * self.slot_s:
            self._gaps.gap(doc["t0"], doc["why"])

    def archive(self, doc: Object) -> None:
        """A slot out of the meter's own profile: one that was a gap, or one to hold against what was read."""
        t0, meter = doc["t0"], self.bound
        if not self.start_s <= t0 < self.start_s + self.slots * self.slot_s:
            return
        self._gaps.archived(t0)
        read = self.wh[(t0 - self.context.since_s) // self.slot_s]
        if read == NONE or meter is None or meter.inverted:
            return
        self.said.judged.add("V12")
        away_ms = doc.get("mto")
        apart_ms = JITTER_S * 1000 + (abs(away_ms) if type(away_ms) is int else 0)
        most = PROFILE_COUNTS * self.count_wh() + doc["wh"] * apart_ms // (1000 * self.slot_s)
        if abs(read - doc["wh"]) > most:
            self.said.slot("V12", "suspect", t0, read, doc["wh"], "Wh", "the meter's own profile differs")

    def finish(self) -> None:
        """After the last record: what needs the whole period, and what could not be judged."""
        self._powered.end_run()
        self._gaps.finish()
        first = len(self.wh) - self.slots
        judge_spikes(self.said, self.wh, first, self.context.disturbed_s, self.count_wh())
        if self.read:
            self.said.judged |= {"V01", "V02 V03", "V04 V05", "V10", "V24", "V25"}
            had = {"V06": self._limited, "V13": self._side.clocked, "V16": self._pairs}
            had |= dict.fromkeys(("V07", "V09", "V11"), self._powered.seen)
            self.said.judged.update(rule for rule, looked in had.items() if looked)
        for rule, why in WHY.items():
            self.said.leave(rule, why if self.read else "no intervals")

    def kept(self, grades: bytearray, valid: bytes) -> Kept:
        """What the rules between points need."""
        meter = self.bound
        return Kept(
            self.said,
            self.wh if self.read else array("q"),
            len(self.wh) - self.slots,
            self.read,
            meter.role if meter else "",
            meter.node if meter else "",
            self.count_wh(),
            meter.error if meter else CLASS,
            grades,
            valid,
            self.register_wh,
        )


WHY = {
    "V01": "no intervals",
    "V02 V03": "no intervals",
    "V04 V05": "no intervals",
    "V06": "no contract at this point, no ratings in its passport",
    "V07": "no power beside the register, no machines behind it",
    "V08": "too few neighbours",
    "V09": "no power beside the register",
    "V10": "no intervals",
    "V11": "no power beside the register",
    "V12": "no profile of the meter",
    "V13": "no clock of the meter",
    "V16": "bound once",
    "V17": "no values by phase",
    "V18": "no export register, or a boundary",
    "V19": "no check meter at its node",
    "V21": "no figures of machines",
    "V22": "no order held and no open switch",
    "V23": "no event counters",
    "V24": "no intervals",
    "V25": "no intervals",
}
"""Why a rule had nothing to look at, unless it says more."""
