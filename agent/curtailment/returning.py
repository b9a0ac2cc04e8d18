"""An order gives back: all of it after a release, or the part that the order itself has room for.

The states ``restoring`` and ``restore_blocked``; what may come back, and how, is the restorer's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from agent.clock import Clock
from agent.curtailment.journal import Journal, LiveOrder
from agent.curtailment.proof import CREEP_SAMPLES, Proof
from agent.curtailment.restore import Restorer
from agent.curtailment.telling import Teller
from agent.live import LiveState
from wire.states import OrderState

log = structlog.get_logger()

S = OrderState


@dataclass(frozen=True, slots=True)
class Returning:
    """Moves orders through their return; stages are tasks of the order."""

    journal: Journal
    restorer: Restorer
    proof: Proof
    live: LiveState
    clock: Clock
    teller: Teller
    wake: Callable[[], None]
    """Lets the engine look at once."""

    async def part(self, order: LiveOrder) -> None:
        """Give back what the order itself leaves room for; the limit is watched as if nothing came back."""
        if order.tasks:
            return
        self.proof.observe(order)
        if order.bad >= CREEP_SAMPLES:
            order.doc.returning = ""
            await self.journal.move(order, S.EXECUTING, "the load has come up to the limit")
            return
        order.block = self.restorer.blocked(order)
        if order.block is not None or self.clock.mono_ns() < order.next_stage_ns:
            return
        if await self._next_stage(order):
            return
        if not self.restorer.coming_w() and self._room_was_read(order):
            order.doc.returning = ""
            await self.journal.move(order, S.EXECUTING, "what there was room for has returned")

    def _room_was_read(self, order: LiveOrder) -> bool:
        """True where the room for a return was judged by a reading from after the last stage."""
        return self.live.judged(order.doc.point).mono_ns > order.wave_ns

    async def whole(self, order: LiveOrder) -> None:
        """Give back everything that is held, after a release."""
        if order.tasks:
            return
        if not self.journal.held_by(order.id):
            if order.state is S.RESTORE_BLOCKED:
                await self.journal.move(order, S.RESTORING, "nothing is held any more")
            left = f"; not returned: {', '.join(order.doc.abandoned)}" if order.doc.abandoned else ""
            coming = self.restorer.still_coming()
            text = f"told to return; {coming}{left}" if coming else f"load returned{left}"
            await self.journal.move(order, S.DONE, text[:480], record=self.teller.effect(order, S.DONE))
            return
        why = self.restorer.blocked(order)
        order.block = why
        if why is not None:
            if order.state is S.RESTORING:
                await self.journal.move(order, S.RESTORE_BLOCKED, why[:480])
            return
        if order.state is S.RESTORE_BLOCKED:
            await self.journal.move(order, S.RESTORING, "nothing blocks the return any more")
        if self.clock.mono_ns() >= order.next_stage_ns:
            await self._next_stage(order)

    async def _next_stage(self, order: LiveOrder) -> bool:
        """Start the next stage of a return; false where nothing is ready or has room."""
        items, order.waiting = self.restorer.next_stage(order)
        order.block = self.restorer.held_up.get(order.id)
        if not items:
            return False
        order.doc.stages += 1
        delay = float(order.order.restore.stage_delay_s)
        paces = [pace for pace in (order.doc.max_w_per_min, order.order.restore.max_w_per_min) if pace]
        if ramp := min(paces, default=0):
            delay = max(delay, sum(i.expected_w for i in items) / ramp * 60)
        order.next_stage_ns = self.clock.mono_ns() + int(delay * 1e9)
        task = asyncio.create_task(self.restorer.bring_back(order, items), name=f"restore-{order.id}")
        order.tasks.add(task)
        task.add_done_callback(lambda t: self._stage_done(order, t))
        return True

    def _stage_done(self, order: LiveOrder, task: asyncio.Task[None]) -> None:
        order.tasks.discard(task)
        order.wave_ns = self.clock.mono_ns()
        if not task.cancelled() and task.exception() is not None:
            log.error("stage_failed", order=order.id, error=repr(task.exception()))
        self.wake()
