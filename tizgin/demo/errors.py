"""What can go wrong with a demo, told so that the person at the terminal can act on it."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on: what was seen, what was expected, what to do or which log to read."""
