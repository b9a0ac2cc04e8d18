"""The objects of a simulated PDU: a tree made from its profile; what the driver scales down is scaled up here."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Protocol

from drivers.snmp.entity import KINDS, PRECISION, SCALE, STATUS, TYPE, VALUE
from drivers.snmp.profile import Command, Measure, Outlets, PduProfile
from wire.points import COUNTERS

Arcs = tuple[int, ...]
Getter = Callable[[], int | str | None]
Setter = Callable[[int], bool]
_SENSOR_ROW = 1001
_SENSOR_DIGITS = {"watts": 0, "volts_ac": 1, "amperes": 3, "hertz": 2}
_SENSOR_UNITS, _SENSOR_OK = 9, 1


class PduModel(Protocol):
    """What the plant says of one PDU."""

    def powered(self) -> bool:
        """Whether its electronics have power; without it, it does not answer."""
        ...

    def power_w(self) -> float:
        """Active power of the whole PDU."""
        ...

    def energy_wh(self) -> float:
        """Energy counter of the whole PDU."""
        ...

    def voltage_v(self) -> float:
        """Voltage at its inlet, line to neutral."""
        ...

    def outlet_on(self, outlet: int) -> bool:
        """State of one outlet's relay, from 1."""
        ...

    def outlet_power_w(self, outlet: int) -> float:
        """Active power of one outlet."""
        ...

    def set_outlet(self, outlet: int, on: bool) -> None:
        """Command one outlet."""
        ...


class PduTree:
    """The agent's objects in lexicographic order: what each says and, where it can be set, what setting does."""

    def __init__(
        self, profile: PduProfile, model: PduModel, outlets: int, serial_number: str, power_factor: float
    ) -> None:
        self._getters: dict[Arcs, Getter] = {}
        self._setters: dict[Arcs, dict[int, Callable[[], None]]] = {}
        self._add("1.3.6.1.2.1.1.1.0", lambda: f"{profile.vendor} {profile.model}"[:120])
        self._add("1.3.6.1.2.1.1.2.0", lambda: f"oid:{profile.enterprise}.1")
        self._add("1.3.6.1.2.1.1.5.0", lambda: f"pdu-{serial_number.lower()}")
        if profile.model_name is not None:
            self._add(profile.model_name.at(), profile.id.upper)
        device = _device_values(model, serial_number, power_factor)
        for point, measure in profile.points.items():
            if point in device:
                self._add_measure(measure, device[point], None, counter=point in COUNTERS)
        for row, (point, kind) in enumerate(profile.sensors.items(), start=_SENSOR_ROW):
            if point in device:
                self._add_sensor(row, kind, device[point])
        if profile.outlets is not None:
            self._add_outlets(profile.outlets, model, min(outlets, profile.outlets.maximum), power_factor)
        self._order = sorted(self._getters)

    def get(self, arcs: Arcs) -> int | str | None:
        """Value of one object; ``None`` where there is none."""
        getter = self._getters.get(arcs)
        return None if getter is None else getter()

    def after(self, arcs: Arcs) -> tuple[Arcs, int | str] | None:
        """The next object with a value, or ``None`` at the end."""
        for found in self._order[bisect_right(self._order, arcs) :]:
            value = self._getters[found]()
            if value is not None:
                return found, value
        return None

    def setter(self, arcs: Arcs) -> Mapping[int, Callable[[], None]] | None:
        """Values that may be written and what each does; ``None`` where the object cannot be written."""
        return self._setters.get(arcs)

    def _add(self, oid: str, getter: Getter) -> None:
        self._getters[tuple(map(int, oid.split(".")))] = getter

    def _add_measure(
        self, measure: Measure, value: Callable[[], float | str | None], outlet: int | None, *, counter: bool = False
    ) -> None:
        columns = iter(measure.columns(outlet))
        digits = _digits(measure)
        self._add(next(columns), lambda: _raw(measure, value(), digits, counter=counter))
        if measure.decimals is not None:
            self._add(next(columns), lambda: digits)
        if measure.available is not None:
            self._add(next(columns), lambda: 1)

    def _add_sensor(self, row: int, kind: str, value: Callable[[], float | str | None]) -> None:
        digits = _SENSOR_DIGITS[kind]
        constants = {TYPE: KINDS[kind], SCALE: _SENSOR_UNITS, PRECISION: digits, STATUS: _SENSOR_OK}
        for column, number in constants.items():
            self._add(f"{column}.{row}", partial(int, number))
        self._add(f"{VALUE}.{row}", lambda: _sensor_raw(value(), digits))

    def _add_outlets(self, described: Outlets, model: PduModel, outlets: int, power_factor: float) -> None:
        if described.count is not None:
            self._add(described.count.at(), lambda: outlets)
        for n in range(1, outlets + 1):
            self._add_outlet(described, model, n, power_factor)

    def _add_outlet(self, described: Outlets, model: PduModel, n: int, power_factor: float) -> None:
        state, pending = described.state, described.pending
        if state is not None:
            self._add(state.at(n), lambda: state.on[0] if model.outlet_on(n) else state.off[0])
        if pending is not None:
            self._add(pending.at(n), lambda: pending.off[0])
        if described.power_w is not None:
            self._add_measure(described.power_w, lambda: model.outlet_power_w(n), n)
        if described.current_a is not None:
            self._add_measure(
                described.current_a, lambda: _current(model.outlet_power_w(n), model.voltage_v(), power_factor), n
            )
        for command, level in ((described.open, False), (described.close, True)):
            if command is not None:
                self._add_command(command, described, model, n, level)

    def _add_command(self, command: Command, described: Outlets, model: PduModel, n: int, level: bool) -> None:
        arcs = tuple(map(int, command.at(n).split(".")))
        self._setters.setdefault(arcs, {})[command.value] = lambda: model.set_outlet(n, level)
        one_object = described.open is not None and described.close is not None and (
            described.open.oid == described.close.oid
        )  # fmt: skip
        if one_object and described.open is not None and described.close is not None:
            off, on = described.open.value, described.close.value
            self._getters[arcs] = lambda: on if model.outlet_on(n) else off
        else:
            self._getters[arcs] = lambda: -1  # a delay object: no command is pending


