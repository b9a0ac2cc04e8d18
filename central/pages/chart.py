"""The chart of the last hour: power, the limit as a step line, the slots as a grid."""

from __future__ import annotations

from typing import Any

from central.pages.texts import Texts

SHIFT_MS = 5 * 3_600_000
"""The chart draws UTC; shifted by five hours it shows Kazakhstan time on every viewer's computer."""
POWER, LIMIT = "#0b6e6e", "#b3261e"
HOUR_MS = 3_600_000
LEAST_MS = 600_000
"""The shortest window shown."""


def options(texts: Texts) -> dict[str, Any]:
    """Options without data."""
    axis_text = {"color": "#44546a", "fontSize": 12}
    number = _number_script(texts)
    return {
        "useUTC": True,
        "animation": False,
        "aria": {"enabled": True, "label": {"description": texts("Power and limit of the last hour, kW")}},
        "grid": {"left": 8, "right": 18, "top": 34, "bottom": 6, "containLabel": True},
        "legend": {"right": 8, "top": 0, "icon": "roundRect", "itemWidth": 18, "itemHeight": 4, "textStyle": axis_text},
        "tooltip": {"trigger": "axis", "confine": True, ":valueFormatter": number},
        "xAxis": {
            "type": "time",
            "axisLabel": axis_text | {"formatter": "{HH}:{mm}", "hideOverlap": True},
            "splitLine": {"show": False},
            "axisLine": {"lineStyle": {"color": "#9fb0c3"}},
        },
        "yAxis": {
            "type": "value",
            "min": 0,
            "name": texts("kW"),
            "nameTextStyle": axis_text | {"align": "left"},
            "axisLabel": axis_text | {":formatter": number},
            "splitLine": {"lineStyle": {"color": "#eef2f6"}},
        },
        "series": [
            {
                "name": texts("Power"),
                "type": "line",
                "showSymbol": False,
                "connectNulls": False,
                "lineStyle": {"width": 2.5, "color": POWER},
                "itemStyle": {"color": POWER},
                "areaStyle": {"color": "rgba(11,110,110,0.10)"},
                "markArea": {"silent": True, "itemStyle": {"color": "rgba(31,79,143,0.07)"}, "data": []},
                "data": [],
            },
            {
                "name": texts("Limit"),
                "type": "line",
                "step": "end",
                "showSymbol": False,
                "connectNulls": False,
                "lineStyle": {"width": 2.5, "type": "dashed", "color": LIMIT},
                "itemStyle": {"color": LIMIT},
                "data": [],
            },
        ],
    }


def _number_script(texts: Texts) -> str:
    """JavaScript: a number as :func:`central.pages.format.kilowatt` writes it; a hole in the line is a dash.

    The browser's own locale is not asked: the page has a language of its own.
    """
    point = "." if texts.language == "en" else ","
    return (
        "(v) => (v === null || v === undefined || Number.isNaN(v)) ? '\u2014' : "
        "String(v).replace('-', '\u2212').split('.').map("
        "(part, i) => i ? part : part.replace(/\\B(?=(\\d{3})+(?!\\d))/g, '\u202f')"
        f").join('{point}')"
    )


def fill(
    chart: dict[str, Any],
    power: list[list[float | None]],
    limits: list[list[float | None]],
    now_ms: int,
    slot_s: int,
) -> None:
    """Put data into options; every other slot is shaded."""
    # A young central shows what it has, not an empty hour.
    known = [at for at, value in power if at is not None and value is not None]
    begin = max(now_ms - HOUR_MS, min(int(known[0]) if known else now_ms, now_ms - LEAST_MS))
    chart["series"][0]["data"] = [[_shift(at), _round(value)] for at, value in power]
    last: list[list[float | None]] = [[now_ms, limits[-1][1]]] if limits and limits[-1][1] is not None else []
    chart["series"][1]["data"] = [[_shift(at), _round(value)] for at, value in limits + last]
    chart["series"][0]["markArea"]["data"] = _bands(begin, now_ms, slot_s * 1000) if slot_s >= 300 else []
    chart["xAxis"]["min"] = begin + SHIFT_MS
    chart["xAxis"]["max"] = now_ms + SHIFT_MS


def _bands(begin: int, end: int, slot_ms: int) -> list[list[dict[str, int]]]:
    bands = []
    for number in range(begin // slot_ms, end // slot_ms + 1):
        if number % 2:
            edges = max(begin, number * slot_ms), min(end, (number + 1) * slot_ms)
            bands.append([{"xAxis": edge + SHIFT_MS} for edge in edges])
    return bands


def _shift(at: float | None) -> float:
    return (at or 0) + SHIFT_MS


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
