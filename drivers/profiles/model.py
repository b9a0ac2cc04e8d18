"""What a profile may say: frozen models, every field checked where it enters.

Addresses are 0-based, as on the wire. A value in SI base units is ``raw * scale``, exactly (rational arithmetic).
A profile of kind ``meter`` has no field in which a write could be described: meters are never written.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from config.base import Model
from drivers.profiles.fields import Address, FieldType, HexWords, Order, Table
from drivers.profiles.loadcurve import LoadProfile
from drivers.profiles.points import Check, Identify, Live, Point, Variable
from drivers.profiles.switching import BinaryInput, CommandInterface, Output, Setting, Temperature, Watchdog

__all__ = [
    "Check",
    "Defaults",
    "FixedRegisters",
    "Forbidden",
    "Identify",
    "LinkRules",
    "Live",
    "LoadProfile",
    "MeterProfile",
    "Point",
    "Profile",
    "ProfileBase",
    "RelayProfile",
    "SerialDefaults",
    "Simulate",
    "Source",
    "Variable",
    "Vector",
]


class Source(Model):
    """Where the facts come from, for someone who wants to check them."""

    name: str
    note: str = ""


class Forbidden(Model):
    """A range of registers, first and last included."""

    table: Table
    first: Address
    last: Address

    @model_validator(mode="after")
    def _forwards(self) -> Forbidden:
        if self.last < self.first:
            raise ValueError(f"last: seen {self.last}, expected at least first ({self.first}); swap the two")
        return self

    def meets(self, table: str, first: int, end: int) -> bool:
        """True where [first, end) has a register of the range."""
        return self.table == table and first <= self.last and end > self.first


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
    """Registers that must never be read."""
    allowed: tuple[Forbidden, ...] = ()
    """Registers that exist; nothing outside may be read. Empty: no such list is known."""
    functions: tuple[int, ...] = (3, 4)
    """Function codes the device knows; the table of each point decides which of them is used."""

    def barred(self, table: str, first: int, end: int) -> bool:
        """True where a request for [first, end) would read what is forbidden or not known to exist."""
        if any(f.meets(table, first, end) for f in self.forbidden):
            return True
        if not self.allowed:
            return False
        return not any(a.table == table and a.first <= first and end - 1 <= a.last for a in self.allowed)


class SerialDefaults(Model):
    """How the device's serial port is set when it leaves the factory."""

    baud: int = Field(ge=300, le=1_000_000)
    parity: Literal["N", "E", "O"]
    stop: Literal[1, 2] = 1
    unit: int | None = Field(default=None, ge=1, le=247)
    note: str = ""


class Defaults(Model):
    """Filled into points that do not say otherwise."""

    table: Table = "holding"
    type: FieldType | None = None
    word_order: Order = "big"
    byte_order: Order = "big"
    confirmed: int = Field(default=1, ge=0, le=9)


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


_POINT_DEFAULTS = ("table", "type", "word_order", "byte_order", "confirmed")
_READ_DEFAULTS = ("table", "word_order", "byte_order")


def _fill(data: Any) -> Any:
    """Put ``defaults`` into points, identity reads and vectors that leave the field out."""
    if not isinstance(data, dict):
        return data
    defaults = data.get("defaults", {})
    if not isinstance(defaults, dict):
        return data
    out = dict(data)
    for name, keys in (("points", _POINT_DEFAULTS), ("variables", _READ_DEFAULTS), ("identify", _READ_DEFAULTS)):
        rows = data.get(name)
        if isinstance(rows, list):
            given = {k: defaults[k] for k in keys if k in defaults}
            out[name] = [{**given, **row} if isinstance(row, dict) else row for row in rows]
    return out


class MeterProfile(ProfileBase):
    """A meter: points and nothing that could be written."""

    kind: Literal["meter"]
    defaults: Defaults = Defaults()
    transports: tuple[Literal["rtu", "tcp"], ...] = ()
    serial: SerialDefaults | None = None
    ratio_applied_in: Literal["meter", "agent", "unknown"] = "unknown"
    """Where transformer ratios are applied: ``meter``: the registers hold primary values. ``agent``: they hold
    secondary values, and the passport of the metering point brings the ratios. As in the site file."""
    points: tuple[Point, ...] = Field(min_length=1)
    variables: tuple[Variable, ...] = ()
    identify: tuple[Identify, ...] = ()
    checks: tuple[Check, ...] = ()
    live: tuple[Live, ...] = ()
    load_profile: LoadProfile | None = None
    """The meter's own clocked profile, where it can be read without writing anything."""
    tests: tuple[Vector, ...] = Field(min_length=1)
    simulate: Simulate = Simulate()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        return _fill(data)

    def point(self, point_id: str) -> Point:
        """The point (or variable) of that id.

        Raises:
            KeyError: the profile has no such point.
        """
        found: Point | None = next((p for p in self.points if p.id == point_id), None)
        found = found or next((v for v in self.variables if v.id == point_id), None)
        if found is not None:
            return found
        raise KeyError(f"{self.id} has no point {point_id}; it has {', '.join(p.id for p in self.points)}")

    @property
    def readable(self) -> tuple[Point, ...]:
        """Points and the variables they are scaled by: everything a plan may read."""
        return (*self.points, *self.variables)

    @property
    def point_ids(self) -> tuple[str, ...]:
        """All points, in the order of the file."""
        return tuple(p.id for p in self.points)


class RelayProfile(ProfileBase):
    """Relay board, remote I/O or breaker controller."""

    kind: Literal["relay", "breaker"]
    outputs: tuple[Output, ...] = ()
    inputs: tuple[BinaryInput, ...] = ()
    temperatures: tuple[Temperature, ...] = ()
    command_interface: CommandInterface | None = None
    watchdog: Watchdog
    settings: tuple[Setting, ...] = ()
    """What is read back before its outputs may be used; empty where nothing can be read over the bus."""

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
