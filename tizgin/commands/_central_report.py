"""``tizgin central report``: the site's signed report of an order, for a person, a program or on paper."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from central.pages.texts import load_all
from central.papers import order_report
from central.papers.pdf import render, verdict_words
from central.paths import write_public
from central.registers import registrar_keys, stored_register
from central.store import orders
from central.store.database import reading
from config.central import Central
from tizgin.commands._central_store import opened_store
from tizgin.errors import EXIT_PROBLEM, UserError
from wire.registry import open_keys

GOOD = frozenset({"obeyed", "not_due"})


def show(settings: Central, base: Path, order: str, pdf: Path | None, language: str, *, as_json: bool) -> int:
    """Print the report and write the PDF; works while central runs, and while it does not.

    Raises:
        UserError: no such order, no database, no register, or no way to make a PDF.
    """
    texts = load_all()
    with opened_store(settings, base) as engine:
        with reading(engine) as connection:
            stored = orders.find(connection, order)
            if stored is None:
                raise UserError(f"no order {order[:60]!r} was posted here; GET /api/v1/orders lists those that were")
            found = order_report.read_report(connection, stored)
            registrar = registrar_keys(settings.registrar_keys)
            register = open_keys(stored_register(connection, stored.site, registrar)[0], registrar)[0]
        if found is not None and pdf is not None:
            site = next((s for s in settings.sites if s.id == stored.site), None)
            name = getattr(site.name, language) if site is not None else stored.site
            try:
                write_public(pdf, render(found, register, texts[language], name)[0])
            except OSError as error:
                raise UserError(str(error)) from None
    if as_json:
        typer.echo(json.dumps(order_report.as_dict(found) if found else order_report.nothing(stored)))
    elif found is None:
        typer.echo(f"order {order}: the site has not reported it (yet)")
    else:
        said = verdict_words(found.fields["verdict"], texts["en"])
        typer.echo(f"order {order}: {said}" + (f"; {pdf}" if pdf else ""))
    return 0 if found is not None and found.fields["verdict"] in GOOD else EXIT_PROBLEM
