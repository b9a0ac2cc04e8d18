"""The second web port of newer stock Antminers (TCP 6060): power and warnings, as text. Seldom asked, for it forks too.

Source: published answers of an S21 and an S19 XP Hyd in tetherto/miningos-wrk-miner-antminer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from drivers.asic.fields import text
from drivers.asic.http import HttpClient
from drivers.asic.repair import parse_answer
from drivers.errors import BadAnswer, DriverError, NoAnswer

PORT = 6060
MAX_AGE_S = 45.0
"""How long a reading is believed; power changes within seconds when a machine falls asleep."""
RETRY_S = 3600.0
"""Pause after a machine turned out not to have this port."""
_POWER = re.compile(r"\s*miner power:\s*([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(?:W)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ExtraReading:
    """What the port said."""

    power_w: float | None = None
    warning: str | None = None


def power_of(body: bytes) -> float | None:
    """Watts from ``miner power:3498``; ``None`` from anything else, such as ``error 6060 cmd``."""
    match = _POWER.fullmatch(body[:100].decode("utf-8", "replace").strip("\x00"))
    return float(match.group(1)) if match else None


def warning_of(body: bytes) -> str | None:
    """The code in ``{"error_message":"P:2"}``; ``None`` where it says that there is none."""
    try:
        said = text(parse_answer(body[:1000], source="warning").get("error_message"))
    except BadAnswer:
        return None
    return None if said is None or said.lower() == "none" else said[:100]


class ExtraPort:
    """The port of one machine, and what it last said."""

    def __init__(self, http: HttpClient, mono: Callable[[], float]) -> None:
        self._http = http
        self._mono = mono
        self._reading = ExtraReading()
        self._at = float("-inf")
        self._not_before = float("-inf")

    async def reading(self, left_s: float) -> ExtraReading:
        """What it says, from memory where that is young; nothing where it has no such port or no time is left."""
        now = self._mono()
        if now - self._at <= MAX_AGE_S:
            return self._reading
        if now < self._not_before or left_s <= 0 or self._http.busy:
            return ExtraReading()
        try:
            power_w = power_of(await self._http.request("GET", "/miner_power", timeout_s=left_s))
            left_s -= self._mono() - now
            warning = None
            if power_w is not None and left_s > 0:
                warning = warning_of(await self._http.request("GET", "/warning", timeout_s=left_s))
        except NoAnswer:
            self._not_before = self._mono() + MAX_AGE_S
            return ExtraReading()
        except DriverError:
            self._not_before = self._mono() + RETRY_S
            return ExtraReading()
        if power_w is None:
            self._not_before = self._mono() + RETRY_S
            return ExtraReading()
        self._reading, self._at = ExtraReading(power_w, warning), self._mono()
        return self._reading

    def forget(self) -> None:
        """What was read no longer holds: the machine was told something."""
        self._at = float("-inf")
