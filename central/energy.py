"""Energy of metering points by hour, day, month and quarter, from records whose signatures hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import intervals, records
from wire.records import parse_line
from wire.rollup import Bridge, SlotEnergy, Sum, Unit, bridge_of, periods, slot_energy, total

MAX_PERIODS = 10_000


@dataclass(frozen=True, slots=True)
class PointEnergy:
    """One metering point over consecutive periods. ``unverified`` records were left out, as if they were missing."""

    point: str
    sums: tuple[Sum, ...]
    unverified: int


def points_of(connection: Connection, site: str) -> tuple[str, ...]:
    """Metering points that a site has sent slots of."""
    rows = connection.execute(sa.select(intervals.c.mp).where(intervals.c.site == site).distinct())
    return tuple(sorted(str(row.mp) for row in rows))


def energy(
    connection: Connection, site: str, points: Sequence[str], slot_s: int, start_s: int, end_s: int, unit: Unit
) -> list[PointEnergy]:
    """Energy of points over all periods that touch [start_s, end_s), epoch seconds.

    Raises:
        ValueError: too many periods, or a slot length whose grid no such period lies on.
    """
    spans = list(periods(start_s, end_s, unit))
    if not spans or len(spans) > MAX_PERIODS:
        raise ValueError(f"{len(spans)} periods from {start_s} to {end_s}; expected 1 to {MAX_PERIODS}")
    found: list[PointEnergy] = []
    for point in points:
        slots, bridges, unverified = _slots(connection, site, point, slot_s, spans[0].start_s, spans[-1].end_s)
        sums = tuple(total(span, slot_s, slots, bridges) for span in spans)
        found.append(PointEnergy(point, sums, unverified))
    return found


def _slots(
    connection: Connection, site: str, point: str, slot_s: int, start_s: int, end_s: int
) -> tuple[dict[int, SlotEnergy], list[Bridge], int]:
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
    unverified = 0
    for row in connection.execute(query):
        if row.verified is not True:
            unverified += 1
            continue
        doc = parse_line(bytes(row.line))[1]
        slots[int(doc["t0"])] = slot_energy(doc["ty"], doc)
        if doc["ty"] == "interval" and (bridge := bridge_of(doc, slot_s)) is not None:
            bridges.append(bridge)
    return slots, bridges, unverified


def as_dict(found: PointEnergy) -> dict[str, Any]:
    """For machines; an unknown energy is null."""
    return {
        "point": found.point,
        "unverified": found.unverified,
        "periods": [
            {
                "name": one.period.name,
                "from": one.period.start_s,
                "to": one.period.end_s,
                "import_wh": one.import_wh,
                "export_wh": one.export_wh,
                "known_wh": one.known_wh,
                "bridged_wh": one.bridged_wh,
                "slots": one.slots,
                "missing": len(one.missing),
                "complete": one.complete,
            }
            for one in found.sums
        ],
    }
