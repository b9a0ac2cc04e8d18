"""Machines that speak cgminer's JSON but whose firmware has no driver of its own: read only, by construction.

Hammer, MSKminer, Hiveon, Innosilicon and others keep Bitmain's or cgminer's field names; what they share is read.
"""

from __future__ import annotations

from dataclasses import replace

from drivers.asic.cgminer import CgminerClient
from drivers.asic.cgminer_status import Answers, status_from
from drivers.asic.evidence import is_other_firmware, words
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.given import Given
from drivers.asic.reading import timed
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, Refused

FAMILY_NAME = "cgminer"
RELATIVES = ("hammer", "ccminer", "innominer", "sgminer", "cgminer", "bmminer")
"""Words of programs that keep cgminer's fields."""


class GenericCgminer:
    """One machine read by ``summary``, ``stats``, ``pools`` and ``version``: :class:`MinerReader`, no ``Sleeper``."""

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._rpc = CgminerClient(at.host, at.rpc(), timeout_s=given.timeouts.rpc_s)

    async def status(self) -> MinerStatus:
        """Read the machine; ``sleeping`` is False where it hashes and unknown where it does not.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read())

    async def _read(self) -> MinerStatus:
        status = status_from(FAMILY_NAME, await self._answers())
        return replace(status, sleeping=False if status.hashrate_ths else None)

    async def _answers(self) -> Answers:
        """The four answers; some firmwares have ``stats`` alone."""
        try:
            return await self._rpc.ask(("summary", "stats", "pools", "version"))
        except (Refused, BadAnswer):
            return await self._rpc.ask(("stats", "pools", "version"))


def certainty(evidence: Evidence) -> int:
    """It answers on the JSON socket: a little; the program is a relative by name: a little more."""
    if not any("STATUS" in (answer or {}) for answer in (evidence.version, evidence.stats)):
        return 0
    if is_other_firmware(evidence):
        return 30
    return 20 if any(word in words(evidence) for word in RELATIVES) else 10


FAMILY = Family(
    name=FAMILY_NAME,
    title="cgminer and its kin",
    make=GenericCgminer,
    certainty=certainty,
    sleeps=False,
    http_port=None,
)
