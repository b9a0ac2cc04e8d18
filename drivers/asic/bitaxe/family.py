"""How ESP-Miner presents itself."""

from __future__ import annotations

from drivers.asic.bitaxe.answers import FAMILY_NAME
from drivers.asic.bitaxe.driver import INFO, Bitaxe
from drivers.asic.family import Evidence, Family


def certainty(evidence: Evidence) -> int:
    """Its page, with the chip's name in it."""
    page = evidence.pages.get(INFO) or {}
    return 95 if "ASICModel" in page else 0


FAMILY = Family(
    name=FAMILY_NAME,
    title="Bitaxe (ESP-Miner)",
    make=Bitaxe,
    certainty=certainty,
    sleeps=True,
    pages=(INFO,),
    rpc_port=None,
)
