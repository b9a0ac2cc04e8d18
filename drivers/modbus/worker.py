"""The worker of one link: takes the next job, asks, notes what was heard, and never raises because of a device.

It owns the connections, the queue, the timers of the subscriptions and the counters. Callers talk to
:class:`drivers.modbus.link.ModbusLink`, which owns this.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence

import structlog

from drivers.cancellation import cancel_was_lost
from drivers.modbus.clock import Clock
from drivers.modbus.connection import Connection, Heard
from drivers.modbus.events import LinkEvent
from drivers.modbus.pdu import READING
from drivers.modbus.scheduler import Answer, Job, Klass, Scheduler
from drivers.modbus.stats import LinkStats
from drivers.modbus.stray import MasterWatch, Stray, StrayKind
from drivers.modbus.subscription import Subscription
from wire.quality import Quality

log = structlog.get_logger(__name__)

MUTE_LIMIT = 5
"""Silent requests in a row, with no byte from anyone, after which a TCP connection is made anew."""
NOT_ASKED = "not asked before its deadline: the link was busy, or it is silent"


class Lane:
    """One connection of the link and what is asked on it now."""

    __slots__ = ("connection", "current", "mute")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.current: Job | None = None
        self.mute = 0


class LinkWorker:
    """See the module. Times are monotonic seconds of the link's clock."""

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        sched: Scheduler,
        rtu: bool,
        own_line: bool,
        guard_s: float,
        make_job: Callable[[Subscription, float], Job],
        on_event: Callable[[LinkEvent], None],
    ) -> None:
        """``rtu``: frames carry no number; ``own_line``: a serial port, which gains nothing by being opened anew."""
        self.name = name
        self.sched = sched
        self.guard_s = guard_s
        self.stats = LinkStats()
        self.stats.since_s = clock.monotonic_ns() / 1e9
        self._lanes: list[Lane] = []
        self._clock = clock
        self._rtu, self._own_line = rtu, own_line
        self._make_job = make_job
        self._on_event = on_event
        self._timers: list[tuple[float, int, Subscription, int]] = []
        self._seq = 0
        self._wake = asyncio.Event()
        self._masters = MasterWatch()
        self._fault = ""
        """Of a receiver, as last written to the log."""

    def connect_by(self, connections: Sequence[Connection]) -> None:
        """The connections to ask on; before :meth:`run`."""
        self._lanes = [Lane(connection) for connection in connections]
        self.stats.connections = len(self._lanes)

    @property
    def connected(self) -> bool:
        """True while any connection stands."""
        return any(lane.connection.up for lane in self._lanes)

    def now(self) -> float:
        """By the link's clock."""
        return self._clock.monotonic_ns() / 1e9

    def add(self, job: Job) -> None:
        """Queue a job."""
        self.sched.add(job)
        self._wake.set()

    def arm(self, sub: Subscription) -> None:
        """Ask a subscription's requests at its ``next_due``."""
        self._seq += 1
        sub.seq = self._seq
        heapq.heappush(self._timers, (sub.next_due, self._seq, sub, self._seq))
        self._wake.set()

    def reschedule(self, sub: Subscription, within_s: float) -> None:
        """Ask them no later than ``within_s`` from now."""
        sub.next_due = min(sub.next_due, self.now() + within_s)
        self.arm(sub)

    def give_up(self, job: Job, quality: Quality, why: str) -> None:
        """Answer what is not answered yet with ``quality``."""
        while len(job.answers) < len(job.pdus):
            request = bytes((job.unit,)) + job.next_pdu
            at_ms, mono_ns = self._clock.wall_ms(), self._clock.monotonic_ns()
            # What has left may have had its effect, so it counts as sent.
            job.answers.append(Answer(quality, at_ms, mono_ns, request=request, error=why, sent=job.in_flight))
            job.in_flight = False
        self._finish(job)

    def _finish(self, job: Job) -> None:
        if job.finished:
            return
        job.finished = True
        try:
            job.on_done(tuple(job.answers))
        except Exception as error:  # a receiver's fault must not stop the link that serves all the others
            text = f"{type(error).__name__}: {error}"
            # The whole trace once: polls come each second, and writing it takes longer than many of them.
            log.error("modbus_receiver_failed", link=self.name, unit=job.unit, error=text, exc_info=text != self._fault)
            self._fault = text

    async def run(self) -> None:
        """Serve the link until cancelled; then everything still waiting is answered as not connected."""
        try:
            if len(self._lanes) == 1:
                await self._work(self._lanes[0])
                return
            async with asyncio.TaskGroup() as group:
                for number, lane in enumerate(self._lanes):
                    group.create_task(self._work(lane), name=f"link-{self.name}-{number}")
        finally:
            for lane in self._lanes:
                lane.connection.close()
                if lane.current is not None:
                    self.give_up(lane.current, Quality.NO_CONNECTION, f"link {self.name} was stopped while it waited")
            for job in self.sched.drain():
                self.give_up(job, Quality.NO_CONNECTION, f"link {self.name} was stopped")

    async def _work(self, lane: Lane) -> None:
        sched = self.sched
        while not cancel_was_lost():
            now = self.now()
            if self._timers and self._timers[0][0] <= now:
                self._release(now)
            for late in sched.expired(now):
                self.give_up(late, Quality.TIMEOUT, NOT_ASKED)
            job = sched.pick(now)
            if job is None:
                self._watch(now)
                await self._sleep(now)
            else:
                await self._serve(lane, job)

    async def _sleep(self, now: float) -> None:
        times = [t for t in (self.sched.next_wake(now), self._timers[0][0] if self._timers else None) if t is not None]
        self._wake.clear()
        delay = max(min(times) - now, 0.0) if times else None
        if delay is None:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(delay + 0.0005):
                await self._wake.wait()
        except TimeoutError:
            return

    def _release(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            due, _, sub, seq = heapq.heappop(self._timers)
            if not sub.active or seq != sub.seq:
                continue
            missed = int((now - due) / sub.period_s)
            sub.next_due = due + (missed + 1) * sub.period_s
            self.arm(sub)
            self.stats.polls += 1
            if sub.pending:
                self.stats.skipped += 1
                self.stats.late += 1
                continue
            sub.pending = True
            job = self._make_job(sub, due)
            if self.sched.may_poll(job.unit, now):
                self.sched.add(job)
            else:
                self.stats.not_asked += 1
                silent = self.sched.health(job.unit).silent
                self.give_up(job, Quality.TIMEOUT, f"not asked: silent for {silent} requests, asked again later")

    async def _serve(self, lane: Lane, job: Job) -> None:
        health = self.sched.health(job.unit)
        lane.current, health.busy = job, True
        try:
            await self._ask(lane, job)
        finally:
            health.busy = False
            if len(self._lanes) > 1:
                self._wake.set()

    async def _ask(self, lane: Lane, job: Job) -> None:
        control = job.klass is Klass.CONTROL
        if not lane.connection.up:
            why_not = await lane.connection.ensure(max(self.sched.timeout_s, 0.2), at_once=control)
            self.stats.connects = sum(each.connection.connects for each in self._lanes)
            if why_not is not None:
                self.give_up(job, Quality.NO_CONNECTION, why_not)
                return
        if control and self.now() > job.deadline:
            self.give_up(job, Quality.TIMEOUT, "not sent before its deadline")
            return
        pdu = job.next_pdu
        if pdu[0] not in job.allowed:  # the second lock on the same door; the first is _admit
            log.critical("modbus_forbidden_function", link=self.name, unit=job.unit, function=pdu[0])
            self.give_up(job, Quality.EXCEPTION, f"function {pdu[0]} must never be sent to unit {job.unit}")
            return
        wait_s = self.sched.timeout_for(job, self.now())
        short = wait_s < job.timeout_s
        health = self.sched.health(job.unit)
        half_open = health.silent > 0
        self.stats.requests += 1
        job.in_flight = True
        heard = await lane.connection.ask(job.unit, pdu, wait_s)
        self._note(lane, job, heard, short=short)
        if job.finished:
            return
        job.in_flight = False
        if heard.silent and short and health.proven and not half_open and pdu[0] in READING:
            self.sched.add(job)  # it waited less than it may: asked once more, out of the silent units' share
            return
        job.answers.append(
            Answer(
                heard.quality,
                self._clock.wall_ms(),
                self._clock.monotonic_ns(),
                bytes((job.unit,)) + pdu,
                heard.answer,
                heard.took_s * 1000,
                heard.error,
                True,
                heard.exception,
            )
        )
        if len(job.answers) == len(job.pdus):
            self._finish(job)
        elif heard.lost or (heard.silent and (half_open or not self.sched.affords(self.now()))):
            # A silent unit is tried by one question; its other blocks wait until it has answered one.
            self.give_up(job, heard.quality, f"not asked after: {heard.error}")
        else:
            self.sched.add(job)

    def _note(self, lane: Lane, job: Job, heard: Heard, *, short: bool) -> None:
        """What an answer, or none, says about the unit and the connection."""
        now, stats = self.now(), self.stats
        stats.busy_s += heard.took_s
        stats.answers += heard.quality is Quality.GOOD
        stats.exceptions += heard.quality is Quality.EXCEPTION
        stats.bad_frames += heard.quality is Quality.CRC
        if heard.lost:
            return
        self.sched.line_ready_at = now + self.guard_s
        if not heard.silent:
            lane.mute = 0
            self.sched.answered(job.unit, now, heard.took_s, job.gap_s)
            self.sched.line_ready_at = now + max(job.turnaround_s, self.guard_s)
            return
        stats.timeouts += 1
        stats.probing_s += heard.took_s
        if self.sched.health(job.unit).silent == 0:
            log.warning("modbus_unit_silent", link=self.name, unit=job.unit)
        # RTU frames have no number: an answer that comes late must not be taken for that of the next question.
        quiet_s = 2 * self.sched.timeout_s if self._rtu else 0.0
        self.sched.silent(job.unit, now, heard.took_s, short=short, quiet_s=quiet_s)
        lane.mute += not heard.answer
        if lane.mute >= MUTE_LIMIT and not self._own_line:
            lane.mute = 0
            lane.connection.close()

    def stray(self, stray: Stray) -> None:
        """Something was heard that answers no open question."""
        stats = self.stats
        if stray.kind is StrayKind.FOREIGN:
            stats.foreign_frames += 1
            if self._masters.foreign(self.now()):
                stats.second_master = True
                log.error("second_master", link=self.name, frame=stray.data.hex(), foreign_frames=stats.foreign_frames)
                self._tell(LinkEvent("second_master", self.name, True, stats.foreign_frames, stray.data))
        elif stray.kind is StrayKind.LATE:
            stats.late_answers += 1
            self.sched.late(stray.data[0])
        elif stray.kind is StrayKind.ECHO:
            stats.echoes += 1
        else:
            stats.noise_bytes += len(stray.data)

    def _watch(self, now: float) -> None:
        if self._masters.gone(now):
            self.stats.second_master = False
            log.warning("second_master_gone", link=self.name)
            self._tell(LinkEvent("second_master", self.name, False, self.stats.foreign_frames))

    def _tell(self, event: LinkEvent) -> None:
        try:
            self._on_event(event)
        except Exception:  # a receiver's fault must not stop the link
            log.exception("modbus_receiver_failed", link=self.name, event_name=event.name)
