"""Maintenance: a switch, device or group of machines that people declared out of service for some hours.

While it lasts the object is left out of every plan and its alarms are one. It ends by itself; an object that is not
healthy then raises an alarm until it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from agent.clock import Clock, TrustedTime
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.words import number_of, text_of
from config.graph import Graph
from config.nodes import Switch
from config.site import Site
from wire.errors import WireError

log = structlog.get_logger()

MAX_HOURS = 12.0
"""Longer work is declared again: somebody has to look at it every shift."""
PERIOD_S = 1.0
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Work:
    """One declaration. ``unhealthy``: it is over, and this is what was still wrong."""

    object: str
    who: str
    permit: str
    reason: str
    from_ms: int
    until_ms: int
    unhealthy: str | None = None


@dataclass(slots=True)
class Maintenance:
    """Declarations in force, durable in the ledger."""

    site: Site
    graph: Graph
    ledger: Ledger
    clock: Clock
    trusted: TrustedTime
    unhealthy: Callable[[str], str | None] = lambda _object: None
    """What is wrong with an object now; ``None`` where nothing is."""
    works: dict[str, Work] = field(default_factory=dict)
    _device_of: dict[str, str] = field(default_factory=dict)
    """Output → the device that drives it."""
    _under: dict[str, frozenset[str]] = field(default_factory=dict)
    """Object → what its alarms speak of: itself, and for a switch the devices it feeds."""

    def load(self) -> None:
        """Read the declarations from the ledger."""
        self._device_of = {
            n.id: n.control.device for n in self.site.nodes if isinstance(n, Switch) and n.control is not None
        }
        for row in self.ledger.read_now(
            "SELECT object, who, permit, reason, from_ms, until_ms, unhealthy FROM maintenance"
        ):
            self.works[row[0]] = Work(*row)

    @property
    def objects(self) -> frozenset[str]:
        """What can be declared: switches, devices and groups of machines of the site file."""
        switches = {n.id for n in self.site.nodes if isinstance(n, Switch)}
        return frozenset(switches | {d.id for d in self.site.devices} | {g.id for g in self.site.miners})

    def _now(self) -> int:
        # A clock that was set back makes no maintenance longer than it was declared.
        return max(self.clock.now_ms(), self.trusted.low_ms())

    def active(self) -> list[Work]:
        """Declarations in force now."""
        now = self._now()
        return [w for w in self.works.values() if w.unhealthy is None and now < w.until_ms]

    def why(self, obj: str) -> str | None:
        """Why an object is left out of plans; ``None`` where nobody declared it or the device that drives it."""
        if not self.works:
            return None
        now = self._now()
        for name in (obj, self._device_of.get(obj)):
            work = self.works.get(name or "")
            if work is not None and work.unhealthy is None and now < work.until_ms:
                return f"in maintenance: {work.object}, {work.who}, permit {work.permit}: {work.reason}"
        return None

    def unhealthy_now(self) -> list[str]:
        """Objects whose maintenance is over and that are not healthy."""
        return sorted(w.object for w in self.works.values() if w.unhealthy is not None)

    def alarm_objects(self, obj: str) -> frozenset[str]:
        """Names that alarms about an object carry: itself, and what a switch feeds."""
        found = self._under.get(obj)
        if found is None:
            names = {obj}
            if obj in self.graph.switches:
                fed = self.graph.downstream(obj)
                names |= {d.id for d in self.site.devices if d.fed_from in fed}
            found = self._under[obj] = frozenset(names)
        return found

    def grouped(self, alarms: set[str]) -> set[str]:
        """Alarms without those that a declared maintenance explains: its own alarm stands for them."""
        covered: set[str] = set()
        for work in self.active():
            covered |= self.alarm_objects(work.object)
        return {a for a in alarms if a.partition(":")[2] not in covered} if covered else alarms

    async def begin(self, doc: Mapping[str, Any]) -> str:
        """Declare an object, or renew its declaration. The fields of ``doc``: object, hours, who, permit, reason.

        Raises:
            WireError: no such object, or a field that cannot be.
            LedgerError: it is not durable; then it is not in force.
        """
        obj, who = text_of(doc, "object", 64), text_of(doc, "who", 100)
        permit, reason = text_of(doc, "permit", 100), text_of(doc, "reason", 300)
        hours = number_of(doc, "hours")
        if obj not in self.objects:
            raise WireError(f"{obj}: no switch, device or group of machines of the site file")
        if not 0 < hours <= MAX_HOURS:
            raise WireError(f"{hours:g} h: expected more than 0 and at most {MAX_HOURS:g}; renew it then")
        now = self._now()
        before = self.works.get(obj)
        renewed = before is not None and before.unhealthy is None and now < before.until_ms
        begun = before.from_ms if before is not None and renewed else now
        work = Work(obj, who, permit, reason, begun, now + round(hours * HOUR_MS))
        detail = {"who": who, "permit": permit, "reason": reason, "from": work.from_ms, "until": work.until_ms}
        txn = self._event(obj, "renewed" if renewed else "begun", detail)
        txn.run(
            "INSERT OR REPLACE INTO maintenance VALUES (?,?,?,?,?,?,NULL)",
            *(obj, who, permit, reason, work.from_ms, work.until_ms),
        )
        self.works[obj] = work  # binds at once: no write that is under way slips past it
        try:
            await self.ledger.commit(txn, urgent=True)
        except LedgerError:
            self._put_back(obj, before)
            raise
        return f"{obj} is in maintenance{' on' if renewed else ''} for {hours:g} h and left out of plans"

    def _put_back(self, obj: str, before: Work | None) -> None:
        if before is None:
            self.works.pop(obj, None)
        else:
            self.works[obj] = before

    async def end(self, doc: Mapping[str, Any]) -> str:
        """A person ends it early.

        Raises:
            WireError: none was declared.
            LedgerError: it is not durable; then it is still in force.
        """
        obj, who = text_of(doc, "object", 64), text_of(doc, "who", 100)
        work = self.works.get(obj)
        if work is None:
            raise WireError(f"{obj} is not in maintenance")
        why = await self._over(work, {"who": who})
        return f"the maintenance of {obj} is over" + (f"; NOT HEALTHY: {why}" if why else "")

    async def _over(self, work: Work, detail: dict[str, Any]) -> str | None:
        why = self.unhealthy(work.object)
        txn = self._event(work.object, "ended", detail | {"healthy": why is None, "why": (why or "")[:300]})
        if why is None:
            txn.run("DELETE FROM maintenance WHERE object=?", work.object)
        else:
            txn.run("UPDATE maintenance SET unhealthy=? WHERE object=?", why[:300], work.object)
        await self.ledger.commit(txn, urgent=True)
        if self.works.get(work.object) == work:
            if why is None:
                del self.works[work.object]
            else:
                log.error("maintenance_unhealthy", object=work.object, why=why)
                self.works[work.object] = replace(work, unhealthy=why[:300])
        return why

    async def tick(self) -> None:
        """End what is over; take an alarm back once its object is healthy."""
        now = self._now()
        for work in list(self.works.values()):
            if work.unhealthy is None and now >= work.until_ms:
                await self._over(work, {"who": "", "until": work.until_ms})
            elif work.unhealthy is not None and self.unhealthy(work.object) is None:
                txn = self._event(work.object, "healthy", {})
                txn.run("DELETE FROM maintenance WHERE object=?", work.object)
                await self.ledger.commit(txn)
                if self.works.get(work.object) == work:
                    del self.works[work.object]

    async def run(self) -> None:
        """Look at the clock until cancelled."""
        while True:
            try:
                await self.tick()
            except LedgerError as error:
                log.error("maintenance_not_recorded", error=str(error))
            await asyncio.sleep(PERIOD_S)

    @staticmethod
    def _event(obj: str, now: str, detail: dict[str, Any]) -> Txn:
        return Txn().record("site", "event", {"ev": "maintenance", "obj": obj, "now": now, "detail": detail})
