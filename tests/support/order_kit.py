"""An order with its trace and its report in a site's bundle."""

from __future__ import annotations

import hashlib
from typing import Any

from bundle_kit import EPOCH, SITE, SLOT, START, Site

from wire import canonical
from wire.dsse import ORDER_TYPE, seal
from wire.keys import b64
from wire.obedience import Facts, report, slots_of
from wire.orders import Order

ID = "01912345-0000-7000-8000-0000000000bb"
RX = START + 2 * SLOT - 100
WATT = 36_000
"""About what the meter of the kit counts: 9.75 kWh in a slot."""


def make_order(**changes: Any) -> Order:
    fields: dict[str, Any] = {
        "v": 1,
        "id": ID,
        "site": SITE,
        "epoch": EPOCH,
        "seq": 2,
        "action": "limit",
        "limit_w": 40_000,
        "limit_basis": "slot",
        "issued_at": RX * 1000 - 500,
        "execute_by": RX * 1000 + 60_000,
        "expires_at": RX * 1000 + 7_200_000,
        "hold": {"until_released": True},
        "basis": {"code": "test"},
    }
    return Order.model_validate_json(canonical.encode({k: v for k, v in (fields | changes).items() if v is not None}))


def with_order(site: Site, *, order: Order | None = None, rx: int = RX, end: int = RX + 4 * SLOT, **more: Any) -> Site:
    """An order on M1 that held from ``rx`` to ``end``, with its trace and its report; ``more`` fields in part 0."""
    made = order or make_order()
    raw = seal(ORDER_TYPE, made.encode(), site.dispatcher).encode()
    digest = hashlib.sha256(made.encode()).hexdigest()
    site.add("cmd", "cmd_rx", rx, {"id": ID, "digest": digest, "raw": b64(raw), "rx": rx * 1000})
    ack = {"id": ID, "state": "validated", "code": None, "text": "", "order_mode": "live", "agent_mode": "armed"}
    ack |= {"kids": [site.dispatcher.kid], "seq": 2, "before_w": 50_000, "target_w": 40_000}
    site.add("cmd", "cmd_ack", rx, ack)
    states = [[0, "validated"], [0, "executing"], [2000, "holding"]]
    parts = []
    for number, begin in enumerate(range(rx, end, 600)):
        count = min(120, (end - begin) // 5)
        fields = {
            "id": ID,
            "point": "M1",
            "part": number,
            "t0": begin * 1000,
            "dt": [0] + [5000] * (count - 1),
            "w": [WATT] * count,
            "q": [],
            "pos": [],
            "states": states if number == 0 else [],
            "why": [],
        }
        if begin + 600 >= end:
            fields["states"] = [[(end - begin) * 1000, "restoring"], [(end - begin) * 1000, "done"]]
        fields |= more if number == 0 else {}
        parts.append(fields)
        site.add("cmd", "cmd_trace", begin + 5 * count, fields)
    known = Facts(
        order=made,
        received_ms=rx * 1000,
        point="M1",
        contracted_w=100_000_000,
        before_w=50_000,
        target_w=None if made.hours else 40_000,
        slot_s=SLOT,
        technological_s=0,
        floor_w=0 if made.hours else None,
    )
    records = [(doc["ty"], doc) for doc in site.streams["mp:M1"] if doc["at"] <= end * 1000]
    said = report(known, parts, slots_of(records), (), len(records))
    site.add("cmd", "cmd_report", end + 1, dict(said))
    return site
