"""Bodies of the sub-commands by which people tell a running agent about orders and maintenance."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from tizgin.commands._agent_ask import hand
from tizgin.errors import EXIT_WRONG_USE, UserError
from wire.orders import MAX_ORDER_BYTES

KAZAKHSTAN = timezone(timedelta(hours=5))
MAX_CODE = 2 * MAX_ORDER_BYTES


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a person entered about a spoken order."""

    order: str
    who: str
    given_by: str
    at: str
    recording: str
    text: str


def _ask(path: Path, name: str, fields: dict[str, object]) -> int:
    return hand(path, f"{name}-{secrets.token_hex(4)}", json.dumps(fields).encode())


def maintain(path: Path, obj: str, who: str, hours: float | None, permit: str, reason: str, *, end: bool) -> int:
    """Begin, renew or end maintenance."""
    if end:
        return _ask(path, "maintenance", {"ty": "maintenance_end", "object": obj, "who": who})
    if hours is None or not permit or not reason:
        raise UserError("maintenance needs --hours, --permit and --reason, or --end", exit_code=EXIT_WRONG_USE)
    fields = {"object": obj, "who": who, "hours": hours, "permit": permit, "reason": reason}
    return _ask(path, "maintenance", {"ty": "maintenance"} | fields)


def acknowledge(path: Path, order: str, who: str) -> int:
    """A person on site knows of an order."""
    return _ask(path, "ack", {"ty": "order_ack", "order": order, "who": who})


def enter_spoken(path: Path, spoken: Spoken) -> int:
    """A spoken order."""
    at = moment_ms(spoken.at, time.time_ns() // 1_000_000)
    fields = {"order": spoken.order, "who": spoken.who, "given_by": spoken.given_by, "at": at}
    return _ask(path, "spoken", {"ty": "spoken"} | fields | {"recording": spoken.recording, "text": spoken.text})


def moment_ms(text: str, now_ms: int) -> int:
    """``18:12`` (Kazakhstan, the last time it was so) or ISO 8601 with a zone → ms since the epoch."""
    clock = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text.strip())
    if clock is not None:
        now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(KAZAKHSTAN)
        said = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        return int((said if said <= now else said - timedelta(days=1)).timestamp() * 1000)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise UserError(
            f"--at {text!r}: expected 18:12 or a time with its zone, such as 2026-11-21T18:12+05:00",
            exit_code=EXIT_WRONG_USE,
        )
    return int(when.timestamp() * 1000)


def hand_order(path: Path, file: Path | None, code: str | None) -> int:
    """Hand a signed order in, from a file, standard input or text."""
    if (file is None) is (code is None):
        raise UserError("give the FILE of a signed order, or its text with --code", exit_code=EXIT_WRONG_USE)
    return hand(path, f"order-{secrets.token_hex(4)}", envelope_of(code.encode() if code else _read(file)))


def _read(file: Path | None) -> bytes:
    if file is None or str(file) == "-":
        return sys.stdin.buffer.read(MAX_CODE + 1)
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_CODE + 1)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def envelope_of(given: bytes) -> bytes:
    """The envelope out of a file or a message: JSON as it is, or base64 of it, however it was wrapped."""
    text = given.strip()
    if len(text) > MAX_CODE:
        raise UserError(f"an order of more than {MAX_CODE} bytes, expected at most {MAX_ORDER_BYTES}")
    if text.startswith(b"{"):
        return text
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UserError("neither a signed order (JSON) nor its text (base64): was all of it copied?") from None
