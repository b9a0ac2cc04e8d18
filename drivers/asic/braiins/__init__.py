"""Braiins OS: JSON socket for reading, REST or (before 25.07) GraphQL for its state and for writing.

The family itself lives here; its driver and what each interface answers in files of their own.
"""

from __future__ import annotations

from drivers.asic.braiins.driver import Braiins
from drivers.asic.braiins.rest import NAME
from drivers.asic.evidence import words
from drivers.asic.family import Evidence, Family

__all__ = ["FAMILY", "Braiins"]

SURE = 95
NAMES = ("boser", "bosminer", "braiins")


def _certainty(evidence: Evidence) -> int:
    """It names itself BOSer, or BOSminer in older versions."""
    said = words(evidence)
    return SURE if any(name in said for name in NAMES) else 0


FAMILY = Family(name=NAME, title="Braiins OS", make=Braiins, certainty=_certainty, sleeps=True, limits_power=True)
