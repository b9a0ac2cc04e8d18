"""Errors of the grid operator's and the registrar's programs that a person can act on."""

from __future__ import annotations


class GridError(Exception):
    """The message names the thing, what was seen, what was expected and what to do."""


class KeyFileError(GridError):
    """A private key that cannot be used: readable by others, missing, wrong passphrase."""


class ComposeError(GridError):
    """What was asked for is not an order."""


class RegisterError(GridError):
    """A register that cannot be signed or read."""


class CentralUnreachable(GridError):
    """Central did not answer; the order may not have arrived."""


class CentralRefused(GridError):
    """Central answered that it will not take this; ``status`` is its HTTP code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PlanRefused(GridError):
    """A gateway may not carry out this plan: mandate, register or bounds forbid it."""
