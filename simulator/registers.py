"""What one metering point measures: power through its node, integrated exactly, as values of the point vocabulary.

Power is constant between two steps of the plant, so energy is a plain sum of power times time. The opening reading and
what was added since are kept apart: adding 0.03 Wh to 50 GWh a million times would otherwise lose whole Wh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from config.devices import MeteringPoint
from simulator.curve import ProfileMemory
from wire.points import COUNTERS, TARIFFS

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
        self.live = False
        self.power_w = 0.0
        self.reactive_var = 0.0
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
        self.live = live
        self.power_w = sign * power_w if live else 0.0
        self.reactive_var = sign * reactive_var if live else 0.0
        self.voltage_v = self.nominal_v * voltage_pu if live else 0.0
        self.frequency_hz = frequency_hz if live else 0.0

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
            "clock": clock_ms,
        }
        amps = apparent / (SQRT3 * volts) if volts > 0 else 0.0
        for phase, share in zip(PHASES, self.shares, strict=True):
            out[f"power_{phase}_w"] = watts * share
            out[f"voltage_{phase}_n_v"] = volts / SQRT3
            out[f"current_{phase}_a"] = amps * share * 3.0
        for pair in ("l1_l2", "l2_l3", "l3_l1"):
            out[f"voltage_{pair}_v"] = volts
        for counter in COUNTERS:
            # One tariff is in force here, always the first.
            out |= {f"{counter}{tariff}": 0.0 for tariff in TARIFFS} | {f"{counter}_t1": out[counter]}
        return out
