"""The newest slot of the whole site: points, virtual points and shares, as far as they are known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.metering.slots import SlotRecord
from config.devices import MeteringPoint, VirtualPoint
from wire.rollup import MISSING, Share, SlotEnergy, share_energy, slot_energy, virtual


def newest_slot(
    newest: Mapping[str, SlotRecord],
    points: Iterable[MeteringPoint],
    virtual_points: Iterable[VirtualPoint],
    shares: Iterable[Share],
) -> dict[str, Any] | None:
    """Energy of the newest slot that any point has closed; ``None`` before the first.

    Args:
        newest: metering point → its newest slot, as recorded.

    Returns:
        ``{t0, t1, points, virtual, shares}``; each entry ``{import_wh, export_wh, quality, missing}``.
    """
    if not newest:
        return None
    t0 = max(int(record.fields["t0"]) for record in newest.values())
    members: dict[str, SlotEnergy] = {}
    for point in points:
        record = newest.get(point.id)
        if record is not None and record.fields["t0"] == t0:
            members[point.id] = slot_energy(record.ty, record.fields, inverted=point.inverted)
        else:
            members[point.id] = MISSING
    sums = dict(members)
    for one in virtual_points:
        sums[one.id] = virtual(one.terms(), sums)
    t1 = next(int(r.fields["t1"]) for r in newest.values() if r.fields["t0"] == t0)
    return {
        "t0": t0,
        "t1": t1,
        "points": {name: _doc(energy) for name, energy in members.items()},
        "virtual": {name: _doc(energy) for name, energy in sums.items() if name not in members},
        "shares": {share.name: _doc(share_energy(share, members)) for share in shares},
    }


def _doc(energy: SlotEnergy) -> dict[str, Any]:
    return {
        "import_wh": energy.import_wh,
        "export_wh": energy.export_wh,
        "quality": energy.quality.value,
        "missing": list(energy.missing),
    }
