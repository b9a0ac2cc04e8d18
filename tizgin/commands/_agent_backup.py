"""Bodies of ``tizgin agent backup``, ``restore`` and ``confirm-positions``."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from pathlib import Path

import typer

from agent import backup as archives
from agent.clock import SystemClock
from agent.errors import AgentError
from agent.hsm.key import token_of
from agent.hsm.process import Token
from agent.identity import LOG, REC, TLS, enrolment, load_keys, make_keys
from agent.ledger import Ledger
from config.loader import load_site
from config.problems import ConfigError
from config.site import Site
from tizgin import __version__
from tizgin.commands._agent_ask import hand
from tizgin.commands._agent_run import configure_logs, read_site
from tizgin.errors import EXIT_OK, EXIT_WRONG_USE, UserError


def make_backup(config: Path, out: Path) -> int:
    """Write the archive. Returns the exit code."""
    site = read_site(config)
    try:
        found = archives.collect(config, site, time.time_ns() // 1_000_000)
        archives.write(found, out, f"tizgin/{__version__}")
    except (AgentError, OSError) as error:
        raise UserError(str(error)) from None
    typer.echo(str(out))
    typer.echo(f"{len(found.files)} files of {found.site}, epoch {found.epoch}; no key and no ledger in it", err=True)
    for name in found.by_hand:
        typer.echo(f"carry by hand, it is a secret: {name}", err=True)
    return EXIT_OK


def restore(file: Path, folder: Path) -> int:
    """Set a new box up from the archive: files, new keys, a new ledger and epoch. Returns the exit code."""
    try:
        found = archives.read(file)
        config = _put_site(found, folder)
        site = load_site(config)
        state = config.resolve().parent / site.agent.state_dir
        _must_be_new(state)
        token = token_of(site, folder)
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        (state / "ledger.epoch").write_text(found.epoch[1:].partition("-")[0])
        epoch = _begin(state, site, token)
        protocols = archives.unpack(found, folder, state, epoch)
        out = folder / "enrolment.json"
        out.write_bytes(enrolment(state, site.site.id, epoch, token))
    except (AgentError, ConfigError, OSError) as error:
        raise UserError(str(error)) from None
    typer.echo(json.dumps({"site": site.site.id, "epoch": epoch, "before": found.epoch, "enrolment": str(out)}))
    _tell(found, config, out, protocols)
    return EXIT_OK


def _put_site(found: archives.Backup, folder: Path) -> Path:
    files = {n.partition("/")[2]: d for n, d in found.files.items() if n.startswith("site/")}
    there = [name for name, data in files.items() if (folder / name).exists() and (folder / name).read_bytes() != data]
    if there:
        raise UserError(f"{folder / there[0]}: is there already with another content; restore into an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    config = folder / found.site_file
    if load_site(config).site.id != found.site:
        raise UserError(f"{config}: is of another site than the archive's {found.site}")
    return config


def _must_be_new(state: Path) -> None:
    for name in ("ledger.db", "ledger.epoch", REC, LOG, TLS):
        if (state / name).exists():
            raise UserError(
                f"{state / name}: this box has a life of its own; a dead box is replaced by a new one. Move the whole "
                "state folder away to begin a new epoch here"
            )


def _begin(state: Path, site: Site, token: Token | None) -> str:
    configure_logs("text")
    make_keys(state, token)
    clock = SystemClock(site.agent.clock_source)
    ledger = Ledger.open(
        state / "ledger.db", site=site.site.id, key=load_keys(state, token).rec, clock=clock, fw=f"tizgin/{__version__}"
    )
    epoch = ledger.epoch
    asyncio.run(ledger.close())
    return epoch


def _tell(found: archives.Backup, config: Path, out: Path, protocols: list[Path]) -> None:
    lines = [f"new keys and a new epoch; nothing of the old box {found.epoch} signs here", f"enrolment: {out}"]
    lines += [f"bring by hand: {name}" for name in found.by_hand]
    lines += [f"a tag hung at {obj} ({whose}): hang it again before anything else" for obj, whose in found.tags.items()]
    lines += [f"to be signed again by two persons: {path}" for path in protocols]
    lines.append(f"then: tizgin agent confirm-positions --config {config}; outputs stay unarmed until it is done")
    for line in lines:
        typer.echo(line, err=True)


def confirm_positions(config: Path, who: str, opened: tuple[str, ...]) -> int:
    """A person at the panels says which switches are open; the agent compares. Returns the exit code."""
    site = read_site(config)
    known = {node.id for node in site.nodes if node.type == "switch"}
    strange = sorted(set(opened) - known)
    if strange or not who.strip():
        what = f"--open {strange[0]}: no such switch in {config.name}" if strange else "--who: empty, expected a name"
        raise UserError(what, exit_code=EXIT_WRONG_USE)
    order = {"ty": "positions", "who": who, "open": sorted(set(opened))}
    return hand(config, f"positions-{secrets.token_hex(4)}", json.dumps(order).encode())
