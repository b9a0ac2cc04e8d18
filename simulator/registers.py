"""What one metering point measures: power through its node, integrated exactly, as values of the point vocabulary.

Power is constant between two steps of the plant, so energy is a plain sum of power times time. The opening reading and
what was added since are kept apart: adding 0.03 Wh to 50 GWh a million times would otherwise lose whole Wh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from config.devices import MeteringPoint
from simulator.curve import ProfileMemory
from wire.points import COUNTERS, EVENTS, TARIFFS

Value = float | int | str | None

PHASES = ("l1", "l2", "l3")
SQRT3 = math.sqrt(3.0)


@dataclass(slots=True)
class Energy:
    """One counting register in Wh or varh."""

    opening: float
    added: float = 0.0

    @property
    def reading(self) -> float:
        """Opening reading plus everything counted since."""
        return self.opening + self.added


class Registers:
    """Registers of one metering point.

    ``power_w`` and ``reactive_var`` are what the *meter* sees: turned round where its current transformers are
    connected the wrong way (``inverted`` in the site file), zero where its node is dark.
    """

    def __init__(
        self,
        point: MeteringPoint,
        *,
        opening_wh: float,
        opening_export_wh: float,
        nominal_v: float,
        shares: tuple[float, float, float],
        serial_number: str,
    ) -> None:
        self.point = point
        self.nominal_v = nominal_v
        self.shares = shares
        self.serial_number = serial_number
        self.lost: set[int] = set()
        """Fault: phases (0 to 2) whose voltage does not come to the meter; their current does."""
        self.reversed: set[int] = set()
        """Fault: phases whose current transformer is connected the other way round."""
        self.clock_offset_ms = 0
        self.events = dict.fromkeys(EVENTS, 0)
        """The meter's own event counters."""
        self.live = False
        self.power_w = 0.0
        self.reactive_var = 0.0
        self._drawn_w = self._drawn_va = 0.0
        self.voltage_v = 0.0
        self.frequency_hz = 0.0
        self.imported = Energy(opening_wh)
        self.exported = Energy(opening_export_wh)
        self.reactive_imported = Energy(opening_wh * 0.2)
        self.reactive_exported = Energy(opening_export_wh * 0.2)
        passport = point.passport
        secondary = passport.ratio_applied_in == "agent"
        self.memory: ProfileMemory | None = None
        """The meter's own load profile, where its model has one."""
        self.ct = passport.ct.num / passport.ct.den if passport.ct and secondary else 1.0
        self.vt = passport.vt.num / passport.vt.den if passport.vt and secondary else 1.0

    def integrate(self, seconds: float) -> None:
        """Count energy of the power that has been flowing for this long."""
        hours = seconds / 3600.0
        if self.memory is not None:
            self.memory.advance(seconds, self.imported.reading, max(0.0, self.power_w))
        if self.power_w >= 0:
            self.imported.added += self.power_w * hours
        else:
            self.exported.added -= self.power_w * hours
        if self.reactive_var >= 0:
            self.reactive_imported.added += self.reactive_var * hours
        else:
            self.reactive_exported.added -= self.reactive_var * hours

    def measure(self, live: bool, power_w: float, reactive_var: float, voltage_pu: float, frequency_hz: float) -> None:
        """Take the state of the node; power counts downwards."""
        sign = -1.0 if self.point.inverted else 1.0
        if self.live and not live:
            self.events["power_off"] += 1
        self.live = live
        self._drawn_w = sign * power_w if live else 0.0
        self._drawn_va = math.hypot(power_w, reactive_var) if live else 0.0
        counted = 1.0
        if self.lost or self.reversed:
            counted = sum(share * part for share, part in zip(self.shares, self._parts(), strict=True))
        self.power_w = sign * power_w * counted if live else 0.0
        self.reactive_var = sign * reactive_var * counted if live else 0.0
        self.voltage_v = self.nominal_v * voltage_pu if live else 0.0
        self.frequency_hz = frequency_hz if live else 0.0

    def _parts(self) -> tuple[float, float, float]:
        """What the meter makes of each phase's power: 1 as it is, -1 backwards, 0 nothing."""
        first, second, third = (0.0 if k in self.lost else -1.0 if k in self.reversed else 1.0 for k in range(3))
        return first, second, third

    def values(self, clock_ms: int) -> dict[str, Value]:
        """Every point of the vocabulary that a meter could show, in SI base units.

        Where the site file says that the agent applies the ratios, these are the secondary values.
        """
        ct, vt = self.ct, self.vt
        watts, volts = self.power_w / (ct * vt), self.voltage_v / vt
        var = self.reactive_var / (ct * vt)
        apparent = math.hypot(watts, var)
        out: dict[str, Value] = {
            "energy_import_wh": self.imported.reading / (ct * vt),
            "energy_export_wh": self.exported.reading / (ct * vt),
            "energy_reactive_import_varh": self.reactive_imported.reading / (ct * vt),
            "energy_reactive_export_varh": self.reactive_exported.reading / (ct * vt),
            "power_w": watts,
            "power_reactive_var": var,
            "power_apparent_va": apparent,
            "power_factor": watts / apparent if apparent > 0 else 1.0,
            "frequency_hz": self.frequency_hz,
            "current_n_a": 0.0,
            "ct_ratio": 1.0,
            "vt_ratio": 1.0,
            "serial_number": self.serial_number,
            "clock": clock_ms + self.clock_offset_ms,
        }
        parts = self._parts()
        drawn_w = self._drawn_w / (ct * vt)
        amps = self._drawn_va / (ct * vt) / (SQRT3 * volts) if volts > 0 else 0.0
        for k, (phase, share) in enumerate(zip(PHASES, self.shares, strict=True)):
            out[f"power_{phase}_w"] = drawn_w * share * parts[k]
            out[f"voltage_{phase}_n_v"] = 0.0 if k in self.lost else volts / SQRT3
            out[f"current_{phase}_a"] = amps * share * 3.0
        for pair, ends in (("l1_l2", {0, 1}), ("l2_l3", {1, 2}), ("l3_l1", {2, 0})):
            out[f"voltage_{pair}_v"] = volts * (1.0, 1.0 / SQRT3, 0.0)[len(ends & self.lost)]
        out |= {f"events_{event}": count for event, count in self.events.items()}
        for counter in COUNTERS:
            # One tariff is in force here, always the first.
            out |= {f"{counter}{tariff}": 0.0 for tariff in TARIFFS} | {f"{counter}_t1": out[counter]}
        return out
