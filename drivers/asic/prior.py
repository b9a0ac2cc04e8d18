"""What has to be put back later, as compact JSON for the journal: one value under a name, with the family it is of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MAX_CHARS = 2000


def prior_text(family: str, name: str, value: object) -> str:
    """The text that :func:`prior_value` reads."""
    return json.dumps({"family": family, name: value}, separators=(",", ":"), sort_keys=True)


def prior_value(family: str, name: str, prior: str, valid: Callable[[Any], bool], expected: str) -> Any:
    """The value in what :func:`prior_text` wrote.

    Raises:
        ValueError: it is something else, or of another family; the message says what was ``expected``.
    """
    held = json.loads(prior[:MAX_CHARS])
    value = held.get(name) if isinstance(held, dict) and held.get("family") == family else None
    if not valid(value):
        raise ValueError(f"{expected} expected, seen {prior[:80]!r}")
    return value
