"""Evidence into the database: idempotent, byte for byte, forks kept, projections in the same transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.database import insert_new, put, tally
from central.store.schema import forks, intervals, order_answers, order_events, records, streams
from wire.canonical import Json
from wire.keys import VerifyKey
from wire.messages import Heads
from wire.records import RecordLine, parse_line

MAX_FORKS_PER_SITE = 1000
MAX_HOLES = 50
OVERTAKING_MS = 5000
WORDS = frozenset({"order_ack", "spoken_order"})
"""Events of people on site about an order."""
RecordKeys = Mapping[str, Mapping[str, VerifyKey]]
"""Epoch → kid → record key, as the register gives them for one site."""
StreamKey = tuple[str, str, str]
"""(site, epoch, stream)."""
StreamPlace = tuple[str, str, int]
"""(epoch, stream, number)."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One parsed line and what the register says of its signature."""

    site: str
    epoch: str
    line: bytes
    record: RecordLine
    doc: Json
    verified: bool | None

    @property
    def stream(self) -> str:
        """Stream of the record."""
        return str(self.doc["st"])

    @property
    def n(self) -> int:
        """Number in its stream."""
        return int(self.doc["n"])

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Identity."""
        return self.site, self.epoch, self.stream, self.n


def judge(record: RecordLine, epoch: str, keys: RecordKeys) -> bool | None:
    """True or false by the register's keys of that epoch; null where the register has none for it."""
    known = keys.get(epoch)
    if not known:
        return None
    key = known.get(record.kid)
    return key is not None and record.verified_by(key)


@dataclass(slots=True)
class Stored:
    """What a transaction did."""

    new: int = 0
    duplicates: int = 0
    forked_sites: set[str] = field(default_factory=set)
    on_disk: dict[StreamKey, list[int]] = field(default_factory=dict)
    """Numbers that are on disk now, new or not: what a commit may say."""


def store(connection: Connection, incoming: Sequence[Incoming], now_ms: int) -> Stored:
    """Insert lines. A number that is there with other bytes goes to ``forks``; the first verified one stays."""
    result = Stored()
    existing = _existing(connection, {i.key for i in incoming})
    fresh: dict[tuple[str, str, str, int], Incoming] = {}
    for item in incoming:
        here = existing.get(item.key)
        if here is None and (mate := fresh.get(item.key)) is not None:
            here = (mate.line, mate.verified)
        result.on_disk.setdefault(item.key[:3], []).append(item.n)
        if here is None:
            fresh[item.key] = item
        elif here[0] == item.line:
            result.duplicates += 1
        elif here[1] is not True and item.verified is True and item.key in existing:
            # Junk that came first must not keep the true record out.
            _replace(connection, item, here, now_ms)
            existing[item.key] = (item.line, True)
            result.forked_sites.add(item.site)
        elif here[1] is not True and item.verified is True:
            mate = fresh[item.key]
            _fork(connection, mate.key, mate.line, mate.verified, now_ms)
            fresh[item.key] = item
            result.forked_sites.add(item.site)
        else:
            _fork(connection, item.key, item.line, item.verified, now_ms)
            result.forked_sites.add(item.site)
    if fresh:
        connection.execute(sa.insert(records), [_row(i, now_ms) for i in fresh.values()])
        _project(connection, fresh.values(), now_ms)
    result.new = len(fresh)
    touched = {i.key[:3] for i in fresh.values()}
    for key in touched:
        advance(connection, key)
    return result


def _existing(connection: Connection, keys: set[tuple[str, str, str, int]]) -> dict[Any, tuple[bytes, bool | None]]:
    by_stream: dict[StreamKey, list[int]] = {}
    for site, epoch, stream, n in keys:
        by_stream.setdefault((site, epoch, stream), []).append(n)
    found: dict[Any, tuple[bytes, bool | None]] = {}
    for (site, epoch, stream), numbers in by_stream.items():
        for start in range(0, len(numbers), 500):
            rows = connection.execute(
                sa.select(records.c.n, records.c.line, records.c.verified).where(
                    _is_stream(records, (site, epoch, stream)), records.c.n.in_(numbers[start : start + 500])
                )
            )
            for n, line, verified in rows:
                found[(site, epoch, stream, n)] = (bytes(line), verified)
    return found


