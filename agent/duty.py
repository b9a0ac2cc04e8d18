"""What people on site say about orders: that they know of one, and that one was spoken to them by telephone.

Words are recorded and shown; they move nothing and delay nothing. An agent acts on signed orders alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.clock import Clock
from agent.curtailment.journal import Journal, LiveOrder
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.words import number_of, text_of
from wire.errors import WireError

log = structlog.get_logger()

PERIOD_S = 1.0
MAX_AGE_MS = 7 * 24 * 3_600_000
FUTURE_MS = 60_000
ORDER_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
ACK, SPOKEN, OVERDUE = "order_ack", "spoken_order", "overdue"


@dataclass(slots=True)
class Duty:
    """Words of people about orders, durable in the ledger."""

    ledger: Ledger
    journal: Journal
    clock: Clock
    ack_min: float
    words: dict[str, set[str]] = field(default_factory=dict)
    """Order → which words were said of it."""

    def load(self) -> None:
        """Read what was said before."""
        for order, word in self.ledger.read_now("SELECT order_id, word FROM order_word"):
            self.words.setdefault(order, set()).add(word)

    def unacknowledged(self) -> list[str]:
        """Live orders that take load away and that nobody on site has acknowledged."""
        return [
            o.id
            for o in self.journal.live.values()
            if o.order.sheds and not self.words.get(o.id, set()) & {ACK, SPOKEN}
        ]

    def overdue(self) -> list[str]:
        """Those of them whose time for it is over."""
        return [order for order in self.unacknowledged() if self._late(self.journal.live[order])]

    def _late(self, order: LiveOrder) -> bool:
        # By either clock: one that was set, or a restart, must not put the alarm off.
        waited_s = (self.clock.mono_ns() - order.rx_mono) / 1e9
        waited_s = max(waited_s, (self.clock.now_ms() - order.received_ms) / 1000)
        return waited_s >= self.ack_min * 60

    async def ack(self, doc: Mapping[str, Any]) -> str:
        """A person on site knows of an order. The fields of ``doc``: order, who.

        Raises:
            WireError: no such order came here, or a field that cannot be.
            LedgerError: it could not be recorded.
        """
        order, who = _order_id(doc), text_of(doc, "who", 100)
        if order not in self.journal.states:
            raise WireError(
                f"order {order}: none of that id came here; one that was only spoken is entered with 'agent spoken'"
            )
        await self._say(order, ACK, who, "acknowledged", {"who": who})
        return f"order {order} is acknowledged by {who}"

    async def spoken(self, doc: Mapping[str, Any]) -> str:
        """An order was spoken to a person on site. The fields of ``doc``: order, who, given_by, at, recording, text.

        Raises:
            WireError: a field that cannot be.
            LedgerError: it could not be recorded.
        """
        order, who, given_by = _order_id(doc), text_of(doc, "who", 100), text_of(doc, "given_by", 100)
        recording, text = text_of(doc, "recording", 60, empty=True), text_of(doc, "text", 300, empty=True)
        at, now = int(number_of(doc, "at")), self.clock.now_ms()
        if not now - MAX_AGE_MS <= at <= now + FUTURE_MS:
            raise WireError(f"at: {at} ms, expected a time within the last 7 days; it is {now} here")
        delivered = order in self.journal.states
        detail = {"who": who, "given_by": given_by, "at": at, "recording": recording or None, "text": text or None}
        await self._say(order, SPOKEN, who, "entered", detail | {"delivered": delivered})
        moved = "it came here signed too" if delivered else "the agent moves nothing for it: people do"
        return f"spoken order {order} is entered: given by {given_by}, taken by {who}; {moved}"

    async def _say(self, order: str, word: str, who: str, now: str, detail: dict[str, Any]) -> None:
        ev = ACK if word == OVERDUE else word
        txn = Txn().record("site", "event", {"ev": ev, "obj": order, "now": now, "detail": detail})
        txn.run("INSERT OR REPLACE INTO order_word VALUES (?,?,?,?)", order, word, who, self.clock.now_ms())
        await self.ledger.commit(txn, urgent=True)
        self.words.setdefault(order, set()).add(word)

    async def tick(self) -> None:
        """Record once, for both sides, that nobody acknowledged an order in time."""
        for order in self.overdue():
            if OVERDUE not in self.words.get(order, set()):
                log.error("order_unacknowledged", order=order, ack_min=self.ack_min)
                await self._say(order, OVERDUE, "", "overdue", {"ack_s": round(self.ack_min * 60)})

    async def run(self) -> None:
        """Look at the clock until cancelled."""
        while True:
            try:
                await self.tick()
            except LedgerError as error:
                log.error("word_not_recorded", error=str(error))
            await asyncio.sleep(PERIOD_S)


def _order_id(doc: Mapping[str, Any]) -> str:
    order = text_of(doc, "order", 36)
    if ORDER_ID.fullmatch(order) is None:
        raise WireError(f"order: {order!r}, expected an order's id such as 01989c5e-7a30-7cc1-9d52-3f1f8b0a6b11")
    return order
