"""What is known of how an order was obeyed: the site's signed report, and the records that it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.papers import supply
from central.store.orders import StoredOrder
from central.store.schema import order_answers, records
from wire.canonical import Json
from wire.obedience import Slot, energies, same_day, slots_of
from wire.orders import Order, parse_order
from wire.records import COMMON, RecordLine, parse_line

HOUR_S = 3600
LATEST_MS = 9_999_999_999_999
WHOLE = ("contracted_w", "grace_s", "begin", "end", "parts", "slots_n")
MAYBE = (
    *("before_w", "target_w", "delivered_permille", "shortfall_wh", "t50_ms", "t90_ms", "t100_ms"),
    *("hold_permille", "overshoot_w", "rebound_w", "missing_permille"),
)
TEXTS = ("basis", "method", "point", "verdict")
TYPES = ("cmd_rx", "cmd_ack", "cmd_eff", "cmd_trace", "cmd_report")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A record as it can be found again: in ``records/<epoch>/cmd.tzr`` of a bundle, line ``n`` + 1."""

    ty: str
    n: int
    at: int
    kid: str
    leaf: str
    verified: bool | None


@dataclass(slots=True)
class OrderReport:
    """One order's signed report and what stands beside it."""

    stored: StoredOrder
    order: Order
    kids: tuple[str, ...]
    """Keys that signed the order."""
    fields: Json
    """The report's own fields, as signed."""
    line: bytes
    evidence: list[Evidence] = field(default_factory=list)
    samples: list[tuple[int, int | None]] = field(default_factory=list)
    """Of the trace: ms, W; null where power was not known."""
    same_day: Json | str = ""
    """Same day 3+2 by the slots that are here now, or why there is none; the signed report came before those hours."""

    @property
    def record(self) -> Evidence:
        """The report's own record."""
        return next(e for e in self.evidence if e.ty == "cmd_report")

    @property
    def received(self) -> int | None:
        """When the order reached the site, ms."""
        return next((e.at for e in self.evidence if e.ty == "cmd_rx"), None)


def read_report(connection: Connection, stored: StoredOrder) -> OrderReport | None:
    """The report of an order, with its trace; ``None`` while there is none whose signature may hold."""
    told = (
        sa.select(order_answers.c.n, order_answers.c.ty)
        .where(order_answers.c.order_id == stored.id, order_answers.c.site == stored.site)
        .where(order_answers.c.epoch == stored.epoch, order_answers.c.verified.is_not(False))
        .order_by(order_answers.c.n)
    )
    numbers = connection.execute(told).all()
    last = next((n for n, ty in reversed(numbers) if ty == "cmd_report"), None)
    if last is None:
        return None
    query = (
        sa.select(records.c.line, records.c.verified)
        .where(records.c.site == stored.site, records.c.epoch == stored.epoch, records.c.stream == "cmd")
        .where(records.c.n >= numbers[0].n, records.c.n <= last, records.c.ty.in_(TYPES))
        .where(records.c.verified.is_not(False))
        .order_by(records.c.n)
    )
    signed = parse_order(stored.raw)
    found = OrderReport(stored, signed.order, tuple(kid for kid, _ in signed.envelope.signatures), {}, b"")
    for row in connection.execute(query):
        line, doc = parse_line(bytes(row.line))
        if doc.get("id") == stored.id and _sound(doc):
            _take(found, bytes(row.line), line, doc, row.verified)
    if not found.fields:
        return None
    found.same_day = _same_day(connection, found)
    return found


