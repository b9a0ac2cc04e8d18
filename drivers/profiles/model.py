"""What a profile may say: frozen models, every field checked where it enters.

Addresses are 0-based, as on the wire. A value in SI base units is ``raw * scale``, exactly (rational arithmetic).
A profile of kind ``meter`` has no field in which a write could be described: meters are never written.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from config.base import Model
from drivers.profiles.fields import Address, BitTable, FieldType, HexWords, RegisterField, Table, WordOrder
from wire.points import COUNTERS, base_point, is_point, unit_of


class Source(Model):
    """Where the facts come from, for someone who wants to check them."""

    name: str
    note: str = ""


class Forbidden(Model):
    """A range of registers that must never be read, first and last included."""

    table: Table
    first: Address
    last: Address


class LinkRules(Model):
    """How the device wants to be asked."""

    min_gap_ms: int = Field(default=0, ge=0, le=5000)
    """Quiet time the device needs between two requests."""
    turnaround_ms: int = Field(default=0, ge=0, le=5000)
    """Quiet time after its answer before another unit of a serial line is asked."""
    timeout_ms: int | None = Field(default=None, ge=20, le=30_000)
    """Longer than the link's own time-out for a slow device; ``None``: the link's."""
    max_registers: int = Field(default=125, ge=1, le=125)
    max_hole: int = Field(default=8, ge=0, le=124)
    """Unwanted registers that may be read along to save a request."""
    forbidden: tuple[Forbidden, ...] = ()
    functions: tuple[int, ...] = (3, 4)


class Defaults(Model):
    """Filled into points that do not say otherwise."""

    table: Table = "holding"
    type: FieldType | None = None
    word_order: WordOrder = "big"


class Point(RegisterField):
    """One point of the vocabulary in one device model."""

    id: str
    kind: Literal["gauge", "counter", "text"] = "gauge"
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)
    """Plausible range in SI; outside it the value is suspect."""
    rollover: int | Literal["unknown"] | None = None
    """Counters: raw count at which it starts again from 0, or ``unknown``."""
    resettable: bool = False
    poll: Literal["fast", "normal", "slow", "once"] = "normal"
    atomic_with: tuple[str, ...] = ()
    """Points that must come from the same request."""
    scale_by: tuple[str, ...] = ()
    """Points (ratios) whose values multiply this one."""
    note: str = ""

    @model_validator(mode="after")
    def _meaning(self) -> Point:
        if not is_point(self.id):
            raise ValueError(f"id: seen {self.id!r}, expected a name of the point vocabulary")
        counter = base_point(self.id) in COUNTERS
        if counter != (self.kind == "counter"):
            expected = "counter" if counter else "gauge or text"
            raise ValueError(f"kind: seen {self.kind}, expected {expected} for {self.id}")
        if counter and self.rollover is None:
            raise ValueError("rollover: missing; a counter states the raw count at which it wraps, or 'unknown'")
        if not counter and self.rollover is not None:
            raise ValueError("rollover: only counters have one")
        if isinstance(self.rollover, int) and self.rollover < 2:
            raise ValueError(f"rollover: seen {self.rollover}, expected at least 2")
        text = unit_of(self.id) == ""
        if text != (self.kind == "text"):
            raise ValueError(f"kind: seen {self.kind}, expected {'text' if text else 'gauge or counter'} for {self.id}")
        if self.type == "str" and not text:
            raise ValueError(f"type: str cannot hold {self.id} in {unit_of(self.id)}")
        if text and self.type in {"f32", "f64"}:
            raise ValueError(f"type: seen {self.type}, expected a whole number or str for {self.id}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min} is above max {self.max}")
        return self

    @property
    def unit(self) -> str:
        """SI unit, from the vocabulary."""
        return unit_of(self.id)


class Identify(RegisterField):
    """A read that tells whether the device is what the profile says."""

    expect: tuple[int, ...] = ()
    """Accepted values (after ``scale``)."""
    text: str | None = None
    """Accepted beginning, for ``str``."""
    note: str = ""

    @model_validator(mode="after")
    def _something(self) -> Identify:
        if not self.expect and self.text is None:
            raise ValueError("identify: expected 'expect' (numbers) or 'text'")
        return self


class Check(Model):
    """Self-check: the parts add up to the whole within a tolerance."""

    sum: tuple[str, ...] = Field(min_length=2)
    equals: str
    relative: float = Field(default=0.02, ge=0, le=1)
    absolute: float = Field(default=1.0, ge=0)


class Vector(Model):
    """Golden vector: these registers, as on the wire, decode to these values."""

    table: Table
    addr: Address
    words: HexWords
    expect: dict[str, int | str | None]
    """Exact value in SI as a whole number or decimal text; ``null``: the device says it has no value."""
    note: str = ""

    @property
    def registers(self) -> tuple[int, ...]:
        """The words as numbers, in address order."""
        return tuple(int(self.words[i : i + 4], 16) for i in range(0, len(self.words), 4))


class FixedRegisters(Model):
    """Registers that a simulated device always holds (identity, settings)."""

    table: Table
    addr: Address
    words: HexWords


class Simulate(Model):
    """Hints for whoever imitates the device; nothing here is read by the agent."""

    registers: tuple[FixedRegisters, ...] = ()


class ProfileBase(Model):
    """What every profile has."""

    schema_version: Literal[1] = Field(alias="schema")
    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    version: int = Field(ge=1)
    vendor: str
    model: str
    products: tuple[str, ...] = ()
    status: Literal["verified", "documented", "community"]
    """``verified``: seen on a real device. ``documented``: two agreeing sources, one of them the maker's where it has
    registers. ``community``: fewer."""
    sources: tuple[Source, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()
    link: LinkRules = LinkRules()


def _fill(data: Any) -> Any:
    """Put ``defaults`` into points, identity reads and vectors that leave the field out."""
    if not isinstance(data, dict):
        return data
    defaults = data.get("defaults", {})
    if not isinstance(defaults, dict):
        return data
    out = dict(data)
    for name, keys in (("points", ("table", "type", "word_order")), ("identify", ("table", "word_order"))):
        rows = data.get(name)
        if isinstance(rows, list):
            given = {k: defaults[k] for k in keys if k in defaults}
            out[name] = [{**given, **row} if isinstance(row, dict) else row for row in rows]
    return out


class MeterProfile(ProfileBase):
    """A meter: points and nothing that could be written."""

    kind: Literal["meter"]
    defaults: Defaults = Defaults()
    points: tuple[Point, ...] = Field(min_length=1)
    identify: tuple[Identify, ...] = ()
    checks: tuple[Check, ...] = ()
    tests: tuple[Vector, ...] = Field(min_length=1)
    simulate: Simulate = Simulate()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        return _fill(data)

    def point(self, point_id: str) -> Point:
        """The point of that id.

        Raises:
            KeyError: the profile has no such point.
        """
        for point in self.points:
            if point.id == point_id:
                return point
        raise KeyError(f"{self.id} has no point {point_id}; it has {', '.join(p.id for p in self.points)}")

    @property
    def point_ids(self) -> tuple[str, ...]:
        """All points, in the order of the file."""
        return tuple(p.id for p in self.points)


class DevicePulse(Model):
    """A pulse whose end the device itself times: software cannot leave a trip coil energised."""

    addr: Address
    """Coil written with function 5 to start the pulse."""
    value: Literal["coil", "duration"]
    """``coil``: 0xFF00 starts it, the length is a setting of the device. ``duration``: the value is the length."""
    unit_ms: int | None = Field(default=None, ge=1, le=1000)
    max_ms: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _unit(self) -> DevicePulse:
        if (self.value == "duration") != (self.unit_ms is not None):
            raise ValueError("pulse: 'unit_ms' belongs to value: duration, and only there")
        return self


class Output(Model):
    """One relay output, commanded to a level by function 5 on its coil."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")
    table: Literal["coil"] = "coil"
    addr: Address
    pulse: DevicePulse | None = None
    """``None``: this device cannot time a pulse, so it may not drive a shunt trip."""


