"""``tizgin verify``: the offline checker. Imports the verifier and nothing else of the product."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check an evidence bundle off line, trusting nobody.")


@app.command(epilog="Example: tizgin verify ekb-01.zip --trust trust.json --period 2026-10-01T00:00Z/2026-11-01T00:00Z")
def verify(
    bundle: Annotated[Path, typer.Argument(help="The evidence bundle.", show_default=False)],
    trust: Annotated[Path, typer.Option(help="Trust file: the registrar's and the collector's public keys.")],
    period: Annotated[str, typer.Option(help="A/B, ISO 8601 (UTC) or seconds since the epoch.")],
    site: Annotated[str | None, typer.Option(help="The site that the bundle must be of.")] = None,
    head: Annotated[
        Path | None, typer.Option(help="The log's newest checkpoint, as a witness gave it to you: shows a cut end.")
    ] = None,
    independent: Annotated[
        list[Path] | None,
        typer.Option(help="The system operator's own reading of a meter, signed; again for each.", dir_okay=False),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes that check at once.")] = 1,
    json_to: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; - for standard output.")
    ] = None,
) -> int:
    """Check an evidence bundle off line, trusting nobody.

    Exit codes: 0 intact and complete, 1 visible gaps, 2 integrity failure, 3 cannot verify, 4 wrong use.
    """
    from verifier.cli import run

    return run(bundle, trust, period, site, json_to, head, jobs, independent or [])