def _is_stream(table: sa.Table, key: StreamKey) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.site == key[0], table.c.epoch == key[1], table.c.stream == key[2])


def _row(item: Incoming, now_ms: int) -> dict[str, Any]:
    return {
        "site": item.site,
        "epoch": item.epoch,
        "stream": item.stream,
        "n": item.n,
        "ty": item.doc["ty"],
        "at": item.doc["at"],
        "hash": item.record.hash.hex(),
        "prev": _short(item.doc["p"], 64),
        "line": item.line,
        "verified": item.verified,
        "received_at": now_ms,
    }


def _replace(connection: Connection, item: Incoming, old: tuple[bytes, bool | None], now_ms: int) -> None:
    _fork(connection, item.key, old[0], old[1], now_ms)
    key = item.key[:3]
    connection.execute(sa.delete(records).where(_is_stream(records, key), records.c.n == item.n))
    connection.execute(
        sa.delete(intervals).where(
            intervals.c.site == item.site,
            intervals.c.epoch == item.epoch,
            intervals.c.mp == item.stream.removeprefix("mp:"),
            intervals.c.n == item.n,
        )
    )
    connection.execute(
        sa.delete(order_answers).where(
            order_answers.c.site == item.site,
            order_answers.c.epoch == item.epoch,
            order_answers.c.n == item.n,
            sa.literal(item.stream == "cmd"),
        )
    )
    connection.execute(
        sa.delete(order_events).where(
            order_events.c.site == item.site,
            order_events.c.epoch == item.epoch,
            order_events.c.n == item.n,
            sa.literal(item.stream == "site"),
        )
    )
    connection.execute(sa.insert(records), [_row(item, now_ms)])
    _project(connection, [item], now_ms)
    connection.execute(
        sa.update(streams)
        .where(_is_stream(streams, key), streams.c.next_n == item.n + 1)
        .values(last_hash=item.record.hash.hex())
    )


def _fork(
    connection: Connection, key: tuple[str, str, str, int], line: bytes, verified: bool | None, now_ms: int
) -> None:
    site, epoch, stream, n = key
    count = connection.execute(sa.select(sa.func.count()).select_from(forks).where(forks.c.site == site)).scalar_one()
    if count >= MAX_FORKS_PER_SITE:
        tally(connection, site, "forks_over_bound", 1)
        return
    row = {
        "site": site,
        "epoch": epoch,
        "stream": stream,
        "n": n,
        "line_sha256": hashlib.sha256(line).hexdigest(),
        "line": line,
        "verified": verified,
        "received_at": now_ms,
    }
    insert_new(connection, forks, [row])


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _short(value: Any, size: int) -> str | None:
    """Text for a column: bounded, and without NUL, which PostgreSQL refuses."""
    return value.replace("\0", "\ufffd")[:size] if isinstance(value, str) else None


