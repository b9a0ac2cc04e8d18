"""``tizgin order release-plan``: persons give back what a gateway ordered off, in one review and one act."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tizgin.commands._order_common import Json, Language, Yes, agreed, as_user_errors, ask, now_ms, read_register
from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

LOOK_S = 1.0


def release_plan(
    plan: Annotated[str, typer.Argument(help="Id of the plan, or its file.", show_default=False)],
    central: Annotated[str, typer.Option(help="Central's address, http(s)://host:port.")],
    key: Annotated[list[Path], typer.Option(help="Key of the person; repeat for a second person.")],
    keys: Annotated[Path, typer.Option(help="The signed register (keys.json).")],
    registrar: Annotated[str, typer.Option(help="The registrar's public key: base64, or a file with it.")],
    out: Annotated[Path, typer.Option(help="Folder of the signed releases; run again with it, they go out again.")],
    zone: Annotated[list[str] | None, typer.Option(help="Only sites of this zone; repeat.")] = None,
    journal: Annotated[
        Path | None,
        typer.Option(help="The gateway's data_dir, where it is at hand: central cannot hide an order then."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Why, in words.")] = None,
    dispatch_no: Annotated[str | None, typer.Option(help="Number in the dispatcher's journal.")] = None,
    given_by: Annotated[str | None, typer.Option(help="Who gave it.")] = None,
    wait_s: Annotated[int, typer.Option(min=1, max=600, help="How long to wait for the sites' answers.")] = 60,
    passphrase_file: Annotated[
        list[Path] | None, typer.Option(help="File (mode 0600) with a key's passphrase; one for each --key, in order.")
    ] = None,
    language: Language = "en",
    yes: Yes = False,
    json_output: Json = False,
) -> int | None:
    """Release every live order of a gateway's plan, each site at its part of the zone's return.

    Exits 1 where a site did not sign that it returns, or load of the plan stays off.
    Example: tizgin order release-plan plan.yaml --central http://127.0.0.1:8080 --key me.pem --keys keys.json
    --registrar reg.pub --out back-118
    """
    from grid.client import CentralClient
    from grid.files import locked
    from grid.release.act import Signer, check_signers, kept, open_kept, sign_all
    from grid.release.carry import Carrier
    from grid.release.collect import review
    from grid.release.pace import paces
    from grid.texts import LANGUAGES

    if language not in LANGUAGES:
        raise UserError(f"--lang {language!r}: expected one of {', '.join(LANGUAGES)}", exit_code=EXIT_WRONG_USE)
    words = {"text": text, "dispatch_no": dispatch_no, "given_by": given_by}
    with as_user_errors():
        plan_id = _plan_id(plan)
        register = read_register(keys, registrar)
        signers = [Signer(_key(one, number, passphrase_file), one) for number, one in enumerate(key)]
        check_signers(signers, register, now_ms())
        with locked(open_kept(out)), CentralClient(central) as client:
            zones = None if zone is None else _zones(zone, register)
            kids = [signer.key.kid for signer in signers]
            issued = {} if journal is None else _issued(journal, plan_id)
            found = review(client, register, plan_id, zones=zones, kids=kids, now_ms=now_ms(), issued=issued)
            releases = {
                target: signed
                for target, signed in kept(out, plan_id, register).items()
                if zones is None or ((entry := register.site(signed.order.site)) is not None and entry.zone in zones)
            }
            made = [pace for pace in paces(found.live, register) if pace.found.id not in releases]
            _show(found, made, releases, register)
            if not made and not releases:
                raise UserError(f"plan {plan_id}: nothing to release")
            if made:
                if not agreed(yes):
                    return EXIT_PROBLEM
                releases |= sign_all(
                    made, out, plan=plan_id, signers=signers, register=register, words=words, central=client,
                    now_ms=now_ms(),
                )  # fmt: skip
            carrier = Carrier(client, register, releases)
            until = time.monotonic() + wait_s
            while not carrier.look(now_ms()) and time.monotonic() < until:
                time.sleep(LOOK_S)
            results = carrier.finish(found.phones)
    return _tell(found, releases, results, language, json_output=json_output)


def _plan_id(text: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from grid.gateway.plan import load_plan
    from wire.orders import Uuid

    try:
        return str(TypeAdapter(Uuid).validate_python(text))
    except ValidationError:
        if not Path(text).is_file():
            raise UserError(
                f"plan {text[:80]!r}: neither a plan's id (UUID version 7) nor a file", exit_code=EXIT_WRONG_USE
            ) from None
    return load_plan(Path(text), now_ms=now_ms()).id


def _issued(journal: Path, plan_id: str) -> dict[str, list[str]]:
    """Site → orders of the plan that the gateway knows to stand."""
    from grid.gateway.preview import story

    found: dict[str, list[str]] = {}
    for row in story(journal, plan_id)["release"]:
        found.setdefault(row["site"], []).append(row["order"])
    return found


def _key(file: Path, number: int, passphrases: list[Path] | None) -> Any:
    from grid.keystore import load_key

    passphrase = passphrases[number] if passphrases is not None and number < len(passphrases) else None
    return load_key(file, passphrase_file=passphrase, environment=os.environ, ask=ask())


def _zones(names: list[str], register: Any) -> set[str]:
    known = {site.zone for site in register.sites}
    strange = sorted(set(names) - known)
    if strange:
        raise UserError(
            f"--zone {', '.join(strange)}: the register has {', '.join(sorted(known))}", exit_code=EXIT_WRONG_USE
        )
    return set(names)


def _kw(watt: int | None) -> str:
    return "not known" if watt is None else f"{watt / 1000:g} kW"


def _rate(watt: int | None) -> str:
    return "not bounded" if watt is None else f"{watt / 1000:g} kW/min"


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _show(found: Any, made: Any, releases: Mapping[str, Any], register: Any) -> None:
    """The whole act before it is signed, on standard error: standard output carries results."""
    from grid.words import local_time

    say = [f"plan {found.plan}"]
    for pace in made:
        order = pace.found
        wait = f"begins {pace.delay_ms // 1000} s after" if pace.delay_ms else "begins at once"
        say.append(f"  {order.site.id}  {order.id}  off {_kw(order.off_w)}  back {_rate(pace.rate_w)}  {wait}")
    for target, signed in releases.items():
        say.append(f"  {signed.order.site}  {target}  signed {local_time(signed.order.issued_at)}: the same goes again")
    for name in sorted({pace.found.site.zone for pace in made}):
        rows = [pace for pace in made if pace.found.site.zone == name]
        zone = register.zone(name)
        bound = _rate(zone.max_return_w_per_min if zone is not None else None)
        off, rate = _sum([row.found.off_w for row in rows]), _sum([row.rate_w for row in rows])
        sites = len({row.found.site.id for row in rows})
        say.append(f"zone {name}: {sites} sites, off {_kw(off)}, back {_rate(rate)}, the zone's bound {bound}")
    say.append(f"total: {len(made)} releases to sign, off {_kw(_sum([pace.found.off_w for pace in made]))}")
    say += [f"left out: {left.site}  {left.order or '-'}  {left.why}" for left in found.left]
    for line in say:
        typer.echo(line, err=True)


def _tell(
    found: Any, releases: Mapping[str, Any], results: Mapping[str, Any], language: str, *, json_output: bool
) -> int | None:
    from grid.texts import load_texts
    from grid.words import given_back, local_time

    good = [target for target in releases if results[target].code == "validated"]
    held = {left.site for left in found.left if left.held}
    site_of = {target: signed.order.site for target, signed in releases.items()}
    back = {site_of[target] for target in good}
    line = given_back(
        now_ms(),
        len(back),
        len(held | set(site_of.values())),
        _sum([found.off_w.get(target) for target in good]),
        _sum([releases[target].order.restore.max_w_per_min for target in good]),
        load_texts(language),
    )
    whole = len(good) == len(releases) and not held
    if json_output:
        rows = [
            {"site": signed.order.site, "order": target, "release": signed.order.id, "off_w": found.off_w.get(target),
             "max_w_per_min": signed.order.restore.max_w_per_min, "not_before": signed.order.not_before,
             "result": results[target].code, "text": results[target].text, "at": results[target].at}
            for target, signed in releases.items()
        ]  # fmt: skip
        left = [{"site": o.site, "order": o.order, "code": o.code, "why": o.why, "held": o.held} for o in found.left]
        doc = {"plan": found.plan, "releases": rows, "left_out": left, "complete": whole, "line": line}
        typer.echo(json.dumps(doc, ensure_ascii=False))
    else:
        for target, signed in releases.items():
            result = results[target]
            at = "" if result.at is None else f"{local_time(result.at)}  "
            typer.echo(f"  {signed.order.site}  {at}{result.code}  {result.text}  {target}")
        typer.echo(line)
    return None if whole else EXIT_PROBLEM
