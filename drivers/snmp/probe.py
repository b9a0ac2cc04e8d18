"""Look at one address: does a PDU answer, which profile fits it, what does it say."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from drivers.capabilities import Reading, Sample
from drivers.errors import DriverError
from drivers.snmp.credentials import Credentials, credentials_from_environment
from drivers.snmp.pdu import OutletTable, SnmpPdu
from drivers.snmp.profile import PduProfile, load_pdu_profile, load_pdu_profiles
from drivers.snmp.session import SnmpSession
from wire.quality import Quality

_PORT = 161


def parse_snmp_url(url: str) -> tuple[str, int, str]:
    """``snmp://host[:port]?cred=NAME`` → host, port, name.

    Raises:
        ValueError: it is no such URL, or it carries a secret.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if parts.scheme != "snmp" or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("not an SNMP address; expected snmp://host[:port]?cred=NAME")
    if parts.username is not None or parts.password is not None or set(query) - {"cred"}:
        raise ValueError("secrets do not belong in a URL; give ?cred=NAME and set TIZGIN_SNMP_<NAME>")
    if len(query.get("cred", [])) != 1:
        raise ValueError(f"snmp://{parts.hostname}: which secret? Give ?cred=NAME and set TIZGIN_SNMP_<NAME>")
    port = parts.port if parts.port is not None else _PORT
    if port == 0:
        raise ValueError(f"snmp://{parts.hostname}: port 0; expected 1..65535")
    return parts.hostname, port, query["cred"][0]


async def probe(
    url: str,
    profile: str | None = None,
    *,
    credentials: Callable[[str], Credentials] | None = None,
    session: SnmpSession | None = None,
    timeout_s: float = 2.0,
) -> dict[str, Any]:
    """Ask a PDU who it is and what it measures, in the shape of ``tizgin probe --json``.

    Without ``profile`` the one is taken whose maker's number fits the device and of whose points most are answered;
    ``confidence`` is that share (halved where only the points fit and not the maker's number). Nothing is written.

    Raises:
        ValueError: the URL or the secret cannot be used.
        ProfileError: there is no such profile.
    """
    host, port, name = parse_snmp_url(url)
    resolve = credentials or (lambda secret: credentials_from_environment(secret, os.environ))
    secret = resolve(name)
    profiles = [load_pdu_profile(profile)] if profile is not None else list(load_pdu_profiles().values())
    if session is not None:
        return await _probe(url, host, port, profiles, Credentials(secret.read), session, timeout_s)
    async with SnmpSession() as own:
        return await _probe(url, host, port, profiles, Credentials(secret.read), own, timeout_s)


async def _probe(
    url: str, host: str, port: int, profiles: list[PduProfile], secret: Credentials, session: SnmpSession,
    timeout_s: float,
) -> dict[str, Any]:  # fmt: skip
    pdus = [SnmpPdu("probe", host, port, profile, secret, session, timeout_s) for profile in profiles]
    try:
        identity = await pdus[0].identity()
    except DriverError as error:
        return {"url": url, "responds": False, "reason": str(error)}
    by_maker = [pdu for pdu in pdus if _is_below(identity["sys_object_id"], pdu.profile.enterprise)]
    tried = [(pdu, await pdu.sample()) for pdu in by_maker]
    known = any(_share(sample) for _, sample in tried)
    if not known:  # a standard MIB stands under any maker's number
        tried += [(pdu, await pdu.sample()) for pdu in pdus if pdu not in by_maker]
    pdu, sample = max(tried, key=lambda pair: _share(pair[1]))
    confidence = round(_share(sample) * (1.0 if known else 0.5), 2)
    shape: dict[str, Any] = {"url": url, "responds": True, "profile": None, "confidence": confidence}
    if confidence == 0:
        return shape | {"points": {}, "latency_ms": round(sample.latency_ms, 1), "identity": identity}
    return shape | {
        "profile": pdu.profile.id,
        "power_source": pdu.profile.power_source,
        "points": {point: _shape(reading) for point, reading in sample.readings.items()},
        "outlets": _outlets(await pdu.outlets()),
        "identity": await _identity(pdu, identity),
        "latency_ms": round(sample.latency_ms, 1),
    }


def _is_below(oid: str | None, prefix: str) -> bool:
    return oid is not None and f"{oid}.".startswith(f"{prefix}.")


def _share(sample: Sample) -> float:
    answered = [r for r in sample.readings.values() if r.quality in (Quality.GOOD, Quality.SUSPECT)]
    return len(answered) / len(sample.readings)


def _shape(reading: Reading) -> dict[str, Any]:
    return {"value": reading.value, "quality": reading.quality.value}


def _outlets(table: OutletTable) -> dict[str, dict[str, Any]]:
    return {
        str(number): {"state": o.state.value, "power_w": _shape(o.power_w), "current_a": _shape(o.current_a)}
        for number, o in table.outlets.items()
    }


async def _identity(pdu: SnmpPdu, known: dict[str, str | None]) -> dict[str, str | None]:
    try:
        return await pdu.identity()
    except DriverError:
        return known
