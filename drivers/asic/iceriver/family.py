"""How an IceRiver presents itself."""

from __future__ import annotations

from drivers.asic.family import Evidence, Family
from drivers.asic.iceriver.answers import FAMILY_NAME
from drivers.asic.iceriver.driver import LINE_PORT, IceRiver

INFO_PAGE = "line:info"
"""Under this name the line socket's answer to ``info`` stands among the pages of the evidence."""
IDS = ("info", "boardpow", "board", "fan", "getpool", "getnet", "state")


def certainty(evidence: Evidence) -> int:
    """It answers a line question in its own form."""
    answer = evidence.pages.get(INFO_PAGE) or {}
    return 95 if answer.get("id") in IDS and isinstance(answer.get("ret"), dict) else 0


FAMILY = Family(
    name=FAMILY_NAME,
    title="IceRiver",
    make=IceRiver,
    certainty=certainty,
    sleeps=False,
    rpc_port=LINE_PORT,
    http_port=None,
)
