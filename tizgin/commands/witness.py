"""``tizgin witness``: the system operator's or regulator's witness of the sites' logs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from tizgin.errors import EXIT_WRONG_USE, UserError

app = typer.Typer(
    help="Cosign the sites' checkpoints, so that no history can be rewritten unseen.",
    no_args_is_help=True,
    epilog="Example: tizgin witness run --key witness.pem --name so.example --register keys.json --registrar reg.pub",
)

Key = Annotated[Path, typer.Option("--key", help="The witness's private key (mode 0600).")]
Name = Annotated[str, typer.Option("--name", help="Name under which the register's policy knows it, without spaces.")]


@app.command(epilog="Example: tizgin witness keygen --key witness.pem --name so.example")
def keygen(key: Key, name: Name) -> None:
    """Make the witness's key and print its policy line for the registrar."""
    from grid.errors import GridError
    from grid.keystore import create_key
    from wire.errors import BadNote
    from wire.notes import COSIGNATURE, NoteKey

    try:
        made = create_key(key, None)
        public = NoteKey(name, COSIGNATURE, made.public.raw)
    except (GridError, BadNote) as error:
        raise UserError(str(error)) from None
    typer.echo(f"witness {name} {public.text}")


@app.command(epilog="Example: tizgin witness request --key witness.pem --name so.example --tls-key w.key --out w.csr")
def request(
    key: Key,
    name: Name,
    tls_key: Annotated[Path, typer.Option(help="Where its new TLS key goes (mode 0600).")],
    out: Annotated[Path, typer.Option(help="Where the certificate request goes.")],
) -> None:
    """Make a TLS key for central's broker; central signs the request with 'tizgin central enroll-witness'."""
    from grid.errors import GridError
    from grid.files import replace_file
    from grid.keystore import load_key
    from grid.witness.request import make_request
    from wire.errors import BadNote
    from wire.notes import COSIGNATURE, NoteKey

    try:
        public = NoteKey(name, COSIGNATURE, load_key(key, environment=os.environ).public.raw)
        replace_file(out, make_request(public, tls_key))
    except (GridError, BadNote) as error:
        raise UserError(str(error)) from None
    typer.echo(f"{public.text}")


@app.command(epilog="Example: tizgin witness run --key w.pem --name so.example --register http://central:8080 ...")
def run(
    key: Key,
    name: Name,
    register: Annotated[str, typer.Option(help="The signed register: a file, or central's address.")],
    registrar: Annotated[list[str], typer.Option(help="The registrar's public key: base64, or a file.")],
    store: Annotated[Path, typer.Option(help="Its store; keep it: a witness without memory witnesses nothing.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8091,
    ready_file: Annotated[Path | None, typer.Option(help="Written with the address when it listens.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="Central's broker, mqtts://host:port, to be asked there too.")
    ] = None,
    ca: Annotated[Path, typer.Option(help="Certificate of central's authority, with --broker.")] = Path("ca.pem"),
    cert: Annotated[Path, typer.Option(help="This witness's certificate, with --broker.")] = Path("witness-tls.pem"),
    tls_key: Annotated[Path, typer.Option(help="Its TLS key, with --broker.")] = Path("witness-tls.key"),
) -> None:
    """Answer checkpoints until SIGTERM or Ctrl-C: cosign what continues the log, refuse and keep what does not.

    It listens for HTTP; with --broker it also connects to central's broker, so that nothing has to reach it.
    """
    from grid.errors import GridError
    from grid.keystore import load_key, read_public
    from grid.witness.app import Witness
    from grid.witness.link import Broker, BrokerLink
    from grid.witness.register import RegisterSource
    from grid.witness.run import run_witness
    from grid.witness.store import WitnessStore
    from wire.errors import BadNote

    def started(url: str) -> None:
        typer.echo(json.dumps({"url": url, "key": witness.public.text}), err=True)
        if ready_file is not None:
            part = ready_file.with_suffix(".part")
            part.write_text(json.dumps({"url": url}))
            part.replace(ready_file)

    try:
        source = RegisterSource(register, [read_public(text) for text in registrar], time.monotonic)
        signer = load_key(key, environment=os.environ)
        witness = Witness(name, signer, WitnessStore(store), source, lambda: time.time_ns() // 1_000_000)
        _ = witness.public
        link = None if broker is None else BrokerLink(witness, Broker(broker, ca, cert, tls_key))
        run_witness(witness, host=host, port=port, started=started, link=link)
    except BadNote as error:
        raise UserError(str(error), exit_code=EXIT_WRONG_USE) from None
    except GridError as error:
        raise UserError(str(error)) from None
