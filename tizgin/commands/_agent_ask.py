"""Bodies of the sub-commands that ask or tell a running agent."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from agent.errors import AgentError
from agent.inbox import hand_in
from config.check import check
from config.fingerprint import output_fingerprint
from config.nodes import Switch
from config.site import Site
from drivers.profiles import load_profile
from tizgin.commands._agent_check import ProfileCatalogue
from tizgin.commands._agent_run import read_site
from tizgin.errors import EXIT_OK, EXIT_PROBLEM, UserError

OLD_S = 10.0


def _state_dir(path: Path, site: Site) -> Path:
    return path.resolve().parent / site.agent.state_dir


def _status(path: Path) -> dict[str, Any]:
    file = _state_dir(path, read_site(path)) / "status.json"
    try:
        age = time.time() - file.stat().st_mtime
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: no status ({error}); is the agent of this site running?") from None
    if age > OLD_S:
        raise UserError(f"{file}: {age:.0f} s old, written every 2 s by a running agent; the agent is not running")
    return found


def show_status(path: Path, *, as_json: bool) -> int:
    """Print the running agent's status."""
    status = _status(path)
    if as_json:
        typer.echo(json.dumps(status))
    else:
        table = Table("", "", show_header=False, box=None)
        for name, value in status.items():
            table.add_row(name, json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value)
        Console().print(table)
    return EXIT_OK if status.get("ok") else EXIT_PROBLEM


def show_mode(path: Path) -> int:
    """Print the effective mode."""
    typer.echo(_status(path)["mode"])
    return EXIT_OK


def outputs_of(site: Site) -> list[dict[str, Any]]:
    """Every usable output: fingerprint, the meter that proves it, and the rated power behind it, W."""
    result = check(site, profiles=ProfileCatalogue())
    switches = {n.id for n in site.nodes if isinstance(n, Switch) and n.control is not None}
    return [
        {
            "output": known.id,
            "fingerprint": output_fingerprint(site, known.id, _version),
            "meter": known.proved_by,
            "expected_w": known.dark_w,
            "usable": known.usable,
            "why": known.why,
        }
        for known in result.outputs
        if known.id in switches
    ]


def _version(profile: str) -> str:
    from drivers.errors import ProfileError

    try:
        return str(load_profile(profile).version)
    except ProfileError:
        import hashlib

        from drivers.snmp.profile import load_pdu_profile

        return hashlib.sha256(load_pdu_profile(profile).model_dump_json().encode()).hexdigest()[:16]


def show_outputs(path: Path, *, as_json: bool) -> int:
    """Print the outputs."""
    found = outputs_of(read_site(path))
    if as_json:
        typer.echo(json.dumps(found))
        return EXIT_OK
    table = Table("output", "meter", "rated kW behind", "fingerprint", "usable")
    for row in found:
        usable = "yes" if row["usable"] else str(row["why"])
        table.add_row(
            row["output"], str(row["meter"]), f"{row['expected_w'] / 1000:.1f}", row["fingerprint"][:16], usable
        )
    Console().print(table)
    return EXIT_OK


def hand(path: Path, name: str, raw: bytes) -> int:
    """Put something into the running agent's inbox and print its answer. Returns the exit code."""
    try:
        good, text = asyncio.run(hand_in(_state_dir(path, read_site(path)), name, raw))
    except (AgentError, OSError) as error:
        raise UserError(str(error)) from None
    typer.echo(text, err=not good)
    return EXIT_OK if good else EXIT_PROBLEM


def hand_act(path: Path, file: Path) -> int:
    """Hand a signed act in."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    return hand(path, f"act-{secrets.token_hex(4)}", raw)


def tag_object(path: Path, obj: str, who: str, reason: str, *, remove: bool) -> int:
    """Hang or take off a tag."""
    site = read_site(path)
    if obj not in {n.id for n in site.nodes if isinstance(n, Switch)}:
        raise UserError(f"{obj}: no such switch in {path.name}", exit_code=2)
    if not remove and not reason:
        raise UserError("a tag needs --reason (permit number, work)", exit_code=2)
    order = {"ty": "untag" if remove else "tag", "object": obj, "who": who, "reason": reason}
    return hand(path, f"tag-{secrets.token_hex(4)}", json.dumps(order).encode())
