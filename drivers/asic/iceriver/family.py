"""How an IceRiver presents itself."""

from __future__ import annotations

from drivers.asic.credentials import Credentials
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.iceriver.answers import FAMILY_NAME
from drivers.asic.iceriver.driver import LINE_PORT, IceRiver
from drivers.asic.timing import Timeouts

INFO_PAGE = "line:info"
"""Under this name the line socket's answer to ``info`` stands among the pages of the evidence."""
IDS = ("info", "boardpow", "board", "fan", "getpool", "getnet", "state")


def certainty(evidence: Evidence) -> int:
    """It answers a line question in its own form."""
    answer = evidence.pages.get(INFO_PAGE) or {}
    return 95 if answer.get("id") in IDS and isinstance(answer.get("ret"), dict) else 0


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> IceRiver:
    """Its driver; it never writes and needs no log-in."""
    del credentials, writes_allowed
    return IceRiver(at.host, port=at.rpc_port or LINE_PORT, timeouts=timeouts)


FAMILY = Family(
    name=FAMILY_NAME,
    title="IceRiver",
    make=make,
    certainty=certainty,
    sleeps=False,
    rpc_port=LINE_PORT,
    http_port=None,
)
