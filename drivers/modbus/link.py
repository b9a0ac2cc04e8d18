"""One physical Modbus link and its one worker.

Whoever owns the link runs :meth:`ModbusLink.run` as a task and cancels it. Everything asked of the link is a job in its
scheduler; the worker sends one request at a time and never raises because of a device.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from config.devices import Link
from drivers.capabilities import Sample
from drivers.modbus.clock import Clock, SystemClock
from drivers.modbus.connection import Connection
from drivers.modbus.device import ForbiddenFunction, LinkDevice
from drivers.modbus.events import LinkEvent
from drivers.modbus.meter import MeterDevice
from drivers.modbus.pdu import READING
from drivers.modbus.scheduler import Answer, Job, Klass, Scheduler
from drivers.modbus.stats import LinkStats
from drivers.modbus.subscription import Subscription
from drivers.modbus.tls import TlsFiles
from drivers.modbus.transport import ModbusTransport, Transport, default_guard_s
from drivers.modbus.url import LinkUrl, parse_url
from drivers.modbus.worker import LinkWorker
from wire.quality import Quality

log = structlog.get_logger(__name__)

__all__ = ["ModbusLink", "Subscription"]

MAX_CONNECTIONS = 16
PHASE_SPREAD_S = 5.0


def _nobody(event: LinkEvent) -> None:
    """Nobody is told."""


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
        connections: int = 1,
        guard_s: float | None = None,
        turnaround_s: float = 0.0,
        tls: TlsFiles | None = None,
        on_event: Callable[[LinkEvent], None] = _nobody,
    ) -> None:
        """``timeout_s`` is the time-out of a request; ``probe_share`` what silent units may cost of the link's time.

        ``connections``: how many are asked at the same time (Modbus TCP alone; each unit still by one of them).
        ``guard_s``: silence between frames of a line, ``None`` for what the standard asks for. ``turnaround_s``: pause
        after each answer. A ``transport`` given is the only one.

        Raises:
            ValueError: the address is wrong, or several connections to what tells no answers apart.
        """
        self.url = parse_url(url)[0] if isinstance(url, str) else url
        self.name = name
        self.timeout_s = timeout_s
        self._clock: Clock = clock or SystemClock()
        if not 1 <= connections <= MAX_CONNECTIONS or (connections > 1 and self.url.rtu_framing):
            raise ValueError(
                f"{self.url}: connections: seen {connections}, expected 1 to {MAX_CONNECTIONS}, and 1 on serial frames"
            )
        rng = rng or random.Random()
        self._turnaround_s = turnaround_s
        self._worker = LinkWorker(
            name=name,
            clock=self._clock,
            sched=Scheduler(
                timeout_s=timeout_s,
                probe_share=probe_share,
                rng=rng,
                short_probes=not self.url.rtu_framing,
                lanes=1 if transport is not None else connections,
            ),
            rtu=self.url.rtu_framing,
            own_line=self.url.scheme == "rtu",
            guard_s=default_guard_s(self.url) if guard_s is None else guard_s,
            make_job=self._poll_job,
            on_event=on_event,
        )
        transports = (
            [transport]
            if transport is not None
            else [
                ModbusTransport(self.url, guard_s=guard_s, tls=tls, on_stray=self._worker.stray)
                for _ in range(connections)
            ]
        )
        self._worker.connect_by(
            [Connection(self.url, each, name=name, clock=self._clock, rng=rng) for each in transports]
        )

    @classmethod
    def from_config(
        cls,
        link: Link,
        *,
        base: Path = Path(),
        clock: Clock | None = None,
        on_event: Callable[[LinkEvent], None] = _nobody,
    ) -> ModbusLink:
        """A link as the site file describes it. ``base``: folder that its relative file names are relative to.

        Raises:
            ValueError: the address is wrong.
        """
        tls = None
        if link.tls is not None:
            ca, cert, key = (
                None if name is None else base / name
                for name in (link.tls.ca_file, link.tls.cert_file, link.tls.key_file)
            )
            tls = TlsFiles(ca, cert, key, link.tls.server_name, link.tls.verify)
        return cls(
            link.url,
            name=link.id,
            timeout_s=link.timeout_s,
            clock=clock,
            probe_share=link.silent_share,
            connections=link.connections,
            guard_s=None if link.guard_ms is None else link.guard_ms / 1000,
            turnaround_s=link.turnaround_ms / 1000,
            tls=tls,
            on_event=on_event,
        )

    # -- for callers ---------------------------------------------------------------------------------------------

    @property
    def stats(self) -> LinkStats:
        """Live counters."""
        self._worker.stats.connected = self._worker.connected
        return self._worker.stats

    @property
    def busy_share(self) -> float:
        """Share of the link's life in which a request was under way."""
        return self._worker.stats.busy_share(self._worker.now())

    def monotonic_ns(self) -> int:
        """The link's own clock."""
        return self._clock.monotonic_ns()

    def wall_ms(self) -> int:
        """UTC by the link's own clock, ms since the Unix epoch."""
        return self._clock.wall_ms()

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

        sub = Subscription(device, pdus, period_s, on_answers, self._worker.reschedule)
        # Devices of one link come one after the other in each period, always at the same place.
        spread = min(period_s, PHASE_SPREAD_S)
        sub.next_due = self._worker.now() + spread * (zlib.crc32(device.id.encode()) % 1009) / 1009
        self._worker.arm(sub)
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
        now = self._worker.now()

        def done(answers: tuple[Answer, ...]) -> None:
            if not future.done():
                future.set_result(answers)

        job = self._job(device, pdus, klass, now, now + deadline_s, done)
        self._worker.add(job)
        # The worker keeps the deadline; this second bound holds even where nobody runs it.
        bound = deadline_s + sum(self._time_of(device) for _ in pdus) + self.timeout_s
        try:
            finished, _ = await asyncio.wait({future}, timeout=bound)
        except asyncio.CancelledError:
            job.finished = True  # nobody waits any more: a write still queued must not leave later
            raise
        if finished:
            return future.result()
        self._worker.give_up(job, Quality.TIMEOUT, f"link {self.name}: not served in time")
        return tuple(job.answers)

    async def run(self) -> None:
        """Serve the link until cancelled; then everything still waiting is answered as not connected."""
        await self._worker.run()

    # -- small things --------------------------------------------------------------------------------------------

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
        return device.functions & READING if isinstance(device, MeterDevice) else device.functions

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
            turnaround_s=max(device.turnaround_s if self.url.rtu_framing else 0.0, self._turnaround_s),
            on_done=done,
        )

    def _poll_job(self, sub: Subscription, due: float) -> Job:
        deliver, period_s = sub.deliver, sub.period_s

        def done(answers: tuple[Answer, ...]) -> None:
            sub.pending = False
            self._account(due, period_s, answers)
            if sub.active:
                deliver(answers)

        return self._job(sub.device, sub.pdus, Klass.POLL, due, due + period_s, done)

    def _account(self, due: float, period_s: float, answers: tuple[Answer, ...]) -> None:
        if not any(a.sent for a in answers):
            return
        lateness = self._worker.now() - due
        self._worker.stats.lateness_ms.append(lateness * 1000)
        if all(a.quality is not Quality.TIMEOUT for a in answers):
            if lateness <= period_s:
                self._worker.stats.on_time += 1
            else:
                self._worker.stats.late += 1
