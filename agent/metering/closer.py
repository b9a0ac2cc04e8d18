"""Reads the registers at slot boundaries and writes one record per metering point and slot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.acquisition.bench import Bench, MeterPort
from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.ledger.store import dumps
from agent.metering.belief import AGREEING, MARGIN, Seen, agree, follows
from agent.metering.slots import IMPORT, Boundary, SlotChain, energy_points
from config.devices import MeteringPoint
from config.graph import Graph
from config.site import Site
from drivers.capabilities import Position, Sample
from drivers.modbus.scheduler import Klass
from drivers.profiles.codec import decode_map
from wire.quality import Quality

log = structlog.get_logger()

WHY = {
    Quality.TIMEOUT: "TIMEOUT",
    Quality.CRC: "CRC",
    Quality.EXCEPTION: "EXCEPTION",
    Quality.NO_CONNECTION: "NO_CONNECTION",
    Quality.NO_VALUE: "NO_VALUE",
    Quality.DECODE: "DECODE",
    Quality.SUSPECT: "DECODE",
}
RETRY_S = 0.25
KEEP_SLOTS = 400
TRY_S = 1.0
UNBELIEVED = 6
"""Readings that are listened to before a meter that contradicts itself is given up for this boundary."""


@dataclass(slots=True)
class PointState:
    """One metering point in service."""

    point: MeteringPoint
    port: MeterPort
    decode: dict[str, dict[str, Any]]
    chain: SlotChain | None = None
    sn: str | None = None
    rebind: bool = False
    """True until the meter is bound anew, because its decode map or device is not that of the last bind."""
    stepped: bool = False
    """True from a step of the wall clock until the slot that holds it is recorded as a gap."""


@dataclass(slots=True)
class SlotCloser:
    """Owner of the slot clock."""

    site: Site
    ledger: Ledger
    bench: Bench
    fleet: Fleet
    graph: Graph
    clock: Clock
    on_slot: Callable[[int], None] = lambda _t: None
    check_clock: Callable[[], None] = lambda: None
    """Looks for a step of the wall clock and calls :meth:`clock_stepped` where there was one."""
    states: dict[str, PointState] = field(default_factory=dict)
    unwritten: int = 0
    dark_since: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Device → (switch, since ms) while its supply is dark behind an open switch."""

    async def prepare(self) -> None:
        """Put every point in service: read it once, write or find its ``bind``, restore its chain."""
        for point in self.site.metering_points:
            port = self.bench.meters.get(point.device)
            if point.read_by != "agent" or port is None:
                continue
            energy = {
                p.id: decode_map(p) for p in port.device.profile.points if p.id in port.energy and p.kind == "counter"
            }
            state = PointState(point, port, energy)
            self.states[point.id] = state
            await self._restore(state)

    async def _restore(self, state: PointState) -> None:
        stream = f"mp:{state.point.id}"
        bind = await self.ledger.read(
            "SELECT payload, hash, at FROM record WHERE stream=? AND ty='bind' ORDER BY n DESC LIMIT 1", stream
        )
        if not bind:
            return
        doc = json.loads(bytes(bind[0][0]))
        if doc["pts"] != state.decode or doc["device"] != state.point.device:
            log.warning("meter_rebound", point=state.point.id, reason="its decode map or device changed")
            state.rebind = True
        state.sn = doc["sn"]
        state.chain = self._chain(state, bytes(bind[0][1]).hex())
        rows = await self.ledger.read("SELECT doc FROM boundary WHERE mp=? ORDER BY t DESC LIMIT 1", state.point.id)
        # What was read before is not comparable where the registers are others, and unknown where it was not written:
        # the slots since then are gaps.
        slot = self.site.agent.slot_s
        bound_s = int(bind[0][2]) // 1000 // slot * slot
        last = json.loads(rows[0][0]) if rows else {"t": bound_s, "rt": bound_s * 1000}
        if state.rebind or not rows:
            state.chain.last = Boundary(int(last["t"]), int(last["rt"]), why="AGENT_DOWN", tries=0)
            return
        state.chain.last = Boundary.from_doc(last)
        anchor = await self.ledger.read(
            "SELECT doc FROM boundary WHERE mp=? AND t=?", state.point.id, last["anchor"] or 0
        )
        if anchor:
            state.chain.anchor = Boundary.from_doc(json.loads(anchor[0][0]))

    def _chain(self, state: PointState, cfg: str) -> SlotChain:
        late = 3000 if state.port.serial else 1000
        return SlotChain(self.site.agent.slot_s, late, state.decode, cfg)

    async def _bind(self, state: PointState, sn: str | None) -> SlotChain:
        """Write a ``bind`` record; the chain that follows it."""
        point, passport = state.point, state.point.passport
        ratio = {"num": 1, "den": 1}
        fields = {
            "device": point.device,
            "profile": state.port.device.profile.id,
            "sn": sn,
            "role": point.role,
            "owner": point.owner,
            "boundary": point.boundary,
            "node": point.node,
            "inverted": point.inverted,
            "ct": {"num": passport.ct.num, "den": passport.ct.den} if passport.ct else ratio,
            "vt": {"num": passport.vt.num, "den": passport.vt.den} if passport.vt else ratio,
            "ratio_applied_in": passport.ratio_applied_in,
            "seals": list(passport.seals),
            "pts": state.decode,
        }
        done = await self.ledger.commit(Txn().record(f"mp:{point.id}", "bind", fields), urgent=True)
        state.sn = sn
        chain = self._chain(state, done[0].line.hash.hex())
        if state.chain is not None:
            chain.last = state.chain.last
        return chain

    async def run(self) -> None:
        """Close slots until cancelled."""
        slot = self.site.agent.slot_s
        window = min(30.0, slot / 10)
        while True:
            boundary = (self.clock.now_ms() // 1000 // slot + 1) * slot
            await self._until(boundary)
            self.check_clock()
            if not 0 <= self.clock.now_ms() / 1000 - boundary <= window:
                continue  # the clock was set, or this process did not run: the next boundary tells what was missed
            async with asyncio.TaskGroup() as group:
                for state in self.states.values():
                    group.create_task(self._close(state, boundary, window), name=f"slot-{state.point.id}")
            self.on_slot(boundary)

    async def _until(self, boundary: int) -> None:
        """Sleep to a boundary in short steps, so that a clock that is set is seen; it may return early then."""
        slot = self.site.agent.slot_s
        left = boundary - self.clock.now_ms() / 1000
        while 0 < left <= slot:
            await asyncio.sleep(min(left, 1.0))
            left = boundary - self.clock.now_ms() / 1000

    async def _close(self, state: PointState, t: int, window_s: float) -> None:
        boundary = await self._read(state, t, window_s)
        self.check_clock()
        if state.stepped:  # a slot that holds a step has no length that a clock could vouch for
            boundary = Boundary(t, self.clock.now_ms(), why="CLOCK", tries=boundary.tries)
        try:
            await self._record(state, boundary)
        except LedgerError as error:
            # The chain is rebuilt from disk at the next boundary: what was not written becomes a gap, never a guess.
            self.unwritten += 1
            log.error("slot_not_recorded", point=state.point.id, t=t, error=str(error))
            if state.chain is not None:
                await self._reload(state)

    async def _reload(self, state: PointState) -> None:
        try:
            await self._restore(state)
        except LedgerError as error:
            log.error("chain_not_reloaded", point=state.point.id, error=str(error))

    async def _read(self, state: PointState, t: int, window_s: float) -> Boundary:
        """The first good reading in the window."""
        deadline = t + window_s
        tries, why = 0, "TIMEOUT"
        seen: list[Seen] = []
        while True:
            left = deadline - self.clock.now_ms() / 1000
            if tries and left <= 0.05:
                return self._absent(state, t, why, tries)
            tries += 1
            sample = await state.port.link.read(
                state.port.device,
                (*state.port.energy, "power_w"),
                klass=Klass.BOUNDARY,
                deadline_s=max(0.1, min(left, TRY_S)),
            )
            read = sample.readings.get(IMPORT)
            why = WHY.get(read.quality, "TIMEOUT") if read else "TIMEOUT"
            usable = read is not None and read.quality.usable and energy_points(sample.bits, state.decode)
            if usable and sample.at_ms <= deadline * 1000:
                seen.append(Seen(sample.bits[IMPORT], sample.mono_ns))
                if self._believed(state, t, seen):
                    return self._present(state, t, sample, tries)
                why = "DECODE"
            if len(seen) >= UNBELIEVED:
                log.error("meter_contradicts_itself", point=state.point.id, t=t, bits=[s.bits for s in seen])
                return self._absent(state, t, why, tries)
            await asyncio.sleep(RETRY_S if len(seen) < AGREEING else 2 * RETRY_S)

    def _believed(self, state: PointState, t: int, seen: list[Seen]) -> bool:
        chain, passport = state.chain, state.point.passport
        limit_w = round(MARGIN * 1000 * max(self.site.site.contracted_kw, passport.nominal_kw or 0))
        before = None
        if chain is not None and not state.rebind:
            before = chain.last if chain.last is not None and chain.last.good else chain.anchor
        if before is not None and IMPORT in before.bits and before.t < t:
            return follows(before, seen[-1].bits, t, state.decode, limit_w) or agree(seen, state.decode, limit_w)
        return agree(seen, state.decode, limit_w)

    def _present(self, state: PointState, t: int, sample: Sample, tries: int) -> Boundary:
        power, serial = sample.readings.get("power_w"), sample.readings.get("serial_number")
        return Boundary(
            t,
            sample.at_ms,
            {p: b for p, b in sample.bits.items() if p in state.decode},
            tuple((a.hex(), b.hex()) for a, b in sample.frames),
            str(serial.value) if serial and serial.value is not None else None,
            tries=tries,
            power_w=round(power.value) if power and isinstance(power.value, int | float) else None,
        )

    def _absent(self, state: PointState, t: int, why: str, tries: int) -> Boundary:
        dark = self.dark_since.get(state.point.device)
        if dark is None:
            return Boundary(t, self.clock.now_ms(), why=why, tries=tries)
        return Boundary(t, self.clock.now_ms(), why="NO_POWER", tries=tries, sw=dark[0], dark_since_ms=dark[1])

    async def _record(self, state: PointState, boundary: Boundary) -> None:
        if state.chain is None:
            if not boundary.good:
                return  # never in service yet: nothing is claimed about it
            state.chain = await self._bind(state, boundary.sn)
        if state.chain.last is not None and boundary.t <= state.chain.last.t:
            log.warning("slot_again", point=state.point.id, t=boundary.t)
            return
        other = boundary.sn is not None and state.sn is not None and boundary.sn != state.sn
        if boundary.good and (other or state.rebind):
            await self._swap(state, state.chain, boundary)
            return
        await self.ledger.commit(self._txn(state, state.chain, boundary))
        state.stepped = False

    def clock_stepped(self) -> None:
        """The wall clock was set: the slot it happened in becomes a gap at every point."""
        for state in self.states.values():
            state.stepped = True

    def _txn(self, state: PointState, chain: SlotChain, boundary: Boundary) -> Txn:
        txn = Txn()
        for record in chain.close(boundary, missed="CLOCK" if state.stepped else "AGENT_DOWN"):
            txn.record(f"mp:{state.point.id}", record.ty, record.fields)
        txn.run(
            "INSERT OR REPLACE INTO boundary VALUES (?,?,?,?)",
            state.point.id,
            boundary.t,
            boundary.rt_ms,
            dumps(boundary.doc() | {"anchor": chain.anchor.t if chain.anchor else None}),
        )
        txn.run(
            "DELETE FROM boundary WHERE mp=? AND t < ? AND t <> ?",
            state.point.id,
            boundary.t - KEEP_SLOTS * self.site.agent.slot_s,
            chain.anchor.t if chain.anchor else 0,
        )
        return txn

    async def _swap(self, state: PointState, chain: SlotChain, boundary: Boundary) -> None:
        """Another meter answers at the same place, or it is read otherwise: the slot is a gap, and it is bound anew."""
        log.warning("meter_bound_anew", point=state.point.id, was=state.sn, now=boundary.sn, configured=state.rebind)
        await self.ledger.commit(self._txn(state, chain, boundary))
        state.chain = await self._bind(state, boundary.sn)
        state.chain.anchor = boundary
        state.rebind = False

    def watch_supply(self) -> None:
        """Note which meters are dark behind an open switch, and since when. Called on every change of a position."""
        positions = self.fleet.positions()
        live = self.graph.energised(positions)
        now = self.clock.now_ms()
        supplies = {d.id: d.fed_from for d in self.site.devices if d.kind == "meter"}
        for device, node in supplies.items():
            if node is None or node in live:
                self.dark_since.pop(device, None)
                continue
            if device in self.dark_since:
                continue
            opened = [
                s
                for s in self.graph.upstream_path(node, self.graph.normal_positions())
                if s in self.graph.switches and not positions.get(s, True)
            ]
            seen = [
                s
                for s in opened
                if (st := self.bench.live.switches.get(s)) is not None and st.position is Position.OPEN
            ]
            if seen:
                self.dark_since[device] = (seen[0], now)
