"""What Auradine's FluxOS answers, turned into the project's words. Pure functions.

Source: published answers of an AT1500 and the commands of two public libraries; rates are in MH/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivers.asic.cgminer_status import (
    MAX_BOARDS,
    MAX_FANS,
    Answers,
    Identity,
    measured_or_none,
    pools_from,
    with_sleep,
)
from drivers.asic.fields import first, integer, mac, number, rows, temperatures, text, to_ths
from drivers.asic.power import LimitState, Setting
from drivers.capabilities import Board, MinerStatus

NAME = "auradine"
COMMANDS = ("summary", "devs", "pools")
PAGES = ("psu", "mode", "fan", "temperature")
CUSTOM = "custom"
NORMAL_LED = "normal"


def first_row(answer: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """The first row listed under a name, or an empty one."""
    return next(iter(rows(dict(answer) if answer else None, name)), {})


def is_asleep(mode: Mapping[str, Any] | None) -> bool | None:
    """Whether a ``mode`` answer says that it sleeps."""
    said = first_row(mode, "Mode").get("Sleep")
    if isinstance(said, bool):
        return said
    return {"on": True, "off": False}.get(said.strip().lower()) if isinstance(said, str) else None


def auradine_status(rpc: Answers, pages: Answers) -> MinerStatus:
    """One status from the JSON socket's :data:`COMMANDS` and the web interface's :data:`PAGES`; any may be missing."""
    summary = first_row(rpc.get("summary"), "SUMMARY")
    mode = first_row(pages.get("mode"), "Mode")
    chips = first_row(rpc.get("asccount") or pages.get("asccount"), "ASCCount")
    power_w = measured_or_none(first_row(pages.get("psu"), "PSU").get("PowerIn"))
    heat = {integer(row.get("ID")): _degrees(row) for row in rows(pages.get("temperature"), "Temperature")[:MAX_BOARDS]}
    per_board = _per_board(chips)
    boards = tuple(_board(n, row, heat, per_board) for n, row in enumerate(rows(rpc.get("devs"), "DEVS")[:MAX_BOARDS]))
    fans = [integer(row.get("Speed")) for row in rows(pages.get("fan"), "Fan")[:MAX_FANS]]
    led = text(first_row(pages.get("led"), "LED").get("Msg"))
    read = MinerStatus(
        family=NAME,
        uptime_s=integer(summary.get("Elapsed")),
        hashrate_ths=to_ths(first(summary, "MHS 5s", "MHS 1m", "MHS av"), "MH"),
        hashrate_nominal_ths=number(mode.get("Ths")) or None,
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        temperature_max_c=max((degree for degrees in heat.values() for degree in degrees), default=None),
        fans_rpm=tuple(speed for speed in fans if speed is not None),
        boards=boards,
        pools=pools_from(rpc.get("pools")),
        errors=() if led is None or led.lower() == NORMAL_LED else (led,),
    )
    known = identity_from(pages.get("ipreport"))
    return with_sleep(known.into(read), is_asleep(pages.get("mode")), "told to sleep, but hashing")


def identity_from(report: Mapping[str, Any] | None) -> Identity:
    """Model, firmware, MAC and serial number from ``ipreport``."""
    row = first_row(report, "IPReport")
    return Identity(
        model=text(row.get("model")),
        firmware=text(row.get("version")),
        mac=mac(row.get("mac")),
        serial=text(first(row, "SerialNo", "CBSerialNo")),
    )


def limit_state(mode: Mapping[str, Any] | None) -> LimitState | None:
    """The power limit from ``mode``; ``None`` where it does not say its mode."""
    row = first_row(mode, "Mode")
    name = text(row.get("Mode"))
    if name is None:
        return None
    settings: dict[str, Setting] = {"mode": name.lower()}
    watts, ths, tune = integer(row.get("Power")), number(row.get("Ths")), text(row.get("Tune"))
    by_power = name.lower() == CUSTOM and bool(watts) and (tune is None or tune.lower() == "power")
    if by_power:
        settings |= {"tune": "power", "power": watts}
    elif name.lower() == CUSTOM and ths:
        settings |= {"tune": "ths", "ths": ths}
    return LimitState(now_w=watts if by_power else None, settings=settings)


def limit_body(limit_w: int) -> dict[str, Setting]:
    """The body of a write that sets a limit."""
    return {"mode": CUSTOM, "tune": "power", "power": limit_w}


def _per_board(counted: dict[str, Any]) -> int | None:
    chips, boards = integer(counted.get("AsicCount")), integer(counted.get("BoardCount"))
    return chips // boards if chips and boards and boards > 0 else None


def _degrees(row: dict[str, Any]) -> list[float]:
    listed = [*rows(row, "BoardTemp"), *rows(row, "ChipTemp")]
    return [degree for sensor in listed for degree in temperatures(sensor.get("Temperature"))]


def _board(at: int, row: dict[str, Any], heat: Mapping[int | None, list[float]], chips: int | None) -> Board:
    state, slot = row.get("Status"), integer(row.get("ID"))
    degrees = heat.get(slot) if slot is not None else None
    return Board(
        index=at,
        hashrate_ths=to_ths(first(row, "MHS 5s", "MHS 1m", "MHS av"), "MH"),
        chips=chips,
        temperature_max_c=max(degrees or temperatures(row.get("Temperature")), default=None),
        ok=state == "Alive" if isinstance(state, str) else None,
    )
