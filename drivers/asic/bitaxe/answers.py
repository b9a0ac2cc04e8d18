"""What ESP-Miner answers, turned into the project's words. Pure functions.

Source: the project's API description (bitaxeorg/ESP-Miner) and a published answer of a BM1368 board.
"""

from __future__ import annotations

from typing import Any

from drivers.asic.cgminer_status import measured_or_none
from drivers.asic.fields import MAX_DEGREES_C, integer, mac, number, text, to_ths
from drivers.capabilities import Board, MinerStatus, Pool

FAMILY_NAME = "bitaxe"
HASHING_THS = 0.001
Json = dict[str, Any]


def asleep(info: Json) -> bool | None:
    """Whether it is paused; ``None`` from versions before 2.14, which cannot be."""
    paused = info.get("miningPaused")
    if isinstance(paused, bool):
        return paused
    return bool(paused) if isinstance(paused, int) else None


def bitaxe_status(info: Json) -> MinerStatus:
    """One status from ``/api/system/info``."""
    rate = to_ths(info.get("hashRate"))
    degrees = [found for name in ("temp", "vrTemp", "temp2") if (found := _degrees(info.get(name))) is not None]
    chip = _degrees(info.get("temp"))
    sleeping = asleep(info)
    hashing = rate is not None and rate > HASHING_THS
    errors = () if not _is_on(info.get("overheat_mode")) else ("overheat mode",)
    if sleeping and hashing:
        # The rate is smoothed over minutes here, so that it says nothing against a pause of the moment.
        rate = None
    if sleeping is None and hashing:
        sleeping = False
    power_w = measured_or_none(info.get("power"))
    speeds = [integer(info.get(name)) for name in ("fanrpm", "fan2rpm")]
    return MinerStatus(
        family=FAMILY_NAME,
        model=text(info.get("deviceModel")) or text(info.get("ASICModel")),
        firmware=text(info.get("version")),
        mac=mac(info.get("macAddr")),
        uptime_s=integer(info.get("uptimeSeconds")),
        sleeping=sleeping,
        hashrate_ths=rate,
        hashrate_nominal_ths=to_ths(info.get("expectedHashrate")) or None,
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        temperature_max_c=max(degrees, default=None),
        fans_rpm=tuple(speed for speed in speeds if speed is not None),
        boards=(Board(0, rate, integer(info.get("asicCount")), chip, None),),
        pools=_pools(info),
        errors=errors,
    )


def _degrees(value: object) -> float | None:
    found = number(value)
    return found if found is not None and 0 < found < MAX_DEGREES_C else None


def _is_on(value: object) -> bool:
    return value is True or value == 1


def _pools(info: Json) -> tuple[Pool, ...]:
    fallback = _is_on(info.get("isUsingFallbackStratum"))
    pools = []
    for prefix, active in (("stratum", not fallback), ("fallbackStratum", fallback)):
        host = text(info.get(f"{prefix}URL"))
        if host is None:
            continue
        port = integer(info.get(f"{prefix}Port"))
        pools.append(
            Pool(
                url=f"{host}:{port}" if port else host,
                user=text(info.get(f"{prefix}User")),
                active=active,
                # One count for both: of the pool in use.
                accepted=integer(info.get("sharesAccepted")) if active else None,
                rejected=integer(info.get("sharesRejected")) if active else None,
            )
        )
    return tuple(pools)
