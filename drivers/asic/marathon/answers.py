"""What Marathon's firmware answers and is configured with, turned into the project's words. Pure functions.

Source: the readings and settings that open fleet tools use (UpstreamData/pyasic); no answer of a machine is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, Identity, measured_or_none
from drivers.asic.fields import first, integer, mac, number, temperatures, text, to_ths
from drivers.asic.power import LimitState, Setting
from drivers.asic.work_mode import WorkModes
from drivers.capabilities import Board, MinerStatus
from drivers.errors import BadAnswer

FAMILY_NAME = "marathon"
SLEEP = "Sleep"
TUNED = "Auto"
BY_POWER = "PowerTarget"
HASHING_THS = 0.1
MAX_WORD = 40
Json = dict[str, Any]


def work_mode(config: Json) -> str | None:
    """``Auto``, ``Stock``, ``Sleep`` …, as configured."""
    mode = config.get("mode")
    word = text(mode.get("work-mode-selector")) if isinstance(mode, dict) else None
    return word if word is not None and len(word) <= MAX_WORD else None


def with_mode(config: Json, changes: Json, *, name: str) -> Json:
    """The body of a write that changes settings under ``mode`` and nothing else.

    Raises:
        BadAnswer: what was read is no whole configuration; writing it back would lose the rest.
    """
    mode = config.get("mode")
    if work_mode(config) is None or not isinstance(mode, dict) or len(config) < 2:
        raise BadAnswer(
            f"{name}: the configuration read has no work mode or nothing besides it, so it is not whole; not written "
            f"back. Keys seen: {sorted(config)[:20]}"
        )
    tuner = mode.get("concorde")
    inner = changes.get("concorde")
    if inner is not None:
        changes = {**changes, "concorde": {**(tuner if isinstance(tuner, dict) else {}), **inner}}
    return {**config, "mode": {**mode, **changes}}


def limit_state(config: Json, *, name: str) -> LimitState:
    """The power target as configured, and what makes it be followed.

    Raises:
        BadAnswer: this machine has no power target.
    """
    mode = config.get("mode")
    tuner = mode.get("concorde") if isinstance(mode, dict) else None
    if not isinstance(tuner, dict) or "power-target" not in tuner:
        raise BadAnswer(f"{name}: its configuration has no power target; it cannot be limited")
    target_w = integer(tuner.get("power-target"))
    selected = text(tuner.get("mode-select"))
    followed = work_mode(config) == TUNED and selected == BY_POWER
    settings: dict[str, Setting] = {"mode": work_mode(config), "select": selected, "target_w": target_w}
    return LimitState(target_w if followed else None, settings)


def changes_of(settings: Mapping[str, Setting]) -> Json:
    """What has to be written under ``mode`` to have the settings of a :class:`LimitState` again."""
    tuner: Json = {}
    if isinstance(settings.get("select"), str):
        tuner["mode-select"] = settings["select"]
    if isinstance(settings.get("target_w"), int):
        tuner["power-target"] = settings["target_w"]
    changes: Json = {"concorde": tuner} if tuner else {}
    if isinstance(settings.get("mode"), str):
        changes["work-mode-selector"] = settings["mode"]
    return changes


def limited_to(limit_w: int) -> Json:
    """The same for a limit."""
    return {"work-mode-selector": TUNED, "concorde": {"mode-select": BY_POWER, "power-target": limit_w}}


def identity_of(overview: Json) -> Identity:
    """What ``overview`` says of the machine."""
    return Identity(
        model=text(first(overview, "model", "miner_model")),
        firmware=text(overview.get("version_firmware")),
        mac=mac(overview.get("mac")),
        serial=text(first(overview, "serial_number", "serial")),
    )


def marathon_status(brief: Json, hashboards: Json, fans: Json, identity: Identity, mode: str | None) -> MinerStatus:
    """One status from ``brief`` and, where they were read, ``hashboards``, ``fans`` and the work mode."""
    said = text(brief.get("status"))
    mining = None if said is None else said.lower() == "mining"
    rate = number(brief.get("hashrate_realtime"))
    boards = tuple(_board(at, row) for at, row in enumerate(_rows(hashboards, "hashboards")[:MAX_BOARDS]))
    degrees = [board.temperature_max_c for board in boards if board.temperature_max_c is not None]
    power_w = measured_or_none(brief.get("power_consumption_estimated"))
    hashing = rate is not None and rate > HASHING_THS
    errors: tuple[str, ...] = ()
    sleeping: bool | None = None
    if mode is not None:
        sleeping = mode == SLEEP and not hashing and mining is not True
        if mode == SLEEP and not sleeping:
            errors = ("configured to sleep, but mining",)
    elif mining or hashing:
        sleeping = False
    speeds = [integer(row.get("current_speed")) for row in _rows(fans, "fans")[:MAX_FANS]]
    return MinerStatus(
        family=FAMILY_NAME,
        model=identity.model,
        firmware=identity.firmware,
        mac=identity.mac,
        serial=identity.serial,
        uptime_s=integer(brief.get("elapsed")),
        sleeping=sleeping,
        hashrate_ths=rate if rate is not None and rate >= 0 else None,
        hashrate_nominal_ths=to_ths(brief.get("hashrate_ideal")) or None,
        power_w=power_w,
        power_source="none" if power_w is None else "estimated",
        temperature_max_c=max(degrees, default=None),
        fans_rpm=tuple(speed for speed in speeds if speed is not None),
        boards=boards,
        errors=errors,
    )


def _rows(answer: Json, name: str) -> list[Json]:
    listed = answer.get(name)
    return [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []


def _board(at: int, row: Json) -> Board:
    degrees = [c for name in ("temperature_chip", "temperature_pcb") for c in temperatures(row.get(name))]
    chips = integer(row.get("asic_num"))
    index = integer(row.get("index"))
    return Board(
        index=at if index is None else index,
        hashrate_ths=to_ths(row.get("hashrate_average")),
        chips=chips,
        temperature_max_c=max(degrees, default=None),
        ok=None if chips is None else chips > 0,
    )


def _is_mode(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_WORD


MODES = WorkModes(
    family=FAMILY_NAME,
    sleep=SLEEP,
    of=work_mode,
    put=lambda config, mode, name: with_mode(config, {"work-mode-selector": mode}, name=name),
    valid=_is_mode,
    expected="the word of a mode",
    at_once=False,
)
