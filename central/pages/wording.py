"""An order and the agent's remarks about it in words."""

from __future__ import annotations

import re

from central.dispatch import OrderView
from central.pages.call import DRILL, order_of
from central.pages.format import kilowatt, localised
from central.pages.texts import Texts


def order_words(view: OrderView, texts: Texts) -> str:
    """What is ordered, from the envelope's own bytes."""
    order = order_of(view)
    if order is None:
        return view.order.action
    names = {
        "limit": texts("Limit"),
        "reduce": texts("Reduce"),
        "stop": texts("Stop"),
        "release": texts("Release"),
        "cancel": texts("Cancel"),
        "extend": texts("Extend"),
        "emergency_trip": texts("Emergency trip"),
    }
    words = names.get(order.action, order.action)
    power = order.limit_w if order.limit_w is not None else order.reduce_w
    if power is not None:
        words += f" {localised(kilowatt(power), texts)} {texts('kW')}"
    if order.mode == "drill":
        words = f"{DRILL}: {words}"
    return words


_PLAN = re.compile(
    r"(?:[A-Za-z]+: )?accepted; ([0-9.]+) kW now, target ([0-9.]+) kW; (?:will|would) put ([0-9]+) machines to sleep "
    r"for ([0-9.]+) kW"
)
_COMING = re.compile(r"told to return; ([0-9]+) woken machines do not draw yet: ([0-9.]+) kW")
_REDUNDANT = frozenset({"acting", "confirmed by the meter", "load returned"})
"""Texts of the agent that say what the step's own name says."""


def site_words(text: str, texts: Texts) -> str:
    """The agent's remark in the page's language where its form is known, else as it was signed."""
    if text in _REDUNDANT:
        return ""
    if text == "all outputs of the wave answered":
        return texts("every output of this wave answered")
    coming = _COMING.fullmatch(text)
    if coming is not None:
        return texts("{n} woken machines do not draw yet: {kw} kW", n=coming[1], kw=localised(coming[2], texts))
    plan = _PLAN.fullmatch(text)
    if plan is None:
        return text
    _, target, count, gain = (localised(part, texts) for part in plan.groups())
    return texts("target {target} kW; machines to sleep: {n}, for {kw} kW", target=target, n=count, kw=gain)
