"""``tizgin probe``: ask one address who is there and what it says. Nothing is ever written."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any

import typer

from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

app = typer.Typer(help="Ask one device who it is and what it says.")


@app.command(epilog="Example: tizgin probe modbus://192.0.2.7:502/1 --profile eastron-sdm630")
def probe(
    url: Annotated[
        str,
        typer.Argument(
            help="modbus://host:port/unit, rtu:///dev/ttyUSB0?baud=9600/unit, rtutcp://host:port/unit, "
            "asic://host[:port] or snmp://host[:port]?cred=NAME",
            show_default=False,
        ),
    ],
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="ID", help="Expect this device model (asic: this family).")
    ] = None,
    guess: Annotated[bool, typer.Option("--guess", help="Try all models; the default without --profile.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int | None:
    """Ask one device who it is and what it says. Exit 1 where nothing answers."""
    if profile is not None and guess:
        raise UserError("--profile and --guess: seen both, expected one of them", exit_code=EXIT_WRONG_USE)
    import structlog

    from drivers.errors import ProfileError

    # Standard output carries the result alone.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        result = asyncio.run(_dispatch(url, profile))
    except (ValueError, ProfileError) as error:
        raise UserError(str(error), exit_code=EXIT_WRONG_USE) from error
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _text(result))
    return None if result.get("responds", True) else EXIT_PROBLEM


async def _dispatch(url: str, profile: str | None) -> dict[str, Any]:
    scheme = url.partition("://")[0]
    if scheme in {"modbus", "rtu", "rtutcp"}:
        from drivers.modbus.probe import probe as ask_modbus

        return await ask_modbus(url, profile)
    if scheme == "snmp":
        from drivers.snmp.probe import probe as ask_snmp

        return await ask_snmp(url, profile)
    if scheme == "asic":
        from drivers.asic.probe import probe as ask_asic

        return await ask_asic(url, family=profile)
    raise ValueError(f"seen scheme {scheme[:20]!r}, expected modbus, rtu, rtutcp, asic or snmp")


def _text(result: dict[str, Any]) -> str:
    if not result.get("responds", True):
        return f"no answer: {result.get('reason', 'unknown')}"
    lines = []
    for key, value in result.items():
        if key == "points" and isinstance(value, dict):
            lines += [f"  {name:30}{_value(point)}" for name, point in value.items()]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}")
    return "\n".join(lines)


def _value(point: dict[str, Any]) -> str:
    return f"{'-' if point['value'] is None else point['value']!s:>16}  {point['quality']}"
