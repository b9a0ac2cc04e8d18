"""Energy of metering points by hour, day, month and quarter, from records whose signatures hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import intervals, records
from central.vee.model import IMPORT, Bind
from central.vee.reader import binds_of
from central.vee.standing import Plausible, metrological, plausible
from config.rules.passports import Status
from wire.energy import quantum_wh
from wire.errors import BadRecord
from wire.records import parse_line
from wire.registry import RegisteredSite
from wire.rollup import Bridge, Period, SlotEnergy, Sum, Unit, bridge_of, filled, periods, slot_energy, total

MAX_PERIODS = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Import of the slots of a period that are known by themselves, by what it is worth before an inspector, Wh."""

    verified_wh: int
    """Signature holds, papers valid, judged plausible by the thresholds in force and nothing fails."""
    status_wh: dict[Status, int]
    """By metrological status."""
    failed_wh: int
    """Something fails in them."""
    unjudged_wh: int
    """No run has judged them yet."""


@dataclass(frozen=True, slots=True)
class PointEnergy:
    """One metering point over consecutive periods. ``unverified`` records were left out, as if they were missing."""

    point: str
    sums: tuple[Sum, ...]
    unverified: int
    standing: tuple[Standing, ...] = ()
    """By period, where the register was given."""
    method: str = "snapshots"
    """``profile`` where the meter's own load profile is read: the primary series, registers read at the edges check."""


def points_of(connection: Connection, site: str) -> tuple[str, ...]:
    """Metering points that a site has sent slots of."""
    rows = connection.execute(sa.select(intervals.c.mp).where(intervals.c.site == site).distinct())
    return tuple(sorted(str(row.mp) for row in rows))


def energy(
    connection: Connection,
    site: str,
    points: Sequence[str],
    slot_s: int,
    start_s: int,
    end_s: int,
    unit: Unit,
    entry: RegisteredSite | None = None,
) -> list[PointEnergy]:
    """Energy of points over all periods that touch [start_s, end_s), epoch seconds.

    Args:
        entry: what the register says of the site; with it each period also has its :class:`Standing`.

    Raises:
        ValueError: too many periods, or a slot length whose grid no such period lies on.
    """
    spans = list(periods(start_s, end_s, unit))
    if not spans or len(spans) > MAX_PERIODS:
        raise ValueError(f"{len(spans)} periods from {start_s} to {end_s}; expected 1 to {MAX_PERIODS}")
    found: list[PointEnergy] = []
    judged = plausible(connection, site, spans[0].start_s, spans[-1].end_s) if entry is not None else None
    for point in points:
        slots, bridges, unverified, bound = _slots(connection, site, point, slot_s, spans[0].start_s, spans[-1].end_s)
        binds = binds_of(connection, site, point)
        told = _archived(connection, site, point, spans[0].start_s, spans[-1].end_s)
        slots = filled(slots, bridges, told, slot_s, _quantum(binds))
        sums = tuple(total(span, slot_s, slots, bridges) for span in spans)
        method = "profile" if told else "snapshots"
        if entry is None or judged is None:
            found.append(PointEnergy(point, sums, unverified, method=method))
            continue
        standing = tuple(_standing(span, point, slots, bound, binds, entry, judged) for span in spans)
        found.append(PointEnergy(point, sums, unverified, standing, method))
    return found


def _archived(connection: Connection, site: str, point: str, start_s: int, end_s: int) -> dict[int, int]:
    """Import by slot as the meter's own load profile has it; none of a meter whose transformers are turned round."""
    query = (
        sa.select(records.c.line, records.c.ty)
        .where(records.c.site == site, records.c.stream == f"mp:{point}", records.c.verified.is_(True))
        .where((records.c.ty == "bind") | ((records.c.ty == "archive") & (records.c.at >= start_s * 1000)))
        .order_by(records.c.epoch, records.c.n)
    )
    told: dict[int, int] = {}
    inverted = False
    for row in connection.execute(query):
        doc = parse_line(bytes(row.line))[1]
        if row.ty == "bind":
            inverted = doc.get("inverted") is True
            continue
        t0, wh = doc.get("t0"), doc.get("wh")
        if inverted or doc.get("src") != "profile" or not isinstance(t0, int) or not isinstance(wh, int):
            continue
        if start_s <= t0 < end_s and wh >= 0:
            told.setdefault(t0, wh)
    return told


