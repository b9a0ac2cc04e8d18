"""Relay boards and remote I/O on a Modbus link, and the switch that one of their outputs drives.

Outputs are commanded to a level or by a pulse that the device itself times; nothing is ever toggled, and software never
makes a pulse out of two writes. Every write is followed by reading the coil back; the position of the switch comes from
its auxiliary contacts alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from drivers.capabilities import Position, SwitchState, WriteOutcome, WriteStatus
from drivers.modbus.link import ModbusLink, Subscription
from drivers.modbus.pdu import (
    COIL_OFF,
    COIL_ON,
    MAYBE_DONE,
    READ_FUNCTIONS,
    WRITE_SINGLE_COIL,
    read_bits,
    read_request,
    write_coil_request,
)
from drivers.modbus.scheduler import Answer, Klass
from drivers.profiles.model import RelayProfile
from wire.quality import Quality

Actuator = Literal["shunt_trip", "undervoltage_release", "contactor_no", "contactor_nc", "latching", "motor_operator"]
PULSED = frozenset({"shunt_trip", "latching", "motor_operator"})
MAX_SPAN = 256
"""Bits read in one request; outputs and inputs of one board lie close together."""


@dataclass(frozen=True, slots=True)
class RelayImage:
    """State of a board. ``None`` for what could not be read."""

    coils: Mapping[str, bool | None]
    inputs: Mapping[str, bool | None]
    at_ms: int
    mono_ns: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    """One bit-read request and the ids of its bits by offset."""

    kind: Literal["coils", "inputs"]
    pdu: bytes
    bits: tuple[tuple[int, str], ...]


def _groups(profile: RelayProfile) -> tuple[_Group, ...]:
    rows: dict[tuple[Literal["coils", "inputs"], int], list[tuple[int, str]]] = {}
    for output in profile.outputs:
        rows.setdefault(("coils", 1), []).append((output.addr, output.id))
    for binary in profile.inputs:
        rows.setdefault(("inputs", 2 if binary.table == "discrete" else 1), []).append((binary.addr, binary.id))
    out: list[_Group] = []
    for (kind, function), found in rows.items():
        chunk: list[tuple[int, str]] = []
        for addr, name in [*sorted(found), (0x20000, "")]:
            if chunk and addr - chunk[0][0] >= MAX_SPAN:
                first, count = chunk[0][0], chunk[-1][0] - chunk[0][0] + 1
                bits = tuple((a - first, n) for a, n in chunk)
                out.append(_Group(kind, read_request(function, first, count), bits))
                chunk = []
            chunk.append((addr, name))
    return tuple(out)


@dataclass(slots=True)
class _Coil:
    """What we believe of one coil, for telling our own writes from others'."""

    expected: bool | None = None
    settled_ns: int = 0
    """Readings older than this belong to the time before our last write."""
    ignore_until_ns: int = 0
    """While a device-timed pulse runs the coil moves by itself."""


