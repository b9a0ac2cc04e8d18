"""Gaps behind an open switch: which slots had no energy, and how that is proven from registers and positions.

A gap may carry readings from within its slot: ``e0``, the first while the branch was live, and ``e1``, the last. A slot
in which the switch was open throughout had no energy (``Z``) where the last reading before it and the first one after
it differ by no more than the branch can have drawn, at the power it was last seen with, between a reading and the
moment at which the contacts parted or met. Where the power is not known the registers must not have moved at all.
Every other slot of a bridged gap is ``R``: its energy is known only together with its neighbours'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from verifier.canonical import Object
from verifier.energy import DecodeMap, bits_from, energies_between, words_of
from verifier.errors import CalendarError, DecodeError, EnergyError
from verifier.switches import Switches

IMPORT = "energy_import_wh"
SLACK_MS = 5_000
"""Between the moment at which contacts part and the record that says so, twice per darkness."""
MORE = Fraction(3, 2)
"""How much more than its last power a branch may have drawn before it went dark."""
COUNTS_WH = 2
"""Whole Wh lost and won by rounding two readings."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Registers at one instant (ms); ``w`` is the power that was read with them, where it was."""

    rt: int
    reg: Mapping[str, int]
    w: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """A slot without an interval: the switch said to have been open throughout, and readings from within it."""

    t0: int
    sw: str | None
    edges: tuple[Edge, ...] = ()


def read_gap(doc: Object, maps: Mapping[str, DecodeMap], window_ms: int, where: str) -> Gap:
    """A gap record's readings, each held against its frames.

    Raises:
        DecodeError, CalendarError, EnergyError: a reading that its frames do not give, that lies outside the slot, or
            a part of energy that does not follow from them.
    """
    edges: dict[str, Edge] = {}
    for name in ("e0", "e1"):
        if doc.get(name) is not None:
            edges[name] = read_edge(doc[name], maps, f"{where}: {name}")
            late = edges[name].rt - doc["t1"] * 1000
            if edges[name].rt < doc["t0"] * 1000 or late > window_ms:
                raise CalendarError(f"{where}: {name} was read at {edges[name].rt} ms, outside its slot")
    if "part_wh" in doc:
        if len(edges) < 2 or edges["e1"].rt < edges["e0"].rt:
            raise EnergyError(f"{where}: part_wh without a reading at both ends of the part")
        low, high = (edges[name].reg[IMPORT] for name in ("e0", "e1"))
        possible = energies_between(low, high, maps[IMPORT], rollover=False)
        if doc["part_wh"] not in possible or doc["part_wh"] < 0:
            raise EnergyError(f"{where}: part_wh {doc['part_wh']}, the registers say {list(possible)}")
    switch = doc.get("sw") if doc["why"] == "DE_ENERGISED" else None
    if switch is not None and (not isinstance(switch, str) or edges):
        raise DecodeError(f"{where}: a slot that was dark throughout names its switch and has no readings")
    return Gap(doc["t0"], switch, tuple(sorted(edges.values(), key=lambda edge: edge.rt)))


def read_edge(doc: Any, maps: Mapping[str, DecodeMap], where: str) -> Edge:
    """A reading ``{rt, reg, raw, w}`` between two boundaries, decoded again from its frames.

    Raises:
        DecodeError: the frames say something else.
    """
    rt, reg, w = doc["rt"], doc["reg"], doc.get("w")
    if type(rt) is not int or not isinstance(reg, dict) or IMPORT not in reg or not (w is None or type(w) is int):
        raise DecodeError(f"{where}: a reading has rt, reg with {IMPORT}, raw and perhaps w")
    words = words_of(doc["raw"])
    for point, bits in reg.items():
        if point not in maps or bits_from(words, maps[point]) != bits:
            raise DecodeError(f"{where}: {point} is {bits!r}, its raw frames say otherwise")
    return Edge(rt, reg, w)


def dead_slots(
    gaps: Sequence[Gap],
    before: Edge,
    after: Edge,
    maps: Mapping[str, DecodeMap],
    switches: Switches,
    slot_s: int,
) -> set[int]:
    """Which of these slots, between the two readings, are proven to have had no energy; as their ``t0``."""
    found: set[int] = set()
    for number, gap in enumerate(gaps):
        if gap.sw is None or not switches.open_through(gap.sw, gap.t0, gap.t0 + slot_s):
            continue
        earlier = [before, *(edge for other in gaps[:number] for edge in other.edges)]
        later = [*(edge for other in gaps[number + 1 :] for edge in other.edges), after]
        if _still(max(earlier, key=lambda e: e.rt), min(later, key=lambda e: e.rt), gap.sw, maps, switches):
            found.add(gap.t0)
    return found


def _still(before: Edge, after: Edge, switch: str, maps: Mapping[str, DecodeMap], switches: Switches) -> bool:
    allowed_wh = Fraction(0)
    if before.w is not None and after.w is not None:
        live_ms = (after.rt - before.rt) - switches.open_ms(switch, before.rt, after.rt) + 2 * SLACK_MS
        allowed_wh = MORE * max(abs(before.w), abs(after.w)) * live_ms / 3_600_000 + COUNTS_WH
    return all(_moved(before.reg[p], after.reg[p], maps[p], allowed_wh) for p in before.reg.keys() & after.reg.keys())


def _moved(first: int, last: int, how: DecodeMap, allowed_wh: Fraction) -> bool:
    if first == last:
        return True
    between = energies_between(first, last, how, rollover=False)
    return bool(between) and 0 <= between[0] <= math.floor(allowed_wh)
