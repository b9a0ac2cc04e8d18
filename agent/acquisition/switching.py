"""Relays, PDUs and switches of a site, built from its file; САОН inputs; and who moved a switch.

САОН is read here and driven nowhere: its inputs are looked at, and there is no object through which it could be
commanded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from agent.errors import AgentError
from config.devices import Credentials as CredentialSource
from config.devices import Device
from config.nodes import Compensation, Input, SaonStage
from config.nodes import Switch as SwitchNode
from config.site import Site
from drivers.capabilities import Position, Switch, SwitchState, WriteOutcome, WriteStatus
from drivers.modbus.link import ModbusLink
from drivers.modbus.relay import READY_POINTS, InputRef, RelayDevice, RelaySwitch, position_of
from drivers.modbus.relay.safety import Used
from drivers.profiles.model import RelayProfile
from drivers.profiles.switching import Actuator
from drivers.snmp.credentials import credentials_from_text
from drivers.snmp.pdu import SnmpPdu
from drivers.snmp.profile import PduProfile
from drivers.snmp.session import SnmpSession

log = structlog.get_logger()

SECRET_LIMIT_BYTES = 4096
OUR_MOVE_S = 60.0
"""A movement this long after our command is not believed to be its effect."""
_SETTLED = frozenset({Position.OPEN, Position.CLOSED})
Kept = Literal["latched", "counter"]


@dataclass(frozen=True, slots=True)
class SaonInput:
    """One input that keeps the operations of one САОН stage of one feeder. Nothing in it can be commanded."""

    feeder: str
    stage: int
    device: str
    input: str
    inverted: bool
    kept: Kept
    """``latched``: made until somebody resets it. ``counter``: the module's count rises."""


# -- devices ---------------------------------------------------------------------------------------------------------


def relay_of(site: Site, device: Device, profile: RelayProfile, link: ModbusLink, base: Path) -> RelayDevice:
    """One relay board or breaker controller.

    Raises:
        AgentError: its password cannot be read.
        ValueError: an option that its profile does not have.
    """
    password: bytes | None = None
    if profile.command_interface is not None and profile.command_interface.password == "required":  # noqa: S105 - a rule
        password = secret_text(site, device, base).strip().encode("ascii", errors="replace")
    relay = RelayDevice(device.id, device.unit, profile, link, options=device.options, password=password)
    relay.use(used_of(site, device.id, profile))
    return relay


def used_of(site: Site, device: str, profile: RelayProfile) -> Used:
    """Terminals of a board that the site uses."""
    outputs: dict[str, Actuator] = {}
    inputs: set[str] = set()
    counters: set[str] = set()
    for node in site.nodes:
        if isinstance(node, Compensation) and node.position is not None:
            wires = (node.position.open, node.position.closed)
            inputs |= {wire.input for wire in wires if wire.device == device}
        if not isinstance(node, SwitchNode):
            continue
        if node.control is not None and node.control.device == device and node.actuator is not None:
            outputs[node.control.output] = node.actuator
            if node.control.close_output is not None:
                outputs[node.control.close_output] = "motor_operator"  # an impulse that closes, whatever opens it
        contacts = [] if node.position is None else [node.position.open, node.position.closed]
        wired = [("position", found) for found in contacts] + list(node.readiness.wired())
        for point, found in wired:
            if found.device == device:
                (counters if point == "trips_total" else inputs).add(found.input)
        for stage in node.saon:
            if stage.operated is not None and stage.operated.device == device:
                kept = kept_by(node.id, stage, profile)
                (counters if kept == "counter" else inputs).add(stage.operated.input)
    for loop in site.cooling_loops:
        if loop.flow_ok is not None and loop.flow_ok.device == device:
            inputs.add(loop.flow_ok.input)
    return Used(outputs, frozenset(inputs), frozenset(counters))


