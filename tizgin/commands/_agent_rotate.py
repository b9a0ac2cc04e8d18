"""Body of ``tizgin agent rotate``: ask the running agent for a change of key, and say what the registrar enters."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

import typer

from agent.errors import AgentError
from agent.inbox import hand_in
from tizgin.commands._agent_run import read_site
from tizgin.commands._registrar_entry import of_change
from tizgin.errors import EXIT_OK, EXIT_PROBLEM, EXIT_WRONG_USE, UserError
from wire.rotation import read_change

ROLES = {"record": "k_rec", "log": "k_log"}
WAIT_S = 75.0
"""A token makes a key and signs three times, each within its own limit."""


def rotate_key(path: Path, role: str, who: str, records: int | None, out: Path | None, to: str | None) -> int:
    """Ask for the change. Writes the document for the registrar; returns the exit code."""
    if role not in ROLES:
        raise UserError(f"--role {role!r}: expected record or log", exit_code=EXIT_WRONG_USE)
    if to not in (None, "file", "token"):
        raise UserError(f"--to {to!r}: expected file or token", exit_code=EXIT_WRONG_USE)
    order = {"ty": "rotate", "role": ROLES[role], "who": who, "records": records, "to": to}
    state = path.resolve().parent / read_site(path).agent.state_dir
    try:
        name = f"rotate-{secrets.token_hex(4)}"
        good, text = asyncio.run(hand_in(state, name, json.dumps(order).encode(), wait_s=WAIT_S))
    except (AgentError, OSError) as error:
        raise UserError(str(error)) from None
    if not good:
        typer.echo(text, err=True)
        return EXIT_PROBLEM
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")
    typer.echo(f"for the registrar: {of_change(read_change(text.encode()))}", err=True)
    return EXIT_OK
