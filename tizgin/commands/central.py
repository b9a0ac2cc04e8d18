"""``tizgin central``: init, check, run, enroll, bundle, energy, report, broker-config."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tizgin import __version__
from tizgin.commands._central_store import load_settings
from tizgin.commands._moments import moment, moments
from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

app = typer.Typer(
    no_args_is_help=True,
    help="The collector: init, run, evidence bundles.",
    epilog="Example: tizgin central init --config central.yaml --registrar KEY",
)


class Unit(StrEnum):
    """Periods of local time."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    QUARTER = "quarter"


class Language(StrEnum):
    """Languages of papers."""

    KK = "kk"
    RU = "ru"
    EN = "en"


Config = Annotated[Path, typer.Option("--config", help="Settings of central.", show_default="central.yaml")]
DEFAULT = Path("central.yaml")


@app.command(epilog="Example: tizgin central init --config central.yaml --registrar BASE64KEY --data-dir ./central")
def init(
    config: Config = DEFAULT,
    registrar: Annotated[list[str] | None, typer.Option(help="Registrar's public key, base64 (repeatable).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a new settings file keeps central's data.")] = None,
    port: Annotated[int, typer.Option(help="Web port in a new settings file.")] = 8080,
    broker_port: Annotated[int, typer.Option(help="Broker port in a new settings file.")] = 8883,
) -> None:
    """Make certificates and keys, and the settings file where there is none. What exists is never replaced."""
    from central import pki
    from central.errors import CentralError
    from central.paths import Paths
    from central.registers import registrar_keys
    from config.central import ChildBroker

    try:
        if not config.exists():
            registrar_keys(registrar or [])
            _write_settings(config, registrar or [], data_dir or Path("central-data"), port, broker_port)
            typer.echo(str(config))
        settings = load_settings(config)
        paths = Paths.of(settings, config.resolve().parent)
        host = settings.broker.host if isinstance(settings.broker, ChildBroker) else "localhost"
        for name in pki.initialise(paths, host, datetime.now(UTC)):
            typer.echo(name)
    except CentralError as error:
        raise UserError(str(error)) from None


def _write_settings(path: Path, registrar: list[str], data_dir: Path, port: int, broker_port: int) -> None:
    import yaml

    from central.paths import write_public

    if not registrar:
        raise UserError(
            f"{path} is not there and --registrar was not given: name the registrar's public key, as "
            "'tizgin registrar init' prints it, so that a settings file can be written",
            exit_code=EXIT_WRONG_USE,
        )
    data = {
        "schema": 1,
        "data_dir": str(data_dir),
        "port": port,
        "broker": {"mode": "child", "host": "127.0.0.1", "port": broker_port},
        "registrar_keys": registrar,
        "sites": [],
    }
    write_public(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode())


@app.command(epilog="Example: tizgin central check --config central.yaml")
def check(config: Config = DEFAULT, as_json: Annotated[bool, typer.Option("--json")] = False) -> int:
    """Check settings, keys, certificates and the broker's program, without starting anything."""
    from central.check import problems

    found = problems(load_settings(config), config.resolve().parent, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps({"ok": not found, "problems": found}, ensure_ascii=False))
    else:
        for line in found or ["ok"]:
            typer.echo(line)
    return EXIT_PROBLEM if found else 0


@app.command(epilog="Example: tizgin central run --config central.yaml --ready-file /run/tizgin/central.json")
def run(
    config: Config = DEFAULT,
    ready_file: Annotated[Path | None, typer.Option(help="Written with the addresses when everything is up.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning, error.")] = "info",
) -> None:
    """Run broker, collector, API and pages in one process until SIGTERM or Ctrl-C."""
    from central.errors import CentralError
    from central.logs import configure
    from central.server import serve

    configure(log_level)
    settings = load_settings(config)
    try:
        asyncio.run(
            serve(
                settings,
                config.resolve().parent,
                version=__version__,
                ready_file=ready_file,
                reload_sites=lambda: load_settings(config).sites,
            )
        )
    except CentralError as error:
        raise UserError(str(error)) from None