def kept_by(feeder: str, stage: SaonStage, profile: RelayProfile) -> Kept:
    """How an operation of САОН is kept until it is read.

    Raises:
        ValueError: nothing keeps it, or not in a way that can be read.
    """
    where = f"switch {feeder}, САОН stage {stage.stage}"
    if stage.operated is None:
        raise ValueError(f"{where}: no input")
    found = profile.input(stage.operated.input)
    kept = stage.operated_by or ("latched" if found.latched else "counter" if found.counter is not None else "polled")
    if kept == "counter" and found.counter is None:
        raise ValueError(f"{where}: {found.id} of {profile.id} is not counted by the module; use a counting input")
    if kept == "counter":
        return "counter"
    if kept == "latched":
        return "latched"
    raise ValueError(
        f"{where}: seen {kept}, expected latched or counter: a contact of 100 ms is missed by polling; use a latching "
        "relay or a counting input"
    )


def pdu_of(
    site: Site, device: Device, profile: PduProfile, address: tuple[str, int], snmp: SnmpSession, base: Path
) -> SnmpPdu:
    """One PDU; only the outlets that the site file names as outputs can be switched.

    Raises:
        AgentError: it has no secret, or it cannot be read.
        ValueError: the secret or an option cannot be understood.
    """
    if device.credentials is None:
        raise AgentError(f"device {device.id}: a PDU needs 'credentials' (the SNMP community or user)")
    return SnmpPdu(
        device.id,
        *address,
        profile.placed(device.options),
        credentials_from_text(secret_text(site, device, base)),
        snmp,
        allow_write=device.options.get("writes") == "allowed",
        sensor_rows=sensor_rows(profile, device.options),
        switchable=frozenset(
            outlet_number(node.control.output)
            for node in site.nodes
            if isinstance(node, SwitchNode) and node.control is not None and node.control.device == device.id
        ),
    )


def sensor_rows(profile: PduProfile, options: Mapping[str, str]) -> dict[str, int]:
    """Rows of the ENTITY-SENSOR-MIB that a site file names: ``options: {sensor_power_w: "1005"}``.

    Raises:
        ValueError: a row that is no number.
    """
    found = {point: options[f"sensor_{point}"] for point in profile.sensors if f"sensor_{point}" in options}
    for point, text in found.items():
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise ValueError(f"option sensor_{point}: seen {text!r}, expected the number of a row")
    return {point: int(text) for point, text in found.items()}


def outlet_number(output: str) -> int:
    """Number of an outlet in a site file's ``output``: ``7``, ``outlet_7``.

    Raises:
        ValueError: it ends with no number.
    """
    found = re.fullmatch(r"(?:outlet[_-])?0*(\d{1,4})", output)
    if found is None:
        raise ValueError(f"output: seen {output!r}, expected the number of an outlet, such as 7 or outlet_7")
    return int(found.group(1))


