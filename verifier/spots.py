"""Spot readings: a person read the display, the agent the registers. Anchors that tie a chain to the meter on the wall.

The registers of a spot must lie between the readings around it. The display says something only where it does too, at
the time at which the person read it. Signed by a person outside the site it makes the point's slots of that quarter
worth grade A; see :mod:`verifier.standing`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from verifier.canonical import Object
from verifier.dark import IMPORT, read_edge
from verifier.energy import DecodeMap
from verifier.errors import BindError, ContinuityError, InputLimit, SpotError
from verifier.keys import decode_base64
from verifier.metrology import quarter
from verifier.people import MAX_ACT, OUTSIDE, read_act, signer
from verifier.records import Record
from verifier.register import Register, Signer

KEPT = 64
"""Boundary readings that a display is held against."""
WATCH_MS = 60_000
"""How far a person's watch may be off."""
SAME = ("point", "seen", "display_wh", "display_lsb_wh", "photo_sha256")


@dataclass(slots=True)
class Spot:
    """One spot reading and what is known of it."""

    where: str
    rt: int
    energy: Fraction
    seen: int
    display: Fraction
    step: Fraction
    """What the display's last digit is worth."""
    doc: Object
    signed: Signer | None
    placed: bool = False
    """Held against the readings on both sides."""
    agrees: bool = False
    """The display lies between them too."""

    @property
    def independent(self) -> bool:
        """Worth grade A."""
        return self.placed and self.agrees and self.signed is not None and self.signed.role in OUTSIDE

    def report(self) -> dict[str, object]:
        """For the report."""
        who = self.signed
        return {
            "seen": self.seen,
            "who": who.name if who else str(self.doc["who"])[:100],
            "organisation": who.organisation if who else str(self.doc["organisation"])[:200],
            "role": who.role if who else str(self.doc["role"])[:100],
            "signed": who is not None,
            "diff_wh": self.doc["diff_wh"],
            "independent": self.independent,
        }


