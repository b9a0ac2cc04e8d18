"""What an order says of itself: the fields of its signed ``cmd_eff`` records, and unsigned progress each second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from agent.clock import Clock
from agent.curtailment.journal import Journal, LiveOrder
from agent.ledger import Ledger
from agent.live import LiveState
from wire.messages import Progress
from wire.states import OrderState

PERIOD_NS = 1_000_000_000


@dataclass(slots=True)
class Teller:
    """Reads everything, moves nothing."""

    ledger: Ledger
    journal: Journal
    live: LiveState
    clock: Clock
    on_progress: Callable[[Progress], Awaitable[None]]
    _told: dict[str, tuple[str, int]] = field(default_factory=dict)

    def effect(self, order: LiveOrder, state: OrderState | None = None) -> dict[str, Any]:
        """Fields of a ``cmd_eff`` record."""
        power = self.live.power(order.doc.point)
        doc = order.doc
        return {
            "id": order.id,
            "state": state or order.state,
            "flags": sorted(order.flags),
            "power_w": power.value_w,
            "target_w": doc.target_w,
            "proof": {"point": doc.point, "at": power.at_ms, "samples": order.good}
            if power.value_w is not None
            else None,
            "positions": [
                [h.target, str(s.position)]
                for h in self.journal.held_by(order.id)
                if h.kind == "switch" and (s := self.live.switches.get(h.target)) is not None
            ],
            "ms": {
                "accepted": doc.accepted_ms,
                "first_output": doc.first_output_ms,
                "readback": doc.readback_ms if doc.readback_ms is not None else doc.sleep_readback_ms,
                "confirmed": doc.confirmed_ms,
            },
            "escalated": list(doc.escalated),
            "text": doc.text,
        }

    async def tell_unjournalled(self, order_id: str, why: str) -> None:
        """An order that could not be written down, and so is not carried out: unsigned, and it says so."""
        await self.on_progress(
            Progress(
                site=self.ledger.site,
                epoch=self.ledger.epoch,
                order=order_id,
                state=OrderState.REJECTED,
                at=self.clock.now_ms(),
                text=f"no_journal: {why}"[:500],
            )
        )

    async def tell(self, order: LiveOrder) -> None:
        """How an order goes: at once when its state changes, else each second."""
        now = self.clock.mono_ns()
        state, told = self._told.get(order.id, ("", 0))
        if state == order.state and now - told < PERIOD_NS:
            return
        self._told[order.id] = (order.state, now)
        if order.id not in self.journal.live:
            self._told.pop(order.id, None)
        await self.on_progress(
            Progress(
                site=self.ledger.site,
                epoch=self.ledger.epoch,
                order=order.id,
                state=order.state,
                flags=tuple(sorted(order.flags)),
                at=self.clock.now_ms(),
                power_w=self.live.power(order.doc.point).value_w,
                target_w=order.doc.target_w,
                steps_done=max(0, len(order.doc.attempts) - len(order.tasks)),
                steps_total=len(order.doc.attempts),
                text=(order.block or order.doc.text)[:500],
                waiting_for=order.waiting,
            )
        )
