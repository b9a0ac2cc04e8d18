"""What an Avalon answers, turned into the project's words. Pure functions.

Almost everything stands in one string per machine module, ``Ver[…] GHSspd[…] PS[0 1205 2353 113 2671 2345] …``, under
the name ``MM ID0`` (A series) or ``MM ID0:Summary`` (home models, which wrap it in ``'STATS':{…}``).
Source: published answers of an A1246, an A1346, a Q and a Nano 3S, and the readings that open fleet tools make of them.
"""

from __future__ import annotations

import re
from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, Answers, measured_or_none, pools_from, with_sleep
from drivers.asic.fields import MAX_DEGREES_C, first, integer, mac, number, rows, text, to_ths
from drivers.capabilities import Board, MinerStatus

FAMILY_NAME = "avalon"
COMMANDS = ("summary", "estats", "pools", "version")
MAX_TEXT = 64 * 1024
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9_ ]{0,30}?)\[([^\[\]]{0,4096})\]")
_MODULE = re.compile(r"MM ID\d")
_WALL_W = 4
"""Place of the watts drawn at the wall in ``PS[…]``."""


def fields_of(answer: dict[str, Any] | None) -> dict[str, str]:
    """The fields of the first machine module in a ``stats``, ``estats`` or ``litestats`` answer, by name."""
    for row in rows(answer, "STATS"):
        for key, value in list(row.items())[:200]:
            if _MODULE.match(key) and isinstance(value, str):
                return {name.strip(): found.strip() for name, found in _FIELD.findall(value[:MAX_TEXT])}
    return {}


def asleep(fields: dict[str, str]) -> bool | None:
    """Whether it is softly off: ``SoftOFF`` says since when not 0, ``SYSTEMSTATU`` whether it works."""
    work = fields.get("SYSTEMSTATU", "").lower()
    off = integer(fields.get("SoftOFF"))
    if "in work" in work:
        return False
    if "in idle" in work and off is not None:
        return off != 0
    return None


def avalon_status(answers: Answers) -> MinerStatus:
    """One status from the answers to :data:`COMMANDS`, any of which may be missing but the first."""
    fields = fields_of(answers.get("estats") or answers.get("stats") or answers.get("litestats"))
    summary = next(iter(rows(answers.get("summary"), "SUMMARY")), {})
    version = next(iter(rows(answers.get("version"), "VERSION")), {})
    boards = _boards(fields)
    power_w = _power(fields)
    model = text(first(version, "PROD", "MODEL"))
    status = MinerStatus(
        family=FAMILY_NAME,
        model=model or _model(fields),
        firmware=text(first(version, "VERSION", "CGVERSION", "LVERSION")) or text(fields.get("Ver")),
        mac=mac(version.get("MAC")),
        serial=_serial(version, fields),
        uptime_s=integer(first(summary, "Elapsed") or fields.get("Elapsed")),
        hashrate_ths=_hashrate(summary, fields),
        hashrate_nominal_ths=to_ths(fields.get("GHSmm")) or None,
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        temperature_max_c=_temperature(fields, boards),
        fans_rpm=_fans(fields),
        boards=boards,
        pools=pools_from(answers.get("pools")),
        errors=_errors(fields),
    )
    return with_sleep(status, asleep(fields), "told to sleep, but hashing")


def _hashrate(summary: dict[str, Any], fields: dict[str, str]) -> float | None:
    """The rate of the moment; averages since the start go on for hours after it fell asleep, so they are not taken."""
    rate = to_ths(fields.get("GHSspd"))
    if rate is not None:
        return rate
    if "in idle" in fields.get("SYSTEMSTATU", "").lower():
        return 0.0
    for name in ("MHS 5s", "MHS 30s", "MHS 1m"):
        rate = to_ths(summary.get(name), "MH")
        if rate is not None:
            return rate
    return None


def _numbers(value: str | None) -> list[float]:
    return [found for part in (value or "").split()[:512] if (found := number(part)) is not None]


def _power(fields: dict[str, str]) -> float | None:
    supply = _numbers(fields.get("PS"))
    return measured_or_none(supply[_WALL_W]) if len(supply) > _WALL_W else None


def _model(fields: dict[str, str]) -> str | None:
    name = fields.get("Ver", "").partition("-")[0]
    return f"Avalon {name}"[:60] if name else None


def _serial(version: dict[str, Any], fields: dict[str, str]) -> str | None:
    serial = version.get("DNA")
    found = text(serial) if isinstance(serial, str) else text(fields.get("DNA"))
    return None if found is None or found.startswith("<") else found


def _fans(fields: dict[str, str]) -> tuple[int, ...]:
    speeds = [integer(fields.get(f"Fan{at}")) for at in range(1, MAX_FANS + 1)]
    return tuple(speed for speed in speeds if speed is not None)


def _boards(fields: dict[str, str]) -> tuple[Board, ...]:
    """One per hash board: rates in ``MGHS``, hottest chips in ``MTmax``, all chips in ``PVT_T0``, ``PVT_T1`` …"""
    rates, hottest = _numbers(fields.get("MGHS")), _numbers(fields.get("MTmax"))
    chips_in_all = integer(fields.get("TA"))
    count = min(MAX_BOARDS, max(len(rates), len(hottest)))
    working = "in work" in fields.get("SYSTEMSTATU", "").lower()
    boards = []
    for at in range(count):
        chips = len(_numbers(fields.get(f"PVT_T{at}"))) or None
        if count == 1 and chips_in_all:
            chips = chips_in_all
        degrees = hottest[at] if at < len(hottest) else _hot(fields.get(f"PVT_T{at}"))
        boards.append(
            Board(
                index=at,
                # An average since the start: of no worth once it sleeps.
                hashrate_ths=to_ths(rates[at]) if working and at < len(rates) else None,
                chips=chips,
                temperature_max_c=degrees if degrees is not None and 0 < degrees < MAX_DEGREES_C else None,
                ok=None,
            )
        )
    return tuple(boards)


def _hot(value: str | None) -> float | None:
    return max(_numbers(value), default=None)


def _temperature(fields: dict[str, str], boards: tuple[Board, ...]) -> float | None:
    degrees = [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    degrees += [found for found in _numbers(fields.get("TMax"))[:1] if 0 < found < MAX_DEGREES_C]
    return max(degrees, default=None)


def _errors(fields: dict[str, str]) -> tuple[str, ...]:
    """Codes that are not 0, under the firmware's own names."""
    return tuple(
        f"{name}: {fields[name][:40]}"
        for name in ("ECHU", "ECMM", "CRC", "FanErr")
        if any(code for code in _numbers(fields.get(name)))
    )
