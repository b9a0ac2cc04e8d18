"""What is known of an order: signed answers first, unsigned progress beside them, never instead of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from central.store.orders import Answer, StoredOrder
from central.store.words import SiteWord, StoredNote
from wire.messages import Progress
from wire.states import PHASE, OrderState, Phase, ended

DELIVERY_MS = 10_000
"""Without a signed word from the site after this long, a person must call."""


@dataclass(frozen=True, slots=True)
class OrderView:
    """One order for the API and the pages."""

    order: StoredOrder
    state: OrderState | None
    """Newest known state; null while the site has said nothing."""
    signed_state: OrderState | None
    phase: Phase
    delivered_at: int | None
    """When central received the first signed answer, ms."""
    not_delivered: bool
    progress: tuple[Progress, ...]
    answers: tuple[Answer, ...]
    notes: tuple[StoredNote, ...] = ()
    """What dispatchers noted of calls about it."""
    words: tuple[SiteWord, ...] = ()
    """What people on site signed about it."""


def _state(text: str | None) -> OrderState | None:
    try:
        return OrderState(text) if text is not None else None
    except ValueError:
        return None


def signed_state(answers: Sequence[Answer]) -> tuple[OrderState | None, int]:
    """State by the signed answers and its time.

    A refusal of a repeated order does not undo what its first reading began: an order that was accepted once stays
    so, whatever later copies of it are told.
    """
    state: OrderState | None = None
    at = 0
    for answer in answers:
        if answer.verified is False:
            continue
        new = _state(answer.state)
        if answer.ty == "cmd_rx" and state is None:
            state, at = OrderState.RECEIVED, answer.at
        if new is None:
            continue
        if answer.ty == "cmd_ack" and new is OrderState.REJECTED and state not in {None, OrderState.RECEIVED}:
            continue
        state, at = new, answer.at
    return state, at


def view(
    order: StoredOrder,
    answers: Sequence[Answer],
    progress: Sequence[Progress],
    now_ms: int,
    *,
    notes: Sequence[StoredNote] = (),
    words: Sequence[SiteWord] = (),
) -> OrderView:
    """Put together what is known."""
    signed, at = signed_state(answers)
    state = signed
    newest = progress[-1] if progress else None
    if newest is not None and (signed is None or (newest.at > at and not ended(signed))):
        state = newest.state
    counted = [a.received_at for a in answers if a.verified is not False]
    delivered = min(counted, default=None)
    late = delivered is None and now_ms - order.posted_at >= DELIVERY_MS
    phase = PHASE[state] if state is not None else Phase.SENT
    return OrderView(
        order, state, signed, phase, delivered, late, tuple(progress), tuple(answers), tuple(notes), tuple(words)
    )
