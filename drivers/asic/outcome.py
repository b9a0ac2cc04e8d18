"""Outcomes of writes, made in one place so that every family words them alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from drivers.capabilities import WriteOutcome, WriteStatus
from drivers.errors import BadAnswer, DriverError, Refused

Wall = Callable[[], float]
"""UTC clock in seconds."""


def acknowledged(wall: Wall, detail: str) -> WriteOutcome:
    """The machine took it, as far as the machine can be believed."""
    return WriteOutcome(WriteStatus.ACKNOWLEDGED, round(wall() * 1000), detail)


def refused(wall: Wall, detail: str) -> WriteOutcome:
    """It certainly did not happen."""
    return WriteOutcome(WriteStatus.REFUSED, round(wall() * 1000), detail)


def unknown(wall: Wall, detail: str) -> WriteOutcome:
    """Nobody knows; find out by reading before trying again."""
    return WriteOutcome(WriteStatus.UNKNOWN, round(wall() * 1000), detail)


def nothing_done(wall: Wall, error: DriverError, verb: str = "sent") -> WriteOutcome:
    """The reading before a write failed, so that it was not tried; silence leaves open what state the machine has."""
    outcome = refused if isinstance(error, Refused | BadAnswer) else unknown
    return outcome(wall, f"nothing {verb}: {error}")


def not_allowed(wall: Wall, name: str) -> WriteOutcome:
    """The machine is not on the site's allow-list."""
    return refused(wall, f"{name}: nothing written: writes are not allowed for this group (writes_allowed: false)")


async def sleep_for(seconds: float) -> None:
    """Wait; the default of every ``pause`` parameter."""
    await asyncio.sleep(seconds)
