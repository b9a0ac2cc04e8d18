"""The ``tizgin`` command: finds the sub-command, imports only that one, turns errors into lines and exit codes.

Every sub-command is a module of :mod:`tizgin.commands` that exposes ``app: typer.Typer``. The table below names them
with their one line of help, so ``tizgin --help`` imports none; a name whose module is absent is not offered. A
command returns ``None`` (ok) or its exit code, or raises :class:`tizgin.errors.UserError`.

Exit codes: 0 ok, 1 found a problem, 2 wrong use, 130 interrupted. ``tizgin verify`` has verdicts of its own on 0 to
3; its wrong use, and anything else that kept it from a verdict, is 4. ``TIZGIN_DEBUG=1`` shows the traceback of an
unexpected error.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, NamedTuple

import typer
import typer.core

from tizgin import __version__
from tizgin.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_PROBLEM, EXIT_WRONG_USE, UserError

OWN_PACKAGES = frozenset({"agent", "central", "config", "drivers", "grid", "simulator", "tizgin", "verifier", "wire"})


class CommandSpec(NamedTuple):
    """Where a sub-command lives, what it is for, and its exit codes for wrong use and for an unexpected error."""

    module: str
    help: str
    wrong_use: int = EXIT_WRONG_USE
    failure: int = EXIT_PROBLEM


COMMANDS: Mapping[str, CommandSpec] = {
    "demo": CommandSpec("tizgin.commands.demo", "Whole sites, central and a dispatcher on this machine."),
    "agent": CommandSpec("tizgin.commands.agent", "The on-site agent: check, enrol, run, act, tag, status."),
    "central": CommandSpec("tizgin.commands.central", "The collector: init, enrol, run, evidence bundles."),
    "simulate": CommandSpec("tizgin.commands.simulate", "A site's devices as real servers, from its site file."),
    "profile": CommandSpec("tizgin.commands.profile", "Device profiles: list, show, test, decode, schema, new."),
    "probe": CommandSpec("tizgin.commands.probe", "Ask one device who it is and what it says."),
    "scan": CommandSpec("tizgin.commands.scan", "Find the devices on a line or in a network."),
    "read": CommandSpec("tizgin.commands.read", "Read one device of the site file once."),
    "order": CommandSpec("tizgin.commands.order", "The dispatcher's side: make keys, sign, send, watch orders."),
    "gateway": CommandSpec("tizgin.commands.gateway", "The grid operator's gateway to its own systems."),
    "witness": CommandSpec("tizgin.commands.witness", "Cosign the sites' checkpoints, so none can be rewritten."),
    "registrar": CommandSpec("tizgin.commands.registrar", "Sign who may order what, and the reserved kW."),
    "verify": CommandSpec(
        "tizgin.commands.verify", "Check an evidence bundle off line, trusting nobody.", wrong_use=4, failure=4
    ),
}


def available(commands: Mapping[str, CommandSpec]) -> dict[str, CommandSpec]:
    """Those sub-commands whose module exists, in the table's order, found without importing them."""
    return {name: spec for name, spec in commands.items() if find_spec(spec.module) is not None}


def load(name: str, spec: CommandSpec) -> Any:
    """Import a sub-command's module and give its command (of a class private to typer, hence Any).

    Raises:
        UserError: a library it needs is not installed, because an extra was left out.
        TypeError: the module exposes no ``app: typer.Typer``.
    """
    try:
        module = import_module(spec.module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not missing or missing.partition(".")[0] in OWN_PACKAGES:
            raise  # a fault of ours, not an extra left out
        raise UserError(
            f"the library {missing!r} is not installed, and 'tizgin {name}' needs it: "
            "install the extra that brings it, for example 'pip install tizgin[central,grid]'",
            exit_code=spec.failure,
        ) from error
    app = getattr(module, "app", None)
    if not isinstance(app, typer.Typer):
        raise TypeError(f"{spec.module}.app is {type(app).__name__}, expected typer.Typer")
    return typer.main.get_command(app)


def lazy_group(commands: Mapping[str, CommandSpec]) -> type[typer.core.TyperGroup]:
    """A group class over ``commands`` that imports a sub-command when it is called, and only that one."""

    # The contexts' base class is private to typer, hence Any.
    class LazyGroup(typer.core.TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is typer's
            return list(available(commands))

        def get_command(self, ctx: Any, cmd_name: str) -> typer.core.TyperCommand | None:  # noqa: ARG002 - as above
            # Asked by help and completion, which need a name and a line: nothing is imported.
            spec = available(commands).get(cmd_name)
            return None if spec is None else typer.core.TyperCommand(cmd_name, callback=_nothing, help=spec.help)

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
            # Asked when a sub-command is to run, or its own help or completion is wanted.
            offered = available(commands)
            name = args[0]
            if name in offered:
                return name, load(name, offered[name]), args[1:]
            if not ctx.resilient_parsing:
                near = get_close_matches(name, offered, n=1)
                hint = f", did you mean {near[0]!r}?" if near else f": expected one of {', '.join(offered)}"
                ctx.fail(f"there is no command {name!r}{hint}")
            return None, None, args[1:]

    return LazyGroup


def _nothing() -> None:
    """Stands in for a command that is listed and not loaded."""


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tizgin {__version__}")
        raise typer.Exit


def make_app(commands: Mapping[str, CommandSpec] = COMMANDS) -> typer.Typer:
    """The whole command line over a table of sub-commands."""
    app = typer.Typer(
        name="tizgin",
        cls=lazy_group(commands),
        help="Telemetry, curtailment and proof of consumption for mining data centres.",
        epilog="Example: tizgin demo --sites 2 --asics 500",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_show_version)
        ] = False,
    ) -> None:
        pass

    return app


def run(arguments: Sequence[str], commands: Mapping[str, CommandSpec] = COMMANDS) -> int:
    """Run one command line and return its exit code. Errors become a line on standard error; none is raised."""
    spec = commands.get(next((word for word in arguments if not word.startswith("-")), ""))
    wrong_use, failure = (EXIT_WRONG_USE, EXIT_PROBLEM) if spec is None else (spec.wrong_use, spec.failure)
    try:
        command = typer.main.get_command(make_app(commands))
        result = command.main(args=list(arguments), prog_name="tizgin", standalone_mode=False)
    except UserError as error:
        return _complain(f"tizgin: {error}", error.exit_code)
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "tizgin")
        message = error.format_message()
        if not message:  # called without any argument: typer has printed the help
            return wrong_use
        wrong = error.exit_code == EXIT_WRONG_USE
        return _complain(f"{path}: {message} ('{path} --help' tells more)", wrong_use if wrong else failure)
    except typer.Abort:
        return _complain("tizgin: aborted", failure)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # the last line of defence of a terminal program
        if os.environ.get("TIZGIN_DEBUG") == "1":
            traceback.print_exc()
            return failure
        said = " ".join(str(error).split()) or "no message"
        return _complain(
            f"tizgin: unexpected {type(error).__name__}: {said} (TIZGIN_DEBUG=1 shows where)",
            failure,
        )
    return result if isinstance(result, int) else EXIT_OK


def _complain(line: str, exit_code: int) -> int:
    typer.echo(line, err=True)
    return exit_code


def main() -> None:
    """Entry point of the ``tizgin`` command; leaves by ``SystemExit``."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
