"""What is said by telephone when an order is not delivered, and the banner of a drill."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from central.dispatch import OrderView
from central.pages.format import KAZAKHSTAN, localised
from central.pages.texts import Texts
from wire.errors import BadOrder
from wire.orders import Order, parse_order
from wire.states import ended

DRILL = "УЧЕНИЕ / ОҚУ-ЖАТТЫҒУ"
"""In both languages on every page, whatever its own: nobody may take a drill for live, or live for a drill."""


def missing(view: OrderView) -> bool:
    """True where a person has to call."""
    return view.not_delivered and (view.state is None or not ended(view.state))


def order_of(view: OrderView) -> Order | None:
    """The order, decoded from its own bytes."""
    try:
        return parse_order(view.order.raw).order
    except BadOrder:
        return None


def is_drill(view: OrderView | None) -> bool:
    """Whether the order was signed as a drill."""
    order = order_of(view) if view is not None else None
    return order is not None and order.mode == "drill"


def spoken_power(power_w: int, texts: Texts) -> str:
    """W as said on the telephone: MW with one decimal from 1 MW on, else whole kW."""
    if abs(power_w) >= 1_000_000:
        return texts("{number} MW", number=localised(f"{power_w / 1_000_000:.1f}", texts))
    return texts("{number} kW", number=f"{power_w / 1000:.0f}")


def said_power(power_w: int, texts: Texts) -> str:
    """W as a limit is said: exact, MW from 1 MW on, else kW."""
    large = power_w >= 1_000_000
    value = Decimal(power_w) / (1_000_000 if large else 1000)
    number = localised(f"{value.normalize():f}", texts)
    return texts("{number} MW", number=number) if large else texts("{number} kW", number=number)


def hour(at_ms: int) -> str:
    """Kazakhstan time of day, as it is said."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(KAZAKHSTAN).strftime("%H:%M")


def _what(order: Order, texts: Texts) -> str:
    match order.action:
        case "limit" if order.limit_w is not None:
            return texts("Limit the load to {power}.", power=said_power(order.limit_w, texts))
        case "reduce" if order.reduce_w is not None:
            return texts("Reduce the load by {power}.", power=said_power(order.reduce_w, texts))
        case "stop":
            return texts("Stop: go down to the emergency reservation.")
        case "emergency_trip":
            return texts("Emergency trip: open the switches at once.")
        case "open_feeders":
            return texts("Open the feeders {feeders}.", feeders=", ".join(order.feeders or ()))
        case "release":
            return texts("Order {number} is released: the load may return.", number=order.target)
        case _:
            return texts("The order is {action} {target}.", action=order.action, target=order.target or "")


def script(view: OrderView, name: str, texts: Texts) -> list[str]:
    """Lines to be read aloud, from the order's own bytes; empty where they cannot be decoded."""
    order = order_of(view)
    if order is None:
        return []
    site = order.basis.dispatch_name or name
    number = order.basis.dispatch_no or order.id
    lines = [DRILL] if order.mode == "drill" else []
    lines.append(texts("{site}, this is the dispatcher. Order number {number}.", site=site, number=number))
    lines.append(_what(order, texts))
    if order.hold is not None and order.hold.until is not None:
        lines.append(texts("Hold it until {time}.", time=hour(order.hold.until)))
    elif order.hold is not None:
        lines.append(texts("Hold it until I release it."))
    lines.append(texts("Repeat back."))
    return lines
