"""Voltage, reactive power and batteries in the report of an order: are they what an agent of this contract writes, and
as words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from central.pages.format import DASH, localised
from central.pages.texts import Texts

SPANS = ("before", "during", "after")
EXTREMES = ("lo_mv", "hi_mv", "lo_var", "hi_var")
BATTERY = ("before_w", "more_discharge_wh", "less_charge_wh", "missing")


def sound(doc: Mapping[str, Any]) -> bool:
    """False where ``uq`` or ``storage`` is there and is not as :mod:`wire.record_types` has it."""
    figures, share = doc.get("uq", []), doc.get("storage", {"reduced_wh": None, "points": []})
    if not isinstance(figures, list) or not isinstance(share, dict) or not isinstance(share.get("points"), list):
        return False
    whole = "reduced_wh" in share and _maybe(share["reduced_wh"])
    return whole and all(map(_figure, figures)) and all(map(_battery, share["points"]))


def _maybe(value: object) -> bool:
    return value is None or type(value) is int


def _battery(one: object) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("mp"), str):
        return False
    return all(name in one and _maybe(one[name]) for name in BATTERY) and type(one.get("discharge_wh")) is int


def _figure(one: object) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("mp"), str) or one.get("of") not in {None, "line", "phase"}:
        return False
    spans = [one.get(name) for name in SPANS]
    return all(isinstance(s, dict) and all(n in s and _maybe(s[n]) for n in EXTREMES) for s in spans)


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


def battery_rows(said: Mapping[str, Any], texts: Texts, energy: Callable[[int | None, Texts], str]) -> list[list[str]]:
    """[what, words] of the reduction and of what batteries had to do with it; nothing where there is none."""
    share = said.get("storage")
    if share is None or not share["points"]:
        return []
    found = [[texts("Reduction in the judged time"), energy(share["reduced_wh"], texts)]]
    for one in share["points"]:
        words = [
            texts("gave {energy} more than before", energy=energy(one["more_discharge_wh"], texts)),
            texts("charged {energy} less than before", energy=energy(one["less_charge_wh"], texts)),
        ]
        words += [texts("not read in {n} windows", n=one["missing"])] if one["missing"] else []
        found.append([texts("of it battery {point}, no machine", point=one["mp"]), "\n".join(words)])
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
