"""A meter as a Modbus unit: its register image is made by the profile, the same file the driver reads it with."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from drivers.profiles.codec import decode_bits, encode, field_bits, lsb_of
from drivers.profiles.fields import READ_FUNCTION, RegisterField
from drivers.profiles.model import MeterProfile, Point, Variable
from simulator.curve import ProfileMemory
from simulator.devices.modbus import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, ModbusError
from simulator.faults import DeviceFaults
from simulator.registers import Value

WHOLE = frozenset({"u16", "i16", "u32", "i32", "u64", "i64", "bcd", "mod10k"})


class MeterUnit:
    """One meter. It has no register that could be written: every write is an illegal function."""

    def __init__(
        self,
        profile: MeterProfile,
        values: Callable[[], Mapping[str, Value]],
        *,
        powered: Callable[[], bool] = lambda: True,
        faults: DeviceFaults | None = None,
        rng: random.Random | None = None,
        memory: ProfileMemory | None = None,
    ) -> None:
        """``memory``: the load profile that it keeps, where its model has one."""
        self.profile = profile
        self.memory = memory
        self._values = values
        self._powered = powered
        self._faults = faults or DeviceFaults()
        self._rng = rng or random.Random(0)
        self._fixed: dict[tuple[str, int], int] = {
            (block.table, block.addr + i): int(block.words[4 * i : 4 * i + 4], 16)
            for block in profile.simulate.registers
            for i in range(len(block.words) // 4)
        }
        self._multipliers = {v.id: self._multiplier(v) for v in profile.variables}
        # A sum is written after its parts: it knows how the whole is spread over them.
        self._order = sorted(profile.readable, key=lambda p: p.type == "sum")
        self._end: dict[str, tuple[int, int]] = {}
        for table in ("holding", "input"):
            spans = [p.span for p in profile.readable if p.table == table]
            spans += [range(addr, addr + 1) for where, addr in self._fixed if where == table]
            if memory is not None:
                spans += memory.spans(table)
            if spans:
                self._end[table] = (min(s.start for s in spans), max(s.stop for s in spans))

    def answers(self) -> bool:
        """See :class:`simulator.devices.modbus.Unit`."""
        return self._powered() and not self._faults.dead

    def delay_s(self) -> float:
        """See :class:`simulator.devices.modbus.Unit`."""
        return self._faults.slow_s

    def refuses(self) -> int | None:
        """See :class:`simulator.devices.modbus.Unit`."""
        return self._faults.exception

    def read_bits(self, _table: str, _addr: int, _count: int, /) -> Sequence[bool]:
        """A meter has no bits."""
        raise ModbusError(ILLEGAL_FUNCTION)

    def read_registers(self, table: str, addr: int, count: int, /) -> Sequence[int]:
        """Registers of the image; holes between points read 0, what lies outside or is forbidden is refused."""
        if READ_FUNCTION[table] not in self.profile.link.functions or table not in self._end:
            raise ModbusError(ILLEGAL_FUNCTION)
        if count > self.profile.link.max_registers:
            raise ModbusError(ILLEGAL_VALUE)
        first, end = self._end[table]
        if addr < first or addr + count > end or self.profile.link.barred(table, addr, addr + count):
            raise ModbusError(ILLEGAL_ADDRESS)
        if self._faults.nonsense:
            return [self._rng.randrange(0x10000) for _ in range(count)]
        words = [self._fixed.get((table, addr + i), 0) for i in range(count)]
        if self.memory is not None:
            for at, word in self.memory.registers(table, addr, count):
                words[at - addr] = word
        live = self._faults.frozen if self._faults.frozen is not None else self._values()
        values: dict[str, Value | Fraction] = {**live, **self._multipliers}
        for point in self._order:
            if point.type == "sum" and self._told_by_parts(point, values):
                continue
            if point.table != table or point.span.stop <= addr or point.span.start >= addr + count:
                continue
            for i, word in enumerate(encode_point(point, values)):
                at = point.addr + i - addr
                if 0 <= at < count:
                    words[at] = word
        return words

    def read_file(self, file: int, record: int, words: int, /) -> Sequence[int]:
        """Function 20: the load profile, where it is kept in a file."""
        if self.memory is None or self.memory.curve.file is None:
            raise ModbusError(ILLEGAL_FUNCTION)
        found = self.memory.file_words(file, record, words)
        if found is None:
            raise ModbusError(ILLEGAL_ADDRESS)
        return found

    def _told_by_parts(self, whole: Point, values: Mapping[str, Value | Fraction]) -> bool:
        """True where each part is a point with a value of its own: their registers stand, and the whole follows."""
        told = {p.addr for p in self.profile.points if p.table == whole.table and values.get(p.id) is not None}
        return all(part.addr in told for part in whole.parts)

    def _multiplier(self, variable: Variable) -> Fraction:
        """What its fixed registers say, or 1."""
        words = [self._fixed.get((variable.table, register)) for register in variable.span]
        known = [w for w in words if w is not None]
        if len(known) < len(words):
            return Fraction(1)
        number = decode_bits(variable, field_bits(variable, known))
        return number if isinstance(number, Fraction) else Fraction(1)

    def write_coil(self, _addr: int, _value: int, /) -> None:
        """Refused."""
        raise ModbusError(ILLEGAL_FUNCTION)

    def write_coils(self, _addr: int, _levels: Sequence[bool], /) -> None:
        """Refused."""
        raise ModbusError(ILLEGAL_FUNCTION)

    def write_registers(self, _addr: int, _words: Sequence[int], /) -> None:
        """Refused."""
        raise ModbusError(ILLEGAL_FUNCTION)


def encode_point(point: Point, values: Mapping[str, Value | Fraction]) -> tuple[int, ...]:
    """Registers of one point.

    Counters show full counts only and start again at their rollover; points that the device gives without its
    transformer ratios are divided by them.
    """
    value = values.get(point.id)
    if value is None or isinstance(value, str):
        return encode_or_zero(point, value)
    exact = Fraction(value)
    for name in point.scale_by:
        ratio = values.get(name)
        if isinstance(ratio, int | float | Fraction) and ratio:
            exact /= Fraction(ratio)
    if point.kind in {"counter", "derived"}:
        exact = _counted(point, exact)
    return encode(point, exact)


def _counted(point: Point, value: Fraction) -> Fraction:
    if point.type == "sum":
        return value
    step = lsb_of(point)
    if point.modulus is not None:
        value %= abs(step) * point.modulus
    return math.floor(value / step) * step if point.type in WHOLE else value


def encode_or_zero(field: RegisterField, value: Value) -> tuple[int, ...]:
    """Registers of a value; zeros for none where the device has no way to say that it has none."""
    try:
        return encode(field, value)
    except ValueError:
        if value is not None:
            raise
        return (0,) * field.words