class EventCounter(Model):
    """Counter of changes of one input."""

    table: Table
    addr: Address
    words: int = Field(default=2, ge=1, le=2)
    word_order: WordOrder = "big"


class BinaryInput(Model):
    """One binary input."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")
    table: BitTable = "discrete"
    addr: Address
    latched: bool = False
    """True where the device keeps a short contact until it has been read or cleared."""
    counter: EventCounter | None = None


class Watchdog(Model):
    """What the device does when its master goes silent."""

    present: bool
    holding: Address | None = None
    """Register of its time-out, for reading it back; ``None`` where it is not known."""
    unit_ms: int | None = Field(default=None, ge=1)
    off_value: int | None = None
    """Contents that mean "switched off"."""
    status_coil: Address | None = None
    """Coil that reads 1 after the watchdog has acted."""
    note: str = ""


class RelayProfile(ProfileBase):
    """Relay board, remote I/O or breaker controller."""

    kind: Literal["relay", "breaker"]
    outputs: tuple[Output, ...] = ()
    inputs: tuple[BinaryInput, ...] = ()
    watchdog: Watchdog

    def output(self, output_id: str) -> Output:
        """The output of that id.

        Raises:
            KeyError: the profile has none.
        """
        for output in self.outputs:
            if output.id == output_id:
                return output
        raise KeyError(f"{self.id} has no output {output_id}; it has {', '.join(o.id for o in self.outputs) or 'none'}")

    def input(self, input_id: str) -> BinaryInput:
        """The input of that id.

        Raises:
            KeyError: the profile has none.
        """
        for binary in self.inputs:
            if binary.id == input_id:
                return binary
        raise KeyError(f"{self.id} has no input {input_id}; it has {', '.join(i.id for i in self.inputs) or 'none'}")


Profile = Annotated[MeterProfile | RelayProfile, Field(discriminator="kind")]
"""Any profile, told apart by ``kind``."""
