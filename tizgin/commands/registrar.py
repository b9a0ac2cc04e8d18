"""``tizgin registrar``: the registrar's key and the register he signs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tizgin.errors import UserError

if TYPE_CHECKING:
    from wire.registry import KeysDocument

app = typer.Typer(
    help="Sign who may order what, and the reserved kW.",
    no_args_is_help=True,
    epilog="Example: tizgin registrar sign register.yaml --key registrar/registrar.pem --out keys.json",
)
KEY_NAME = "registrar.pem"

PassphraseFile = Annotated[
    Path | None, typer.Option(help="File (mode 0600) with the key's passphrase; else TIZGIN_KEY_PASSPHRASE.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def init(
    directory: Annotated[Path, typer.Option("--dir", help="Folder for the registrar's key; made if absent.")],
    passphrase_file: PassphraseFile = None,
    json_output: Json = False,
) -> None:
    """Make the registrar's key (mode 0600) and print its fingerprint.

    Example: tizgin registrar init --dir registrar
    """
    from grid.errors import GridError
    from grid.keystore import create_key, find_passphrase, fingerprint

    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / KEY_NAME
        key = create_key(path, find_passphrase(passphrase_file, os.environ, None))
    except (GridError, OSError) as error:
        raise UserError(str(error)) from None
    if json_output:
        typer.echo(json.dumps({"key": str(path), "kid": key.kid, "public": key.public.text}))
        return
    typer.echo(f"key          {path}")
    typer.echo(f"public       {key.public.text}")
    typer.echo(f"fingerprint  {fingerprint(key.public)}")
    typer.echo("Give the public key to central and every agent; compare the fingerprint by another channel.", err=True)


@app.command()
def sign(
    register: Annotated[Path, typer.Argument(help="The register as YAML.", show_default=False)],
    key: Annotated[Path, typer.Option(help="The registrar's private key.")],
    out: Annotated[Path, typer.Option(help="Where the signed register goes; its version must rise.")] = Path(
        "keys.json"
    ),
    passphrase_file: PassphraseFile = None,
    json_output: Json = False,
) -> None:
    """Check a register and sign it.

    Example: tizgin registrar sign register.yaml --key registrar/registrar.pem --out keys.json
    """
    from grid.errors import GridError
    from grid.keystore import load_key
    from grid.registrar.register import build, load_yaml, sign_to_file

    try:
        document = build(load_yaml(register), now_ms=time.time_ns() // 1_000_000, source=str(register))
        signer = load_key(key, passphrase_file=passphrase_file, environment=os.environ, ask=_ask())
        before = sign_to_file(document, signer, out)
    except GridError as error:
        raise UserError(str(error)) from None
    if json_output:
        typer.echo(json.dumps({"out": str(out), "version": document.version, "before": before, "kid": signer.kid}))
        return
    _print(document)
    typer.echo(f"signed by {signer.kid}: {out} (version {'none' if before is None else before} → {document.version})")


@app.command()
def proofs(
    file: Annotated[
        Path, typer.Argument(help="JSON of 'tizgin agent enroll' or 'tizgin agent rotate'.", show_default=False)
    ],
    site: Annotated[str | None, typer.Option(help="The site it should be of.")] = None,
) -> None:
    """Check a site's enrolment or change of key, and print what to enter into the register.

    Example: tizgin registrar proofs enrolment.json --site kz-small-1
    """
    from tizgin.commands._registrar_entry import of_change, of_enrolment
    from wire.enrolment import MAX_BYTES, read_enrolment
    from wire.errors import WireError
    from wire.rotation import read_change

    try:
        with file.open("rb") as source:
            raw = source.read(MAX_BYTES + 1)
        if b'"from_index"' in raw:
            change = read_change(raw)
            if site is not None and change.site != site:
                raise UserError(f"{file}: is of site {change.site}, --site says {site}")
            typer.echo(of_change(change))
        else:
            typer.echo(of_enrolment(read_enrolment(raw, site)))
    except (WireError, OSError) as error:
        raise UserError(f"{file}: {error}") from None


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A signed register.", show_default=False)],
    registrar: Annotated[str, typer.Option(help="The registrar's public key: base64, or a file with it.")],
    json_output: Json = False,
) -> None:
    """Verify a signed register and print it.

    Example: tizgin registrar show keys.json --registrar "$(cat registrar.pub)"
    """
    from grid.errors import GridError
    from grid.keystore import read_public
    from grid.registrar.register import load_register

    try:
        document = load_register(file, [read_public(registrar)])
    except GridError as error:
        raise UserError(str(error)) from None
    if json_output:
        typer.echo(document.encode().decode())
    else:
        _print(document)


def _ask() -> Callable[[], str] | None:
    """Asks at a terminal; in a pipe nobody is there to ask."""
    if not sys.stdin.isatty():
        return None
    return lambda: str(typer.prompt("Passphrase of the key", hide_input=True, err=True))


def _print(document: KeysDocument) -> None:
    from grid.words import local_time

    typer.echo(f"register version {document.version}, issued {local_time(document.issued_at)}")
    for issuer in document.issuers:
        person = document.person(issuer.person)
        where = ", ".join((*issuer.sites, *(f"zone {z}" for z in issuer.zones))) or "nowhere"
        revoked = document.revoked_at(issuer.kid)
        typer.echo(
            f"  key {issuer.kid}  {person.name if person else issuer.person}: {', '.join(issuer.rights)}"
            f" at {where}; alone {issuer.solo_w / 1000:g} kW per 10 min; until {local_time(issuer.valid_to)}"
            + (f"; REVOKED {local_time(revoked)}" if revoked is not None else "")
        )
    for site in document.sites:
        typer.echo(
            f"  site {site.id}  zone {site.zone}: contracted {site.contracted_w / 1000:g} kW, emergency "
            f"{site.emergency_w / 1000:g} kW, slots of {site.slot_s} s, {len(site.points)} points, epochs "
            + (", ".join(e.epoch for e in site.epochs) or "none")
        )
    for zone in document.zones:
        back = "" if zone.max_return_w_per_min is None else f", return {zone.max_return_w_per_min / 1000:g} kW per min"
        typer.echo(
            f"  zone {zone.id}: step {zone.max_step_w / 1000:g} kW, ramp {zone.max_ramp_w_per_min / 1000:g} kW per min"
            + back
        )
