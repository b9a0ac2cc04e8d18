"""Moments and periods as people type them."""

from __future__ import annotations

from datetime import datetime

from tizgin.errors import EXIT_WRONG_USE, UserError


def moments(text: str) -> tuple[int, int]:
    """``A/B`` → epoch seconds of begin and end.

    Raises:
        UserError: it is not such a period.
    """
    parts = text.split("/")
    if len(parts) != 2:
        raise UserError(f"period {text!r}: expected A/B", exit_code=EXIT_WRONG_USE)
    return moment(parts[0]), moment(parts[1])


def moment(text: str) -> int:
    """ISO 8601 with a time zone, or epoch seconds → epoch seconds.

    Raises:
        UserError: it is neither.
    """
    if text.isdigit():
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"period: {text!r} is neither ISO 8601 nor epoch seconds; write 2026-11-01T00:00Z", exit_code=EXIT_WRONG_USE
        ) from None
    if when.tzinfo is None:
        raise UserError(f"period: {text!r} has no time zone; write {text}Z for UTC", exit_code=EXIT_WRONG_USE)
    return int(when.timestamp())
