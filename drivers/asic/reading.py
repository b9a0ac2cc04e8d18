"""Reading one status within its deadline, alike in every family."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from drivers.asic.given import Given
from drivers.capabilities import MinerStatus
from drivers.errors import DriverError, NoAnswer

Result = TypeVar("Result")

MIN_WEB_S = 0.2
"""With less time left than this, a web page is not asked within a status."""


async def within(seconds: float, name: str, reading: Awaitable[Result]) -> Result:
    """The result of a reading that has a deadline.

    Raises:
        NoAnswer: not finished by then.
        DriverError: as the reading raises.
    """
    try:
        async with asyncio.timeout(seconds):
            return await reading
    except TimeoutError as error:
        raise NoAnswer(f"{name}: not read within {seconds:g} s") from error


async def timed(given: Given, name: str, reading: Awaitable[MinerStatus]) -> MinerStatus:
    """A status read within ``status_s``, with how long it took.

    Raises:
        DriverError: as of :func:`within`.
    """
    began = given.mono()
    return with_latency(await within(given.timeouts.status_s, name, reading), given, began)


def with_latency(status: MinerStatus, given: Given, began: float) -> MinerStatus:
    """The status with how long it took from ``began`` of the monotonic clock until now."""
    return replace(status, latency_ms=round((given.mono() - began) * 1000, 1))


def left_s(given: Given, began: float) -> float:
    """How long one page may take of a status begun at ``began`` of the monotonic clock."""
    return min(given.timeouts.http_s, given.timeouts.status_s - (given.mono() - began))


async def if_time(given: Given, began: float, page: Callable[[float], Awaitable[Any]]) -> dict[str, Any]:
    """A page that a status can do without, asked with what is left of its time; empty where that fails."""
    time_s = left_s(given, began)
    if time_s < MIN_WEB_S:
        return {}
    try:
        found = await page(time_s)
    except DriverError:
        return {}
    return found if isinstance(found, dict) else {}
