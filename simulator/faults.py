"""What can go wrong, switched on and off at run time by tests and the demo.

A fault is a *kind* on a *target* with parameters; :meth:`Faults.set` and :meth:`Faults.clear` take them as plain data,
so that the control socket and a test say the same words. Actions (``trip``, ``close``, ``blackout``, …) happen once.

==================  =========================  ===================================================================
kind                target                     parameters and effect
==================  =========================  ===================================================================
dead                device, link, machine      it does not answer
slow                device, machine            ``seconds``: it answers that much later
exception           device                     ``code`` 1 to 11: it refuses every request
nonsense            meter                      registers hold random words
clock               meter                      ``seconds``: its clock is so far ahead (behind, where negative)
profile_empty       meter                      its load profile keeps empty entries from now on
frozen              meter                      registers stay as they are now (it lies)
phase_lost          meter                      ``phase`` 1 to 3: no voltage comes to the meter, its current does
ct_reversed         meter                      ``phase`` 1 to 3: its current transformer is connected backwards
welded              switch                     main contacts do not part; auxiliary contacts say closed
stuck_open          switch                     it does not close
aux_lies            switch                     ``shows``: open, closed, moving or faulty, whatever is true
reclose             switch                     ``after_s``, ``times``: АПВ closes it again after an opening
local               switch                     the selector stands in Local: coils are not obeyed
trip_circuit        switch                     the trip circuit is broken
withdrawn           switch                     the truck is out of its service position
swapped             relay                      ``first``, ``second``: the wires of two outputs are exchanged
setting             relay                      ``name``, ``value``: a setting that is read back holds this raw number
refuses_sleep       machine or group           it says yes and goes on mining
wakes_itself        machine or group           ``after_s``: mines again that long after falling asleep
silent, half_open,  machine or group           what its server does (:mod:`simulator.devices.asic`)
garbage, http_down
no_flow             cooling loop               its pumps or fans run and nothing flows
sensor_broken       cooling loop               its temperature sensor shows nothing
no_transfer         site (``*``)               АВР does not act
blackout            grid connection or ``*``   no voltage until cleared
==================  =========================  ===================================================================

Actions: ``open`` and ``close`` (a person at the panel), ``trip`` (protection; ``lockout``), ``reset``, ``saon`` (САОН
opens the feeder, its contact is made for ``contact_s``, a tenth of a second), ``saon_reset`` (a person resets the
latching relay before the input), ``write`` (somebody else moves an ``output`` of a relay
module to ``level``), ``exchange`` (another meter is put in: ``serial``, ``reading_wh`` of its import register),
``counter_reset`` (a meter's energy registers are set to 0), ``cover_opened`` (of a meter), ``clock_set`` (a meter's
clock is moved by ``seconds``), ``load`` (``share`` of its rating that a load draws),
``generation`` (``power_w`` of a generator), ``outside`` (``temp_c`` outside a cooling loop, ``*``: all of them),
``supply_temp`` (``temp_c`` that a cooling loop has from now on, until it warms or cools).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from config.nodes import GridConnection
from drivers.capabilities import Position
from simulator.cooling import LoopBody
from simulator.machine import Machine
from simulator.plant import Plant
from simulator.registers import Registers, Value
from simulator.relays import SAON_CONTACT_S, RelayBody
from simulator.switchgear import SwitchBody
from wire.points import EVENTS

Parameter = float | int | str | bool | None

DEVICE_KINDS = (
    "dead",
    "slow",
    "exception",
    "nonsense",
    "frozen",
    "phase_lost",
    "ct_reversed",
    "clock",
    "profile_empty",
)
SWITCH_KINDS = ("welded", "stuck_open", "aux_lies", "reclose", "local", "trip_circuit", "withdrawn")
MACHINE_KINDS = ("refuses_sleep", "wakes_itself")
RELAY_KINDS = ("swapped", "setting")
LOOP_KINDS = ("no_flow", "sensor_broken")
SERVER_KINDS = ("dead", "silent", "slow", "half_open", "garbage", "http_down")
ACTIONS = (
    "open",
    "close",
    "trip",
    "reset",
    "saon",
    "saon_reset",
    "write",
    "exchange",
    "counter_reset",
    "cover_opened",
    "clock_set",
    "load",
    "generation",
    "outside",
    "supply_temp",
)


class FaultError(ValueError):
    """No such fault, target or parameter; the message says what was seen and what was expected."""


@dataclass(slots=True)
class DeviceFaults:
    """Faults of one device's electronics."""

    dead: bool = False
    slow_s: float = 0.0
    exception: int | None = None
    nonsense: bool = False
    frozen: dict[str, Value] | None = None
    clock_s: float = 0.0
    """How far the meter's clock is ahead."""
    profile_empty: bool = False


