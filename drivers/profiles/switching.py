"""Parts of a relay's, remote I/O's or breaker's profile: outputs, inputs, temperatures, its own watchdog and settings.

Nothing here can describe a toggle, a pulse made of two writes, or a reboot: such commands do not exist in this product.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.base import Model
from drivers.profiles.fields import Address, BitTable, RegisterField, Table, WordOrder

TerminalId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
Actuator = Literal["shunt_trip", "undervoltage_release", "contactor_no", "contactor_nc", "latching", "motor_operator"]
Word = Annotated[int, Field(ge=0, le=0xFFFF)]
Bit = Annotated[int, Field(ge=0, le=15)]


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
    """One output: a coil, a register (or one bit of it), or a command of the device's command interface.

    A coil and a register are commanded to a level. A command opens or closes a breaker whose own electronics time the
    impulse of its coils.
    """

    id: TerminalId
    table: Literal["coil", "holding", "command"] = "coil"
    addr: Address | None = None
    """Coil, or register; absent for a command."""
    bit: Bit | None = None
    """``holding``: the output is this bit of the register; its neighbours are kept as they are."""
    on: Word = 1
    off: Word = 0
    """``holding`` without ``bit``: what the register is set to."""
    read_addr: Address | None = None
    """``holding``: register that shows the state, where it is another than the one written."""
    pulse: DevicePulse | None = None
    """``None``: this device cannot time a pulse, so it may not drive a shunt trip."""
    code: Word | None = None
    """``command``: the command's code."""

    @model_validator(mode="after")
    def _shape(self) -> Output:
        if (self.table == "command") == (self.addr is not None):
            raise ValueError("output: 'addr' belongs to coils and registers, and a command has none")
        if (self.table == "command") != (self.code is not None):
            raise ValueError("output: 'code' belongs to table: command, and only there")
        if self.table != "holding" and (self.bit is not None or self.read_addr is not None):
            raise ValueError("output: 'bit' and 'read_addr' belong to table: holding")
        if self.table != "coil" and self.pulse is not None:
            raise ValueError("output: only a coil starts a pulse")
        if self.on == self.off:
            raise ValueError(f"output: on and off are both {self.on}")
        return self

    @property
    def holds_level(self) -> bool:
        """True where it stays as it was commanded: what contactors and undervoltage releases need."""
        return self.table != "command"

    @property
    def times_itself(self) -> bool:
        """True where the device ends the impulse: what trip coils need."""
        return self.pulse is not None or self.table == "command"


class EventCounter(Model):
    """Counter of changes of one input."""

    table: Table
    addr: Address
    words: int = Field(default=2, ge=1, le=2)
    word_order: WordOrder = "big"
    run_coil: Address | None = None
    """Coil that reads 1 while the counter counts; a stopped counter says nothing."""


class BinaryInput(Model):
    """One binary input."""

    id: TerminalId
    table: BitTable | Table = "discrete"
    addr: Address
    bit: Bit | None = None
    """For an input that is one bit of a register."""
    latched: bool = False
    """True where the device keeps a short contact until it has been read or cleared."""
    counter: EventCounter | None = None

    @model_validator(mode="after")
    def _bit(self) -> BinaryInput:
        if (self.table in {"holding", "input"}) != (self.bit is not None):
            raise ValueError("input: 'bit' belongs to an input in a register (table holding or input), and only there")
        return self


class Temperature(RegisterField):
    """One input that measures a temperature. Value in °C = raw × ``scale``.

    A sensor that is broken or not there shows a sentinel, no number, or one outside ``min`` to ``max``: no value.
    """

    id: TerminalId
    min: float = Field(default=-60.0, ge=-273.15, le=1000)
    max: float = Field(default=200.0, ge=-273.15, le=1000)

    @model_validator(mode="after")
    def _number(self) -> Temperature:
        if self.type in {"str", "enum", "sum", "bits"}:
            raise ValueError(f"type: seen {self.type}, expected a type that is a number")
        if self.min >= self.max:
            raise ValueError(f"min: {self.min} is not below max {self.max}; swap the two")
        return self

    def plausible(self, celsius: float) -> bool:
        """Can a sensor of this input say so?"""
        return self.min <= celsius <= self.max


class CommandInterface(Model):
    """A block of registers into which a command is written at once, and where its result is read.

    The layout of Schneider's breakers: code, length in bytes, destination, security type, four characters of password,
    parameters; result: last code, status. Source: maker's command interface pages, see the profiles.
    """

    addr: Address
    """First of the registers written, by one function 16."""
    words: int = Field(default=20, ge=6, le=123)
    length_bytes: int = Field(ge=10, le=30)
    destination: Word
    security: Word
    password: Literal["none", "required"]
    result_addr: Address
    """Register of the last command's code; the next one is the status."""
    in_progress: Word = 3
    """Status while the command runs."""
    within_ms: int = Field(default=1000, ge=100, le=30_000)
    """The status has left ``in_progress`` by then."""


class Setting(Model):
    """One setting of the device that decides whether its outputs may be used, and what it has to be.

    A site file can demand another value: ``options: {expect_<id>: "30"}`` of the device (raw number), or ``any``.
    """

    id: TerminalId
    table: Table | Literal["coil"] = "holding"
    addr: Address
    values: tuple[Word, ...] = ()
    """Good raw values; or a range:"""
    minimum: Word | None = None
    maximum: Word | None = None
    optional: bool = False
    """True where some versions of the device do not have it (answered by "illegal data address")."""
    for_output: TerminalId | None = None
    """Matters only where this output is used."""
    for_actuators: tuple[Actuator, ...] = ()
    """With ``for_output``: only where it drives one of these; what is safe depends on what hangs on the output."""
    instead_of: TerminalId | None = None
    """Matters only where the device does not have that other setting."""
    for_input: TerminalId | None = None
    """Matters only where this input is used."""
    for_counter: TerminalId | None = None
    """Matters only where the counter of this input is used."""
    says: str
    """What it means, for a person."""
    todo: str
    """What to do where it is wrong."""

    @model_validator(mode="after")
    def _expectation(self) -> Setting:
        if bool(self.values) == (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"setting {self.id}: give either values or minimum/maximum")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"setting {self.id}: minimum {self.minimum} is above maximum {self.maximum}")
        return self

    @property
    def expected(self) -> str:
        """For people: ``0``, ``1 or 3``, ``1 to 60``, ``at least 1``."""
        if self.values:
            return " or ".join(str(value) for value in self.values)
        if self.maximum is None:
            return f"at least {self.minimum}"
        return f"at most {self.maximum}" if self.minimum is None else f"{self.minimum} to {self.maximum}"

    def good(self, value: int) -> bool:
        """Is this raw value in order?"""
        if self.values:
            return value in self.values
        return (self.minimum or 0) <= value <= (0xFFFF if self.maximum is None else self.maximum)

    @property
    def example(self) -> int:
        """A good value, for simulated devices."""
        if self.values:
            return self.values[0]
        return self.minimum if self.minimum is not None else (self.maximum or 0)


class Watchdog(Model):
    """What the device does when its master goes silent."""

    present: bool
    note: str = ""
