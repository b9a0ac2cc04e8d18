"""Auradine (Teraflux, FluxOS): JSON socket for reading, web interface with a token for power, mode and writing.

The family itself lives here; its driver and the answers it reads in files of their own.
"""

from __future__ import annotations

from drivers.asic.auradine.answers import NAME
from drivers.asic.auradine.driver import HTTP_PORT, Auradine
from drivers.asic.evidence import words
from drivers.asic.family import Evidence, Family

__all__ = ["FAMILY", "Auradine"]

SURE = 95


def _certainty(evidence: Evidence) -> int:
    """It names its mining program GCMiner, or its system FluxOS."""
    said = words(evidence)
    return SURE if "gcminer" in said or "fluxos" in said else 0


FAMILY = Family(
    name=NAME,
    title="Auradine (FluxOS)",
    make=Auradine,
    certainty=_certainty,
    sleeps=True,
    limits_power=True,
    http_port=HTTP_PORT,
)
