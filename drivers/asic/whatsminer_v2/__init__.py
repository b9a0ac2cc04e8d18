"""Whatsminer, API 1 and 2: JSON socket, reads in clear, writes encrypted with the admin password.

The family itself lives here; its driver, the answers it reads and the cipher of its writes in files of their own.
"""

from __future__ import annotations

from drivers.asic.evidence import heads, words
from drivers.asic.family import Evidence, Family
from drivers.asic.whatsminer_v2.answers import NAME
from drivers.asic.whatsminer_v2.driver import WhatsminerV2

__all__ = ["FAMILY", "WhatsminerV2"]

SURE = 90
LIKELY = 70


def _certainty(evidence: Evidence) -> int:
    """Its ``version`` and refusals name whatsminer or btminer; machines with the framed socket belong to API 3."""
    if evidence.framed is not None:
        return 0
    said = words(evidence)
    if "whatsminer" in said:
        return SURE
    inside = [row for row in heads(evidence) if isinstance(row.get("Msg"), dict)]
    if any("api_ver" in row["Msg"] and "fw_ver" in row["Msg"] for row in inside):
        return SURE
    # "btminer" alone is also a word of Bitmain's own version answers.
    return LIKELY if "btminer" in said and "bmminer" not in said and "antminer" not in said else 0


FAMILY = Family(
    name=NAME,
    title="Whatsminer (API 2)",
    make=WhatsminerV2,
    certainty=_certainty,
    sleeps=True,
    limits_power=True,
    rpc_port=4028,
    http_port=None,
)
