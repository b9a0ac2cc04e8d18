"""Fields of what people hand to a running agent: bounded, and named in the error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wire.errors import WireError


def text_of(doc: Mapping[str, Any], name: str, size: int, *, empty: bool = False) -> str:
    """A line of text of a request.

    Raises:
        WireError: missing, no text, empty where it may not be, too long, or with control characters.
    """
    value = doc.get(name, "")
    if not isinstance(value, str):
        raise WireError(f"{name}: a JSON {type(value).__name__}, expected text")
    text = value.strip()
    if not text and not empty:
        raise WireError(f"{name}: missing, expected text of at most {size} characters")
    if len(text) > size:
        raise WireError(f"{name}: {len(text)} characters, expected at most {size}")
    if any(not c.isprintable() for c in text):
        raise WireError(f"{name}: holds characters that cannot be printed, expected one line of text")
    return text


def number_of(doc: Mapping[str, Any], name: str) -> float:
    """A number of a request.

    Raises:
        WireError: missing, no number, or not finite.
    """
    value = doc.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WireError(f"{name}: {str(value)[:40]!r}, expected a number")
    return float(value)
