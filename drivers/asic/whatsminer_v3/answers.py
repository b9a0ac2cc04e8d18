"""What Whatsminer's API 3 answers, turned into the project's words; and the token of its writes. Pure functions.

Source: published answers of API 3.0.0 and 3.0.2, MicroBT's own description of the token (SHA-256 over command,
password, salt and time; the first eight letters of its base64).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_POOLS, Identity, measured_or_none, with_sleep
from drivers.asic.fields import first, integer, mac, rows, temperatures, text, to_ths
from drivers.capabilities import Board, MinerStatus, Pool

NAME = "whatsminer-v3"
STOPPED = "its service is stopped, but hashing"
MAX_ERRORS = 20
TOKEN_LETTERS = 8
_SALT = re.compile(r"[!-~]{1,64}")

Json = Mapping[str, Any]


def write_token(command: str, password: str, salt: str, ts: int) -> str:
    """The token that allows one command at one time (Unix seconds by the agent's clock)."""
    digest = hashlib.sha256(f"{command}{password}{salt}{ts}".encode()).digest()
    return base64.b64encode(digest).decode()[:TOKEN_LETTERS]


def message(answer: Json | None) -> dict[str, Any]:
    """``msg`` of an answer where it is an object, else an empty one."""
    found = (answer or {}).get("msg")
    return found if isinstance(found, dict) else {}


def part(answer: Json | None, name: str) -> dict[str, Any]:
    """One object within ``msg``, or an empty one."""
    found = message(answer).get(name)
    return found if isinstance(found, dict) else {}


def refusal(answer: Json) -> tuple[int | None, str] | None:
    """``(code, message)`` where the answer is none of success (code 0)."""
    code = integer(answer.get("code"))
    return None if code == 0 else (code, str(answer.get("msg", ""))[:200])


def salt_of(info: Json) -> str | None:
    """The salt in a ``get.device.info`` answer."""
    found = message(info).get("salt")
    return found if isinstance(found, str) and _SALT.fullmatch(found) else None


def is_asleep(info: Json | None) -> bool | None:
    """Whether a ``get.device.info`` answer says that the mining service is stopped; ``None`` where it does not say."""
    flag = part(info, "miner").get("working")
    if isinstance(flag, bool):
        return not flag
    return {"true": False, "false": True}.get(flag.strip().lower()) if isinstance(flag, str) else None


def whatsminer_status(status: Json | None, info: Json | None = None) -> MinerStatus:
    """One status from ``get.miner.status`` (``summary``, ``edevs`` and ``pools`` in one) and ``get.device.info``."""
    summary = part(status, "summary")
    boards = tuple(_board(at, row) for at, row in enumerate(rows(message(status), "edevs")[:MAX_BOARDS]))
    power_w = measured_or_none(summary.get("power-realtime"))
    fans = [integer(summary.get(name)) for name in ("fan-speed-in", "fan-speed-out")]
    hottest = [*temperatures(summary.get("chip-temp-max")), *temperatures(summary.get("board-temperature"))]
    hottest += [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    read = MinerStatus(
        family=NAME,
        uptime_s=integer(summary.get("elapsed")),
        hashrate_ths=to_ths(first(summary, "hash-realtime", "hash-1min", "hash-average"), "TH"),
        hashrate_nominal_ths=to_ths(summary.get("factory-hash"), "TH") or None,
        power_w=power_w,
        power_source="none" if power_w is None else "measured",
        temperature_max_c=max(hottest, default=None),
        fans_rpm=tuple(speed for speed in fans if speed is not None),
        boards=boards,
        pools=tuple(_pool(row) for row in rows(message(status), "pools")[:MAX_POOLS]),
        errors=errors_from(info),
    )
    return with_sleep(identity_from(info).into(read), is_asleep(info), STOPPED)


def identity_from(info: Json | None) -> Identity:
    """Model, firmware, MAC and serial number from ``get.device.info``."""
    miner = part(info, "miner")
    return Identity(
        model=text(miner.get("type")),
        firmware=text(part(info, "system").get("fwversion")),
        mac=mac(part(info, "network").get("mac")),
        serial=text(miner.get("miner-sn")),
    )


def errors_from(info: Json | None) -> tuple[str, ...]:
    """``error-code``: a list of objects whose key is the code and whose value is the time, with a ``reason`` beside."""
    found: list[str] = []
    for row in rows(message(info), "error-code")[:MAX_ERRORS]:
        reason = text(row.get("reason"))
        codes = [f"{text(str(key))} ({text(str(since))})" for key, since in row.items() if str(key).isdecimal()]
        found += [f"{code}: {reason}" if reason else code for code in codes]
    return tuple(found[:MAX_ERRORS])


def limit_from(answer: Json | None) -> int | None:
    """``power-limit`` in watts, of ``get.miner.setting`` or of the summary."""
    limit_w = integer(first(message(answer), "power-limit")) or integer(part(answer, "summary").get("power-limit"))
    return limit_w if limit_w and limit_w > 0 else None


def _board(at: int, row: dict[str, Any]) -> Board:
    slot = integer(first(row, "slot", "id"))
    state = row.get("status")
    return Board(
        index=at if slot is None else slot,
        hashrate_ths=to_ths(first(row, "hash-realtime", "hash-average"), "TH"),
        chips=integer(row.get("effective-chips")),
        temperature_max_c=max(temperatures(row.get("chip-temp-max")), default=None),
        ok=state == "alive" if isinstance(state, str) else None,
    )


def _pool(row: dict[str, Any]) -> Pool:
    active = row.get("stratum-active")
    return Pool(
        url=text(row.get("url")),
        user=text(row.get("account")),
        active=active if isinstance(active, bool) else None,
        # This API gives a share of rejects and no counts.
        accepted=integer(row.get("accepted")),
        rejected=integer(row.get("rejected")),
    )
