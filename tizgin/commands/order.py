"""``tizgin order``: the dispatcher's side. The key stays on this computer; central only carries what was signed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tizgin.commands import _order_acts, _order_powers, _order_release
from tizgin.commands._order_common import (
    Central,
    Json,
    Key,
    Keys,
    Language,
    PassphraseFile,
    Registrar,
    Yes,
    agreed,
    as_user_errors,
    ask,
    now_ms,
    read_register,
)
from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

app = typer.Typer(
    help="The dispatcher's side: make keys, sign, send, watch orders.",
    no_args_is_help=True,
    epilog="Example: tizgin order sign --key me.pem --site ekb-01 --limit-kw 38000 --out order.json",
)
app.add_typer(_order_acts.app, name="act")
app.command()(_order_powers.declare)
app.command()(_order_powers.mandate)
app.command()(_order_release.release_plan)


@app.command()
def keygen(
    out: Annotated[Path, typer.Option(help="The new key file; never overwritten.")],
    person: Annotated[str | None, typer.Option(help="Id of the person in the register.")] = None,
    passphrase_file: PassphraseFile = None,
    json_output: Json = False,
) -> None:
    """Make a dispatcher's key (mode 0600) and print what the registrar needs.

    Example: tizgin order keygen --out me.pem --person a.serikov
    """
    from grid.keystore import PASSPHRASE_VARIABLE, create_key, find_passphrase, fingerprint

    def ask_new() -> str:
        return str(
            typer.prompt("Passphrase (empty: none)", default="", hide_input=True, confirmation_prompt=True, err=True)
        )

    with as_user_errors():
        passphrase = find_passphrase(passphrase_file, os.environ, ask_new if sys.stdin.isatty() else None)
        key = create_key(out, passphrase)
    if passphrase is None:
        typer.echo(f"{out}: no passphrase; whoever copies the file can sign (see {PASSPHRASE_VARIABLE})", err=True)
    if json_output:
        typer.echo(json.dumps({"kid": key.kid, "public": key.public.text, "person": person, "file": str(out)}))
        return
    typer.echo(f"key          {out}")
    typer.echo(f"kid          {key.kid}")
    typer.echo(f"public       {key.public.text}")
    typer.echo(f"fingerprint  {fingerprint(key.public)}")


@app.command()
def sign(
    key: Key,
    out: Annotated[Path, typer.Option(help="Where the signed order goes.")],
    file: Annotated[Path | None, typer.Argument(help="Order as YAML or JSON; options win over it.")] = None,
    add: Annotated[Path | None, typer.Option(help="Add this signature to an envelope instead of making one.")] = None,
    site: Annotated[str | None, typer.Option(help="Site id.")] = None,
    epoch: Annotated[str | None, typer.Option(help="Epoch; default: the newest one in the register.")] = None,
    action: Annotated[str | None, typer.Option(help="limit, reduce, stop, stage, open_feeders, release, …")] = None,
    mode: Annotated[str | None, typer.Option(help="live, drill or proof_test.")] = None,
    limit_kw: Annotated[str | None, typer.Option(help="kW to stay below (action limit).")] = None,
    reduce_kw: Annotated[str | None, typer.Option(help="kW to take away (action reduce).")] = None,
    permille: Annotated[int | None, typer.Option(help="Instead of kW: per mille of the contracted power.")] = None,
    stage: Annotated[int | None, typer.Option(help="Stage of the plan.")] = None,
    feeder: Annotated[list[str] | None, typer.Option(help="Feeder to open; repeat.")] = None,
    measured_at: Annotated[str | None, typer.Option(help="net_import, gross_mining or point:<id>.")] = None,
    limit_basis: Annotated[str | None, typer.Option(help="instant_1min, slot or hour_energy.")] = None,
    tolerance_kw: Annotated[str | None, typer.Option(help="kW that do not count as a breach.")] = None,
    hold_minutes: Annotated[int | None, typer.Option(help="Hold for so long.")] = None,
    until_released: Annotated[bool | None, typer.Option("--until-released", help="Hold until released.")] = None,
    restore_auto: Annotated[bool | None, typer.Option("--restore-auto", help="Return by itself at the end.")] = None,
    execute_within_s: Annotated[int | None, typer.Option(help="The site must begin within this; default 300.")] = None,
    valid_for_s: Annotated[int | None, typer.Option(help="Validity where it exceeds hold and begin.")] = None,
    ramp_kw_per_min: Annotated[str | None, typer.Option(help="Fastest change.")] = None,
    max_step_kw: Annotated[str | None, typer.Option(help="Largest single step.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="sleep, power_limit, outlet, switch; repeat.")] = None,
    escalation: Annotated[str | None, typer.Option(help="none or switch.")] = None,
    after_s: Annotated[int | None, typer.Option(help="Seconds without effect before escalation.")] = None,
    restore_stage_permille: Annotated[int | None, typer.Option(help="Share of the load per step of return.")] = None,
    restore_stage_delay_s: Annotated[int | None, typer.Option(help="Seconds between steps of return.")] = None,
    restore_max_kw_per_min: Annotated[str | None, typer.Option(help="Fastest return.")] = None,
    restore_ceiling_kw: Annotated[str | None, typer.Option(help="Return up to this and no further.")] = None,
    lease_s: Annotated[int | None, typer.Option(help="Lease of an automatic set-point.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9.")] = None,
    supersedes: Annotated[str | None, typer.Option(help="Order that this one replaces.")] = None,
    target: Annotated[str | None, typer.Option(help="Order to release, extend or cancel; 'all' for a release.")] = None,
    basis_code: Annotated[str | None, typer.Option(help="Why, as a code.")] = None,
    emergency_id: Annotated[str | None, typer.Option(help="The declared emergency.")] = None,
    text: Annotated[str | None, typer.Option(help="Why, in words.")] = None,
    dispatch_no: Annotated[str | None, typer.Option(help="Number in the dispatcher's journal.")] = None,
    given_by: Annotated[str | None, typer.Option(help="Who gave it.")] = None,
    dispatch_name: Annotated[str | None, typer.Option(help="Dispatch name of the equipment.")] = None,
    declaration: Annotated[
        Path | None, typer.Option(help="Emergency declaration («Авария») of two persons, to shed alone within its cap.")
    ] = None,
    central: Annotated[
        str | None,
        typer.Option(help="Ask this central for the site's newest checkpoint, which the order then carries."),
    ] = None,
    keys: Keys = None,
    registrar: Registrar = None,
    passphrase_file: PassphraseFile = None,
    language: Language = "en",
    yes: Yes = False,
    json_output: Json = False,
) -> int | None:
    """Make an order, show it decoded, and sign it.

    Example: tizgin order sign --key me.pem --site ekb-01 --epoch e1-0a1b2c3d --limit-kw 38000 --out order.json
    """
    options = dict(locals())
    from contextlib import nullcontext

    from grid.acts import write_envelope
    from grid.client import CentralClient
    from grid.heads import Heads
    from grid.keystore import load_key
    from grid.ordering import OPTION_NAMES, add_signature, new_order, read_order
    from grid.powers import power_text
    from grid.registrar.register import load_yaml
    from grid.sequence import Sequence
    from wire.dsse import ORDER_TYPE, seal
    from wire.powers import Declaration

    with as_user_errors():
        options["declaration"] = None if declaration is None else power_text(declaration, Declaration)
        register = read_register(keys, registrar)
        signer = load_key(key, passphrase_file=passphrase_file, environment=os.environ, ask=ask())
        sequence = Sequence(key, signer.kid)
        if add is not None:
            signed = read_order(add)
            _show_order(signed.order, language, register, [*(k for k, _ in signed.envelope.signatures), signer.kid])
            if not agreed(yes):
                return EXIT_PROBLEM
            envelope = add_signature(signed, signer, sequence, register)
            order = signed.order
        else:
            fields = load_yaml(file) if file is not None else {}
            given = {name: options[source] for name, source in OPTION_NAMES.items() if options[source] is not None}
            with CentralClient(central) if central is not None else nullcontext() as client:
                order = new_order(
                    {**fields, **given},
                    register=register,
                    sequence=sequence,
                    now_ms=now_ms(),
                    heads=Heads(key),
                    central=client,
                )
            _show_order(order, language, register, [signer.kid])
            if not agreed(yes):
                return EXIT_PROBLEM
            envelope = seal(ORDER_TYPE, order.encode(), signer)
        write_envelope(out, envelope)
    if json_output:
        doc = {"id": order.id, "site": order.site, "seq": order.seq, "kids": [k for k, _ in envelope.signatures]}
        typer.echo(json.dumps({**doc, "file": str(out)}))
    else:
        typer.echo(f"{out}: order {order.id} signed by {', '.join(k for k, _ in envelope.signatures)}")
    return None


def _show_order(order: Any, language: str, register: Any, kids: list[str]) -> None:
    """Print the decoded order for the person, on standard error: standard output carries results."""
    from grid.call import DRILL
    from grid.texts import LANGUAGES, load_texts
    from grid.words import describe, signer_text

    if order.mode == "drill":
        typer.echo(f"*** {DRILL} ***", err=True)
    if language not in LANGUAGES:
        raise UserError(f"--lang {language!r}: expected one of {', '.join(LANGUAGES)}", exit_code=EXIT_WRONG_USE)
    signers = "; ".join(signer_text(kid, register) for kid in dict.fromkeys(kids))
    rows = describe(order, load_texts(language), signers=signers)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        typer.echo(f"  {label:<{width}}  {value}", err=True)


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="A signed order.", show_default=False)],
    central: Annotated[str, typer.Option(help="Central's address, http(s)://host:port.")],
    json_output: Json = False,
) -> None:
    """Hand a signed order to central, which carries it to the site.

    Example: tizgin order send order.json --central http://127.0.0.1:8080
    """
    from grid.client import CentralClient
    from grid.ordering import read_order

    with as_user_errors():
        signed = read_order(file)
        with CentralClient(central) as client:
            answer = client.post_order(signed.raw)
    if json_output:
        typer.echo(json.dumps({"id": signed.order.id, "site": signed.order.site, "central": answer}))
    else:
        typer.echo(
            f"central has order {signed.order.id} for {signed.order.site}; watch it: "
            f"tizgin order show --central {central} --id {signed.order.id}"
        )


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="A signed order.")] = None,
    central: Central = None,
    order_id: Annotated[str | None, typer.Option("--id", help="Order to fetch from central.")] = None,
    keys: Keys = None,
    registrar: Registrar = None,
    language: Language = "en",
    json_output: Json = False,
) -> int | None:
    """Decode an order; with a register, check who signed it and verify the site's signed answers.

    Exits 1 where something does not verify, the site refused, or nothing came back in time.
    Example: tizgin order show --central http://127.0.0.1:8080 --id ID --keys keys.json --registrar reg.pub
    """
    from grid.client import CentralClient
    from grid.ordering import fetch_order, read_order, story_json
    from grid.story import tell

    if file is None and not (central and order_id):
        raise UserError("give FILE, or --central with --id", exit_code=EXIT_WRONG_USE)
    with as_user_errors():
        register = read_register(keys, registrar)
        lines: list[str] = []
        signed = read_order(file) if file is not None else None
        if central:
            with CentralClient(central) as client:
                signed, lines = fetch_order(client, order_id or (signed.order.id if signed else ""), mine=signed)
        if signed is None:
            raise UserError("no order", exit_code=EXIT_WRONG_USE)
        who = _check_signers(signed, register)
    story = tell(signed, lines, register) if register is not None else None
    late = bool(central and story and story.not_delivered(signed_ms=signed.order.issued_at, now_ms=now_ms()))
    if json_output:
        typer.echo(json.dumps(story_json(signed, who, story, not_delivered=late), ensure_ascii=False))
    else:
        _print_story(signed, register, story, language, late=late, unverified=len(lines) if story is None else 0)
    wrong = who["bad"] or late or (story is not None and (story.refused or story.state in {"rejected", "failed"}))
    return EXIT_PROBLEM if wrong else None


def _check_signers(signed: Any, register: Any) -> dict[str, Any]:
    from wire.errors import WireError

    kids = [kid for kid, _ in signed.envelope.signatures]
    if register is None:
        return {"kids": kids, "verified": [], "bad": None}
    try:
        return {"kids": kids, "verified": list(signed.envelope.verify(register.verify_keys())), "bad": None}
    except WireError as error:
        return {"kids": kids, "verified": [], "bad": str(error)}


def _print_story(signed: Any, register: Any, story: Any, language: str, *, late: bool, unverified: int) -> None:
    from grid.call import script
    from grid.progress import completion_text, report_text, returned_text, steps, trial_text
    from grid.texts import load_texts

    _show_order(signed.order, language, register, [kid for kid, _ in signed.envelope.signatures])
    t = load_texts(language)
    if unverified:
        typer.echo(f"{unverified} answers not shown: without --keys and --registrar they cannot be verified", err=True)
    if story is None:
        return
    for at, what, kid in steps(story, t):
        typer.echo(f"{at}  {what}  [{t('verified by site key {kid}', kid=kid)}]")
    for refused in story.refused:
        typer.echo(f"{t('REFUSED ANSWER')}: {refused.why}")
    if late:
        typer.echo(t("NOT DELIVERED — CALL"))
        for line in script(signed.order, t):
            typer.echo(f"  {line}")
    if story.trial is not None:
        typer.echo(trial_text(story.trial, t))
    for said in (completion_text(story, t), returned_text(story, t), report_text(story, t)):
        if said is not None:
            typer.echo(said)


@app.command()
def desk(
    central: Annotated[str, typer.Option(help="Central's address, http(s)://host:port.")],
    key: Key,
    keys: Annotated[Path, typer.Option(help="The signed register (keys.json).")],
    registrar: Annotated[str, typer.Option(help="The registrar's public key: base64, or a file with it.")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 picks a free one.", min=0, max=65535)] = 0,
    passphrase_file: PassphraseFile = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write {url} as JSON (mode 0600) there when the page is up.")
    ] = None,
) -> None:
    """The order desk: a page on this computer alone, from this installation.

    Example: tizgin order desk --central http://127.0.0.1:8080 --key me.pem --keys keys.json --registrar reg.pub
    """
    from grid.desk.run import run_desk
    from grid.keystore import load_key

    with as_user_errors():
        register = read_register(keys, registrar)
        signer = load_key(key, passphrase_file=passphrase_file, environment=os.environ, ask=ask())

        def started(url: str) -> None:
            typer.echo(f"order desk: {url}")
            if ready_file is not None:
                from grid.files import replace_file

                replace_file(ready_file, json.dumps({"url": url}).encode(), mode=0o600)

        run_desk(
            central=central, signer=signer, key_file=key, register=register, port=port, now_ms=now_ms, started=started
        )


@app.command("reading")
def own_reading(
    key: Key,
    out: Annotated[Path, typer.Option(help="Where the signed reading goes.")],
    site: Annotated[str, typer.Option(help="Site id.")],
    point: Annotated[str, typer.Option(help="Metering point.")],
    period: Annotated[str, typer.Option(help="A/B, ISO 8601, on the grid of slots; UTC+5 without an offset.")],
    kwh: Annotated[str, typer.Option(help="Energy taken over it, kWh.")],
    source: Annotated[str, typer.Option(help="Where it comes from: system, meter, register.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign the system operator's own reading of a meter, for whoever verifies the site's evidence.

    Example: tizgin order reading --key me.pem --site ekb-01 --point M1 --period 2026-10-01/2026-11-01 --kwh 3412605.0
    --source ASKUE --out m1.json
    """
    from grid.acts import write_envelope
    from grid.keystore import load_key
    from grid.readings import sign_reading
    from tizgin.commands._display import instant, kwh_to_wh

    first, _, last = period.partition("/")
    span = {"from_s": instant(first) // 1000, "to_s": instant(last) // 1000}
    with as_user_errors():
        signer = load_key(key, passphrase_file=passphrase_file, environment=os.environ, ask=ask())
        envelope = sign_reading(site=site, point=point, wh=kwh_to_wh(kwh), source=source, key=signer, **span)
        write_envelope(out, envelope)
    typer.echo(f"{out}: {kwh} kWh at {site} {point} over {period}, signed by {signer.kid}")
