"""Words about orders in the database: dispatchers' signed notes, and what people on site signed into the ledger."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.database import insert_new
from central.store.orders import StoredOrder
from central.store.schema import order_events, records, spoken_notes
from wire.dsse import Envelope
from wire.spoken import SpokenNote

MAX_NOTES = 20
"""Of one order. More than that is no account of a telephone call."""
MAX_EVENTS = 100


@dataclass(frozen=True, slots=True)
class StoredNote:
    """One note as it was posted."""

    envelope: bytes
    at: int
    received_at: int


@dataclass(frozen=True, slots=True)
class SiteWord:
    """One ``order_ack`` or ``spoken_order`` record."""

    ev: str
    at: int
    verified: bool | None
    line: bytes


def insert_note(connection: Connection, note: SpokenNote, envelope: Envelope, raw: bytes, now_ms: int) -> bool:
    """Keep a note; false where it is here already.

    Raises:
        ValueError: the order has as many notes as it may.
    """
    digest = hashlib.sha256(envelope.payload).hexdigest()
    there = connection.execute(sa.select(spoken_notes.c.digest).where(spoken_notes.c.digest == digest)).first()
    if there is not None:
        return False
    of_order = sa.select(sa.func.count()).select_from(spoken_notes).where(spoken_notes.c.order_id == note.order)
    if connection.execute(of_order).scalar_one() >= MAX_NOTES:
        raise ValueError(f"order {note.order} has {MAX_NOTES} notes")
    row = {"digest": digest, "order_id": note.order, "at": note.at, "envelope": raw, "received_at": now_ms}
    insert_new(connection, spoken_notes, [row])
    return True


def notes_of(connection: Connection, order_id: str) -> tuple[StoredNote, ...]:
    """Notes of an order in the order in which it was spoken."""
    query = sa.select(spoken_notes).where(spoken_notes.c.order_id == order_id)
    rows = connection.execute(query.order_by(spoken_notes.c.at, spoken_notes.c.digest))
    return tuple(StoredNote(bytes(row.envelope), row.at, row.received_at) for row in rows)


def site_words(connection: Connection, order: StoredOrder) -> tuple[SiteWord, ...]:
    """What people of the order's own site said of it, in order of its number."""
    joined = sa.and_(
        records.c.site == order_events.c.site,
        records.c.epoch == order_events.c.epoch,
        records.c.stream == "site",
        records.c.n == order_events.c.n,
    )
    query = (
        sa.select(order_events, records.c.line)
        .join(records, joined)
        .where(order_events.c.order_id == order.id, order_events.c.site == order.site)
        .order_by(order_events.c.epoch, order_events.c.n)
        .limit(MAX_EVENTS)
    )
    return tuple(SiteWord(row.ev, row.at, row.verified, bytes(row.line)) for row in connection.execute(query))
