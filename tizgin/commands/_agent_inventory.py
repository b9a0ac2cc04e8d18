"""Bodies of ``tizgin agent inventory``: take a register list in, and compare it with the machines on site."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from agent.errors import AgentError
from agent.inventory import accredited as lists
from agent.inventory import papers, register, seen
from agent.inventory.accredited import Accredited
from agent.inventory.grouped import Grouped
from agent.inventory.identity import identity_of
from agent.inventory.importing import ImportProblem, import_file
from agent.inventory.poll import poll_all
from agent.inventory.reconcile import Finding, Reconciler, Standing
from agent.inventory.register import Entry
from agent.inventory.seen import Seen
from agent.inventory.switches import PoolWatch, SwitchSummary
from agent.inventory.watch import calendar_for, places_of
from config.addresses import AddressError
from config.rules.passports import local_day
from config.site import Site
from drivers.asic.credentials import CredentialError
from drivers.capabilities import MinerStatus
from tizgin.commands._agent_ask import _state_dir
from tizgin.commands._agent_run import read_site
from tizgin.errors import EXIT_OK, EXIT_PROBLEM, UserError

SHOWN = 40
"""Machines of one kind that the table lists; JSON and CSV list all."""
SWITCHES_DAYS = 90
_DAY_MS = 86_400_000


def import_lists(path: Path, file: Path | None, accredited: Path | None, sheet: str | None, *, as_json: bool) -> int:
    """Take a register list, an accredited list or both into the state directory. Returns the exit code."""
    if file is None and accredited is None:
        raise UserError("nothing to import: give a register list, --accredited LIST, or both", exit_code=2)
    site = read_site(path)
    state = _state_dir(path, site)
    now_ms = int(time.time() * 1000)
    result: dict[str, Any] = {"ok": True, "problems": []}
    try:
        if not state.is_dir():
            raise UserError(f"{state}: no state directory; make it with: tizgin agent enroll --config {path.name}")
        pools = None if accredited is None else lists.read(accredited)
        if file is not None:
            groups = [group.id for group in site.miners]
            found = import_file(file, now_ms=now_ms, groups=groups, today=local_day(now_ms // 1000), sheet=sheet)
            result |= {
                "ok": found.register is not None,
                "errors": found.errors,
                "machines": len(found.register.entries) if found.register else None,
                "columns": found.columns,
                "ignored": list(found.ignored),
                "problems": [asdict(problem) | {"text": str(problem)} for problem in found.problems],
            }
            if found.register is not None:
                result["written"] = str(register.store(state, found.register))
            if not as_json:
                _print_import(found.problems, result)
        if pools is not None and result["ok"]:
            lists.store(state, pools)
            result["pools"] = len(pools.pools)
            if not as_json:
                typer.echo(f"{accredited}: {len(pools.pools)} pools are taken")
    except AgentError as error:
        raise UserError(str(error)) from None
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    return EXIT_OK if result["ok"] else EXIT_PROBLEM


def _print_import(problems: list[ImportProblem], result: Mapping[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(
            f"[{'red' if problem.severity == 'error' else 'yellow'}]{problem.severity}[/]  {escape(str(problem))}"
        )
    columns = ", ".join(f"{field} ← {header!r}" for field, header in result["columns"].items())
    console.print(escape(f"columns: {columns}"))
    if result["ignored"]:
        console.print(escape(f"not used: {', '.join(result['ignored'])}"))
    if result["ok"]:
        console.print(escape(f"{result['machines']} machines are taken; written to {result['written']}"))
    else:
        console.print(f"refused: {result['errors']} errors; the list taken before stays")


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the site."""

    at_ms: int
    source: str
    """``agent`` (what the running agent saw last) or ``poll`` (asked now)."""
    seen: dict[str, Seen]
    silent: dict[str, str]
    """Machines asked now that did not answer, and why."""


