"""``tizgin profile``: what is known of a device model, and does its profile hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

if TYPE_CHECKING:
    from drivers.profiles.loader import AnyProfile
    from drivers.profiles.model import MeterProfile, RelayProfile

app = typer.Typer(no_args_is_help=True, help="Device profiles: list, show, test, decode, schema, new.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Profile id (see list) or a file.", show_default=False)]


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def _load(profile_id: str) -> AnyProfile:
    from drivers.errors import ProfileError
    from drivers.profiles.loader import load_profile

    try:
        return load_profile(profile_id)
    except ProfileError as error:
        raise UserError(str(error)) from error


def _meter(profile_id: str) -> MeterProfile:
    from drivers.profiles.model import MeterProfile

    profile = _load(profile_id)
    if not isinstance(profile, MeterProfile):
        raise UserError(f"{profile.id} is of kind {profile.kind}, expected a meter", exit_code=EXIT_WRONG_USE)
    return profile


@app.command("list", epilog="Example: tizgin profile list --json")
def list_profiles(as_json: JsonOption = False) -> None:
    """All device models this installation knows."""
    from dataclasses import asdict

    from drivers.profiles.catalogue import catalogue

    rows = [asdict(entry) for entry in catalogue()]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['kind']:8}{row['id']:28}{row['status']:12}{row['points']:>4}  {row['vendor']} {row['model']}")


def _pdu(profile_id: str) -> dict[str, Any] | None:
    from drivers.snmp.profile import load_pdu_profiles

    found = load_pdu_profiles().get(profile_id)
    return None if found is None else found.model_dump(mode="json", by_alias=True)


@app.command(epilog="Example: tizgin profile show eastron-sdm630 --plan --points power_w,energy_import_wh")
def show(
    profile_id: IdArgument,
    with_plan: Annotated[bool, typer.Option("--plan", help="Also the requests that read its points, and why.")] = False,
    points: Annotated[
        str | None, typer.Option("--points", metavar="NAME,…", help="With --plan: these points alone, comma between.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One device model: sources, limits, points or outputs."""
    from drivers.profiles.model import MeterProfile
    from tizgin.commands._profile_plan import plan_rows, print_plan

    if points is not None and not with_plan:
        raise UserError("--points: seen without --plan, which it is for", exit_code=EXIT_WRONG_USE)
    pdu = _pdu(profile_id)
    if pdu is not None:
        typer.echo(json.dumps(pdu, ensure_ascii=False, indent=None if as_json else 2))
        return
    profile = _load(profile_id)
    shown = profile.model_dump(mode="json", by_alias=True)
    plans = plan_rows(profile, points) if with_plan and isinstance(profile, MeterProfile) else []
    if with_plan:
        shown["plan"] = plans
    if as_json:
        _print_json(shown)
        return
    typer.echo(f"{profile.id} v{profile.version}: {profile.vendor} {profile.model} ({profile.kind}, {profile.status})")
    for source in profile.sources:
        typer.echo(f"  source  {source.name}" + (f" ({source.note})" if source.note else ""))
    for note in profile.notes:
        typer.echo(f"  note    {note}")
    if isinstance(profile, MeterProfile):
        for point in profile.readable:
            where = f"{point.table} {point.addr}"
            typer.echo(f"  {point.id:30}{where:16}{point.type:6} x {point.scale!s:8} {point.unit:5} {point.poll}")
    else:
        for line in _relay_lines(profile):
            typer.echo(line)
    if with_plan:
        print_plan(plans)


def _relay_lines(profile: RelayProfile) -> Iterator[str]:
    for output in profile.outputs:
        if output.addr is None:
            yield f"  {output.id:30}{'code ' + str(output.code):<16}the device ends its impulse itself"
            continue
        pulse = "no timed pulse" if output.pulse is None else f"timed pulse at {output.pulse.addr}"
        yield f"  {output.id:30}{_place(output.table, output.addr, output.bit):<16}{pulse}"
    for binary in profile.inputs:
        kept = "latched" if binary.latched else "counted" if binary.counter is not None else ""
        yield f"  {binary.id:30}{_place(binary.table, binary.addr, binary.bit):<16}{kept}".rstrip()
    for found in profile.temperatures:
        where = _place(found.table, found.addr, None)
        yield f"  {found.id:30}{where:<16}{found.type}, {found.min:g} to {found.max:g} °C"
    for setting in profile.settings:
        yield f"  expect_{setting.id:23}{setting.table + ' ' + str(setting.addr):<16}{setting.expected}: {setting.says}"


def _place(table: str, addr: int, bit: int | None) -> str:
    return f"{table} {addr}" if bit is None else f"{table} {addr}.{bit}"


