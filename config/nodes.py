"""Nodes of the electrical graph: what feeds what, and how each switch may be moved.

``fed_from`` points upstream. A section breaker joins two buses with ``between`` instead. Loads are leaves. Which
switch may be an output is not written here: it is computed (:mod:`config.graph`, :mod:`config.check`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from config.base import Id, Kilowatt, Model, Seconds

LoadKind = Literal["mining", "cooling", "protected", "tenant", "other"]
Actuator = Literal["shunt_trip", "undervoltage_release", "contactor_no", "contactor_nc", "latching", "motor_operator"]
CloseRule = Literal["never", "by_person", "auto"]


class NodeBase(Model):
    """Common to all nodes."""

    id: Id
    name: str | None = None
    dispatch_name: str | None = None
    """The name the dispatcher says aloud, if it has one (operational talk uses these names only)."""
    fed_from: tuple[Id, ...] = ()
    voltage_kv: float | None = Field(default=None, gt=0, le=1200)


class GridConnection(NodeBase):
    """Where the grid ends and the site begins; a source."""

    type: Literal["grid_connection"]
    permitted_kw: Kilowatt | None = None
    operational_control: str | None = None
    """Who commands the equipment (оперативное управление)."""
    operational_jurisdiction: str | None = None
    """Who must agree (оперативное ведение)."""


class Line(NodeBase):
    """Cable or overhead line."""

    type: Literal["line"]
    length_km: float | None = Field(default=None, gt=0)
    r_ohm_per_km: float | None = Field(default=None, ge=0)


class Transformer(NodeBase):
    """Transformer; passport data give its losses."""

    type: Literal["transformer"]
    rated_kva: float | None = Field(default=None, gt=0)
    no_load_loss_kw: float | None = Field(default=None, ge=0)
    load_loss_kw: float | None = Field(default=None, ge=0)


class Bus(NodeBase):
    """Bus section or switchboard."""

    type: Literal["bus"]


class Input(Model):
    """One binary input of a device."""

    device: Id
    input: str
    inverted: bool = False


def _one_or_more(value: object) -> object:
    """One input stands for a list of one."""
    return value if value is None or isinstance(value, list | tuple) else [value]


Inputs = Annotated[
    tuple[Input, ...],
    Field(min_length=1, max_length=8),
    BeforeValidator(_one_or_more, json_schema_input_type=Input | tuple[Input, ...]),
]
"""One input, or several of which the worst counts."""


class Control(Model):
    """How a switch is driven. A pulse is always timed by the device, never by two writes of software."""

    device: Id
    output: str
    pulse_ms: int | None = Field(default=None, ge=20, le=10_000)
    close_output: str | None = None
    """Second coil that closes, for latching and motor-operated switches."""
    max_attempts: int = Field(default=2, ge=1, le=5)
    min_interval_s: Seconds = 5.0


class PositionInputs(Model):
    """Two-bit position: one auxiliary contact for open, one for closed."""

    open: Input
    closed: Input


class Readiness(Model):
    """Points that say whether the switch would really move; each optional.

    Where a point is wired to several inputs (two protection relays, two trip coils) it is bad as soon as one is bad,
    and good only when all are known to be good.
    """

    remote: Inputs | None = None
    lockout: Inputs | None = None
    protection_trip: Inputs | None = None
    trip_circuit_ok: Inputs | None = None
    spring_charged: Inputs | None = None
    control_voltage_ok: Inputs | None = None
    service_position: Inputs | None = None
    trips_total: Input | None = None
    """Input whose counter, in the module, counts the operations of the switch."""

    def wired(self) -> Iterator[tuple[str, Input]]:
        """All inputs that are wired, with the point each belongs to."""
        for name in type(self).model_fields:
            found: Input | tuple[Input, ...] | None = getattr(self, name)
            for item in (found,) if isinstance(found, Input) else found or ():
                yield name, item


class SaonStage(Model):
    """САОН (ЖААА) membership of a feeder: read, never driven. There is no output here by construction."""

    stage: int = Field(ge=1, le=32)
    state: Literal["in", "out", "blocked"] = "in"
    operated: Input | None = None
    """What keeps a contact of 100 ms until it is read: a polled momentary contact is missed."""
    operated_by: Literal["latched", "counter", "timestamped", "polled"] | None = None
    """``latched``: a latching relay stands before the input, or the module latches it. ``counter``: the module counts.
    Not given: as the module's profile says; refused where that keeps nothing."""


class Switch(NodeBase):
    """Circuit breaker, contactor, PDU outlet or section breaker."""

    type: Literal["switch"]
    role: Literal["incomer", "section", "feeder", "outlet"] = "feeder"
    between: tuple[Id, Id] | None = None
    """For ``role: section``: the two buses it joins."""
    normal: Literal["open", "closed"] = "closed"
    avr: bool = False
    """Closed by automatic transfer (АВР) when a bus loses its feed."""
    actuator: Actuator | None = None
    close: CloseRule = "by_person"
    control: Control | None = None
    """Present where the agent may shed with this switch. Absent: the agent only knows of it."""
    position: PositionInputs | None = None
    readiness: Readiness = Readiness()
    reclose_guard_s: Seconds = 10.0
    """Longer than АПВ, ЧАПВ and АВР: an opening is believed only when it lasted this long."""
    min_on_s: Seconds = 0.0
    min_off_s: Seconds = 0.0
    max_operations_per_hour: int | None = Field(default=None, ge=1)
    proof_test_months: int = Field(default=12, ge=1, le=36)
    saon: tuple[SaonStage, ...] = ()
    upstream_alternative: Id | None = None
    """Breaker to use when this one does not open; only if named here."""

    @model_validator(mode="after")
    def _shape(self) -> Switch:
        if (self.role == "section") != (self.between is not None):
            raise ValueError("role section needs 'between: [bus, bus]', and only that role has it")
        if self.role == "section" and self.fed_from:
            raise ValueError("a section switch has 'between', not 'fed_from'")
        if self.control is not None and self.actuator is None:
            raise ValueError("a switch with 'control' needs its 'actuator' (its nature decides what a write does)")
        return self


class Load(NodeBase):
    """Something that consumes."""

    type: Literal["load"]
    kind: LoadKind
    rated_kw: Kilowatt
    tenant: Id | None = None
    cooling_loop: Id | None = None
    """Mining: the loop that cools it. Cooling: the loop it belongs to."""
    emergency: bool = False
    """Part of the emergency reservation: never moves by our hand."""


class Generator(NodeBase):
    """On-site generation; a source when it runs."""

    type: Literal["generator"]
    rated_kw: Kilowatt
    source: Literal["own", "own_renewable"] = "own"
    metering_point: Id | None = None


class Storage(NodeBase):
    """Battery. Discharging is not a reduction of mining."""

    type: Literal["storage"]
    rated_kw: Kilowatt
    capacity_kwh: float = Field(gt=0)
    metering_point: Id | None = None


class Compensation(NodeBase):
    """Capacitor bank or filter: reactive power that stays when the load goes."""

    type: Literal["compensation"]
    rated_kvar: float
    position: PositionInputs | None = None


Node = Annotated[
    GridConnection | Line | Transformer | Bus | Switch | Load | Generator | Storage | Compensation,
    Field(discriminator="type"),
]
