"""VNish: everything on its web interface; reads are open, writes want a token.

The family itself lives here; its driver and the answers it reads in files of their own.
"""

from __future__ import annotations

from drivers.asic.credentials import Credentials
from drivers.asic.evidence import words
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.timing import Timeouts
from drivers.asic.vnish.answers import NAME, ROOT, part
from drivers.asic.vnish.driver import Vnish

__all__ = ["FAMILY", "Vnish"]

SURE = 95
INFO_PAGE = ROOT + "info"


def _make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Vnish:
    return Vnish(
        at.host,
        http_host=at.web_host,
        http_port=80 if at.http_port is None else at.http_port,
        credentials=credentials,
        timeouts=timeouts,
        writes_allowed=writes_allowed,
    )


def _certainty(evidence: Evidence) -> int:
    """Its name, in ``stats`` of the JSON socket or in ``info`` of the web interface."""
    name = part(evidence.pages.get(INFO_PAGE)).get("fw_name")
    named = isinstance(name, str) and name.strip().lower() in ("vnish", "anthill")
    return SURE if named or "vnish" in words(evidence) else 0


FAMILY = Family(
    name=NAME,
    title="VNish",
    make=_make,
    certainty=_certainty,
    sleeps=True,
    limits_power=True,
    pages=(INFO_PAGE,),
)