def secret_text(site: Site, device: Device, base: Path) -> str:
    """The secret that a device's ``credentials`` name.

    Raises:
        AgentError: there is none, or its file cannot be read. The secret is never in the message.
    """
    source: CredentialSource | None = site.credentials.get(device.credentials or "")
    if source is None:
        raise AgentError(f"device {device.id}: needs 'credentials', the name of a secret in this file")
    if source.password_env is not None:
        return os.environ.get(source.password_env, "")
    path = base / (source.password_file or "")
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(SECRET_LIMIT_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(f"device {device.id}: {path} cannot be read ({type(error).__name__})") from error


# -- switches --------------------------------------------------------------------------------------------------------


def switch_of(node: SwitchNode, relays: Mapping[str, RelayDevice], pdus: Mapping[str, SnmpPdu]) -> Switch | None:
    """A switch as the agent sees and, where it is an output, drives it; ``None`` where nothing of it is wired.

    Raises:
        KeyError: no such output or input.
        ValueError: the module cannot do what the actuator needs.
    """

    def ref(found: Input) -> InputRef:
        return InputRef(relays[found.device], found.input, found.inverted)

    position = None if node.position is None else (ref(node.position.open), ref(node.position.closed))
    if node.control is None:
        return None if position is None else SeenSwitch(*position)
    if node.control.device in pdus:
        return pdus[node.control.device].outlet_switch(outlet_number(node.control.output))
    if node.actuator is None:  # the model forbids it
        raise ValueError(f"switch {node.id}: no actuator")
    ready: dict[str, list[InputRef]] = {}
    for point, found in node.readiness.wired():
        if point in READY_POINTS:
            ready.setdefault(point, []).append(ref(found))
    trips = node.readiness.trips_total
    return RelaySwitch(
        relays[node.control.device],
        node.control.output,
        node.actuator,
        *(position or (None, None)),
        close_output=node.control.close_output,
        pulse_ms=node.control.pulse_ms,
        readiness=ready,
        trips_counter=None if trips is None else ref(trips),
    )


class SeenSwitch:
    """A switch that is only watched: commands are refused by construction."""

    def __init__(self, opened: InputRef, closed: InputRef) -> None:
        self._inputs = (opened, closed)

    async def read(self) -> SwitchState:
        """Two-bit position from its contacts."""
        images = [await ref.relay.read() for ref in self._inputs]
        levels: list[bool | None] = []
        for ref, image in zip(self._inputs, images, strict=True):
            seen = image.inputs.get(ref.input)
            levels.append(None if seen is None else seen is not ref.inverted)
        oldest = min(images, key=lambda image: image.mono_ns)
        return SwitchState(position_of(*levels), oldest.at_ms, oldest.mono_ns)

    async def open(self) -> WriteOutcome:
        """Refused: not an output."""
        raise AgentError("this switch is watched, not driven")

    async def close(self) -> WriteOutcome:
        """Refused: not an output."""
        raise AgentError("this switch is watched, not driven")


class WatchedSwitch:
    """A switch whose movements are told apart: ours, or somebody else's (a person, protection, АПВ, another master)."""

    def __init__(
        self, switch_id: str, inner: Switch, mono_ns: Callable[[], int], on_moved: Callable[[str, str, str], None]
    ) -> None:
        self.id, self.inner = switch_id, inner
        self._mono_ns, self._on_moved = mono_ns, on_moved
        self._seen: Position | None = None
        self._wanted: Position | None = None
        self._wanted_ns = 0

    async def read(self) -> SwitchState:
        """Read it, and compare with what was last seen."""
        state = await self.inner.read()
        if state.position in _SETTLED:
            self._compare(state.position)
        return state

    async def open(self) -> WriteOutcome:
        """Command it open."""
        return await self._command(Position.OPEN, self.inner.open)

    async def close(self) -> WriteOutcome:
        """Command it closed."""
        return await self._command(Position.CLOSED, self.inner.close)

    async def _command(self, wanted: Position, command: Callable[[], Awaitable[WriteOutcome]]) -> WriteOutcome:
        self._wanted, self._wanted_ns = wanted, self._mono_ns()
        outcome = await command()
        if outcome.status is WriteStatus.REFUSED:
            self._wanted = None
        return outcome

    def _compare(self, seen: Position) -> None:
        was, self._seen = self._seen, seen
        ours = self._wanted is seen and (self._mono_ns() - self._wanted_ns) / 1e9 <= OUR_MOVE_S
        if ours:
            self._wanted = None
        if was is not None and was is not seen and not ours:
            log.warning("switch_moved_by_others", switch=self.id, was=was.value, now=seen.value)
            self._on_moved(self.id, was.value, seen.value)


# -- САОН ------------------------------------------------------------------------------------------------------------


def saon_inputs(site: Site, relays: Mapping[str, RelayDevice]) -> Iterator[SaonInput]:
    """Every wired САОН stage of every feeder.

    Raises:
        ValueError: a stage whose operation nothing keeps.
        KeyError: no such device or input.
    """
    for node in site.nodes:
        for stage in node.saon if isinstance(node, SwitchNode) else ():
            wire = stage.operated
            if wire is not None:
                kept = kept_by(node.id, stage, relays[wire.device].profile)
                yield SaonInput(node.id, stage.stage, wire.device, wire.input, wire.inverted, kept)


def rose(before: int | None, now: int) -> bool:
    """Has a counter seen a contact since? A smaller number is a module that began anew and has counted since."""
    return before is not None and now != before and now > 0
