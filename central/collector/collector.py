"""The collector: groups what arrives, stores it, acknowledges in order of arrival, says what is on disk.

Order of things, and it is the guarantee: database commit, then MQTT acknowledgement, then ``commit`` message. Killed
between any two of them, the site sends again and the stores take it once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from central.collector.link import Arrived, MqttLink
from central.collector.sorting import Sorted, Sorter
from central.collector.storing import Outcome, Storer
from central.collector.watch import StoreWatch
from central.live import LiveState
from central.metrics import Metrics
from central.store import evidence
from central.store.database import Database, reason, unavailable
from central.telemetry.protocol import TelemetryStore
from central.witness import Witness, largest_note, missing_leaves
from wire.messages import CertGrant, CertRequest, CheckpointMessage, Commit, Heads, State, Want
from wire.names import PREFIX, UP, topic

log = structlog.get_logger(__name__)

GROUP = 200
LINGER_S = 0.03
RETRY_S = 1.0
WANT_AGAIN_MS = 20_000
WANT_GRACE_S = 5.0
"""After ``heads`` the newest records may still be on their way; what is missing then is asked for."""
MAX_WANTS = 20_000
SUBSCRIPTIONS = tuple((f"{PREFIX}/+/{name}", 0 if name == "live" else 1) for name in UP)


class Collector:
    """Owns the consuming task; the link is made by the caller and gives its messages to :meth:`arrive`."""

    def __init__(
        self,
        live: LiveState,
        sorter: Sorter,
        storer: Storer,
        database: Database,
        telemetry: TelemetryStore,
        metrics: Metrics,
        now_ms: Callable[[], int],
        on_answers: Callable[[Sequence[evidence.Incoming]], None],
        on_online: Callable[[str], None],
        witness: Witness,
        on_checkpoint: Callable[[CheckpointMessage], None] = lambda _message: None,
        renew: Callable[[CertRequest], CertGrant | None] = lambda _request: None,
    ) -> None:
        self.link: MqttLink | None = None
        self._live = live
        self._sorter = sorter
        self._storer = storer
        self._database = database
        self._telemetry = telemetry
        self._metrics = metrics
        self._now_ms = now_ms
        self._on_answers = on_answers
        self._on_online = on_online
        self._witness = witness
        self._on_checkpoint = on_checkpoint
        self._renew = renew
        self._inbox: deque[Sorted] = deque()
        self._wake = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._wanted: OrderedDict[tuple[str, str, str, int], int] = OrderedDict()
        self._asking: set[asyncio.Task[None]] = set()
        self._greeted: dict[str, tuple[str, str]] = {}
        self._watch = StoreWatch()

    @property
    def store_up(self) -> bool:
        """False while the database or the disk takes nothing."""
        return self._watch.up

    def start(self) -> None:
        """Begin to consume; ended by :meth:`stop`."""
        self._owner = asyncio.create_task(self._consume(), name="collector")

    async def stop(self) -> None:
        """Stop consuming. What is not yet stored was not acknowledged and comes again."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        if self._owner is not None:
            self._owner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._owner
            self._owner = None

    def arrive(self, message: Arrived) -> None:
        """Take a message from the link. Presence, live and progress are shown before anything is stored."""
        item = self._sorter.sort(message)
        self._metrics.messages.labels(item.name or "other").inc()
        site = self._live.sites.get(item.site)
        if site is not None:
            if item.live is not None:
                site.take_live(item.live, message.received_ms)
            if item.progress is not None:
                site.take_progress(item.progress)
            if item.state is not None:
                site.take_state(item.state, message.received_ms)
                self._answer_state(item.state)
            if item.inventory is not None:
                site.inventory = item.inventory
            if item.heads is not None:
                site.heads, site.heads_seen_ms = item.heads, message.received_ms
        if message.qos == 0 and item.live is not None:
            return
        self._inbox.append(item)
        self._wake.set()

    def _publish(self, site: str, name: str, payload: bytes) -> None:
        if self.link is None or not self.link.publish(topic(site, name), payload):
            self._metrics.unsent.labels(name).inc()

    def _answer_state(self, state: State) -> None:
        if not state.online:
            return
        answer = Commit(site=state.site, epoch=state.epoch, at=self._now_ms(), state_at=state.at)
        self._publish(state.site, "commit", answer.encode())
        self._on_online(state.site)
        if (state.epoch, state.boot) != self._greeted.get(state.site):
            self._greeted[state.site] = (state.epoch, state.boot)
            self._later(self._greet(state.site, state.epoch), f"greet-{state.site}")

    async def _greet(self, site: str, epoch: str) -> None:
        """Tell a site that has just started what is held of its log: it may have been put back to an older day."""
        while True:
            try:
                said = await self._database.read(lambda c: self._witness.greet(c, site, epoch))
                break
            except (sa.exc.SQLAlchemyError, OSError) as error:
                if not unavailable(error):
                    raise
            await asyncio.sleep(RETRY_S)
        self._publish(site, "cosign", said.encode())

    def _later(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(self._watched(work, name), name=name)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    @staticmethod
    async def _watched(work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except (sa.exc.SQLAlchemyError, OSError) as error:
            log.error("store_not_read", work=name, error=reason(error))

    async def _consume(self) -> None:
        while True:
            await self._wake.wait()
            if len(self._inbox) < GROUP and not any(item.name in {"answer", "heads"} for item in self._inbox):
                await asyncio.sleep(LINGER_S)
            group = [self._inbox.popleft() for _ in range(min(GROUP, len(self._inbox)))]
            if not self._inbox:
                self._wake.clear()
            if group:
                await self._handle(group)

    async def _handle(self, group: Sequence[Sorted]) -> None:
        outcomes = await self._store(group)
        # After the commit, in order of arrival (MQTT-4.6.0-2).
        for item in group:
            MqttLink.acknowledge(item.message)
        for outcome in outcomes:
            self._count(outcome)
            for commit in outcome.commits(self._now_ms()):
                self._publish(commit.site, "commit", commit.encode())
            for answer in outcome.cosigns:
                self._publish(answer.cosign.site, "cosign", answer.cosign.encode())
                if answer.submitted is not None:
                    self._on_checkpoint(answer.submitted)
        for item in group:
            if item.request is not None and (grant := self._renew(item.request)) is not None:
                self._publish(item.site, "cert", grant.encode())
        answers = [line for item in group for line in item.evidence if line.stream == "cmd"]
        if answers:
            self._on_answers(answers)
        newest = {item.site: item.heads for item in group if item.heads is not None}
        for heads in newest.values():
            try:
                await self._compare(heads)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                log.error("heads_compare_failed", site=heads.site, error=reason(error))

    async def _store(self, group: Sequence[Sorted]) -> list[Outcome]:
        """Store a group; where it fails as a whole, message by message, so that one bad one harms no other."""
        try:
            return [await self._stored(group)]
        except Exception as error:  # whatever it is, no message may be lost or block the rest
            log.error("group_failed", size=len(group), error=f"{type(error).__name__}: {error}"[:300])
        return [await self._store_one(item) for item in group]

    async def _stored(self, group: Sequence[Sorted]) -> Outcome:
        """Store, and wait where it is the disk or the database that fails: unacknowledged, until it is well again.

        Raises:
            Exception: one of the messages cannot be stored.
        """
        while True:
            try:
                with self._watch.trying(len(group)):
                    return await self._storer.store(group, self._now_ms())
            except Exception as error:
                if not unavailable(error):
                    raise
                self._metrics.store_errors.inc()
                self._watch.failed(error, len(group), RETRY_S)
            await asyncio.sleep(RETRY_S)

    async def _store_one(self, item: Sorted) -> Outcome:
        while True:
            try:
                return await self._stored([item])
            except Exception as error:  # the message itself: kept aside, counted, never retried
                log.error("message_refused_by_store", site=item.site, topic=item.name, error=str(error)[:300])
                item.evidence, item.batch, item.inventory, item.checkpoint = [], None, None, None
                if any(q.code == "store" for q in item.quarantined):
                    return Outcome()
                item.quarantined = [Sorter.refusal(item, "store", f"{type(error).__name__}: {error}")]

    def _count(self, outcome: Outcome) -> None:
        self._metrics.records.labels("new").inc(outcome.evidence_new)
        self._metrics.records.labels("duplicate").inc(outcome.evidence_duplicates)
        self._metrics.batches.labels("new").inc(outcome.batches_new)
        self._metrics.batches.labels("duplicate").inc(outcome.batches_duplicate)
        for (site, code), count in outcome.quarantined.items():
            self._metrics.quarantined.labels(code).inc(count)
            log.warning("quarantined", site=site, code=code, count=count)
        for site in outcome.forked:
            self._metrics.forks.inc()
            log.error("fork", site=site)
            if site in self._live.sites:
                self._live.sites[site].alarms.add("fork")

    async def _compare(self, heads: Heads) -> None:
        found = await self._database.read(lambda c: evidence.compare(c, heads))
        site = self._live.sites.get(heads.site)
        if site is not None:
            for name, there in (("other_hash", found.other_hash), ("tail_lost", found.shrunk)):
                (site.alarms.add if there else site.alarms.discard)(name)
        for name, streams in (("other_hash", found.other_hash), ("tail_lost", found.shrunk)):
            if streams:
                log.error(f"heads_{name}", site=heads.site, epoch=heads.epoch, streams=list(streams)[:5])
        self._later(self._ask_later(heads), f"want-{heads.site}")

    async def _ask_later(self, heads: Heads) -> None:
        """Ask for what is still missing a while after the heads: the newest records come by themselves."""
        await asyncio.sleep(WANT_GRACE_S)
        found = await self._database.read(lambda c: evidence.compare(c, heads))
        for stream, first, last in found.missing:
            self._want(heads, stream, first, last)
        size = await self._database.read(lambda c: largest_note(c, heads.site, heads.epoch))
        hole = await self._database.read(lambda c: missing_leaves(c, heads.site, heads.epoch, size))
        if hole is not None:
            self._want(heads, "log", *hole)
        if heads.bulk_last is not None:
            for tail in await self._telemetry.missing(heads.site, heads.epoch, heads.boot, heads.bulk_last):
                self._want(heads, "bulk", tail.first, tail.last)

    def _want(self, heads: Heads, stream: str, first: int, last: int) -> None:
        key, now = (heads.site, heads.epoch, stream, first), self._now_ms()
        if now - self._wanted.get(key, 0) < WANT_AGAIN_MS:
            return
        self._wanted[key] = now
        self._wanted.move_to_end(key)
        while len(self._wanted) > MAX_WANTS:
            self._wanted.popitem(last=False)
        want = Want(site=heads.site, epoch=heads.epoch, stream=stream, first=first, last=last)
        self._metrics.wants.inc()
        log.info("want", site=heads.site, stream=stream, first=first, last=last)
        self._publish(heads.site, "want", want.encode())
