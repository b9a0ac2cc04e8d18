"""A relay module or remote I/O as a Modbus unit: coils move its contacts, inputs show what they are wired to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from drivers.profiles.model import RelayProfile
from drivers.profiles.switching import BinaryInput, CommandInterface, Output
from simulator.devices.meter import encode_or_zero
from simulator.devices.modbus import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, ModbusError
from simulator.faults import DeviceFaults
from simulator.relays import RelayBody

COIL_ON, COIL_OFF = 0xFF00, 0x0000
DEFAULT_PULSE_S = 0.5
COMMAND_TAKES_S = 0.2
COMMAND_NOT_SUPPORTED = 0x0001
"""Error in the low byte of the status."""


class RelayUnit:
    """One module.

    Args:
        profile: which coil is which.
        body: the contacts behind the coils.
        level: what an input feels now, by input id.
        now_s: the plant's clock, after it was brought up to date.
        pulse_s: by output id, the pulse length set in the device, for devices that keep it as a setting.
        counts: edges that a counting input has seen, by input id.
        celsius: what a temperature input measures, by its id; ``None``: nothing.
        moved: called after every write.
    """

    def __init__(
        self,
        profile: RelayProfile,
        body: RelayBody,
        *,
        level: Callable[[str], bool],
        now_s: Callable[[], float],
        pulse_s: Mapping[str, float] | None = None,
        counts: Callable[[str], int] = lambda _: 0,
        celsius: Callable[[str], float | None] = lambda _: None,
        faults: DeviceFaults | None = None,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self.profile = profile
        self.body = body
        self._level = level
        self._now_s = now_s
        self._pulse_s = dict(pulse_s or {})
        self._counts = counts
        self._celsius = celsius
        self._faults = faults or DeviceFaults()
        self._moved = moved
        self.stopped_counters: set[int] = set()
        """Run coils of counters that do not count."""
        self._command: tuple[int, int] = (0, 0)
        """Code and status of the last command of a command interface."""
        self._command_done_s = 0.0
        self._outputs: dict[int, Output] = {
            o.addr: o for o in profile.outputs if o.table == "coil" and o.addr is not None
        }
        self._pulses: dict[int, Output] = {o.pulse.addr: o for o in profile.outputs if o.pulse is not None}
        self._inputs: dict[str, dict[int, BinaryInput]] = {"discrete": {}, "coil": {}}
        for binary in profile.inputs:
            if binary.table in self._inputs:
                self._inputs[binary.table][binary.addr] = binary
        for output in profile.outputs:
            body.outputs.setdefault(output.id, False)

    def answers(self) -> bool:
        """See :class:`simulator.devices.modbus.Unit`."""
        return self.body.powered and not self._faults.dead

    def delay_s(self) -> float:
        """See :class:`simulator.devices.modbus.Unit`."""
        return self._faults.slow_s

    def refuses(self) -> int | None:
        """See :class:`simulator.devices.modbus.Unit`."""
        return self._faults.exception

    def read_bits(self, table: str, addr: int, count: int, /) -> Sequence[bool]:
        """Coils or inputs; only addresses that the profile knows."""
        self._now_s()
        return [self._bit(table, at) for at in range(addr, addr + count)]

    def read_registers(self, table: str, addr: int, count: int, /) -> Sequence[int]:
        """Outputs and inputs in registers, counters, settings, and the result of a command."""
        known = self._registers(table)
        if not known:
            raise ModbusError(ILLEGAL_FUNCTION)
        words = [known.get(at) for at in range(addr, addr + count)]
        if any(word is None for word in words):
            raise ModbusError(ILLEGAL_ADDRESS)
        return [word or 0 for word in words]

    def write_coil(self, addr: int, value: int, /) -> None:
        """Function 5: a level, or the start of a pulse that the module ends by itself."""
        now_s = self._now_s()
        if addr in self._pulses:
            self._start_pulse(self._pulses[addr], value, now_s)
        elif addr in self._outputs:
            if value not in {COIL_ON, COIL_OFF}:
                raise ModbusError(ILLEGAL_VALUE)
            self.body.set_output(self._outputs[addr].id, value == COIL_ON, now_s)
        else:
            raise ModbusError(ILLEGAL_ADDRESS)
        self._moved()

    def write_coils(self, addr: int, levels: Sequence[bool], /) -> None:
        """Function 15, all or nothing."""
        outputs = [self._outputs.get(addr + i) for i in range(len(levels))]
        if any(output is None for output in outputs):
            raise ModbusError(ILLEGAL_ADDRESS)
        now_s = self._now_s()
        for output, level in zip(outputs, levels, strict=True):
            if output is not None:
                self.body.set_output(output.id, level, now_s)
        self._moved()

    def write_registers(self, addr: int, words: Sequence[int], /) -> None:
        """Functions 6 and 16: outputs in registers, and the block of a command interface; no settings."""
        now_s = self._now_s()
        interface = self.profile.command_interface
        if interface is not None and addr == interface.addr:
            self._take_command(interface, words, now_s)
        else:
            self._write_outputs(addr, words, now_s)
        self._moved()

    def _write_outputs(self, addr: int, words: Sequence[int], now_s: float) -> None:
        written = range(addr, addr + len(words))
        outputs = [o for o in self.profile.outputs if o.table == "holding" and o.addr in written]
        if {o.addr for o in outputs} != set(written):
            raise ModbusError(ILLEGAL_ADDRESS)
        levels: list[tuple[str, bool]] = []
        for output in outputs:
            word = words[(output.addr or 0) - addr]
            if output.bit is None and word not in {output.on, output.off}:
                raise ModbusError(ILLEGAL_VALUE)
            levels.append((output.id, word == output.on if output.bit is None else bool(word >> output.bit & 1)))
        for name, level in levels:
            self.body.set_output(name, level, now_s)

    def _take_command(self, interface: CommandInterface, words: Sequence[int], now_s: float) -> None:
        """All 20 registers at once, as the maker asks; a wrong head is answered in the status, not by an exception."""
        if len(words) != interface.words:
            raise ModbusError(ILLEGAL_ADDRESS)
        head = (interface.length_bytes, interface.destination, interface.security)
        output = next((o for o in self.profile.outputs if o.code == words[0]), None)
        if output is None or tuple(words[1:4]) != head:
            self._command, self._command_done_s = (words[0], COMMAND_NOT_SUPPORTED), now_s
            return
        self._command, self._command_done_s = (words[0], 0), now_s + COMMAND_TAKES_S
        self.body.pulse(output.id, COMMAND_TAKES_S, now_s)

    def _bit(self, table: str, addr: int) -> bool:
        if table == "coil":
            if addr in self._outputs:
                return self.body.outputs[self._outputs[addr].id]
            if addr in self._pulses:
                return self._pulses[addr].id in self.body.pulses
            if addr in self._setting_at("coil"):
                return bool(self._setting_at("coil")[addr])
            if any(i.counter is not None and i.counter.run_coil == addr for i in self.profile.inputs):
                return addr not in self.stopped_counters
        if addr in self._inputs[table]:
            return self._level(self._inputs[table][addr].id)
        raise ModbusError(ILLEGAL_ADDRESS)

    def _start_pulse(self, output: Output, value: int, now_s: float) -> None:
        pulse = output.pulse
        assert pulse is not None
        if pulse.value == "duration":
            length_ms = value * (pulse.unit_ms or 1)
            if not 0 < length_ms <= (pulse.max_ms or length_ms):
                raise ModbusError(ILLEGAL_VALUE)
            self.body.pulse(output.id, length_ms / 1000.0, now_s)
        elif value == COIL_ON:
            self.body.pulse(output.id, self._pulse_s.get(output.id, DEFAULT_PULSE_S), now_s)
        elif value == COIL_OFF:
            self.body.set_output(output.id, False, now_s)
        else:
            raise ModbusError(ILLEGAL_VALUE)

    def _setting_at(self, table: str) -> dict[int, int]:
        here = [s for s in self.profile.settings if s.table == table]
        # Two settings may look at one register, each for another actuator: the first is what the module is set to.
        found = {s.addr: s.example for s in reversed(here)}
        return found | {s.addr: self.body.settings[s.id] for s in here if s.id in self.body.settings}

    def _registers(self, table: str) -> dict[int, int]:
        known = dict(self._setting_at(table))
        interface = self.profile.command_interface
        if table == "holding" and interface is not None:
            code, status = self._command
            running = self._now_s() < self._command_done_s
            known[interface.result_addr] = code
            known[interface.result_addr + 1] = interface.in_progress if running else status
        for output in self.profile.outputs:
            if output.table == "holding" and table == "holding" and output.addr is not None:
                level = self.body.outputs[output.id]
                for at in {output.addr, output.addr if output.read_addr is None else output.read_addr}:
                    if output.bit is None:
                        known[at] = output.on if level else output.off
                    else:
                        known[at] = known.get(at, 0) | level << output.bit
        for binary in self.profile.inputs:
            if binary.table == table and binary.bit is not None:
                known[binary.addr] = known.get(binary.addr, 0) | self._level(binary.id) << binary.bit
            counter = binary.counter
            if counter is None or counter.table != table:
                continue
            count = self._counts(binary.id) % (1 << 16 * counter.words)
            words = [count >> 16 * (counter.words - 1 - i) & 0xFFFF for i in range(counter.words)]
            if counter.word_order == "little":
                words.reverse()
            known.update((counter.addr + i, word) for i, word in enumerate(words))
        self._add_temperatures(table, known)
        return known

    def _add_temperatures(self, table: str, known: dict[int, int]) -> None:
        """Temperatures, and the registers between them that the profile says may be read along."""
        end: int | None = None
        for found in sorted((t for t in self.profile.temperatures if t.table == table), key=lambda t: t.addr):
            if end is not None and found.addr - end <= self.profile.link.max_hole:
                known.update((addr, 0) for addr in range(end, found.addr) if addr not in known)
            known.update(zip(found.span, encode_or_zero(found, self._celsius(found.id)), strict=True))
            end = found.span.stop
