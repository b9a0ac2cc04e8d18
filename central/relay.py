"""The relay of orders: the exact bytes, sent again until the site has decided or the time to execute is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import structlog

from central.metrics import Metrics
from central.store import orders
from central.store.database import Database
from central.store.evidence import Incoming
from central.store.orders import StoredOrder
from wire.names import topic
from wire.orders import SignedOrder

log = structlog.get_logger(__name__)

AGAIN_MS = 5000
TICK_S = 0.25
DECISIONS = frozenset({"cmd_ack", "cmd_eff"})


class Reused(Exception):
    """An order of that id is here already, with other bytes."""


class Relay:
    """Orders under way. Central cannot sign: it only carries."""

    def __init__(
        self,
        database: Database,
        publish: Callable[[str, bytes, int], bool],
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._publish = publish
        self._metrics = metrics
        self._now_ms = now_ms
        self._open: dict[str, tuple[StoredOrder, int]] = {}
        """Order id → (order, when last sent; 0 for never)."""
        self._owner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up again what an earlier run left unanswered."""
        await self._take_up()
        self._owner = asyncio.create_task(self._run(), name="order-relay")

    async def stop(self) -> None:
        """Stop sending; unanswered orders are taken up at the next start."""
        if self._owner is not None:
            self._owner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._owner
            self._owner = None

    async def post(self, signed: SignedOrder) -> bool:
        """Store an order and send it; false where it was posted before, byte for byte.

        Whether the database kept an order is not known where it died over the commit. Posted again, it is sent then.

        Raises:
            Reused: the id is taken by other bytes.
        """
        now = self._now_ms()
        there = await self._database.write(lambda c: orders.insert(c, signed, now))
        if there is not None:
            if there.raw != signed.raw:
                raise Reused(f"order {signed.order.id} was posted before with other bytes")
            if there.id not in self._open:
                await self._take_up()
            return False
        order = signed.order
        stored = StoredOrder(
            order.id, order.site, order.epoch, order.action, signed.digest, signed.raw, now, order.execute_by
        )
        log.info("order_posted", order=order.id, site=order.site, action=order.action)
        self._open[order.id] = (stored, 0)
        self._send(order.id)
        return True

    async def _take_up(self) -> None:
        now = self._now_ms()
        for order in await self._database.read(lambda c: orders.unanswered(c, now)):
            self._open.setdefault(order.id, (order, 0))

    def answered(self, answers: Iterable[Incoming]) -> None:
        """Signed answers came: what is decided is not sent again."""
        for item in answers:
            order_id = item.doc.get("id")
            there = self._open.get(order_id) if isinstance(order_id, str) else None
            # Only the order's own site may end its sending, and a record under a wrong key ends nothing.
            if there and there[0].site == item.site and item.doc["ty"] in DECISIONS and item.verified is not False:
                log.info("order_answered", order=order_id, site=item.site, state=item.doc.get("state"))
                self._open.pop(str(order_id), None)

    def site_online(self, site: str) -> None:
        """A site came (back): what is open for it goes at once."""
        for order_id, (order, _) in list(self._open.items()):
            if order.site == site:
                self._send(order_id)

    def _send(self, order_id: str) -> None:
        order, _ = self._open[order_id]
        now = self._now_ms()
        if now >= order.execute_by:
            log.warning("order_unanswered", order=order_id, site=order.site)
            del self._open[order_id]
            return
        sent = self._publish(topic(order.site, "order"), order.raw, max(1, (order.execute_by - now) // 1000))
        if sent:
            self._metrics.orders_sent.inc()
            self._open[order_id] = (order, now)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._now_ms()
            for order_id, (_, sent) in list(self._open.items()):
                if now - sent >= AGAIN_MS:
                    self._send(order_id)