@app.command(
    epilog="Example: tizgin central enroll --config central.yaml --csr enrolment.json --site ekb-1 --out ekb-1.pem"
)
def enroll(
    csr: Annotated[Path, typer.Option(help="The site's enrolment (JSON), or a bare certificate request (PEM).")],
    site: Annotated[str, typer.Option(help="Site id; becomes the common name, whatever the request says.")],
    out: Annotated[Path, typer.Option(help="Where the certificate goes.")],
    config: Config = DEFAULT,
) -> None:
    """Sign a site's TLS certificate. Of an enrolment the proofs of all three keys are checked first.

    Prints K_rec's fingerprint: compare it with the site by telephone before the certificate leaves this computer. A
    bare request proves nothing about the site's record keys.
    """
    from tizgin.commands._central_certificates import sign_site

    sign_site(load_settings(config), config, csr, site, out)


@app.command(
    "enroll-witness",
    epilog="Example: tizgin central enroll-witness --csr witness.csr --key so.example+0a1b2c3d+BASE64 --out w.pem",
)
def enroll_witness(
    csr: Annotated[Path, typer.Option(help="The witness's certificate request ('tizgin witness request').")],
    key: Annotated[str, typer.Option(help="Its key as the policy names it; the certificate is issued to this key.")],
    out: Annotated[Path, typer.Option(help="Where the certificate goes.")],
    config: Config = DEFAULT,
) -> None:
    """Sign a witness's TLS certificate for central's broker. It may read what it is asked and answer, nothing else."""
    from tizgin.commands._central_certificates import sign_witness

    sign_witness(load_settings(config), config, csr, key, out)


