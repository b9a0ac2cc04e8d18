"""How Bitmain's own firmware presents itself."""

from __future__ import annotations

from drivers.asic.antminer_stock.conf import FAMILY_NAME
from drivers.asic.antminer_stock.driver import AntminerStock
from drivers.asic.evidence import answered, head_value, is_other_firmware, words
from drivers.asic.family import Evidence, Family

REALM = "antMiner Configuration"
"""Realm of the digest log-in of Bitmain's web interface: it answers also while the JSON socket is closed in sleep."""


def certainty(evidence: Evidence) -> int:
    """Its names in ``version`` or ``stats``; its realm alone where the JSON socket is closed, as in sleep."""
    if answered(evidence):
        said = words(evidence)
        if (
            is_other_firmware(evidence)
            or "luxminer" in said
            or not head_value(evidence, "Type", "type").startswith("antminer")
        ):
            return 0
        return 85 if "bmminer" in said or "btminer" in said else 60
    return 80 if evidence.realm == REALM else 0


FAMILY = Family(
    name=FAMILY_NAME,
    title="Bitmain stock",
    make=AntminerStock,
    certainty=certainty,
    sleeps=True,
)
