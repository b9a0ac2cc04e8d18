"""Availability of one month, from records whose signatures hold: what they show, and no more.

What no record shows is unknown: neither available nor not. Times are ms unless the name ends in ``_s``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import intervals, records
from central.timeline import Span, SwitchLine, clipped, read_lines, rows_of
from wire import canonical
from wire.canonical import Json
from wire.dsse import ACT_TYPE, open_envelope
from wire.errors import BadKey, NotCanonical
from wire.keys import unb64
from wire.records import parse_line

DAY_MS = 86_400_000
BEFORE_MS = 2 * DAY_MS
"""How far before the month the round may lie that its beginning stands on."""
LATE_MS = 60_000
NO_FAILURE = frozenset({"DE_ENERGISED"})
"""Gaps that are no failure of metering: the branch was off, proven."""


@dataclass(frozen=True, slots=True)
class Meter:
    """One metering point. ``missing``: slots of which no record is here."""

    point: str
    intervals: int
    gaps: Mapping[str, int]
    missing: int

    @property
    def permille(self) -> int | None:
        """Intervals to all slots that are known and were no proven outage, per mille; ``None`` where none is known."""
        whole = self.intervals + sum(n for why, n in self.gaps.items() if why not in NO_FAILURE)
        return self.intervals * 1000 // whole if whole else None


@dataclass(frozen=True, slots=True)
class SwitchMonth:
    """One switch: known time by state, s."""

    switch: str
    available_s: int
    unavailable_s: Mapping[str, int]
    unknown_s: int
    operations: int

    @property
    def permille(self) -> int | None:
        """Available to known time, per mille; ``None`` where nothing is known."""
        whole = self.available_s + sum(self.unavailable_s.values())
        return self.available_s * 1000 // whole if whole else None


@dataclass(frozen=True, slots=True)
class Saon:
    """One САОН stage of one feeder: operations, and at how many rounds its input could be read."""

    feeder: str
    stage: int
    operations: int
    rounds: int
    readable: int


@dataclass(frozen=True, slots=True)
class Proof:
    """When an output was last proven, and when it is due again."""

    output: str
    last: int | None
    due: int | None
    overdue: bool


@dataclass(frozen=True, slots=True)
class Report:
    """One month of one site."""

    site: str
    first_s: int
    last_s: int
    """End of the month, or now where it is not over."""
    agent_up_s: int
    agent_starts: int
    meters: tuple[Meter, ...]
    switches: tuple[SwitchMonth, ...]
    saon: tuple[Saon, ...]
    link: Mapping[str, int | None]
    """``delivered``: slot records; ``late``: those that came over a minute after they were written; ``longest_s``."""
    proof: tuple[Proof, ...]
    orders: Mapping[str, int]
    """Live orders by how they ended up; drills are counted apart and are in no share."""
    unverified: int
    """Records that were left out because no signature of a registered key holds."""

    @property
    def known(self) -> bool:
        """True where nothing is unknown and no proof test is overdue."""
        whole = all(m.missing == 0 for m in self.meters) and all(s.unknown_s == 0 for s in self.switches)
        return whole and self.unverified == 0 and not any(p.overdue for p in self.proof)


@dataclass(slots=True)
class _Seen:
    docs: list[Json] = field(default_factory=list)
    unverified: int = 0


def report(connection: Connection, site: str, slot_s: int, first_s: int, last_s: int, now_s: int) -> Report:
    """Availability of [first_s, last_s), as far as it has passed."""
    end_s = max(first_s, min(last_s, now_s))
    since, until = first_s * 1000 - BEFORE_MS, end_s * 1000
    seen = _records(connection, site, "site", since, until + 1)  # what happened at the very end bounds what was before
    up = _up(connection, site, seen.docs, until + 1)
    lines = read_lines(seen.docs)
    month = Span(first_s * 1000, until)
    meters, unverified = _meters(connection, site, slot_s, first_s, end_s // slot_s * slot_s)
    commands = _records(connection, site, "cmd", first_s * 1000, until)
    return Report(
        site=site,
        first_s=first_s,
        last_s=end_s,
        agent_up_s=sum(s.length for s in clipped(up, month)) // 1000,
        agent_starts=sum(1 for d in seen.docs if d["ty"] == "start" and d["at"] >= first_s * 1000),
        meters=meters,
        switches=tuple(_switch(line, up, month) for _, line in sorted(lines.items())),
        saon=_saon([d for d in seen.docs if d["at"] >= first_s * 1000]),
        link=_link(connection, site, first_s, end_s),
        proof=_proof(connection, site, seen.docs, until),
        orders=_orders(commands.docs),
        unverified=seen.unverified + commands.unverified + unverified,
    )


def _records(connection: Connection, site: str, stream: str, since: int, until: int) -> _Seen:
    query = (
        sa.select(records.c.line, records.c.verified)
        .where(records.c.site == site, records.c.stream == stream, records.c.at >= since, records.c.at < until)
        .order_by(records.c.at, records.c.epoch, records.c.n)
    )
    found = _Seen()
    for row in connection.execute(query):
        if row.verified is True:
            found.docs.append(parse_line(bytes(row.line))[1])
        else:
            found.unverified += 1
    return found


def _up(connection: Connection, site: str, docs: Sequence[Json], until: int) -> list[Span]:
    """When the agent ran: from each start to its stop, or to the last record before the next start."""
    starts = [d["at"] for d in docs if d["ty"] == "start"]
    stops = [d["at"] for d in docs if d["ty"] == "stop"]
    spans = []
    bounds = [*starts, until]
    if not starts or (docs and docs[0]["at"] < starts[0]):
        bounds.insert(0, docs[0]["at"] if docs else until)
    for begin, following in itertools.pairwise(bounds):
        stopped = next((s for s in stops if begin <= s < following), None)
        last = stopped if stopped is not None else _last_record(connection, site, begin, following)
        if last is not None and last > begin:
            spans.append(Span(begin, last))
    return spans


def _last_record(connection: Connection, site: str, begin: int, following: int) -> int | None:
    query = sa.select(sa.func.max(records.c.at)).where(
        records.c.site == site, records.c.verified.is_(True), records.c.at >= begin, records.c.at < following
    )
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def _switch(line: SwitchLine, up: Sequence[Span], month: Span) -> SwitchMonth:
    available, unknown = 0, month.length
    lost: Counter[str] = Counter()
    for span in clipped(up, month):
        for part, state in line.states(span):
            if state == "unknown":
                continue
            unknown -= part.length
            if state == "available":
                available += part.length
            else:
                lost[state] += part.length
    operations = sum(1 for at in line.moves if month.begin <= at < month.end)
    return SwitchMonth(
        line.switch, available // 1000, {k: v // 1000 for k, v in sorted(lost.items())}, unknown // 1000, operations
    )


def _meters(connection: Connection, site: str, slot_s: int, first_s: int, end_s: int) -> tuple[tuple[Meter, ...], int]:
    query = sa.select(intervals.c.mp, intervals.c.t0_s, intervals.c.kind, intervals.c.why, intervals.c.verified).where(
        intervals.c.site == site, intervals.c.t0_s >= first_s, intervals.c.t0_s < end_s
    )
    slots: dict[str, dict[int, str | None]] = {}
    unverified = 0
    for mp, t0, kind, why, verified in connection.execute(query):
        if verified is not True:
            unverified += 1
            continue
        there = slots.setdefault(mp, {})
        if kind == "interval":
            there[t0] = None
        else:
            there.setdefault(t0, str(why))
    found = []
    whole = (end_s - first_s) // slot_s
    for mp, there in sorted(slots.items()):
        gaps = Counter(why for why in there.values() if why is not None)
        found.append(Meter(mp, len(there) - sum(gaps.values()), dict(sorted(gaps.items())), max(0, whole - len(there))))
    return tuple(found), unverified


def _link(connection: Connection, site: str, first_s: int, end_s: int) -> dict[str, int | None]:
    """How soon records of slots reached central. A record that is not here says nothing of the link."""
    late = records.c.received_at - records.c.at
    query = sa.select(sa.func.count(), sa.func.sum(sa.case((late > LATE_MS, 1), else_=0)), sa.func.max(late)).where(
        records.c.site == site,
        records.c.verified.is_(True),
        records.c.ty.in_(("interval", "gap")),
        records.c.at >= first_s * 1000,
        records.c.at < end_s * 1000,
    )
    count, over, longest = connection.execute(query).one()
    return {
        "delivered": int(count),
        "late": int(over or 0),
        "longest_s": None if longest is None else max(0, int(longest)) // 1000,
    }


def _events(docs: Iterable[Json], ev: str) -> Iterable[tuple[Json, dict[str, Any]]]:
    for doc in docs:
        if doc["ty"] == "event" and doc.get("ev") == ev:
            detail = doc.get("detail")
            yield doc, detail if isinstance(detail, dict) else {}


def _saon(docs: Sequence[Json]) -> tuple[Saon, ...]:
    rounds: Counter[tuple[str, int]] = Counter()
    readable: Counter[tuple[str, int]] = Counter()
    operated: Counter[tuple[str, int]] = Counter()
    for _, detail in _events(docs, "round"):
        for feeder, stage, value in rows_of(detail, "saon", 3):
            if isinstance(stage, int):
                rounds[str(feeder), stage] += 1
                readable[str(feeder), stage] += value is not None
    for doc, detail in _events(docs, "saon"):
        stage = detail.get("stage")
        if doc.get("now") == "operated" and isinstance(stage, int):
            operated[str(doc.get("obj")), stage] += 1
    keys = sorted({*rounds, *operated})
    return tuple(Saon(*key, operated[key], rounds[key], readable[key]) for key in keys)


def _proof(connection: Connection, site: str, docs: Sequence[Json], until: int) -> tuple[Proof, ...]:
    """Newest round's word on every output; a later act proves it anew, and then only the next round knows the due."""
    found: dict[str, Proof] = {}
    rounds = [(doc, detail) for doc, detail in _events(docs, "round") if "proof" in detail]
    told_at = 0
    if rounds:
        doc, detail = rounds[-1]
        told_at = doc["at"]
        for output, last, due in rows_of(detail, "proof", 3):
            when, then = _whole(last), _whole(due)
            found[str(output)] = Proof(str(output), when, then, then is None or then < until)
    query = sa.select(records.c.line).where(
        records.c.site == site,
        records.c.stream == "site",
        records.c.ty == "act",
        records.c.verified.is_(True),
        records.c.at >= told_at,
        records.c.at < until,
    )
    for row in connection.execute(query.order_by(records.c.at)):
        for output, at in _proven(parse_line(bytes(row.line))[1]):
            found[output] = Proof(output, at, None, False)
    return tuple(found[name] for name in sorted(found))


