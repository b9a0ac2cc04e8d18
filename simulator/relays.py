"""Relay modules and remote I/O as bodies: output contacts, pulses timed by the device, and what the inputs feel.

Which wire goes where is read from the site file: ``control`` of a switch names the outputs that drive it, ``position``,
``readiness`` and ``saon`` the inputs its contacts are wired to; a cooling loop names its own. Registers and coils are
not here (:mod:`simulator.devices.relay`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from config.devices import TemperaturePoint
from config.nodes import Compensation, Input, Switch
from config.site import Site
from simulator.switchgear import SwitchBody, coil_for

SAON_CONTACT_S = 0.1
"""A САОН trip contact is made for about a tenth of a second."""

Level = Callable[[], bool]


@dataclass(slots=True)
class RelayBody:
    """One module. ``outputs`` are the levels it was commanded to; wires may be swapped behind the terminals."""

    id: str
    outputs: dict[str, bool] = field(default_factory=dict)
    wires: dict[str, tuple[SwitchBody, bool]] = field(default_factory=dict)
    """Terminal to the switch it drives; True for its closing coil."""
    swapped: dict[str, str] = field(default_factory=dict)
    """Output to the terminal its wire really ends at."""
    pulses: dict[str, float] = field(default_factory=dict)
    """Output to the time at which the device ends its pulse."""
    remembers: bool = False
    """Puts outputs back as they were after a loss of its own supply; default is off."""
    powered: bool = True
    settings: dict[str, int] = field(default_factory=dict)
    """Raw contents of settings that are not as its profile expects them."""
    _kept: dict[str, bool] = field(default_factory=dict)

    def set_output(self, output: str, level: bool, now_s: float) -> None:
        """The module's own relay contact goes to a level; a pulse that runs is ended."""
        self.pulses.pop(output, None)
        self._apply(output, level, now_s)

    def pulse(self, output: str, seconds: float, now_s: float) -> None:
        """Contact on, and off again by the module's own clock."""
        self._apply(output, True, now_s)
        self.pulses[output] = now_s + seconds

    def swap(self, first: str, second: str) -> None:
        """The wires of two outputs are exchanged (they keep their levels until the next command)."""
        one, other = self.swapped.get(first, first), self.swapped.get(second, second)
        self.swapped[first], self.swapped[second] = other, one

    def set_powered(self, powered: bool, now_s: float) -> None:
        """Its own supply. Without it every contact falls off."""
        if powered == self.powered:
            return
        self.powered = powered
        if not powered:
            self._kept = dict(self.outputs)
            self.pulses.clear()
            for output in list(self.outputs):
                self._apply(output, False, now_s)
        elif self.remembers:
            for output, level in self._kept.items():
                self._apply(output, level, now_s)

    @property
    def next_s(self) -> float | None:
        """When its next pulse ends."""
        return min(self.pulses.values(), default=None)

    def advance(self, now_s: float) -> None:
        """End pulses that are due."""
        for output in [name for name, end_s in self.pulses.items() if end_s <= now_s]:
            end_s = self.pulses.pop(output)
            self._apply(output, False, end_s)

    def _apply(self, output: str, level: bool, now_s: float) -> None:
        changed = self.outputs.get(output, False) != level
        self.outputs[output] = level
        wire = self.wires.get(self.swapped.get(output, output))
        if wire is not None and changed:
            switch, close_coil = wire
            switch.on_coil(level, now_s, close_coil=close_coil)


