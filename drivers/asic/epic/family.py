"""How PowerPlay presents itself."""

from __future__ import annotations

from drivers.asic.epic.answers import FAMILY_NAME
from drivers.asic.epic.driver import Epic
from drivers.asic.family import Evidence, Family

PAGE = "/summary"


def certainty(evidence: Evidence) -> int:
    """Its name in ``/summary``, or the three sections that only it has there."""
    page = evidence.pages.get(PAGE) or {}
    if str(page.get("Software", "")).lower().startswith("powerplay"):
        return 95
    return 85 if {"HBs", "Session", "Stratum"} <= set(page) else 0


FAMILY = Family(
    name=FAMILY_NAME,
    title="ePIC PowerPlay",
    make=Epic,
    certainty=certainty,
    sleeps=True,
    pages=(PAGE,),
    http_port=None,
)
