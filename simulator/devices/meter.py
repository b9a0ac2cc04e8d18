"""A meter as a Modbus unit: its register image is made by the profile, the same file the driver reads it with."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from drivers.profiles.codec import encode, lsb_of
from drivers.profiles.fields import READ_FUNCTION, RegisterField
from drivers.profiles.model import MeterProfile, Point
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
    ) -> None:
        self.profile = profile
        self._values = values
        self._powered = powered
        self._faults = faults or DeviceFaults()
        self._rng = rng or random.Random(0)
        self._fixed: dict[tuple[str, int], int] = {
            (block.table, block.addr + i): int(block.words[4 * i : 4 * i + 4], 16)
            for block in profile.simulate.registers
            for i in range(len(block.words) // 4)
        }
        self._end: dict[str, tuple[int, int]] = {}
        for table in ("holding", "input"):
            spans = [p.span for p in profile.points if p.table == table]
            spans += [range(addr, addr + 1) for where, addr in self._fixed if where == table]
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
        forbidden = (f for f in self.profile.link.forbidden if f.table == table)
        if addr < first or addr + count > end or any(addr <= f.last and f.first < addr + count for f in forbidden):
            raise ModbusError(ILLEGAL_ADDRESS)
        if self._faults.nonsense:
            return [self._rng.randrange(0x10000) for _ in range(count)]
        words = [self._fixed.get((table, addr + i), 0) for i in range(count)]
        values = self._faults.frozen if self._faults.frozen is not None else self._values()
        for point in self.profile.points:
            if point.table != table or point.span.stop <= addr or point.span.start >= addr + count:
                continue
            for i, word in enumerate(encode_point(point, values)):
                at = point.addr + i - addr
                if 0 <= at < count:
                    words[at] = word
        return words

    def write_coil(self, _addr: int, _value: int, /) -> None:
        """Refused."""
        raise ModbusError(ILLEGAL_FUNCTION)

    def write_coils(self, _addr: int, _levels: Sequence[bool], /) -> None:
        """Refused."""
        raise ModbusError(ILLEGAL_FUNCTION)

    def write_registers(self, _addr: int, _words: Sequence[int], /) -> None:
        """Refused."""
        raise ModbusError(ILLEGAL_FUNCTION)


def encode_point(point: Point, values: Mapping[str, Value]) -> tuple[int, ...]:
    """Registers of one point.

    Counters show full counts only and start again at their rollover; points that the device gives without its
    transformer ratios are divided by them.
    """
    value = values.get(point.id)
    if value is None or isinstance(value, str):
        return _no_value(point) if value is None else encode(point, value)
    exact = Fraction(value)
    for name in point.scale_by:
        ratio = values.get(name)
        if isinstance(ratio, int | float) and ratio:
            exact /= Fraction(ratio)
    if point.kind == "counter":
        exact = _counted(point, exact)
    return encode(point, exact)


def _counted(point: Point, value: Fraction) -> Fraction:
    step = lsb_of(point)
    if isinstance(point.rollover, int):
        value %= abs(step) * point.rollover
    return math.floor(value / step) * step if point.type in WHOLE else value


def _no_value(field: RegisterField) -> tuple[int, ...]:
    try:
        return encode(field, None)
    except ValueError:
        return (0,) * field.words
