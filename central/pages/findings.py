"""What plausibility holds against a site's slots, in words: rule, when, seen and expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from central.pages import parts
from central.pages.format import DASH, KAZAKHSTAN, energy_kwh, kilowatt, localised
from central.pages.texts import Texts


def explanations(texts: Texts) -> dict[str, str]:
    """Key of an explanation → words."""
    return {
        "gap": texts("Slots without a reading"),
        "no_record": texts("Slots without any record: neither a reading nor a gap"),
        "double": texts("More than one record of one slot"),
        "size": texts("A slot of another length than the register says"),
        "bridged_run": texts("Too long a time is known from the registers at its ends alone"),
        "bridged_month": texts("Too much of the month was not read slot by slot"),
        "negative": texts("Energy below zero"),
        "counter_reset": texts("The meter's register was set back"),
        "rollover": texts("Called a rollover, but more than can have flowed"),
        "high": texts("More than is contracted or than the transformers are made for"),
        "zero": texts("Nothing counted although power was drawn"),
        "spike": texts("One slot far above its neighbours, without an order or a switch near it"),
        "frozen": texts("The register stood still although power was measured"),
        "equal": texts("The same energy again and again although power changed"),
        "sum": texts("The slots do not add up to the difference of the registers"),
        "integral": texts("The register does not fit the measured power"),
        "profile": texts("The reading does not fit the meter's own load profile"),
        "export": texts("Energy out of a point that only takes"),
        "sibling": texts("A register of the same meter is missing"),
        "clock": texts("The meter's clock is off"),
        "clock_zone": texts("The meter's clock runs in another time zone"),
        "serial": texts("Another serial number than in the register"),
        "ratio": texts("Other transformer ratios than in the register"),
        "unit": texts("The same meter is read by another map than before"),
        "check_identical": texts("Main and check meter agree to the last digit: one of them is no measurement"),
        "check_differs": texts("Main and check meter differ by more than their classes allow"),
        "balance_tolerance": texts("Main meter less feeders and losses is beyond the tolerance"),
        "balance_shift": texts("The balance of main meter and feeders changed against the weeks before"),
        "ratio_up": texts("The feeder draws more against its machines' own figures than before: a hidden load?"),
        "ratio_down": texts(
            "The feeder counts less against its machines' own figures than before: meter by-passed, ratio changed?"
        ),
        "residual_load": texts("Load remains while an order holds the machines asleep"),
        "open_load": texts("Energy behind a switch that is recorded as open"),
        "display": texts("The display showed something else than the register"),
        "phase_unfed": texts("A phase carries current without voltage at the meter: it is not counted"),
        "phase_lost": texts("A phase of the meter has no voltage"),
        "phase_backwards": texts("One phase counts backwards: current transformer reversed?"),
        "phase_unbalance": texts("The currents of the phases are far from each other"),
        "event_power_off": texts("The meter counted a loss of its supply that nothing explains"),
        "event_clock_set": texts("The meter's clock was set and nobody declared it"),
        "event_programmed": texts("The meter was programmed and nobody declared it"),
        "event_cover_open": texts("The meter's cover was opened and nobody declared it"),
        "event_phase_loss": texts("The meter counted a lost phase"),
        "event_reset": texts("The meter was reset and nobody declared it"),
        "event_fell": texts("A counter of the meter's own events was set back"),
        "outside": texts("Another party's reading of the same meter differs"),
    }


def amount(value: int | None, unit: str, texts: Texts) -> str:
    """A number of a finding with its unit; a dash where there is none."""
    if value is None:
        return DASH
    if unit == "wh":
        return f"{energy_kwh(value, texts)} {texts('kWh')}"
    if unit == "w":
        return f"{localised(kilowatt(value), texts)} {texts('kW')}"
    if unit in {"ms", "s"}:
        return f"{localised(f'{value / 1000:g}' if unit == 'ms' else str(value), texts)} {texts('s')}"
    if unit == "permille":
        return f"{localised(f'{value / 10:g}', texts)} %"
    return str(value)


def span(t0: int, t1: int) -> str:
    """Begin and end in Kazakhstan time."""
    first, last = datetime.fromtimestamp(t0, KAZAKHSTAN), datetime.fromtimestamp(t1, KAZAKHSTAN)
    return (
        f"{first:%d.%m %H:%M}\u2013{last:%H:%M}"
        if first.date() == last.date()
        else f"{first:%d.%m %H:%M}\u2013{last:%d.%m %H:%M}"
    )


class FindingsCard:
    """A table that is built anew when its content changes."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._shown: list[tuple[int, int]] | None = None
        self._words = explanations(texts)
        self._kinds = {"fail": texts("fails"), "suspect": texts("suspect")}
        with parts.box("tz-card", testid="findings"):
            parts.text(texts("Plausibility: open findings"), "tz-title")
            with parts.box("tz-scroll"), parts.box("tz-table", tag="table"):
                with parts.box(tag="thead"), parts.box(tag="tr"):
                    for words, kind in (
                        (texts("Rule"), ""),
                        (texts("Metering point"), ""),
                        (texts("When (Kazakhstan time)"), ""),
                        (texts("Seen"), "r"),
                        (texts("Expected"), "r"),
                        (texts("What it says"), ""),
                    ):
                        with parts.box(kind, tag="th"):
                            parts.text(words)
                self._rows = parts.box(tag="tbody")

    def show(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Refresh."""
        state = [(f["run"], f["n"]) for f in found]
        if state == self._shown:
            return
        self._shown = state
        texts = self._texts
        self._rows.clear()
        with self._rows:
            if not found:
                with parts.box(tag="tr"), parts.box(tag="td").props("colspan=6"):
                    parts.text(texts("nothing open in 30 days, in what was judged"), "tz-soft")
            for one in found:
                with parts.box("gap" if one["severity"] == "fail" else "", tag="tr", testid="finding-row"):
                    for value, kind in (
                        (f"{one['rule']} · {self._kinds.get(one['severity'], one['severity'])}", ""),
                        (DASH if one["point"] == "-" else one["point"], ""),
                        (span(one["t0"], one["t1"]), ""),
                        (amount(one["seen"], one["unit"], texts), "r"),
                        (amount(one["expected"], one["unit"], texts), "r"),
                        (self._words.get(one["text"], one["text"]), ""),
                    ):
                        with parts.box(kind, tag="td"):
                            parts.text(value)
