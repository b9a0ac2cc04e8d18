"""VNish: everything on its web interface; reads are open, writes want a token.

The family itself lives here; its driver and the answers it reads in files of their own.
"""

from __future__ import annotations

from drivers.asic.evidence import words
from drivers.asic.family import Evidence, Family
from drivers.asic.vnish.answers import NAME, ROOT, part
from drivers.asic.vnish.driver import Vnish

__all__ = ["FAMILY", "Vnish"]

SURE = 95
INFO_PAGE = ROOT + "info"


def _certainty(evidence: Evidence) -> int:
    """Its name, in ``stats`` of the JSON socket or in ``info`` of the web interface."""
    name = part(evidence.pages.get(INFO_PAGE)).get("fw_name")
    named = isinstance(name, str) and name.strip().lower() in ("vnish", "anthill")
    return SURE if named or "vnish" in words(evidence) else 0


FAMILY = Family(
    name=NAME,
    title="VNish",
    make=Vnish,
    certainty=_certainty,
    sleeps=True,
    limits_power=True,
    pages=(INFO_PAGE,),
)
