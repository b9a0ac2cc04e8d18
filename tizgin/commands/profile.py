"""``tizgin profile``: what is known of a device model, and does its profile hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

if TYPE_CHECKING:
    from drivers.profiles.loader import AnyProfile
    from drivers.profiles.model import MeterProfile

app = typer.Typer(no_args_is_help=True, help="Device profiles: list, show, test, decode, schema.")

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
    from drivers.profiles.loader import load_profiles
    from drivers.profiles.model import MeterProfile

    rows: list[dict[str, Any]] = []
    for profile in load_profiles().values():
        count = len(profile.points) if isinstance(profile, MeterProfile) else len(profile.outputs) + len(profile.inputs)
        rows.append(_row(profile.id, profile.vendor, profile.model, profile.kind, profile.status, count))
    rows += _pdu_rows()
    rows.sort(key=lambda row: (row["kind"], row["id"]))
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['kind']:8}{row['id']:28}{row['status']:12}{row['points']:>4}  {row['vendor']} {row['model']}")


def _row(profile_id: str, vendor: str, model: str, kind: str, status: str, points: int) -> dict[str, Any]:
    return {"id": profile_id, "vendor": vendor, "model": model, "kind": kind, "status": status, "points": points}


def _pdu_rows() -> list[dict[str, Any]]:
    from drivers.snmp.profile import load_pdu_profiles

    return [_row(p.id, p.vendor, p.model, p.kind, p.status, len(p.points)) for p in load_pdu_profiles().values()]


def _pdu(profile_id: str) -> dict[str, Any] | None:
    from drivers.snmp.profile import load_pdu_profiles

    found = load_pdu_profiles().get(profile_id)
    return None if found is None else found.model_dump(mode="json", by_alias=True)


@app.command(epilog="Example: tizgin profile show eastron-sdm630 --plan")
def show(
    profile_id: IdArgument,
    with_plan: Annotated[bool, typer.Option("--plan", help="Also the requests that read all its points.")] = False,
    as_json: JsonOption = False,
) -> None:
    """One device model: sources, limits, points or outputs."""
    from drivers.profiles.model import MeterProfile
    from drivers.profiles.plan import plan

    pdu = _pdu(profile_id)
    if pdu is not None:
        typer.echo(json.dumps(pdu, ensure_ascii=False, indent=None if as_json else 2))
        return
    profile = _load(profile_id)
    shown = profile.model_dump(mode="json", by_alias=True)
    blocks = plan(profile, profile.point_ids) if with_plan and isinstance(profile, MeterProfile) else ()
    if with_plan:
        shown["plan"] = [
            {"fc": b.fc, "table": b.table, "addr": b.addr, "count": b.count, "points": list(b.points)} for b in blocks
        ]
    if as_json:
        _print_json(shown)
        return
    typer.echo(f"{profile.id} v{profile.version}: {profile.vendor} {profile.model} ({profile.kind}, {profile.status})")
    for source in profile.sources:
        typer.echo(f"  source  {source.name}" + (f" ({source.note})" if source.note else ""))
    for note in profile.notes:
        typer.echo(f"  note    {note}")
    if isinstance(profile, MeterProfile):
        for point in profile.points:
            where = f"{point.table} {point.addr}"
            typer.echo(f"  {point.id:30}{where:16}{point.type:6} x {point.scale!s:8} {point.unit}")
    else:
        for output in profile.outputs:
            pulse = "no timed pulse" if output.pulse is None else f"timed pulse at {output.pulse.addr}"
            typer.echo(f"  {output.id:30}coil {output.addr:<11}{pulse}")
        for binary in profile.inputs:
            typer.echo(f"  {binary.id:30}{binary.table} {binary.addr}")
    for block in blocks:
        typer.echo(f"  read    function {block.fc}, {block.addr} + {block.count}: {', '.join(block.points)}")


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


@app.command("test", epilog="Example: tizgin profile test my_meter.yaml")
def check_profiles(
    profile_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids or files; none: all.")] = None,
    as_json: JsonOption = False,
) -> int | None:
    """Load profiles by all their rules and run their golden vectors. Exit 1 where one fails."""
    from drivers.errors import ProfileError
    from drivers.profiles.loader import DATA, FOLDERS, load_profile
    from drivers.profiles.model import MeterProfile

    targets: list[str | Path] = list(profile_ids or [])
    if not targets:
        targets = [path for folder in FOLDERS for path in sorted((DATA / folder).glob("*.yaml"))]
    rows: list[dict[str, Any]] = []
    for target in targets:
        try:
            profile = load_profile(target)
        except ProfileError as error:
            rows.append({"id": str(target), "ok": False, "vectors": 0, "problems": str(error).splitlines()})
        else:
            vectors = len(profile.tests) if isinstance(profile, MeterProfile) else 0
            rows.append({"id": profile.id, "ok": True, "vectors": vectors, "problems": []})
    if as_json:
        _print_json(rows)
    else:
        for row in rows:
            typer.echo(f"{'ok  ' if row['ok'] else 'FAIL'} {row['id']}: {row['vectors']} golden vectors")
            for problem in row["problems"]:
                typer.echo(f"     {problem}")
    return None if all(row["ok"] for row in rows) else EXIT_PROBLEM