def _proven(doc: Json) -> list[tuple[str, int]]:
    try:
        envelope = open_envelope(unb64(str(doc.get("doc")), max_bytes=262_144), expected_type=ACT_TYPE)
        act = canonical.decode(envelope.payload, max_bytes=262_144)
    except (NotCanonical, BadKey):
        return []
    if act.get("ty") != "commissioning" or not isinstance(act.get("outputs"), list):
        return []
    at = _whole(act.get("at"))
    tests = [t for t in act["outputs"] if isinstance(t, dict) and "output" in t]
    return [] if at is None else [(str(t["output"]), at) for t in tests]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _orders(docs: Sequence[Json]) -> dict[str, int]:
    accepted: dict[str, Json] = {}
    reached: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for doc in docs:
        order = str(doc.get("id"))
        if doc["ty"] == "cmd_ack" and doc.get("state") == "rejected":
            counts["rejected"] += 1
        elif doc["ty"] == "cmd_ack":
            accepted.setdefault(order, doc)
        elif doc["ty"] == "cmd_eff" and doc.get("state") in {"holding", "failed"}:
            reached[order] = str(doc["state"])
    for order, doc in accepted.items():
        if doc.get("order_mode") == "drill":
            counts["drills"] += 1
        elif doc.get("agent_mode") != "armed":
            counts["not_armed"] += 1
        else:
            counts["accepted"] += 1
            counts[{"holding": "held", "failed": "failed"}.get(reached.get(order, ""), "other")] += 1
    names = ("accepted", "held", "failed", "other", "not_armed", "rejected", "drills")
    return {name: counts[name] for name in names}


def as_dict(found: Report) -> dict[str, Any]:
    """Plain data for JSON."""
    return {
        "site": found.site,
        "from": found.first_s,
        "to": found.last_s,
        "agent": {"up_s": found.agent_up_s, "down_or_unknown_s": found.last_s - found.first_s - found.agent_up_s}
        | {"starts": found.agent_starts},
        "meters": [
            {"point": m.point, "intervals": m.intervals, "gaps": dict(m.gaps), "missing": m.missing}
            | {"permille": m.permille}
            for m in found.meters
        ],
        "switches": [
            {"switch": s.switch, "available_s": s.available_s, "unavailable_s": dict(s.unavailable_s)}
            | {"unknown_s": s.unknown_s, "operations": s.operations, "permille": s.permille}
            for s in found.switches
        ],
        "saon": [
            {"feeder": s.feeder, "stage": s.stage, "operations": s.operations, "rounds": s.rounds}
            | {"readable": s.readable}
            for s in found.saon
        ],
        "link": dict(found.link),
        "proof_tests": [{"output": p.output, "last": p.last, "due": p.due, "overdue": p.overdue} for p in found.proof],
        "orders": dict(found.orders),
        "unverified": found.unverified,
    }
