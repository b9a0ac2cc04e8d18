"""Voltage and reactive power in the report of an order: is it what an agent of this contract writes, and as words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from central.pages.format import DASH, localised
from central.pages.texts import Texts

SPANS = ("before", "during", "after")
EXTREMES = ("lo_mv", "hi_mv", "lo_var", "hi_var")


def sound(doc: Mapping[str, Any]) -> bool:
    """False where ``uq`` is there and is not the figures of :class:`wire.record_types.SupplyFigures`."""
    figures = doc.get("uq", [])
    return isinstance(figures, list) and all(map(_figure, figures))


def _figure(one: object) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("mp"), str) or one.get("of") not in {None, "line", "phase"}:
        return False
    spans = [one.get(name) for name in SPANS]
    return all(
        isinstance(s, dict) and all(n in s and (s[n] is None or type(s[n]) is int) for n in EXTREMES) for s in spans
    )


def rows(said: Mapping[str, Any], texts: Texts) -> list[list[str]]:
    """[what, words] for each point: voltage where it was read, and reactive power where it was."""
    found = []
    times = {"before": texts("before"), "during": texts("during it"), "after": texts("afterwards")}
    for one in said.get("uq", ()):
        names = {"line": texts("line voltage"), "phase": texts("phase voltage")}
        for what, low, high, show in (
            (names.get(one["of"] or "", texts("voltage")), "lo_mv", "hi_mv", _volts),
            (texts("reactive power"), "lo_var", "hi_var", _kvar),
        ):
            if any(one[span][low] is not None for span in SPANS):
                told = (f"{words}: {show(one[span][low], one[span][high], texts)}" for span, words in times.items())
                found.append([f"{one['mp']}, {what}", "\n".join(told)])
    return found


def _volts(low: int | None, high: int | None, texts: Texts) -> str:
    if low is None or high is None:
        return DASH
    if high < 1_000_000:
        return localised(f"{low / 1000:.1f} … {high / 1000:.1f}", texts) + " " + texts("V")
    return localised(f"{low / 1e6:.2f} … {high / 1e6:.2f}", texts) + " " + texts("kV")


def _kvar(low: int | None, high: int | None, texts: Texts) -> str:
    if low is None or high is None:
        return DASH
    return (
        localised(f"{low / 1000:.1f} … {high / 1000:.1f}", texts).replace("-", "\N{MINUS SIGN}") + " " + texts("kvar")
    )
