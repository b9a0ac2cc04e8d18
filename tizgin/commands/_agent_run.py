"""Bodies of ``tizgin agent run`` and ``enroll``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import structlog
import typer

from agent.app import AgentApp, Started, config_digest
from agent.clock import SystemClock
from agent.errors import AgentError
from agent.hsm.key import TokenKey, token_of
from agent.identity import enrolment, load_keys, make_keys
from agent.ledger import Ledger
from agent.rotation import settle
from config.loader import load_site
from config.problems import ConfigError
from config.site import Site
from drivers.asic.credentials import CredentialError
from tizgin import __version__
from tizgin.commands._agent_check import ProfileCatalogue
from tizgin.commands._registrar_entry import fingerprint
from tizgin.errors import EXIT_OK, UserError


def configure_logs(log_format: str) -> None:
    """Structured logs on standard error."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it dumps frames; failures are logged by our links
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if log_format == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def read_site(path: Path) -> Site:
    """Load a site file or say plainly what is wrong with it."""
    try:
        return load_site(path)
    except ConfigError as error:
        raise UserError(str(error)) from None


def enroll_site(path: Path, out: Path | None) -> int:
    """Make keys and ledger; print the enrolment."""
    configure_logs("text")
    site = read_site(path)
    state = path.parent / site.agent.state_dir
    try:
        token = token_of(site, path.parent)
        make_keys(state, token)
        keys = load_keys(state, token)
        ledger = Ledger.open(
            state / "ledger.db",
            site=site.site.id,
            key=keys.rec,
            clock=SystemClock(site.agent.clock_source),
            fw=f"tizgin/{__version__}",
            successor=keys.next_rec,
        )
        keys = settle(state, keys, ledger)
        epoch = ledger.epoch
        asyncio.run(ledger.close())
        document = enrolment(state, site.site.id, epoch, token)
    except (AgentError, OSError) as error:
        raise UserError(str(error)) from None
    if out is None:
        typer.echo(document.decode())
    else:
        out.write_bytes(document)
        typer.echo(f"fingerprint {json.loads(document)['fingerprint']}  (compare it by another channel)", err=True)
    if isinstance(keys.log, TokenKey):
        place = f"key {keys.log.token.key!r} of token {keys.log.token.label!r}"
        typer.echo(f"log key {fingerprint(keys.log.public)}  ({place})", err=True)
    elif token is not None:
        text = "the log key is a file that was made before; it moves into the token by: tizgin agent rotate --role log"
        typer.echo(text, err=True)
    return EXIT_OK


def run_agent(path: Path, ready_file: Path | None, log_format: str) -> int:
    """Run until SIGINT or SIGTERM."""
    configure_logs(log_format)
    site = read_site(path)
    try:
        app = AgentApp(
            site,
            base=path.resolve().parent,
            config_sha256=config_digest(path),
            version=f"tizgin/{__version__}",
            profiles=ProfileCatalogue(),
        )
        asyncio.run(_run(app, ready_file))
    except (AgentError, CredentialError, OSError) as error:
        raise UserError(str(error)) from None
    except ExceptionGroup as group:
        expected, rest = group.split((AgentError, OSError))
        if rest is not None or expected is None:
            raise
        raise UserError("; ".join(str(e) for e in expected.exceptions)) from None
    return EXIT_OK


async def _run(app: AgentApp, ready_file: Path | None) -> None:
    def ready(started: Started) -> None:
        if ready_file is not None:
            part = ready_file.with_suffix(".part")
            part.write_text(json.dumps(asdict(started) | {"pid": os.getpid()}))
            part.replace(ready_file)

    task = asyncio.create_task(app.run(ready), name="agent")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
