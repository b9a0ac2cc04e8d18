"""Do the numbers of one sample make sense together? Evidence for and against the profile they were read with. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from drivers.capabilities import Sample
from drivers.profiles.codec import failed_checks, unlike_live
from drivers.profiles.model import MeterProfile
from wire.quality import Quality

SQRT3 = math.sqrt(3)


class Sign(NamedTuple):
    """One piece of evidence."""

    weight: float
    holds: bool
    text: str


def alive(sample: Sample) -> bool:
    """False where voltage and frequency are there and are nothing: empty registers of another device look like that."""
    signs = [r for n, r in sample.readings.items() if n == "frequency_hz" or n.startswith("voltage_")]
    return not signs or any(isinstance(r.value, float) and r.value > 1 for r in signs)


def weigh(profile: MeterProfile, sample: Sample) -> Iterator[Sign]:
    """Evidence for and against a profile in one sample."""
    readings = sample.readings
    values = {n: float(r.value) for n, r in readings.items() if isinstance(r.value, int | float)}
    refused = [n for n, r in readings.items() if r.quality in {Quality.EXCEPTION, Quality.NOT_READ}]
    answered = len(readings) - len(refused)
    yield Sign(1.0, not refused, f"{answered} of {len(readings)} points are answered")
    if refused and answered < len(readings) / 2:
        yield Sign(3.0, False, "most of its registers are refused")
    odd = [n for n, r in readings.items() if r.quality is Quality.DECODE or (r.quality is Quality.SUSPECT)]
    if odd:
        yield Sign(min(4.0, 1.0 + len(odd) / 2), False, f"out of range or no number: {', '.join(odd[:4])}")
    yield from _supply(profile, values)
    yield from _powers(profile, values)
    yield from _amounts(values)


def _supply(profile: MeterProfile, values: Mapping[str, float]) -> Iterator[Sign]:
    hertz = values.get("frequency_hz")
    if hertz:
        yield Sign(3.0, 45 <= hertz <= 65, f"frequency {hertz:.4g} Hz")
    phases = [v for n in ("voltage_l1_n_v", "voltage_l2_n_v", "voltage_l3_n_v") if (v := values.get(n))]
    if phases:
        low, high = min(phases), max(phases)
        text = f"phase voltages {', '.join(f'{v:.4g}' for v in phases)} V"
        yield Sign(3.0, low >= 40 and high <= 80_000 and high <= 1.25 * low, text)
        between = [v for n in ("voltage_l1_l2_v", "voltage_l2_l3_v", "voltage_l3_l1_v") if (v := values.get(n))]
        if between and len(phases) > 1:
            ratio = (sum(between) / len(between)) / (sum(phases) / len(phases))
            yield Sign(2.0, abs(ratio / SQRT3 - 1) < 0.05, f"line to phase voltage {ratio:.3g}, expected 1.73")
    outside = unlike_live(profile, values)
    told = [live for live in profile.live if live.point in values]
    if told:
        names = ", ".join(live.point for live in (outside or told))
        yield Sign(2.0, not outside, f"{'not ' if outside else ''}as in a live plant: {names}")


def _powers(profile: MeterProfile, values: Mapping[str, float]) -> Iterator[Sign]:
    watts = values.get("power_w")
    failed = failed_checks(profile, values)
    for check in profile.checks:
        if all(n in values for n in (*check.sum, check.equals)) and abs(values[check.equals]) > 1:
            text = f"{check.equals} is the sum of its parts"
            yield Sign(3.0, check not in failed, text if check not in failed else f"{check.equals} is not the sum")
    factor = values.get("power_factor")
    if factor:
        yield Sign(1.0, abs(factor) <= 1.001, f"power factor {factor:.3g}")
    apparent, reactive = values.get("power_apparent_va"), values.get("power_reactive_var")
    if watts and apparent and reactive is not None:
        told = math.hypot(watts, reactive)
        yield Sign(2.0, abs(told / apparent - 1) < 0.05, f"apparent power {apparent:.4g} VA of {told:.4g} expected")
    pairs = [
        (values[f"voltage_l{n}_n_v"], values[f"current_l{n}_a"])
        for n in (1, 2, 3)
        if f"voltage_l{n}_n_v" in values and f"current_l{n}_a" in values
    ]
    volt_amperes = sum(abs(v * a) for v, a in pairs)
    if watts and len(pairs) == 3 and volt_amperes:
        text = f"{watts:.4g} W with {volt_amperes:.4g} VA of voltage and current"
        yield Sign(2.0, abs(watts) <= 1.1 * volt_amperes, text)


def _amounts(values: Mapping[str, float]) -> Iterator[Sign]:
    amperes = [v for n in ("current_l1_a", "current_l2_a", "current_l3_a") if (v := values.get(n))]
    if amperes:
        # Meters give the sign of the power to the current too.
        plausible = all(0.001 <= abs(a) <= 20_000 for a in amperes)
        yield Sign(1.0, plausible, f"currents {', '.join(f'{a:.4g}' for a in amperes)} A")
    energy = values.get("energy_import_wh")
    if energy:
        yield Sign(1.0, 1 <= energy <= 1e14, f"energy import {energy:.4g} Wh")


def residual(sample: Sample) -> float:
    """By how much powers contradict each other; a number whose low half is another's is off by a little."""
    values = {n: r.value for n, r in sample.readings.items() if isinstance(r.value, float)}
    watts, reactive = values.get("power_w"), values.get("power_reactive_var")
    apparent = values.get("power_apparent_va")
    off = []
    phases = [values.get(f"power_l{n}_w") for n in (1, 2, 3)]
    known = [p for p in phases if p is not None]
    if watts and len(known) == 3:
        off.append(abs(sum(known) / watts - 1))
    if watts and apparent and reactive is not None:
        off.append(abs(math.hypot(watts, reactive) / apparent - 1))
    return sum(off) / len(off) if off else math.inf
