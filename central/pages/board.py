"""What the pages need from the stores, asked at most once a second however many people look."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from central.api.routes import latest_order, stored_intervals
from central.dispatch import OrderView
from central.service import CentralService
from central.vee.standing import open_findings
from wire.orders import SHEDDING

T = TypeVar("T")
HOUR_MS = 3_600_000
MAX_CACHED = 500
FINDINGS_S = 30 * 86_400
MAX_FINDINGS = 12


class Board:
    """A short-lived cache over one central."""

    def __init__(self, service: CentralService) -> None:
        self.service = service
        self._held: dict[tuple[str, str], tuple[float, Any]] = {}

    async def _cached(self, key: tuple[str, str], life_s: float, make: Callable[[], Awaitable[T]]) -> T:
        held = self._held.get(key)
        if held is not None and time.monotonic() - held[0] < life_s:
            return held[1]  # type: ignore[no-any-return]  # put there below, under the same key
        value = await make()
        if len(self._held) > MAX_CACHED:
            self._held.clear()
        self._held[key] = (time.monotonic(), value)
        return value

    def slot_s(self, site: str) -> int:
        """Length of a slot by the register; the contract's default where there is none."""
        document = self.service.registers.document
        entry = document.site(site) if document else None
        return entry.slot_s if entry else 900

    async def order(self, site: str) -> OrderView | None:
        """Newest order of a site."""
        return await self._cached(("order", site), 0.9, lambda: latest_order(self.service, site))

    async def shedding(self, site: str) -> OrderView | None:
        """Newest order of a site that takes load away; a release is about one, and does not take its place."""
        return await self._cached(("shed", site), 0.9, lambda: latest_order(self.service, site, SHEDDING))

    async def intervals(self, site: str) -> list[Any]:
        """Newest intervals and gaps."""
        since = self.service.now_ms() // 1000 - 2 * 86_400
        return await self._cached(("slots", site), 2.0, lambda: stored_intervals(self.service, site, None, since, 48))

    async def findings(self, site: str) -> list[dict[str, Any]]:
        """Open findings of plausibility, the newest first."""
        since = self.service.now_ms() // 1000 - FINDINGS_S
        work = partial(open_findings, site=site, since=since, most=MAX_FINDINGS)
        return await self._cached(("findings", site), 10.0, lambda: self.service.database.read(work))

    async def last_hour(self, site: str) -> tuple[list[list[float | None]], list[list[float | None]]]:
        """(net kW, limit kW) as [ms, value] rows; null breaks the line where nothing was heard."""
        return await self._cached(("hour", site), 3.0, lambda: self._hour(site))

    async def _hour(self, site: str) -> tuple[list[list[float | None]], list[list[float | None]]]:
        live, now = self.service.live.sites[site], self.service.now_ms()
        history = [h for h in live.history if h[0] >= now - HOUR_MS]
        power: list[list[float | None]] = []
        device = self.service.sites[site].measured_at
        begin = history[0][0] if history else now
        if device is not None and begin > now - HOUR_MS + 60_000:
            # What came before this process did: the control meter's own telemetry.
            stored = await self.service.telemetry.series(site, "meter", device, "power_w", now - HOUR_MS, begin, 10)
            for step in stored:
                _append(power, step.at, None if step.mean is None else step.mean / 1000, 60_000)
        limits: list[list[float | None]] = []
        last_at = 0
        for at, net_w, limit_w in history:
            if limits and limits[-1][1] == (None if limit_w is None else limit_w / 1000) and at < history[-1][0]:
                pass
            else:
                limits.append([at, None if limit_w is None else limit_w / 1000])
            if at - last_at >= 4000 or net_w is None:
                _append(power, at, None if net_w is None else net_w / 1000, 30_000)
                last_at = at
        return power, limits


def _append(rows: list[list[float | None]], at: int, value: float | None, gap_ms: int) -> None:
    last = rows[-1][0] if rows else None
    if last is not None and at - last > gap_ms:
        rows.append([last + 1, None])
    rows.append([at, value])