def check_site(path: Path, *, fresh: bool, accredited: Path | None, csv_file: Path | None, as_json: bool) -> int:
    """Compare register, site and pools and print. Exit 1 where something does not fit."""
    site = read_site(path)
    state = _state_dir(path, site)
    now_ms = int(time.time() * 1000)
    try:
        known = register.load(state)
        pools = lists.read(accredited) if accredited is not None else lists.load(state)
        watch = PoolWatch(
            (pools or Accredited()).pool_list(), Grouped(), calendar_for(pools, now_ms), seen.site_secret(state)
        )
        look = _ask(site, path, watch, now_ms) if fresh else _seen_by_agent(state)
    except (AgentError, CredentialError, AddressError, ValueError) as error:
        raise UserError(str(error)) from None
    book = Reconciler(() if known is None else known.entries, places_of(site))
    for row in look.seen.values():
        if row.machine in book.machine_ids:
            _put(book, row)
    report = report_of(book, look, watch, now_ms, has_register=known is not None, has_list=pools is not None)
    if csv_file is not None:
        try:
            csv_file.write_text(papers.to_csv(papers.equipment(book)), encoding="utf-8-sig")
        except OSError as error:
            raise UserError(f"{csv_file}: cannot be written: {error.strerror}") from None
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        _print_report(report)
    return EXIT_OK if report["ok"] else EXIT_PROBLEM


def _put(book: Reconciler, row: Seen) -> None:
    if row.identity_before is not None:
        book.take(row.machine, row.identity_before)
    book.take(row.machine, row.identity)


def _seen_by_agent(state: Path) -> Look:
    found = seen.load(state)
    if found is None:
        raise UserError(
            f"{state / seen.FILE}: nothing was seen yet; the running agent writes it a minute after it started; "
            "or ask the machines now with --fresh"
        )
    return Look(found[0], "agent", found[1], {})


def _ask(site: Site, path: Path, watch: PoolWatch, now_ms: int) -> Look:
    base = path.resolve().parent
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("machines", total=None)
            answers = asyncio.run(
                poll_all(site, base=base, progress=lambda done, most: bar.update(task, completed=done, total=most))
            )
    else:
        answers = asyncio.run(poll_all(site, base=base))
    rows = {name: _row(name, status, watch, now_ms) for name, status in answers.items() if not isinstance(status, str)}
    return Look(now_ms, "poll", rows, {name: why for name, why in answers.items() if isinstance(why, str)})


def _row(name: str, status: MinerStatus, watch: PoolWatch, now_ms: int) -> Seen:
    said = identity_of(status)
    return Seen(
        name, said.serial, said.mac, said.model, said.firmware,
        pools=watch.masked(status.pools), first_ms=now_ms, last_ms=now_ms,
    )  # fmt: skip


