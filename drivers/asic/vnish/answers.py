"""What VNish answers on its web interface, turned into the project's words. Pure functions.

Source: the vendor's OpenAPI documents of 1.2.6, 1.2.7 and 1.3.4, published answers of an S21 Pro with 1.2.7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, MAX_POOLS, Identity, measured_or_none
from drivers.asic.fields import first, integer, mac, rows, temperatures, text, to_ths
from drivers.asic.power import LimitState
from drivers.capabilities import Board, MinerStatus, Pool

NAME = "vnish"
ROOT = "/api/v1/"
HASHING_THS = 0.1
HASHING_SHARE = 0.01
"""Of the nominal rate, where that is known: VNish also runs on scrypt machines, whose rates are tiny in TH/s."""
STOPPED = "stopped"
AWAKE = ("mining", "auto-tuning", "initializing", "starting", "restarting")
RUNNING = ("mining", "auto-tuning")
OWN_POOL = "UserPool"
NO_SERIAL = ("n/a", "none", "unknown")
_WATTS = re.compile(r"\s*(\d{2,6})\s*")
_CHAIN_GOOD = ("mining", "initializing", "stopped")

Json = Mapping[str, Any]


def part(value: object, *path: str) -> dict[str, Any]:
    """The object at the end of a path of names, or an empty one."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def state_of(answer: object) -> str | None:
    """``miner_state`` of a ``status`` or ``summary`` answer."""
    state = part(answer).get("miner_state") or part(answer, "miner", "miner_status").get("miner_state")
    return state.strip().lower() if isinstance(state, str) else None


def is_asleep(state: str | None) -> bool | None:
    """Whether a state means stopped; ``None`` while it shuts down, failed, or says something unknown."""
    if state == STOPPED:
        return True
    return False if state in AWAKE else None


def vnish_status(summary: object, info: object = None, *, state: str | None = None) -> MinerStatus:
    """One status from ``summary`` and ``info``; ``state`` where only ``status`` told it."""
    miner = part(summary, "miner")
    said = state_of(summary) or state
    identity = identity_from(info)
    unit = part(info).get("hr_measure")
    power_w = measured_or_none(first(miner, "power_usage", "power_consumption"))
    metered = part(miner, "psu").get("psu_power_metering") is True
    boards = tuple(_board(n, row, unit) for n, row in enumerate(rows(miner, "chains")[:MAX_BOARDS]))
    rate = to_ths(miner.get("hr_realtime"), unit)
    if rate is None:
        rate = to_ths(miner.get("instant_hashrate"), "TH")
    hottest = temperatures(part(miner, "chip_temp").get("max")) + temperatures(part(miner, "pcb_temp").get("max"))
    fans = [integer(row.get("rpm")) for row in rows(part(miner, "cooling"), "fans")[:MAX_FANS]]
    nominal = to_ths(miner.get("hr_nominal"), unit)
    hashing = rate is not None and rate > (HASHING_SHARE * nominal if nominal else HASHING_THS)
    errors = _errors(miner, said)
    asleep = is_asleep(said)
    if asleep and hashing:
        errors = (*errors, "told to stop, but hashing")
    return MinerStatus(
        family=NAME,
        model=identity.model or text(miner.get("miner_type")),
        firmware=identity.firmware,
        mac=identity.mac,
        serial=identity.serial,
        # The time in its state, which is told of running states alone.
        uptime_s=integer(part(miner, "miner_status").get("miner_state_time")) if said in RUNNING else None,
        sleeping=False if hashing else asleep,
        hashrate_ths=rate,
        hashrate_nominal_ths=nominal or None,
        power_w=power_w,
        power_source="none" if power_w is None else ("measured" if metered else "estimated"),
        temperature_max_c=max(hottest, default=None),
        fans_rpm=tuple(speed for speed in fans if speed is not None),
        boards=boards,
        pools=tuple(_pool(row) for row in rows(miner, "pools")[:MAX_POOLS] if _is_own(row)),
        errors=errors,
    )


def identity_from(info: object) -> Identity:
    """Model, firmware, MAC and serial number from ``info``."""
    known = part(info)
    words = [word for name in ("fw_name", "fw_version") if (word := text(known.get(name))) is not None]
    serial = text(known.get("serial"))
    return Identity(
        model=text(known.get("miner")),
        firmware=" ".join(words) or None,
        mac=mac(part(info, "system", "network_status").get("mac")),
        serial=None if serial is None or serial.lower() in NO_SERIAL else serial,
    )