@dataclass(frozen=True, slots=True)
class ActiveFault:
    """One fault that is on."""

    kind: str
    target: str
    parameters: dict[str, Parameter] = field(default_factory=dict)


MachineServerHook = Callable[[str, str, bool, Mapping[str, Parameter]], None]
"""(machine id, kind, on, parameters): tells the machine's server."""


class Faults:
    """All faults of one simulated site.

    Args:
        plant: the physics they act on.
        machine_server: told of faults that live in a machine's server.
        changed: called after every change, so that the stepper takes note at once.
    """

    def __init__(
        self,
        plant: Plant,
        *,
        machine_server: MachineServerHook | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.plant = plant
        self.devices = {d.id: DeviceFaults() for d in plant.site.devices}
        self.dead_links: set[str] = set()
        self._links = {link.id for link in plant.site.links}
        self._machine_server = machine_server
        self._changed = changed
        self._active: dict[tuple[str, str], ActiveFault] = {}

    # -- plain data --------------------------------------------------------------------------------------------------

    def set(self, kind: str, target: str, **parameters: Parameter) -> None:
        """Switch a fault on, or carry out an action.

        Raises:
            FaultError: unknown kind, target or parameter.
        """
        if kind in ACTIONS:
            self._act(kind, target, parameters)
        else:
            if (kind, target) in self._active:
                self.clear(kind, target)
            self._switch(kind, target, True, parameters)
            self._active[kind, target] = ActiveFault(kind, target, parameters)
        self._changed()

    def clear(self, kind: str, target: str) -> None:
        """Switch a fault off.

        Raises:
            FaultError: unknown kind or target.
        """
        known = self._active.pop((kind, target), None)
        self._switch(kind, target, False, known.parameters if known else {})
        self._changed()

    def clear_all(self) -> None:
        """Switch every fault off."""
        for fault in list(self._active.values()):
            self.clear(fault.kind, fault.target)

    def active(self) -> tuple[ActiveFault, ...]:
        """Faults that are on, oldest first."""
        return tuple(self._active.values())

    # -- carrying out ------------------------------------------------------------------------------------------------

    def _switch(self, kind: str, target: str, on: bool, given: Mapping[str, Parameter]) -> None:
        if kind == "blackout":
            self._blackout(target, on)
        elif kind == "no_transfer":
            self.plant.transfer.enabled = not on
            self.plant.touch()
        elif target in self.plant.switches and kind in SWITCH_KINDS:
            self._switch_fault(self.plant.switches[target], kind, on, given)
        elif target in self.plant.cooling and kind in LOOP_KINDS:
            self._loop_fault(self.plant.cooling[target], kind, on)
        elif target in self.plant.relays and kind in RELAY_KINDS:
            self._relay_fault(self.plant.relays[target], kind, on, given)
        elif target in self.devices and kind in DEVICE_KINDS:
            self._device_fault(target, kind, on, given)
        elif target in self._links and kind == "dead":
            (self.dead_links.add if on else self.dead_links.discard)(target)
        elif kind in MACHINE_KINDS or kind in SERVER_KINDS:
            for machine in self._machines(kind, target):
                self._machine_fault(machine, kind, on, given)
        else:
            raise FaultError(
                f"fault {kind!r} on {target!r}: no such kind for such a target; devices {', '.join(DEVICE_KINDS)}; "
                f"switches {', '.join(SWITCH_KINDS)}; machines {', '.join((*MACHINE_KINDS, *SERVER_KINDS))}; "
                f"cooling loops {', '.join(LOOP_KINDS)}; relays {', '.join(RELAY_KINDS)}; grid connections blackout"
            )

    @staticmethod
    def _loop_fault(loop: LoopBody, kind: str, on: bool) -> None:
        if kind == "no_flow":
            loop.blocked = on
        else:
            loop.sensor_broken = on

    @staticmethod
    def _relay_fault(relay: RelayBody, kind: str, on: bool, given: Mapping[str, Parameter]) -> None:
        if kind == "swapped":
            if on or given:
                relay.swap(_text(given, "first"), _text(given, "second"))
        elif on:
            relay.settings[_text(given, "name")] = int(_number(given, "value", 0, 0xFFFF))
        else:
            relay.settings.pop(_text(given, "name"), None)

    def _blackout(self, target: str, on: bool) -> None:
        sources = [n.id for n in self.plant.site.nodes if isinstance(n, GridConnection)]
        wanted = sources if target == "*" else [target]
        for source in wanted:
            if source not in sources:
                raise FaultError(f"blackout: saw {source!r}, expected a grid connection ({', '.join(sources)}) or *")
            (self.plant.blackout if on else self.plant.restore)(source)

    def _device_fault(self, device: str, kind: str, on: bool, given: Mapping[str, Parameter]) -> None:
        faults = self.devices[device]
        match kind:
            case "dead":
                faults.dead = on
            case "slow":
                faults.slow_s = _number(given, "seconds", 0.0, 60.0) if on else 0.0
            case "exception":
                faults.exception = int(_number(given, "code", 1, 11)) if on else None
            case "nonsense":
                faults.nonsense = on
            case "phase_lost" | "ct_reversed":
                self._phase_fault(device, kind, on, given)
            case "clock":
                faults.clock_s = _number(given, "seconds", -50_400.0, 50_400.0) if on else 0.0
            case "profile_empty":
                faults.profile_empty = on
            case _:
                point = next((r for r in self.plant.registers.values() if r.point.device == device), None)
                if on and point is None:
                    raise FaultError(f"frozen: {device} measures no metering point, so it has nothing to freeze")
                faults.frozen = point.values(self.plant.wall_ms()) if on and point is not None else None

    def _phase_fault(self, device: str, kind: str, on: bool, given: Mapping[str, Parameter]) -> None:
        phase = int(_number(given, "phase", 1, 3)) - 1 if on or given else None
        for registers in self._measured(kind, device):
            phases = registers.lost if kind == "phase_lost" else registers.reversed
            if on and phase is not None:
                phases.add(phase)
                registers.events["phase_loss"] += kind == "phase_lost"
            else:
                phases -= {phase} if phase is not None else phases
        self.plant.touch()

    def _measured(self, kind: str, device: str) -> list[Registers]:
        measured = [r for r in self.plant.registers.values() if r.point.device == device]
        if not measured:
            raise FaultError(f"{kind}: saw {device!r}, expected a meter that measures a metering point")
        return measured

    @staticmethod
    def _switch_fault(switch: SwitchBody, kind: str, on: bool, given: Mapping[str, Parameter]) -> None:
        match kind:
            case "welded":
                switch.faults.welded = on
            case "stuck_open":
                switch.faults.stuck_open = on
            case "aux_lies":
                switch.faults.aux_shows = _position(given) if on else None
            case "reclose":
                switch.faults.reclose_s = _number(given, "after_s", 0.0, 3600.0) if on else None
                switch.faults.reclose_times = int(_number(given, "times", 1, 1000, 1)) if on else 0
            case "local":
                switch.faults.local = on
            case "withdrawn":
                switch.faults.withdrawn = on
            case _:
                switch.faults.trip_circuit_broken = on

    def _machine_fault(self, machine: Machine, kind: str, on: bool, given: Mapping[str, Parameter]) -> None:
        if kind == "refuses_sleep":
            machine.refuses_sleep = on
        elif kind == "wakes_itself":
            machine.wakes_itself_s = _number(given, "after_s", 0.0, 86_400.0, 0.0) if on else None
        elif self._machine_server is None:
            raise FaultError(f"{kind} on {machine.id}: no servers run, so there is nothing that could be {kind}")
        else:
            self._machine_server(machine.id, kind, on, given)

    def _machines(self, kind: str, target: str) -> tuple[Machine, ...]:
        if target in self.plant.machines:
            return (self.plant.machines[target],)
        if target in self.plant.machines_of_group:
            return self.plant.machines_of_group[target]
        raise FaultError(f"fault {kind!r}: saw target {target!r}, expected a machine (group/number) or a miner group")

    def _exchange(self, kind: str, target: str, given: Mapping[str, Parameter]) -> None:
        measured = self._measured(kind, target)
        reading_wh = _number(given, "reading_wh", 0.0, 1e15, 0.0) if kind == "exchange" else 0.0
        for registers in measured:
            for energy in (
                registers.imported,
                registers.exported,
                registers.reactive_imported,
                registers.reactive_exported,
            ):
                energy.opening = energy.added = 0.0
            registers.imported.opening = reading_wh
            registers.events["reset"] += 1
            if kind == "exchange":
                registers.events = dict.fromkeys(EVENTS, 0)
                registers.clock_offset_ms = 0
                registers.serial_number = _text(given, "serial")

    def _act(self, kind: str, target: str, given: Mapping[str, Parameter]) -> None:
        plant = self.plant
        if kind == "write":
            relay = plant.relays.get(target)
            if relay is None:
                raise FaultError(f"write: saw {target!r}, expected a relay device ({', '.join(plant.relays)})")
            relay.set_output(_text(given, "output"), bool(given.get("level", True)), plant.now_s)
        elif kind in {"exchange", "counter_reset"}:
            self._exchange(kind, target, given)
        elif kind in {"cover_opened", "clock_set"}:
            moved_ms = round(1000 * _number(given, "seconds", -1e9, 1e9)) if kind == "clock_set" else 0
            for registers in self._measured(kind, target):
                registers.events["clock_set" if kind == "clock_set" else "cover_open"] += 1
                registers.clock_offset_ms += moved_ms
        elif kind == "load":
            if target not in plant.loads:
                raise FaultError(f"load: saw {target!r}, expected a load node")
            plant.loads[target].share = _number(given, "share", 0.0, 2.0)
        elif kind in {"outside", "supply_temp"}:
            self._temperature(kind, target, _number(given, "temp_c", -60.0, 120.0))
        elif kind == "generation":
            if target not in plant.generation_w:
                raise FaultError(f"generation: saw {target!r}, expected a generator or storage node")
            plant.set_generation(target, _number(given, "power_w", -5e9, 5e9))
        elif target not in plant.switches:
            raise FaultError(f"{kind}: saw {target!r}, expected a switch ({', '.join(plant.switches)})")
        else:
            self._move(kind, target, given)

    def _move(self, kind: str, switch: str, given: Mapping[str, Parameter]) -> None:
        plant = self.plant
        if kind in {"open", "close"}:
            plant.operate(switch, kind == "close")
        elif kind == "trip":
            plant.switches[switch].trip(plant.now_s, lockout=bool(given.get("lockout", False)))
        elif kind == "reset":
            plant.switches[switch].reset()
        else:
            self._saon(kind, switch, given)

    def _temperature(self, kind: str, target: str, temp_c: float) -> None:
        cooling = self.plant.cooling
        wanted = list(cooling) if kind == "outside" and target == "*" else [target]
        if not set(wanted) <= cooling.keys():
            raise FaultError(
                f"{kind}: saw {target!r}, expected a cooling loop ({', '.join(cooling) or 'there is none'})"
            )
        for name in wanted:
            if kind == "outside":
                cooling[name].outside_c = temp_c
            else:
                cooling[name].supply_c = temp_c

    def _saon(self, kind: str, switch: str, given: Mapping[str, Parameter]) -> None:
        plant = self.plant
        if kind == "saon_reset":
            plant.wiring.saon_reset(switch)
            return
        plant.switches[switch].drive(False, plant.now_s, deliberate=False)
        plant.wiring.saon_operated(switch, plant.now_s, _number(given, "contact_s", 0.01, 60.0, SAON_CONTACT_S))


def _number(given: Mapping[str, Parameter], name: str, low: float, high: float, default: float | None = None) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise FaultError(f"{name}: saw {value!r}, expected a number from {low:g} to {high:g}")
    return float(value)


def _text(given: Mapping[str, Parameter], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise FaultError(f"{name}: saw {value!r}, expected a name")
    return value


def _position(given: Mapping[str, Parameter]) -> Position:
    value = given.get("shows")
    allowed = (Position.OPEN, Position.CLOSED, Position.MOVING, Position.FAULTY)
    if value not in {p.value for p in allowed}:
        raise FaultError(f"shows: saw {value!r}, expected one of {', '.join(p.value for p in allowed)}")
    return Position(value)
