"""What is heard on a link and was not asked for: late answers, noise, the frames of a second master.

A second master on an RS-485 line breaks answers and can make its meter's values look like ours; a gateway that mixes up
its callers does the same on TCP. Both show themselves by frames that are whole, check sum and all, and that answer
nothing we asked. Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

ENOUGH_FRAMES = 3
WITHIN_S = 60.0
GONE_AFTER_S = 600.0


class StrayKind(StrEnum):
    """Why bytes were discarded."""

    LATE = "late"
    """Answers a question of ours that was given up."""
    FOREIGN = "foreign"
    """A whole frame that has nothing to do with a question of ours."""
    ECHO = "echo"
    """Our own question, given back by the adapter."""
    NOISE = "noise"
    """Bytes that make no frame."""


@dataclass(frozen=True, slots=True)
class Stray:
    """Something discarded. ``data`` is a whole frame (unit + PDU), or the bytes themselves for noise."""

    kind: StrayKind
    data: bytes


class MasterWatch:
    """Tells a second master from a single odd frame. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=ENOUGH_FRAMES)
        self._present = False

    def foreign(self, now: float) -> bool:
        """A foreign frame was heard. True where this one makes it a second master."""
        self._seen.append(now)
        if self._present or len(self._seen) < ENOUGH_FRAMES or now - self._seen[0] > WITHIN_S:
            return False
        self._present = True
        return True

    def gone(self, now: float) -> bool:
        """True once, when a second master has not been heard for so long that it is taken for gone."""
        if not self._present or now - self._seen[-1] < GONE_AFTER_S:
            return False
        self._present = False
        self._seen.clear()
        return True

    @property
    def present(self) -> bool:
        """True from the frame that gave it away until it was quiet for ten minutes."""
        return self._present
