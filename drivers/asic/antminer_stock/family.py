"""How Bitmain's own firmware presents itself."""

from __future__ import annotations

from drivers.asic.antminer_stock.conf import FAMILY_NAME
from drivers.asic.antminer_stock.driver import AntminerStock
from drivers.asic.antminer_stock.extra_port import PORT
from drivers.asic.credentials import Credentials
from drivers.asic.evidence import answered, head_value, is_other_firmware, words
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.timing import Timeouts

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


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> AntminerStock:
    """Its driver."""
    http_port = 80 if at.http_port is None else at.http_port
    return AntminerStock(
        at.host,
        rpc_port=at.rpc_port or 4028,
        http_host=at.web_host,
        http_port=http_port or None,
        credentials=credentials,
        # Behind an address translation that port is another machine's.
        power_port=PORT if at.rpc_port is None and at.http_port in (None, 80) else None,
        timeouts=timeouts,
        writes_allowed=writes_allowed,
    )


FAMILY = Family(
    name=FAMILY_NAME,
    title="Bitmain stock",
    make=make,
    certainty=certainty,
    sleeps=True,
)
