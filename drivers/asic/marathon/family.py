"""How Marathon's firmware presents itself."""

from __future__ import annotations

from drivers.asic.evidence import words
from drivers.asic.family import Evidence, Family
from drivers.asic.marathon.answers import FAMILY_NAME
from drivers.asic.marathon.driver import Marathon

WORDS = ("kaonsu", "marafw")


def certainty(evidence: Evidence) -> int:
    """Its name for itself on the JSON socket."""
    said = words(evidence)
    return 95 if any(word in said for word in WORDS) else 0


FAMILY = Family(
    name=FAMILY_NAME,
    title="Marathon (MARAFW)",
    make=Marathon,
    certainty=certainty,
    sleeps=True,
    limits_power=True,
    needs_login_to_read=True,
)
