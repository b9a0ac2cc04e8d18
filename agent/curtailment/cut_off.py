"""What was accepted and cut off before it took effect: a release, an extension, a cancellation, a supersession.

Acceptance and effect are durable one after the other. Between the two the process may die; the acceptance was answered,
and the same order sent again is a repetition. So the start-up takes the effect up from the journal.
"""

from __future__ import annotations

import json

from agent.curtailment.journal import Journal, LiveOrder
from agent.ledger import Ledger
from wire.orders import Order, parse_order
from wire.states import OrderState

S = OrderState
COMING_BACK = frozenset({S.RESTORING, S.RESTORE_BLOCKED})


def without_effect(ledger: Ledger, journal: Journal) -> list[tuple[Order, LiveOrder]]:
    """Follow-ups and the live orders they name, where the order does not show the newest of its kind. Blocking."""
    rows = ledger.read_now("SELECT raw, doc FROM orders WHERE json_array_length(doc, '$.targets') > 0 ORDER BY rowid")
    newest: dict[tuple[str, str], Order] = {}
    for raw, doc in rows:
        order = parse_order(bytes(raw)).order
        for target in json.loads(doc)["targets"]:
            newest[target, order.action] = order
    return [
        (order, journal.live[target])
        for (target, _), order in newest.items()
        if target in journal.live and not _took_effect(order, journal.live[target])
    ]


def not_handed_over(journal: Journal) -> list[tuple[LiveOrder, str]]:
    """Live orders with the order they supersede, where that one does not show it."""
    found = []
    for new in journal.live.values():
        old = journal.live.get(new.order.supersedes or "")
        if old is not None and old.order.sheds and (old.state not in COMING_BACK or old.doc.returning):
            found.append((new, old.id))
    return found


def _took_effect(order: Order, target: LiveOrder) -> bool:
    doc = target.doc
    match order.action:
        case "release":
            return doc.released_by == order.id
        case "cancel":
            return doc.stop_shedding
        case _:
            return order.hold is None or doc.hold_until == order.hold.until
