"""The gateway's loop: one look a second at every plan, until it is told to stop.

Plans of different zones run side by side. In one zone the next plan begins when the one before is settled; from then on
the later one is watched, and what the earlier one ordered stands until a person releases it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from grid.errors import CentralUnreachable, GridError, PlanRefused
from grid.gateway.dispatcher import OPEN, RUNNING, Central, Dispatcher
from grid.gateway.inbox import Handed, open_folder, take, waiting
from grid.gateway.journal import Journal, Said, StoredPlan
from grid.gateway.settings import GatewaySettings
from grid.heads import Heads
from grid.keystore import read_public
from grid.registrar.register import load_register
from grid.sequence import Sequence
from wire.keys import SigningKey
from wire.registry import KeysDocument

log = structlog.get_logger()

JOURNAL = "gateway.db"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one gateway works in a folder.

    Raises:
        GridError: another one does.
    """
    handle = os.open(folder / "gateway.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise GridError(f"{folder}: another gateway runs there; stop it first") from None
    try:
        yield
    finally:
        os.close(handle)


class Gateway:
    """Takes plans from the inbox and carries them out."""

    def __init__(self, settings: GatewaySettings, key: SigningKey, central: Central, now_ms: Callable[[], int]) -> None:
        self._settings, self._key, self._central, self._now_ms = settings, key, central, now_ms
        self._folder = open_folder(settings.data_dir)
        self._journal = Journal(self._folder / JOURNAL)
        self.running: list[Dispatcher] = []
        self._stamp = 0
        for stored in reversed(self._journal.plans()):
            if stored.state in OPEN:
                again = self._dispatcher()
                again.resume(stored, now_ms())
                self.running.append(again)
                log.info("gateway_resumes", plan=stored.id, state=stored.state)

    def _register(self) -> KeysDocument:
        return load_register(self._settings.register_file, [read_public(text) for text in self._settings.registrar])

    def _renew_register(self) -> None:
        """Running plans follow a newer register: a key that was revoked signs no more."""
        try:
            stamp = self._settings.register_file.stat().st_mtime_ns
            if stamp == self._stamp or not self.running:
                return
            newer = self._register()
        except (OSError, GridError) as error:
            log.error("gateway_register", error=str(error))
            return
        self._stamp = stamp
        for dispatcher in self.running:
            if newer.version > dispatcher.register.version:
                dispatcher.register = newer

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            key=self._key,
            sequence=Sequence(self._settings.key, self._key.kid),
            register=self._register(),
            journal=self._journal,
            central=self._central,
            heads=Heads(self._settings.key),
        )

    def step(self) -> None:
        """One look at every plan that is open, then at those that wait."""
        self._renew_register()
        for dispatcher in self.running:
            dispatcher.tick(self._now_ms())
        self.running = [dispatcher for dispatcher in self.running if dispatcher.state in OPEN]
        for path in waiting(self._folder):
            self._begin(path)

    def _begin(self, path: Path) -> None:
        now = self._now_ms()
        try:
            handed = take(path)
        except GridError as error:
            log.error("gateway_bad_plan", error=str(error))
            path.unlink(missing_ok=True)
            return
        earlier = [d for d in self.running if d.plan is not None and set(d.plan.zones) & set(handed.plan.zones)]
        try:
            for dispatcher in earlier:
                if dispatcher.state == RUNNING and dispatcher.plan is not None:
                    raise PlanRefused(
                        f"plan {dispatcher.plan.id} is still on its way in {', '.join(dispatcher.plan.zones)}: "
                        "hand this one over again when it is settled"
                    )
            fresh = self._dispatcher()
            fresh.start(handed.plan, handed.mandate, handed.declaration, now)
        except CentralUnreachable as error:
            log.warning("gateway_waits_for_central", plan=handed.plan.id, error=str(error))
            return
        except GridError as error:
            self._refuse(handed, str(error), now)
        else:
            for dispatcher in earlier:
                dispatcher.leave(f"plan {handed.plan.id} took over", now)
            self.running = [*(d for d in self.running if d not in earlier), fresh]
        path.unlink(missing_ok=True)

    def _refuse(self, handed: Handed, why: str, now_ms: int) -> None:
        plan = handed.plan
        log.error("gateway_refuses", plan=plan.id, why=why)
        if self._journal.plan(plan.id) is None:
            self._journal.begin(
                StoredPlan(
                    plan.id, plan.digest, plan.encode(), handed.mandate, handed.declaration, now_ms, None, None,
                    "refused", why[:600],
                )
            )  # fmt: skip
        self._journal.say(plan.id, Said(now_ms, None, "refused", why[:600]))

    def run(self, stop: threading.Event) -> None:
        """Look again and again until ``stop`` is set. A journal that cannot be written ends it: nothing is signed."""
        with contextlib.closing(self._journal):
            while not stop.is_set():
                self.step()
                stop.wait(self._settings.look_s)
