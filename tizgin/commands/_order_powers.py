"""``tizgin order declare`` and ``tizgin order mandate``: what two persons sign for an emergency, or for a gateway."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from tizgin.commands._order_common import (
    Json,
    Key,
    Language,
    PassphraseFile,
    Yes,
    agreed,
    as_user_errors,
    ask,
    now_ms,
    read_register,
)
from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

MAX_DECLARATION_HOURS = 24
MAX_MANDATE_HOURS = 168

Out = Annotated[Path, typer.Option(help="Where the signed document goes.")]
Register = Annotated[Path, typer.Option("--keys", help="The signed register (keys.json).")]
RegistrarKey = Annotated[str, typer.Option("--registrar", help="The registrar's public key: base64, or a file.")]
Countersign = Annotated[
    Path | None, typer.Option(help="Sign this file of the first person as the second; no other field is given then.")
]
Zone = Annotated[list[str] | None, typer.Option(help="Zone in which it holds; repeat.")]


def declare(
    key: Key,
    out: Out,
    keys: Register,
    registrar: RegistrarKey,
    zone: Zone = None,
    cap_kw: Annotated[str | None, typer.Option(help="Most that one signature may shed at each site.")] = None,
    hours: Annotated[int, typer.Option(min=1, max=MAX_DECLARATION_HOURS, help="How long it lives.")] = 2,
    text: Annotated[str | None, typer.Option(help="What has happened.")] = None,
    countersign: Countersign = None,
    passphrase_file: PassphraseFile = None,
    language: Language = "en",
    yes: Yes = False,
    json_output: Json = False,
) -> int | None:
    """Declare an emergency («Авария»): while it lives, one signature sheds within its cap. Two persons sign.

    Example: tizgin order declare --key me.pem --zone north --cap-kw 50000 --text "Line tripped" --out avaria.json
    --keys keys.json --registrar registrar.pub
    """
    from wire.powers import Declaration

    given = {"zones": zone, "cap_w": _watt("--cap-kw", cap_kw), "text": text}
    signing = (key, out, keys, registrar, countersign, passphrase_file, language)
    return _sign(Declaration, given, hours * 60, signing, yes=yes, json_output=json_output)


def mandate(
    key: Key,
    out: Out,
    keys: Register,
    registrar: RegistrarKey,
    plan: Annotated[Path | None, typer.Option(help="Plan file; its id and zones go into the mandate.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Identifier (kid) of the gateway's key.")] = None,
    band_kw: Annotated[str | None, typer.Option(help="How far the total may be off the plan.")] = None,
    max_cut_kw: Annotated[str | None, typer.Option(help="Most that one site may be made to shed.")] = None,
    max_step_kw: Annotated[str | None, typer.Option(help="Largest step of one order.")] = None,
    max_ramp_kw_per_min: Annotated[str | None, typer.Option(help="Fastest shedding.")] = None,
    hours: Annotated[int, typer.Option(min=1, max=MAX_MANDATE_HOURS, help="How long it is valid.")] = 12,
    countersign: Countersign = None,
    passphrase_file: PassphraseFile = None,
    language: Language = "en",
    yes: Yes = False,
    json_output: Json = False,
) -> int | None:
    """Let a gateway order the sites of one plan within bounds. Two persons sign; it never gives load back.

    Example: tizgin order mandate --key me.pem --plan plan.yaml --gateway 0123456789abcdef --band-kw 2000
    --max-cut-kw 30000 --max-step-kw 5000 --max-ramp-kw-per-min 20000 --out mandate.json --keys keys.json
    --registrar registrar.pub
    """
    from wire.powers import Mandate

    given: dict[str, Any] = {
        "plan": None,
        "zones": None,
        "gateway": gateway,
        "actions": ["limit"],
        "band_w": _watt("--band-kw", band_kw),
        "max_cut_w": _watt("--max-cut-kw", max_cut_kw),
        "max_step_w": _watt("--max-step-kw", max_step_kw),
        "max_ramp_w_per_min": _watt("--max-ramp-kw-per-min", max_ramp_kw_per_min),
    }
    if plan is not None:
        from grid.gateway.plan import load_plan

        with as_user_errors():
            loaded = load_plan(plan, now_ms=now_ms())
        given |= {"plan": loaded.id, "zones": list(loaded.zones)}
    signing = (key, out, keys, registrar, countersign, passphrase_file, language)
    if countersign is not None:
        del given["actions"]
    return _sign(Mandate, given, hours * 60, signing, yes=yes, json_output=json_output)


def _watt(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    from grid.compose import watt

    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise UserError(f"{option} {text!r}: expected a number of kW", exit_code=EXIT_WRONG_USE)
    with as_user_errors():
        return watt(number)


def _sign(
    model: Any,
    given: Mapping[str, Any],
    minutes: int,
    signing: tuple[Path, Path, Path, str, Path | None, Path | None, str],
    *,
    yes: bool,
    json_output: bool,
) -> int | None:
    """Compose and sign as the first, or open and sign as the second person."""
    from grid.acts import write_envelope
    from grid.keystore import load_key
    from grid.powers import compose_power, describe_power, read_power, sign_power_first, signers_of
    from grid.powers import countersign as sign_second
    from grid.texts import LANGUAGES, load_texts

    key, out, keys, registrar, second, passphrase_file, language = signing
    if language not in LANGUAGES:
        raise UserError(f"--lang {language!r}: expected one of {', '.join(LANGUAGES)}", exit_code=EXIT_WRONG_USE)
    fields = {name: value for name, value in given.items() if value is not None}
    with as_user_errors():
        register = read_register(keys, registrar)
        signer = load_key(key, passphrase_file=passphrase_file, environment=os.environ, ask=ask())
        if second is not None:
            if fields:
                raise UserError(
                    f"--countersign signs the file as it is; leave {', '.join(sorted(fields))} out",
                    exit_code=EXIT_WRONG_USE,
                )
            power, before = read_power(second, model)
            envelope = sign_second(power, before, signer, register, now_ms=now_ms())
        else:
            power = compose_power(model, fields, now_ms=now_ms(), minutes=minutes)
            envelope = sign_power_first(power, signer, register)
        # What was refused above is not shown; what is shown here is signed, and written only when it was agreed to.
        rows = describe_power(power, load_texts(language))
        width = max(len(label) for label, _ in rows)
        for label, value in rows:
            typer.echo(f"  {label:<{width}}  {value}", err=True)
        typer.echo(f"  {load_texts(language)('Signed by'):<{width}}  {signers_of(envelope, register)}", err=True)
        if not agreed(yes):
            return EXIT_PROBLEM
        write_envelope(out, envelope)
    kids = [kid for kid, _ in envelope.signatures]
    if json_output:
        typer.echo(json.dumps({"id": power.id, "kids": kids, "complete": len(kids) > 1, "file": str(out)}))
    else:
        last = "" if len(kids) > 1 else "; a second person signs it with --countersign"
        typer.echo(f"{out}: {power.id} signed by {', '.join(kids)}{last}")
    return None
