"""Body of ``tizgin agent replace``: a device was exchanged."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from config.site import Site
from tizgin.commands._agent_ask import hand
from tizgin.commands._agent_run import read_site
from tizgin.commands._display import digest
from tizgin.errors import UserError


@dataclass(frozen=True, slots=True)
class Told:
    """What the person at the device says, as typed."""

    device: str
    serial: str
    person: str
    reason: str
    closing: str | None
    no_closing: str | None
    opening: str | None
    photo: Path | None


def replace_device(path: Path, told: Told) -> int:
    """Hand an exchange of a device in to the running agent. Returns the exit code."""
    site = read_site(path)
    _check(site, told)
    order = {
        "ty": "replace",
        "device": told.device,
        "serial": told.serial,
        "person": told.person,
        "reason": told.reason,
        "closing_wh": _wh(told.closing, "--closing-reading"),
        "closing_why": told.no_closing,
        "opening_wh": _wh(told.opening, "--opening-reading"),
        "photo_sha256": digest(told.photo),
    }
    return hand(path, f"replace-{secrets.token_hex(4)}", json.dumps(order).encode())


def _check(site: Site, told: Told) -> None:
    device = next((d for d in site.devices if d.id == told.device), None)
    if device is None:
        known = ", ".join(d.id for d in site.devices)
        raise UserError(f"{told.device}: no such device; the site file has {known}", exit_code=2)
    for name, value in (("--person", told.person), ("--reason", told.reason), ("--serial", told.serial)):
        if not value.strip():
            raise UserError(f"{name}: empty, expected a text", exit_code=2)
    if told.closing is not None and told.no_closing is not None:
        raise UserError("give --closing-reading or --no-closing-reading, not both", exit_code=2)
    if device.kind == "meter" and told.closing is None and told.no_closing is None:
        raise UserError(
            f"{told.device} is a meter: give its last reading with --closing-reading, or say with "
            "--no-closing-reading why there is none",
            exit_code=2,
        )


def _wh(text: str | None, option: str) -> int | None:
    """Reading in kWh as typed (``12345.67`` or ``12345,67``) → whole Wh."""
    if text is None:
        return None
    try:
        value = Decimal(text.strip().replace(" ", "").replace(",", ".")) * 1000
    except InvalidOperation:
        raise UserError(f"{option}: saw {text!r}, expected kWh, e.g. 12345.67", exit_code=2) from None
    if not value.is_finite() or not 0 <= value < 2**53:
        raise UserError(f"{option}: saw {text!r}, expected kWh from 0", exit_code=2)
    return int(value)
