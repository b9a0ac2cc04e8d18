"""Driver of Elphapex machines: reading only, since no tool knows a command that puts them to sleep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

from drivers.asic.cgminer_status import Identity, measured_or_none, status_from
from drivers.asic.control import within
from drivers.asic.credentials import Credentials
from drivers.asic.family import Address, Evidence, Family
from drivers.asic.fields import mac, rows, text
from drivers.asic.http import HttpClient
from drivers.asic.timing import Timeouts
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError

FAMILY_NAME = "elphapex"
MIN_WEB_S = 0.2
Json = dict[str, Any]


class Elphapex:
    """One machine: :class:`MinerReader`, no ``Sleeper``.

    Args:
        host: address of the machine.
        port: its web interface.
        credentials: digest log-in, without which nothing can be read.
        timeouts: time limits.
        mono: monotonic clock in seconds.
    """

    family = FAMILY_NAME

    def __init__(
        self,
        host: str,
        *,
        port: int = 80,
        credentials: Credentials | None = None,
        timeouts: Timeouts | None = None,
        mono: Callable[[], float] = monotonic,
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._http = HttpClient(host, port, credentials=credentials, timeout_s=self._timeouts.http_s)
        self._mono = mono
        self._identity = Identity()
        self._identity_at = float("-inf")

    async def status(self) -> MinerStatus:
        """Read the machine; ``sleeping`` is False where it hashes and unknown where it does not.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        began = self._mono()
        summary = await within(self._timeouts.status_s, self._http.name, self._http.get_json(_path("summary")))
        if not rows(summary, "SUMMARY"):
            raise BadAnswer(f"{self._http.name}{_path('summary')}: no SUMMARY in it; not an Elphapex")
        stats, pools, power = [await self._optional(name, began) for name in ("stats", "pools", "get_power")]
        if self._mono() - self._identity_at > self._timeouts.identity_max_age_s:
            system = await self._optional("get_system_info", began)
            if system:
                self._identity, self._identity_at = identity_of(system, summary), self._mono()
        return elphapex_status(summary, stats, pools, power, self._identity, latency_ms=(self._mono() - began) * 1000)

    async def _optional(self, name: str, began: float) -> Json:
        """A page in what is left of a status's time; empty where that fails."""
        left_s = min(self._timeouts.http_s, self._timeouts.status_s - (self._mono() - began))
        if left_s < MIN_WEB_S:
            return {}
        try:
            return await self._http.get_json(_path(name), timeout_s=left_s)
        except DriverError:
            return {}


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


def elphapex_status(
    summary: Json, stats: Json, pools: Json, power: Json, identity: Identity, *, latency_ms: float = 0.0
) -> MinerStatus:
    """One status from the pages; its chip temperatures, in thousandths of a degree, count as none."""
    status = status_from(FAMILY_NAME, {"summary": summary, "stats": stats, "pools": pools}, latency_ms=latency_ms)
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


def make(at: Address, credentials: Credentials | None, timeouts: Timeouts, writes_allowed: bool) -> Elphapex:
    """Its driver; it never writes."""
    del writes_allowed
    port = 80 if at.http_port is None else at.http_port
    return Elphapex(at.web_host, port=port, credentials=credentials, timeouts=timeouts)


FAMILY = Family(
    name=FAMILY_NAME,
    title="Elphapex",
    make=make,
    certainty=certainty,
    sleeps=False,
    needs_login_to_read=True,
    rpc_port=None,
)
