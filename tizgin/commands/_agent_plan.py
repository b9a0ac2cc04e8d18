"""Body of ``tizgin agent plan``."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from agent.errors import AgentError
from agent.inbox import hand_in
from tizgin.commands._agent_ask import _state_dir
from tizgin.commands._agent_run import read_site
from tizgin.errors import EXIT_OK, EXIT_PROBLEM, EXIT_WRONG_USE, UserError

UNITS = {"w": 1, "kw": 1000, "mw": 1_000_000}
MAX_ROWS = 20


def watt_of(text: str) -> int:
    """``3MW``, ``850 kW``, ``1.5MW``, ``0`` → W. A bare number other than 0 has no unit and is refused."""
    found = re.fullmatch(r"([0-9]+(?:[.,][0-9]+)?)\s*(w|kw|mw)?", text.strip().lower())
    if found is None or (found[2] is None and Decimal(found[1].replace(",", ".")) != 0):
        raise UserError(f"--limit {text!r}: expected a power with its unit, such as 3MW", exit_code=EXIT_WRONG_USE)
    value = Decimal(found[1].replace(",", ".")) * UNITS[found[2] or "w"]
    if value != value.to_integral_value():
        raise UserError(f"--limit {text!r}: expected whole watts", exit_code=EXIT_WRONG_USE)
    return int(value)


def show_plan(path: Path, limit: str, *, as_json: bool) -> int:
    """Ask the running agent and print its plan."""
    request = json.dumps({"ty": "plan", "limit_w": watt_of(limit)}).encode()
    folder = _state_dir(path, read_site(path))
    try:
        good, text = asyncio.run(hand_in(folder, f"plan-{secrets.token_hex(4)}", request))
    except (AgentError, OSError) as error:
        raise UserError(str(error)) from None
    if not good:
        raise UserError(text)
    plan: dict[str, Any] = json.loads(text)
    if as_json:
        typer.echo(json.dumps(plan, ensure_ascii=False))
    else:
        _print(plan)
    return EXIT_OK if plan["reached"] else EXIT_PROBLEM


def _kw(watt: int | None) -> str:
    return "not known" if watt is None else f"{watt / 1000:,.1f} kW".replace(",", " ")


def _kvar(var: int | None) -> str:
    if var is None:
        return "not known"
    return f"{abs(var) / 1000:,.1f} kvar {'drawn' if var >= 0 else 'given to the grid'}".replace(",", " ")


def _seconds(value: float | None) -> str:
    return "not known: none was made yet" if value is None else f"{value:g} s"


def _print(plan: dict[str, Any]) -> None:
    console = Console()
    console.print(
        f"{plan['site']}, mode {plan['mode']}: {_kw(plan['power_w'])} at {plan['point']}, limit {_kw(plan['limit_w'])}"
        + ("" if plan["target_w"] == plan["limit_w"] else f" (not below the reservation {_kw(plan['target_w'])})")
    )
    for number, step in enumerate(plan["steps"], 1):
        what = "machines to sleep" if step["kind"] == "sleep" else "switches to open"
        console.print(
            f"{number}. {step['count']} {what}: {_kw(step['expected_w'])}; {step['why']}; "
            f"writes {_seconds(step['write_s'])}, shown by the meter within {step['confirm_within_s']:g} s"
            + (f", after {step['wait_before_s']:g} s of cooling" if step["wait_before_s"] else "")
        )
    _targets(plan, console)
    left = Table("left out", "count", "why")
    for row in plan["left_out"]["machines"]:
        left.add_row(row["group"], str(row["count"]), row["why"])
    for row in plan["left_out"]["switches"]:
        left.add_row(row["id"], "", row["why"])
    if left.row_count:
        console.print(left)
    reactive = plan["reactive"]
    console.print(f"reactive power {_kvar(reactive['var'])}, expected after it {_kvar(reactive['after_var'])}")
    for warning in reactive["warnings"]:
        console.print(f"WARNING: {warning}")
    floors = plan["floors"]
    console.print(
        f"lowest reachable by sleep {_kw(floors['floor_sleep_w'])}, with switches {_kw(floors['floor_switch_w'])}"
    )
    said = {True: "reached", False: "NOT REACHED", None: "not known whether reached"}[plan["reached"]]
    console.print(f"expected {_kw(plan['expected_w'])} less, {_kw(plan['after_w'])} left: {said}")


def _targets(plan: dict[str, Any], console: Console) -> None:
    table = Table("what", "expected", "why")
    groups: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    whys: dict[str, set[str]] = {}
    for machine in plan["machines"]:
        groups[machine["group"]] += machine["expected_w"]
        counts[machine["group"]] += 1
        whys.setdefault(machine["group"], set()).add(machine["why"])
    for group, watt in groups.items():
        why = sorted(whys[group])
        table.add_row(f"{group}: {counts[group]} machines", _kw(watt), ", ".join(why[:3]) + (" …" if why[3:] else ""))
    for switch in plan["switches"][:MAX_ROWS]:
        name = f"{switch['id']} ({switch['dispatch_name']})" if switch["dispatch_name"] else switch["id"]
        table.add_row(f"{name}: {switch['machines']} machines", _kw(switch["expected_w"]), switch["why"])
    if table.row_count:
        console.print(table)
