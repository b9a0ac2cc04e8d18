"""Errors of the agent."""

from __future__ import annotations


class AgentError(Exception):
    """The agent cannot go on with what was asked; the message says what to do."""


class AlreadyRunning(AgentError):
    """Another agent holds this ledger."""


class LedgerError(AgentError):
    """The ledger could not be written. What was to be recorded is not recorded."""


class LedgerForeign(AgentError):
    """The ledger belongs to another site or another key."""


class Overtaken(AgentError):
    """While a change of an order's state waited, another one went first, and this one has no sense after it."""
