"""``tizgin gateway``: signs per-site orders of a plan within a mandate of two persons. It gives no load back."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from tizgin.commands._order_common import Json, as_user_errors, ask, now_ms
from tizgin.errors import EXIT_PROBLEM

app = typer.Typer(
    help="The grid operator's gateway: plans of whole zones within a mandate of two persons.",
    no_args_is_help=True,
    epilog="Example: tizgin gateway plan plan.yaml --config gateway.yaml --mandate mandate.json",
)

Config = Annotated[Path, typer.Option("--config", help="gateway.yaml.")]


@app.command()
def run(
    config: Config,
    ready_file: Annotated[Path | None, typer.Option(help="Written when it looks for plans.")] = None,
) -> None:
    """Carry out plans until SIGTERM or Ctrl-C, one at a time in a zone. What was signed is on disk before it is sent.

    Example: tizgin gateway run --config gateway.yaml
    """
    from grid.client import CentralClient
    from grid.gateway.inbox import open_folder
    from grid.gateway.run import Gateway, alone
    from grid.gateway.settings import load_settings
    from grid.keystore import load_key

    _log_to_stderr()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with as_user_errors():
        settings = load_settings(config)
        key = load_key(settings.key, passphrase_file=settings.passphrase_file, environment=os.environ, ask=ask())
        with alone(open_folder(settings.data_dir)), CentralClient(settings.central, timeout_s=3.0) as central:
            gateway = Gateway(settings, key, central, now_ms)
            typer.echo(json.dumps({"gateway": key.kid, "central": settings.central}), err=True)
            if ready_file is not None:
                ready_file.write_text(json.dumps({"kid": key.kid}))
            gateway.run(stop)


def _log_to_stderr() -> None:
    """One JSON object a line on standard error."""
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(help="The plan as YAML.", show_default=False)],
    config: Config,
    mandate: Annotated[Path | None, typer.Option(help="Its mandate; else the one in the settings.")] = None,
    declaration: Annotated[
        Path | None, typer.Option(help="A live emergency declaration, for an unlimited step.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Check it and show the shares; hand nothing over.")
    ] = False,
    json_output: Json = False,
) -> int | None:
    """Check a plan against mandate, register and what the sites draw now; hand it to the running gateway.

    Example: tizgin gateway plan plan.yaml --config gateway.yaml --mandate mandate.json
    """
    from grid.client import CentralClient
    from grid.gateway.inbox import Handed, hand_over
    from grid.gateway.plan import load_plan
    from grid.gateway.preview import preview
    from grid.gateway.settings import load_settings
    from grid.keystore import load_key, read_public
    from grid.powers import power_text
    from grid.registrar.register import load_register
    from tizgin.errors import UserError
    from wire.powers import Declaration, Mandate

    with as_user_errors():
        settings = load_settings(config)
        loaded = load_plan(file, now_ms=now_ms())
        paper, emergency = mandate or settings.mandate, declaration or settings.declaration
        if paper is None:
            raise UserError("a plan needs a mandate: --mandate FILE, made with 'tizgin order mandate'", exit_code=2)
        handed = Handed(loaded, power_text(paper, Mandate), power_text(emergency, Declaration) if emergency else None)
        key = load_key(settings.key, passphrase_file=settings.passphrase_file, environment=os.environ, ask=ask())
        register = load_register(settings.register_file, [read_public(text) for text in settings.registrar])
        with CentralClient(settings.central, timeout_s=3.0) as central:
            seen = preview(handed, key.kid, register, central, now_ms())
        if not check_only:
            hand_over(settings.data_dir, handed)
    if json_output:
        typer.echo(json.dumps(seen | {"handed_over": not check_only}))
        return None
    typer.echo(f"plan {loaded.id}: {seen['total_w'] / 1000:g} kW now, target {seen['target_w'] / 1000:g} kW")
    for row in seen["sites"]:
        what = f"-{row['share_w'] / 1000:g} kW" if row["why"] is None else f"left out: {row['why']}"
        typer.echo(f"  {row['site']}  {row['power_w'] / 1000:g} kW  {what}")
    for text in seen["central"]:
        typer.echo(f"central: {text}")
    if seen["missing_w"]:
        typer.echo(f"{seen['missing_w'] / 1000:g} kW cannot be found now")
    if not check_only:
        typer.echo(f"handed over; watch it: tizgin gateway show --config {config} --plan {loaded.id}")
    return EXIT_PROBLEM if seen["missing_w"] else None


@app.command()
def show(
    config: Config,
    plan_id: Annotated[str | None, typer.Option("--plan", help="Id of a plan; else the newest.")] = None,
    json_output: Json = False,
) -> int | None:
    """Where a plan stands, who did not do his part, and the orders that persons have to release.

    Exits 1 where the plan was refused or falls short.
    Example: tizgin gateway show --config gateway.yaml
    """
    from grid.gateway.preview import story
    from grid.gateway.settings import load_settings

    with as_user_errors():
        found = story(load_settings(config).data_dir, plan_id)
    if json_output:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        _print_story(found)
    return EXIT_PROBLEM if found["state"] in {"refused", "short", "below"} else None


def _print_story(found: dict[str, Any]) -> None:
    from grid.words import local_time

    typer.echo(f"plan {found['plan']}: {found['state']}: {found['text']}")
    for said in found["said"]:
        typer.echo(f"{local_time(said['at'])}  {said['site'] or 'all'}  {said['text']}")
    for row in found["orders"]:
        typer.echo(
            f"  {row['site']}  limit {row['limit_w'] / 1000:g} kW  {row['state'] or 'no answer'}  {row['order']}"
        )
    if found["release"]:
        typer.echo(f"to give the load back, a person with the right: tizgin order release-plan {found['plan']} …")
        typer.echo("or for one site:")
    for row in found["release"]:
        typer.echo(f"  tizgin order sign --action release --site {row['site']} --target {row['order']} …")
