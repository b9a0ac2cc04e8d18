"""``tizgin scan``: who answers on a line or in a network. Nothing is ever written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

import typer

from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

app = typer.Typer(help="Find the devices on a line or in a network.")

MODBUS = frozenset({"modbus", "rtu", "rtutcp"})
SIDE_BY_SIDE = 64
"""Hosts asked at the same time."""


@app.command(epilog="Example: tizgin scan modbus://192.0.2.1-50:502/1-5")
def scan(
    url: Annotated[
        str,
        typer.Argument(
            help="rtu:///dev/ttyUSB0?baud=9600/1-247, rtutcp://host:port/1-247, modbus://10.0.0.1-50:502/1-5, "
            "asic://10.0.0.1-254 or snmp://10.0.0.1-254?cred=NAME",
            show_default=False,
        ),
    ],
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="How long an address may be silent.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only who answers; do not find out what it is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int | None:
    """Ask every address of a range; registers are only read, relay outputs are left alone. Exit 1 where none answers.

    On an RS-485 line nobody else may ask meanwhile: stop the agent and every other master first.
    """
    if timeout_s is not None and not 0.02 <= timeout_s <= 30:
        raise UserError(f"--timeout: seen {timeout_s:g}, expected 0.02 to 30 seconds", exit_code=EXIT_WRONG_USE)
    import structlog

    # Standard output carries the result alone.
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(40),
    )
    try:
        rows = asyncio.run(_scan(url, timeout_s, closer=not quick))
    except ValueError as error:
        raise UserError(str(error), exit_code=EXIT_WRONG_USE) from error
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
    elif rows:
        _print(rows)
    if not rows:
        typer.echo(f"nobody answered at {url}: check power, wiring, address, and speed and parity of a line", err=True)
    return None if rows else EXIT_PROBLEM


async def _scan(url: str, timeout_s: float | None, *, closer: bool) -> list[dict[str, Any]]:
    scheme = url.partition("://")[0]
    if scheme in MODBUS:
        from drivers.modbus.scan import scan as modbus_scan
        from drivers.modbus.scan import total

        with _progress(total(url)) as advance:
            rows = [row async for row in modbus_scan(url, timeout_s=timeout_s, closer=closer, on_progress=advance)]
    elif scheme in {"asic", "snmp"}:
        from drivers.modbus.scan import hosts_of

        addresses = hosts_of(url)
        with _progress(len(addresses)) as advance:
            rows = [row async for row in _hosts(addresses, _asker(scheme, timeout_s), advance)]
    else:
        raise ValueError(f"seen scheme {scheme[:20]!r}, expected modbus, rtu, rtutcp, asic or snmp")
    return sorted(rows, key=_order)


def _order(row: dict[str, Any]) -> list[tuple[int, str]]:
    import re

    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", row["url"])]


Ask = Callable[[str], Awaitable[dict[str, Any]]]


def _asker(scheme: str, timeout_s: float | None) -> Ask:
    if scheme == "asic":
        from drivers.asic.probe import probe as ask_asic
        from drivers.asic.timing import Timeouts

        limits = Timeouts(rpc_s=timeout_s or 1.0, http_s=timeout_s or 2.0)
        return lambda address: ask_asic(address, timeouts=limits)
    from drivers.snmp.probe import probe as ask_snmp

    return lambda address: ask_snmp(address, timeout_s=timeout_s or 1.0)


async def _hosts(addresses: tuple[str, ...], ask: Ask, advance: Callable[[int], None]) -> AsyncIterator[dict[str, Any]]:
    gate = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(address: str) -> dict[str, Any]:
        async with gate:
            try:
                return await ask(address)
            finally:
                advance(1)

    first = await one(addresses[0])  # an address or secret that is wrong is wrong for all: said once, at once
    tasks = [asyncio.create_task(one(address), name=f"scan {address}") for address in addresses[1:]]
    try:
        for row in (first, *[await task for task in tasks]):
            if row.get("responds", True):
                yield row
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, and nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("asking", total=total)
        yield lambda count: bar.advance(task, count)


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{len(rows)} answered")
    for name in ("address", "what", "sure", "power W", "remarks"):
        table.add_column(name, justify="right" if name in {"sure", "power W"} else "left", overflow="fold")
    for row in rows:
        what = row.get("profile") or row.get("family") or "unknown"
        if row.get("model"):
            what = f"{what} {row['model']}"
        power = row.get("power_w", (row.get("points") or {}).get("power_w", {}).get("value"))
        sure = row.get("confidence")
        table.add_row(
            escape(str(row["url"])),
            escape(str(what)),
            "" if sure is None else f"{sure:.2f}",
            "" if not isinstance(power, int | float) else f"{power:,.0f}",
            escape(remarks(row)),
        )
    Console(highlight=False).print(table)


def remarks(row: dict[str, Any]) -> str:
    """What a person should know of one row beside its columns."""
    said = []
    if row.get("indistinguishable"):
        said.append(f"or {', '.join(row['indistinguishable'])}: cannot be told apart")
    if row.get("address_shift"):
        said.append(f"addresses {row['address_shift']:+d} against the profile")
    candidates = row.get("candidates") or []
    if row.get("profile") and candidates and candidates[0].get("swapped"):
        said.append("word order against the profile")
    if row.get("reason"):
        said.append(str(row["reason"]))
    return "; ".join(said)
