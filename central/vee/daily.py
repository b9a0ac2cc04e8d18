"""Judge each site after each of its days, and again where slots of a judged day came later."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from central.errors import CentralError
from central.store.database import Database
from central.store.schema import verdicts
from central.vee.book import Run, append
from central.vee.copies import Copies
from central.vee.judge import Verdict, judge
from central.vee.limits import CURRENT, load
from central.vee.model import SiteSlots
from central.vee.reader import came_later, read_site, stored_slots
from wire.keys import SigningKey
from wire.registry import KeysDocument, RegisteredSite
from wire.rollup import Period, period_of

log = structlog.get_logger(__name__)

LOOK_S = 600.0
HELD_S = 20.0
"""Until the next look where a log waits for its witnesses, in the first looks after the start."""
HELD_LOOKS = 30
SETTLE_S = 900
"""After the end of a day, for its last records to come in."""
DAYS_BACK = 7
"""Late slots of older days are judged on demand."""
AGAIN_S = 6 * 3600


def judged(
    connection: Connection,
    entry: RegisteredSite,
    start: int,
    end: int,
    version: int = CURRENT,
    base_w: Mapping[str, int] | None = None,
) -> tuple[SiteSlots, Verdict]:
    """Read and judge [``start``, ``end``) of a site.

    Raises:
        CentralError: the time is not on the slot grid, or there are no such thresholds.
    """
    if start >= end or start % entry.slot_s or end % entry.slot_s:
        raise CentralError(f"period {start}/{end}: expected begin before end, both on the grid of {entry.slot_s} s")
    try:
        limits = load(version)
    except ValueError as error:
        raise CentralError(str(error)) from None
    site = read_site(connection, entry, start, end, limits, base_w)
    return site, judge(site, limits)


def due(connection: Connection, site: str, now_s: int) -> list[Period]:
    """Closed days of the last week that no run has judged, or with fewer records than there are now, the oldest first.

    A day is judged again when its last run is :data:`AGAIN_S` old, so that a site that sends old records one by one
    does not fill the log.
    """
    found: list[Period] = []
    day = period_of(now_s - SETTLE_S, "day")
    for _ in range(DAYS_BACK):
        day = period_of(day.start_s - 1, "day")
        last = connection.execute(
            sa.select(verdicts.c.slots_n, verdicts.c.at)
            .where(verdicts.c.site == site, verdicts.c.ty == "vee_run", verdicts.c.thresholds == CURRENT)
            .where(verdicts.c.t0_s == day.start_s, verdicts.c.t1_s == day.end_s)
            .order_by(verdicts.c.n.desc())
            .limit(1)
        ).first()
        if last is not None and now_s * 1000 < last.at + AGAIN_S * 1000:
            continue
        count = stored_slots(connection, site, day.start_s, day.end_s)
        if not count:
            continue
        if last is None or last.slots_n != count or came_later(connection, site, day.start_s, day.end_s, int(last.at)):
            found.append(day)
    return found[::-1]


class DailyJudge:
    """One task; a site whose records cannot be judged is logged and does not keep the others from it.

    Args:
        offer: has witnesses look at where the logs stand; called before and after every look, also where nothing was
            due: others may have judged meanwhile.
        hold: why nothing may be added to the log on a site now; ``None``: it may.
    """

    def __init__(
        self,
        database: Database,
        register: Callable[[], KeysDocument | None],
        key: SigningKey,
        base_w: Callable[[str], Mapping[str, int]],
        now_ms: Callable[[], int],
        copies: Copies,
        *,
        offer: Callable[[], Awaitable[None]] | None = None,
        hold: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._offer_logs, self._hold, self._copies = offer, hold, copies
        self._database, self._register, self._key = database, register, key
        self._base_w, self._now_ms = base_w, now_ms
        self._held: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, now and then."""
        self._task = asyncio.create_task(self._run(), name="plausibility")

    async def stop(self) -> None:
        """Stop; what was not judged is at the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        for looks in itertools.count(1):
            await self._level()
            await self._offer()
            made = await self.look()
            if made:
                await self._offer()
            await asyncio.sleep(HELD_S if self._held and looks <= HELD_LOOKS else LOOK_S)

    async def _level(self) -> None:
        """Take back what the database lacks before anybody is told where it stands."""
        document = self._register()
        for entry in document.sites if document is not None else ():
            level = partial(self._copies.level, site=entry.id, key=self._key, now_ms=self._now_ms())
            try:
                await self._database.write(level)
            except Exception as error:  # of one site; its log does not grow then
                log.error("verdicts_not_level", site=entry.id, error=str(error)[:400])

    async def _offer(self) -> None:
        try:
            if self._offer_logs is not None:
                await self._offer_logs()
        except Exception as error:  # judging must go on where witnesses or the database do not
            log.error("verdicts_not_offered", error=repr(error)[:300])

    async def look(self) -> list[Run]:
        """Judge every day that is due."""
        document = self._register()
        made: list[Run] = []
        self._held.clear()
        for entry in document.sites if document is not None else ():
            try:
                made += await self._judge_site(entry)
            except Exception as error:  # whatever one site signed must not keep the others from being judged
                log.error("plausibility_failed", site=entry.id, error=repr(error)[:300])
        return made

    async def _judge_site(self, entry: RegisteredSite) -> list[Run]:
        made: list[Run] = []
        for day in await self._database.read(partial(due, site=entry.id, now_s=self._now_ms() // 1000)):
            why = self._hold(entry.id)
            if why is not None:
                self._held.add(entry.id)
                log.warning("plausibility_waits", site=entry.id, day=day.name, why=why)
                break
            made.append(await self._judge_day(entry, day))
        await self._database.read(partial(self._copies.add, site=entry.id))
        return made

    async def _judge_day(self, entry: RegisteredSite, day: Period) -> Run:
        now_ms = self._now_ms()
        work = partial(judged, entry=entry, start=day.start_s, end=day.end_s, base_w=self._base_w(entry.id))
        site, verdict = await self._database.read(work)

        def write(connection: Connection) -> Run:
            self._copies.level(connection, entry.id, self._key, now_ms)
            return append(connection, site, verdict, load(), self._key, now_ms)

        run = await self._database.write(write)
        log.info("plausibility", site=entry.id, day=day.name, findings=len(verdict.findings), worst=verdict.worst())
        return run