@dataclass(slots=True, eq=False)
class RelayDevice:
    """One relay board of a site."""

    id: str
    unit: int
    profile: RelayProfile
    link: ModbusLink
    _coils: dict[str, _Coil] = field(default_factory=dict, init=False)
    _read_groups: tuple[_Group, ...] = field(default=(), init=False)
    _write_lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        """Prepare the reads."""
        self._coils = {output.id: _Coil() for output in self.profile.outputs}
        self._read_groups = _groups(self.profile)

    @property
    def functions(self) -> frozenset[int]:
        """Reads, and writing a single coil."""
        return READ_FUNCTIONS | {WRITE_SINGLE_COIL}

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

    async def read(self, *, klass: Klass = Klass.VERIFICATION, deadline_s: float = 2.0) -> RelayImage:
        """All coils and inputs. Never raises because of the device."""
        pdus = tuple(g.pdu for g in self._read_groups)
        return self._image(await self.link.exchange(self, pdus, klass=klass, deadline_s=deadline_s))

    def watch(
        self,
        period_s: float,
        on_foreign_write: Callable[[str, bool, bool], None],
        on_image: Callable[[RelayImage], None] | None = None,
    ) -> Subscription:
        """Read the board each ``period_s``; report ``(output, was, now)`` for a coil that someone else moved.

        The first reading is what later ones are compared with.
        """

        def deliver(answers: tuple[Answer, ...]) -> None:
            image = self._image(answers)
            for group, answer in zip(self._read_groups, answers, strict=True):
                if group.kind == "coils" and answer.ok:
                    for _, name in group.bits:
                        self._compare(name, image.coils[name], answer.mono_ns, on_foreign_write)
            if on_image is not None:
                on_image(image)

        return self.link.subscribe(self, tuple(g.pdu for g in self._read_groups), period_s, deliver)

    async def write(self, output: str, level: bool, *, deadline_s: float = 2.0) -> WriteOutcome:
        """Command a coil to a level and read it back. Never raises because of the device.

        Raises:
            KeyError: the profile has no such output.
        """
        return await self._write(
            output, self.profile.output(output).addr, COIL_ON if level else COIL_OFF, level, 0, deadline_s
        )

    async def pulse(self, output: str, pulse_ms: int | None, *, deadline_s: float = 2.0) -> WriteOutcome:
        """Start a pulse that the device ends by itself. Never raises because of the device.

        Raises:
            KeyError: the profile has no such output.
            ValueError: the device cannot time such a pulse; software does not do it instead.
        """
        addr, value = self.pulse_of(output, pulse_ms)
        return await self._write(output, addr, value, None, pulse_ms or 10_000, deadline_s)

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

    async def _write(
        self, output: str, addr: int, value: int, level: bool | None, pulse_ms: int, deadline_s: float
    ) -> WriteOutcome:
        coil = self._coils[output]
        async with self._write_lock:
            # From here until the outcome is known a moving coil is our own doing.
            coil.settled_ns, coil.expected = 1 << 62, None
            try:
                (answer,) = await self.link.exchange(
                    self, (write_coil_request(addr, value),), klass=Klass.CONTROL, deadline_s=deadline_s
                )
            finally:
                coil.settled_ns = self.link.monotonic_ns()
            outcome = _outcome(answer)
            if level is None:
                coil.ignore_until_ns = coil.settled_ns + (pulse_ms + 1000) * 1_000_000
            elif outcome.status is WriteStatus.ACKNOWLEDGED:
                coil.expected = level
                return await self._read_back(output, addr, level, outcome, deadline_s)
            return outcome

    async def _read_back(
        self, output: str, addr: int, level: bool, outcome: WriteOutcome, deadline_s: float
    ) -> WriteOutcome:
        (answer,) = await self.link.exchange(
            self, (read_request(1, addr, 1),), klass=Klass.CONTROL, deadline_s=deadline_s
        )
        if not answer.ok:
            return WriteOutcome(outcome.status, outcome.at_ms, f"acknowledged; coil not read back: {answer.error}")
        seen = read_bits(answer.request, answer.answer)[0]
        if seen is level:
            return WriteOutcome(outcome.status, outcome.at_ms, f"acknowledged; coil reads {_on(seen)}")
        self._coils[output].expected = seen
        return WriteOutcome(
            WriteStatus.UNKNOWN, outcome.at_ms, f"acknowledged, but the coil reads {_on(seen)}, expected {_on(level)}"
        )

    def _compare(self, name: str, seen: bool | None, mono_ns: int, report: Callable[[str, bool, bool], None]) -> None:
        coil = self._coils[name]
        if seen is None or mono_ns <= coil.settled_ns:
            return
        was, coil.expected = coil.expected, seen
        if was is not None and was != seen and mono_ns > coil.ignore_until_ns:
            report(name, was, seen)

    def _image(self, answers: tuple[Answer, ...]) -> RelayImage:
        coils: dict[str, bool | None] = {o.id: None for o in self.profile.outputs}
        inputs: dict[str, bool | None] = {i.id: None for i in self.profile.inputs}
        problems: list[str] = []
        for group, answer in zip(self._read_groups, answers, strict=True):
            if not answer.ok:
                problems.append(f"{group.kind}: {answer.error}")
                continue
            bits = read_bits(answer.request, answer.answer)
            (coils if group.kind == "coils" else inputs).update({name: bits[at] for at, name in group.bits})
        # The oldest of the answers: the image is no fresher than its oldest part.
        at_ms, mono_ns = min(((a.at_ms, a.mono_ns) for a in answers), key=lambda p: p[1], default=(0, 0))
        return RelayImage(coils, inputs, at_ms, mono_ns, "; ".join(problems) or None)


def _on(level: bool) -> str:
    return "on" if level else "off"


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


@dataclass(frozen=True, slots=True)
class InputRef:
    """One binary input of one board; ``inverted`` where the contact is wired the other way round."""

    relay: RelayDevice
    input: str
    inverted: bool = False


READY_POINTS = ("remote", "lockout", "protection_trip", "trip_circuit_ok", "spring_charged")


