"""Bodies of ``tizgin central vee`` and ``tizgin central reading``."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tizgin.commands._central_store import opened_store
from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

if TYPE_CHECKING:
    from central.vee.book import Run
    from central.vee.judge import Verdict
    from config.central import Central

SOURCES = ("system_operator", "grid_company", "inspector")


@dataclass(frozen=True, slots=True)
class OutsideReading:
    """What a person types in. Times are epoch s, energy whole Wh."""

    site: str
    point: str
    begin: int
    end: int
    wh: int
    source: str
    act: str
    who: str


def judge_period(
    settings: Central, base: Path, site: str, period: tuple[int, int], version: int | None, dry: bool, as_json: bool
) -> int:
    """Judge, append, print; 1 where something fails or is suspect."""
    import sqlalchemy as sa

    from central.errors import CentralError
    from central.paths import Paths
    from central.registers import registrar_keys, stored_site
    from central.store.database import reading, writing
    from central.vee.asking import at_least, known_lines
    from central.vee.book import append, check
    from central.vee.copies import Copies
    from central.vee.daily import judged
    from central.vee.limits import CURRENT, load
    from wire.errors import BadKey
    from wire.keys import SigningKey

    paths = Paths.of(settings, base)
    k_col, copies = paths.k_col, Copies(paths.verdict_copies)
    try:
        key = SigningKey.from_pem(k_col.read_bytes())
    except (BadKey, OSError) as error:
        raise UserError(f"{k_col}: {error}; run 'tizgin central init' first") from None
    own = next((s for s in settings.sites if s.id == site), None)
    base_w = {point: round(kw * 1000) for point, kw in own.base_kw.items()} if own else {}
    run: Run | None = None
    now_ms = time.time_ns() // 1_000_000
    with opened_store(settings, base, update=True) as engine:
        with reading(engine) as connection:
            entry = stored_site(connection, site, registrar_keys(settings.registrar_keys))
            slots, verdict = judged(connection, entry, *period, version or CURRENT, base_w)
        if not dry:
            limits = load(version or CURRENT)
            try:
                known = known_lines(settings.witnesses, site, key.public)
            except CentralError as error:
                raise UserError(f"{error}. Nothing was added; --dry judges without adding") from None
            try:
                with writing(engine) as connection:
                    copies.level(connection, site, key, now_ms)
                    at_least(site, check(connection, site, key.public), known)
                    run = append(connection, slots, verdict, limits, key, now_ms)
                with reading(engine) as connection:
                    copies.add(connection, site)
            except OSError as error:
                raise UserError(f"{copies.path(site)}: {error}; the verdict itself is in the database") from None
            except sa.exc.IntegrityError:
                raise UserError("central added to the log in the same moment; run the command again") from None
    _print(site, period, version or CURRENT, verdict, run, as_json)
    return EXIT_PROBLEM if verdict.worst() in {"fail", "suspect"} else 0


def _print(site: str, period: tuple[int, int], version: int, verdict: Verdict, run: Run | None, as_json: bool) -> None:
    if as_json:
        doc: dict[str, Any] = {
            "site": site,
            "from": period[0],
            "to": period[1],
            "thresholds": version,
            "judged": verdict.judged,
            "findings": [
                asdict(f) | {"evidence": list(f.evidence), "params": dict(f.params)} for f in verdict.findings
            ],
            "not_judged": [asdict(u) for u in verdict.unjudged],
            "log": None if run is None else {"n": run.n, "size": run.size, "checkpoint": run.note.decode()},
        }
        typer.echo(json.dumps(doc, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    from wire.rollup import period_of

    table = Table("rule", "severity", "point", "from, Kazakhstan time", "hours", "seen", "expected", "", "what")
    for f in verdict.findings:
        told = " ".join(f"{name}={value}" for name, value in f.params.items())
        table.add_row(
            f.rule, f.severity, f.point, period_of(f.t0, "hour").name, f"{(f.t1 - f.t0) / 3600:g}",
            "" if f.seen is None else str(f.seen), "" if f.expected is None else str(f.expected),
            f.unit, f"{f.text} {told}".strip(),
        )  # fmt: skip
    Console().print(table)
    for (rule, why), count in sorted(Counter((u.rule, u.why) for u in verdict.unjudged).items()):
        typer.echo(f"{rule}: not judged at {count} points: {why}")
    if run is not None:
        typer.echo(f"log of verdicts: run {run.n}, {run.size} lines")


def enter_reading(settings: Central, base: Path, told: OutsideReading) -> None:
    """Keep a reading.

    Raises:
        UserError: it cannot be one; the message says why.
    """
    import sqlalchemy as sa

    from central.energy import points_of
    from central.registers import registrar_keys, stored_site
    from central.store.database import writing
    from central.store.schema import outside_readings

    if told.source not in SOURCES:
        raise UserError(f"--source {told.source!r}: expected one of {', '.join(SOURCES)}", exit_code=EXIT_WRONG_USE)
    for name, text in (("--act", told.act), ("--who", told.who)):
        if not 0 < len(text.strip()) <= 100:
            raise UserError(f"{name} {text[:40]!r}: expected 1 to 100 characters", exit_code=EXIT_WRONG_USE)
    with opened_store(settings, base, update=True) as engine, writing(engine) as connection:
        slot_s = stored_site(connection, told.site, registrar_keys(settings.registrar_keys)).slot_s
        if told.begin >= told.end or told.begin % slot_s or told.end % slot_s or told.wh > 2**53 - 1:
            raise UserError(
                f"reading {told.begin}/{told.end}: expected begin before end, both on the grid of {slot_s} s",
                exit_code=EXIT_WRONG_USE,
            )
        known = points_of(connection, told.site)
        if told.point not in known:
            raise UserError(f"--point {told.point!r}: site {told.site} has sent slots of {', '.join(known) or 'none'}")
        row = {
            "site": told.site,
            "point": told.point,
            "from_s": told.begin,
            "to_s": told.end,
            "wh": told.wh,
            "source": told.source,
            "act": told.act.strip(),
            "entered_by": told.who.strip(),
            "entered_at": time.time_ns() // 1_000_000,
        }
        connection.execute(sa.insert(outside_readings), [row])
    typer.echo(f"{told.site} {told.point}: {told.wh} Wh by {told.source}, act {told.act}")
