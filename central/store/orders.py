"""Orders, answers and proposals in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import order_answers, orders, proposals, records
from wire.orders import SignedOrder

MAX_ANSWERS = 500


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """One order as posted."""

    id: str
    site: str
    epoch: str
    action: str
    digest: str
    raw: bytes
    posted_at: int
    execute_by: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One ``cmd_*`` record about an order, and the line it stands in."""

    ty: str
    at: int
    received_at: int
    state: str | None
    code: str | None
    text: str | None
    power_w: int | None
    target_w: int | None
    verified: bool | None
    line: bytes


def find(connection: Connection, order_id: str) -> StoredOrder | None:
    """One order."""
    row = connection.execute(sa.select(orders).where(orders.c.id == order_id)).first()
    return None if row is None else _order(row)


def _order(row: Any) -> StoredOrder:
    return StoredOrder(
        row.id, row.site, row.epoch, row.action, row.digest, bytes(row.raw), row.posted_at, row.execute_by
    )


def listed(
    connection: Connection, site: str | None, limit: int, actions: frozenset[str] | None = None
) -> list[StoredOrder]:
    """Newest orders first."""
    query = sa.select(orders).order_by(orders.c.posted_at.desc(), orders.c.id.desc()).limit(limit)
    if site is not None:
        query = query.where(orders.c.site == site)
    if actions is not None:
        query = query.where(orders.c.action.in_(sorted(actions)))
    return [_order(row) for row in connection.execute(query)]


def insert(connection: Connection, signed: SignedOrder, now_ms: int) -> StoredOrder | None:
    """Store an order; an order of that id that is there already is returned instead and nothing is written."""
    there = find(connection, signed.order.id)
    if there is not None:
        return there
    order = signed.order
    row = {
        "id": order.id,
        "site": order.site,
        "epoch": order.epoch,
        "action": order.action,
        "digest": signed.digest,
        "raw": signed.raw,
        "posted_at": now_ms,
        "execute_by": order.execute_by,
    }
    connection.execute(sa.insert(orders), [row])
    return None


def unanswered(connection: Connection, now_ms: int) -> list[StoredOrder]:
    """Orders that still may be executed and of which their own site has said no decision, under a key that holds."""
    decided = sa.exists().where(
        order_answers.c.order_id == orders.c.id,
        order_answers.c.site == orders.c.site,
        order_answers.c.ty.in_(("cmd_ack", "cmd_eff")),
        order_answers.c.verified.is_not(False),
    )
    query = sa.select(orders).where(orders.c.execute_by > now_ms, ~decided).order_by(orders.c.posted_at, orders.c.id)
    return [_order(row) for row in connection.execute(query)]


def answers(connection: Connection, order: StoredOrder) -> list[Answer]:
    """Answers of the order's own site and epoch, in order of their number."""
    joined = sa.and_(
        records.c.site == order_answers.c.site,
        records.c.epoch == order_answers.c.epoch,
        records.c.stream == "cmd",
        records.c.n == order_answers.c.n,
    )
    query = (
        sa.select(order_answers, records.c.line)
        .join(records, joined)
        .where(order_answers.c.order_id == order.id, order_answers.c.site == order.site)
        .order_by(order_answers.c.epoch, order_answers.c.n)
        .limit(MAX_ANSWERS)
    )
    return [
        Answer(
            row.ty,
            row.at,
            row.received_at,
            row.state,
            row.code,
            row.text,
            row.power_w,
            row.target_w,
            row.verified,
            bytes(row.line),
        )
        for row in connection.execute(query)
    ]


def insert_proposal(connection: Connection, proposal_id: str, site: str, body: str, now_ms: int) -> None:
    """Keep a proposal."""
    row = {"id": proposal_id, "site": site, "made_at": now_ms, "body": body}
    connection.execute(sa.insert(proposals), [row])


def listed_proposals(connection: Connection, site: str | None, since: int, limit: int) -> Sequence[Any]:
    """Newest proposals first: rows of (id, site, made_at, body)."""
    query = (
        sa.select(proposals)
        .where(proposals.c.made_at >= since)
        .order_by(proposals.c.made_at.desc(), proposals.c.id.desc())
        .limit(limit)
    )
    if site is not None:
        query = query.where(proposals.c.site == site)
    return connection.execute(query).all()
