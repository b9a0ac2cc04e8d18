"""How LuxOS presents itself."""

from __future__ import annotations

from drivers.asic.evidence import words
from drivers.asic.family import Evidence, Family
from drivers.asic.luxos.answers import FAMILY_NAME
from drivers.asic.luxos.driver import LuxOs


def certainty(evidence: Evidence) -> int:
    """Its own name in ``version`` or ``stats``."""
    return 95 if "luxminer" in words(evidence) else 0


FAMILY = Family(name=FAMILY_NAME, title="LuxOS", make=LuxOs, certainty=certainty, sleeps=True, http_port=None)
