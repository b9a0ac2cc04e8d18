"""Curtailable now: what a site says it could take off, how low it would come, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nicegui import ui

from central.pages import parts
from central.pages.format import DASH, kilowatt, localised
from central.pages.texts import Texts
from wire.messages import Live

MAX_ROWS = 60
ROWS = ("sleep_w", "switch_w", "floor_sleep_w", "floor_switch_w")


def kw(power_w: int | None, texts: Texts) -> str:
    """kW with its unit; unknown is a dash."""
    return DASH if power_w is None else f"{localised(kilowatt(power_w), texts)} {texts('kW')}"


def summed(summaries: Iterable[Mapping[str, Any]]) -> tuple[int, int, int]:
    """(W by sleep, W by switches, number of sites that tell both) over all sites."""
    told = [s["curtailable"] for s in summaries if s["curtailable"] is not None]
    known = [c for c in told if c["sleep_w"] is not None and c["switch_w"] is not None]
    return sum(c["sleep_w"] for c in known), sum(c["switch_w"] for c in known), len(known)


class CurtailableCard:
    """The card on a site's page; the text says that it is the site's own word."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._shown: object = None
        with parts.box("tz-card", "tz-halves", testid="curtailable"):
            with parts.box():
                parts.text(texts("Curtailable now, as the site says"), "tz-title")
                self._list = parts.box("tz-list", testid="curtailable-list")
            with parts.box():
                parts.text(texts("Outputs that do not count, and why"), "tz-title")
                self._why = parts.box("tz-list", testid="curtailable-why")

    def show(self, summary: Mapping[str, Any], live: Live | None) -> None:
        """Refresh from a site's summary and its newest live message."""
        texts, now = self._texts, summary["curtailable"]
        why = dict(list(live.outputs_why.items())[:MAX_ROWS]) if live is not None and now is not None else {}
        unavailable = summary["unavailable"] if now is not None else {}
        outputs = live.outputs_w if live is not None else {}
        state = (now, why, unavailable, {name: outputs.get(name) for name in why})
        if state == self._shown:
            return
        self._shown = state
        names = {
            "sleep_w": texts("by sleep"),
            "switch_w": texts("by switches"),
            "floor_sleep_w": texts("lowest by sleep"),
            "floor_switch_w": texts("lowest with switches"),
        }
        rows = [(names[row], kw(now[row] if now is not None else None, texts)) for row in ROWS]
        rows += [
            (texts("declared unavailable: {object}", object=name), kw(power, texts))
            for name, power in list(unavailable.items())[:MAX_ROWS]
        ]
        self._fill(self._list, rows)
        self._fill(self._why, [(f"{name} · {kw(outputs.get(name), texts)}", reason) for name, reason in why.items()])

    def _fill(self, where: ui.element, rows: list[tuple[str, str]]) -> None:
        where.clear()
        with where:
            if not rows:
                parts.text(self._texts("none"), "tz-soft")
            for name, value in rows:
                with parts.box("tz-item", "tz-wraps"):
                    parts.text(name)
                    parts.text(value)