def _project(connection: Connection, items: Iterable[Incoming], now_ms: int) -> None:
    slots: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    for item in items:
        doc, kind = item.doc, item.doc["ty"]
        identity = {"site": item.site, "epoch": item.epoch, "n": item.n, "verified": item.verified}
        t0, t1 = _whole(doc.get("t0")), _whole(doc.get("t1"))
        if kind in {"interval", "gap"} and item.stream.startswith("mp:") and t0 is not None and t1 is not None:
            flags = doc.get("q") if isinstance(doc.get("q"), list) else []
            slots.append(
                identity
                | {
                    "mp": item.stream.removeprefix("mp:"),
                    "t0_s": t0,
                    "t1_s": t1,
                    "kind": kind,
                    "wh": _whole(doc.get("wh")) if kind == "interval" else None,
                    "exp_wh": _whole(doc.get("exp_wh")) if kind == "interval" else None,
                    "why": _short(doc.get("why"), 32) if kind == "gap" else None,
                    "flags": _short(" ".join(str(f) for f in flags or []), 120) or "",
                }
            )
        elif kind in {"cmd_rx", "cmd_ack", "cmd_eff", "cmd_report"} and item.stream == "cmd":
            answers.append(
                identity
                | {
                    "order_id": _short(doc.get("id"), 36),
                    "ty": kind,
                    "at": doc["at"],
                    "received_at": now_ms,
                    "state": _short(doc.get("verdict" if kind == "cmd_report" else "state"), 20),
                    "code": _short(doc.get("code"), 40),
                    "text": _short(doc.get("text"), 500),
                    "power_w": _whole(doc.get("power_w", doc.get("before_w"))),
                    "target_w": _whole(doc.get("target_w")),
                }
            )
        elif kind == "event" and item.stream == "site" and doc.get("ev") in WORDS:
            words.append(
                identity | {"order_id": _short(doc.get("obj"), 36) or "", "ev": str(doc["ev"]), "at": doc["at"]}
            )
    insert_new(connection, intervals, slots)
    insert_new(connection, order_answers, answers)
    insert_new(connection, order_events, words)


def advance(connection: Connection, key: StreamKey) -> None:
    """Move the first missing number of a stream as far as the stored records allow."""
    row = connection.execute(sa.select(streams.c.next_n, streams.c.last_hash).where(_is_stream(streams, key))).first()
    start, last = (row[0], row[1]) if row else (0, None)
    position = start
    while True:
        rows = connection.execute(
            sa.select(records.c.n, records.c.hash)
            .where(_is_stream(records, key), records.c.n >= position)
            .order_by(records.c.n)
            .limit(1000)
        ).all()
        before = position
        for n, digest in rows:
            if n != position:
                break
            position, last = n + 1, digest
        if position - before < 1000:
            break
    if row is None or position != start:
        values = dict(zip(("site", "epoch", "stream"), key, strict=True))
        put(connection, streams, values | {"next_n": position, "last_hash": last})


@dataclass(frozen=True, slots=True)
class Compared:
    """What a ``heads`` message says against what is stored."""

    missing: tuple[tuple[str, int, int], ...]
    """(stream, first, last) to ask for again."""
    other_hash: tuple[str, ...]
    """Streams whose last record here has another hash than the site says: two stories."""
    shrunk: tuple[str, ...]
    """Streams of which more is stored here than the site says it has: it lost its tail or was set back."""


def compare(connection: Connection, heads: Heads) -> Compared:
    """Compare counts, holes and last hashes of every stream of one ``heads``."""
    missing: list[tuple[str, int, int]] = []
    other: list[str] = []
    shrunk: list[str] = []
    for stream, head in heads.streams.items():
        key = (heads.site, heads.epoch, stream)
        row = connection.execute(sa.select(streams.c.next_n).where(_is_stream(streams, key))).first()
        position = row[0] if row else 0
        beyond = connection.execute(
            sa.select(records.c.at).where(_is_stream(records, key), records.c.n == head.count)
        ).scalar()
        # A record written after the heads may have overtaken them; one written before is a contradiction.
        if beyond is not None and beyond < heads.at - OVERTAKING_MS:
            shrunk.append(stream)
        if position < head.count:
            missing += [(stream, *hole) for hole in holes(connection, key, position, head.count)]
        if head.last is not None and head.count > 0:
            digest = connection.execute(
                sa.select(records.c.hash).where(_is_stream(records, key), records.c.n == head.count - 1)
            ).scalar()
            if digest is not None and digest != head.last:
                other.append(stream)
    return Compared(tuple(missing[:MAX_HOLES]), tuple(other), tuple(shrunk))


