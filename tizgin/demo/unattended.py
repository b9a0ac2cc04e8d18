"""The unattended demo after its start: orders, slots, drain, evidence, count, report."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tizgin.demo.count import Count, EdgeFiles, count
from tizgin.demo.errors import DemoError
from tizgin.demo.plan import BOARDS
from tizgin.demo.processes import module_command, tizgin_command
from tizgin.demo.register import GRID_COMPANY, SYSTEM_OPERATOR
from tizgin.demo.report import Figures, Verified
from tizgin.demo.sites import SLOT_S
from tizgin.demo.start import Demo

ORDERS_S = 240.0
AGENT_STOP_S = 15.0
DRAIN_S = 10.0
BUNDLE_S = 60.0
VERIFY_EXITS = (0, 1, 2, 3)
WITNESSED_S = 30.0
SLOT_MARGIN_S = 2.5
"""After a boundary: the reading may take a tenth of the slot, the record has to be on its way."""
STAGE_PERMILLE, STAGE_DELAY_S = 500, 2
Period = tuple[int, int]


@dataclass(slots=True)
class Outcome:
    """What an unattended run found out; a part that failed leaves its mark in ``problems`` and the rest goes on."""

    orders: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    readings: dict[str, list[str]] = field(default_factory=dict)
    """Site → files with the grid operator's own readings."""
    counted: Count | None = None
    verified: list[Verified] = field(default_factory=list)


def waves(sites: Sequence[str]) -> list[dict[str, str]]:
    """Site → action per wave: a limit and a stop at different sites at once, one after the other at a single site."""
    if len(sites) == 1:
        return [{sites[0]: "limit"}, {sites[0]: "stop"}]
    return [{site: "stop" if index % 2 else "limit" for index, site in enumerate(sites)}]


async def run(demo: Demo, report: Path) -> Outcome:
    """Everything after the start. The bundle and the trust file are written beside the report.

    Raises:
        DemoError: it cannot go on at all.
    """
    outcome = Outcome()
    await _orders(demo, outcome)
    until_s = await _whole_slot(demo)
    await _witnessed(demo, outcome)
    demo.say("stopping the agents; what they still have goes to central")
    for child in demo.agents.values():
        child.require_running("although nobody stopped it")
    await demo.processes.stop(*demo.agents.values(), within_s=AGENT_STOP_S)
    await demo.processes.stop(*demo.simulators.values())
    left = await drained(demo, DRAIN_S)
    if left:
        outcome.problems.append(f"not drained within {DRAIN_S:g} s: {left}")
    await _evidence(demo, report, outcome, until_s)
    if demo.central is not None:
        await demo.processes.stop(demo.central, within_s=AGENT_STOP_S)
    outcome.counted = await asyncio.to_thread(
        count, edges(demo), demo.folder.central_data / "central.db", demo.folder.central_data / "telemetry.duckdb"
    )
    total = outcome.counted.total
    demo.say(
        f"counted {total.edge} at the edge and {total.central} at central: "
        f"{total.lost} lost, {total.duplicated} duplicated"
    )
    return outcome


def edges(demo: Demo) -> list[EdgeFiles]:
    """The agents' databases."""
    states = {plan.id: demo.folder.site(plan.id).state for plan in demo.plans}
    return [EdgeFiles(site, state / "ledger.db", state / "bulk.db") for site, state in states.items()]


def figures(demo: Demo, duration_s: float) -> Figures:
    """For the report."""
    return Figures(
        sites=len(demo.plans),
        asics=demo.asics,
        meters=demo.meters,
        duration_s=duration_s,
        time_scale=demo.size.time_scale,
        slot_s=SLOT_S,
        restore_stage_s=STAGE_DELAY_S,
    )


