"""What happens on site by itself, written down as signed ``event`` records and told to who has to act on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.acquisition import Bench
from agent.curtailment.engine import Engine
from agent.curtailment.gates import Gates
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.live import LiveState
from agent.metering.closer import SlotCloser
from agent.rounds import readiness
from agent.telemetry import Batcher
from config.site import Site
from drivers.capabilities import Sample, SwitchState
from drivers.modbus.events import LinkEvent

log = structlog.get_logger()


@dataclass(slots=True)
class Events:
    """Listener of the live state and of the drivers."""

    site: Site
    ledger: Ledger
    live: LiveState
    gates: Gates
    engine: Engine
    closer: SlotCloser
    batcher: Batcher
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def listen(self) -> None:
        """Hear of samples and positions."""
        self.live.on_sample(self.sampled)
        self.live.on_switch(self.switched)

    def hear(self, bench: Bench) -> None:
        """Hear of what the drivers notice; САОН counts go on from where the last run left them."""
        bench.on_foreign_write = self.foreign_write
        bench.on_foreign_move = self.foreign_move
        bench.on_settings = self.settings
        bench.on_link = self.link
        bench.on_saon = self.saon
        for name, count in json.loads(self.ledger.meta("saon_counts") or "[]"):
            feeder, _, stage = name.rpartition("/")
            bench.saon_counts[feeder, int(stage)] = int(count)
        bench.on_saon_count = lambda *_: self.spawn(self._keep_saon_counts(bench))

    async def _keep_saon_counts(self, bench: Bench) -> None:
        counts = [[f"{feeder}/{stage}", count] for (feeder, stage), count in sorted(bench.saon_counts.items())]
        await self.ledger.commit(Txn().set_meta("saon_counts", json.dumps(counts)), urgent=True)

    def foreign_move(self, switch: str, was: str, now: str) -> None:
        """A switch moved that nobody here commanded: protection, АВР, a person, another master."""
        log.error("foreign_move", switch=switch, was=was, now=now)
        self.record({"ev": "foreign_move", "obj": switch, "was": was, "now": now})
        self.engine.wake.set()

    def settings(self, device: str, why: str | None) -> None:
        """A module's watchdog and safe-state settings became wrong, unread, or good again."""
        now = "good" if why is None else "not_good"
        self.record({"ev": "safe_state", "obj": device, "now": now, "detail": {"why": (why or "")[:500]}})

    def link(self, event: LinkEvent) -> None:
        """A second master began to ask on a line, or fell silent: two masters on one bus spoil each other's answers."""
        now = "heard" if event.now else "silent"
        log.error("second_master", link=event.link, now=now, frames=event.foreign_frames)
        detail = {"frames": event.foreign_frames, "frame": event.frame[:64].hex()}
        self.record({"ev": event.name, "obj": event.link, "now": now, "detail": detail})

    def sampled(self, sample: Sample) -> None:
        """A device was read."""
        self.batcher.take_sample(sample)
        if self.engine.busy():
            self.engine.wake.set()

    def switched(self, switch: str, was: SwitchState | None, now: SwitchState) -> None:
        """A switch was read; recorded where its position is another than before."""
        self.batcher.take_switch(switch, was, now)
        self._ready(switch, was, now)
        if was is None or was.position is now.position:
            return
        self.closer.watch_supply()
        self.engine.wake.set()
        points = {p.id: self.live.power(p.id).value_w for p in self.site.metering_points if p.boundary}
        self.record(
            {
                "ev": "switch_position",
                "obj": switch,
                "was": was.position,
                "now": now.position,
                "detail": {"at": now.at_ms, "boundary_w": [[k, v] for k, v in points.items()]},
            }
        )

    def _ready(self, switch: str, was: SwitchState | None, now: SwitchState) -> None:
        """A switch became ready, or no longer is: recorded where the verdict is another than before."""
        node = self.gates.switches.get(switch)
        if node is None or was is None:
            return
        before, after = readiness(node, was), readiness(node, now)
        if before != after:
            self.record({"ev": "readiness", "obj": switch, "was": before, "now": after})

    def saon(self, feeder: str, stage: int, operated: bool) -> None:
        """САОН operated (or was reset): recorded, and restoration is locked until the system operator releases it."""
        log.error("saon", feeder=feeder, stage=stage, operated=operated)
        now = "operated" if operated else "reset"
        self.record({"ev": "saon", "obj": feeder, "now": now, "detail": {"stage": stage}})
        if operated:
            self.spawn(self.gates.set_saon_lock(f"stage {stage} at {feeder}"))
            self.engine.wake.set()

    def foreign_write(self, device: str, output: str, was: bool, now: bool) -> None:
        """Somebody else wrote an output."""
        log.error("foreign_write", device=device, output=output, was=was, now=now)
        self.record(
            {"ev": "foreign_write", "obj": device, "was": str(was), "now": str(now), "detail": {"output": output}}
        )

    def record(self, fields: dict[str, Any]) -> None:
        """Write an ``event`` record."""

        async def write() -> None:
            await self.ledger.commit(Txn().record("site", "event", fields))

        self.spawn(write())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a small piece of writing of its own; a failure is logged."""

        async def guarded() -> None:
            try:
                await work
            except LedgerError as error:
                log.error("event_not_recorded", error=str(error))

        task = asyncio.get_running_loop().create_task(guarded(), name="event")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
