"""What is asked next on one link: pure decisions, no clock and no I/O of their own. Times are monotonic seconds.

Order: control, boundary reads, verification, polls; earliest deadline first within each. Units that stay silent leave
this order: together they get a small share of the link's time (``probe_share``), so that they cannot slow those that
answer. A unit that has never answered yet stands behind those that have.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf

from wire.quality import Quality

MAX_BACKOFF_S = 60.0
SHORT_PROBE_MIN_S = 0.1
SHORT_PROBE_FACTOR = 5.0
ENOUGH_ANSWERS = 10
FULL_PROBE_EVERY = 8
"""Each eighth probe waits the whole time-out, so that a slow unit is found too."""
TROUBLE_S = 10.0
"""For so long after a unit fell silent others are expected to: they share a feeder, a line, a switch."""


class Klass(IntEnum):
    """Class of a request; a smaller one goes first."""

    CONTROL = 0
    BOUNDARY = 1
    VERIFICATION = 2
    POLL = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request. Frames are unit address + PDU; empty where nothing was sent or heard."""

    quality: Quality
    at_ms: int
    mono_ns: int
    request: bytes = b""
    answer: bytes = b""
    latency_ms: float = 0.0
    error: str | None = None
    sent: bool = False
    exception: int | None = None

    @property
    def ok(self) -> bool:
        """True for an answer that carries data or the echo of a write."""
        return self.quality is Quality.GOOD


@dataclass(slots=True, eq=False)
class Job:
    """Requests to one unit that are asked one after the other; others may go between them."""

    klass: Klass
    unit: int
    pdus: tuple[bytes, ...]
    allowed: frozenset[int]
    due: float
    deadline: float
    timeout_s: float
    gap_s: float
    turnaround_s: float
    on_done: Callable[[tuple[Answer, ...]], None]
    answers: list[Answer] = field(default_factory=list)
    finished: bool = False
    in_flight: bool = False
    """Its next request has left and is not answered yet."""

    @property
    def next_pdu(self) -> bytes:
        """The request to send now."""
        return self.pdus[len(self.answers)]


@dataclass(slots=True)
class UnitHealth:
    """What is known of one unit."""

    proven: bool = False
    silent: int = 0
    """Requests without answer in a row."""
    next_probe: float = 0.0
    ready_at: float = 0.0
    slow: bool = False
    """An answer of it came after a shorter wait than its time-out: it gets the whole from now on."""
    busy: bool = False
    """A request to it is under way on one of the link's connections."""


