"""Making, countersigning, reading and fetching orders: what the command line and the desk have in common."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from grid.compose import OrderRequest, compose, read_request
from grid.errors import ComposeError, GridError
from grid.files import read_bounded
from grid.heads import CheckpointSource, Heads
from grid.sequence import Sequence
from grid.story import Story
from wire.dsse import Envelope
from wire.errors import BadOrder, WireError
from wire.keys import SigningKey
from wire.orders import MAX_ORDER_BYTES, Order, SignedOrder, parse_order
from wire.registry import KeysDocument

FILE_ONLY = frozenset({"hours_kw", "not_before_ms", "attachment_sha256", "restore_min_mhz", "seen"})
"""Fields that are said in an order file alone, too long or too rare for an option; ``seen`` is looked up."""
OPTION_NAMES: Mapping[str, str] = {
    name: {"feeders": "feeder", "methods": "method"}.get(name, name)
    for name in OrderRequest.model_fields
    if name not in FILE_ONLY
}
"""Field of a request → option of ``tizgin order sign``."""


def current_epoch(register: KeysDocument, site: str) -> str:
    """The newest epoch of a site by the register: central's word is not enough to sign on.

    Raises:
        ComposeError: the register has no such site, or no epoch of it.
    """
    entry = register.site(site)
    if entry is None:
        raise ComposeError(f"site {site!r} is not in the register; it has {', '.join(s.id for s in register.sites)}")
    if not entry.epochs:
        raise ComposeError(f"site {site!r} has no epoch in the register; the registrar enrols it first")
    return max(entry.epochs, key=lambda e: int(e.epoch[1:].partition("-")[0])).epoch


def new_order(
    fields: Mapping[str, Any],
    *,
    register: KeysDocument | None,
    sequence: Sequence,
    now_ms: int,
    heads: Heads | None = None,
    central: CheckpointSource | None = None,
) -> Order:
    """An order from a person's fields. Its number is on disk when this returns.

    With ``heads`` and a register it carries the newest checkpoint of the site's log that is known.

    Raises:
        ComposeError: the fields make no order.
        GridError: the number cannot be kept.
    """
    body = dict(fields)
    if body.get("action") is None:
        for name, action in (("limit_kw", "limit"), ("reduce_kw", "reduce"), ("stage", "stage")):
            if body.get(name) is not None:
                body["action"] = action
    if body.get("epoch") is None and register is not None and isinstance(body.get("site"), str):
        body["epoch"] = current_epoch(register, body["site"])
    request = read_request(body)
    if heads is not None and register is not None and request.seen is None:
        request = request.model_copy(update={"seen": heads.newest(request.site, request.epoch, register, central)})
    # Checked whole before a number is used up.
    compose(request, now_ms=now_ms, seq=0)
    return compose(request, now_ms=now_ms, seq=sequence.next(request.site, now_ms=now_ms))


def add_signature(signed: SignedOrder, key: SigningKey, sequence: Sequence, register: KeysDocument | None) -> Envelope:
    """A further person's signature over the same bytes.

    Raises:
        GridError: this key signed already, or an earlier signature is not good.
    """
    kids = [kid for kid, _ in signed.envelope.signatures]
    if key.kid in kids:
        raise GridError(f"key {key.kid} has signed this order already; two signatures need two persons")
    if register is not None:
        try:
            signed.envelope.verify(register.verify_keys())
        except WireError as error:
            raise GridError(f"the order is not signed by a registered key: {error}") from None
    # Later orders of this person must have higher numbers than the one signed here.
    sequence.reach(signed.order.site, signed.order.seq)
    return signed.envelope.signed_by(key)


def read_order(path: Path) -> SignedOrder:
    """A signed order from a file; signatures are not judged here.

    Raises:
        GridError: not an order.
    """
    try:
        return parse_order(read_bounded(path, MAX_ORDER_BYTES).strip())
    except BadOrder as error:
        raise GridError(f"{path}: {error}") from None


class OrderSource(Protocol):
    """Whatever can show an order as central's API does."""

    def order(self, order_id: str, /) -> dict[str, Any]:
        """The order's document."""
        ...


def fetch_order(
    client: OrderSource, order_id: str, *, mine: SignedOrder | None = None
) -> tuple[SignedOrder, list[str]]:
    """An order and its answer lines from central. With ``mine``, central must show exactly the same signed bytes.

    Raises:
        GridError: central shows something else.
    """
    doc = client.order(order_id)
    lines = doc.get("answers")
    answers = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    if mine is not None:
        return mine, answers
    try:
        raw = base64.b64decode(str(doc.get("envelope", "")), validate=True)
        signed = parse_order(raw.strip())
    except (ValueError, BadOrder) as error:  # ValueError: not base64, or not even ASCII
        why = str(error) if isinstance(error, BadOrder) else "it is not base64"
        raise GridError(f"central's copy of order {order_id} cannot be decoded: {why}") from None
    if signed.order.id != order_id:
        raise GridError(f"central gave order {signed.order.id} when asked for {order_id}")
    return signed, answers


def story_json(
    signed: SignedOrder, who: Mapping[str, Any], story: Story | None, *, not_delivered: bool
) -> dict[str, Any]:
    """What ``tizgin order show --json`` prints."""
    order = signed.order
    doc: dict[str, Any] = {
        "id": order.id,
        "site": order.site,
        "action": order.action,
        "order": order.model_dump(mode="json", exclude_none=True),
        "signed_by": who["kids"],
        "verified": who["verified"],
        "bad_signature": who["bad"],
        "not_delivered": not_delivered,
        "state": None,
        "answers": [],
        "refused": [],
    }
    if story is not None:
        done = story.completed
        doc |= {
            "state": story.state,
            "answers": [
                {
                    "ty": a.ty,
                    "state": a.state,
                    "at": a.at,
                    "kid": a.kid,
                    "code": a.code,
                    "text": a.text,
                    "power_w": a.power_w,
                    "target_w": a.target_w,
                    "flags": list(a.flags),
                    "ms": dict(a.ms),
                    "escalated": list(a.escalated),
                }
                for a in story.answers
            ],
            "refused": [{"why": r.why, "line": r.line} for r in story.refused],
            "completed": {"at": done.at, "power_w": done.power_w} if done else None,
            "trial": story.trial,
            "report": asdict(story.report) if story.report else None,
        }
    return doc
