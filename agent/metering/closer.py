"""Reads the registers at slot boundaries and writes one record per metering point and slot.

A metering point is bound anew, with a gap in between, where another meter answers, where the meter's transformer ratios
are set otherwise, where it is read otherwise than before, and where a person says that the device was exchanged.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from agent.acquisition.bench import Bench
from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.ledger.store import dumps
from agent.metering.balancing import Balancing
from agent.metering.belief import AGREEING, MARGIN, Seen, agree, follows
from agent.metering.binding import bind_fields, device_fields, passport_doc
from agent.metering.integral import PowerIntegral
from agent.metering.meterclock import ClockState, judge
from agent.metering.phases import PhaseWatch, read_events
from agent.metering.registers import (
    RATIO_POINTS,
    applied_ratio,
    evidence_curve,
    evidence_maps,
    merged_ratios,
    ratio_number,
    ratios_differ,
    read_ratios,
    whole_number,
)
from agent.metering.shares import shares
from agent.metering.slots import IMPORT, Boundary, SlotChain, energy_points
from agent.metering.standing import newest_slot
from agent.metering.state import PointState
from agent.metering.supply import Dark, SupplyWatch
from config.graph import Graph
from config.rules.passports import ratio_agrees
from config.site import Site
from drivers.capabilities import Sample
from drivers.modbus.scheduler import Klass
from wire.points import EVENT_POINTS
from wire.quality import Quality
from wire.rollup import Share

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
SETTINGS_S = 5.0
"""How long a reading of ratios and clock may take; nothing waits for it but the record."""
WRAP_MARGIN = 1.2
"""How many times its rated power a connection may have carried where a falling register is taken for a rollover."""
UNBELIEVED = 6
"""Readings that are listened to before a meter that contradicts itself is given up for this boundary."""


@dataclass(slots=True)
class SlotCloser:
    """Owner of the slot clock."""

    site: Site
    ledger: Ledger
    bench: Bench
    fleet: Fleet
    graph: Graph
    clock: Clock
    balancing: Balancing | None = None
    check_clock: Callable[[], None] = lambda: None
    """Looks for a step of the wall clock and calls :meth:`clock_stepped` where there was one."""
    states: dict[str, PointState] = field(default_factory=dict)
    unwritten: int = 0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    supply: SupplyWatch = field(init=False)
    _shares: tuple[Share, ...] = ()
    _points_of: dict[str, list[PointState]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.supply = SupplyWatch(self.site, self.graph, self.bench.live, self.clock)
        self._shares = shares(self.site, self.graph)
        self.bench.live.on_sample(self.take)

    def newest_slot(self) -> dict[str, Any] | None:
        """Energy of the newest slot, for status; see :func:`agent.metering.standing.newest_slot`."""
        newest = {name: state.newest for name, state in self.states.items() if state.newest is not None}
        return newest_slot(newest, self.site.metering_points, self.site.virtual_points, self._shares)

    @property
    def dark_since(self) -> dict[str, Dark]:
        """Meters whose supply is dark behind an open switch."""
        return self.supply.dark

    def dark_w(self, point: str) -> int | None:
        """The most that the branch of a metering point can draw where its meter is proven dark; else ``None``."""
        device = next((p.device for p in self.site.metering_points if p.id == point), None)
        return None if device is None else self.supply.dark_w(device)

    def take(self, sample: Sample) -> None:
        """A meter was read."""
        self.supply.take(sample)
        for state in self._points_of.get(sample.device, ()):
            state.phases.add(sample.readings)
        power = sample.readings.get("power_w")
        if power is None or not power.quality.usable or not isinstance(power.value, int | float):
            return
        for state in self._points_of.get(sample.device, ()):
            state.integral.add(sample.mono_ns, power.value * float(applied_ratio(state.point.passport)))

    async def prepare(self) -> None:
        """Put every point in service: read it once, write or find its ``bind``, restore its chain."""
        for point in self.site.metering_points:
            port = self.bench.meters.get(point.device)
            if point.read_by != "agent" or port is None:
                continue
            profile = port.device.profile
            decode = evidence_maps(profile, point.passport, port.energy)
            if IMPORT not in decode:
                log.error("point_not_provable", point=point.id, device=point.device, profile=profile.id)
                continue
            settings = tuple(p for p in (*RATIO_POINTS, "clock", *EVENT_POINTS) if p in profile.point_ids)
            integral, phases = PowerIntegral(3 * port.period_s + 1), PhaseWatch(point)
            lp = evidence_curve(profile, point.passport)
            state = PointState(point, port, decode, settings, integral, phases, lp)
            self.states[point.id] = state
            self.supply.meters[point.device] = (decode, applied_ratio(point.passport))
            self._points_of.setdefault(point.device, []).append(state)
            await self._restore(state)
        if self.balancing is not None:
            await self.balancing.prepare()

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
        state.renew = doc.get("passport") != passport_doc(state.point.passport) or doc.get("lp") != state.lp
        state.sn = doc["sn"]
        state.ratios = device_fields(doc)
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
        self.supply.restore(state.point.device, state.chain.last)
        state.ratios = merged_ratios(state.ratios, state.chain.last.ratios)
        anchor = await self.ledger.read(
            "SELECT doc FROM boundary WHERE mp=? AND t=?", state.point.id, last["anchor"] or 0
        )
        if anchor:
            state.chain.anchor = Boundary.from_doc(json.loads(anchor[0][0]))

    def _chain(self, state: PointState, cfg: str) -> SlotChain:
        late = 3000 if state.port.serial else 1000
        limit_w = round(WRAP_MARGIN * 1000 * (state.point.passport.nominal_kw or self.site.site.contracted_kw))
        return SlotChain(self.site.agent.slot_s, late, state.decode, cfg, limit_w)

    async def _bind(self, state: PointState, boundary: Boundary, txn: Txn) -> SlotChain:
        """Commit a transaction with a ``bind`` record at its end; the chain that follows it."""
        stream = f"mp:{state.point.id}"
        self._keep(state, boundary, boundary, txn)
        if state.swap is not None:
            txn.set_meta(f"swap:{state.point.id}", "")
        read = tuple(ratio_number(boundary.ratios, which) for which in ("ct", "vt"))
        if ratio_agrees(state.point.passport, *read) is False:
            log.error("ratio_not_as_in_passport", point=state.point.id, device=state.point.device, read=boundary.ratios)
        profile = state.port.device.profile.id
        fields = bind_fields(state.point, profile, boundary, state.decode, state.swap, state.lp)
        # One transaction: a start in between must never find the new meter under the old meter's bind.
        done = await self.ledger.commit(txn.record(stream, "bind", fields), urgent=True)
        state.sn, state.ratios, state.swap = boundary.sn, boundary.ratios, None
        state.rebind = state.renew = False
        chain = self._chain(state, done[-1].line.hash.hex())
        chain.last = chain.anchor = boundary
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
            await self.close_slot(boundary, window)

    async def close_slot(self, boundary: int, window_s: float) -> None:
        """Read every point for the boundary that is now (epoch s) and record the slots that end there."""
        if self.balancing is not None:
            self.balancing.begin()
        async with asyncio.TaskGroup() as group:
            for state in self.states.values():
                group.create_task(self._close(state, boundary, window_s), name=f"slot-{state.point.id}")
        if self.balancing is not None:
            await self.balancing.close(boundary, self.states)

    async def _until(self, boundary: int) -> None:
        """Sleep to a boundary in short steps, so that a clock that is set is seen; it may return early then."""
        slot = self.site.agent.slot_s
        left = boundary - self.clock.now_ms() / 1000
        while 0 < left <= slot:
            await self.sleep(min(left, 1.0))
            left = boundary - self.clock.now_ms() / 1000

    async def _close(self, state: PointState, t: int, window_s: float) -> None:
        boundary = await self._read(state, t, window_s)
        self.check_clock()
        if state.stepped:  # a slot that holds a step has no length that a clock could vouch for
            boundary = Boundary(t, self.clock.now_ms(), why="CLOCK", tries=boundary.tries)
        try:
            async with state.writing:
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
                self.supply.take(sample)
                seen.append(Seen(sample.bits[IMPORT], sample.mono_ns, _serial(sample)))
                if self._believed(state, t, seen):
                    return await self._with_settings(state, self._present(state, t, sample, tries))
                why = "DECODE"
            if len(seen) >= UNBELIEVED:
                log.error("meter_contradicts_itself", point=state.point.id, t=t, bits=[s.bits for s in seen])
                return self._absent(state, t, why, tries)
            await self.sleep(RETRY_S if len(seen) < AGREEING else 2 * RETRY_S)

    def _believed(self, state: PointState, t: int, seen: list[Seen]) -> bool:
        chain, passport = state.chain, state.point.passport
        limit_w = round(MARGIN * 1000 * max(self.site.site.contracted_kw, passport.nominal_kw or 0))
        before, sn = None, seen[-1].sn
        if state.sn is not None and sn not in {None, state.sn}:
            return agree(seen, state.decode, limit_w)  # another meter is not believed at its first word
        if chain is not None and not state.rebind:
            before = chain.last if chain.last is not None and chain.last.good else chain.anchor
        if before is not None and IMPORT in before.bits and before.t < t:
            return follows(before, seen[-1].bits, t, state.decode, limit_w) or agree(seen, state.decode, limit_w)
        return agree(seen, state.decode, limit_w)

    def _present(self, state: PointState, t: int, sample: Sample, tries: int) -> Boundary:
        power_w = whole_number(sample.readings.get("power_w"))
        return Boundary(
            t,
            sample.at_ms,
            {p: b for p, b in sample.bits.items() if p in state.decode},
            tuple((a.hex(), b.hex()) for a, b in sample.frames),
            _serial(sample),
            tries=tries,
            power_w=None if power_w is None else round(power_w * applied_ratio(state.point.passport)),
            integral=state.integral.close(sample.mono_ns),
            phases=state.phases.close(),
        )

    async def _with_settings(self, state: PointState, boundary: Boundary) -> Boundary:
        """Ratios, clock and event counters are asked for after the registers, so that they make no reading late."""
        if not state.settings:
            return boundary
        sample = await state.port.link.read(
            state.port.device, state.settings, klass=Klass.VERIFICATION, deadline_s=SETTINGS_S
        )
        clock_ms = whole_number(sample.readings.get("clock"))
        return replace(
            boundary,
            ratios=merged_ratios(state.ratios, read_ratios(sample.readings)),
            mto_ms=None if clock_ms is None else clock_ms - sample.at_ms,
            events=read_events(sample.readings),
        )

    def _judge_clock(self, state: PointState, offset_ms: int | None, txn: Txn) -> None:
        """Record once when the meter's clock begins or ends to be wrong; it is never set from here."""
        found, was = judge(offset_ms), state.clock
        if found in {was, ClockState.UNKNOWN}:
            return
        state.clock = found
        if was is ClockState.UNKNOWN and found is ClockState.GOOD:
            return
        device = state.point.device
        log.warning("meter_clock", device=device, state=found.value, offset_ms=offset_ms)
        fields = {"ev": "meter_clock", "obj": device, "was": was.value, "now": found.value}
        txn.record("site", "event", fields | {"detail": {"offset_ms": offset_ms}})

    def _absent(self, state: PointState, t: int, why: str, tries: int) -> Boundary:
        state.integral.close(self.clock.mono_ns())
        state.phases.close()
        return Boundary(t, self.clock.now_ms(), why=why, tries=tries, ratios=state.ratios)

    async def _record(self, state: PointState, boundary: Boundary) -> None:
        txn, chain = Txn(), state.chain
        self._judge_clock(state, boundary.mto_ms, txn)
        if chain is None:
            if boundary.good:  # never in service yet: nothing is claimed about what was before
                state.chain = await self._bind(state, boundary, txn)
            return
        if chain.last is not None and boundary.t <= chain.last.t:
            log.warning("slot_again", point=state.point.id, t=boundary.t)
            return
        boundary = self.supply.mark(state.point.device, boundary)
        broken = self._broken(state, boundary) if boundary.good else None
        records = chain.close(boundary, missed="CLOCK" if state.stepped else "AGENT_DOWN", broken=broken)
        for record in records:
            txn.record(f"mp:{state.point.id}", record.ty, record.fields)
        if broken is None:
            self._keep(state, boundary, chain.anchor, txn)
            await self._go_on(state, chain, boundary, txn)
        else:
            log.warning("meter_bound_anew", point=state.point.id, why=broken, was=state.sn, now=boundary.sn)
            state.chain = await self._bind(state, boundary, txn)
        state.stepped = False
        state.newest = records[-1] if records else state.newest

    async def _go_on(self, state: PointState, chain: SlotChain, boundary: Boundary, txn: Txn) -> None:
        """Commit slots of the meter that is bound; a passport that changed is recorded behind them, without a gap."""
        state.ratios = merged_ratios(state.ratios, boundary.ratios)
        renew = state.renew and boundary.good
        if renew:
            held = replace(boundary, sn=state.sn, ratios=state.ratios)
            profile = state.port.device.profile.id
            fields = bind_fields(state.point, profile, held, state.decode, None, state.lp)
            txn.record(f"mp:{state.point.id}", "bind", fields)
        done = await self.ledger.commit(txn)
        if renew:
            state.renew, chain.cfg = False, done[-1].line.hash.hex()

    @staticmethod
    def _broken(state: PointState, boundary: Boundary) -> str | None:
        """Why this meter has to be bound anew; ``None`` where the one that is bound goes on."""
        if state.swap is not None or (boundary.sn is not None and state.sn is not None and boundary.sn != state.sn):
            return "SERIAL_CHANGED"
        if ratios_differ(state.ratios, boundary.ratios):
            return "RATIO_CHANGED"
        return "AGENT_DOWN" if state.rebind else None

    def clock_stepped(self) -> None:
        """The wall clock was set: the slot it happened in becomes a gap at every point."""
        for state in self.states.values():
            state.stepped = True

    def _keep(self, state: PointState, boundary: Boundary, anchor: Boundary | None, txn: Txn) -> None:
        """Keep the boundary where the next start finds it, and drop old ones."""
        mp, anchor_t = state.point.id, anchor.t if anchor else None
        doc = dumps(boundary.doc() | {"anchor": anchor_t})
        txn.run("INSERT OR REPLACE INTO boundary VALUES (?,?,?,?)", mp, boundary.t, boundary.rt_ms, doc)
        oldest = boundary.t - KEEP_SLOTS * self.site.agent.slot_s
        txn.run("DELETE FROM boundary WHERE mp=? AND t < ? AND t <> ?", mp, oldest, anchor_t or 0)

    def watch_supply(self) -> None:
        """Note which meters are dark behind an open switch, and since when. Called on every change of a position."""
        self.supply.positions_changed(self.fleet.positions())
        if self.balancing is not None:
            self.balancing.positions_changed()


def _serial(sample: Sample) -> str | None:
    found = sample.readings.get("serial_number")
    return str(found.value) if found is not None and found.value is not None else None
