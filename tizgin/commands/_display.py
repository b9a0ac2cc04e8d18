"""What a person typed of a meter's display, seals and a photograph, read strictly."""

from __future__ import annotations

import hashlib
import re
import time
from datetime import datetime
from pathlib import Path

from tizgin.errors import UserError
from wire.rollup import LOCAL

MAX_PHOTO = 64 * 1024 * 1024
MOST_DECIMALS = 3
_READING = re.compile(r"([0-9]{1,12})(?:[.,]([0-9]{1,3}))?")


def reading(text: str) -> tuple[int, int]:
    """Reading in kWh as on the display (``12345.67`` or ``12345,67``) → Wh, and what its last digit is worth in Wh."""
    found = _READING.fullmatch(text.replace(" ", ""))
    if found is None:
        raise UserError(f"--display: saw {text!r}, expected kWh as on the display, e.g. 12345.67", exit_code=2)
    decimals = found[2] or ""
    wh = int(found[1]) * 1000 + int(decimals.ljust(MOST_DECIMALS, "0"))
    return wh, 10 ** (MOST_DECIMALS - len(decimals))


def kwh_to_wh(text: str) -> int:
    """Energy in kWh as typed → whole Wh."""
    found = _READING.fullmatch(text.replace(" ", ""))
    if found is None:
        raise UserError(f"--kwh: saw {text!r}, expected kWh with at most three decimals", exit_code=2)
    return int(found[1]) * 1000 + int((found[2] or "").ljust(MOST_DECIMALS, "0"))


def instant(text: str | None) -> int:
    """ISO time (Kazakhstan's, UTC+5, where it has no offset) → ms; now where nothing is given."""
    if text is None:
        return round(time.time() * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"saw {text!r}, expected a time such as 2026-10-14T11:20:30", exit_code=2) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=LOCAL)).timestamp() * 1000)


def digest(photo: Path | None) -> str | None:
    """SHA-256 of a photograph, hex."""
    if photo is None:
        return None
    try:
        if photo.stat().st_size > MAX_PHOTO:
            raise UserError(f"{photo}: larger than {MAX_PHOTO >> 20} MB", exit_code=2)
        return hashlib.sha256(photo.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{photo}: cannot be read: {error.strerror}", exit_code=2) from None
