"""What Braiins OS answers on the JSON socket, turned into the project's words. Pure functions.

Source: the vendor's published documentation of its cgminer-like interface; rates are in MH/s.
"""

from __future__ import annotations

from typing import Any

from drivers.asic.braiins.graphql import fans_there
from drivers.asic.braiins.rest import NAME
from drivers.asic.cgminer_status import MAX_BOARDS, MAX_FANS, Answers, measured_or_none, pools_from
from drivers.asic.fields import first, integer, rows, temperatures, text, to_ths
from drivers.capabilities import Board, MinerStatus

COMMANDS = ("summary", "devs", "temps", "fans", "pools", "tunerstatus", "devdetails")
TUNING = ("stable", "testing performance profile", "tuning individual chips")
"""States of a chain's tuner that are no complaint."""


def rpc_status(answers: Answers) -> MinerStatus:
    """One status from the answers to :data:`COMMANDS`, of which only ``summary`` must be there."""
    summary = next(iter(rows(answers.get("summary"), "SUMMARY")), {})
    tuner = next(iter(rows(answers.get("tunerstatus"), "TUNERSTATUS")), {})
    details = next(iter(rows(answers.get("devdetails"), "DEVDETAILS")), {})
    power_w = measured_or_none(tuner.get("ApproximateMinerPowerConsumption"))
    boards = _boards(answers)
    nominal = [rate for row in rows(answers.get("devs"), "DEVS") if (rate := to_ths(row.get("Nominal MHS"), "MH"))]
    return MinerStatus(
        family=NAME,
        model=text(details.get("Model")),
        uptime_s=integer(summary.get("Elapsed")),
        hashrate_ths=to_ths(first(summary, "MHS 5s", "MHS 1m", "MHS av"), "MH"),
        hashrate_nominal_ths=sum(nominal) or None,
        power_w=power_w,
        power_source="none" if power_w is None else "estimated",
        temperature_max_c=max((b.temperature_max_c for b in boards if b.temperature_max_c is not None), default=None),
        fans_rpm=fans_there([integer(row.get("RPM")) for row in rows(answers.get("fans"), "FANS")[:MAX_FANS]]),
        boards=boards,
        pools=pools_from(answers.get("pools")),
        errors=_errors(tuner),
    )


def _boards(answers: Answers) -> tuple[Board, ...]:
    """Boards of ``devs``; temperatures and chips of other commands belong to the same ``ID``."""
    heat = {integer(row.get("ID")): row for row in rows(answers.get("temps"), "TEMPS")[:MAX_BOARDS]}
    details = {integer(row.get("ID")): row for row in rows(answers.get("devdetails"), "DEVDETAILS")[:MAX_BOARDS]}
    devs = rows(answers.get("devs"), "DEVS")[:MAX_BOARDS]
    ids = [integer(row.get("ID")) for row in devs]
    return tuple(
        _board(number, row, {} if at is None else heat.get(at, {}), {} if at is None else details.get(at, {}))
        for number, (at, row) in enumerate(zip(ids, devs, strict=True))
    )


def _board(number: int, row: dict[str, Any], heat: dict[str, Any], details: dict[str, Any]) -> Board:
    state = row.get("Status")
    degrees = [*temperatures(heat.get("Chip")), *temperatures(heat.get("Board"))]
    return Board(
        index=number,
        hashrate_ths=to_ths(first(row, "MHS 5s", "MHS 1m", "MHS av"), "MH"),
        chips=integer(details.get("Chips")),
        temperature_max_c=max(degrees, default=None),
        ok=state == "Alive" if isinstance(state, str) else None,
    )


def _errors(tuner: dict[str, Any]) -> tuple[str, ...]:
    chains = rows(tuner, "TunerChainStatus")[:MAX_BOARDS]
    said = [(row.get("HashchainIndex"), text(row.get("Status"))) for row in chains]
    return tuple(f"chain {chain}: {state}" for chain, state in said if state and not state.lower().startswith(TUNING))
