"""Driver of Elphapex machines: reading only, since no tool knows a command that puts them to sleep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from drivers.asic.cgminer_status import Identity, measured_or_none, status_from
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.fields import mac, rows, text
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.reading import if_time, with_latency, within
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer

FAMILY_NAME = "elphapex"
Json = dict[str, Any]


class Elphapex:
    """One machine: :class:`MinerReader`, no ``Sleeper``.

    Without its digest log-in nothing can be read.
    """

    family = FAMILY_NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._http = HttpClient(at.web_host, at.web(), credentials=given.credentials, timeout_s=given.timeouts.http_s)
        self._identity = Identity()
        self._identity_at = float("-inf")

    async def status(self) -> MinerStatus:
        """Read the machine; ``sleeping`` is False where it hashes and unknown where it does not.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._given.mono()
        summary = await within(self._given.timeouts.status_s, self._http.name, self._http.get_json(_path("summary")))
        if not rows(summary, "SUMMARY"):
            raise BadAnswer(f"{self._http.name}{_path('summary')}: no SUMMARY in it; not an Elphapex")
        stats, pools, power = [await self._optional(name, began) for name in ("stats", "pools", "get_power")]
        if self._given.mono() - self._identity_at > self._given.timeouts.identity_max_age_s:
            system = await self._optional("get_system_info", began)
            if system:
                self._identity, self._identity_at = identity_of(system, summary), self._given.mono()
        status = elphapex_status(summary, stats, pools, power, self._identity)
        return with_latency(status, self._given, began)

    async def _optional(self, name: str, began: float) -> Json:
        return await if_time(self._given, began, lambda left_s: self._http.get_json(_path(name), timeout_s=left_s))


def _path(name: str) -> str:
    return f"/cgi-bin/{name}.cgi"


def identity_of(system: Json, summary: Json) -> Identity:
    """What ``get_system_info`` says; the serial number stands at the head of the other pages."""
    head = next(iter(rows(summary, "INFO")), {})
    return Identity(
        model=text(system.get("minertype")),
        firmware=text(system.get("system_filesystem_version")),
        mac=mac(system.get("macaddr")),
        serial=text(head.get("dev_sn")),
    )


def elphapex_status(summary: Json, stats: Json, pools: Json, power: Json, identity: Identity) -> MinerStatus:
    """One status from the pages; its chip temperatures, in thousandths of a degree, count as none."""
    status = status_from(FAMILY_NAME, {"summary": summary, "stats": stats, "pools": pools})
    summed = next(iter(rows(summary, "SUMMARY")), {})
    power_w = measured_or_none(power.get("power_output"))
    complaints = [row for row in rows(summed, "status") if row.get("status") in ("e", "w")]
    return replace(
        status,
        model=identity.model or status.model,
        firmware=identity.firmware or status.firmware,
        mac=identity.mac,
        serial=identity.serial,
        sleeping=False if status.hashrate_ths else None,
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        errors=tuple(f"{text(row.get('type'))}: {text(row.get('msg'))}"[:200] for row in complaints[:16]),
    )


def certainty(evidence: Evidence) -> int:
    """Nothing it shows without a log-in is its own: the site file has to name it."""
    del evidence
    return 0


FAMILY = Family(
    name=FAMILY_NAME,
    title="Elphapex",
    make=Elphapex,
    certainty=certainty,
    sleeps=False,
    needs_login_to_read=True,
    rpc_port=None,
)
