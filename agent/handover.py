"""A signed order that reached the site by another way than the broker: a file, a message, typed in.

It is the same envelope, judged by the same rules under the same id; whichever copy comes first is the order, the other
one is a repetition.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.ledger import Ledger
from wire import canonical
from wire.errors import WireError
from wire.orders import parse_order

LOOK_BACK = 50


async def hand_over(raw: bytes, take: Callable[[bytes, bool], Awaitable[None]], ledger: Ledger) -> str:
    """Give an envelope to the running agent; returns its signed decision in words.

    Raises:
        WireError: it is no order, was refused, or the decision could not be recorded.
        LedgerError: the ledger cannot be read.
    """
    order = parse_order(raw).order
    before = await _newest(ledger)
    await take(raw, False)
    rows = await ledger.read(
        "SELECT n, payload FROM record WHERE stream='cmd' AND ty='cmd_ack' AND n > ? ORDER BY n DESC LIMIT ?",
        *(before, LOOK_BACK),
    )
    for _, payload in rows:
        doc = canonical.decode(bytes(payload))
        if doc.get("id") != order.id:
            continue
        if doc["state"] == "rejected":
            raise WireError(f"order {order.id} is rejected ({doc['code']}): {doc['text']}")
        again = "came before; " if doc.get("dup") else ""
        return f"order {order.id} {again}{doc['state']}: {doc['text']}"
    raise WireError(
        f"order {order.id}: no decision is on record; look at 'agent status': the journal cannot be written, the order "
        "is already under way, or too many were refused within a minute"
    )


async def _newest(ledger: Ledger) -> int:
    rows = await ledger.read("SELECT COALESCE(MAX(n), -1) FROM record WHERE stream='cmd'")
    return int(rows[0][0])