class Scheduler:
    """Queue, health of units and the time given to silent ones."""

    def __init__(
        self, *, timeout_s: float, probe_share: float, rng: random.Random, short_probes: bool, lanes: int = 1
    ) -> None:
        """``lanes``: connections that are asked at the same time; each brings its own time to give away."""
        self.timeout_s = timeout_s
        self.probe_share = probe_share
        self.short_probes = short_probes
        self.units: dict[int, UnitHealth] = {}
        self.lanes = lanes
        self._rng = rng
        self._heap: list[tuple[int, float, int, Job]] = []
        self._suspects: list[Job] = []
        self._seq = 0
        self._cap = max(3 * timeout_s, 1.0)
        self._budget = 2 * timeout_s
        self._budget_at: float | None = None
        self._slowest_s = 0.0
        self._answers = 0
        self._short_just_failed = False
        self._doubted: set[int] = set()
        """Units that failed right after a short wait for another: if they answer again, the short wait did harm."""
        self._silence_at = -inf
        self._next_expiry = inf
        """No deadline that ends a job passes before this."""
        self.line_ready_at = 0.0

    # -- queue ---------------------------------------------------------------------------------------------------

    def health(self, unit: int) -> UnitHealth:
        """State of a unit, new ones included."""
        known = self.units.get(unit)
        if known is None:
            known = self.units[unit] = UnitHealth()
        return known

    def add(self, job: Job) -> None:
        """Queue a job, or queue it again for its next request."""
        health = self.health(job.unit)
        if health.silent and job.klass is not Klass.CONTROL:
            self._suspect(job)
            return
        deadline = job.deadline
        if job.klass is not Klass.POLL:
            self._next_expiry = min(self._next_expiry, deadline)
        if not health.proven and job.klass is Klass.POLL:
            deadline += max(job.deadline - job.due, 0.0)
        if health.silent:  # control on a silent unit: at once, but after control on units that answer
            deadline += MAX_BACKOFF_S
        self._seq += 1
        heapq.heappush(self._heap, (job.klass, deadline, self._seq, job))

    def _suspect(self, job: Job) -> None:
        self._suspects.append(job)
        self._next_expiry = min(self._next_expiry, job.deadline)

    def may_poll(self, unit: int, now: float) -> bool:
        """False for a silent unit whose time for another probe has not come, or which has one waiting."""
        health = self.health(unit)
        if not health.silent:
            return True
        return now >= health.next_probe and not any(j.unit == unit for j in self._suspects)

    def pick(self, now: float) -> Job | None:
        """The job whose next request is to be sent now; it leaves the queue."""
        if now < self.line_ready_at:
            return None
        urgent = self._pop(now, Klass.VERIFICATION)
        if urgent is not None:
            return urgent
        budget = self._refill(now)
        if self._suspects and budget >= self._cap:
            probe = self._pop_suspect(now)
            if probe is not None:
                return probe
        job = self._pop(now, Klass.POLL)
        if job is not None:
            return job
        if self._suspects and budget >= self.timeout_s:
            return self._pop_suspect(now)
        return None

    def _pop(self, now: float, up_to: Klass) -> Job | None:
        waiting: list[tuple[int, float, int, Job]] = []
        found: Job | None = None
        while self._heap and self._heap[0][0] <= up_to:
            entry = heapq.heappop(self._heap)
            job, health = entry[3], self.health(entry[3].unit)
            if job.finished:
                continue
            if health.silent and job.klass is not Klass.CONTROL:
                self._suspect(job)
            elif health.busy or health.ready_at > now:
                waiting.append(entry)
            else:
                found = job
                break
        for entry in waiting:
            heapq.heappush(self._heap, entry)
        return found

    def _pop_suspect(self, now: float) -> Job | None:
        best: Job | None = None
        best_key: tuple[int, int, float] | None = None
        for job in self._suspects:
            health = self.health(job.unit)
            if job.finished or health.busy or health.ready_at > now:
                continue
            key = (job.klass, health.silent, health.next_probe)
            if best_key is None or key < best_key:
                best, best_key = job, key
        self._suspects = [j for j in self._suspects if j is not best and not j.finished]
        return best

    def expired(self, now: float) -> list[Job]:
        """Jobs whose deadline passed before their next request could be sent; they leave the queue."""
        if now < self._next_expiry:
            return []
        late = [j for j in self._suspects if j.deadline <= now]
        if late:
            self._suspects = [j for j in self._suspects if j.deadline > now]
            late = [j for j in late if not j.finished]
        stale = [e for e in self._heap if e[3].klass is not Klass.POLL and e[3].deadline <= now]
        if stale:
            self._heap = [e for e in self._heap if e not in stale]
            heapq.heapify(self._heap)
            late += [e[3] for e in stale]
        ends = [j.deadline for j in self._suspects]
        ends += [e[3].deadline for e in self._heap if e[3].klass is not Klass.POLL]
        self._next_expiry = min(ends, default=inf)
        return late

    def drain(self) -> Iterator[Job]:
        """Everything queued; the queue is empty afterwards."""
        jobs = [e[3] for e in self._heap] + self._suspects
        self._heap, self._suspects = [], []
        yield from jobs

    def next_wake(self, now: float) -> float | None:
        """When something queued can change by time alone; ``None``: nothing queued."""
        # A busy unit becomes free by its answer, which wakes the worker itself.
        free = [e[3] for e in self._heap if not self.health(e[3].unit).busy]
        times = [max(self.health(j.unit).ready_at, self.line_ready_at) for j in free]
        times += [e[3].deadline for e in self._heap if e[3].klass is not Klass.POLL]
        if self._suspects:
            short = max(self.timeout_s - self._refill(now), 0.0) / self._share()
            ready = [h.ready_at for j in self._suspects if not (h := self.health(j.unit)).busy]
            if ready:
                times.append(max(now + short, min(ready), self.line_ready_at))
            times.append(min(j.deadline for j in self._suspects))
        return min(times, default=None)

    # -- health --------------------------------------------------------------------------------------------------

    def timeout_for(self, job: Job, now: float) -> float:
        """How long to wait for the next answer. Units not known to answer get less, where that can do no harm.

        Right after one unit fell silent, a poll of any other waits less too, and is asked once more at full length out
        of the silent units' share: ten units that die together must not cost ten time-outs in a row.
        """
        health = self.health(job.unit)
        if job.klass is Klass.CONTROL or not self.short_probes or self._answers < ENOUGH_ANSWERS:
            return job.timeout_s
        if health.slow:
            return job.timeout_s
        if not health.silent:
            trouble = job.klass is Klass.POLL and now - self._silence_at < TROUBLE_S
            patient = health.proven and not trouble
        else:
            patient = (health.proven and health.silent == 1) or health.silent % FULL_PROBE_EVERY == FULL_PROBE_EVERY - 1
        if patient:
            return job.timeout_s
        return min(job.timeout_s, max(SHORT_PROBE_MIN_S, SHORT_PROBE_FACTOR * self._slowest_s))

    def answered(self, unit: int, now: float, latency_s: float, gap_s: float) -> None:
        """The unit answered, be it with an exception."""
        health = self.health(unit)
        health.proven, health.silent, health.next_probe = True, 0, 0.0
        health.ready_at = now + gap_s
        self._answers += 1
        self._slowest_s = max(latency_s, self._slowest_s * 0.995)
        self._short_just_failed = False
        if unit in self._doubted:
            # Something on the way (a gateway) was still waiting for the silent unit: then short waits do harm.
            self._doubted.clear()
            self.short_probes = False

    def silent(self, unit: int, now: float, cost_s: float, *, short: bool, quiet_s: float = 0.0) -> None:
        """The unit did not answer for ``cost_s``. ``quiet_s``: how long it must not be asked (RTU: late answers)."""
        health = self.health(unit)
        self._refill(now)
        self._budget = max(self._budget - cost_s, -self._cap)
        health.ready_at = now + quiet_s
        if self._short_just_failed and health.proven and not health.silent:
            self._doubted.add(unit)
        elif health.silent:
            self._doubted.discard(unit)
        self._short_just_failed = short
        if health.proven and not health.silent:
            self._silence_at = now
        health.silent += 1
        if health.silent > 1:
            backoff = min(2.0 ** min(health.silent - 2, 10), MAX_BACKOFF_S if self._any_healthy() else 5.0)
            health.next_probe = now + backoff * self._rng.uniform(0.75, 1.25)
        else:
            health.next_probe = now

    def late(self, unit: int) -> None:
        """An answer came after it was given up: the unit is slow, not dead, and may be asked again at once."""
        health = self.health(unit)
        health.slow, health.next_probe = True, 0.0

    def affords(self, now: float) -> bool:
        """True where the silent units' share still covers one time-out."""
        return self._refill(now) >= self.timeout_s

    def _any_healthy(self) -> bool:
        return any(h.proven and not h.silent for h in self.units.values())

    def _share(self) -> float:
        share = self.probe_share if self._any_healthy() else max(self.probe_share, 0.5)
        return share * self.lanes

    def _refill(self, now: float) -> float:
        if self._budget_at is not None:
            self._budget = min(self._cap, self._budget + (now - self._budget_at) * self._share())
        self._budget_at = now
        return self._budget
