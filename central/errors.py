"""Errors of central that a person can act on."""

from __future__ import annotations


class CentralError(Exception):
    """The message names the thing, what was seen, what was expected and what to do."""
