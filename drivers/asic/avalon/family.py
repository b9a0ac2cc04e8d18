"""How an Avalon presents itself."""

from __future__ import annotations

from drivers.asic.avalon.answers import FAMILY_NAME, fields_of
from drivers.asic.avalon.driver import Avalon
from drivers.asic.evidence import head_value
from drivers.asic.family import Evidence, Family


def certainty(evidence: Evidence) -> int:
    """Its product name, or the one string of machine-module fields that nobody else has."""
    if head_value(evidence, "PROD").startswith("avalon"):
        return 95
    return 90 if fields_of(evidence.stats) else 0


FAMILY = Family(name=FAMILY_NAME, title="Canaan Avalon", make=Avalon, certainty=certainty, sleeps=True, http_port=None)
