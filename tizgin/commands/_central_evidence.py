"""Bodies of ``tizgin central bundle`` and ``tizgin central energy``."""

from __future__ import annotations

import json
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from central import bundle as bundles
from central import energy as sums
from central.paths import Paths
from central.registers import registrar_keys, stored_site
from central.store.database import reading
from config.central import Central
from tizgin import __version__
from tizgin.commands._central_store import opened_store
from tizgin.errors import EXIT_PROBLEM, UserError
from wire.errors import BadKey
from wire.keys import SigningKey
from wire.rollup import Unit


def write_bundle(
    settings: Central, base: Path, site: str, period: tuple[int, int], out: Path, *, as_json: bool
) -> None:
    """Build a bundle, write it and say what is in it.

    Raises:
        UserError: no store, no key, or a period that is not whole there.
    """
    first, last = period
    with opened_store(settings, base) as engine:
        try:
            key = SigningKey.from_pem(Paths.of(settings, base).k_col.read_bytes())
            out.parent.mkdir(parents=True, exist_ok=True)
            with reading(engine) as connection:
                made = bundles.build(
                    connection,
                    site,
                    bundles.Period(first, last),
                    key,
                    registrar_keys(settings.registrar_keys),
                    tool=f"tizgin/{__version__}",
                    now_ms=time.time_ns() // 1_000_000,
                    folder=out.parent,
                )
            with made:
                size = bundles.write(out, made)
        except (BadKey, OSError) as error:
            raise UserError(str(error)) from None
    facts = {"bundle": str(out), "records": made.records, "streams": made.streams, "points": made.points}
    facts |= {"period": f"{first}/{last}", "collector": key.public.text, "bytes": size}
    typer.echo(json.dumps(facts) if as_json else f"{out}: {made.records} records, {made.points} metering points")


def show_energy(
    settings: Central,
    base: Path,
    site: str,
    points: tuple[str, ...],
    period: tuple[int, int],
    by: Unit,
    *,
    as_json: bool,
) -> int:
    """Sum up and print; 1 where a slot is missing.

    Args:
        points: those asked for; all of the site's where empty.
        by: unit of local time.

    Raises:
        UserError: no store, no such site, or a period that is none.
    """
    with opened_store(settings, base) as engine:
        try:
            with reading(engine) as connection:
                entry = stored_site(connection, site, registrar_keys(settings.registrar_keys))
                points = points or sums.points_of(connection, site)
                found = sums.energy(connection, site, points, entry.slot_s, *period, by, entry)
        except ValueError as error:
            raise UserError(str(error)) from None
    if as_json:
        typer.echo(json.dumps([sums.as_dict(one) for one in found]))
    else:
        _energy_table(found)
    return 0 if all(s.complete for one in found for s in one.sums) else EXIT_PROBLEM


def _energy_table(found: list[sums.PointEnergy]) -> None:
    table = Table(
        "point",
        "period",
        "import, kWh",
        "verified, kWh",
        "by papers, kWh",
        "export, kWh",
        "bridged, kWh",
        "from profile, kWh",
        "method",
        "slots",
        "missing",
    )
    for one in found:
        for at, s in enumerate(one.sums):
            standing = one.standing[at]
            table.add_row(
                one.point,
                s.period.name,
                _kwh(s.import_wh),
                _kwh(standing.verified_wh),
                "; ".join(f"{status.value} {_kwh(wh)}" for status, wh in sorted(standing.status_wh.items())),
                _kwh(s.export_wh),
                _kwh(s.bridged_wh),
                _kwh(s.profile_wh),
                one.method,
                str(s.slots),
                str(len(s.missing)),
            )
    Console().print(table)


def _kwh(wh: int | None) -> str:
    return "not known" if wh is None else f"{wh / 1000:,.3f}".replace(",", " ")
