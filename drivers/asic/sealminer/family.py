"""How a Sealminer presents itself."""

from __future__ import annotations

from drivers.asic.credentials import Credentials
from drivers.asic.evidence import words
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.sealminer.answers import FAMILY_NAME
from drivers.asic.sealminer.driver import Sealminer
from drivers.asic.timing import Timeouts


def certainty(evidence: Evidence) -> int:
    """The name of its mining program, or of its chips in ``stats``."""
    said = words(evidence)
    if "bdminer" in said:
        return 95
    return 85 if "pm state" in said and "seal" in said else 0


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Sealminer:
    """Its driver; the JSON socket asks for no log-in."""
    del credentials
    return Sealminer(at.host, rpc_port=at.rpc_port or 4028, timeouts=timeouts, writes_allowed=writes_allowed)


FAMILY = Family(
    name=FAMILY_NAME, title="Bitdeer Sealminer", make=make, certainty=certainty, sleeps=True, http_port=None
)
