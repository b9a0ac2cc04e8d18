"""One rack PDU: what it measures, and its outlets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from drivers.capabilities import Position, Reading, Sample
from drivers.errors import DriverError, NoAnswer, ProfileError
from drivers.snmp.credentials import Credentials
from drivers.snmp.decode import Raw, decode_measure, decode_position, raw_bits
from drivers.snmp.entity import COLUMNS, MOST_ROWS, sensor_reading
from drivers.snmp.outlet import OutletSwitch
from drivers.snmp.profile import Outlets, PduProfile
from drivers.snmp.session import SnmpPeer, SnmpSession
from wire.quality import Quality

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")
SYS_OBJECT_ID = "1.3.6.1.2.1.1.2.0"


@dataclass(frozen=True, slots=True)
class Outlet:
    """One outlet as the PDU reports it. ``state`` is its relay's, not an auxiliary contact's."""

    number: int
    state: Position
    power_w: Reading
    current_a: Reading
    energy_import_wh: Reading


@dataclass(frozen=True, slots=True)
class OutletTable:
    """All outlets of one PDU, by number; empty with ``error`` set where they could not be read."""

    device: str
    at_ms: int
    mono_ns: int
    outlets: dict[int, Outlet]
    quality: Quality
    """``GOOD`` where the device answered; single readings carry their own."""
    latency_ms: float = 0.0
    error: str | None = None


@dataclass(slots=True, eq=False)
class SnmpPdu:
    """A PDU at one address. Reading never raises and ends within ``timeout_s``, retries included.

    Frames are not kept in the sample: an SNMP message of v1/v2c holds the community in clear.

    Raises:
        ValueError: an argument is out of its range.
    """

    id: str
    host: str
    port: int
    profile: PduProfile
    credentials: Credentials = field(repr=False)
    session: SnmpSession = field(repr=False)
    timeout_s: float = 2.0
    retries: int = 0
    """Reads only; a command is sent once."""
    allow_write: bool = False
    """The owner's word that outlets may be switched; a write credential is needed besides."""
    switchable: frozenset[int] | None = None
    """Outlets that may be switched at all; ``None``: all that the model has."""
    sensor_rows: Mapping[str, int] = field(default_factory=dict)
    """By point: which row of the ENTITY-SENSOR-MIB is meant, where a device has several sensors of a kind."""
    wall_ms: Callable[[], int] = field(default=lambda: time.time_ns() // 1_000_000, repr=False)
    mono_ns: Callable[[], int] = field(default=time.monotonic_ns, repr=False)
    _reader: SnmpPeer = field(init=False, repr=False)
    _writer: SnmpPeer | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= 60 or not 0 <= self.retries <= 5 or not 0 < self.port < 65536:
            raise ValueError(f"{self.id}: timeout_s in (0, 60], retries in 0..5, port in 1..65535 expected")
        self._reader = self.session.peer(self.host, self.port, self.credentials.read, self.timeout_s)
        if self.allow_write and self.credentials.write is not None:
            self._writer = self.session.peer(
                self.host, self.port, self.credentials.write, self.timeout_s, self._allowed_writes()
            )

    def _allowed_writes(self) -> frozenset[tuple[str, int]]:
        """Every object and value that may ever be written to this device: nothing but on and off of its outlets."""
        model = self.profile.outlets
        if model is None:
            return frozenset()
        numbers = range(1, model.maximum + 1) if self.switchable is None else self.switchable
        return frozenset[tuple[str, int]]().union(*(model.commands(n) for n in numbers if 1 <= n <= model.maximum))

    def why_not_switched(self, number: int) -> str | None:
        """Why this outlet cannot be commanded; ``None`` where nothing speaks against it."""
        if not self.allow_write:
            return f"{self.id}: switching is not allowed (options: writes: allowed)"
        if self.credentials.write is None:
            return f"{self.id}: no write credential (write_community or write_user)"
        if self.switchable is not None and number not in self.switchable:
            return f"{self.id}: outlet {number} is no output in the site file"
        return None

    async def sample(self) -> Sample:
        """Read the totals of the device: every point of the profile, in SI, with its quality."""
        points = self.profile.points
        started_ns = self.mono_ns()
        answers, error = await self._read(self._get(tuple(o for m in points.values() for o in m.columns())))
        sensors: Mapping[str, Mapping[int, Raw]] | None = {}
        if answers is not None and self.profile.sensors:
            sensors, error = await self._read(lambda: self._reader.table(COLUMNS, MOST_ROWS))
            answers = answers if sensors is not None else None
        at_ms, mono_ns = self.wall_ms(), self.mono_ns()
        latency_ms = (mono_ns - started_ns) / 1e6
        if answers is None:
            quality = error.quality if error is not None else Quality.NO_CONNECTION
            readings = {point: Reading(None, quality) for point in (*points, *self.profile.sensors)}
            return Sample(self.id, at_ms, mono_ns, readings, latency_ms=latency_ms, error=str(error))
        readings = {point: decode_measure(measure, answers) for point, measure in points.items()}
        for point, kind in self.profile.sensors.items():
            readings[point] = sensor_reading(sensors or {}, kind, self.sensor_rows.get(point))
        bits = {point: raw_bits(measure, answers) for point, measure in points.items()}
        kept = {p: b for p, b in bits.items() if b is not None and readings[p].value is not None}
        return Sample(self.id, at_ms, mono_ns, readings, kept, latency_ms=latency_ms)

    async def outlets(self) -> OutletTable:
        """Read all outlets. Without outlets in the profile the table is empty and good."""
        started_ns = self.mono_ns()
        model = self.profile.outlets
        table: dict[int, Outlet] | None = {}
        error: DriverError | None = None
        if model is not None:
            table, error = await self._read(lambda: self._outlets(model))
        mono_ns = self.mono_ns()
        quality = Quality.GOOD if error is None else error.quality
        latency_ms = (mono_ns - started_ns) / 1e6
        text = None if error is None else str(error)
        return OutletTable(self.id, self.wall_ms(), mono_ns, table or {}, quality, latency_ms, text)

    def outlet_switch(self, number: int) -> OutletSwitch:
        """One outlet as a :class:`drivers.capabilities.Switch`.

        Raises:
            ProfileError: this model's outlets cannot be switched, or it has no such outlet.
        """
        model = self.profile.outlets
        if model is None or model.state is None or model.open is None or model.close is None:
            raise ProfileError(f"{self.id}: profile {self.profile.id} describes no switched outlets")
        if not 1 <= number <= model.maximum:
            raise ProfileError(f"{self.id}: outlet {number}; profile {self.profile.id} has 1..{model.maximum}")
        return OutletSwitch(
            device=self.id, number=number, state=model.state, open_command=model.open, close_command=model.close,
            pending=model.pending, reader=self._reader, writer=self._writer, timeout_s=self.timeout_s,
            refused=self.why_not_switched(number), wall_ms=self.wall_ms, mono_ns=self.mono_ns,
        )  # fmt: skip

    async def identity(self) -> dict[str, str | None]:
        """``sys_object_id`` and ``model`` as the device gives them.

        Raises:
            DriverError: it did not answer.
        """
        ref = self.profile.model_name
        oids = (SYS_OBJECT_ID, *(() if ref is None else (ref.at(),)))
        answers, error = await self._read(self._get(oids))
        if answers is None:
            raise error if error is not None else NoAnswer(f"{self.id}: no answer")
        texts = [answers.get(oid) for oid in oids]
        decoded = [t.decode("utf-8", errors="replace").strip() if isinstance(t, bytes) else None for t in texts]
        return {"sys_object_id": decoded[0], "model": decoded[1] if len(decoded) > 1 else None}

    def _get(self, oids: tuple[str, ...]) -> Callable[[], Awaitable[dict[str, Raw]]]:
        async def get() -> dict[str, Raw]:
            return await self._reader.get(tuple(dict.fromkeys(oids))) if oids else {}

        return get

    async def _read(self, ask: Callable[[], Awaitable[Answer]]) -> tuple[Answer | None, DriverError | None]:
        """Ask up to ``1 + retries`` times within ``timeout_s``; the answer, or why there is none."""
        error: DriverError = NoAnswer(f"{self._reader}: no answer in {self.timeout_s} s")
        for _ in range(self.retries + 1):
            try:
                async with asyncio.timeout(self.timeout_s / (self.retries + 1)):
                    return await ask(), None
            except TimeoutError:
                error = NoAnswer(f"{self._reader}: no answer in {self.timeout_s} s; check address, power and community")
            except DriverError as seen:
                error = seen
        log.warning("pdu_read_failed", device=self.id, quality=error.quality.value, reason=str(error))
        return None, error

    async def _outlets(self, model: Outlets) -> dict[int, Outlet]:
        refs = [ref for ref in (model.state, *model.measures.values()) if ref is not None]
        columns = [ref.walk_prefix for ref in refs]
        walked = list(dict.fromkeys(column for column in columns if column is not None))
        answers: dict[str, Raw] = {}
        numbers: set[int] = set()
        if walked:
            for column, rows in (await self._reader.table(walked, model.maximum)).items():
                answers.update({f"{column}.{row}": value for row, value in rows.items()})
                numbers.update(row for row in rows if 1 <= row <= model.maximum)
        elif model.count is not None:
            count = (await self._reader.get([model.count.at()]))[model.count.at()]
            if isinstance(count, int):
                numbers.update(range(1, min(count, model.maximum) + 1))
        rows_oids = [oid for n in sorted(numbers) for measure in model.measures.values() for oid in measure.columns(n)]
        # Where the outlet's number is not the last of the index, or a value needs its decimals, rows are asked singly.
        if single := [oid for oid in rows_oids if oid.rpartition(".")[0] not in walked]:
            answers.update(await self._reader.get(single))
        return {n: _outlet(model, n, answers) for n in sorted(numbers)}


def _outlet(model: Outlets, number: int, answers: dict[str, Raw]) -> Outlet:
    none = Reading(None, Quality.NO_VALUE)
    readings = {point: decode_measure(measure, answers, number) for point, measure in model.measures.items()}
    state = model.state
    return Outlet(
        number,
        Position.UNKNOWN if state is None else decode_position(state, answers.get(state.at(number))),
        readings.get("power_w", none),
        readings.get("current_a", none),
        readings.get("energy_import_wh", none),
    )
