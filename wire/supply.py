"""Voltage, reactive power and batteries in the report of an order: figures out of the parts of its trace. Pure.

``docs/protocol.md`` defines each figure; the verifier has an implementation of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wire.record_types import StorageFigures, StorageShare, SupplyExtremes, SupplyFigures
from wire.windows import Window

Row = tuple[int, int | None, int | None, int | None, int | None]
"""End of a span in ms; least and greatest mV; least and greatest var."""
Mean = Callable[[int, int], int | None]
"""Mean power, W, over [begin, end) ms; ``None`` where it is not known."""
BEFORE_MS = 60_000
"""What a battery did before the duty is its mean over so long."""


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


def battery_parts(parts: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Battery's point → parts of a trace of its own."""
    found: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        for one in part.get("bat", ()):
            own = {"t0": part["t0"], "dt": one["dt"], "w": one["w"], "pos": [], "states": [], "why": []}
            found.setdefault(one["mp"], []).append(own)
    return found


def storage_share(
    means: Mapping[str, Mean], windows: Iterable[Window], before_w: int | None, begin: int, step_s: int
) -> StorageShare:
    """How much of the reduction was batteries', over the windows whose power is known.

    Args:
        means: power of each battery, charging positive, by its point.
        windows: of the duty.
        before_w: power at the order's point before it.
        begin: of the duty, ms.
        step_s: length of a window.
    """
    known = [one for one in windows if one.watt is not None]
    reduced = None
    if before_w is not None:
        reduced = sum(max(0, before_w - (one.watt or 0)) for one in known) * step_s // 3600
    points: list[StorageFigures] = []
    for point, mean in sorted(means.items()):
        was = mean(begin - BEFORE_MS, begin)
        told = [mean(one.at_ms, one.at_ms + step_s * 1000) for one in known]
        seen = [watt for watt in told if watt is not None]
        points.append(
            {
                "mp": point,
                "before_w": was,
                "discharge_wh": sum(max(0, -watt) for watt in seen) * step_s // 3600,
                "more_discharge_wh": None if was is None else sum(_more(was, w) for w in seen) * step_s // 3600,
                "less_charge_wh": None if was is None else sum(_less(was, w) for w in seen) * step_s // 3600,
                "missing": len(told) - len(seen),
            }
        )
    return {"reduced_wh": reduced, "points": points}


def _more(was: int, now: int) -> int:
    """What a battery gives beyond what it gave before, W."""
    return max(0, max(0, -now) - max(0, -was))


def _less(was: int, now: int) -> int:
    """What it charges less than before, W."""
    return max(0, max(0, was) - max(0, now))