async def _orders(demo: Demo, outcome: Outcome) -> None:
    """The dispatcher's process does its work; what it says is passed on."""
    folder, pki = demo.folder.dispatcher, demo.folder.central_data / "pki"
    names = [plan.id for plan in demo.plans]
    plan = {
        "central": demo.api_url,
        "register": str(demo.folder.register),
        "registrar": demo.registrar_key,
        "keys": [str(demo.key_file(SYSTEM_OPERATOR)), str(demo.key_file(GRID_COMPANY))],
        "folder": str(folder),
        "stage_permille": STAGE_PERMILLE,
        "stage_delay_s": STAGE_DELAY_S,
        "waves": waves(names),
        "feeders": {name: [f"M1{number}" for number in range(1, BOARDS + 1)] for name in names},
        "doors": {name: demo.controls[name] for name in names},
        "boundary": {name: ["M1", "M2"] for name in names},
        "slot_s": SLOT_S,
        "broker": {
            "host": "127.0.0.1",
            "port": demo.broker_port,
            "ca": str(pki / "ca.pem"),
            "cert": str(pki / "collector.pem"),
            "key": str(pki / "collector.key"),
        },
    }
    asked, answered = folder / "plan.json", folder / "result.json"
    asked.write_text(json.dumps(plan), encoding="utf-8")
    command = module_command("tizgin.demo.dispatcher", str(asked), str(answered))
    child = await demo.processes.start("dispatcher", command, cwd=folder)
    said = 0
    end = time.monotonic() + ORDERS_S
    while True:
        running = child.running
        lines = child.out.read_text(encoding="utf-8").splitlines()
        for line in lines[said:]:
            demo.say(f"dispatcher: {line}")
        said = len(lines)
        if not running:
            break
        if time.monotonic() > end:
            raise DemoError(f"the dispatcher was not done within {ORDERS_S:g} s; its log is {child.log}")
        gone = demo.processes.ended()
        if gone is not None and gone is not child:
            gone.require_running("in the middle of the run")
        await asyncio.sleep(0.1)
    child.stopping = True
    if not answered.exists():
        raise DemoError(f"the dispatcher left no result; its log is {child.log}\n{child.last_words()}")
    result = json.loads(answered.read_text(encoding="utf-8"))
    outcome.orders, outcome.refused = result["orders"], result["refused"]
    outcome.problems += result["problems"]
    outcome.readings = result["readings"]