@app.command(
    epilog="Example: tizgin central bundle --site ekb-1 --period 2026-11-01T00:00Z/2026-12-01T00:00Z --out b.zip"
)
def bundle(
    site: Annotated[str, typer.Option(help="Site id.")],
    period: Annotated[
        str, typer.Option(help="A/B: begin and end, ISO 8601 in UTC or epoch seconds, on the slot grid.")
    ],
    out: Annotated[Path, typer.Option(help="Bundle file.")],
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Write an evidence bundle that 'tizgin verify' checks. Works while central runs, and while it does not."""
    from tizgin.commands._central_evidence import write_bundle

    write_bundle(load_settings(config), config.resolve().parent, site, moments(period), out, as_json=as_json)


@app.command(epilog="Example: tizgin central energy --site ekb-1 --by day --period 2026-11-01T00:00Z/2026-12-01T00:00Z")
def energy(
    site: Annotated[str, typer.Option(help="Site id.")],
    period: Annotated[str, typer.Option(help="A/B: begin and end, ISO 8601 or epoch seconds.")],
    by: Annotated[Unit, typer.Option(help="In Kazakhstan time.")] = Unit.DAY,
    point: Annotated[list[str] | None, typer.Option(help="Metering point; all of them without.")] = None,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> int:
    """Energy of metering points by period, from records whose signatures hold. What is not known is left open."""
    from tizgin.commands._central_evidence import show_energy

    settings, base = load_settings(config), config.resolve().parent
    return show_energy(settings, base, site, tuple(point or ()), moments(period), by.value, as_json=as_json)


@app.command(epilog="Example: tizgin central report --order 01912345-0000-7000-8000-000000000001 --pdf report.pdf")
def report(
    order: Annotated[str, typer.Option(help="Order id.")],
    pdf: Annotated[Path | None, typer.Option(help="Write it on paper: this PDF file.")] = None,
    language: Annotated[Language, typer.Option(help="Of the PDF.")] = Language.RU,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> int:
    """How an order was obeyed, by the site's signed report. Exits 1 where there is none, or it says otherwise."""
    from tizgin.commands._central_report import show

    return show(load_settings(config), config.resolve().parent, order, pdf, language.value, as_json=as_json)


@app.command(epilog="Example: tizgin central availability --site ekb-1 --month 2026-11 --config central.yaml")
def availability(
    site: Annotated[str, typer.Option(help="Site id.")],
    month: Annotated[str, typer.Option(help="Month in Kazakhstan time: 2026-11.")],
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> int:
    """Availability of switches, САОН, link and meters, from records whose signatures hold; proof tests and what is due.

    Exit 1 where something is not known or a proof test is overdue.
    """
    from tizgin.commands._central_availability import show_availability

    return show_availability(load_settings(config), config, site, month, as_json=as_json)


@app.command(epilog="Example: tizgin central vee --site ekb-1 --period 2026-11-01T00:00+05:00/2026-11-02T00:00+05:00")
def vee(
    site: Annotated[str, typer.Option(help="Site id.")],
    period: Annotated[str, typer.Option(help="A/B: begin and end, ISO 8601 or epoch seconds, on the slot grid.")],
    thresholds: Annotated[int | None, typer.Option(help="Version of the thresholds; the one in force without.")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Judge and print, but append nothing to the log.")] = False,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> int:
    """Judge plausibility (rules V01 to V26) and append the verdicts to central's signed log. Nothing is replaced."""
    from tizgin.commands._central_vee import judge_period

    return judge_period(load_settings(config), config.resolve().parent, site, moments(period), thresholds, dry, as_json)


@app.command(
    epilog="Example: tizgin central reading --site ekb-1 --point M1 --from 2026-11-01T00:00+05:00 "
    "--to 2026-12-01T00:00+05:00 --wh 71000000000 --source system_operator --act 118 --who 'A. Serik'"
)
def reading(
    site: Annotated[str, typer.Option(help="Site id.")],
    point: Annotated[str, typer.Option(help="Metering point.")],
    begin: Annotated[str, typer.Option("--from", help="ISO 8601 or epoch seconds, on the slot grid.")],
    end: Annotated[str, typer.Option("--to", help="The same.")],
    wh: Annotated[int, typer.Option(min=0, help="Energy between the two, whole Wh, primary.")],
    source: Annotated[str, typer.Option(help="Whose reading: system_operator, grid_company, inspector.")],
    act: Annotated[str, typer.Option(help="Number of the act or protocol.")],
    who: Annotated[str, typer.Option(help="Who enters it here.")],
    config: Config = DEFAULT,
) -> None:
    """Enter what somebody else read at the same meter; plausibility compares with it (V26). Only ever added to."""
    from tizgin.commands._central_vee import OutsideReading, enter_reading

    told = OutsideReading(site, point, moment(begin), moment(end), wh, source, act, who)
    enter_reading(load_settings(config), config.resolve().parent, told)


@app.command("witness-key", epilog="Example: tizgin central witness-key --config central.yaml")
def witness_key(
    config: Config = DEFAULT,
    public: Annotated[
        bool, typer.Option("--public", help="Only the key, as the register's collectors and a trust file name it.")
    ] = False,
) -> None:
    """Print central's line for the register's policy: it cosigns its sites' checkpoints."""
    from central.paths import Paths
    from central.witness import note_key
    from wire.errors import BadKey
    from wire.keys import SigningKey, b64

    paths = Paths.of(load_settings(config), config.resolve().parent)
    try:
        key = note_key(SigningKey.from_pem(paths.k_col.read_bytes()))
    except (BadKey, OSError) as error:
        raise UserError(f"{paths.k_col}: {error}; run 'tizgin central init' first") from None
    typer.echo(b64(key.public) if public else f"witness central {key.text}")


@app.command("broker-config", epilog="Example: tizgin central broker-config --config central.yaml --acl > acl")
def broker_config(
    config: Config = DEFAULT,
    acl: Annotated[bool, typer.Option("--acl", help="Print the access list instead.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8883,
    folder: Annotated[Path, typer.Option(help="Where the broker's files will lie.")] = Path("/etc/mosquitto/tizgin"),
) -> None:
    """Print the configuration of Mosquitto as a service of its own, so that orders survive central's upgrades."""
    from central.broker import acl as access
    from central.broker import conf
    from central.errors import CentralError
    from central.witnesses import broker_clients
    from wire.errors import WireError

    settings = load_settings(config)
    if acl:
        try:
            text = access.render((site.id for site in settings.sites), broker_clients(settings.witnesses))
        except (CentralError, WireError) as error:
            raise UserError(str(error)) from None
        typer.echo(text, nl=False)
        return
    files = conf.BrokerFiles(
        folder / "ca.pem", folder / "broker.pem", folder / "broker.key", folder / "acl", Path("/var/lib/mosquitto")
    )
    typer.echo(conf.render(files, host, port, user="mosquitto"), nl=False)
