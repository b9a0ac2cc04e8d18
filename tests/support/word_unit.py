"""A Modbus unit for tests that is nothing but its words: what it does not have it refuses, writes it counts."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from config.devices import MeteringPoint
from drivers.profiles.model import MeterProfile
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import ILLEGAL_ADDRESS, ModbusError, ModbusTcpServer, Unit
from simulator.registers import Registers


@dataclass
class WordUnit:
    """Holding registers by address."""

    words: dict[int, int] = field(default_factory=dict)
    writes: int = 0
    bit_reads: int = 0
    reads: list[tuple[str, int, int]] = field(default_factory=list)

    def put(self, addr: int, *words: int) -> None:
        for offset, word in enumerate(words):
            self.words[addr + offset] = word

    def answers(self) -> bool:
        return True

    def delay_s(self) -> float:
        return 0.0

    def refuses(self) -> int | None:
        return None

    def read_bits(self, table: str, addr: int, count: int, /) -> Sequence[bool]:
        self.bit_reads += 1
        return [False] * count

    def read_registers(self, table: str, addr: int, count: int, /) -> Sequence[int]:
        self.reads.append((table, addr, count))
        if table != "holding" or any(addr + i not in self.words for i in range(count)):
            raise ModbusError(ILLEGAL_ADDRESS)
        return [self.words[addr + i] for i in range(count)]

    def write_coil(self, addr: int, value: int, /) -> None:
        self.writes += 1

    def write_coils(self, addr: int, levels: Sequence[bool], /) -> None:
        self.writes += 1

    def write_registers(self, addr: int, words: Sequence[int], /) -> None:
        self.writes += 1


def live_registers(power_w: float = 84_000.0, reactive_var: float = 21_000.0) -> Registers:
    """Registers of a metering point under load."""
    point = MeteringPoint(id="M1", device="m1", node="n1", role="control", owner="test")
    registers = Registers(
        point,
        opening_wh=5.4e7,
        opening_export_wh=12_000,
        nominal_v=400,
        shares=(0.34, 0.33, 0.33),
        serial_number="12345678",
    )
    registers.measure(True, power_w, reactive_var, 1.01, 50.02)
    return registers


def meter_unit(profile: MeterProfile, registers: Registers | None = None) -> MeterUnit:
    """A simulated meter under load."""
    values = registers or live_registers()
    return MeterUnit(profile, lambda: values.values(1_700_000_000_000), rng=random.Random(1))


@contextlib.asynccontextmanager
async def served(units: Mapping[int, Unit]) -> AsyncIterator[ModbusTcpServer]:
    """A server on a free port for as long as the context lasts."""
    server = ModbusTcpServer(units)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
