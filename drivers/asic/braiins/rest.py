"""What Braiins OS answers on its REST interface (25.07 and later), turned into the project's words. Pure functions.

Source: Braiins' public OpenAPI document, published answers of 25.07 and 25.11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, MAX_POOLS, measured_or_none
from drivers.asic.fields import first, integer, mac, rows, temperatures, text, to_ths
from drivers.asic.power import LimitState
from drivers.capabilities import Board, MinerStatus, Pool

NAME = "braiins"
ROOT = "/api/v1/"
STATUS_PAGES = {
    "details": "miner/details",
    "stats": "miner/stats",
    "boards": "miner/hw/hashboards",
    "cooling": "cooling/state",
    "pools": "pools/",
    "errors": "miner/errors",
}
"""Pages of a whole status, the needed one first."""
NOT_STARTED = 1
NORMAL = 2
PAUSED = 3
STATES = {NOT_STARTED: "not started", NORMAL: "normal", PAUSED: "paused", 4: "suspended", 5: "restricted"}
BOOT_S = 300
"""A mining program that does not run this long after the system came up was stopped, and is not still starting."""
MAX_ERRORS = 20
POWER_TARGET_MODE = 1

Pages = Mapping[str, Any]


def at(value: object, *path: str) -> Any:
    """What lies at the end of a path of names; ``None`` where any of them is missing."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def is_asleep(details: object) -> bool | None:
    """Whether ``miner/details`` says that it sleeps: paused, or stopped and not merely booting."""
    state = integer(at(details, "status"))
    if state == PAUSED:
        return True
    if state == NORMAL:
        return False
    system_s, program_s = (integer(at(details, name)) for name in ("system_uptime_s", "bosminer_uptime_s"))
    if state == NOT_STARTED and program_s == 0 and system_s is not None and system_s > BOOT_S:
        return True
    return None


def rest_status(pages: Pages) -> MinerStatus:
    """One status from the answers to :data:`STATUS_PAGES`, any of which may be missing."""
    details, stats, cooling = (pages.get(name) for name in ("details", "stats", "cooling"))
    power_w = measured_or_none(at(stats, "power_stats", "approximated_consumption", "watt"))
    boards = tuple(_board(n, row) for n, row in enumerate(_rows(pages.get("boards"), "hashboards")[:MAX_BOARDS]))
    hottest = temperatures(at(cooling, "highest_temperature", "temperature", "degree_c"))
    hottest += [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    fans = [integer(row.get("rpm")) for row in _rows(cooling, "fans")[:MAX_FANS]]
    rate = at(stats, "miner_stats", "real_hashrate", "last_5s", "gigahash_per_second")
    nominal = at(stats, "miner_stats", "nominal_hashrate", "gigahash_per_second")
    sticker = at(details, "sticker_hashrate", "gigahash_per_second")
    return MinerStatus(
        family=NAME,
        model=text(at(details, "miner_identity", "miner_model")) or text(at(details, "miner_identity", "name")),
        firmware=text(at(details, "bos_version", "current")),
        mac=mac(at(details, "mac_address")),
        serial=text(at(details, "serial_number")),
        uptime_s=integer(at(details, "bosminer_uptime_s")),
        sleeping=is_asleep(details),
        hashrate_ths=to_ths(rate, "GH"),
        hashrate_nominal_ths=to_ths(nominal, "GH") or to_ths(sticker, "GH") or None,
        power_w=power_w,
        power_source="none" if power_w is None else "estimated",
        temperature_max_c=max(hottest, default=None),
        fans_rpm=tuple(speed for speed in fans if speed is not None),
        boards=boards,
        pools=tuple(_pools(pages.get("pools")))[:MAX_POOLS],
        errors=_errors(pages),
    )


def limit_state(configuration: object, constraints: object) -> LimitState | None:
    """The power target from ``configuration/miner`` and its bounds; ``None`` where the machine is tuned to no watts."""
    tuner = at(configuration, "tuner")
    watts = integer(at(tuner, "power_target", "watt"))
    if at(tuner, "enabled") is False or at(tuner, "tuner_mode") not in (POWER_TARGET_MODE, None) or not watts:
        return None
    bounds = at(constraints, "tuner_constraints", "power_target")
    return LimitState(
        now_w=watts,
        settings={"power_target_w": watts},
        lowest_w=integer(at(bounds, "min", "watt")),
        highest_w=integer(at(bounds, "max", "watt")),
    )


def _rows(value: object, name: str) -> list[dict[str, Any]]:
    return rows(value, name) if isinstance(value, dict) else []


def _board(number: int, row: dict[str, Any]) -> Board:
    enabled = row.get("enabled")
    degrees = temperatures(at(row, "highest_chip_temp", "temperature", "degree_c"))
    degrees += temperatures(at(row, "board_temp", "degree_c"))
    return Board(
        index=number,
        hashrate_ths=to_ths(at(row, "stats", "real_hashrate", "last_5s", "gigahash_per_second"), "GH"),
        chips=integer(row.get("chips_count")),
        temperature_max_c=max(degrees, default=None),
        ok=enabled if isinstance(enabled, bool) else None,
    )


def _pools(groups: object) -> list[Pool]:
    listed = groups if isinstance(groups, list) else []
    found = [row for group in listed[:MAX_POOLS] for row in _rows(group, "pools")[:MAX_POOLS]]
    return [
        Pool(
            url=text(row.get("url")),
            user=text(row.get("user")),
            active=active if isinstance(active := row.get("active"), bool) else None,
            accepted=integer(at(row, "stats", "accepted_shares")),
            rejected=integer(at(row, "stats", "rejected_shares")),
        )
        for row in found
    ]


def _errors(pages: Pages) -> tuple[str, ...]:
    """State and error messages, the newest first, each once: a machine without a pool repeats itself by the hundred."""
    state = integer(at(pages.get("details"), "status"))
    said = [] if state in (None, NORMAL, PAUSED) else [f"state {STATES.get(state or 0, state)}"]
    listed = _rows(pages.get("errors"), "errors")
    newest = sorted(listed, key=lambda row: str(row.get("timestamp", "")), reverse=True)
    said += [message for row in newest if (message := text(first(row, "message"))) is not None]
    return tuple(dict.fromkeys(said))[:MAX_ERRORS]
