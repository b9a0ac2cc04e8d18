"""One relay board, remote I/O or breaker controller of a site: reading it, and the few writes there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from drivers.capabilities import WriteOutcome, WriteStatus
from drivers.modbus.link import ModbusLink, Subscription
from drivers.modbus.pdu import (
    COIL_OFF,
    COIL_ON,
    MAYBE_DONE,
    READ_FUNCTIONS,
    WRITE_REGISTERS,
    WRITE_SINGLE_COIL,
    read_bits,
    read_request,
    read_words,
    write_coil_request,
    write_registers_request,
)
from drivers.modbus.relay.commands import CommandPort, Unread, command_request
from drivers.modbus.relay.image import RelayImage, Request, image_of, level_of, requests_of
from drivers.modbus.relay.safety import SafeState, SafeStatus, Used, demands_of, judge
from drivers.modbus.scheduler import Answer, Klass
from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.model import RelayProfile
from drivers.profiles.switching import Output
from drivers.profiles.switching_rules import functions_of
from wire.quality import Quality

ILLEGAL_ADDRESS = 2
UNUSED = Used()


@dataclass(slots=True)
class _Level:
    """What we believe of one output, for telling our own writes from others'."""

    expected: bool | None = None
    settled_ns: int = 0
    """Readings older than this belong to the time before our last write."""
    ignore_until_ns: int = 0
    """While a device-timed pulse runs the coil moves by itself."""


