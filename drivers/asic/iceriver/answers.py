"""What an IceRiver answers, turned into the project's words. Pure functions.

The line socket answers each question with ``{"id": …, "ret": {…}}``; the web panel gives the same fields in one
object. Source: published answers of a KS0, and field lists of open monitoring tools for KS0 to KS5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, MAX_POOLS
from drivers.asic.fields import integer, mac, number, temperatures, text, to_ths
from drivers.capabilities import Board, MinerStatus, Pool

FAMILY_NAME = "iceriver"
_RATE = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{0,12})?)\s*([KMGTP]?)\s*")
_RUNTIME = re.compile(r"(?:(\d{1,5}):)?(\d{1,2}):(\d{1,2}):(\d{1,2})")
Json = dict[str, Any]


def merged(returned: Iterable[Json]) -> Json:
    """The fields of several answers' ``ret`` in one object; ``code``, which each has, is left out."""
    fields: Json = {}
    for ret in returned:
        fields.update({name: value for name, value in ret.items() if name != "code"})
    return fields


def rate_ths(value: object, unit: object = None) -> float | None:
    """A hash rate such as ``155G`` in TH/s; ``unit`` where the value names none."""
    if isinstance(value, int | float):
        value = str(value)
    match = _RATE.fullmatch(value[:40]) if isinstance(value, str) else None
    if match is None:
        return None
    return to_ths(match.group(1), f"{match.group(2) or (unit if isinstance(unit, str) else '') or 'G'}H")


def runtime_s(value: object) -> int | None:
    """Seconds from ``days:hours:minutes:seconds``."""
    match = _RUNTIME.fullmatch(value.strip()[:24]) if isinstance(value, str) else None
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def iceriver_status(fields: Json) -> MinerStatus:
    """One status from the merged fields. It draws what it draws: there is no power reading."""
    boards = tuple(_board(row, fields.get("unit")) for row in _rows(fields.get("boards"))[:MAX_BOARDS])
    rate = rate_ths(fields.get("rtpow"), fields.get("unit"))
    degrees = [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    ideal = [found for row in _rows(fields.get("boards")) if (found := rate_ths(row.get("idealpow"))) is not None]
    speeds = fields.get("fans")
    fans = [integer(speed) for speed in speeds[:MAX_FANS]] if isinstance(speeds, list) else []
    firmware = text(fields.get("firmver1")) or text(fields.get("softver1"))
    return MinerStatus(
        family=FAMILY_NAME,
        model=text(fields.get("model")),
        firmware=firmware,
        mac=mac(fields.get("mac")),
        uptime_s=runtime_s(fields.get("runtime")),
        sleeping=False if rate else None,
        hashrate_ths=rate,
        hashrate_nominal_ths=sum(ideal) or None,
        temperature_max_c=max(degrees, default=None),
        fans_rpm=tuple(speed for speed in fans if speed is not None),
        boards=boards,
        pools=tuple(_pool(row) for row in _rows(fields.get("pools"))[:MAX_POOLS]),
        errors=_errors(fields),
    )


def _rows(value: object) -> list[Json]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _board(row: Json, unit: object) -> Board:
    degrees = [found for name in ("intmp", "outtmp", "pcbtemp") for found in temperatures(row.get(name))]
    state = row.get("state")
    number_ = integer(row.get("no"))
    return Board(
        index=(number_ or 1) - 1,
        hashrate_ths=rate_ths(row.get("rtpow"), unit),
        chips=integer(row.get("chipnum")),
        temperature_max_c=max(degrees, default=None),
        ok=state if isinstance(state, bool) else None,
    )


def _pool(row: Json) -> Pool:
    """``connect`` is true, or 1 and -1 in newer firmwares."""
    connected = row.get("connect")
    level = number(connected)
    active = connected if isinstance(connected, bool) else None if level is None else level > 0
    return Pool(
        url=text(row.get("addr")),
        user=text(row.get("user")),
        active=active,
        accepted=integer(row.get("accepted")),
        rejected=integer(row.get("rejected")),
    )


def _errors(fields: Json) -> tuple[str, ...]:
    """What it calls not well itself: the four lamps of its panel."""
    lamps = {"powstate": "hash rate", "netstate": "network", "fanstate": "fans", "tempstate": "temperature"}
    lamps |= {"pow": "hash rate", "net": "network", "fan": "fans", "temp": "temperature"}
    return tuple(f"{said}: not well" for name, said in lamps.items() if fields.get(name) is False)
