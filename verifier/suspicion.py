"""What signatures cannot show and numbers can: signs that a reader should ask about. They never fail a bundle alone.

``INTEGRAL``: energy of the registers and energy of the power that was read differ. ``FROZEN``: the site itself said
that a register stood still under load. ``SUSPECT``: a branch that was cut was not seen to fall from above; a
balance out of its tolerance is one too, see :mod:`verifier.balance`. ``SERIAL``: a meter was exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from verifier.canonical import Object
from verifier.energy import DecodeMap

FEWEST = 3
"""Slots with a differing integral before anything is said: one may hold a step of the load."""


@dataclass(slots=True)
class Suspicion:
    """Counts signs at one metering point."""

    slot_s: int
    integrals: int = 0
    frozen: int = 0
    unseen: int = 0
    first: dict[str, int] = field(default_factory=dict)

    def interval(self, doc: Object, bits: int, how: DecodeMap) -> None:
        """A slot that was read. Compares the registers with the integral of power, if there is one."""
        if "frozen" in doc["q"]:
            self.frozen += 1
            self.first.setdefault("FROZEN", doc["t0"])
        integral = doc.get("pi")
        if integral is None:
            return
        net = doc["wh"] - (doc["exp_wh"] or 0)
        apart, larger = abs(net - integral["wh"]), max(abs(net), abs(integral["wh"]))
        unread_wh = larger * 2 * integral["gap_ms"] // (1000 * self.slot_s)
        if apart * 10 > larger + 10 * unread_wh and apart > unread_wh + larger // 10 + 4 * how.quantum_wh(bits):
            self.integrals += 1
            self.first.setdefault("INTEGRAL", doc["t0"])

    def gap(self, doc: Object) -> None:
        """A gap: did the meter above see the branch fall?"""
        above = doc.get("up")
        if above is not None and above.get("seen") is False:
            self.unseen += 1
            self.first.setdefault("SUSPECT", doc["t0"])

    def doubts(self, point: str) -> list[str]:
        """What to ask about."""
        found = []
        if self.integrals >= FEWEST:
            at = self.first["INTEGRAL"]
            found.append(f"INTEGRAL {point}: {self.integrals} slots from {at} on differ from the power that was read")
        if self.frozen:
            at = self.first["FROZEN"]
            found.append(f"FROZEN {point}: the register stood still under load in {self.frozen} slots from {at} on")
        if self.unseen:
            at = self.first["SUSPECT"]
            text = "was cut, and the meter above did not see its load fall"
            found.append(f"SUSPECT {point}: {text} in {self.unseen} slots from {at} on")
        return found