async def _whole_slot(demo: Demo) -> int:
    """Wait until the slot in which the last order ended is closed and on its way; returns its end, epoch seconds."""
    end_s = (int(time.time()) // SLOT_S + 1) * SLOT_S
    wait = end_s - time.time() + SLOT_MARGIN_S
    demo.say(f"waiting {wait:.0f} s for the end of a slot")
    await asyncio.sleep(wait)
    return end_s


async def _witnessed(demo: Demo, outcome: Outcome) -> None:
    """Wait until the quorum has cosigned a checkpoint over every slot that is recorded by now."""
    wanted = {edge.site: await asyncio.to_thread(_slots_end, edge.ledger) for edge in edges(demo)}
    deadline = time.monotonic() + WITNESSED_S
    for edge in edges(demo):
        while await asyncio.to_thread(_cosigned, edge.ledger) < wanted[edge.site]:
            if time.monotonic() > deadline:
                outcome.problems.append(f"{edge.site}: not cosigned within {WITNESSED_S:g} s")
                return
            await asyncio.sleep(0.2)


def _slots_end(ledger: Path) -> int:
    """Place in the log after the newest record of a slot."""
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        return int(db.execute("SELECT coalesce(max(idx), 0) FROM record WHERE ty IN ('interval', 'gap')").fetchone()[0])


def _cosigned(ledger: Path) -> int:
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        return int(db.execute("SELECT coalesce(max(size), 0) FROM cosigned").fetchone()[0])


# drain ----------------------------------------------------------------------------------------------------------------


def _held(edge: EdgeFiles) -> dict[str, int]:
    """What one agent has on its disk: records, batches, values."""
    with closing(sqlite3.connect(f"{edge.ledger.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        records = db.execute("SELECT count(*) FROM record").fetchone()[0]
    with closing(sqlite3.connect(f"{edge.bulk.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        batches, values = db.execute("SELECT count(*), coalesce(sum(cells), 0) FROM batch").fetchone()
    return {"records": int(records), "batches": int(batches), "values": int(values)}


async def drained(demo: Demo, within_s: float) -> dict[str, Any]:
    """Wait until central counts for every site what its agent has; returns what still differs."""
    end = time.monotonic() + within_s
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        while True:
            differs: dict[str, Any] = {}
            for edge in edges(demo):
                here = await asyncio.to_thread(_held, edge)
                there = await _counted(client, demo.api_url, edge.site, here)
                if there != here:
                    differs[edge.site] = {"edge": here, "central": there}
            if not differs or time.monotonic() > end:
                return differs
            await asyncio.sleep(0.2)


async def _counted(client: httpx.AsyncClient, url: str, site: str, names: Iterable[str]) -> dict[str, Any]:
    """The same figures as central counts them now; nulls where it does not answer."""
    try:
        found = (await client.get(f"{url}/api/v1/counts", params={"site": site})).json()
    except (httpx.HTTPError, ValueError):
        found = {}
    return {name: found.get(name) for name in names}


# evidence -------------------------------------------------------------------------------------------------------------


async def _evidence(demo: Demo, report: Path, outcome: Outcome, until_s: int) -> None:
    """A bundle per site over its whole slots, and the verifier on each."""
    trust = report.with_name(f"{report.stem}.trust.json")
    collector = await _collector_key(demo)
    body = {"v": 1, "registrar": [demo.registrar_key], "collector": [collector]}
    trust.write_text(json.dumps(body) + "\n", encoding="utf-8")

    async def one(site: str) -> Verified:
        first, last = await asyncio.to_thread(whole_slots, demo.folder.central_data / "central.db", site)
        last = min(last, until_s)
        bundle, period = report.with_name(f"{report.stem}.{site}.zip"), f"{first}/{last}"
        config = str(demo.folder.central_config)
        await demo.tizgin(
            "central", "bundle", "--config", config, "--site", site, "--period", period, "--out", str(bundle), "--json"
        )
        own = [report.with_name(f"{report.stem}.{Path(file).name}") for file in outcome.readings.get(site, [])]
        for file, kept in zip(outcome.readings.get(site, []), own, strict=True):
            await asyncio.to_thread(shutil.copyfile, file, kept)
        given = [part for file in own for part in ("--independent", str(file))]
        command = tizgin_command(
            "verify", str(bundle), "--trust", str(trust), "--period", period, *given, "--json", "-"
        )
        status, out = await demo.processes.run(
            f"tizgin verify {bundle.name}", command, cwd=demo.folder.root, timeout_s=BUNDLE_S, good=VERIFY_EXITS
        )
        found = json.loads(out)
        if status != 0:
            said = found.get("errors") or found.get("doubts")
            outcome.problems.append(f"{site}: the verifier ends with {status}: {said}"[:2000])
        points = found.get("points") or {}
        grade_a = sum(point["grades"].get("A", 0) for point in points.values())
        if not grade_a:
            outcome.problems.append(f"{site}: no slot of grade A with the grid operator's own readings")
        demo.say(
            f"{site}: verifier exit {status}, {found.get('records')} records, {(last - first) // SLOT_S} slots, "
            f"{grade_a} of grade A by the grid operator's own readings"
        )
        return Verified(site, status, int(found.get("records") or 0), bundle, trust, period, tuple(own), grade_a)

    results = await asyncio.gather(*(one(plan.id) for plan in demo.plans), return_exceptions=True)
    for result in results:
        if isinstance(result, Verified):
            outcome.verified.append(result)
        elif isinstance(result, DemoError):
            outcome.problems.append(str(result))
        elif isinstance(result, BaseException):
            raise result


async def _collector_key(demo: Demo) -> str:
    """Public half of central's bundle key, as central's operator would read it to the regulator."""
    from grid.keystore import load_key

    file = demo.folder.central_data / "pki" / "k_col.pem"
    return (await asyncio.to_thread(load_key, file, environment={})).public.text


def whole_slots(central_db: Path, site: str) -> Period:
    """[first, last) in epoch seconds: the slots that every metering point of a site has an interval or gap for.

    Raises:
        DemoError: there is no such slot.
    """
    query = "SELECT mp, min(t0_s), max(t1_s) FROM intervals WHERE site = ? GROUP BY mp"
    with closing(sqlite3.connect(f"{central_db.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        rows = db.execute(query, (site,)).fetchall()
    first, last = max((r[1] for r in rows), default=0), min((r[2] for r in rows), default=0)
    if first >= last:
        raise DemoError(f"{site}: central has no whole slot of all metering points; it has {rows}")
    return int(first), int(last)


def summary(report: Mapping[str, Any]) -> dict[str, object]:
    """The lines a person reads at the end."""
    rows: dict[str, object] = {}
    for order in report["orders"]:
        rows[f"{order['site']} {order['action']}"] = (
            f"{order['before_kw']} -> {order['after_kw']} kW (limit {order['limit_kw']}), {order['state']}, "
            f"confirmed in {order['confirmed_ms']} ms, opened {', '.join(order['escalated']) or 'nothing'}, "
            f"{'returned' if order['restored'] else 'NOT returned'}"
        )
    rows["refused"] = ", ".join(entry["why"] for entry in report["refused"]) or "nothing"
    rows["lost, duplicated"] = f"{report['lost']}, {report['duplicated']} of {report['telemetry_rows']} values"
    rows["verifier"] = ", ".join(f"{v['site']}: exit {v['exit']}" for v in report["verifiers"]) or "did not run"
    for problem in report["problems"]:
        sys.stderr.write(f"problem: {problem}\n")
    return rows
