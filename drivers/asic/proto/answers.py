"""What a Proto rig answers, turned into the project's words. Pure functions.

Source: answers of the model that the maker tests with (block/proto-fleet).
"""

from __future__ import annotations

from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, MAX_POOLS, Identity, measured_or_none
from drivers.asic.fields import integer, mac, number, temperatures, text, to_ths
from drivers.capabilities import Board, MinerStatus, Pool

FAMILY_NAME = "proto"
Json = dict[str, Any]
STOPPED = "stopped"
AWAKE = ("mining", "degradedmining", "poweringon")
HASHING_THS = 0.1


def part(answer: Json, name: str) -> Json:
    """The object under a name; an empty one where there is none."""
    found = answer.get(name)
    return found if isinstance(found, dict) else {}


def listed(answer: Json, name: str) -> list[Json]:
    """The objects listed under a name."""
    found = answer.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def asleep(mining: Json) -> bool | None:
    """Whether it is stopped; ``None`` for states that are neither, such as an error."""
    state = (text(part(mining, "mining-status").get("status")) or "").lower()
    if state in AWAKE:
        return False
    return True if state == STOPPED else None


def identity_of(system: Json, network: Json) -> Identity:
    """Model, firmware and serial number from ``system``, MAC from ``network``."""
    info = part(system, "system-info")
    return Identity(
        model=text(info.get("product_name")) or text(info.get("model")),
        firmware=text(part(info, "os").get("version")),
        mac=mac(part(network, "network-info").get("mac")),
        serial=text(info.get("cb_sn")),
    )


def proto_status(mining: Json, telemetry: Json, cooling: Json, pools: Json, identity: Identity) -> MinerStatus:
    """One status from ``mining`` and, where they were read, the other pages."""
    said = part(mining, "mining-status")
    rate = to_ths(said.get("hashrate_ghs"))
    sleeping = asleep(mining)
    errors: tuple[str, ...] = ()
    if sleeping and rate is not None and rate > HASHING_THS:
        sleeping, errors = False, ("says that it is stopped, but hashes",)
    boards = tuple(_board(at, row) for at, row in enumerate(listed(telemetry, "hashboards")[:MAX_BOARDS]))
    degrees = [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    degrees += temperatures(said.get("average_asic_temp_c"))
    power_w = measured_or_none(said.get("power_usage_watts"))
    speeds = [integer(row.get("rpm")) for row in listed(part(cooling, "cooling-status"), "fans")[:MAX_FANS]]
    return MinerStatus(
        family=FAMILY_NAME,
        model=identity.model,
        firmware=identity.firmware,
        mac=identity.mac,
        serial=identity.serial,
        uptime_s=integer(said.get("mining_uptime_s")),
        sleeping=sleeping,
        hashrate_ths=rate,
        hashrate_nominal_ths=to_ths(said.get("ideal_hashrate_ghs")) or None,
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        temperature_max_c=max(degrees, default=None),
        fans_rpm=tuple(speed for speed in speeds if speed is not None),
        boards=boards,
        pools=tuple(_pool(row) for row in listed(pools, "pools")[:MAX_POOLS]),
        errors=errors,
    )


def _board(at: int, row: Json) -> Board:
    rate, heat = part(row, "hashrate"), part(row, "temperature")
    degrees = [c for name in ("inlet", "outlet", "average") if (c := number(heat.get(name))) is not None and c > 0]
    index = integer(row.get("index"))
    return Board(
        index=at if index is None else index,
        hashrate_ths=to_ths(rate.get("value"), rate.get("unit")),
        chips=None,
        temperature_max_c=max(degrees, default=None),
        ok=None,
    )


def _pool(row: Json) -> Pool:
    state = text(row.get("status"))
    return Pool(
        url=text(row.get("url")),
        user=text(row.get("user")),
        active=None if state is None else state.lower() == "active",
        accepted=integer(row.get("accepted")),
        rejected=integer(row.get("rejected")),
    )
