"""The running agent's eye on its machines: who they are, for which pool they work, and what became different.

One owner runs one :class:`InventoryWatch`. An answer that says nothing new costs a hash and a comparison.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.clock import Clock
from agent.errors import AgentError
from agent.inventory import accredited as lists
from agent.inventory import register, seen
from agent.inventory.accredited import Accredited
from agent.inventory.grouped import Change, Grouped, fields
from agent.inventory.identity import Identity, identity_of
from agent.inventory.reconcile import Flag, Place, Reconciler, Standing, changes
from agent.inventory.register import RegisterList
from agent.inventory.seen import Seen
from agent.inventory.switches import EV as POOL_SWITCH
from agent.inventory.switches import EV_SETUP as POOL_SETUP
from agent.inventory.switches import PoolHistory, PoolWatch
from agent.inventory.workdays import WorkCalendar, kazakhstan
from config.addresses import machines
from config.rules.passports import local_day
from config.site import Site
from drivers.cancellation import cancel_was_lost
from drivers.capabilities import MinerStatus

log = structlog.get_logger()

IDENTITY = "asic_identity"
TICK_S = 5.0
SAVE_S = 60.0
"""After a change; sightings alone are saved every :data:`SAVE_SIGHTINGS_S`."""
SAVE_SIGHTINGS_S = 600.0
PIECE = 100
"""Machines between two breaths of the event loop, where all are gone through."""

NEXT_YEAR = timedelta(days=366)
T = TypeVar("T")

Record = Callable[[dict[str, Any]], None]
"""Takes the fields of one ``event`` record."""


def places_of(site: Site) -> dict[str, Place]:
    """Every machine of the site file, where it stands."""
    return {at.id: Place(group.id, at.rpc_host, group.tenant) for group in site.miners for at in machines(group)}


def calendar_for(accredited: Accredited | None, now_ms: int) -> WorkCalendar:
    """Working days of last year to the year after next. Takes up to a second the first time."""
    year = local_day(now_ms // 1000).year
    given = accredited or Accredited()
    return kazakhstan(range(year - 1, year + 3), off=given.off, working=given.working)


class InventoryWatch:
    """Register, site and pools, kept matched while the agent runs.

    Args:
        site: the site.
        state_dir: holds the register, the accredited list and what was seen; changes of the first two are taken up.
        clock: time source.
        record: takes the events: ``pool_switch`` and ``asic_identity``, few and grouped.
        grouped: gathers changes; to be given for other times than usual.
    """

    def __init__(
        self, site: Site, state_dir: Path, clock: Clock, record: Record, *, grouped: Grouped | None = None
    ) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._record = record
        self._places = places_of(site)
        self._grouped = grouped or Grouped()
        self._seen: dict[str, Seen] = {}
        self._book = Reconciler((), self._places)
        self._register: RegisterList | None = None
        self._pools: PoolWatch | None = None
        self._stamps: dict[str, tuple[int, int] | None] = {}
        self._changed = False
        self._saved_ns = 0

    @property
    def book(self) -> Reconciler:
        """Register and site, matched."""
        return self._book

    # taking ----------------------------------------------------------------------------------------------------------

    def take(self, machine: str, status: MinerStatus | None, at_ms: int) -> None:
        """A machine was polled; ``None`` where it did not answer. Quick, and never raises for what a machine says."""
        if status is None or self._pools is None or machine not in self._places:
            return
        known = self._seen.get(machine)
        print_ = hash(
            (
                status.serial,
                status.mac,
                status.model,
                status.firmware,
                tuple((pool.url, pool.user, pool.active) for pool in status.pools),
            )
        )
        if known is not None and known.print == print_:
            known.last_ms = at_ms
            return
        before_ms = None if known is None else known.last_ms
        if known is None:
            known = self._seen[machine] = Seen(machine, first_ms=at_ms)
        group = self._places[machine].group
        self._take_identity(machine, group, known, identity_of(status), at_ms, first=before_ms is None)
        known.pools = self._pools.masked(status.pools)
        self._pools.take(machine, group, known.pools, known.history, at_ms, before_ms)
        known.print, known.last_ms = print_, at_ms
        self._changed = True

    def _take_identity(
        self, machine: str, group: str, known: Seen, identity: Identity, at_ms: int, *, first: bool
    ) -> None:
        changed = self._book.take(machine, identity)
        if changed is None:
            return
        was, now = changed
        known.serial, known.mac, known.model, known.firmware = now.serial, now.mac, now.model, now.firmware
        told: list[tuple[str, str | None, str | None]] = []
        if first:
            told.append(("first_seen", None, _name(now)))
        for flag in () if was is None else changes(was, now):
            known.before, known.changed_ms = (was.serial, was.mac, was.model, was.firmware), at_ms  # type: ignore[union-attr]  # was is given here
            told.append((flag, *_difference(flag, was or now, now)))
        found = self._book.finding(machine)
        if self._register is not None:
            if found.standing is Standing.UNREGISTERED:
                told.append((Standing.UNREGISTERED, None, _name(now)))
            if Flag.MODEL_CHANGED in found.flags:
                told.append((Flag.MODEL_CHANGED, found.entry.model if found.entry else None, now.model))
            if Flag.MOVED in found.flags:
                told.append((Flag.MOVED, found.entry.group if found.entry else None, group))
            if Flag.MIXED in found.flags:
                told.append((Flag.MIXED, found.entry.serial if found.entry else None, _name(now)))
        if Flag.DUPLICATED in found.flags:
            told.append((Flag.DUPLICATED, ", ".join(found.also)[:100], _name(now)))
        for kind, old, new in told:
            self._grouped.add(Change(IDENTITY, group, None, str(kind)), machine, at_ms, own=(old, new))

    # running ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read what is on disk, then tell changes and save until cancelled; saves once more at the end.

        A damaged file is told and done without: nothing here may keep the agent from metering.
        """
        await self.open()
        try:
            while not cancel_was_lost():
                await asyncio.sleep(TICK_S)
                await self.tick()
        finally:
            await asyncio.shield(self._save())

    async def open(self) -> None:
        """Read what was seen before; from here on answers are taken."""
        now_ms = self._clock.now_ms()
        secret = await self._read(seen.site_secret) or secrets.token_bytes(32)
        found = await self._read(seen.load)
        given = await self._read(lists.load)
        calendar = await asyncio.to_thread(calendar_for, given, now_ms)
        self._register = await self._read(register.load)
        self._stamps = await asyncio.to_thread(self._stamp)
        pools = PoolWatch((given or Accredited()).pool_list(), self._grouped, calendar, secret)
        for machine, row in {} if found is None else found[1].items():
            if machine in self._places:
                self._seen[machine] = row
                pools.resume(machine, self._places[machine].group, row.history, now_ms)
        await self._rebuild()
        self._pools = pools
        self._saved_ns = self._clock.mono_ns()

    async def _read(self, load: Callable[[Path], T]) -> T | None:
        try:
            return await asyncio.to_thread(load, self._state_dir)
        except AgentError as error:
            log.error("inventory_file_refused", error=str(error))
            return None

    async def tick(self) -> None:
        """Tell what is due, take up new lists, save where it is time."""
        await self._reload()
        await self.tell()
        age_s = (self._clock.mono_ns() - self._saved_ns) / 1e9
        if age_s >= (SAVE_S if self._changed else SAVE_SIGHTINGS_S):
            await self._save()

    async def tell(self) -> None:
        """Give the record's taker what is due, one at a time: a change may be of thousands of machines."""
        for change, pending in self._grouped.due(self._clock.now_ms()):
            if change.ev in {POOL_SWITCH, POOL_SETUP} and self._pools is not None:
                event = self._pools.told(change, pending, self._history)
                if change.was is not None:
                    log.warning(
                        change.ev,
                        group=change.group,
                        was=change.was,
                        now=change.now,
                        machines=len(pending.machines),
                    )
            else:
                event = fields(change, pending)
                log.info("asic_identity", group=change.group, what=change.now, machines=len(pending.machines))
            self._changed = True
            self._record(event)
            await asyncio.sleep(0)

    def _history(self, machine: str) -> PoolHistory | None:
        known = self._seen.get(machine)
        return None if known is None else known.history

    def _stamp(self) -> dict[str, tuple[int, int] | None]:
        found: dict[str, tuple[int, int] | None] = {}
        for name in (register.FILE, lists.FILE):
            try:
                stat = (self._state_dir / name).stat()
                found[name] = (stat.st_mtime_ns, stat.st_ino)
            except OSError:
                found[name] = None
        return found

    async def _reload(self) -> None:
        stamps = await asyncio.to_thread(self._stamp)
        was, self._stamps = self._stamps, stamps
        if stamps[register.FILE] != was.get(register.FILE):
            self._register = await self._read(register.load)
            await self._rebuild()
            await self._tell_unregistered()
        if self._pools is None:
            return
        if not self._pools.calendar.covers(local_day(self._clock.now_ms() // 1000) + NEXT_YEAR):
            given = await self._read(lists.load)
            self._pools.calendar = await asyncio.to_thread(calendar_for, given, self._clock.now_ms())
        if stamps[lists.FILE] != was.get(lists.FILE):
            given = await self._read(lists.load)
            self._pools.calendar = await asyncio.to_thread(calendar_for, given, self._clock.now_ms())
            self._pools.accredited = (given or Accredited()).pool_list()
            day = local_day(self._clock.now_ms() // 1000)
            for number, known in enumerate(list(self._seen.values())):
                self._pools.rekey(known.pools, known.history, day)
                if number % PIECE == 0:
                    await asyncio.sleep(0)

    async def _rebuild(self) -> None:
        """Match all machines anew, beside the old book: polls go on meanwhile and are caught up with."""
        book = Reconciler(self._register.entries if self._register is not None else (), self._places)
        todo = list(self._seen.values())
        for number, known in enumerate(todo):
            if known.identity_before is not None:
                book.take(known.machine, known.identity_before)
            book.take(known.machine, known.identity)
            if number % PIECE == 0:
                await asyncio.sleep(0)
        for machine, known in self._seen.items():
            book.take(machine, known.identity)
        self._book = book

    async def _tell_unregistered(self) -> None:
        now_ms = self._clock.now_ms()
        if self._register is not None:
            self._record(
                {
                    "ev": IDENTITY,
                    "obj": "register",
                    "was": None,
                    "now": "imported",
                    "detail": {"machines": len(self._register.entries), "sha256": self._register.source_sha256},
                }
            )
        for number, (machine, known) in enumerate(list(self._seen.items())):
            if self._register is not None and self._book.finding(machine).standing is Standing.UNREGISTERED:
                change = Change(IDENTITY, self._places[machine].group, None, str(Standing.UNREGISTERED))
                self._grouped.add(change, machine, now_ms, own=(None, _name(known.identity)))
            if number % PIECE == 0:
                await asyncio.sleep(0)

    async def _save(self) -> None:
        self._saved_ns = self._clock.mono_ns()
        self._changed = False
        try:
            await asyncio.to_thread(seen.save, self._state_dir, list(self._seen.values()), self._clock.now_ms())
        except OSError as error:
            self._changed = True
            log.error("inventory_not_saved", error=str(error))

    # asking ----------------------------------------------------------------------------------------------------------

    def summary(self) -> Mapping[str, Any]:
        """The site in numbers, for the status file; costs nothing."""
        return asdict(self._book.counts()) | {"register": None if self._register is None else self._register.source}


def _name(identity: Identity) -> str | None:
    return identity.serial or identity.mac


def _difference(flag: Flag, was: Identity, now: Identity) -> tuple[str | None, str | None]:
    if flag is Flag.FIRMWARE_CHANGED:
        return was.firmware, now.firmware
    return _name(was), _name(now)