class RelaySwitch:
    """A switch driven by one relay output and seen by its auxiliary contacts. Implements ``Switch``."""

    def __init__(
        self,
        relay: RelayDevice,
        output: str,
        actuator: Actuator,
        open_input: InputRef | None,
        closed_input: InputRef | None,
        *,
        close_output: str | None = None,
        pulse_ms: int | None = None,
        readiness: Mapping[str, InputRef] | None = None,
        deadline_s: float = 2.0,
    ) -> None:
        """``pulse_ms`` as in the site file; ``readiness`` maps names of :data:`READY_POINTS` to inputs.

        Raises:
            KeyError: the profile has no such output or input.
            ValueError: the board cannot do what this actuator needs.
        """
        self._relay, self._output, self._actuator = relay, output, actuator
        self._close_output, self._pulse_ms, self._deadline_s = close_output, pulse_ms, deadline_s
        self._inputs: dict[str, InputRef] = dict(readiness or {})
        unknown = set(self._inputs) - set(READY_POINTS)
        if unknown:
            raise ValueError(f"{relay.id}: readiness: seen {sorted(unknown)[0]!r}, expected one of {READY_POINTS}")
        for name, ref in (("open", open_input), ("closed", closed_input)):
            if ref is not None:
                self._inputs[name] = ref
        for ref in self._inputs.values():
            ref.relay.profile.input(ref.input)
        relay.profile.output(output)
        if actuator in PULSED:
            relay.pulse_of(output, pulse_ms)
        if close_output is not None:
            if close_output == output:
                raise ValueError(f"{relay.id}: close_output: {output} already opens this switch")
            relay.pulse_of(close_output, pulse_ms)

    async def read(self) -> SwitchState:
        """Position, readiness and coil. Never raises: what cannot be read is ``UNKNOWN``/``None``."""
        boards = {id(ref.relay): ref.relay for ref in self._inputs.values()} | {id(self._relay): self._relay}
        images = dict(
            zip(
                boards,
                await asyncio.gather(*(board.read(deadline_s=self._deadline_s) for board in boards.values())),
                strict=True,
            )
        )

        def level(name: str) -> bool | None:
            ref = self._inputs.get(name)
            if ref is None:
                return None
            seen = images[id(ref.relay)].inputs.get(ref.input)
            return None if seen is None else seen is not ref.inverted

        oldest = min(images.values(), key=lambda image: image.mono_ns)
        return SwitchState(
            position=position_of(level("open"), level("closed")),
            at_ms=oldest.at_ms,
            mono_ns=oldest.mono_ns,
            coil=images[id(self._relay)].coils.get(self._output),
            remote=level("remote"),
            lockout=level("lockout"),
            protection_trip=level("protection_trip"),
            trip_circuit_ok=level("trip_circuit_ok"),
            spring_charged=level("spring_charged"),
            detail="; ".join(i.error for i in images.values() if i.error) or None,
        )

    async def open(self) -> WriteOutcome:
        """Command it open: by pulse, by taking the release's voltage away, or by the contactor's coil."""
        if self._actuator in PULSED:
            return await self._relay.pulse(self._output, self._pulse_ms, deadline_s=self._deadline_s)
        return await self._relay.write(self._output, self._actuator == "contactor_nc", deadline_s=self._deadline_s)

    async def close(self) -> WriteOutcome:
        """Command it closed, where its nature allows. An undervoltage release is first given its voltage back."""
        if self._actuator in {"contactor_no", "contactor_nc"}:
            return await self._relay.write(self._output, self._actuator == "contactor_no", deadline_s=self._deadline_s)
        if self._actuator == "undervoltage_release":
            armed = await self._relay.write(self._output, True, deadline_s=self._deadline_s)
            if self._close_output is None or armed.status is not WriteStatus.ACKNOWLEDGED:
                return armed
        if self._close_output is None:
            now_ms = (await self._relay.read(deadline_s=self._deadline_s)).at_ms
            return WriteOutcome(
                WriteStatus.REFUSED, now_ms, f"{self._actuator} without close_output: a person closes it"
            )
        return await self._relay.pulse(self._close_output, self._pulse_ms, deadline_s=self._deadline_s)


def position_of(open_contact: bool | None, closed_contact: bool | None) -> Position:
    """Two-bit position. One contact alone is never enough."""
    if open_contact is None or closed_contact is None:
        return Position.UNKNOWN
    if open_contact and closed_contact:
        return Position.FAULTY
    if open_contact:
        return Position.OPEN
    return Position.CLOSED if closed_contact else Position.MOVING