def _sound(doc: Json) -> bool:
    """False for what no agent of this contract writes: a signature does not make a field a number."""
    if doc["ty"] == "cmd_trace":
        steps, watts = doc.get("dt"), doc.get("w")
        whole = isinstance(steps, list) and isinstance(watts, list) and len(steps) == len(watts)
        return whole and _moment(doc.get("t0")) and all(map(_int, steps or ())) and all(map(_maybe, watts or ()))
    if doc["ty"] != "cmd_report":
        return True
    baseline, minutes, excuses = doc.get("baseline"), doc.get("mw"), doc.get("excuses")
    if not (isinstance(baseline, dict) and isinstance(minutes, dict) and isinstance(excuses, list)):
        return False
    figures = [baseline.get(name, 0) for name in ("before_after", "same_day_3_2", "high_4_of_5")]
    return (
        all(_int(doc.get(name)) for name in WHOLE)
        and all(name in doc and _maybe(doc[name]) for name in MAYBE)
        and all(name in minutes and _maybe(minutes[name]) for name in ("m1_w", "m5_w", "m15_w"))
        and all(isinstance(doc.get(name), str) for name in TEXTS)
        and all(isinstance(code, str) for code in excuses)
        and all(f is None or (isinstance(f, dict) and _int(f.get("b_w")) and _int(f.get("n"))) for f in figures)
        and isinstance(baseline.get("lacking"), dict)
        and _moment(doc["begin"])
        and _moment(doc["end"])
        and supply.sound(doc)
    )


def _int(value: object) -> bool:
    return type(value) is int


def _maybe(value: object) -> bool:
    return value is None or type(value) is int


def _moment(value: object) -> bool:
    return isinstance(value, int) and type(value) is int and 0 <= value <= LATEST_MS


def _take(found: OrderReport, raw: bytes, line: RecordLine, doc: Json, verified: bool | None) -> None:
    if found.fields:  # nothing of an order counts after its report
        return
    found.evidence.append(Evidence(doc["ty"], doc["n"], doc["at"], line.kid, line.hash.hex(), verified))
    if doc["ty"] == "cmd_report":
        found.fields = {name: value for name, value in doc.items() if name not in COMMON}
        found.line = raw
    elif doc["ty"] == "cmd_trace":
        at = doc["t0"]
        for step, watt in zip(doc["dt"], doc["w"], strict=False):
            at += step
            if (not found.samples or at > found.samples[-1][0]) and at <= LATEST_MS:
                found.samples.append((at, watt))


def _same_day(connection: Connection, found: OrderReport) -> Json | str:
    begin, end = found.fields["begin"], found.fields["end"]
    query = (
        sa.select(records.c.line)
        .where(records.c.site == found.stored.site, records.c.epoch == found.stored.epoch)
        .where(records.c.stream == f"mp:{found.fields['point']}", records.c.verified.is_(True))
        .where(sa.or_(records.c.ty == "bind", records.c.at.between(begin - 6 * HOUR_S * 1000, end + 5 * HOUR_S * 1000)))
        .where(records.c.ty.in_(("bind", "interval", "gap")))
        .order_by(records.c.n)
    )
    rows = [parse_line(bytes(row.line))[1] for row in connection.execute(query)]
    slots: list[Slot] = slots_of((doc["ty"], doc) for doc in rows)
    told = same_day(energies(slots, HOUR_S), begin, end)
    return told if isinstance(told, str) else dict(told)


def as_dict(found: OrderReport) -> dict[str, Any]:
    """For machines: the signed fields, where the record is, and what is only computed here."""
    own = found.record
    return {
        "order": found.stored.id,
        "site": found.stored.site,
        "epoch": found.stored.epoch,
        "report": found.fields,
        "record": {"stream": "cmd", "n": own.n, "kid": own.kid, "leaf": own.leaf, "verified": own.verified},
        "line": found.line.decode(),
        "unsigned": {"same_day_3_2": found.same_day},
        "evidence": [
            {"ty": e.ty, "n": e.n, "at": e.at, "kid": e.kid, "leaf": e.leaf, "verified": e.verified}
            for e in found.evidence
        ],
    }


def nothing(stored: StoredOrder) -> dict[str, Any]:
    """The same for an order that has no report (yet)."""
    return {"order": stored.id, "site": stored.site, "epoch": stored.epoch, "report": None}