def _quantum(binds: dict[str, Bind]) -> int:
    """The least that the import registers of the binds move by, Wh; of a float what its last place was worth at 0."""
    found = 1
    for bind in binds.values():
        how = bind.pts.get(IMPORT)
        try:
            step = None if how is None else quantum_wh(0, how)
        except BadRecord:
            continue
        found = max(found, math.ceil(step or 1))
    return found


def _standing(
    span: Period,
    point: str,
    slots: dict[int, SlotEnergy],
    bound: dict[int, str],
    binds: dict[str, Bind],
    entry: RegisteredSite,
    judged: Plausible,
) -> Standing:
    registered = next((p for p in entry.points if p.id == point), None)
    verified = failed = unjudged = 0
    status_wh: dict[Status, int] = {}
    for t0, one in slots.items():
        wh = one.import_wh
        if wh is None or t0 not in bound or not span.start_s <= t0 < span.end_s:
            continue
        status = metrological(binds.get(bound[t0]), t0, registered, has_register=bool(entry.points))
        status_wh[status] = status_wh.get(status, 0) + wh
        good = judged.of(point, t0, t0 + entry.slot_s)
        unjudged += wh if good is None else 0
        failed += wh if good is False else 0
        verified += wh if good and status is Status.VALID else 0
    return Standing(verified, status_wh, failed, unjudged)


def _slots(
    connection: Connection, site: str, point: str, slot_s: int, start_s: int, end_s: int
) -> tuple[dict[int, SlotEnergy], list[Bridge], int, dict[int, str]]:
    """Energies by slot, bridges, records left out, and the hash of the bind that each interval names."""
    same = (
        (records.c.site == intervals.c.site)
        & (records.c.epoch == intervals.c.epoch)
        & (records.c.n == intervals.c.n)
        & (records.c.stream == "mp:" + intervals.c.mp)
    )
    query = (
        sa.select(records.c.line, records.c.verified)
        .select_from(intervals.join(records, same))
        .where(intervals.c.site == site, intervals.c.mp == point)
        .where(intervals.c.t0_s >= start_s, intervals.c.t0_s < end_s)
    )
    slots: dict[int, SlotEnergy] = {}
    bridges: list[Bridge] = []
    bound: dict[int, str] = {}
    unverified = 0
    for row in connection.execute(query):
        if row.verified is not True:
            unverified += 1
            continue
        doc = parse_line(bytes(row.line))[1]
        slots[int(doc["t0"])] = slot_energy(doc["ty"], doc)
        if doc["ty"] == "interval":
            bound[int(doc["t0"])] = str(doc["cfg"])
        if doc["ty"] == "interval" and (bridge := bridge_of(doc, slot_s)) is not None:
            bridges.append(bridge)
    return slots, bridges, unverified, bound


def as_dict(found: PointEnergy) -> dict[str, Any]:
    """For machines; an unknown energy is null."""
    return {
        "point": found.point,
        "unverified": found.unverified,
        "method": found.method,
        "periods": [
            {
                "name": one.period.name,
                "from": one.period.start_s,
                "to": one.period.end_s,
                "import_wh": one.import_wh,
                "export_wh": one.export_wh,
                "known_wh": one.known_wh,
                "bridged_wh": one.bridged_wh,
                "profile_wh": one.profile_wh,
                "slots": one.slots,
                "missing": len(one.missing),
                "complete": one.complete,
            }
            | (_standing_dict(found.standing[at]) if found.standing else {})
            for at, one in enumerate(found.sums)
        ],
    }


def _standing_dict(one: Standing) -> dict[str, Any]:
    return {
        "verified_wh": one.verified_wh,
        "status_wh": {status.value: wh for status, wh in sorted(one.status_wh.items())},
        "failed_wh": one.failed_wh,
        "unjudged_wh": one.unjudged_wh,
    }
