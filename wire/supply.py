"""Voltage, reactive power and batteries in the report of an order: figures out of the parts of its trace. Pure.

``docs/protocol.md`` defines each figure; the verifier has an implementation of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wire.record_types import SupplyExtremes, SupplyFigures

Row = tuple[int, int | None, int | None, int | None, int | None]
"""End of a span in ms; least and greatest mV; least and greatest var."""


def supply_figures(parts: Iterable[Mapping[str, Any]], begin: int, end: int) -> list[SupplyFigures]:
    """Extremes at every point and kind of voltage; a span belongs to the time in which it ended.

    Args:
        parts: fields of every ``cmd_trace`` of the order.
        begin: of the duty, ms.
        end: of the duty, ms.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for part in parts:
        for one in part.get("uq", ()):
            rows, at = found.setdefault((one["mp"], one["of"] or ""), []), part["t0"]
            for step, *values in zip(one["dt"], one["lo"], one["hi"], one["qlo"], one["qhi"], strict=True):
                at += step
                lo, hi, qlo, qhi = values
                rows.append((at, lo, hi, qlo, qhi))
    return [
        {
            "mp": point,
            "of": of or None,
            "before": _extremes([r for r in rows if r[0] <= begin]),
            "during": _extremes([r for r in rows if begin < r[0] <= end]),
            "after": _extremes([r for r in rows if r[0] > end]),
        }
        for (point, of), rows in sorted(found.items())
    ]


def _extremes(rows: Sequence[Row]) -> SupplyExtremes:
    return {
        "lo_mv": min((v for _, v, _, _, _ in rows if v is not None), default=None),
        "hi_mv": max((v for _, _, v, _, _ in rows if v is not None), default=None),
        "lo_var": min((v for _, _, _, v, _ in rows if v is not None), default=None),
        "hi_var": max((v for _, _, _, _, v in rows if v is not None), default=None),
    }