@dataclass(slots=True, eq=False)
class RelayDevice:
    """One board of a site. ``options`` are those of the site file; ``password`` is for a command interface.

    Raises:
        ValueError: an option that this profile does not have.
    """

    id: str
    unit: int
    profile: RelayProfile
    link: ModbusLink
    options: Mapping[str, str] = field(default_factory=dict)
    password: bytes | None = field(default=None, repr=False)
    used: Used = UNUSED
    _levels: dict[str, _Level] = field(default_factory=dict, init=False)
    _requests: tuple[Request, ...] = field(default=(), init=False)
    _write_lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _safe: SafeState = field(default_factory=lambda: SafeState(SafeStatus.UNREAD), init=False)
    _safe_ns: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Prepare the reads."""
        self._levels = {output.id: _Level() for output in self.profile.outputs}
        self.use(self.used)

    def use(self, used: Used) -> None:
        """Say which terminals the site uses: counters are read, and settings judged, only for those. Before the start.

        Raises:
            ValueError: an option that this profile does not have.
        """
        self.used = used
        self._requests = requests_of(self.profile, used.counters)
        if not demands_of(self.profile, self.options, used):
            self._safe = SafeState(SafeStatus.NOT_READABLE)

    @property
    def functions(self) -> frozenset[int]:
        """Reads, and the writes that this profile's outputs need."""
        return READ_FUNCTIONS | (functions_of(self.profile) & {WRITE_SINGLE_COIL, WRITE_REGISTERS})

    @property
    def timeout_s(self) -> float | None:
        """Its own time-out, if the profile states one."""
        ms = self.profile.link.timeout_ms
        return None if ms is None else ms / 1000

    @property
    def gap_s(self) -> float:
        """Quiet time between two questions."""
        return self.profile.link.min_gap_ms / 1000

    @property
    def turnaround_s(self) -> float:
        """Quiet time of a serial line after its answer."""
        return self.profile.link.turnaround_ms / 1000

    # -- reading -----------------------------------------------------------------------------------------------------

    async def read(self, *, klass: Klass = Klass.VERIFICATION, deadline_s: float = 2.0) -> RelayImage:
        """All outputs and inputs. Never raises because of the device."""
        pdus = tuple(request.pdu for request in self._requests)
        answers = await self.link.exchange(self, pdus, klass=klass, deadline_s=deadline_s) if pdus else ()
        return image_of(self.profile, self._requests, answers)

    def watch(
        self,
        period_s: float,
        on_foreign_write: Callable[[str, bool, bool], None],
        on_image: Callable[[RelayImage], None] | None = None,
    ) -> Subscription | None:
        """Read the board each ``period_s``; report ``(output, was, now)`` for an output that someone else moved.

        The first reading is what later ones are compared with. ``None`` where the board has nothing to read.
        """
        if not self._requests:
            return None

        def deliver(answers: tuple[Answer, ...]) -> None:
            image = image_of(self.profile, self._requests, answers)
            for request, answer in zip(self._requests, answers, strict=True):
                for _, cell in request.cells:
                    if answer.ok and cell.what == "outputs":
                        self._compare(cell.id, image.coils[cell.id], answer.mono_ns, on_foreign_write)
            if on_image is not None:
                on_image(image)

        return self.link.subscribe(self, tuple(request.pdu for request in self._requests), period_s, deliver)

    async def read_settings(self, *, deadline_s: float = 10.0) -> SafeState:
        """Read back the settings its outputs depend on. Never raises because of the device.

        Where the device cannot be reached, what was read before is kept, see :meth:`safe_state`.
        """
        demands = demands_of(self.profile, self.options, self.used)
        if not demands:
            return self._safe
        pdus = tuple(read_request(READ_FUNCTION[d.setting.table], d.setting.addr, 1) for d in demands)
        answers = await self.link.exchange(self, pdus, klass=Klass.VERIFICATION, deadline_s=deadline_s)
        values: dict[str, int] = {}
        missing: dict[str, str] = {}
        for demand, answer in zip(demands, answers, strict=True):
            setting = demand.setting
            if answer.ok:
                values[setting.id] = _first(answer)
            elif not (setting.optional and answer.exception == ILLEGAL_ADDRESS):
                missing[setting.id] = answer.error or answer.quality.value
        at_ms = max(answer.at_ms for answer in answers)
        state = judge(self.id, demands, values, missing, at_ms)
        if state.status is not SafeStatus.UNREAD or self._safe.status is SafeStatus.UNREAD:
            self._safe, self._safe_ns = state, self.link.monotonic_ns()
        return state

    def safe_state(self, max_age_s: float = 300.0) -> SafeState:
        """What is known of the settings its outputs depend on; a good reading counts for ``max_age_s``."""
        if self._safe.status is SafeStatus.NOT_READABLE:
            return self._safe
        age_s = (self.link.monotonic_ns() - self._safe_ns) / 1e9
        if self._safe.status is SafeStatus.GOOD and age_s > max_age_s:
            text = f"{self.id}: settings last read {age_s:.0f} s ago, expected within {max_age_s:g} s; is it reachable?"
            return SafeState(SafeStatus.UNREAD, (text,), self._safe.values, self._safe.at_ms)
        return self._safe

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, output: str, level: bool, *, deadline_s: float = 2.0) -> WriteOutcome:
        """Command an output to a level and read it back. Never raises because of the device.

        Raises:
            KeyError: the profile has no such output.
            ValueError: the output is a command and holds no level.
        """
        found = self.profile.output(output)
        if found.addr is None:
            raise ValueError(f"{self.id}: {output} is a command of the breaker and holds no level")
        async with self._write_lock:
            if found.table == "coil":
                request: bytes | Unread = write_coil_request(found.addr, COIL_ON if level else COIL_OFF)
            else:
                request = await self._register_write(found, found.addr, level, deadline_s)
            if isinstance(request, Unread):
                return WriteOutcome(WriteStatus.REFUSED, request.at_ms, f"nothing was sent: {request.why}")
            state = self._levels[output]
            outcome = await self._send(state, request, deadline_s)
            if outcome.status is WriteStatus.ACKNOWLEDGED:
                state.expected = level
                shown_at = found.addr if found.read_addr is None else found.read_addr
                return await self._read_back(found, shown_at, level, outcome, deadline_s)
            return outcome

    async def pulse(self, output: str, pulse_ms: int | None, *, deadline_s: float = 2.0) -> WriteOutcome:
        """Start a pulse that the device ends by itself. Never raises because of the device.

        Raises:
            KeyError: the profile has no such output.
            ValueError: the device cannot time such a pulse; software does not do it instead.
        """
        addr, value = self.pulse_of(output, pulse_ms)
        state = self._levels[output]
        async with self._write_lock:
            outcome = await self._send(state, write_coil_request(addr, value), deadline_s)
            state.ignore_until_ns = state.settled_ns + ((pulse_ms or 10_000) + 1000) * 1_000_000
            return outcome

    def pulse_of(self, output: str, pulse_ms: int | None) -> tuple[int, int]:
        """Coil address and value that start a pulse.

        Raises:
            KeyError: the profile has no such output.
            ValueError: the device cannot time such a pulse.
        """
        pulse = self.profile.output(output).pulse
        if pulse is None:
            raise ValueError(
                f"{self.id}: {self.profile.id} cannot time a pulse on {output}; a pulse made by two writes is refused "
                "(a fault between them leaves the trip coil energised): use a module that times it itself"
            )
        if pulse.value == "coil":
            return pulse.addr, COIL_ON
        unit_ms = pulse.unit_ms or 1
        if pulse_ms is None or pulse_ms % unit_ms or not 0 < pulse_ms // unit_ms <= 0x7FFF:
            raise ValueError(f"{self.id}: {output}: pulse_ms: seen {pulse_ms}, expected a multiple of {unit_ms} ms")
        if pulse.max_ms is not None and pulse_ms > pulse.max_ms:
            raise ValueError(f"{self.id}: {output}: pulse_ms: seen {pulse_ms}, the device allows {pulse.max_ms}")
        return pulse.addr, pulse_ms // unit_ms

    async def command(self, output: str, *, deadline_s: float = 2.0) -> WriteOutcome:
        """Give a breaker a command through its command interface, once. Never raises because of the device.

        Acknowledged means that the breaker reported success; whether it moved, its contacts say.

        Raises:
            KeyError: the profile has no such output.
            ValueError: the output is no command, or a password is needed and not there.
        """
        request = self.command_of(output)
        interface, code = self.profile.command_interface, self.profile.output(output).code
        if interface is None or code is None:  # command_of has refused it
            raise ValueError(output)

        async def ask(pdu: bytes) -> Answer:
            (answer,) = await self.link.exchange(self, (pdu,), klass=Klass.CONTROL, deadline_s=deadline_s)
            return answer

        port = CommandPort(interface, ask, self.link.monotonic_ns)
        async with self._write_lock:
            return await port.give(code, lambda: self._send(self._levels[output], request, deadline_s))

    def command_of(self, output: str) -> bytes:
        """The write that carries a command.

        Raises:
            KeyError: the profile has no such output.
            ValueError: the output is no command, or a password is needed and not there.
        """
        found, interface = self.profile.output(output), self.profile.command_interface
        if found.code is None or interface is None:
            raise ValueError(f"{self.id}: {output} is no command of a command interface")
        try:
            return command_request(interface, found.code, self.password)
        except ValueError as error:
            raise ValueError(f"{self.id}: {error}; name it by 'credentials' of the device") from None

    async def _register_write(self, output: Output, addr: int, level: bool, deadline_s: float) -> bytes | Unread:
        """The write that sets a register, or one bit of a mask; nothing where the mask is not known."""
        if output.bit is None:
            return write_registers_request(addr, (output.on if level else output.off,))
        mask = [o for o in self.profile.outputs if o.bit is not None and o.addr is not None]
        first, last = min(o.addr or 0 for o in mask), max(o.addr or 0 for o in mask)
        shown = min(o.addr if o.read_addr is None else o.read_addr for o in mask if o.addr is not None)
        request = read_request(3, shown, last - first + 1)
        (answer,) = await self.link.exchange(self, (request,), klass=Klass.CONTROL, deadline_s=deadline_s)
        if not answer.ok:
            why = f"the mask of outputs could not be read, and its other bits must stay: {answer.error}"
            return Unread(why, answer.at_ms)
        words = list(read_words(answer.request, answer.answer))
        words[addr - first] = words[addr - first] & ~(1 << output.bit) | level << output.bit
        return write_registers_request(first, words)

    async def _send(self, state: _Level, request: bytes, deadline_s: float) -> WriteOutcome:
        # From here until the outcome is known a moving output is our own doing.
        state.settled_ns, state.expected = 1 << 62, None
        try:
            (answer,) = await self.link.exchange(self, (request,), klass=Klass.CONTROL, deadline_s=deadline_s)
        finally:
            state.settled_ns = self.link.monotonic_ns()
        return _outcome(answer)

    async def _read_back(
        self, output: Output, addr: int, level: bool, outcome: WriteOutcome, deadline_s: float
    ) -> WriteOutcome:
        what = "coil" if output.table == "coil" else "register"
        request = read_request(READ_FUNCTION[output.table], addr, 1)
        (answer,) = await self.link.exchange(self, (request,), klass=Klass.CONTROL, deadline_s=deadline_s)
        if not answer.ok:
            return WriteOutcome(outcome.status, outcome.at_ms, f"acknowledged; {what} not read back: {answer.error}")
        seen = level_of(output)((_first(answer),))
        if seen is level:
            return WriteOutcome(outcome.status, outcome.at_ms, f"acknowledged; {what} reads {_on(seen)}")
        self._levels[output.id].expected = seen
        return WriteOutcome(
            WriteStatus.UNKNOWN, outcome.at_ms, f"acknowledged, but the {what} reads {_on(seen)}, expected {_on(level)}"
        )

    def _compare(self, name: str, seen: bool | None, mono_ns: int, report: Callable[[str, bool, bool], None]) -> None:
        state = self._levels[name]
        if seen is None or mono_ns <= state.settled_ns:
            return
        was, state.expected = state.expected, seen
        if was is not None and was != seen and mono_ns > state.ignore_until_ns:
            report(name, was, seen)


def _first(answer: Answer) -> int:
    """The first bit or register of a good answer to a read."""
    if answer.request[1] in {1, 2}:
        return int(read_bits(answer.request, answer.answer)[0])
    return read_words(answer.request, answer.answer)[0]


def _on(level: bool | None) -> str:
    return "neither on nor off" if level is None else "on" if level else "off"


def _outcome(answer: Answer) -> WriteOutcome:
    """A write whose fate is not known is UNKNOWN, never failed."""
    if answer.ok:
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, answer.at_ms)
    detail = answer.error or answer.quality.value
    if not answer.sent:
        return WriteOutcome(WriteStatus.REFUSED, answer.at_ms, f"not sent: {detail}")
    if answer.quality is Quality.EXCEPTION and answer.exception not in MAYBE_DONE:
        return WriteOutcome(WriteStatus.REFUSED, answer.at_ms, detail)
    return WriteOutcome(WriteStatus.UNKNOWN, answer.at_ms, detail)