def preset_watts(name: object) -> int | None:
    """Watts of a preset: its name is the bare number; ``disabled`` and people's own names are none."""
    match = _WATTS.fullmatch(name) if isinstance(name, str) else None
    return int(match.group(1)) if match else None


def presets_of(answer: object, *, modded_psu: bool) -> dict[int, str]:
    """Names of the presets by their watts; those for a modified power supply only where there is one."""
    listed = answer if isinstance(answer, list) else part(answer).get("presets")
    found: dict[int, str] = {}
    for row in listed[:200] if isinstance(listed, list) else ():
        name = part(row).get("name")
        watts = preset_watts(name)
        if (
            watts is not None
            and isinstance(name, str)
            and (modded_psu or part(row).get("modded_psu_required") is not True)
        ):
            found[watts] = name
    return found


def overclock_of(settings: object) -> dict[str, Any]:
    """``miner.overclock`` of a ``settings`` answer."""
    return part(settings, "miner", "overclock")


def limit_state(overclock: Json, steps_w: tuple[int, ...]) -> LimitState | None:
    """The preset as a limit; ``None`` where there are no presets in watts.

    While the preset switcher runs, it moves the machine between presets as temperatures allow: then no limit is set.
    """
    preset = overclock.get("preset")
    if not steps_w or not isinstance(preset, str):
        return None
    switcher = part(overclock, "preset_switcher").get("enabled")
    switching = switcher if isinstance(switcher, bool) else None
    return LimitState(
        now_w=None if switching else preset_watts(preset),
        settings={"preset": preset, "switcher": switching},
        steps_w=steps_w,
    )


def with_preset(overclock: Json, preset: str, switching: bool | None) -> dict[str, Any]:
    """The body of a write that changes the preset and the switcher and leaves everything else as it was read."""
    changed = {**overclock, "preset": preset}
    switcher = part(overclock, "preset_switcher")
    if switcher and switching is not None:
        changed["preset_switcher"] = {**switcher, "enabled": switching}
    return {"miner": {"overclock": changed}}


def _board(number: int, row: dict[str, Any], unit: object) -> Board:
    marks = [integer(count) for count in part(row, "chip_statuses").values()]
    degrees = temperatures(part(row, "chip_temp").get("max")) + temperatures(part(row, "pcb_temp").get("max"))
    state = part(row, "status").get("state")
    return Board(
        index=number,
        hashrate_ths=to_ths(row.get("hashrate_rt"), unit),
        chips=sum(count for count in marks if count is not None) or None,
        temperature_max_c=max(degrees, default=None),
        ok=state in _CHAIN_GOOD if isinstance(state, str) else None,
    )


def _is_own(row: dict[str, Any]) -> bool:
    """False for the vendor's own rows, which are no pools of the owner."""
    return row.get("pool_type", OWN_POOL) == OWN_POOL and row.get("url") != "DevFee"


def _pool(row: dict[str, Any]) -> Pool:
    state = row.get("status")
    return Pool(
        url=text(row.get("url")),
        user=text(row.get("user")),
        active=state == "active" if isinstance(state, str) else None,
        accepted=integer(row.get("accepted")),
        rejected=integer(row.get("rejected")),
    )


def _errors(miner: dict[str, Any], state: str | None) -> tuple[str, ...]:
    status = part(miner, "miner_status")
    found = []
    if state == "failure":
        code, why = integer(status.get("failure_code")), text(status.get("description"))
        found.append(f"failure{f' {code}' if code is not None else ''}: {why or 'no reason given'}")
    for number, row in enumerate(rows(miner, "chains")[:MAX_BOARDS]):
        how = part(row, "status")
        if isinstance(how.get("state"), str) and how["state"] not in _CHAIN_GOOD:
            why = text(first(how, "description", "failure_message"))
            found.append(f"chain {number}: {how['state'][:40]}{f': {why}' if why else ''}")
    for row in rows(part(miner, "cooling"), "fans")[:MAX_FANS]:
        if row.get("status") == "lost":
            found.append(f"fan {integer(row.get('id'))}: lost")
    return tuple(found)