def holes(connection: Connection, key: StreamKey, first: int, count: int) -> list[tuple[int, int]]:
    """Ranges of [first, count) that are not stored, oldest first, at most ``MAX_HOLES``."""
    after = sa.func.lead(records.c.n).over(order_by=records.c.n).label("after")
    inside = (
        sa.select(records.c.n.label("n"), after)
        .where(_is_stream(records, key), records.c.n >= first, records.c.n < count)
        .subquery()
    )
    found: list[tuple[int, int]] = []
    lowest, highest = connection.execute(sa.select(sa.func.min(inside.c.n), sa.func.max(inside.c.n))).one()
    if lowest is None:
        return [(first, count - 1)]
    if lowest > first:
        found.append((first, lowest - 1))
    rows = connection.execute(
        sa.select(inside.c.n, inside.c.after)
        .where(inside.c.after > inside.c.n + 1)
        .order_by(inside.c.n)
        .limit(MAX_HOLES)
    )
    found += [(n + 1, following - 1) for n, following in rows]
    if highest < count - 1:
        found.append((highest + 1, count - 1))
    return found[:MAX_HOLES]


def reverify(connection: Connection, site: str, keys: RecordKeys, *, limit: int = 500) -> int:
    """Judge records that came before the register knew their key.

    Returns:
        How many were judged; call again until 0.
    """
    if not keys:
        return 0
    rows = connection.execute(
        sa.select(records.c.epoch, records.c.stream, records.c.n, records.c.line)
        .where(records.c.site == site, records.c.verified.is_(None), records.c.epoch.in_(list(keys)))
        .limit(limit)
    ).all()
    for epoch, stream, n, line in rows:
        verdict = judge(parse_line(bytes(line))[0], epoch, keys)
        _set_verdict(connection, (site, epoch, stream), n, verdict=verdict)
    return len(rows)


def rejudge(
    connection: Connection, site: str, keys: RecordKeys, kids: Set[str], after: StreamPlace, *, limit: int = 500
) -> StreamPlace | None:
    """Judge again what was refused because its key was in no register yet: one pass, in pieces.

    Args:
        connection: within a transaction.
        site: whose records.
        keys: the register's record keys.
        kids: keys that came with it.
        after: where the last piece ended, ``("", "", -1)`` at first.
        limit: most records of a piece.

    Returns:
        Where this piece ended, ``None`` after the last one.
    """
    place = sa.tuple_(records.c.epoch, records.c.stream, records.c.n)
    rows = connection.execute(
        sa.select(records.c.epoch, records.c.stream, records.c.n, records.c.line)
        .where(records.c.site == site, records.c.verified.is_(False), place > sa.tuple_(*after))
        .order_by(records.c.epoch, records.c.stream, records.c.n)
        .limit(limit)
    ).all()
    for epoch, stream, n, line in rows:
        record = parse_line(bytes(line))[0]
        if record.kid in kids and judge(record, epoch, keys):
            _set_verdict(connection, (site, epoch, stream), n, verdict=True)
    return (rows[-1].epoch, rows[-1].stream, int(rows[-1].n)) if rows else None


def _set_verdict(connection: Connection, key: StreamKey, n: int, *, verdict: bool | None) -> None:
    site, epoch, stream = key
    here = (records.c.site == site, records.c.epoch == epoch, records.c.stream == stream, records.c.n == n)
    connection.execute(sa.update(records).where(*here).values(verified=verdict))
    for table, match in (
        (intervals, intervals.c.mp == stream.removeprefix("mp:")),
        (order_answers, sa.literal(stream == "cmd")),
        (order_events, sa.literal(stream == "site")),
    ):
        connection.execute(
            sa.update(table)
            .where(table.c.site == site, table.c.epoch == epoch, table.c.n == n, match)
            .values(verified=verdict)
        )