@dataclass(slots=True)
class Spots:
    """All spot readings of one metering point."""

    point: str
    register: Register | None
    found: list[Spot] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    _edges: deque[tuple[int, int, DecodeMap]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Boundary readings: ms, raw bits, how they are read. Worked out only where a spot reading asks for it."""
    _open: list[Spot] = field(default_factory=list)

    def new_meter(self) -> None:
        """Readings before are of another meter."""
        self._edges.clear()
        self._open.clear()

    def quarters(self) -> frozenset[str]:
        """Quarters with an independent reading."""
        return frozenset(quarter(spot.seen // 1000) for spot in self.found if spot.independent)

    def take(self, record: Record, leaf: str, maps: Mapping[str, DecodeMap], factor: Fraction) -> None:
        """A ``spot`` record.

        Args:
            leaf: the bind in force.
            maps: its decode maps.
            factor: what the agent multiplies the meter's own registers by.

        Raises:
            BindError, DecodeError, SpotError, ContinuityError: what is wrong with it.
        """
        doc, where = record.doc, record.where
        if doc["cfg"] != leaf or doc["point"] != self.point:
            raise BindError(f"{where}: cfg is not the bind in force for {self.point}, or it is of another point")
        edge = read_edge({"rt": doc["rt"], "reg": doc["reg"], "raw": doc["raw"], "w": doc["w"]}, maps, where)
        energy = maps[IMPORT].energy(edge.reg[IMPORT])
        numbers = [doc[name] for name in ("seen", "display_wh", "display_lsb_wh", "diff_wh")]
        if energy is None or any(type(number) is not int for number in numbers):
            raise SpotError(f"{where}: a spot reading has whole numbers and a register that is one")
        seen, display_wh, step_wh, diff_wh = (int(number) for number in numbers)
        display = display_wh * factor
        if display_wh < 0 or step_wh < 1 or diff_wh != math.floor(energy) - math.floor(display):
            raise SpotError(f"{where}: diff_wh {diff_wh} does not follow from display and register")
        before = self._known()[-1:]
        if before and (edge.rt < before[0][0] or energy < before[0][1]):
            raise ContinuityError(f"{where}: the register stands below the boundary reading before it")
        signed = self._signed(record)
        spot = Spot(where, edge.rt, energy, seen, display, step_wh * factor, doc, signed)
        self.found.append(spot)
        self._open.append(spot)

    def _signed(self, record: Record) -> Signer | None:
        doc, where = record.doc, record.where
        if doc["act"] is None or self.register is None:
            return None
        try:
            act, envelope = read_act(decode_base64(doc["act"], MAX_ACT))
            found = signer(envelope, self.register, int(act["at"]))
        except InputLimit:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise SpotError(f"{where}: its act cannot be believed: {error}") from None
        stated = {name: doc[name] for name in SAME} | {"serial": doc["sn"], "seals": doc["seals"], "ty": "spot"}
        stated |= dict(zip(("site", "epoch"), doc["log"].split("/")[1:3], strict=True))
        told = {name: act.get(name, [] if name == "seals" else None) for name in stated}
        if told != stated:
            differs = ", ".join(sorted(name for name, value in stated.items() if told[name] != value))
            raise SpotError(f"{where}: the record says otherwise than the act that is signed: {differs}")
        if found is None:
            self.doubts.append(f"SPOT {self.point}: {where} is signed by nobody who may inspect this site")
        return found

    def interval(self, doc: Object, opening: int, closing: int, how: DecodeMap) -> None:
        """A slot that was read: its two readings, as raw bits.

        Raises:
            ContinuityError: a spot reading before it does not lie between the readings around it.
        """
        if "rollover" in doc["q"]:
            self.new_meter()  # energies on both sides of a rollover cannot be compared so
        for edge in ((doc["rt0"], opening, how), (doc["rt1"], closing, how)):
            if not self._edges or edge[0] > self._edges[-1][0]:
                self._edges.append(edge)
        if not self._open:
            return
        known = self._known()
        wrong = [spot for spot in self._open if not self._place(spot, known)]
        self._open.clear()
        if wrong:
            raise ContinuityError(f"{wrong[0].where}: the register does not lie between the readings around it")

    def _known(self) -> list[tuple[int, Fraction]]:
        """The boundary readings as energies."""
        worked = ((rt, how.energy(bits)) for rt, bits, how in self._edges)
        return [(rt, energy) for rt, energy in worked if energy is not None]

    def _place(self, spot: Spot, edges: list[tuple[int, Fraction]]) -> bool:
        if any((energy > spot.energy) if rt <= spot.rt else (energy < spot.energy) for rt, energy in edges):
            return False
        spot.placed = True
        around = sorted([*edges, (spot.rt, spot.energy)])
        below = [edge for edge in around if edge[0] <= spot.seen]
        above = [edge for edge in around if edge[0] >= spot.seen]
        if not below or not above:
            self.doubts.append(f"SPOT {self.point}: the display of {spot.where} was read at no time that is known here")
            return True
        (rt0, low), (rt1, high) = below[-1], above[0]
        slack = spot.step + (Fraction((high - low) * WATCH_MS, rt1 - rt0) if rt1 > rt0 else self._pace(edges))
        spot.agrees = low - slack <= spot.display <= high + slack
        if not spot.agrees:
            off = math.floor(spot.display) - math.floor(spot.energy)
            self.doubts.append(
                f"SPOT {self.point}: the display that {spot.where} tells of is {off} Wh off the register"
            )
        return True

    @staticmethod
    def _pace(edges: list[tuple[int, Fraction]]) -> Fraction:
        """Energy of a minute at the pace of the readings at hand."""
        if len(edges) < 2 or edges[-1][0] == edges[-2][0]:
            return Fraction(0)
        return Fraction((edges[-1][1] - edges[-2][1]) * WATCH_MS, edges[-1][0] - edges[-2][0])
