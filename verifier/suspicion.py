"""A branch that was cut and was not seen to fall from above (``SUSPECT``). What else numbers can show is judged by
:mod:`verifier.plausible`; a balance out of its tolerance is ``SUSPECT`` too, see :mod:`verifier.balance`.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.canonical import Object


@dataclass(slots=True)
class Suspicion:
    """Counts signs at one metering point."""

    unseen: int = 0
    first: int = 0

    def gap(self, doc: Object) -> None:
        """A gap: did the meter above see the branch fall?"""
        above = doc.get("up")
        if above is not None and above.get("seen") is False:
            self.first = self.first if self.unseen else doc["t0"]
            self.unseen += 1

    def doubts(self, point: str) -> list[str]:
        """What to ask about."""
        if not self.unseen:
            return []
        text = "was cut, and the meter above did not see its load fall"
        return [f"SUSPECT {point}: {text} in {self.unseen} slots from {self.first} on"]
