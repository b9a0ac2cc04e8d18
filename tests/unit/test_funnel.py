"""The funnel of orders: who counts at which stage, what is off by real power, and who stands first."""

from __future__ import annotations

from typing import Any

import pytest

from central.dispatch import OrderView, view
from central.pages.funnel import KEPT_MS, STAGES, Place, funnel, in_order, place
from central.store.orders import Answer, StoredOrder
from tests.integration.central_site import make_order
from wire.keys import SigningKey
from wire.records import RecordLine

NOW = 1_800_000_000_000
KEY = SigningKey.generate()


def answer(ty: str, state: str | None, at: int = 0, **fields: Any) -> Answer:
    doc = {"v": 1, "log": "tizgin/s-1/e1-0badcafe", "st": "cmd", "n": 0, "p": None, "a": None, "ty": ty, "at": NOW + at}
    doc |= {"mono": 1, "boot": "b", "clk": {"s": "S"}, "fw": "1", "id": "o", "state": state, "agent_mode": "armed"}
    doc |= {"order_mode": "live"} | fields
    power, target = fields.get("power_w", fields.get("before_w")), fields.get("target_w")
    line = RecordLine.sign(doc, KEY).encode()
    return Answer(ty, NOW + at, NOW + at, state, fields.get("code"), None, power, target, True, line)


def seen(*answers: Answer, posted_at: int = NOW - 1000, now_ms: int = NOW, **changes: Any) -> OrderView:
    order_id, raw = make_order("ekibastuz-1", KEY, **changes)
    stored = StoredOrder(order_id, "ekibastuz-1", "e1-0badcafe", "limit", "0" * 64, raw, posted_at, NOW + 60_000)
    return view(stored, answers, (), now_ms)


def placed(found: OrderView, power_w: int | None = 4_000_000, fresh: bool = True) -> Place | None:
    summary = {"power_w": power_w, "freshness": "fresh" if fresh else "stale"}
    return place(found, summary, "Ekibastuz", NOW)


ACCEPTED = answer("cmd_ack", "validated", before_w=5_000_000, target_w=1_500_000)


@pytest.mark.parametrize(
    ("answers", "stage", "trouble"),
    [
        ((), "sent", ""),
        ((answer("cmd_rx", None),), "delivered", ""),
        ((ACCEPTED,), "accepted", ""),
        ((ACCEPTED, answer("cmd_eff", "executing", 1)), "falling", ""),
        ((ACCEPTED, answer("cmd_eff", "failed", 1)), "falling", "short"),
        ((ACCEPTED, answer("cmd_eff", "holding", 1)), "met", ""),
        ((ACCEPTED, answer("cmd_eff", "restore_blocked", 1)), "back", "blocked"),
        ((ACCEPTED, answer("cmd_eff", "done", 1)), "back", ""),
        ((answer("cmd_ack", "rejected", code="old_seq"),), "delivered", "refused"),
    ],
)
def test_an_order_stands_where_its_answers_say(answers: tuple[Answer, ...], stage: str, trouble: str) -> None:
    found = placed(seen(*answers))
    assert found is not None
    assert (STAGES[found.stage], found.trouble) == (stage, trouble)


def test_power_off_is_by_fresh_power_alone() -> None:
    held = seen(ACCEPTED, answer("cmd_eff", "holding", 1, power_w=1_400_000, target_w=1_500_000))
    fresh, stale = placed(held, 1_600_000), placed(held, 1_600_000, fresh=False)
    assert fresh is not None
    assert stale is not None
    assert (fresh.ordered_w, fresh.off_w, fresh.above_w) == (3_500_000, 3_400_000, 100_000)
    assert (stale.off_w, stale.above_w) == (None, None)
    sums = funnel([fresh, stale])
    assert sums.counts == (2, 2, 2, 2, 2, 0)
    assert sums.ordered_w[0] == 7_000_000
    assert (sums.off_w, sums.known, sums.moving) == (3_400_000, 1, 2)


def test_who_refused_and_what_is_a_drill_are_in_no_sum() -> None:
    refused = placed(seen(answer("cmd_ack", "rejected", code="old_seq")))
    drill = placed(seen(answer("cmd_ack", "done", before_w=5_000_000, target_w=0, order_mode="drill"), mode="drill"))
    assert refused is not None
    assert drill is not None
    sums = funnel([refused, drill])
    assert (sums.ordered_w[0], sums.off_w, sums.moving) == (None, None, 0), "unknown is no zero"
    assert sums.counts[:2] == (2, 2)


def test_what_is_over_leaves_after_ten_minutes_and_what_was_superseded_at_once() -> None:
    assert placed(seen(ACCEPTED, answer("cmd_eff", "done", 1 - KEPT_MS))) is not None
    long_ago = answer("cmd_ack", "validated", -2 - KEPT_MS, before_w=5_000_000, target_w=1_500_000)
    assert placed(seen(long_ago, answer("cmd_eff", "done", -1 - KEPT_MS))) is None
    assert placed(seen(ACCEPTED, answer("cmd_eff", "superseded", 1))) is None


def test_who_needs_somebody_stands_first() -> None:
    late = placed(seen(posted_at=NOW - 60_000))
    short = placed(seen(ACCEPTED, answer("cmd_eff", "failed", 1)))
    far = placed(seen(ACCEPTED, answer("cmd_eff", "executing", 1)), 4_500_000)
    near = placed(seen(ACCEPTED, answer("cmd_eff", "executing", 1)), 1_700_000)
    held = placed(seen(ACCEPTED, answer("cmd_eff", "holding", 1)), 1_400_000)
    places = [one for one in (held, near, far, short, late) if one is not None]
    assert in_order(places) == [late, short, far, near, held]
