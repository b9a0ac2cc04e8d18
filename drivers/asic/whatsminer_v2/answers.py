"""What Whatsminer's API 1 and 2 answer, turned into the project's words. Pure functions.

Source: MicroBT's document of API 2.0.5, published answers of M20S, M30S, M50 and M60S machines.
"""

from __future__ import annotations

from typing import Any

from drivers.asic.cgminer_status import Answers, Identity, measured_or_none, pools_from, with_sleep
from drivers.asic.fields import first, integer, mac, number, rows, temperatures, text, to_ths
from drivers.capabilities import Board, MinerStatus

NAME = "whatsminer-v2"
MAX_BOARDS = 16
MAX_ERRORS = 20
TOLD = "told to be off, but hashing"
PLAUSIBLE_FACTOR = 3.0
MHS_PER_THS = 1e6


def message(answer: dict[str, Any] | None) -> dict[str, Any]:
    """``Msg`` of an answer where it is an object, else an empty one."""
    found = (answer or {}).get("Msg")
    return found if isinstance(found, dict) else {}


def is_off(status: dict[str, Any] | None) -> bool | None:
    """Whether a ``status`` answer says that the hash boards are off; ``None`` where it does not say."""
    flag = first(message(status), "mineroff", "btmineroff")
    if isinstance(flag, bool):
        return flag
    return {"true": True, "false": False}.get(flag.strip().lower()) if isinstance(flag, str) else None


def whatsminer_status(answers: Answers) -> MinerStatus:
    """One status from ``summary``, ``devs`` or ``edevs``, ``pools``, ``status`` and the slow commands; all may miss."""
    summary = next(iter(rows(answers.get("summary"), "SUMMARY")), {})
    boards = _boards(answers)
    power_w = measured_or_none(summary.get("Power"))
    fans = [integer(summary.get(name)) for name in ("Fan Speed In", "Fan Speed Out")]
    hottest = [*temperatures(summary.get("Chip Temp Max")), *temperatures(summary.get("Temperature"))]
    hottest += [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    status = MinerStatus(
        family=NAME,
        uptime_s=integer(first(summary, "Elapsed", "Uptime")),
        hashrate_ths=hashrate_ths(summary),
        hashrate_nominal_ths=to_ths(summary.get("Factory GHS"), "GH") or None,
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        temperature_max_c=max(hottest, default=None),
        fans_rpm=tuple(speed for speed in fans if speed is not None),
        boards=boards,
        # It lists three slots, whether or not a pool is in them.
        pools=tuple(pool for pool in pools_from(answers.get("pools")) if pool.url or pool.user),
        errors=errors_from(answers),
    )
    return with_sleep(identity_from(answers).into(status), is_off(answers.get("status")), TOLD)


def hashrate_ths(summary: dict[str, Any]) -> float | None:
    """The rate of the moment. ``HS RT`` is in MH/s or TH/s by firmware, without saying which."""
    averages = [to_ths(summary.get(name), "MH") for name in ("MHS 5s", "MHS 1m", "MHS av")]
    now = number(summary.get("HS RT"))
    if now is None or now < 0:
        return next((rate for rate in averages if rate is not None), None)
    reference = next((rate for rate in averages if rate), None)
    in_ths, in_mhs = now, now / MHS_PER_THS
    if reference is not None:
        return min((in_ths, in_mhs), key=lambda rate: abs(rate - reference))
    nominal = to_ths(summary.get("Factory GHS"), "GH")
    limit = PLAUSIBLE_FACTOR * nominal if nominal else 10_000.0
    return in_mhs if in_ths > limit else in_ths


def identity_from(answers: Answers) -> Identity:
    """Model, firmware, MAC and serial number from whichever commands give them."""
    summary = next(iter(rows(answers.get("summary"), "SUMMARY")), {})
    details = next(iter(rows(answers.get("devdetails"), "DEVDETAILS")), {})
    version = message(answers.get("get_version") or answers.get("version"))
    info = message(answers.get("get_miner_info"))
    state = message(answers.get("status"))
    firmware = (
        first(version, "fw_ver")
        or first(summary, "Firmware Version")
        or first(state, "FirmwareVersion", "Firmware Version")
    )
    return Identity(
        model=text(first(details, "Model")) or text(first(version, "miner_type")) or text(first(info, "model")),
        # Some versions put the quotes of their shell into the text.
        firmware=text(firmware.strip().strip("'\"")) if isinstance(firmware, str) else None,
        mac=mac(first(info, "mac")) or mac(first(summary, "MAC")),
        serial=text(first(info, "minersn", "miner_sn", "sn")),
    )


def errors_from(answers: Answers) -> tuple[str, ...]:
    """Error codes with their times, from ``get_error_code`` or, in API 1, from ``summary``."""
    listed = message(answers.get("get_error_code")).get("error_code")
    found: list[str] = []
    for entry in listed if isinstance(listed, list) else [listed]:
        if isinstance(entry, dict):
            found += [f"{text(str(code))} ({text(str(since))})" for code, since in list(entry.items())[:MAX_ERRORS]]
        elif isinstance(entry, int | str) and not isinstance(entry, bool):
            found.append(str(entry)[:80])
    summary = next(iter(rows(answers.get("summary"), "SUMMARY")), {})
    codes = [summary.get(f"Error Code {at}") for at in range(MAX_ERRORS)]
    known = " ".join(found)
    found += [str(code) for code in codes if isinstance(code, int) and code and str(code) not in known]
    return tuple(found[:MAX_ERRORS])


def limit_from(summary: dict[str, Any] | None, status: dict[str, Any] | None) -> int | None:
    """The power limit in watts, from ``summary`` or ``status``."""
    row = next(iter(rows(summary, "SUMMARY")), {})
    limit_w = integer(row.get("Power Limit")) or integer(message(status).get("power_limit_set"))
    return limit_w if limit_w and limit_w > 0 else None


def _boards(answers: Answers) -> tuple[Board, ...]:
    listed = rows(answers.get("devs"), "DEVS") or rows(answers.get("edevs"), "DEVS")
    return tuple(_board(at, row) for at, row in enumerate(listed[:MAX_BOARDS]))


def _board(at: int, row: dict[str, Any]) -> Board:
    slot = integer(first(row, "Slot", "ASC"))
    state = row.get("Status")
    degrees = [*temperatures(row.get("Chip Temp Max")), *temperatures(row.get("Temperature"))]
    return Board(
        index=at if slot is None else slot,
        hashrate_ths=to_ths(first(row, "MHS 5s", "MHS 1m", "MHS av"), "MH"),
        chips=integer(row.get("Effective Chips")),
        temperature_max_c=max(degrees, default=None),
        ok=state == "Alive" if isinstance(state, str) else None,
    )
