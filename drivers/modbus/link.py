"""One physical Modbus link and its one worker.

Whoever owns the link runs :meth:`ModbusLink.run` as a task and cancels it. Everything asked of the link is a job in its
scheduler; the worker sends one request at a time and never raises because of a device.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import zlib
from collections.abc import Callable, Sequence

import structlog

from drivers.cancellation import cancel_was_lost
from drivers.capabilities import Sample
from drivers.modbus.clock import Clock, SystemClock
from drivers.modbus.connection import Connection, Heard
from drivers.modbus.device import ForbiddenFunction, LinkDevice
from drivers.modbus.meter import MeterDevice
from drivers.modbus.pdu import READ_FUNCTIONS
from drivers.modbus.scheduler import Answer, Job, Klass, Scheduler
from drivers.modbus.stats import LinkStats
from drivers.modbus.transport import ModbusTransport, Transport
from drivers.modbus.url import LinkUrl, parse_url
from wire.quality import Quality

log = structlog.get_logger(__name__)

MUTE_LIMIT = 5
"""Silent requests in a row, with no byte from anyone, after which a TCP connection is made anew."""
PHASE_SPREAD_S = 5.0


class Subscription:
    """A repeated request. Owned by who asked for it; ends with :meth:`cancel`."""

    __slots__ = ("_link", "active", "device", "make_job", "next_due", "pending", "period_s", "seq")

    def __init__(
        self, link: ModbusLink, device: LinkDevice, make_job: Callable[[Subscription, float], Job], period_s: float
    ) -> None:
        self._link = link
        self.device = device
        self.make_job = make_job
        self.period_s = period_s
        self.next_due = 0.0
        self.pending = False
        self.active = True
        self.seq = 0

    def set_period(self, period_s: float) -> None:
        """Ask at another period from now on; the next request comes no later than one new period from now."""
        if period_s <= 0:
            raise ValueError(f"period_s: seen {period_s}, expected more than 0")
        self.period_s = period_s
        self._link._reschedule(self)

    def cancel(self) -> None:
        """Stop asking. A sample already under way may still be delivered."""
        self.active = False


class ModbusLink:
    """All devices behind one TCP endpoint or serial line."""

    def __init__(
        self,
        url: str | LinkUrl,
        *,
        name: str,
        timeout_s: float = 0.5,
        clock: Clock | None = None,
        transport: Transport | None = None,
        rng: random.Random | None = None,
        probe_share: float = 0.05,
    ) -> None:
        """``timeout_s`` is the time-out of a request; ``probe_share`` what silent units may cost of the link's time.

        Raises:
            ValueError: the address is wrong.
        """
        self.url = parse_url(url)[0] if isinstance(url, str) else url
        self.name = name
        self.timeout_s = timeout_s
        self._clock: Clock = clock or SystemClock()
        rng = rng or random.Random()
        self._connection = Connection(
            self.url, transport or ModbusTransport(self.url), name=name, clock=self._clock, rng=rng
        )
        self._sched = Scheduler(
            timeout_s=timeout_s, probe_share=probe_share, rng=rng, short_probes=not self.url.rtu_framing
        )
        self._timers: list[tuple[float, int, Subscription, int]] = []
        self._seq = 0
        self._wake = asyncio.Event()
        self._mute = 0
        self._current: Job | None = None
        self._stats = LinkStats(since_s=self._now())

    # -- for callers ---------------------------------------------------------------------------------------------

    @property
    def stats(self) -> LinkStats:
        """Live counters."""
        self._stats.connected = self._connection.up
        return self._stats

    @property
    def busy_share(self) -> float:
        """Share of the link's life in which a request was under way."""
        return self._stats.busy_share(self._now())

    def monotonic_ns(self) -> int:
        """The link's own clock."""
        return self._clock.monotonic_ns()

    def poll(
        self, device: MeterDevice, points: Sequence[str], period_s: float, on_sample: Callable[[Sample], None]
    ) -> Subscription:
        """Read points of a meter each ``period_s``, at a fixed phase; ``on_sample`` is called for failures too.

        Raises:
            KeyError: the profile has no such point.
        """
        asked = device.reading(points)

        def deliver(answers: tuple[Answer, ...]) -> None:
            on_sample(device.sample(asked, answers))

        return self.subscribe(device, asked.pdus, period_s, deliver)

    async def read(
        self, device: MeterDevice, points: Sequence[str], *, klass: Klass = Klass.VERIFICATION, deadline_s: float = 2.0
    ) -> Sample:
        """Read points once, within ``deadline_s``. Never raises because of the device.

        Raises:
            KeyError: the profile has no such point.
        """
        asked = device.reading(points)
        return device.sample(asked, await self.exchange(device, asked.pdus, klass=klass, deadline_s=deadline_s))

    def subscribe(
        self,
        device: LinkDevice,
        pdus: tuple[bytes, ...],
        period_s: float,
        on_answers: Callable[[tuple[Answer, ...]], None],
    ) -> Subscription:
        """Repeat requests each ``period_s``; one answer per request, in order.

        Raises:
            ForbiddenFunction: a request that must not go to this device.
        """
        self._admit(device, pdus)
        if period_s <= 0:
            raise ValueError(f"{device.id}: period_s: seen {period_s}, expected more than 0")

        def make_job(sub: Subscription, due: float) -> Job:
            def done(answers: tuple[Answer, ...]) -> None:
                sub.pending = False
                self._account(due, sub.period_s, answers)
                if sub.active:
                    on_answers(answers)

            return self._job(device, pdus, Klass.POLL, due, due + sub.period_s, done)

        sub = Subscription(self, device, make_job, period_s)
        # Devices of one link come one after the other in each period, always at the same place.
        spread = min(period_s, PHASE_SPREAD_S)
        sub.next_due = self._now() + spread * (zlib.crc32(device.id.encode()) % 1009) / 1009
        self._arm(sub)
        return sub

    async def exchange(
        self, device: LinkDevice, pdus: tuple[bytes, ...], *, klass: Klass, deadline_s: float
    ) -> tuple[Answer, ...]:
        """Send requests to one device within ``deadline_s``; one answer per request, in order.

        Raises:
            ForbiddenFunction: a request that must not go to this device.
        """
        self._admit(device, pdus)
        future: asyncio.Future[tuple[Answer, ...]] = asyncio.get_running_loop().create_future()
        now = self._now()

        def done(answers: tuple[Answer, ...]) -> None:
            if not future.done():
                future.set_result(answers)

        job = self._job(device, pdus, klass, now, now + deadline_s, done)
        self._sched.add(job)
        self._wake.set()
        # The worker keeps the deadline; this second bound holds even where nobody runs it.
        bound = deadline_s + sum(self._time_of(device) for _ in pdus) + self.timeout_s
        try:
            finished, _ = await asyncio.wait({future}, timeout=bound)
        except asyncio.CancelledError:
            job.finished = True  # nobody waits any more: a write still queued must not leave later
            raise
        if finished:
            return future.result()
        self._give_up(job, Quality.TIMEOUT, f"link {self.name}: not served in time")
        return tuple(job.answers)

    # -- worker --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the link until cancelled; then everything still waiting is answered as not connected."""
        try:
            while not cancel_was_lost():
                now = self._now()
                self._release(now)
                for job in self._sched.expired(now):
                    self._give_up(
                        job, Quality.TIMEOUT, "not asked before its deadline: the link was busy, or it is silent"
                    )
                job_now = self._sched.pick(now)
                if job_now is None:
                    await self._sleep(now)
                else:
                    await self._serve(job_now)
        finally:
            self._connection.close()
            if self._current is not None:
                self._give_up(self._current, Quality.NO_CONNECTION, f"link {self.name} was stopped while it waited")
            for job in self._sched.drain():
                self._give_up(job, Quality.NO_CONNECTION, f"link {self.name} was stopped")

    async def _sleep(self, now: float) -> None:
        times = [t for t in (self._sched.next_wake(now), self._timers[0][0] if self._timers else None) if t is not None]
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
            self._arm(sub)
            self._stats.polls += 1
            if sub.pending:
                self._stats.skipped += 1
                self._stats.late += 1
                continue
            sub.pending = True
            job = sub.make_job(sub, due)
            if self._sched.may_poll(job.unit, now):
                self._sched.add(job)
            else:
                self._stats.not_asked += 1
                silent = self._sched.health(job.unit).silent
                self._give_up(job, Quality.TIMEOUT, f"not asked: silent for {silent} requests, asked again later")

    async def _serve(self, job: Job) -> None:
        self._current = job
        control = job.klass is Klass.CONTROL
        why_not = await self._connection.ensure(max(self.timeout_s, 0.2), at_once=control)
        self._stats.connects = self._connection.connects
        if why_not is not None:
            self._give_up(job, Quality.NO_CONNECTION, why_not)
            return
        if control and self._now() > job.deadline:
            self._give_up(job, Quality.TIMEOUT, "not sent before its deadline")
            return
        pdu = job.next_pdu
        if pdu[0] not in job.allowed:  # the second lock on the same door; the first is _admit
            log.critical("modbus_forbidden_function", link=self.name, unit=job.unit, function=pdu[0])
            self._give_up(job, Quality.EXCEPTION, f"function {pdu[0]} must never be sent to unit {job.unit}")
            return
        wait_s = self._sched.timeout_for(job)
        self._stats.requests += 1
        job.in_flight = True
        heard = await self._connection.ask(job.unit, pdu, wait_s)
        self._note(job, heard, short=wait_s < job.timeout_s)
        if job.finished:
            return
        job.in_flight = False
        job.answers.append(
            Answer(
                quality=heard.quality,
                at_ms=self._clock.wall_ms(),
                mono_ns=self._clock.monotonic_ns(),
                request=bytes((job.unit,)) + pdu,
                answer=heard.answer,
                latency_ms=heard.took_s * 1000,
                error=heard.error,
                sent=True,
                exception=heard.exception,
            )
        )
        if len(job.answers) == len(job.pdus):
            self._finish(job)
        elif heard.lost or (heard.silent and not self._sched.affords(self._now())):
            self._give_up(job, heard.quality, f"not asked after: {heard.error}")
        else:
            self._sched.add(job)

    def _note(self, job: Job, heard: Heard, *, short: bool) -> None:
        """What an answer, or none, says about the unit and the connection."""
        now, stats = self._now(), self._stats
        stats.busy_s += heard.took_s
        stats.answers += heard.quality is Quality.GOOD
        stats.exceptions += heard.quality is Quality.EXCEPTION
        stats.bad_frames += heard.quality is Quality.CRC
        if heard.lost:
            return
        if not heard.silent:
            self._mute = 0
            self._sched.answered(job.unit, now, heard.took_s, job.gap_s)
            self._sched.line_ready_at = now + job.turnaround_s
            return
        stats.timeouts += 1
        stats.probing_s += heard.took_s
        if self._sched.health(job.unit).silent == 0:
            log.warning("modbus_unit_silent", link=self.name, unit=job.unit)
        # RTU frames have no number: an answer that comes late must not be taken for that of the next question.
        quiet_s = 2 * self.timeout_s if self.url.rtu_framing else 0.0
        self._sched.silent(job.unit, now, heard.took_s, short=short, quiet_s=quiet_s)
        self._mute += not heard.answer
        if self._mute >= MUTE_LIMIT and self.url.scheme != "rtu":
            self._mute = 0
            self._connection.close()

    # -- small things --------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    def _time_of(self, device: LinkDevice) -> float:
        return device.timeout_s or self.timeout_s

    def _admit(self, device: LinkDevice, pdus: tuple[bytes, ...]) -> None:
        allowed = self._allowed(device)
        for pdu in pdus:
            if not pdu or pdu[0] not in allowed:
                seen = pdu[0] if pdu else "nothing"
                raise ForbiddenFunction(
                    f"{device.id}: function {seen} is not among {sorted(allowed)}; nothing was sent"
                )
        if not 0 <= device.unit <= 255:
            raise ValueError(f"{device.id}: unit: seen {device.unit}, expected 0 to 255")

    def _allowed(self, device: LinkDevice) -> frozenset[int]:
        # A meter's own claim is not enough: whatever it says, it is only read.
        return device.functions & READ_FUNCTIONS if isinstance(device, MeterDevice) else device.functions

    def _job(
        self,
        device: LinkDevice,
        pdus: tuple[bytes, ...],
        klass: Klass,
        due: float,
        deadline: float,
        done: Callable[[tuple[Answer, ...]], None],
    ) -> Job:
        return Job(
            klass=klass,
            unit=device.unit,
            pdus=pdus,
            allowed=self._allowed(device),
            due=due,
            deadline=deadline,
            timeout_s=self._time_of(device),
            gap_s=device.gap_s,
            turnaround_s=device.turnaround_s if self.url.rtu_framing else 0.0,
            on_done=done,
        )

    def _arm(self, sub: Subscription) -> None:
        self._seq += 1
        sub.seq = self._seq
        heapq.heappush(self._timers, (sub.next_due, self._seq, sub, self._seq))
        self._wake.set()

    def _reschedule(self, sub: Subscription) -> None:
        sub.next_due = min(sub.next_due, self._now() + sub.period_s)
        self._arm(sub)

    def _give_up(self, job: Job, quality: Quality, why: str) -> None:
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
        except Exception:  # a receiver's fault must not stop the link that serves all the others
            log.exception("modbus_receiver_failed", link=self.name, unit=job.unit)

    def _account(self, due: float, period_s: float, answers: tuple[Answer, ...]) -> None:
        if not any(a.sent for a in answers):
            return
        lateness = self._now() - due
        self._stats.lateness_ms.append(lateness * 1000)
        if all(a.quality is not Quality.TIMEOUT for a in answers):
            if lateness <= period_s:
                self._stats.on_time += 1
            else:
                self._stats.late += 1
