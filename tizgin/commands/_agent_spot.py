"""Body of ``tizgin agent spot``: a person reads a display, the running agent the registers."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tizgin.commands._agent_ask import hand
from tizgin.commands._agent_run import read_site
from tizgin.commands._display import digest, instant, reading
from tizgin.errors import UserError


@dataclass(frozen=True, slots=True)
class Seen:
    """What the person at the meter says, as typed."""

    point: str | None
    display: str | None
    at: str | None
    who: str | None
    organisation: str | None
    role: str | None
    serial: str | None
    seals: tuple[str, ...]
    photo: Path | None


def spot(path: Path, seen: Seen, act: Path | None) -> int:
    """Hand a spot reading in to the running agent. Returns the exit code."""
    body = _unsigned(path, seen) if act is None else _signed(seen, act)
    return hand(path, f"spot-{secrets.token_hex(4)}", json.dumps({"ty": "spot"} | body).encode())


def _signed(seen: Seen, act: Path) -> dict[str, Any]:
    if any(getattr(seen, name) for name in Seen.__slots__):
        raise UserError("--act says everything that was seen: give it alone", exit_code=2)
    try:
        raw = act.read_bytes().strip()
    except OSError as error:
        raise UserError(f"{act}: cannot be read: {error.strerror}", exit_code=2) from None
    return {"act": base64.b64encode(raw).decode()}


def _unsigned(path: Path, seen: Seen) -> dict[str, Any]:
    named = (("POINT", seen.point), ("--display", seen.display), ("--who", seen.who),
             ("--organisation", seen.organisation), ("--role", seen.role))  # fmt: skip
    missing = [name for name, value in named if not (value or "").strip()]
    if missing:
        raise UserError(f"give {', '.join(missing)}, or a signed act with --act", exit_code=2)
    points = [p.id for p in read_site(path).metering_points]
    if seen.point not in points:
        raise UserError(f"{seen.point}: no such metering point; the site file has {', '.join(points)}", exit_code=2)
    wh, lsb = reading(seen.display or "")
    return {
        "point": seen.point,
        "who": seen.who,
        "organisation": seen.organisation,
        "role": seen.role,
        "seen": instant(seen.at),
        "display_wh": wh,
        "display_lsb_wh": lsb,
        "serial": seen.serial,
        "seals": list(seen.seals),
        "photo_sha256": digest(seen.photo),
    }
