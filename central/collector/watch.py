"""Whether the stores take what comes: an outage is said once, again while it lasts, and at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from central.store.database import reason, remedy

log = structlog.get_logger(__name__)

SILENT_S = 30.0
"""A store that says nothing for so long is counted as down. What was given to it is waited for, never given twice."""
SAY_AGAIN_S = 30.0


class StoreWatch:
    """One writer's view of its store; not for several at once."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._said = 0.0

    @property
    def up(self) -> bool:
        """False while the database or the disk takes nothing."""
        return self._since is None

    @contextmanager
    def trying(self, waiting: int) -> Iterator[None]:
        """One try; it counts as an outage if it lasts too long, and ends one if it succeeds."""
        began = time.monotonic()
        silent = asyncio.get_running_loop().call_later(SILENT_S, self._silent, began, waiting)
        try:
            yield
        finally:
            silent.cancel()
        if self._since is not None:
            log.warning("store_available_again", after_s=round(time.monotonic() - self._since, 1))
        self._since = None

    def failed(self, error: Exception, waiting: int, retry_s: float) -> None:
        """The store refused ``waiting`` messages for a reason of its own."""
        if self._begins():
            log.error("store_unavailable", error=reason(error), do=remedy(error), waiting=waiting, retry_s=retry_s)

    def _silent(self, began: float, waiting: int) -> None:
        if self._begins(began):
            do = "see whether the server or its disk hangs; central goes on by itself when it answers"
            log.error("store_silent", for_s=SILENT_S, waiting=waiting, do=do)

    def _begins(self, began: float | None = None) -> bool:
        """True where this is to be said."""
        now = time.monotonic()
        if self._since is not None and now < self._said + SAY_AGAIN_S:
            return False
        self._since = self._since or began or now
        self._said = now
        return True
