"""``tizgin order act``: acts about a site, signed by one person after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tizgin.commands._order_common import Json, Key, PassphraseFile, Yes, agreed, as_user_errors, ask, now_ms
from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

app = typer.Typer(help="Signed acts about a site: the agent's mode, commissioning, a display.", no_args_is_help=True)


@app.command("mode")
def act_mode(
    key: Key,
    out: Annotated[Path, typer.Option(help="Where the signed act goes.")],
    site: Annotated[str | None, typer.Option(help="Site id.")] = None,
    epoch: Annotated[str | None, typer.Option(help="Epoch of the site's ledger.")] = None,
    mode: Annotated[str | None, typer.Option("--to", help="monitor, shadow or armed.")] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    add: Annotated[Path | None, typer.Option(help="Sign this act as a further person.")] = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    json_output: Json = False,
) -> int | None:
    """Sign a step of an agent's mode; a second person signs the same file with --add.

    Example: tizgin order act mode --key me.pem --site ekb-01 --epoch e1-0a1b2c3d --to armed --out act.json
    """
    from grid.acts import mode_act

    def make() -> Any:
        if site is None or epoch is None or mode not in {"monitor", "shadow", "armed"}:
            raise UserError("give --site, --epoch and --to monitor|shadow|armed, or --add FILE", exit_code=2)
        return mode_act(site=site, epoch=epoch, mode=mode, reason=reason, now_ms=now_ms())  # type: ignore[arg-type] # checked above

    return _sign_act(key, out, add, passphrase_file, make, yes=yes, json_output=json_output, want="mode")


@app.command("commission")
def act_commission(
    key: Key,
    out: Annotated[Path, typer.Option(help="Where the signed act goes.")],
    protocol: Annotated[
        Path | None, typer.Argument(help="Commissioning protocol (JSON): site, epoch, outputs, note.")
    ] = None,
    add: Annotated[Path | None, typer.Option(help="Sign this act as a further person.")] = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    json_output: Json = False,
) -> int | None:
    """Sign the protocol of a commissioning; a second person signs the same file with --add.

    Example: tizgin order act commission protocol.json --key me.pem --out act.json
    """
    from grid.acts import commissioning_act
    from grid.registrar.register import load_yaml

    def make() -> Any:
        if protocol is None:
            raise UserError("give the PROTOCOL file, or --add FILE", exit_code=EXIT_WRONG_USE)
        return commissioning_act(load_yaml(protocol), now_ms=now_ms())

    return _sign_act(key, out, add, passphrase_file, make, yes=yes, json_output=json_output, want="commissioning")


@app.command("spot")
def act_spot(
    key: Key,
    out: Annotated[Path, typer.Option(help="Where the signed act goes.")],
    site: Annotated[str, typer.Option(help="Site id.")],
    epoch: Annotated[str, typer.Option(help="Epoch of the site's ledger.")],
    point: Annotated[str, typer.Option(help="Metering point.")],
    display: Annotated[str, typer.Option(help="kWh exactly as on the display.")],
    at: Annotated[str | None, typer.Option(help="When it was read (ISO, UTC+5); now by default.")] = None,
    serial: Annotated[str | None, typer.Option(help="Serial number on the meter's plate.")] = None,
    seal: Annotated[list[str] | None, typer.Option(help="Number of a seal; once for each.")] = None,
    photo: Annotated[Path | None, typer.Option(help="Photograph of the display.", dir_okay=False)] = None,
    note: Annotated[str | None, typer.Option(help="For the record.")] = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    json_output: Json = False,
) -> int | None:
    """Sign what you saw at a meter; the site's agent reads its registers when it is handed in (agent spot --act).

    Example: tizgin order act spot --key me.pem --site ekb-01 --epoch e1-0a1b2c3d --point M1 --display 12.5 --out a.json
    """
    from grid.acts import spot_act
    from tizgin.commands._display import digest, instant, reading

    wh, lsb = reading(display)
    seen: dict[str, Any] = {"site": site, "epoch": epoch, "point": point, "seen": instant(at)}
    seen |= {"display_wh": wh, "display_lsb_wh": lsb, "seals": list(seal or ())}
    optional = {"serial": serial, "photo_sha256": digest(photo), "note": note}
    seen |= {name: value for name, value in optional.items() if value is not None}

    def make() -> Any:
        return spot_act(seen, now_ms=now_ms())

    return _sign_act(key, out, None, passphrase_file, make, yes=yes, json_output=json_output, want="spot")


def _sign_act(
    key: Path,
    out: Path,
    add: Path | None,
    passphrase_file: Path | None,
    make: Callable[[], Any],
    *,
    yes: bool,
    json_output: bool,
    want: str,
) -> int | None:
    from grid.acts import describe_act, read_act, sign_act, write_envelope
    from grid.keystore import load_key

    with as_user_errors():
        envelope = None
        if add is not None:
            act, envelope = read_act(add)
        else:
            act = make()
        if act.ty != want:
            raise UserError(f"{add}: an act of kind {act.ty}, expected {want}", exit_code=EXIT_WRONG_USE)
        signer = load_key(key, passphrase_file=passphrase_file, environment=os.environ, ask=ask())
        rows = describe_act(act)
        width = max(len(label) for label, _ in rows)
        for label, value in rows:
            typer.echo(f"  {label:<{width}}  {value}", err=True)
        if not agreed(yes):
            return EXIT_PROBLEM
        envelope = sign_act(act, signer) if envelope is None else envelope.signed_by(signer)
        write_envelope(out, envelope)
    kids = [kid for kid, _ in envelope.signatures]
    if json_output:
        typer.echo(json.dumps({"id": act.id, "ty": act.ty, "kids": kids, "file": str(out)}))
    else:
        typer.echo(f"{out}: act {act.id} signed by {', '.join(kids)}")
    return None
