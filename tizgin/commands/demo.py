"""``tizgin demo``: whole simulated sites, central and a dispatcher on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tizgin.errors import EXIT_OK, EXIT_PROBLEM, EXIT_WRONG_USE, UserError

app = typer.Typer(add_completion=False)
LIVE_PORT = 8080


@app.command(epilog="Example: tizgin demo --sites 2 --asics 500")
def demo(
    unattended: Annotated[bool, typer.Option("--unattended", help="Order, verify and count all by itself.")] = False,
    report: Annotated[Path | None, typer.Option(help="With --unattended: where the report goes, as JSON.")] = None,
    sites: Annotated[int, typer.Option(help="How many sites.")] = 2,
    asics: Annotated[int, typer.Option(help="How many ASICs in all sites together.")] = 200,
    port: Annotated[
        int | None,
        typer.Option(help=f"Port of central's page; default {LIVE_PORT}, unattended a free one.", min=0, max=65535),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Made fresh at each start; default demo-data, unattended a temporary folder."),
    ] = None,
) -> int:
    """Whole sites with real protocols on loopback, central, and a dispatcher's desk, until Ctrl-C.

    With --unattended a dispatcher orders a limit and a stop, sees the meters confirm them, gives the load back, tries
    forged, replayed and expired orders, has the evidence verified, and counts every value at the edge and at central.
    """
    import logging
    import sys

    import structlog

    from tizgin.demo.errors import DemoError
    from tizgin.demo.main import Options, run_live, run_unattended
    from tizgin.demo.screen import Screen

    if unattended != (report is not None):
        raise UserError("--unattended and --report FILE go together", exit_code=EXIT_WRONG_USE)
    options = Options(sites, asics, port if port is not None else 0 if unattended else LIVE_PORT, data_dir, report)
    wrong = options.problem()
    if wrong is not None:
        raise UserError(wrong, exit_code=EXIT_WRONG_USE)
    # Drivers of the commissioning run in this process; what they have to say goes where it disturbs no result.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    screen = Screen()
    try:
        if report is None:
            run_live(options, screen)
            return EXIT_OK
        return EXIT_OK if run_unattended(options, report, screen) else EXIT_PROBLEM
    except DemoError as error:
        raise UserError(f"demo: {error}") from None
