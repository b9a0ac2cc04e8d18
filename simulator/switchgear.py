"""One switch as a body: contacts that need time to travel, coils that act by the switch's nature, and what can fail.

``closed`` is the truth of the main contacts: power follows it. What the auxiliary contacts say may differ when a
fault says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from config.nodes import Switch
from drivers.capabilities import Position
from simulator.latencies import Latencies


@dataclass(slots=True)
class SwitchFaults:
    """Faults of one switch, changed at run time."""

    welded: bool = False
    """The main contacts do not part, whatever the coil does; auxiliary contacts tell the truth (closed)."""
    stuck_open: bool = False
    """It does not close."""
    aux_shows: Position | None = None
    """The auxiliary contacts show this whatever is true."""
    reclose_s: float | None = None
    """АПВ: closes by itself that long after any opening."""
    reclose_times: int = 0
    """How often АПВ still tries."""
    local: bool = False
    """The selector stands in Local: coils are not obeyed."""
    trip_circuit_broken: bool = False
    """The trip coil's circuit is broken, and its supervision says so."""
    withdrawn: bool = False
    """The truck is out of its service position, and its contact says so."""


@dataclass(slots=True)
class SwitchBody:
    """State of one switch on the plant's clock."""

    spec: Switch
    latencies: Latencies
    closed: bool
    coil: bool = False
    close_coil: bool = False
    protection_trip: bool = False
    lockout: bool = False
    deliberate: bool = False
    """The last opening was commanded by a coil or a person, not by protection."""
    opened_s: float | None = None
    faults: SwitchFaults = field(default_factory=SwitchFaults)
    operations: int = 0
    openings: int = 0
    _target: bool | None = None
    _target_s: float = 0.0
    _spring_s: float = float("-inf")

    @classmethod
    def at_normal(cls, spec: Switch, latencies: Latencies) -> SwitchBody:
        """As it stands normally, with the coil that keeps it there."""
        closed = spec.normal == "closed"
        body = cls(spec=spec, latencies=latencies, closed=closed)
        body.coil = coil_for(spec, closed)
        return body

    # -- what is asked of it ---------------------------------------------------------------------------------------

    def on_coil(self, level: bool, now_s: float, *, close_coil: bool = False) -> None:
        """The relay contact that drives it changed."""
        if close_coil:
            self.close_coil = level
        else:
            self.coil = level
        wanted = self._wanted_by_coils(level, close_coil)
        if wanted is None:
            return
        # An undervoltage release falls out in Local as well; nothing else obeys a remote coil there.
        if self.faults.local and self.spec.actuator != "undervoltage_release":
            return
        if not wanted and self.faults.trip_circuit_broken:
            return
        self.drive(wanted, now_s, deliberate=True)

    def drive(self, close: bool, now_s: float, *, deliberate: bool) -> bool:
        """Start a movement; True where the contacts began to travel."""
        heading = self.closed if self._target is None else self._target
        if close == heading:
            return False
        if close and (self.faults.stuck_open or self.lockout or not self._held() or now_s < self._spring_s):
            return False
        if not close and self.faults.welded:
            return False
        kind = self.spec.actuator or "by_hand"
        times = self.latencies.actuators[kind]
        self._target = close
        self._target_s = now_s + (times.close_s if close else times.open_s)
        if not close:
            self.deliberate = deliberate
        return True

    def trip(self, now_s: float, *, lockout: bool) -> None:
        """Feeder protection opens it."""
        self.protection_trip = True
        self.drive(False, now_s, deliberate=False)
        self.lockout = self.lockout or lockout

    def reset(self) -> None:
        """A person acknowledges the protection relay."""
        self.protection_trip = False
        self.lockout = False

    # -- time ------------------------------------------------------------------------------------------------------

    @property
    def next_s(self) -> float | None:
        """When it changes by itself next."""
        due = [] if self._target is None else [self._target_s]
        if self._reclose_pending() and self.opened_s is not None and self.faults.reclose_s is not None:
            due.append(self.opened_s + self.faults.reclose_s)
        return min(due, default=None)

    def advance(self, now_s: float) -> bool:
        """Finish travel that is due; True where the main contacts changed."""
        changed = False
        if self._target is not None and now_s >= self._target_s:
            changed = self._target != self.closed
            self.closed, self._target = self._target, None
            self.operations += changed
            if self.closed:
                self.opened_s = None
                if self._has_spring():
                    self._spring_s = self._target_s + self.latencies.spring.charge_s.value
            else:
                self.opened_s = self._target_s
                self.openings += changed
        if (
            self._reclose_pending()
            and self.opened_s is not None
            and self.faults.reclose_s is not None
            and now_s >= self.opened_s + self.faults.reclose_s
        ):
            self.faults.reclose_times -= 1
            self.drive(True, self.opened_s + self.faults.reclose_s, deliberate=False)
        return changed

    # -- what it shows -----------------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """What the auxiliary contacts show."""
        if self.faults.aux_shows is not None:
            return self.faults.aux_shows
        if self._target is not None:
            return Position.MOVING
        return Position.CLOSED if self.closed else Position.OPEN

    def aux(self) -> tuple[bool, bool]:
        """(open contact made, closed contact made)."""
        position = self.position
        return (position in {Position.OPEN, Position.FAULTY}, position in {Position.CLOSED, Position.FAULTY})

    def spring_charged(self, now_s: float) -> bool:
        """True where stored energy for a closing is there."""
        return now_s >= self._spring_s

    def _has_spring(self) -> bool:
        return self.spec.actuator in {"shunt_trip", "undervoltage_release"}

    def _held(self) -> bool:
        """An undervoltage release that is not fed prevents closing; so does a trip coil that is still on."""
        if self.spec.actuator == "undervoltage_release" and self.spec.control is not None:
            return self.coil
        return not (self.spec.actuator == "shunt_trip" and self.coil)

    def _reclose_pending(self) -> bool:
        return not self.closed and self._target is None and self.faults.reclose_times > 0

    def _wanted_by_coils(self, level: bool, close_coil: bool) -> bool | None:
        match self.spec.actuator:
            case "contactor_no":
                return level
            case "contactor_nc":
                return not level
            case "undervoltage_release":
                if close_coil:
                    return True if level else None
                return None if level else False
            case "shunt_trip" | "latching" | "motor_operator":
                return close_coil if level else None
            case _:
                return None


def coil_for(spec: Switch, closed: bool) -> bool:
    """Level of the coil that goes with a position: held contactors and undervoltage releases need one."""
    match spec.actuator:
        case "contactor_no" | "undervoltage_release":
            return closed
        case "contactor_nc":
            return not closed
        case _:
            return False
