"""How LuxOS presents itself."""

from __future__ import annotations

from drivers.asic.credentials import Credentials
from drivers.asic.evidence import words
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.luxos.answers import FAMILY_NAME
from drivers.asic.luxos.driver import LuxOs
from drivers.asic.timing import Timeouts


def certainty(evidence: Evidence) -> int:
    """Its own name in ``version`` or ``stats``."""
    return 95 if "luxminer" in words(evidence) else 0


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> LuxOs:
    """Its driver; it asks for no log-in."""
    del credentials
    return LuxOs(at.host, rpc_port=at.rpc_port or 4028, timeouts=timeouts, writes_allowed=writes_allowed)


FAMILY = Family(name=FAMILY_NAME, title="LuxOS", make=make, certainty=certainty, sleeps=True, http_port=None)
