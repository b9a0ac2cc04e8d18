"""How an Avalon presents itself."""

from __future__ import annotations

from drivers.asic.avalon.answers import FAMILY_NAME, fields_of
from drivers.asic.avalon.driver import Avalon
from drivers.asic.credentials import Credentials
from drivers.asic.evidence import head_value
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.timing import Timeouts


def certainty(evidence: Evidence) -> int:
    """Its product name, or the one string of machine-module fields that nobody else has."""
    if head_value(evidence, "PROD").startswith("avalon"):
        return 95
    return 90 if fields_of(evidence.stats) else 0


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Avalon:
    """Its driver; it asks for no log-in, on the JSON socket everybody may do everything."""
    del credentials
    return Avalon(at.host, rpc_port=at.rpc_port or 4028, timeouts=timeouts, writes_allowed=writes_allowed)


FAMILY = Family(name=FAMILY_NAME, title="Canaan Avalon", make=make, certainty=certainty, sleeps=True, http_port=None)
