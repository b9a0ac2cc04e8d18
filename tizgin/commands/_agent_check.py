"""Body of ``tizgin agent check``: read the file, check it with the shipped profiles, print the verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from config.balance import BalanceScheme
from config.check import CheckResult, Output, ProfileFacts, check
from config.loader import read_site
from config.problems import ConfigError, Problem
from config.rules.passports import local_day
from config.site import Site
from tizgin.errors import EXIT_OK, EXIT_PROBLEM


def check_file(path: Path, *, as_json: bool) -> int:
    """Check one site file and print. Returns the exit code: 0 without errors, else 1."""
    token: dict[str, Any] | None = None
    try:
        loaded = read_site(path)
    except ConfigError as error:
        result = CheckResult(error.problems, ())
    else:
        today = local_day(int(time.time()))
        result = check(loaded.value, source=loaded.source, profiles=ProfileCatalogue(), today=today)
        token = ask_token(loaded.value, path)
    if as_json:
        typer.echo(json.dumps(as_dict(result) | {"token": token}, ensure_ascii=False))
    else:
        _print(result, path.name)
        if token is not None:
            typer.echo(_token_told(token))
    return EXIT_OK if result.ok else EXIT_PROBLEM


def ask_token(site: Site, path: Path) -> dict[str, Any] | None:
    """The token of the log key as it answers here and now; ``None`` where the site file names none.

    Logs in with the PIN and has the key sign. What it finds is no error of the file: another machine has no token.
    """
    from agent.hsm.key import TRIAL, look, token_of
    from agent.hsm.process import TokenError

    token = token_of(site, path.parent)
    if token is None:
        return None
    found: dict[str, Any] = {"token": token.label, "present": False, "key": None, "signs": False, "why": None}
    try:
        key = look(token)
        found["present"] = True
        if key is None:
            found["why"] = f"no key {token.key!r} in it yet: 'tizgin agent enroll' or 'agent rotate' makes it"
        else:
            found["key"] = key.kid
            key.sign_now(TRIAL)
            found["signs"] = True
    except TokenError as error:
        found["present"] = found["present"] or error.code in {"pin", "key"}
        found["why"] = str(error)
    return found


def _token_told(found: dict[str, Any]) -> str:
    parts = ("present" if found["present"] else "not reached", f"key {found['key'] or 'not found'}")
    signs = "signs" if found["signs"] else "does not sign"
    return f"token {found['token']}: {', '.join(parts)}, {signs}" + (f"; {found['why']}" if found["why"] else "")


SUNSPEC = frozenset({"sunspec-meter", "sunspec-meter-float"})


class ProfileCatalogue:
    """Profile id → what the checks need to know of it, read once each."""

    def __init__(self) -> None:
        self._known: dict[str, ProfileFacts | None] = {}

    def __call__(self, profile_id: str) -> ProfileFacts | None:
        """Facts of a profile, or None where there is none of that id (or file)."""
        if profile_id not in self._known:
            self._known[profile_id] = _modbus_facts(profile_id) or _pdu_facts(profile_id)
        return self._known[profile_id]


def _modbus_facts(profile_id: str) -> ProfileFacts | None:
    from drivers.errors import ProfileError
    from drivers.profiles import RelayProfile, load_profile

    try:
        profile = load_profile(profile_id)
    except ProfileError:
        return None
    if not isinstance(profile, RelayProfile):
        energy = next((p for p in profile.points if p.id == "energy_import_wh"), None)
        # A SunSpec meter says the scale of its counters when it is asked.
        counts = None if profile_id in SUNSPEC else energy is not None and energy.evidence
        return ProfileFacts(profile.kind, counts_energy=counts)
    return ProfileFacts(
        kind=profile.kind,
        outputs={output.id: output.times_itself for output in profile.outputs},
        inputs={found.id: found.latched or found.counter is not None for found in profile.inputs},
        counted=frozenset(found.id for found in profile.inputs if found.counter is not None),
        temperatures=frozenset(found.id for found in profile.temperatures),
        commands=frozenset(output.id for output in profile.outputs if output.table == "command"),
        pulse_unit_ms={
            output.id: output.pulse.unit_ms
            for output in profile.outputs
            if output.pulse is not None and output.pulse.unit_ms is not None
        },
        settings=frozenset(setting.id for setting in profile.settings),
    )


def _pdu_facts(profile_id: str) -> ProfileFacts | None:
    from drivers.errors import ProfileError
    from drivers.snmp.profile import load_pdu_profile

    try:
        profile = load_pdu_profile(profile_id)
    except ProfileError:
        return None
    outlets = profile.outlets
    switchable = outlets.maximum if outlets is not None and outlets.open is not None else 0
    return ProfileFacts("pdu", outputs={str(n): False for n in range(1, switchable + 1)}, inputs={})


def as_dict(result: CheckResult) -> dict[str, Any]:
    """The shape of ``--json``."""
    return {
        "ok": result.ok,
        "problems": [
            {
                "severity": problem.severity,
                "where": problem.where,
                "message": problem.message,
                "file": problem.file,
                "line": problem.line,
            }
            for problem in result.problems
        ],
        "outputs": [
            {
                "id": output.id,
                "dark": list(output.dark),
                "dark_w": output.dark_w,
                "usable": output.usable,
                "why": output.why,
                "proved_by": output.proved_by,
            }
            for output in result.outputs
        ],
        "balance": _balance(result.balance),
    }


def _balance(scheme: BalanceScheme | None) -> dict[str, Any] | None:
    if scheme is None:
        return None
    names = ("main", "transit", "feeders", "unmetered", "twice", "without_data")
    lists = {name: list(getattr(scheme, name)) for name in names}
    return {"possible": scheme.possible, "why_not": scheme.why_not, **lists}


def _told(scheme: BalanceScheme) -> str:
    """The balance in one line."""
    if not scheme.possible:
        return f"balance: none: {scheme.why_not}"
    transit = f" less {', '.join(scheme.transit)}" if scheme.transit else ""
    text = f"balance: {', '.join(scheme.main)}{transit} against {', '.join(scheme.feeders)}"
    if scheme.without_data:
        text += f"; losses are not known: no complete passport data of {', '.join(scheme.without_data)}"
    return text


def _print(result: CheckResult, name: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    _problems(console, "errors", result.errors, "red")
    _problems(console, "warnings", result.warnings, "yellow")
    if result.outputs:
        Console(highlight=False).print(_table(result.outputs))
    if result.balance is not None:
        console.print(escape(_told(result.balance)))
    usable = [output for output in result.outputs if output.usable]
    watts = sum(output.dark_w for output in usable)
    verdict = "can be used" if result.ok else "cannot be used"
    console.print(
        f"{escape(name)}: {verdict}: {len(result.errors)} errors, {len(result.warnings)} warnings, "
        f"{len(usable)} of {len(result.outputs)} outputs usable ({watts / 1e6:.2f} MW rated behind them)"
    )


def _problems(console: Console, title: str, problems: Sequence[Problem], colour: str) -> None:
    if problems:
        console.print(f"[{colour}]{title}[/{colour}]")
    for problem in problems:
        console.print(f"  {escape(str(problem))}")


def _table(outputs: Sequence[Output]) -> Table:
    table = Table(title="Outputs, in the normal positions")
    table.add_column("output")
    table.add_column("goes dark", overflow="fold")
    table.add_column("MW", justify="right")
    table.add_column("proved by")
    table.add_column("usable", overflow="fold")
    for output in outputs:
        table.add_row(
            escape(output.id),
            escape(", ".join(name for name in output.dark if name != output.id)),
            f"{output.dark_w / 1e6:.3f}",
            escape(output.proved_by or "-"),
            "yes" if output.usable else escape(f"no: {output.why}"),
        )
    return table