@app.command(epilog='Example: tizgin profile decode eastron-sdm630 --table input --address 52 --hex "459a 2000"')
def decode(
    profile_id: IdArgument,
    table: Annotated[str, typer.Option(help="holding or input.", show_default=False)],
    address: Annotated[int, typer.Option(min=0, max=65535, help="Of the first register, 0-based.", show_default=False)],
    words: Annotated[str, typer.Option("--hex", help="Registers as on the wire, big-endian.", show_default=False)],
    as_json: JsonOption = False,
) -> int | None:
    """Every point that a block of registers covers wholly. Exit 1 where one cannot be understood."""
    from drivers.profiles.codec import decode_block

    profile = _meter(profile_id)
    if table not in {"holding", "input"}:
        raise UserError(f"--table: seen {table!r}, expected holding or input", exit_code=EXIT_WRONG_USE)
    decoded = decode_block(profile, table, address, _registers(words))
    values = {name: here.value for name, here in decoded.items()}
    if as_json:
        _print_json(values)
    else:
        for name, value in values.items():
            typer.echo(f"{name} = {'no value' if value is None else value} {profile.point(name).unit}".rstrip())
        if not values:
            typer.echo(f"no point of {profile.id} lies wholly in {table} {address}", err=True)
    problems = [f"{name}: {here.error}" for name, here in decoded.items() if here.error]
    for problem in problems:
        typer.echo(problem, err=True)
    return EXIT_PROBLEM if problems else None


def _registers(text: str) -> list[int]:
    digits = text.replace(" ", "").removeprefix("0x")
    if not digits or len(digits) % 4 or len(digits) > 500:
        raise UserError(
            f"--hex: seen {len(digits)} digits, expected four for each of 1 to 125 registers", exit_code=EXIT_WRONG_USE
        )
    try:
        return [int.from_bytes(bytes.fromhex(digits[i : i + 4]), "big") for i in range(0, len(digits), 4)]
    except ValueError as error:
        raise UserError(f"--hex: {error}", exit_code=EXIT_WRONG_USE) from error


@app.command(epilog="Example: tizgin profile schema > profile.schema.json")
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="One line; otherwise indented.")] = False,
) -> None:
    """JSON Schema of a profile file, for editors."""
    from drivers.profiles.loader import profile_schema

    typer.echo(json.dumps(profile_schema(), ensure_ascii=False, indent=None if as_json else 2))


@app.command("test", epilog="Example: tizgin profile test my_meter.yaml --url modbus://192.0.2.7:502/1")
def check_profiles(
    profile_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids or files; none: all.")] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Also read a real meter with it: modbus://…, rtu://… or rtutcp://….")
    ] = None,
    as_json: JsonOption = False,
) -> int | None:
    """Load profiles by all their rules and run their golden vectors. Exit 1 where one fails.

    With --url every point is also read from a meter, once; nothing is written.
    """
    from drivers.errors import ProfileError
    from drivers.profiles.loader import DATA, FOLDERS, load_profile
    from drivers.profiles.model import MeterProfile

    if url is not None and len(profile_ids or ()) != 1:
        raise UserError(
            f"--url: seen with {len(profile_ids or ())} profiles, expected exactly one", exit_code=EXIT_WRONG_USE
        )
    targets: list[str | Path] = list(profile_ids or [])
    if not targets:
        targets = [path for folder in FOLDERS for path in sorted((DATA / folder).glob("*.yaml"))]
    rows: list[dict[str, Any]] = []
    for target in targets:
        try:
            profile = load_profile(target)
        except ProfileError as error:
            rows.append({"id": str(target), "ok": False, "vectors": 0, "problems": str(error).splitlines()})
            continue
        vectors = len(profile.tests) if isinstance(profile, MeterProfile) else 0
        row: dict[str, Any] = {"id": profile.id, "ok": True, "vectors": vectors, "problems": []}
        if url is not None:
            row |= _on_device(_meter(str(target)), url)
        rows.append(row)
    if as_json:
        _print_json(rows)
    else:
        for row in rows:
            typer.echo(f"{'ok  ' if row['ok'] else 'FAIL'} {row['id']}: {row['vectors']} golden vectors")
            for name, point in row.get("points", {}).items():
                value = "-" if point["value"] is None else str(point["value"])
                typer.echo(f"     {name:30}{value:>20} {point['unit']:5} {point['quality']:10} {point['raw'] or ''}")
            for problem in row["problems"]:
                typer.echo(f"     {problem}")
    return None if all(row["ok"] for row in rows) else EXIT_PROBLEM


def _on_device(profile: MeterProfile, url: str) -> dict[str, Any]:
    import asyncio
    import sys

    import structlog

    from tizgin.commands._meter_reading import read_device

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        return asyncio.run(read_device(profile, url))
    except ValueError as error:
        raise UserError(f"--url: {error}", exit_code=EXIT_WRONG_USE) from error


@app.command(epilog="Example: tizgin profile new my_meter.yaml")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Where to; its name becomes the id.")],
) -> None:
    """Write a commented meter profile to fill in. It loads as it is; an existing file is left alone."""
    from tizgin.commands._profile_skeleton import skeleton

    stem = file.stem.replace("_", "-")
    if file.suffix != ".yaml" or re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", stem) is None:
        raise UserError(
            f"{file.name}: expected a name of small letters, digits and _ that ends in .yaml, as in my_meter.yaml",
            exit_code=EXIT_WRONG_USE,
        )
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(skeleton(stem))
    except FileExistsError:
        raise UserError(f"{file}: exists already and is left alone; give another name") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from error
    typer.echo(f"{file}: fill it in, then: tizgin profile test {file}")