def _device_values(
    model: PduModel, serial_number: str, power_factor: float
) -> dict[str, Callable[[], float | str | None]]:
    return {
        "power_w": model.power_w,
        "power_l1_w": model.power_w,
        "power_apparent_va": lambda: model.power_w() / power_factor,
        "power_factor": lambda: power_factor,
        "energy_import_wh": model.energy_wh,
        "voltage_l1_n_v": model.voltage_v,
        "current_l1_a": lambda: _current(model.power_w(), model.voltage_v(), power_factor),
        "frequency_hz": lambda: 50.0,
        "serial_number": lambda: serial_number,
    }


def _current(power_w: float, voltage_v: float, power_factor: float) -> float:
    return power_w / (voltage_v * power_factor) if voltage_v > 0 else 0.0


def _digits(measure: Measure) -> int:
    """Decimal digits that the agent gives a sensor: as many as a real unit shows, by its kind."""
    return 0 if measure.decimals is None else {".1": 3, "23": 1, ".7": 2}.get(measure.instance[-2:], 0)


def _raw(measure: Measure, value: float | str | None, digits: int, *, counter: bool) -> int | str | None:
    if value is None or isinstance(value, str):
        return value
    if not math.isfinite(value):
        return measure.sentinels[0] if measure.sentinels else None
    exact = Fraction(value) / measure.factor * 10**digits
    # A counter shows only what is full; the rest is rounded to the nearest.
    whole: int = math.floor(exact) if counter else round(exact)
    return whole % 2**32


def _sensor_raw(value: float | str | None, digits: int) -> int | None:
    return round(value * 10**digits) if isinstance(value, float | int) and math.isfinite(value) else None
