"""Collects samples into columnar batches and keeps the live message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from agent.clock import Clock
from agent.curtailment.fleet import draw_w
from agent.live import LiveState, Miner
from agent.outbox import BulkOutbox
from config.devices import MinerGroup
from drivers.capabilities import Position, Sample, SwitchState
from wire.batch import Batch, PartBuilder, Scalar, encode
from wire.errors import BadBatch
from wire.quality import CODES, Quality

log = structlog.get_logger()

MISSING = CODES[Quality.NO_VALUE]
POSITION_CODE = {Position.OPEN: 0, Position.CLOSED: 1, Position.MOVING: 2, Position.FAULTY: 3}
"""Value of point ``position`` in telemetry; an unknown position is null."""
MAX_ROWS = 4000


@dataclass(slots=True)
class Batcher:
    """Gathers rows and writes one or more batches per period."""

    site: str
    epoch: str
    outbox: BulkOutbox
    live: LiveState
    clock: Clock
    kinds: dict[str, str]
    """Device id → ``meter`` or ``pdu``."""
    groups: dict[str, MinerGroup]
    period_s: float
    _rows: list[tuple[str, str, int, dict[str, tuple[Scalar, int]]]] = field(default_factory=list)
    _positions: dict[str, Position] = field(default_factory=dict)
    _last_at: dict[tuple[str, str], int] = field(default_factory=dict)
    dropped_rows: int = 0

    def take_sample(self, sample: Sample) -> None:
        """A row of a meter or PDU."""
        cells: dict[str, tuple[Scalar, int]] = {}
        for point, reading in sample.readings.items():
            if isinstance(reading.value, str):
                continue
            cells[point] = (reading.value, CODES[reading.quality])
        if cells:
            self._add(self.kinds.get(sample.device, "meter"), sample.device, sample.at_ms, cells)

    def _add(self, kind: str, device: str, at_ms: int, cells: dict[str, tuple[Scalar, int]]) -> None:
        """A row, unless the device already has one of this very moment (two give-ups of one silent unit)."""
        if self._last_at.get((kind, device)) == at_ms:
            return
        self._last_at[kind, device] = at_ms
        self._rows.append((kind, device, at_ms, cells))

    def take_switch(self, switch: str, _was: SwitchState | None, now: SwitchState) -> None:
        """A row when a position changes (and the first time)."""
        if self._positions.get(switch) is now.position:
            return
        self._positions[switch] = now.position
        code = POSITION_CODE.get(now.position)
        quality = Quality.GOOD if code is not None else Quality.NO_CONNECTION
        self._add("switch", switch, now.at_ms, {"position": (code, CODES[quality])})

    def take_miner(self, machine: str, seen: Miner) -> None:
        """A row of a machine."""
        status = seen.status
        bad = CODES[seen.quality]

        def cell(value: float | int | None) -> tuple[Scalar, int]:
            if status is None:
                return None, bad
            return (value, CODES[Quality.GOOD]) if value is not None else (None, MISSING)

        hashing = None if status is None or status.hashrate_ths is None else status.hashrate_ths
        cells = {
            "hashrate_ths": cell(hashing),
            "power_w": cell(status.power_w if status else None),
            "temperature_max_c": cell(status.temperature_max_c if status else None),
            "uptime_s": cell(status.uptime_s if status else None),
            "sleeping": cell(None if status is None or status.sleeping is None else int(status.sleeping)),
        }
        self._add("asic", machine, seen.at_ms, cells)

    async def run(self) -> None:
        """Write batches each period until cancelled; what is left is written at the end."""
        try:
            while True:
                await asyncio.sleep(self.period_s)
                await self.flush()
        finally:
            await asyncio.shield(self.flush())

    async def flush(self) -> None:
        """Write all rows gathered so far."""
        while self._rows:
            rows, self._rows = self._rows[:MAX_ROWS], self._rows[MAX_ROWS:]
            await self._store(rows)

    async def _store(self, rows: list[tuple[str, str, int, dict[str, tuple[Scalar, int]]]]) -> None:
        t0 = min(at for _, _, at, _ in rows)
        builders: dict[str, PartBuilder] = {}
        for kind, device, at, cells in rows:
            builders.setdefault(kind, PartBuilder(kind, MISSING)).add(device, at, cells)
        batch = Batch(
            v=1,
            site=self.site,
            epoch=self.epoch,
            boot=self.outbox.boot,
            n=self.outbox.next_n,
            t0=t0,
            clk="S" if self.clock.synchronised() else "U",
            parts=[b.build(t0) for b in builders.values()],
        )
        try:
            packed = await asyncio.to_thread(encode, batch)
        except BadBatch:
            half = len(rows) // 2
            await self._store(rows[:half])
            await self._store(rows[half:])
            return
        if not await self.outbox.put(packed, n=batch.n, t0=t0, rows=batch.rows(), cells=batch.values()):
            self.dropped_rows += len(rows)
            log.error("bulk_rows_dropped", rows=len(rows), total=self.dropped_rows, reason="disk or byte cap")


def mining_w(live: LiveState, groups: dict[str, MinerGroup]) -> int | None:
    """Sum of what the machines themselves report or are estimated to draw; null when none answers. Never a proof."""
    total, known = 0, False
    for machine, seen in live.miners.items():
        group = groups.get(machine.rpartition("/")[0])
        if seen.status is not None and group is not None:
            total += draw_w(seen.status, group)
            known = True
    return total if known else None
