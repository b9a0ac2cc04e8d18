"""``tizgin probe``: ask one address who is there and what it says. Nothing is ever written."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

if TYPE_CHECKING:
    from drivers.asic.credentials import Credentials

app = typer.Typer(help="Ask one device who it is and what it says.")


@app.command(epilog="Example: tizgin probe modbus://192.0.2.7:502/1 --profile eastron-sdm630")
def probe(
    url: Annotated[
        str,
        typer.Argument(
            help="modbus://host:port/unit, rtu:///dev/ttyUSB0?baud=9600/unit, rtutcp://host:port/unit, "
            "asic://host[:port][?http=port&cred=NAME] or snmp://host[:port]?cred=NAME",
            show_default=False,
        ),
    ],
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="ID", help="Expect this device model (asic: this family).")
    ] = None,
    guess: Annotated[bool, typer.Option("--guess", help="Try all models; the default without --profile.")] = False,
    credentials: Annotated[
        str | None,
        typer.Option("--credentials", metavar="NAME", help="asic: log in with these credentials of the site file."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Site file that --credentials is named in.")
    ] = None,
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
        result = asyncio.run(_dispatch(url, profile, credentials, config))
    except (ValueError, ProfileError) as error:
        raise UserError(str(error), exit_code=EXIT_WRONG_USE) from error
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _text(result))
    return None if result.get("responds", True) else EXIT_PROBLEM


async def _dispatch(url: str, profile: str | None, credentials: str | None, config: Path | None) -> dict[str, Any]:
    scheme = url.partition("://")[0]
    if scheme in {"modbus", "rtu", "rtutcp"}:
        from drivers.modbus.probe import probe as ask_modbus

        return await ask_modbus(url, profile)
    if scheme == "snmp":
        from drivers.snmp.probe import probe as ask_snmp

        return await ask_snmp(url, profile)
    if scheme == "asic":
        from drivers.asic.probe import probe as ask_asic

        return await ask_asic(url, family=profile, credentials=_log_in(credentials, config))
    raise ValueError(f"seen scheme {scheme[:20]!r}, expected modbus, rtu, rtutcp, asic or snmp")


def _log_in(name: str | None, config: Path | None) -> Credentials | None:
    """The named log-in of a site file; the secret itself comes from where that file says."""
    if name is None and config is None:
        return None
    if name is None or config is None:
        raise ValueError("--credentials and --config: seen one of them, expected both or neither")
    from config.loader import load_site
    from config.problems import ConfigError
    from drivers.asic.credentials import load_credentials

    try:
        sources = load_site(config).credentials
    except ConfigError as error:
        raise ValueError(str(error)) from error
    if name not in sources:
        known = ", ".join(sorted(sources)) or "none"
        raise ValueError(f"{config}: credentials {name} are not there; seen {known}")
    return load_credentials({name: sources[name]}, base=config.parent)[name]


def _text(result: dict[str, Any]) -> str:
    if not result.get("responds", True):
        return f"no answer: {result.get('reason', 'unknown')}"
    lines = []
    for key, value in result.items():
        if key == "points" and isinstance(value, dict):
            lines += [f"  {name:30}{_value(point)}" for name, point in value.items()]
        elif key == "candidates":
            lines += _ranking(result)
        elif key not in _TOLD_IN_RANKING:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}")
    return "\n".join(lines)


_TOLD_IN_RANKING = frozenset({"indistinguishable", "word_order", "address_shift"})


def _ranking(result: dict[str, Any]) -> list[str]:
    """The guesses with their reasons, and an honest word where they cannot be told apart."""
    lines = []
    for place, row in enumerate(result["candidates"], 1):
        read_as = []
        if row["swapped"]:
            read_as.append(f"with word order {row['word_order'] or 'turned round'}")
        if row["address_shift"]:
            read_as.append(f"with all addresses {row['address_shift']:+d}")
        how = f" {' and '.join(read_as)}" if read_as else ""
        lines.append(f"guess {place}: {row['profile']}{how}, confidence {row['confidence']:.2f}")
        lines += [f"    for      {text}" for text in row["reasons"][:6]]
        lines += [f"    against  {text}" for text in row["against"][:4]]
    if result.get("indistinguishable"):
        lines.append(
            f"these cannot be told apart by what was read: {result.get('profile')}, "
            f"{', '.join(result['indistinguishable'])}; look at the name plate"
        )
    best = result["candidates"][0] if result["candidates"] else None
    if best is not None and result.get("profile"):
        if best["word_order"] is None:
            lines.append("the word order cannot be told by these values: compare an energy with the meter's display")
        if best["also"]:
            lines.append(f"it makes almost as much sense with {'; or with '.join(best['also'])}")
        if best["swapped"] or best["address_shift"]:
            lines.append(
                "the profile does not fit as it is written: check the meter's settings, or write a profile of your own "
                "(tizgin profile new) with what is said above"
            )
    return lines


def _value(point: dict[str, Any]) -> str:
    return f"{'-' if point['value'] is None else point['value']!s:>16}  {point['quality']}"
