"""How PowerPlay presents itself."""

from __future__ import annotations

from drivers.asic.credentials import Credentials
from drivers.asic.epic.answers import FAMILY_NAME
from drivers.asic.epic.driver import Epic
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.timing import Timeouts

PAGE = "/summary"


def certainty(evidence: Evidence) -> int:
    """Its name in ``/summary``, or the three sections that only it has there."""
    page = evidence.pages.get(PAGE) or {}
    if str(page.get("Software", "")).lower().startswith("powerplay"):
        return 95
    return 85 if {"HBs", "Session", "Stratum"} <= set(page) else 0


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Epic:
    """Its driver."""
    return Epic(
        at.host,
        port=at.rpc_port or 4028,
        credentials=credentials,
        timeouts=timeouts,
        writes_allowed=writes_allowed,
    )


FAMILY = Family(
    name=FAMILY_NAME,
    title="ePIC PowerPlay",
    make=make,
    certainty=certainty,
    sleeps=True,
    pages=(PAGE,),
    http_port=None,
)
