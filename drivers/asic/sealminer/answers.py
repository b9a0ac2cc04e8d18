"""What a Sealminer answers, turned into the project's words. Pure functions.

Source: published answers of an A2, and the readings that open fleet tools make of them.
"""

from __future__ import annotations

from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, Answers, measured_or_none, pools_from
from drivers.asic.fields import integer, mac, rows, temperatures, text, to_ths
from drivers.capabilities import Board, MinerStatus

FAMILY_NAME = "sealminer"
COMMANDS = ("summary", "stats", "pools", "version")
RUNNING = "running"
HASHING_THS = 0.1
SENSORS = 4


def state(stats: dict[str, Any] | None) -> str | None:
    """``PM State``, the power manager's word: ``Running`` while it mines."""
    return next((text(row.get("PM State")) for row in rows(stats, "STATS") if "PM State" in row), None)


def asleep(stats: dict[str, Any] | None) -> bool | None:
    """Whether it is suspended. Only ``Running`` and words of suspending are known; of others, its hash rate decides
    whether it is awake, and nothing whether it sleeps."""
    said = (state(stats) or "").lower()
    if said == RUNNING:
        return False
    if said.startswith(("suspend", "sleep", "standby")):
        return True
    rates = [_rate(row) for row in rows(stats, "STATS")]
    return False if any(rate is not None and rate > HASHING_THS for rate in rates) else None


def sealminer_status(answers: Answers) -> MinerStatus:
    """One status from the answers to :data:`COMMANDS`, any of which may be missing but the first."""
    stats = answers.get("stats")
    values = next((row for row in rows(stats, "STATS") if "PM State" in row or "Board Count" in row), {})
    summary = next(iter(rows(answers.get("summary"), "SUMMARY")), {})
    rate = _rate(values)
    if rate is None:
        rate = to_ths(summary.get("MHS 1m"), "MH")
    boards = _boards(values)
    degrees = [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    sleeping = asleep(stats)
    if sleeping is None and rate is not None and rate > HASHING_THS:
        sleeping = False
    power_w = measured_or_none(values.get("PSU Input Power"))
    return MinerStatus(
        family=FAMILY_NAME,
        model=text(values.get("Model")),
        firmware=text(values.get("Firmware")),
        mac=mac(values.get("MAC")),
        serial=text(values.get("Ctrl Board SN")),
        uptime_s=integer(values.get("Elapsed") or summary.get("Elapsed")),
        sleeping=sleeping,
        hashrate_ths=rate,
        hashrate_nominal_ths=to_ths(values.get("MHS(Rated)"), "MH") or None,
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        temperature_max_c=max([*degrees, *temperatures(values.get("Temp"))], default=None),
        fans_rpm=_fans(values),
        boards=boards,
        pools=pools_from(answers.get("pools")),
        errors=_errors(values, boards),
    )


def _rate(values: dict[str, Any]) -> float | None:
    rate = to_ths(values.get("MHS(30s)"), "MH")
    return to_ths(values.get("MHS(1m)"), "MH") if rate is None else rate


def _fans(values: dict[str, Any]) -> tuple[int, ...]:
    count = max(0, min(integer(values.get("Fan Count")) or 0, MAX_FANS))
    speeds = [integer(values.get(f"{at} Speed")) for at in range(count)]
    return tuple(speed for speed in speeds if speed is not None)


def _boards(values: dict[str, Any]) -> tuple[Board, ...]:
    count = max(0, min(integer(values.get("Board Count")) or 0, MAX_BOARDS))
    boards = []
    for at in range(count):
        degrees = [c for sensor in range(SENSORS) for c in temperatures(values.get(f"{at} Temp {sensor}"))]
        online, bad = values.get(f"{at} Online"), integer(values.get(f"{at} Bad Chip Count"))
        boards.append(
            Board(
                index=at,
                hashrate_ths=to_ths(values.get(f"{at} MHS(Sample)"), "MH"),
                chips=integer(values.get(f"{at} Chip Count")),
                temperature_max_c=max(degrees, default=None),
                ok=online and not bad if isinstance(online, bool) else None,
            )
        )
    return tuple(boards)


def _errors(values: dict[str, Any], boards: tuple[Board, ...]) -> tuple[str, ...]:
    found = [f"{name}: {said}" for name in ("Error Code", "Error Chip") if (said := text(values.get(name)))]
    supply = text(values.get("PSU Error"))
    if supply is not None and supply.lower().removeprefix("0x").strip("0"):
        found.append(f"PSU Error: {supply}")
    for board in boards:
        if bad := integer(values.get(f"{board.index} Bad Chip Count")):
            found.append(f"board {board.index}: {bad} bad chips")
    return tuple(error[:200] for error in found)
