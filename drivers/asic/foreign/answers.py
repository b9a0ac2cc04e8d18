"""What the child says → a :class:`~drivers.capabilities.MinerStatus`. It is not trusted: every value is checked."""

from __future__ import annotations

import re
from typing import Any

from drivers.asic.fields import integer, mac, number, text
from drivers.capabilities import Board, MinerStatus, Pool

PREFIX = "pyasic:"
MAX_LIST = 32


def family_of(status: dict[str, Any]) -> str:
    """``pyasic:`` and the library's own name of the firmware, else of its class."""
    name = text(status.get("firmware_name")) or text(status.get("kind")) or "unknown"
    return PREFIX + (re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40] or "unknown")


def miner_status(status: dict[str, Any], latency_ms: float) -> MinerStatus:
    """A status with everything that the library did not give as ``None``.

    The library calls a machine mining where it does not know, so that only "not mining" is taken for a word; and it
    names no source of its power figures, so that they count as estimates.
    """
    boards = tuple(_board(at, row) for at, row in enumerate(_rows(status, "boards")))
    temperatures = [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    power_w = _positive(status.get("power_w"))
    return MinerStatus(
        family=family_of(status),
        model=text(status.get("model")),
        firmware=text(status.get("firmware")),
        mac=mac(status.get("mac")),
        serial=text(status.get("serial")),
        uptime_s=_whole(status.get("uptime_s")),
        sleeping=None,
        hashrate_ths=_not_negative(status.get("hashrate_ths")),
        hashrate_nominal_ths=_positive(status.get("expected_ths")),
        power_w=power_w,
        power_source="none" if power_w is None else "estimated",
        temperature_max_c=max(temperatures, default=None),
        fans_rpm=tuple(rpm for row in _list(status, "fans_rpm") if (rpm := _whole(row)) is not None),
        boards=boards,
        pools=tuple(_pool(row) for row in _rows(status, "pools")),
        errors=tuple(found for row in _list(status, "errors") if (found := text(row)) is not None),
        latency_ms=latency_ms,
    )


def _board(at: int, row: dict[str, Any]) -> Board:
    heats = [heat for value in _list(row, "temperature_c") if (heat := number(value)) is not None and 0 < heat < 200]
    missing = row.get("missing")
    slot = _whole(row.get("slot"))
    return Board(
        index=at if slot is None else slot,
        hashrate_ths=_not_negative(row.get("hashrate_ths")),
        chips=_whole(row.get("chips")),
        temperature_max_c=max(heats, default=None),
        ok=None if not isinstance(missing, bool) else not missing,
    )


def _pool(row: dict[str, Any]) -> Pool:
    active = row.get("active")
    return Pool(
        url=text(row.get("url")),
        user=text(row.get("user")),
        active=active if isinstance(active, bool) else None,
        accepted=_whole(row.get("accepted")),
        rejected=_whole(row.get("rejected")),
    )


def _list(status: dict[str, Any], name: str) -> list[Any]:
    found = status.get(name)
    return found[:MAX_LIST] if isinstance(found, list) else []


def _rows(status: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for row in _list(status, name) if isinstance(row, dict)]


def _not_negative(value: object) -> float | None:
    found = number(value)
    return found if found is not None and found >= 0 else None


def _positive(value: object) -> float | None:
    found = number(value)
    return found if found is not None and found > 0 else None


def _whole(value: object) -> int | None:
    found = integer(value)
    return found if found is not None and found >= 0 else None
