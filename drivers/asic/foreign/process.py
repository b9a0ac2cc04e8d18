"""The child process: spawned when first needed, bounded, killed and started anew when it does not behave.

One owner makes a :class:`ForeignProcess` and closes it. Requests run beside each other, each with a deadline of its
own; a child that lets a deadline pass without an answer is stuck, and is killed with everything it had open.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import Any

import structlog

from drivers.asic.foreign import frames
from drivers.asic.foreign.answers import miner_status
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError, NoAnswer, NoConnection

log = structlog.get_logger(__name__)

BURY_S = 5.0
"""How long a killed child's pipe and exit are waited for."""
READ_BYTES = 65_536

CHILD = "drivers.asic.foreign.child"
EXTRA = "pip install 'tizgin[pyasic]'"
_ROOT = Path(__file__).parents[3]
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "TZ")
"""Of the environment; no proxy, no secret, no home."""


class ExtraMissing(DriverError):
    """The library is not installed in the child's Python."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one child."""

    memory_bytes: int = 512 << 20
    """Address space. The library alone takes some 0.1 GB, 80 MB of them in memory."""
    files: int = 512
    concurrency: int = 32
    start_s: float = 30.0
    """From spawning to its first word; the library takes seconds to import on a slow machine."""
    grace_s: float = 2.0
    """How long after a request's deadline its own "timeout" may take; then it is stuck."""
    max_requests: int = 5_000
    """After so many it is started anew: leaks of a foreign library end with its process."""
    pause_s: float = 1.0
    """Before the next start after a child failed; doubles with each failure, up to :attr:`max_pause_s`."""
    max_pause_s: float = 60.0


@dataclass(slots=True)
class Counters:
    """Counts since the start; read them at any time."""

    started: int = 0
    killed: int = 0
    answered: int = 0
    failed: int = 0


