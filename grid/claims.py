"""What central says, as values that can be shown: a claim of the wrong kind, or out of all bounds, is no claim."""

from __future__ import annotations

import unicodedata
from typing import Any

MAX_INTEGER = 2**53 - 1
MAX_TEXT = 500
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that show nothing of themselves and change what stands around them: controls, marks that turn the
direction of writing, halves of characters."""


def plain(text: str, limit: int = MAX_TEXT) -> str:
    """The text with every hidden character shown as one that is seen."""
    cut = text[:limit]
    return cut if cut.isascii() and cut.isprintable() else "".join(_seen(c) for c in cut)


def _seen(character: str) -> str:
    return "\ufffd" if unicodedata.category(character) in HIDDEN else character


def text_of(value: Any, limit: int = MAX_TEXT) -> str | None:
    """A text; ``None`` where it is none."""
    return plain(value, limit) if isinstance(value, str) else None


def texts_of(value: Any) -> tuple[str, ...]:
    """The texts of a list, at most 50 of 100 characters."""
    return tuple(plain(item, 100) for item in value[:50] if isinstance(item, str)) if isinstance(value, list) else ()


def integer_of(value: Any) -> int | None:
    """An integer of at most 2^53 − 1 either way; ``None`` for anything else."""
    good = isinstance(value, int) and not isinstance(value, bool) and -MAX_INTEGER <= value <= MAX_INTEGER
    return value if good else None
