"""One demo from start to end, attended or not; called by ``tizgin demo``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tizgin.demo import live, unattended
from tizgin.demo.errors import DemoError
from tizgin.demo.folder import Folder, make_fresh, remove
from tizgin.demo.plan import BOARDS
from tizgin.demo.processes import Processes
from tizgin.demo.report import build_report, write_report
from tizgin.demo.screen import Screen
from tizgin.demo.start import Demo, Size

T = TypeVar("T")
TIME_SCALE = 20.0
"""Machines sleep, wake and boot this many times faster than real ones; meters, switches and registers run true."""
MAX_SITES = 20


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for."""

    sites: int
    asics: int
    port: int
    data_dir: Path | None
    report: Path | None

    def problem(self) -> str | None:
        """What is wrong with it; ``None`` where it can be run."""
        if not 1 <= self.sites <= MAX_SITES:
            return f"--sites: saw {self.sites}, expected 1 to {MAX_SITES}"
        if self.asics < self.sites * BOARDS:
            least = self.sites * BOARDS
            return f"--asics: saw {self.asics}, expected at least {least}: one for each of {BOARDS} boards per site"
        if self.report is not None and not self.report.resolve().parent.is_dir():
            return f"--report: the folder {self.report.resolve().parent} does not exist; make it first"
        return None


class Stopped(Exception):
    """Somebody asked for the end."""


def run_live(options: Options, screen: Screen) -> None:
    """Run until Ctrl-C.

    Raises:
        DemoError: it could not be started, or a part of it failed.
    """
    folder = make_fresh(options.data_dir or live.default_folder())
    with contextlib.suppress(Stopped):
        asyncio.run(_until_signal(lambda: _live(options, folder, screen)))
    screen.say("stopped")


async def _live(options: Options, folder: Folder, screen: Screen) -> None:
    async with Processes(folder.logs) as processes:
        demo = Demo(Size(options.sites, options.asics, options.port, TIME_SCALE), folder, processes, screen.say)
        try:
            await demo.start()
            live.show(demo, await live.start_desk(demo), screen)
            await live.supervise(demo, screen)
        finally:
            await asyncio.shield(live.stop(demo))


def run_unattended(options: Options, report: Path, screen: Screen) -> bool:
    """Run all by itself and write the report; returns whether all was as it must be.

    Raises:
        DemoError: it could not be run to its end.
    """
    report = report.resolve()
    report.unlink(missing_ok=True)  # a report of an earlier run must not be taken for this one's
    temporary = None if options.data_dir else tempfile.mkdtemp(prefix="tizgin-demo-")
    folder = make_fresh(options.data_dir or Path(str(temporary)))
    try:
        return asyncio.run(_until_signal(lambda: _unattended(options, folder, report, screen)))
    except Stopped:
        raise DemoError("interrupted; there is no report") from None
    except DemoError as error:
        kept = "" if temporary is None else _keep_logs(folder, report)
        raise DemoError(f"{error}{kept}") from None
    finally:
        if temporary is not None:
            remove(folder)


async def _unattended(options: Options, folder: Folder, report: Path, screen: Screen) -> bool:
    async with Processes(folder.logs) as processes:
        demo = Demo(Size(options.sites, options.asics, options.port, TIME_SCALE), folder, processes, screen.say)
        await demo.start()
        outcome = await unattended.run(demo, report)
        await processes.stop_all()
    body = build_report(
        unattended.figures(demo, screen.elapsed_s),
        outcome.orders,
        outcome.refused,
        outcome.counted,
        outcome.verified,
        outcome.problems,
    )
    write_report(report, body)
    good = bool(body["ok"])
    if not good:
        screen.warn(_keep_logs(folder, report).strip())
    screen.result({**unattended.summary(body), "report": report}, good=good)
    return good


def _keep_logs(folder: Folder, report: Path) -> str:
    """Logs of a run that failed, beside the report: the folder itself is removed."""
    target = report.with_name(f"{report.stem}.logs")
    target.mkdir(exist_ok=True)
    for file in folder.logs.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return f"\nlogs were kept in {target}"


async def _until_signal(work: Callable[[], Awaitable[T]]) -> T:
    """Do the work; SIGINT and SIGTERM cancel it, and its clean-up runs.

    Raises:
        Stopped: a signal came.
        DemoError: the first failure of the work.
    """
    task = asyncio.ensure_future(work())
    asked = False

    def ask() -> None:
        nonlocal asked
        asked = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        return await task
    except asyncio.CancelledError:
        if asked:
            raise Stopped from None
        raise
    except BaseExceptionGroup as group:
        found = first_of(group)
        if found is None:
            raise
        raise found from None


def first_of(group: BaseExceptionGroup[BaseException]) -> DemoError | None:
    """The first failure that a person can act on; ``None`` where there is another kind of failure in the group."""
    matching, rest = group.split(DemoError)
    if matching is None or rest is not None:
        return None
    error: BaseException = matching
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, DemoError) else None
