"""Meters against their papers: serial number, ratios, display. What a device does not give is ``None``. Pure."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from agent.live import LiveState
from agent.metering.registers import IMPORT, applied_ratio, ratio_number, ratio_of
from agent.metering.state import PointState
from config.devices import MeteringPoint
from config.site import Site

DISPLAY_SHARE = 0.005
"""A display is read seconds before or after the register, and shows fewer digits."""
DISPLAY_WH = 1000


def check_meter(
    site: Site, live: LiveState, point: MeteringPoint, state: PointState | None, display_wh: int | None
) -> dict[str, Any]:
    """One metering point, for the record: each ``*_ok`` is true, false, or null where it cannot be told.

    Phase sequence is not among the points that meters give here: it stays null until a person notes it.
    """
    device = next((d for d in site.devices if d.id == point.device), None)
    paper = point.passport.meter_serial or (device.serial_number if device else None)
    serial = state.sn if state else None
    if serial is None:
        found = live.reading(point.device, "serial_number")
        serial = str(found.value) if found.quality.usable and found.value is not None else None
    register_wh = _register_wh(live, point)
    ratios = state.ratios if state else None
    return {
        "meter": point.id,
        "serial": serial,
        "serial_paper": paper,
        "serial_ok": None if serial is None or paper is None else serial.strip() == paper.strip(),
        "ct": _text(ratio_number(ratios, "ct")),
        "vt": _text(ratio_number(ratios, "vt")),
        "ct_ok": _agree(point, ratios, "ct"),
        "vt_ok": _agree(point, ratios, "vt"),
        "phase_sequence": None,
        "display_wh": display_wh,
        "register_wh": register_wh,
        "display_ok": None
        if display_wh is None or register_wh is None
        else abs(display_wh - register_wh) <= max(DISPLAY_WH, DISPLAY_SHARE * register_wh),
    }


def wrong(check: dict[str, Any]) -> str | None:
    """What of a meter's papers is contradicted; ``None`` where nothing is."""
    bad = [name[:-3] for name, value in check.items() if name.endswith("_ok") and value is False]
    if not bad:
        return None
    told = {"serial": f"{check['serial']}, on paper {check['serial_paper']}"}
    told["display"] = f"{check['display_wh']} Wh, register {check['register_wh']} Wh"
    return f"meter {check['meter']}: " + "; ".join(f"{n} {told.get(n, check.get(n))}" for n in bad)


def _register_wh(live: LiveState, point: MeteringPoint) -> int | None:
    found = live.reading(point.device, IMPORT)
    if not found.quality.usable or not isinstance(found.value, int | float):
        return None
    return round(found.value * float(applied_ratio(point.passport)))


def _agree(point: MeteringPoint, ratios: str | None, which: str) -> bool | None:
    """Does the meter hold the ratio it should? Where the agent applies it, the meter's setting says nothing."""
    paper = point.passport.ct if which == "ct" else point.passport.vt
    applied = point.passport.ratio_applied_in
    in_meter = applied == "meter" or (applied == "both" and which == "ct")
    found = ratio_number(ratios, which)
    if paper is None or found is None or not in_meter:
        return None
    return found == ratio_of(paper)


def _text(ratio: Fraction | None) -> str | None:
    return None if ratio is None else str(ratio)
