"""What happens on site by itself, written down as signed ``event`` records and told to who has to act on it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.curtailment.engine import Engine
from agent.curtailment.gates import Gates
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.live import LiveState
from agent.metering.closer import SlotCloser
from agent.telemetry import Batcher
from config.site import Site
from drivers.capabilities import Sample, SwitchState

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

    def sampled(self, sample: Sample) -> None:
        """A device was read."""
        self.batcher.take_sample(sample)
        if self.engine.busy():
            self.engine.wake.set()

    def switched(self, switch: str, was: SwitchState | None, now: SwitchState) -> None:
        """A switch was read; recorded where its position is another than before."""
        self.batcher.take_switch(switch, was, now)
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