class _Child:
    """One run of the child: its pipes, and who waits for what."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        """Every request without an answer, also where the asker has given up: the child still owes it a word."""
        self.watchdogs: dict[int, asyncio.TimerHandle] = {}
        self.asked = 0
        self.reader: asyncio.Task[None] | None = None
        self.dead: str | None = None


class ForeignProcess:
    """Reads machines through the library.

    Args:
        python: interpreter of the child; this one's by default. Another environment needs the library alone.
        module: program of the child.
        limits: bounds.
        mono_s: monotonic clock, seconds.
    """

    def __init__(
        self,
        *,
        python: str | Path | None = None,
        module: str = CHILD,
        limits: Limits | None = None,
        path: Sequence[Path] = (_ROOT,),
        mono_s: Callable[[], float] = monotonic,
    ) -> None:
        self.counters = Counters()
        self._python = str(python or sys.executable)
        self._module = module
        self._limits = limits or Limits()
        self._path = os.pathsep.join(str(folder) for folder in path)
        self._mono_s = mono_s
        self._child: _Child | None = None
        self._starting: asyncio.Task[_Child] | None = None
        self._room = asyncio.Semaphore(self._limits.concurrency)
        self._ids = itertools.count(1)
        self._failures = 0
        self._not_before_s = float("-inf")
        self._why = ""
        self._closed = False
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """Process id of the child that runs, if one does."""
        return self._child.process.pid if self._child is not None and self._child.dead is None else None

    @property
    def open_requests(self) -> int:
        """Requests that the child that runs has not answered."""
        return len(self._child.waiting) if self._child is not None else 0

    async def __aenter__(self) -> ForeignProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Kill the child; who still waits gets :class:`NoConnection`."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._child is not None:
            self._end(self._child, "closed")
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def read(self, host: str, *, deadline_s: float = 10.0) -> MinerStatus:
        """Ask one machine.

        Args:
            host: its address, a number: the child may speak to nobody else, not even to a name server.
            deadline_s: of the machine; waiting for a place among :attr:`Limits.concurrency` does not count.

        Raises:
            ValueError: ``host`` is no number.
            ExtraMissing: the library is not installed.
            NoAnswer: nothing within the deadline, or the child was stuck.
            NoConnection: nobody answers there, or the child cannot be started at the moment.
            BadAnswer: the library failed at what the machine said.
        """
        ip_address(host)
        async with self._room:
            child = await self._running()
            began_s = self._mono_s()
            answer = await self._ask(child, host, deadline_s)
        if "status" in answer and isinstance(answer["status"], dict):
            self.counters.answered += 1
            return miner_status(answer["status"], (self._mono_s() - began_s) * 1000)
        self.counters.failed += 1
        reason = f"miner {host}: pyasic: {str(answer.get('error'))[:300]}"
        raise {"timeout": NoAnswer, "nobody": NoConnection}.get(str(answer.get("kind")), BadAnswer)(reason)

    async def _ask(self, child: _Child, host: str, deadline_s: float) -> dict[str, Any]:
        stdin = child.process.stdin
        if stdin is None or child.dead is not None:
            raise NoConnection(f"miner {host}: pyasic: its process ended: {child.dead}")
        loop = asyncio.get_running_loop()
        number = next(self._ids)
        waiting: asyncio.Future[dict[str, Any]] = loop.create_future()
        child.waiting[number] = waiting
        child.watchdogs[number] = loop.call_later(deadline_s + self._limits.grace_s, self._stuck, child, host)
        child.asked += 1
        try:
            stdin.write(frames.pack({"id": number, "host": host, "deadline_s": deadline_s}))
            await stdin.drain()
            return await waiting
        except OSError:
            raise NoConnection(f"miner {host}: pyasic: its process ended; it is started anew") from None

    def _stuck(self, child: _Child, host: str) -> None:
        self._failed(child, f"stuck: no word about {host} in time")

    # the child -------------------------------------------------------------------------------------------------------

    async def _running(self) -> _Child:
        while True:
            child = self._child
            if self._closed:
                raise NoConnection("pyasic: its process was closed")
            if child is not None and child.dead is None:
                if child.asked < self._limits.max_requests or child.waiting:
                    return child  # a used-up one finishes what it has first
                self._end(child, "enough requests")
            if self._starting is None:
                wait_s = self._not_before_s - self._mono_s()
                if wait_s > 0:
                    raise NoConnection(f"pyasic: its process failed ({self._why}); the next start is in {wait_s:.0f} s")
                self._starting = asyncio.create_task(self._start(), name="pyasic-start")
                self._starting.add_done_callback(self._started)
            # Whoever asks may give up sooner than a slow machine imports the library: the start goes on.
            await asyncio.shield(self._starting)

    def _started(self, task: asyncio.Task[_Child]) -> None:
        self._starting = None
        if not task.cancelled() and task.exception() is None:
            self._child = task.result()

    async def _start(self) -> _Child:
        limits = self._limits
        environment = {name: value for name in _PASSED_ON if (value := os.environ.get(name)) is not None}
        environment |= {
            "PYTHONPATH": self._path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "HOME": "/nonexistent",
        }
        try:
            process = await asyncio.create_subprocess_exec(
                self._python,
                "-m",
                self._module,
                str(limits.memory_bytes),
                str(limits.files),
                str(limits.concurrency),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                cwd="/",
            )
        except OSError as error:
            self._pause(f"{self._python}: {error.strerror}")
            raise NoConnection(f"pyasic: {self._python} cannot be started: {error.strerror}") from None
        child = _Child(process)
        self.counters.started += 1
        try:
            async with asyncio.timeout(limits.start_s):
                hello = await _frame(process)
        except TimeoutError:
            self._failed(child, f"no first word within {limits.start_s:g} s")
            raise NoConnection(f"pyasic: its process said nothing within {limits.start_s:g} s") from None
        except (frames.BadFrame, asyncio.IncompleteReadError, OSError) as error:
            self._failed(child, f"ended at its start: {error}")
            raise NoConnection(f"pyasic: its process ended at its start: {error}") from None
        except asyncio.CancelledError:
            self._end(child, "start given up")
            raise
        if "missing" in hello:
            self._failed(child, "the library is not installed")
            raise ExtraMissing(f"pyasic is not installed for {self._python}; install the extra: {EXTRA}")
        if hello.get("hello") != 1:
            self._failed(child, "a strange first word")
            raise NoConnection("pyasic: its process speaks another protocol; install one version of tizgin")
        log.info("pyasic_started", pid=process.pid, version=str(hello.get("version"))[:40])
        child.reader = asyncio.create_task(self._read_answers(child), name="pyasic-answers")
        return child

    async def _read_answers(self, child: _Child) -> None:
        why = "ended"
        try:
            while True:
                answer = await _frame(child.process)
                number = answer.get("id")
                waiting = child.waiting.pop(number, None) if isinstance(number, int) else None
                if waiting is None or not isinstance(number, int):
                    why = "an answer to nothing that was asked"
                    break
                child.watchdogs.pop(number).cancel()
                if not waiting.done():
                    waiting.set_result(answer)
                self._failures = 0
        except asyncio.IncompleteReadError:
            why = "ended by itself"
        except (frames.BadFrame, OSError) as error:
            why = str(error)
        self._failed(child, why)

    def _failed(self, child: _Child, why: str) -> None:
        if child.dead is None:
            log.warning("pyasic_failed", pid=child.process.pid, why=why)
            self._pause(why)
        self._end(child, why)

    def _pause(self, why: str) -> None:
        self._why = why
        self._not_before_s = self._mono_s() + min(
            self._limits.pause_s * 2 ** min(self._failures, 16), self._limits.max_pause_s
        )
        self._failures += 1

    def _end(self, child: _Child, why: str) -> None:
        """Kill it and wake who waits. Its corpse is fetched by a task that :meth:`aclose` waits for."""
        if child.dead is not None:
            return
        child.dead = why
        with contextlib.suppress(ProcessLookupError):
            if child.process.returncode is None:
                child.process.kill()
                self.counters.killed += 1
        for watchdog in child.watchdogs.values():
            watchdog.cancel()
        for waiting in child.waiting.values():
            if not waiting.done():
                error = NoAnswer if why.startswith("stuck") else NoConnection
                waiting.set_exception(error(f"pyasic: its process ended: {why}"))
                waiting.exception()  # seen, also where nobody waits any more
        child.waiting.clear()
        task = asyncio.get_running_loop().create_task(_bury(child), name="pyasic-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _frame(process: asyncio.subprocess.Process) -> dict[str, Any]:
    stdout = process.stdout
    if stdout is None:
        raise frames.BadFrame("no pipe")
    size = frames.length(await stdout.readexactly(frames.HEAD))
    return frames.unpack(await stdout.readexactly(size))


async def _bury(child: _Child) -> None:
    reader = child.reader
    if reader is not None and reader is not asyncio.current_task():
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    if child.process.stdin is not None:
        child.process.stdin.close()
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(BURY_S):
            # A child that flooded us has more in its pipe than the reader takes: as long as that is not read to its
            # end, asyncio waits for the process for ever, dead as it is.
            while child.process.stdout is not None and await child.process.stdout.read(READ_BYTES):
                pass
            await child.process.wait()
