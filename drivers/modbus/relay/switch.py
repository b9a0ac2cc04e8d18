"""A switch driven by outputs of a board and seen by its auxiliary contacts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drivers.capabilities import Position, SwitchState, WriteOutcome, WriteStatus
from drivers.modbus.relay.device import RelayDevice
from drivers.modbus.relay.image import RelayImage
from drivers.profiles.switching import Actuator

PULSED = frozenset({"shunt_trip", "latching", "motor_operator"})
BAD_WHEN_MADE = frozenset({"lockout", "protection_trip"})
READY_POINTS = (
    "remote",
    "lockout",
    "protection_trip",
    "trip_circuit_ok",
    "spring_charged",
    "control_voltage_ok",
    "service_position",
)


@dataclass(frozen=True, slots=True)
class InputRef:
    """One binary input of one board; ``inverted`` where the contact is wired the other way round."""

    relay: RelayDevice
    input: str
    inverted: bool = False


class RelaySwitch:
    """Implements ``Switch``: driven by one output, or two, and seen by its auxiliary contacts."""

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
        readiness: Mapping[str, InputRef | Sequence[InputRef]] | None = None,
        trips_counter: InputRef | None = None,
        deadline_s: float = 2.0,
    ) -> None:
        """``pulse_ms`` as in the site file; ``readiness`` maps names of :data:`READY_POINTS` to inputs, one or several.

        Of several inputs the worst one counts: two protection relays, either of which may have tripped.

        Raises:
            KeyError: the profile has no such output or input.
            ValueError: the board cannot do what this actuator needs.
        """
        self._relay, self._output, self._actuator = relay, output, actuator
        self._close_output, self._pulse_ms, self._deadline_s = close_output, pulse_ms, deadline_s
        self._trips_counter = trips_counter
        self._inputs: dict[str, tuple[InputRef, ...]] = {}
        for name, refs in (readiness or {}).items():
            if name not in READY_POINTS:
                raise ValueError(f"{relay.id}: readiness: seen {name!r}, expected one of {READY_POINTS}")
            self._inputs[name] = (refs,) if isinstance(refs, InputRef) else tuple(refs)
        for name, ref in (("open", open_input), ("closed", closed_input)):
            if ref is not None:
                self._inputs[name] = (ref,)
        for ref in (*(r for refs in self._inputs.values() for r in refs), *([trips_counter] if trips_counter else [])):
            ref.relay.profile.input(ref.input)
        if trips_counter is not None and trips_counter.relay.profile.input(trips_counter.input).counter is None:
            raise ValueError(f"{trips_counter.relay.id}: {trips_counter.input} is not counted by this module")
        self._check_outputs()

    def _check_outputs(self) -> None:
        relay, found = self._relay, self._relay.profile.output(self._output)
        if found.table == "command":
            relay.command_of(self._output)
            if self._actuator not in PULSED:
                raise ValueError(
                    f"{relay.id}: {self._output} is a command of the breaker and holds no level; expected one of "
                    f"{', '.join(sorted(PULSED))}, seen {self._actuator}"
                )
        elif self._actuator in PULSED:
            relay.pulse_of(self._output, self._pulse_ms)
        if self._close_output is None:
            return
        if self._close_output == self._output:
            raise ValueError(f"{relay.id}: close_output: {self._output} already opens this switch")
        if self._actuator in {"contactor_no", "contactor_nc"}:
            raise ValueError(f"{relay.id}: close_output: a contactor has one coil, which {self._output} drives")
        if relay.profile.output(self._close_output).table == "command":
            relay.command_of(self._close_output)
        else:
            relay.pulse_of(self._close_output, self._pulse_ms)

    async def read(self) -> SwitchState:
        """Position, readiness and coil. Never raises: what cannot be read is ``UNKNOWN``/``None``."""
        refs = [ref for group in self._inputs.values() for ref in group]
        refs += [self._trips_counter] if self._trips_counter is not None else []
        boards = {id(ref.relay): ref.relay for ref in refs} | {id(self._relay): self._relay}
        images = dict(
            zip(
                boards,
                await asyncio.gather(*(board.read(deadline_s=self._deadline_s) for board in boards.values())),
                strict=True,
            )
        )
        level = {name: _worst(name, self._levels(group, images)) for name, group in self._inputs.items()}
        told = [image for image in images.values() if image.mono_ns]  # a board with nothing to read tells no time
        oldest = min(told or images.values(), key=lambda image: image.mono_ns)
        trips = self._trips_counter
        return SwitchState(
            position=position_of(level.get("open"), level.get("closed")),
            at_ms=oldest.at_ms,
            mono_ns=oldest.mono_ns,
            coil=images[id(self._relay)].coils.get(self._output),
            trips_total=None if trips is None else images[id(trips.relay)].counters.get(trips.input),
            detail="; ".join(i.error for i in images.values() if i.error) or None,
            **{name: level.get(name) for name in READY_POINTS},
        )

    @staticmethod
    def _levels(group: tuple[InputRef, ...], images: Mapping[int, RelayImage]) -> list[bool | None]:
        seen = [images[id(ref.relay)].inputs.get(ref.input) for ref in group]
        return [None if s is None else s is not ref.inverted for s, ref in zip(seen, group, strict=True)]

    async def open(self) -> WriteOutcome:
        """Command it open: by pulse or command, by taking the release's voltage away, or by the contactor's coil."""
        if self._actuator in PULSED:
            return await self._impulse(self._output)
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
            now_ms = (await self.read()).at_ms
            return WriteOutcome(
                WriteStatus.REFUSED, now_ms, f"{self._actuator} without close_output: a person closes it"
            )
        return await self._impulse(self._close_output)

    async def _impulse(self, output: str) -> WriteOutcome:
        if self._relay.profile.output(output).table == "command":
            return await self._relay.command(output, deadline_s=self._deadline_s)
        return await self._relay.pulse(output, self._pulse_ms, deadline_s=self._deadline_s)


def _worst(name: str, levels: Sequence[bool | None]) -> bool | None:
    """Of several inputs of one point: bad as soon as one is bad, good only when all are known to be good."""
    bad = name in BAD_WHEN_MADE
    if bad in levels:
        return bad
    return None if None in levels else not bad


def position_of(open_contact: bool | None, closed_contact: bool | None) -> Position:
    """Two-bit position. One contact alone is never enough."""
    if open_contact is None or closed_contact is None:
        return Position.UNKNOWN
    if open_contact and closed_contact:
        return Position.FAULTY
    if open_contact:
        return Position.OPEN
    return Position.CLOSED if closed_contact else Position.MOVING
