"""Voltage and reactive power in the trace of an order and in its report: this program's own reading of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verifier.canonical import Object

KINDS = frozenset({None, "line", "phase"})
FIGURES = ("lo_mv", "hi_mv", "lo_var", "hi_var")
MAX_POINTS = 4096
Mean = Callable[[int, int], int | None]


@dataclass(slots=True)
class Supply:
    """Spans of all parts, by point and kind of voltage."""

    spans: dict[tuple[str, str], list[tuple[int, list[int | None]]]] = field(default_factory=dict)
    """Each: end in ms, and least and greatest mV and var."""

    def take(self, doc: Object, t0: int) -> None:
        """Add what a part says.

        Raises:
            ValueError: not what a trace holds.
        """
        for one in listed(doc, "uq"):
            point, of = one.get("mp"), one.get("of")
            if not isinstance(point, str) or not (of is None or isinstance(of, str)) or of not in KINDS:
                raise ValueError("uq of a trace names a point, and line or phase")
            steps, *columns = (one.get(name) for name in ("dt", "lo", "hi", "qlo", "qhi"))
            told = self.spans.setdefault((point, of or ""), [])
            if len(self.spans) > MAX_POINTS:
                raise ValueError(f"uq of a trace names more than {MAX_POINTS} points")
            for at, row in rows_of(t0, steps, columns):
                for low, high in (row[:2], row[2:]):
                    if (low is None) is not (high is None) or (low is not None and high is not None and low > high):
                        raise ValueError("a span of uq has a least value above its greatest, or one of them alone")
                told.append((at, row))

    def figures(self, begin: int, end: int) -> list[Object]:
        """Extremes before the duty, during and after it."""
        found: list[Object] = []
        for point, of in sorted(self.spans):
            times: dict[str, list[list[int | None]]] = {"before": [], "during": [], "after": []}
            for at, row in self.spans[point, of]:
                times["before" if at <= begin else "after" if at > end else "during"].append(row)
            found.append({"mp": point, "of": of or None} | {name: _extremes(rows) for name, rows in times.items()})
        return found


def listed(doc: Object, name: str) -> list[Object]:
    """A field that is absent, or a list of objects with something in it.

    Raises:
        ValueError: anything else.
    """
    if name not in doc:
        return []
    found = doc[name]
    if not isinstance(found, list) or not found or any(not isinstance(one, dict) for one in found):
        raise ValueError(f"{name} of a trace is a list of objects, or absent")
    return found


def rows_of(t0: int, steps: Any, columns: list[Any]) -> list[tuple[int, list[int | None]]]:
    """(ms, values) out of columns of a trace.

    Raises:
        ValueError: not columns of one length with whole numbers or null.
    """
    if any(not isinstance(one, list) for one in (steps, *columns)) or len({len(one) for one in (steps, *columns)}) != 1:
        raise ValueError("dt and values of a trace are lists of one length")
    if any(type(step) is not int for step in steps):
        raise ValueError("dt of a trace are whole numbers")
    if any(value is not None and type(value) is not int for one in columns for value in one):
        raise ValueError("values of a trace are whole numbers or null")
    found, at = [], t0
    for step, *row in zip(steps, *columns, strict=True):
        at += step
        found.append((at, row))
    return found


def _extremes(rows: list[list[int | None]]) -> Object:
    found: Object = {}
    for place, name in enumerate(FIGURES):
        values = sorted(row[place] for row in rows if row[place] is not None)  # type: ignore[type-var]  # no null is left
        found[name] = None if not values else values[0] if place in {0, 2} else values[-1]
    return found


def share(
    means: Mapping[str, Mean], windows: Sequence[tuple[int, int | None]], before: int | None, begin: int, step_s: int
) -> Object:
    """The reduction over the windows (begin s, W) that are known, and what each battery had to do with it."""
    known = [(at, watt) for at, watt in windows if watt is not None]
    cut = [before - watt for _, watt in known if before is not None and watt < before]
    points: list[Object] = []
    for name in sorted(means):
        was = means[name](begin - 60_000, begin)
        powers = [means[name](at * 1000, (at + step_s) * 1000) for at, _ in known]
        read = [p for p in powers if p is not None]
        given, taken = [0 if p > 0 else -p for p in read], [p if p > 0 else 0 for p in read]
        found: Object = {"mp": name, "before_w": was, "missing": len(powers) - len(read)}
        found["discharge_wh"] = sum(given) * step_s // 3600
        found["more_discharge_wh"] = found["less_charge_wh"] = None
        if was is not None:
            gave, took = (0, was) if was > 0 else (-was, 0)
            found["more_discharge_wh"] = sum(g - gave for g in given if g > gave) * step_s // 3600
            found["less_charge_wh"] = sum(took - t for t in taken if t < took) * step_s // 3600
        points.append(found)
    return {"reduced_wh": None if before is None else sum(cut) * step_s // 3600, "points": points}
