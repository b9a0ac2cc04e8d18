"""How a Sealminer presents itself."""

from __future__ import annotations

from drivers.asic.evidence import words
from drivers.asic.family import Evidence, Family
from drivers.asic.sealminer.answers import FAMILY_NAME
from drivers.asic.sealminer.driver import Sealminer


def certainty(evidence: Evidence) -> int:
    """The name of its mining program, or of its chips in ``stats``."""
    said = words(evidence)
    if "bdminer" in said:
        return 95
    return 85 if "pm state" in said and "seal" in said else 0


FAMILY = Family(
    name=FAMILY_NAME, title="Bitdeer Sealminer", make=Sealminer, certainty=certainty, sleeps=True, http_port=None
)
