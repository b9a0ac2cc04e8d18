"""What the dispatcher's commands share: options, the register, questions to the person at the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tizgin.errors import EXIT_WRONG_USE, UserError

Key = Annotated[Path, typer.Option("--key", help="The dispatcher's private key (mode 0600).")]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="File (mode 0600) with the key's passphrase; else TIZGIN_KEY_PASSPHRASE.")
]
Keys = Annotated[Path | None, typer.Option("--keys", help="The signed register (keys.json).")]
Registrar = Annotated[str | None, typer.Option("--registrar", help="The registrar's public key: base64, or a file.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts that have shown the order elsewhere.")]
Language = Annotated[str, typer.Option("--lang", help="kk, ru or en.")]
Central = Annotated[str | None, typer.Option("--central", help="Central's address, http(s)://host:port.")]


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Errors of the grid programs as lines for the person."""
    from grid.errors import ComposeError, GridError

    try:
        yield
    except ComposeError as error:
        raise UserError(f"not an order: {error}", exit_code=EXIT_WRONG_USE) from None
    except GridError as error:
        raise UserError(str(error)) from None


def ask() -> Callable[[], str] | None:
    """Asks at a terminal; in a pipe nobody is there to ask."""
    if not sys.stdin.isatty():
        return None
    return lambda: str(typer.prompt("Passphrase of the key", hide_input=True, err=True))


def now_ms() -> int:
    """The wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


def read_register(keys: Path | None, registrar: str | None) -> Any:
    """The verified register, or ``None`` when none was named."""
    from grid.keystore import read_public
    from grid.registrar.register import load_register

    if keys is None:
        return None
    if registrar is None:
        raise UserError("--keys needs --registrar: a register that nobody checked proves nothing", exit_code=2)
    return load_register(keys, [read_public(registrar)])


def agreed(yes: bool) -> bool:
    """Does the person want to sign what was shown?"""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("nobody is there to be asked: run at a terminal, or give --yes", exit_code=EXIT_WRONG_USE)
    if typer.confirm("Sign exactly this?", default=False, err=True):
        return True
    typer.echo("not signed", err=True)
    return False
