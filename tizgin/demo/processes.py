"""Child processes of the demo: started in groups of their own, logged to files, stopped for certain.

A child dies with the demo even where the demo itself is killed: the kernel is asked for a parent-death signal before
the child's program begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tizgin.demo.errors import DemoError

POLL_S = 0.05
STOP_S = 4.0
"""From SIGTERM to SIGKILL."""
SAID_LINES = 12

# Runs between fork and exec in a small interpreter, because Python code between fork and exec of a process with threads
# may deadlock. 1 is PR_SET_PDEATHSIG, 9 is SIGKILL; getppid closes the race in which the parent died before.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(3)
os.execv(sys.argv[2], sys.argv[2:])
"""


def tizgin_command(*arguments: str) -> list[str]:
    """Command line of a sub-command in this installation."""
    return [sys.executable, "-m", "tizgin", *arguments]


def module_command(module: str, *arguments: str) -> list[str]:
    """Command line of one of the demo's own modules."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Environment of the children: this one, with the packages of this process importable and output not held back."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "PYTHONUNBUFFERED": "1"}


@dataclass(slots=True)
class Child:
    """One running child."""

    name: str
    command: Sequence[str]
    log: Path
    """Standard error; standard output goes to the file of the same name that ends in ``.out``."""
    process: asyncio.subprocess.Process = field(repr=False)
    stopping: bool = False

    @property
    def out(self) -> Path:
        """Standard output."""
        return self.log.with_suffix(".out")

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self.process.returncode is None

    def last_words(self) -> str:
        """The end of its log, for a message."""
        try:
            with self.log.open(encoding="utf-8", errors="replace") as file:
                return "".join(deque(file, SAID_LINES)).strip()
        except OSError:
            return ""

    def require_running(self, what: str) -> None:
        """Raise where it has ended.

        Raises:
            DemoError: with the end of its log.
        """
        if not self.running:
            raise DemoError(
                f"{self.name} ended with {self.process.returncode} {what}; its log is {self.log}\n{self.last_words()}"
            )

    async def ready(self, file: Path, *, timeout_s: float) -> dict[str, Any]:
        """Wait until a file holds one JSON object, which is how each program says that it is up.

        Raises:
            DemoError: the child ended, or was not up in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = read_json(file)
            if found is not None:
                return found
            self.require_running("before it was up")
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{self.name} was not up within {timeout_s:g} s; its log is {self.log}\n{self.last_words()}"
                )
            await asyncio.sleep(POLL_S)

    def signal(self, number: int) -> None:
        """Signal its whole group; harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    async def stop(self, *, within_s: float = STOP_S) -> int:
        """SIGTERM, then SIGKILL for what is left of its group. Returns its exit status."""
        self.stopping = True
        if self.running:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), within_s)
        self.signal(signal.SIGKILL)
        return await self.process.wait()


def read_json(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or on its first line; ``None`` while there is none."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    for part in (text, text.partition("\n")[0]):
        with contextlib.suppress(ValueError):
            found = json.loads(part)
            if isinstance(found, dict):
                return found
    return None


class Processes:
    """All children of one demo. Use as an async context manager: leaving it stops whatever still runs."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.children: list[Child] = []

    async def __aenter__(self) -> Processes:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.stop_all())

    async def start(self, name: str, command: Sequence[str], *, cwd: Path) -> Child:
        """Start a child that stays. Its output goes to the logs folder.

        Raises:
            DemoError: it cannot be started.
        """
        log = self._logs / f"{name}.log"
        with log.open("ab") as errors, log.with_suffix(".out").open("wb") as output:
            process = await self._spawn(name, command, cwd, output.fileno(), errors.fileno())
        child = Child(name, command, log, process)
        self.children.append(child)
        return child

    async def run(
        self, name: str, command: Sequence[str], *, cwd: Path, timeout_s: float, good: Sequence[int] = (0,)
    ) -> tuple[int, str]:
        """Run a command to its end; returns its exit status and standard output.

        Raises:
            DemoError: another exit status than those in ``good``, or too late.
        """
        process = await self._spawn(name, command, cwd, asyncio.subprocess.PIPE, asyncio.subprocess.PIPE)
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if isinstance(error, TimeoutError):
                raise DemoError(f"{name}: not done within {timeout_s:g} s") from None
            raise
        with (self._logs / "commands.log").open("ab") as file:
            file.write(f"{name}: exit {process.returncode}\n".encode() + err)
        status = process.returncode if process.returncode is not None else -1
        if status not in good:
            said = "\n".join(err.decode(errors="replace").strip().splitlines()[-SAID_LINES:])
            raise DemoError(f"{name}: exit {status}\n{said}")
        return status, out.decode(errors="replace")

    @staticmethod
    async def _spawn(
        name: str, command: Sequence[str], cwd: Path, output: int, errors: int
    ) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command,
                cwd=cwd,
                env=environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise DemoError(f"{name}: cannot be started: {error}") from error

    def ended(self) -> Child | None:
        """A child that ended without being asked to; ``None`` while all is well."""
        return next((c for c in self.children if not c.running and not c.stopping), None)

    def forget(self, child: Child) -> None:
        """No longer watch a child (it is replaced by another)."""
        self.children.remove(child)

    async def stop(self, *children: Child, within_s: float = STOP_S) -> None:
        """Stop some at once."""
        await asyncio.gather(*(child.stop(within_s=within_s) for child in children))

    async def stop_all(self) -> None:
        """Stop everything that still runs."""
        await self.stop(*self.children)
