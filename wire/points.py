"""The point vocabulary: what a value is called and in which unit, in profiles, telemetry, the API and evidence.

Units are SI base units whatever a device sends. Import is positive. Source: the project's command-line contract
(``docs/protocol.md``, "Points").
"""

from __future__ import annotations

UNITS: dict[str, str] = {
    "energy_import_wh": "Wh",
    "energy_export_wh": "Wh",
    "energy_reactive_import_varh": "varh",
    "energy_reactive_export_varh": "varh",
    "power_w": "W",
    "power_l1_w": "W",
    "power_l2_w": "W",
    "power_l3_w": "W",
    "power_reactive_var": "var",
    "power_apparent_va": "VA",
    "power_factor": "1",
    "voltage_l1_n_v": "V",
    "voltage_l2_n_v": "V",
    "voltage_l3_n_v": "V",
    "voltage_l1_l2_v": "V",
    "voltage_l2_l3_v": "V",
    "voltage_l3_l1_v": "V",
    "current_l1_a": "A",
    "current_l2_a": "A",
    "current_l3_a": "A",
    "current_n_a": "A",
    "frequency_hz": "Hz",
    "ct_ratio": "1",
    "vt_ratio": "1",
    "serial_number": "",
    "clock": "ms",
    "events_power_off": "1",
    "events_clock_set": "1",
    "events_programmed": "1",
    "events_cover_open": "1",
    "events_phase_loss": "1",
    "events_reset": "1",
}
"""Unit of each point; ``serial_number`` is text, ``clock`` is milliseconds since the Unix epoch (UTC)."""

EVENTS = ("power_off", "clock_set", "programmed", "cover_open", "phase_loss", "reset")
"""What a meter counts of itself: its supply failed, its clock was set, its settings were written, its cover was opened,
a phase of its voltage was lost, its registers or counters were reset."""
EVENT_POINTS: dict[str, str] = {f"events_{event}": event for event in EVENTS}
"""Point of each such counter → event. They count events, never energy, and never run below 0."""

TARIFFS = ("_t1", "_t2", "_t3", "_t4")
COUNTERS = frozenset(
    {"energy_import_wh", "energy_export_wh", "energy_reactive_import_varh", "energy_reactive_export_varh"}
)


def base_point(name: str) -> str:
    """``energy_import_wh_t2`` → ``energy_import_wh``; other names unchanged."""
    for tariff in TARIFFS:
        if name.endswith(tariff) and name[: -len(tariff)] in COUNTERS:
            return name[: -len(tariff)]
    return name


def is_point(name: str) -> bool:
    """True for a name of the vocabulary, tariffs included."""
    return base_point(name) in UNITS


def unit_of(name: str) -> str:
    """Unit of a point.

    Raises:
        KeyError: the name is not in the vocabulary.
    """
    return UNITS[base_point(name)]
