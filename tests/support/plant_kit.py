"""The simulated site of :mod:`benchmarks.vee_plant` as the records that a bundle holds, given to the verifier alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from benchmarks.vee_plant import MAIN_QUANTUM_WH, QUANTUM_WH, SLOT_S, Plant
from central.vee.model import Balance, Slot
from verifier.energy import DecodeMap
from verifier.plausible.around import Around
from verifier.plausible.kept import Kept
from verifier.plausible.point import Gather
from verifier.plausible.rules import RULES
from verifier.plausible.said import Finding
from verifier.plausible.site import judge_site
from verifier.readings import Bind
from verifier.records import Record

IMPORT = "energy_import_wh"


@dataclass(frozen=True, slots=True)
class Told:
    """What the verifier says of a plant."""

    points: dict[str, Kept]
    partly: str | None
    """Why the balance was not judged, or not wholly."""

    def flags(self) -> set[tuple[str, str]]:
        """(rule, point) of all but warnings."""
        return {(found.rule, name) for name, kept in self.points.items() for found in self.found(kept)}

    def first(self, rules: set[str], points: set[str], begun: int) -> Finding | None:
        """The earliest finding of these rules at these points that speaks of slots from ``begun`` on."""
        found = [f for name in points for f in self.found(self.points[name]) if f.rule in rules and f.t1 > begun]
        return min(found, key=lambda f: f.t0, default=None)

    @staticmethod
    def found(kept: Kept) -> Iterator[Finding]:
        return (found for found in kept.said.findings if found.severity != "warn")


def interval_doc(slot: Slot) -> dict[str, Any]:
    """The fields of an ``interval`` record that rules look at."""
    doc: dict[str, Any] = {"ty": "interval", "t0": slot.t0, "t1": slot.t1, "wh": slot.wh, "exp_wh": slot.exp_wh}
    doc |= {"q": sorted(slot.flags), "mto": slot.mto, "reg": {IMPORT: [0, 0]}}
    if slot.pi_wh is not None:
        doc["pi"] = {"wh": slot.pi_wh, "n": 100, "gap_ms": 0}
    if slot.phases is not None:
        by = slot.phases
        doc["ph"] = {"n": by.n, "u": [*by.u_mv], "i": [*by.i_ma], "p": [*by.p_w]}
        doc["ph"] |= {"iu": [*by.unfed], "neg": [*by.backwards]}
    return doc | ({"ev": dict(slot.events)} if slot.events else {})


def balance_doc(one: Balance) -> dict[str, Any]:
    """A ``balance`` record's fields."""
    doc: dict[str, Any] = {"ty": "balance", "at": one.t1 * 1000, "t0": one.t0, "t1": one.t1, "main": [*one.main]}
    doc |= {f"{name}_wh": getattr(one, f"{name}_wh") for name in ("main", "feeders", "loss", "residual", "tol")}
    machines = [{"mp": mp, "seen": m.seen, "expected": m.expected, "wh": m.wh} for mp, m in one.asic.items()]
    return doc | {"asic": machines}


def judge_plant(plant: Plant, start_s: int, end_s: int) -> Told:
    """The verifier's own judgement of [``start_s``, ``end_s``), with the records before as history."""
    site = plant.site
    around = Around(SLOT_S, start_s, end_s, frozenset(site.points), site.contracted_w)
    docs = [{"ty": "genesis", "at": site.since * 1000}, *(balance_doc(b) for b in site.balances)]
    for _ in around.watch(Record(doc, "", "") for doc in docs):
        pass
    assert around.errors == []
    context = around.context(len(site.points))
    slots = (end_s - start_s) // SLOT_S
    kept: dict[str, Kept] = {}
    for name, point in site.points.items():
        quantum = Fraction(MAIN_QUANTUM_WH if name == "M" else QUANTUM_WH)
        how = Bind("b" * 64, "1", Fraction(1), Fraction(1), {IMPORT: DecodeMap(4, 0, 4, "big", "u64", quantum)})
        walk = Gather(name, start_s, slots, SLOT_S, context)
        role = {"role": "commercial" if name == "M" else "technical", "boundary": name == "M"}
        walk.bind({"node": name, "device": f"em-{name}", "inverted": False} | role, how)
        for slot in point.slots:
            if slot.ty == "gap":
                walk.gap({"t0": slot.t0, "why": slot.why})
            else:
                walk.interval(interval_doc(slot), 0)
        walk.finish()
        kept[name] = walk.kept(bytearray(b"B" * slots), bytes([1]) * slots)
    partly = judge_site(kept, around)
    assert all(found.rule in RULES for one in kept.values() for found in one.said.findings)
    return Told(kept, partly)
