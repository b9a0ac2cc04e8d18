"""How ESP-Miner presents itself."""

from __future__ import annotations

from drivers.asic.bitaxe.answers import FAMILY_NAME
from drivers.asic.bitaxe.driver import INFO, Bitaxe
from drivers.asic.credentials import Credentials
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.timing import Timeouts


def certainty(evidence: Evidence) -> int:
    """Its page, with the chip's name in it."""
    page = evidence.pages.get(INFO) or {}
    return 95 if "ASICModel" in page else 0


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Bitaxe:
    """Its driver; it asks for no log-in."""
    del credentials
    port = 80 if at.http_port is None else at.http_port
    return Bitaxe(at.web_host, port=port, timeouts=timeouts, writes_allowed=writes_allowed)


FAMILY = Family(
    name=FAMILY_NAME,
    title="Bitaxe (ESP-Miner)",
    make=make,
    certainty=certainty,
    sleeps=True,
    pages=(INFO,),
    rpc_port=None,
)
