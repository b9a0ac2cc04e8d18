"""Whatsminer, API 3: length-framed JSON, reads in clear, writes with a token made from the account's password.

The family itself lives here; its driver and the answers it reads in files of their own.
"""

from __future__ import annotations

from drivers.asic.family import Evidence, Family
from drivers.asic.framed import PORT
from drivers.asic.whatsminer_v3.answers import NAME, message, refusal
from drivers.asic.whatsminer_v3.driver import WhatsminerV3

__all__ = ["FAMILY", "WhatsminerV3"]

SURE = 95
LIKELY = 80


def _certainty(evidence: Evidence) -> int:
    """Nothing else speaks the length-framed protocol."""
    if evidence.framed is None:
        return 0
    known = refusal(evidence.framed) is None and ("miner" in message(evidence.framed) or "desc" in evidence.framed)
    return SURE if known else LIKELY


FAMILY = Family(
    name=NAME,
    title="Whatsminer (API 3)",
    make=WhatsminerV3,
    certainty=_certainty,
    sleeps=True,
    limits_power=True,
    rpc_port=PORT,
    http_port=None,
)