def report_of(
    book: Reconciler, look: Look, watch: PoolWatch, now_ms: int, *, has_register: bool, has_list: bool
) -> dict[str, Any]:
    """The shape of ``--json``."""
    counts = book.counts()
    day = local_day(now_ms // 1000)
    # Without a register nobody can be called unregistered.
    fitting = {Standing.REGISTERED} if has_register else {Standing.REGISTERED, Standing.UNREGISTERED}
    findings = [found for found in book.findings() if found.flags or found.standing not in fitting]
    groups = {found.machine: found.place.group for found in book.findings()}
    rows = {name: row for name, row in look.seen.items() if name in groups}
    pools = watch.pools({name: (groups[name], row.pools) for name, row in rows.items()}, day)
    switches = watch.switches(
        {name: (groups[name], row.history) for name, row in rows.items()}, since_ms=now_ms - SWITCHES_DAYS * _DAY_MS
    )
    foreign = has_list and any(pool.verdict in {"unlisted", "lapsed"} for pool in pools)
    wrong = has_register and (counts.unregistered or counts.missing)
    return {
        "ok": not (foreign or wrong or counts.duplicated_keys),
        "register": has_register,
        "accredited_list": has_list,
        "source": look.source,
        "at_ms": look.at_ms,
        "age_s": round((now_ms - look.at_ms) / 1000),
        "counts": asdict(counts),
        "machines": [_machine(found, rows.get(found.machine), look.silent.get(found.machine)) for found in findings],
        "missing": [_entry(entry) for entry in book.missing()] if has_register else [],
        "duplicates": [{"key": key, "machines": list(names)} for key, names in book.duplicates().items()],
        "equipment": [asdict(line) for line in papers.equipment(book)],
        "pools": [asdict(pool) for pool in pools],
        "switches": [_switch(found) for found in switches],
    }


def _machine(found: Finding, row: Seen | None, why: str | None) -> dict[str, Any]:
    return {
        "machine": found.machine,
        "group": found.place.group,
        "address": found.place.address,
        "owner": found.owner,
        "standing": found.standing,
        "flags": list(found.flags),
        "seen": None if found.seen is None else asdict(found.seen),
        "before": None if found.before is None else asdict(found.before),
        "changed_ms": None if row is None else row.changed_ms,
        "last_seen_ms": None if row is None else row.last_ms,
        "entry": None if found.entry is None else _entry(found.entry),
        "also": list(found.also),
        "reason": why,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__struct_fields__}


def _switch(found: SwitchSummary) -> dict[str, Any]:
    return {
        "group": found.group,
        "was": found.was,
        "now": found.now,
        "machines": found.machines,
        "first_seen_ms": found.first_seen_ms,
        "last_seen_old_ms": found.last_seen_old_ms,
        "notice_due": None if found.notice_due is None else found.notice_due.isoformat(),
        "verdicts": [[key, verdict] for key, verdict in found.verdicts],
    }


def _print_report(report: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    counts = report["counts"]
    if not report["register"]:
        console.print("[yellow]no register list is imported: no machine can be called registered or not[/]")
    if not report["accredited_list"]:
        console.print("[yellow]no list of accredited pools is imported; every pool counts as unlisted[/]")
    _print_machines(console, report["machines"], registered=report["register"])
    if report["missing"]:
        names = ", ".join(str(entry["serial"] or entry["mac"]) for entry in report["missing"][:SHOWN])
        unknown = counts["unread"] + counts["unidentified"]
        console.print(
            escape(
                f"missing, in the register and not seen ({counts['missing']}; {unknown} machines could be any): {names}"
            )
        )
    _print_table(
        console,
        "Equipment",
        ("owner", "model", "registered", "seen", "unregistered", "nameplate W", "TH/s"),
        [
            (x["owner"] or "not given", x["model"] or "not given", x["registered"], x["seen"], x["unregistered"],
             _partly(x["nameplate_w"], x["nameplate_known"], x["registered"]),
             _partly(x["nominal_ths"], x["nominal_known"], x["registered"]))
            for x in report["equipment"]
        ],
    )  # fmt: skip
    _print_table(
        console,
        "Pools",
        ("group", "pool", "is", "machines", "works for it"),
        [(x["group"], x["pool"], x["verdict"], x["machines"], "yes" if x["active"] else "no") for x in report["pools"]],
    )
    _print_table(
        console,
        "Pool switches",
        ("group", "from", "to", "machines", "first seen", "notice due by"),
        [
            (x["group"], x["was"], x["now"], x["machines"], _when(x["first_seen_ms"]), x["notice_due"] or "?")
            for x in report["switches"]
        ],
    )
    console.print(
        f"{counts['machines']} machines: {counts['registered']} registered, {counts['unregistered']} unregistered, "
        f"{counts['unidentified']} give no identity, {counts['unread']} not read; {counts['missing']} of "
        f"{counts['entries']} entries missing; {counts['duplicated_keys']} numbers twice; "
        f"as of {_when(report['at_ms'])}"
    )


def _print_machines(console: Console, machines: list[dict[str, Any]], *, registered: bool) -> None:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for found in machines:
        plain = found["standing"] == Standing.REGISTERED or (not registered and found["standing"] == "unregistered")
        for kind in (*(() if plain else (found["standing"],)), *found["flags"]):
            kinds.setdefault(str(kind), []).append(found)
    for kind, rows in kinds.items():
        shown = ", ".join(_named(found) for found in rows[:SHOWN])
        more = f" … and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        console.print(f"[yellow]{kind}[/] ({len(rows)}): {escape(shown)}{more}", soft_wrap=True)


def _named(found: Mapping[str, Any]) -> str:
    said = found["seen"] or {}
    name = said.get("serial") or said.get("mac")
    return f"{found['machine']} [{name}]" if name else str(found["machine"])


def _print_table(console: Console, title: str, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console.print(table)


def _partly(value: float | None, known: int, whole: int) -> str:
    if value is None:
        return "not given"
    return f"{value:,.0f}" + ("" if known == whole else f" (of {known})")


def _when(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at_ms / 1000)) + " UTC"
