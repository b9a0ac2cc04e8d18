"""How Marathon's firmware presents itself."""

from __future__ import annotations

from drivers.asic.credentials import Credentials
from drivers.asic.evidence import words
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.marathon.answers import FAMILY_NAME
from drivers.asic.marathon.driver import Marathon
from drivers.asic.timing import Timeouts

WORDS = ("kaonsu", "marafw")


def certainty(evidence: Evidence) -> int:
    """Its name for itself on the JSON socket."""
    said = words(evidence)
    return 95 if any(word in said for word in WORDS) else 0


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Marathon:
    """Its driver."""
    return Marathon(
        at.web_host,
        port=80 if at.http_port is None else at.http_port,
        credentials=credentials,
        timeouts=timeouts,
        writes_allowed=writes_allowed,
    )


FAMILY = Family(
    name=FAMILY_NAME,
    title="Marathon (MARAFW)",
    make=make,
    certainty=certainty,
    sleeps=True,
    limits_power=True,
    needs_login_to_read=True,
)
