"""Typed slots of one site from records whose signatures hold. Everything else stays out, as if it were not there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import Connection

from central.store.schema import intervals, outside_readings, records
from central.vee.limits import Thresholds
from central.vee.model import (
    Archived,
    Balance,
    Bind,
    Held,
    Machines,
    Point,
    Reading,
    SiteSlots,
    Slot,
    Spot,
    Switched,
)
from central.vee.parts import events_of, phases_of, works_of
from config.devices import Passport
from wire.canonical import Json
from wire.names import STREAM
from wire.records import parse_line
from wire.registry import RegisteredSite
from wire.rollup import bridge_of, period_of

DAY_S = 86_400
LONGEST_READING_S = 100 * DAY_S
"""Readings of others over longer times are not compared: the history of a run would be without bound."""
BEFORE_ORDER_S = 7 * DAY_S
HOLDS = "holding"


@dataclass(slots=True)
class _Found:
    slots: list[Slot] = field(default_factory=list)
    binds: dict[str, Bind] = field(default_factory=dict)
    archived: list[Archived] = field(default_factory=list)


def read_site(
    connection: Connection,
    entry: RegisteredSite,
    start: int,
    end: int,
    limits: Thresholds,
    base_w: Mapping[str, int] | None = None,
) -> SiteSlots:
    """What the rules need to judge [``start``, ``end``) of a site, with the history they compare with."""
    readings = tuple(_readings(connection, entry.id, start, end))
    since = min(start - limits.shift.history_days * DAY_S, period_of(start, "month").start_s)
    since = min([since, *(r.t0 for r in readings)]) // entry.slot_s * entry.slot_s
    found: dict[str, _Found] = {}
    for row in connection.execute(_slots_query(entry.id, since, end)):
        made = _slot(parse_line(bytes(row.line))[1], row.hash, entry.slot_s)
        if made is not None:
            found.setdefault(row.mp, _Found()).slots.append(made)
    others = _others(connection, entry.id, since, end)
    for doc, digest in others:
        name = str(doc["st"]).removeprefix("mp:")
        if doc["ty"] == "bind" and (bind := _bind(doc, digest)) is not None:
            found.setdefault(name, _Found()).binds[digest] = bind
        elif doc["ty"] == "archive" and _whole(doc.get("t0")) and _whole(doc.get("wh")):
            found.setdefault(name, _Found()).archived.append(
                Archived(doc["t0"], digest, doc["wh"], _int(doc.get("mto")) or 0)
            )
    registered = {p.id: p for p in entry.points}
    points = {
        name: Point(
            name,
            tuple(sorted(one.slots, key=lambda s: s.t0)),
            one.binds,
            tuple(one.archived),
            registered.get(name),
        )
        for name, one in sorted(found.items())
        if one.slots
    }
    of_type = {ty: [(d, h) for d, h in others if d["ty"] == ty] for ty in ("balance", "event", "start", "spot")}
    commands = [(d, h) for d, h in others if d["ty"] in {"cmd_ack", "cmd_eff"}]
    switched = tuple(_switched(of_type["event"]))
    disturbed = [d["at"] for d, _ in (*of_type["start"], *commands)] + [s.at_ms for s in switched]
    return SiteSlots(
        entry.id,
        entry.slot_s,
        since,
        start,
        end,
        points,
        tuple(sorted(_balances(of_type["balance"], since, end), key=lambda b: b.t0)),
        tuple(_held(commands)),
        switched,
        tuple(sorted(disturbed)),
        readings,
        tuple(_spots(of_type["spot"])),
        entry.contracted_w,
        bool(entry.points),
        works=tuple(works_of(of_type["event"])),
        base_w=base_w or {},
    )


def _slots_query(site: str, since: int, end: int) -> sa.Select[Any]:
    same = (
        (records.c.site == intervals.c.site)
        & (records.c.epoch == intervals.c.epoch)
        & (records.c.n == intervals.c.n)
        & (records.c.stream == "mp:" + intervals.c.mp)
    )
    return (
        sa.select(records.c.line, records.c.hash, intervals.c.mp)
        .select_from(intervals.join(records, same))
        .where(intervals.c.site == site, intervals.c.t0_s >= since, intervals.c.t0_s < end)
        .where(records.c.verified.is_(True))
    )


def _others(connection: Connection, site: str, since: int, end: int) -> list[tuple[Json, str]]:
    """Every other record that a rule looks at: binds of all time, the rest from its time on, in the order written."""
    # What is about a slot is written soon after it; archives may come days later.
    timely = (records.c.at >= (since - BEFORE_ORDER_S) * 1000) & (records.c.at < (end + BEFORE_ORDER_S) * 1000)
    wanted = ("balance", "event", "start", "spot", "archive", "cmd_ack", "cmd_eff")
    query = (
        sa.select(records.c.line, records.c.hash)
        .where(records.c.site == site, records.c.verified.is_(True))
        .where((records.c.ty == "bind") | (records.c.ty.in_(wanted) & timely))
        .order_by(records.c.at, records.c.n)
    )
    return [(parse_line(bytes(row.line))[1], row.hash) for row in connection.execute(query)]


def binds_of(connection: Connection, site: str, point: str) -> dict[str, Bind]:
    """Every bind of a point whose signature holds, by its hash."""
    query = sa.select(records.c.line, records.c.hash).where(
        records.c.site == site,
        records.c.stream == f"mp:{point}",
        records.c.ty == "bind",
        records.c.verified.is_(True),
    )
    found = ((row.hash, _bind(parse_line(bytes(row.line))[1], row.hash)) for row in connection.execute(query))
    return {digest: bind for digest, bind in found if bind is not None}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _slot(doc: Json, digest: str, slot_s: int) -> Slot | None:
    """A slot of a record that a site signed; ``None`` where its fields are not those of one."""
    try:
        if doc["ty"] == "gap":
            return Slot(
                int(doc["t0"]), int(doc["t1"]), digest, "gap", why=_text(doc.get("why")), switch=_text(doc.get("sw"))
            )
        bridge = bridge_of(doc, slot_s)
        power = doc.get("pi")
        return Slot(
            int(doc["t0"]),
            int(doc["t1"]),
            digest,
            "interval",
            _int(doc["wh"]),
            _int(doc["exp_wh"]),
            frozenset(str(f) for f in doc["q"]),
            cfg=_text(doc["cfg"]),
            sn=_text(doc["sn"]),
            mto=_int(doc["mto"]),
            pi_wh=_int(power.get("wh")) if isinstance(power, dict) else None,
            reg={str(p): (int(pair[0]), int(pair[1])) for p, pair in doc["reg"].items()},
            bridge_wh=bridge.wh if bridge else None,
            bridge_t0=bridge.start_s if bridge else None,
            phases=phases_of(doc.get("ph")),
            events=events_of(doc.get("ev")),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _ratio(value: object) -> Fraction | None:
    if not isinstance(value, dict) or not _whole(value.get("num")) or not _whole(value.get("den")):
        return None
    return Fraction(value["num"], value["den"]) if value["den"] > 0 else None


def _bind(doc: Json, digest: str) -> Bind | None:
    try:
        passport = Passport.model_validate(doc["passport"]) if isinstance(doc.get("passport"), dict) else None
    except ValidationError:
        passport = None
    ct, vt = _ratio(doc.get("ct")), _ratio(doc.get("vt"))
    pts = doc.get("pts")
    return Bind(
        digest,
        int(doc["n"]),
        _text(doc.get("sn")),
        str(doc.get("role", "")),
        str(doc.get("node", "")),
        doc.get("boundary") is True,
        doc.get("inverted") is True,
        ct if ct is not None else Fraction(1),
        vt if vt is not None else Fraction(1),
        _ratio(doc.get("ct_read")),
        _ratio(doc.get("vt_read")),
        pts if isinstance(pts, dict) else {},
        passport,
        _text(doc.get("device")) or "",
    )


def _balances(docs: Iterable[tuple[Json, str]], since: int, end: int) -> Iterator[Balance]:
    for doc, digest in docs:
        t0, t1, main = doc.get("t0"), doc.get("t1"), doc.get("main")
        if not isinstance(t0, int) or not isinstance(t1, int) or not since <= t0 < end:
            continue
        yield Balance(
            t0,
            t1,
            digest,
            _points(main),
            _int(doc.get("main_wh")),
            _int(doc.get("feeders_wh")),
            _int(doc.get("loss_wh")),
            _int(doc.get("residual_wh")),
            _int(doc.get("tol_wh")),
            missing=_points(doc.get("missing")),
            asic=dict(_machines(doc.get("asic"))),
        )


def _points(names: object) -> tuple[str, ...]:
    """Those of a list that can be metering points."""
    found = names if isinstance(names, list) else []
    return tuple(n for n in found if isinstance(n, str) and STREAM.fullmatch(f"mp:{n}"))


def _machines(groups: object) -> Iterator[tuple[str, Machines]]:
    """A list of ``{mp, seen, expected, wh}``."""
    for one in groups if isinstance(groups, list) else []:
        if isinstance(one, dict) and _whole(one.get("seen")) and _whole(one.get("expected")):
            for point in _points([one.get("mp")]):
                yield point, Machines(one["seen"], one["expected"], _int(one.get("wh")))


def _held(docs: Iterable[tuple[Json, str]]) -> Iterator[Held]:
    """Times in which live orders were held. Drills, and agents that only observe, hold nothing."""
    begun: dict[str, tuple[int, str]] = {}
    moved: dict[str, bool] = {}
    for doc, digest in docs:
        order, at = str(doc.get("id")), int(doc["at"]) // 1000
        if doc["ty"] == "cmd_ack":
            if doc.get("order_mode") == "drill" or doc.get("agent_mode") in {"monitor", "shadow"}:
                moved[order] = False
            continue
        if doc.get("state") == HOLDS and moved.get(order, True):
            begun.setdefault(order, (at, digest))
        elif order in begun and doc.get("state") != HOLDS:
            since, hash_ = begun.pop(order)
            yield Held(order, since, at, hash_)
    for order, (since, hash_) in begun.items():
        yield Held(order, since, None, hash_)


def _switched(docs: Iterable[tuple[Json, str]]) -> Iterator[Switched]:
    for doc, digest in docs:
        if doc.get("ev") == "switch_position":
            yield Switched(int(doc["at"]), str(doc.get("obj")), _text(doc.get("now")), digest)


def _spots(docs: Iterable[tuple[Json, str]]) -> Iterator[Spot]:
    for doc, digest in docs:
        rt, point, diff = _int(doc.get("rt")), _text(doc.get("point")), _int(doc.get("diff_wh"))
        if rt is not None and point is not None and diff is not None:
            yield Spot(point, rt, diff, _int(doc.get("display_lsb_wh")) or 0, digest)


def _readings(connection: Connection, site: str, start: int, end: int) -> Iterator[Reading]:
    table = outside_readings
    query = sa.select(table).where(table.c.site == site, table.c.to_s > start, table.c.to_s <= end)
    for row in connection.execute(query.order_by(table.c.id)):
        if row.to_s - row.from_s > LONGEST_READING_S:
            continue
        digest = hashlib.sha256(
            f"{row.id} {row.site} {row.point} {row.from_s} {row.to_s} {row.wh} {row.source} {row.act}".encode()
        ).hexdigest()
        yield Reading(row.point, row.from_s, row.to_s, row.wh, row.source, row.act, digest)