class Wiring:
    """All modules of a site and all wires to their inputs."""

    def __init__(self, site: Site, switches: dict[str, SwitchBody], has_power: Callable[[str], bool]) -> None:
        self.relays: dict[str, RelayBody] = {
            d.id: RelayBody(d.id, remembers=d.options.get("power_on") == "last")
            for d in site.devices
            if d.kind == "relay"
        }
        self._levels: dict[tuple[str, str], Level] = {}
        self._sensors: dict[tuple[str, str], Callable[[], float | None]] = {}
        self._saon: dict[str, list[tuple[str, str]]] = {}
        self._saon_until_s: dict[tuple[str, str], float] = {}
        self._latching: set[tuple[str, str]] = set()
        """САОН inputs behind a latching relay: the contact stays made until a person resets it."""
        self._trips: dict[tuple[str, str], SwitchBody] = {}
        self.saon_counts: dict[tuple[str, str], int] = {}
        self.now_s = 0.0
        for node in site.nodes:
            if isinstance(node, Switch):
                self._wire_outputs(node, switches[node.id])
                self._wire_inputs(node, switches[node.id], has_power)
            elif isinstance(node, Compensation) and node.position is not None:
                self.contact(node.position.closed, lambda: True)
                self.contact(node.position.open, lambda: False)

    def level(self, device: str, input_id: str) -> bool:
        """What an input feels now; an input without a wire feels nothing."""
        found = self._levels.get((device, input_id))
        return found() if found is not None else False

    def contact(self, wire: Input, level: Level) -> None:
        """Wire a contact to an input."""
        self._levels[wire.device, wire.input] = (lambda: not level()) if wire.inverted else level

    def sensor(self, wire: TemperaturePoint, celsius: Callable[[], float | None]) -> None:
        """Wire a temperature sensor to a point."""
        self._sensors[wire.device, wire.point] = celsius

    def celsius(self, device: str, point: str) -> float | None:
        """What a sensor measures now; ``None`` where it is broken or there is none."""
        found = self._sensors.get((device, point))
        return found() if found is not None else None

    def saon_operated(self, switch: str, now_s: float, contact_s: float = SAON_CONTACT_S) -> None:
        """The САОН relay's contact is made for a tenth of a second."""
        for key in self._saon.get(switch, ()):
            self._saon_until_s[key] = float("inf") if key in self._latching else now_s + contact_s
            self.saon_counts[key] = self.saon_counts.get(key, 0) + 1

    def saon_reset(self, switch: str) -> None:
        """A person resets the latching relays of a feeder."""
        for key in self._saon.get(switch, ()):
            if key in self._latching:
                self._saon_until_s.pop(key, None)

    def count(self, device: str, input_id: str) -> int:
        """Contacts that a counting input has seen: САОН operations, or openings of the switch it is wired to."""
        body = self._trips.get((device, input_id))
        return self.saon_counts.get((device, input_id), 0) if body is None else body.openings

    def _wire_outputs(self, node: Switch, body: SwitchBody) -> None:
        control = node.control
        relay = self.relays.get(control.device) if control is not None else None
        if control is None or relay is None:
            return
        relay.wires[control.output] = (body, False)
        relay.outputs[control.output] = coil_for(node, body.closed)
        if control.close_output is not None:
            relay.wires[control.close_output] = (body, True)
            relay.outputs[control.close_output] = False

    def _wire_inputs(self, node: Switch, body: SwitchBody, has_power: Callable[[str], bool]) -> None:
        if node.position is not None:
            self.contact(node.position.open, lambda: body.aux()[0])
            self.contact(node.position.closed, lambda: body.aux()[1])
        supply = node.control.device if node.control is not None else ""
        levels: dict[str, Level] = {
            "remote": lambda: not body.faults.local,
            "lockout": lambda: body.lockout,
            "protection_trip": lambda: body.protection_trip,
            "trip_circuit_ok": lambda: not body.faults.trip_circuit_broken,
            "spring_charged": lambda: body.spring_charged(self.now_s),
            "control_voltage_ok": lambda: has_power(supply),
            "service_position": lambda: not body.faults.withdrawn,
            "trips_total": lambda: False,
        }
        for name, wire in node.readiness.wired():
            self.contact(wire, levels[name])
            if name == "trips_total":
                self._trips[wire.device, wire.input] = body
        for stage in node.saon:
            if stage.operated is not None:
                key = (stage.operated.device, stage.operated.input)
                self._saon.setdefault(node.id, []).append(key)
                if stage.operated_by == "latched":
                    self._latching.add(key)
                self.contact(stage.operated, self._saon_contact(key))

    def _saon_contact(self, key: tuple[str, str]) -> Level:
        return lambda: self.now_s < self._saon_until_s.get(key, float("-inf"))
