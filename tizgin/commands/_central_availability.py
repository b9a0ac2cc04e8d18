"""Body of ``tizgin central availability``."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from central import availability
from central.registers import registrar_keys, stored_site
from central.store.database import reading
from tizgin.commands._central_store import opened_store
from tizgin.errors import EXIT_OK, EXIT_PROBLEM, EXIT_WRONG_USE, UserError

if TYPE_CHECKING:
    from config.central import Central

KAZAKHSTAN = timezone(timedelta(hours=5))


def month_of(text: str) -> tuple[int, int]:
    """``2026-11`` → begin and end of that month in Kazakhstan time, epoch seconds."""
    found = re.fullmatch(r"(20[0-9]{2})-(0[1-9]|1[0-2])", text)
    if found is None:
        raise UserError(f"--month {text!r}: expected a month such as 2026-11", exit_code=EXIT_WRONG_USE)
    first = datetime(int(found[1]), int(found[2]), 1, tzinfo=KAZAKHSTAN)
    last = (first + timedelta(days=32)).replace(day=1)
    return int(first.timestamp()), int(last.timestamp())


def show_availability(settings: Central, config: Path, site: str, month: str, *, as_json: bool) -> int:
    """Compute and print it."""
    first, last = month_of(month)
    with opened_store(settings, config.resolve().parent) as engine, reading(engine) as connection:
        entry = stored_site(connection, site, registrar_keys(settings.registrar_keys))
        found = availability.report(connection, site, entry.slot_s, first, last, int(time.time()))
    if as_json:
        typer.echo(json.dumps(availability.as_dict(found), ensure_ascii=False))
    else:
        _print(found)
    return EXIT_OK if found.known else EXIT_PROBLEM


def _share(permille: int | None) -> str:
    return "not known" if permille is None else f"{permille / 10:.1f} %"


def _hours(seconds: int) -> str:
    return f"{seconds / 3600:.1f} h"


def _day(at_ms: int | None) -> str:
    if at_ms is None:
        return "not known"
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(KAZAKHSTAN).strftime("%Y-%m-%d")


def _print(found: availability.Report) -> None:
    console = Console()
    whole = found.last_s - found.first_s
    console.print(f"{found.site}: agent ran {_hours(found.agent_up_s)} of {_hours(whole)}, {found.agent_starts} starts")
    meters = Table("meter", "available", "intervals", "gaps", "not known")
    for m in found.meters:
        gaps = ", ".join(f"{why} {count}" for why, count in m.gaps.items())
        meters.add_row(m.point, _share(m.permille), str(m.intervals), gaps, str(m.missing))
    switches = Table("switch", "available", "not available", "not known", "operations")
    for s in found.switches:
        lost = ", ".join(f"{why} {_hours(seconds)}" for why, seconds in s.unavailable_s.items())
        switches.add_row(s.switch, _share(s.permille), lost, _hours(s.unknown_s), str(s.operations))
    saon = Table("САОН", "stage", "operations", "input read, of rounds")
    for one in found.saon:
        saon.add_row(one.feeder, str(one.stage), str(one.operations), f"{one.readable} of {one.rounds}")
    proof = Table("output", "proven", "due again")
    for p in found.proof:
        proof.add_row(p.output, _day(p.last), "OVERDUE" if p.overdue else _day(p.due))
    for table in (meters, switches, saon, proof):
        if table.row_count:
            console.print(table)
    link = found.link
    longest = "" if link["longest_s"] is None else f", the longest took {link['longest_s']} s"
    console.print(f"link: {link['delivered']} slot records, {link['late']} over a minute late{longest}")
    console.print("orders: " + ", ".join(f"{name} {count}" for name, count in found.orders.items()))
    if found.unverified:
        console.print(f"{found.unverified} records left out: no signature of a registered key holds")
