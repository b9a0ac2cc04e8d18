"""Auradine (Teraflux, FluxOS): JSON socket for reading, web interface with a token for power, mode and writing.

The family itself lives here; its driver and the answers it reads in files of their own.
"""

from __future__ import annotations

from drivers.asic.auradine.answers import NAME
from drivers.asic.auradine.driver import HTTP_PORT, Auradine
from drivers.asic.credentials import Credentials
from drivers.asic.evidence import words
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.timing import Timeouts

__all__ = ["FAMILY", "Auradine"]

SURE = 95


def _make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Auradine:
    return Auradine(
        at.host,
        rpc_port=at.rpc_port or 4028,
        http_host=at.web_host,
        http_port=(HTTP_PORT if at.http_port is None else at.http_port) or None,
        credentials=credentials,
        timeouts=timeouts,
        writes_allowed=writes_allowed,
    )


def _certainty(evidence: Evidence) -> int:
    """It names its mining program GCMiner, or its system FluxOS."""
    said = words(evidence)
    return SURE if "gcminer" in said or "fluxos" in said else 0


FAMILY = Family(
    name=NAME,
    title="Auradine (FluxOS)",
    make=_make,
    certainty=_certainty,
    sleeps=True,
    limits_power=True,
    http_port=HTTP_PORT,
)
