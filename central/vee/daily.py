"""Judge each site after each of its days, and again where slots of a judged day came later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from central.errors import CentralError
from central.store.database import Database
from central.store.schema import intervals, verdicts
from central.vee.book import Run, append
from central.vee.judge import Verdict, judge
from central.vee.limits import CURRENT, load
from central.vee.model import SiteSlots
from central.vee.reader import read_site
from wire.keys import SigningKey
from wire.registry import KeysDocument, RegisteredSite
from wire.rollup import Period, period_of

log = structlog.get_logger(__name__)

LOOK_S = 600.0
SETTLE_S = 900
"""After the end of a day, for its last records to come in."""
DAYS_BACK = 7
"""Late slots of older days are judged on demand."""


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
    """Closed days of the last week that no run has judged with as many slots as there are now, the oldest first."""
    found: list[Period] = []
    day = period_of(now_s - SETTLE_S, "day")
    for _ in range(DAYS_BACK):
        day = period_of(day.start_s - 1, "day")
        slots = sa.select(sa.func.count()).where(
            intervals.c.site == site,
            intervals.c.verified.is_(True),
            intervals.c.t0_s >= day.start_s,
            intervals.c.t0_s < day.end_s,
        )
        count = int(connection.execute(slots).scalar_one())
        before = (
            sa.select(verdicts.c.slots_n)
            .where(verdicts.c.site == site, verdicts.c.ty == "vee_run", verdicts.c.thresholds == CURRENT)
            .where(verdicts.c.t0_s == day.start_s, verdicts.c.t1_s == day.end_s)
            .order_by(verdicts.c.n.desc())
            .limit(1)
        )
        if count and connection.execute(before).scalar() != count:
            found.append(day)
    return found[::-1]


class DailyJudge:
    """One task; a site whose records cannot be judged is logged and does not keep the others from it."""

    def __init__(
        self,
        database: Database,
        register: Callable[[], KeysDocument | None],
        key: SigningKey,
        base_w: Callable[[str], Mapping[str, int]],
        now_ms: Callable[[], int],
        looked: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``looked`` is called after every look, also where nothing was due: others may have judged meanwhile."""
        self._looked = looked
        self._database, self._register, self._key = database, register, key
        self._base_w, self._now_ms = base_w, now_ms
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
        while True:
            await self.look()
            try:
                if self._looked is not None:
                    await self._looked()
            except Exception as error:  # judging must go on where witnesses or the database do not
                log.error("looked", error=repr(error)[:300])
            await asyncio.sleep(LOOK_S)

    async def look(self) -> list[Run]:
        """Judge every day that is due."""
        document = self._register()
        made: list[Run] = []
        for entry in document.sites if document is not None else ():
            try:
                made += await self._judge_site(entry)
            except Exception as error:  # whatever one site signed must not keep the others from being judged
                log.error("plausibility_failed", site=entry.id, error=repr(error)[:300])
        return made

    async def _judge_site(self, entry: RegisteredSite) -> list[Run]:
        made: list[Run] = []
        for day in await self._database.read(partial(due, site=entry.id, now_s=self._now_ms() // 1000)):
            work = partial(judged, entry=entry, start=day.start_s, end=day.end_s, base_w=self._base_w(entry.id))
            site, verdict = await self._database.read(work)
            write = partial(append, site=site, verdict=verdict, limits=load(), key=self._key, now_ms=self._now_ms())
            made.append(await self._database.write(write))
            log.info("plausibility", site=entry.id, day=day.name, findings=len(verdict.findings), worst=verdict.worst())
        return made
