"""Giving load back: only after a release, in stages, only what this agent put down, only where its switch allows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.holder import Holder
from agent.curtailment.journal import LIMIT, STANDING, Held, Journal
from agent.curtailment.planner import Return, stage
from agent.curtailment.shed import Shedder
from agent.curtailment.standing import StandingLimits
from agent.curtailment.voltage import VoltageGuard
from agent.live import LiveState
from config.site import Site
from drivers.capabilities import Position, WriteStatus
from drivers.errors import DriverError

log = structlog.get_logger()

WAKE_FACTOR = 2.0
"""Times ``sleep_confirm_s``: after that a woken machine draws, or will not."""
GIVE_UP_S = 1200.0
RETRY_S = 3.0
CLOSE_READBACK_S = 2.0


@dataclass(slots=True)
class Restorer:
    """Plans and executes stages of one order at a time."""

    site: Site
    fleet: Fleet
    gates: Gates
    journal: Journal
    live: LiveState
    shedder: Shedder
    clock: Clock
    limits: StandingLimits = field(init=False)
    voltage: VoltageGuard = field(init=False)
    _tries: dict[str, int] = field(default_factory=dict)
    _since: dict[str, int] = field(default_factory=dict)
    _not_before: dict[str, int] = field(default_factory=dict)
    held_up: dict[str, str] = field(default_factory=dict)
    """Order → why something of it waits although nothing blocks the return as a whole."""
    _coming: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Machine → (W expected, monotonic time of its waking): awake, and not drawing yet as far as was read."""

    def __post_init__(self) -> None:
        self.limits = StandingLimits(self.site, self.clock)
        self.voltage = VoltageGuard(
            self.site, self.fleet.graph, self.live, lambda: self.fleet.energised(self.fleet.positions())
        )

    def blocked(self, order: Holder) -> str | None:
        """Why nothing may come back now; ``None`` when it may. Doubt never restores."""
        if self.gates.saon_lock is not None:
            return f"locked after САОН: {self.gates.saon_lock}"
        if self.gates.mode != "armed":
            return f"agent mode is {self.gates.mode}"
        if order.doc.not_before is not None and self.clock.now_ms() < order.doc.not_before:
            return "the release is for later"
        power = self.live.judged(order.doc.point)
        if power.value_w is None:
            return f"power at {order.doc.point} is not known ({power.quality})"
        unfit = self.voltage.unfit(order.doc.point)
        if unfit is not None:
            return unfit
        least = max((x for x in (order.restore.min_mhz, order.doc.min_mhz) if x is not None), default=None)
        if least is not None:
            seen = self._frequency_mhz(order.doc.point)
            if seen is None or seen < least:
                return f"frequency {seen if seen is not None else 'unknown'} mHz, needed {least}"
        return None

    def _frequency_mhz(self, point: str) -> int | None:
        for known in self.site.metering_points:
            if known.id == point:
                value = self.live.reading(known.device, "frequency_hz")
                if value.quality.usable and isinstance(value.value, int | float):
                    return round(value.value * 1000)
        return None

    def room_w(self, order: Holder) -> int | None:
        """Power that may come back under the other live limits, the site's own and the release's ceiling; ``None``
        without a bound. The site's ramp is not among them.

        Each limit is judged at its own point; where nothing was read there since the last stage, nothing comes back.
        """
        bounds = [
            (other.doc.point, other.doc.target_w)
            for other in self.journal.live.values()
            if other is not order
            and other.order.sheds
            and other.doc.released_by is None
            and other.doc.target_w is not None
        ]
        standing = self.limits.level_w()
        if standing is not None:
            bounds.append((self.site.measured_at.net_import, standing))
        own = order.aim_w if order.doc.released_by is None else None
        for extra in (order.doc.ceiling_w, order.restore.ceiling_w, own):
            if extra is not None:
                bounds.append((order.doc.point, extra))
        rooms: list[int] = []
        for point, bound in bounds:
            power = self.live.judged(point)
            # A reading from before the last stage does not show what that stage brought back.
            known = power.value_w is not None and power.mono_ns > order.wave_ns
            coming = self.coming_w()
            rooms.append(bound - power.value_w - coming if known and power.value_w is not None else 0)
        return min(rooms, default=None)

    def coming_w(self) -> int:
        """Power of machines that were woken and do not draw yet: a machine takes minutes from waking to full load."""
        return sum(watts for watts, _ in self._still_coming().values())

    def still_coming(self) -> str:
        """How many were woken and do not draw yet, for people; empty where none."""
        coming = self._still_coming()
        kw = sum(watts for watts, _ in coming.values()) / 1000
        return f"{len(coming)} woken machines do not draw yet: {kw:.1f} kW" if coming else ""

    def _still_coming(self) -> dict[str, tuple[int, int]]:
        now = self.clock.mono_ns()
        patience_ns = int(WAKE_FACTOR * self.site.agent.timing.sleep_confirm_s * 1e9)
        for machine, (expected_w, since) in list(self._coming.items()):
            seen = self.live.miners.get(machine)
            drawing = seen.status.power_w if seen is not None and seen.status is not None else None
            up = seen is not None and seen.mono_ns > since and drawing is not None and drawing >= expected_w * 8 // 10
            if up or now - since > patience_ns:
                if not up:
                    log.warning("woken_without_load", machine=machine, expected_w=expected_w)
                del self._coming[machine]
        return self._coming

    def next_stage(self, order: Holder) -> tuple[tuple[Held, ...], tuple[str, ...]]:
        """Items of the next stage, and switches that wait for a person."""
        positions = self.fleet.positions()
        self.held_up.pop(order.id, None)
        waiting: dict[str, str] = {}
        ready: list[Held] = []
        now = self.clock.mono_ns()
        for held in self.journal.held_by(order.id):
            if self._not_before.get(held.target, 0) > now:
                continue
            cold = self._cold(held, positions)
            if cold is None and order.id == STANDING and self._tagged(held.target.removeprefix(LIMIT), positions):
                cold = "a tag hangs above it"
            if cold is not None:
                self.held_up[order.id] = cold
                continue
            if held.kind == "switch":
                switch = self.gates.switches[held.target]
                state = self.live.switches.get(held.target)
                closed = state is not None and state.position is Position.CLOSED
                why = None if closed else self.gates.why_unfit(held.target, switch)
                if closed or (switch.close == "auto" and why is None):
                    ready.append(held)
                else:
                    waiting[held.target] = why or "may be closed, by a person"
            elif self.fleet.fed(machine := held.target.removeprefix(LIMIT), positions) and not self._in_maintenance(
                machine
            ):
                ready.append(held)
        if waiting and order.id not in self.held_up:
            self.held_up[order.id] = "; ".join(f"{switch}: {why}" for switch, why in waiting.items())
        if order.doc.stage_total_w == 0:
            order.doc.stage_total_w = sum(h.expected_w for h in self.journal.held_by(order.id))
        stage_w = order.doc.stage_total_w * order.restore.stage_permille // 1000
        chosen = self._within_ramp(order, [Return(h.target, h.kind, h.expected_w) for h in ready], stage_w)
        by_id = {h.target: h for h in ready}
        return tuple(by_id[c.id] for c in chosen), tuple(waiting)

    def _within_ramp(self, order: Holder, ready: list[Return], stage_w: int) -> tuple[Return, ...]:
        """A stage as far as the other limits have room and the site's ramp lets load rise now.

        What is larger by itself than the ramp allows in a minute comes back alone, after a minute without a rise.
        """
        room, rise = self.room_w(order), self.limits.rise_w()
        if rise is None:
            return stage(ready, stage_w=stage_w, room_w=room)
        power = self.live.judged(self.site.measured_at.net_import)
        coming = self.coming_w()
        if power.value_w is None or power.mono_ns <= order.wave_ns:
            return ()
        rise -= power.value_w + coming
        chosen = stage(ready, stage_w=stage_w, room_w=rise if room is None else min(rise, room))
        if chosen or coming or not self.limits.steady():
            return chosen
        larger = [item for item in ready if item.expected_w > self.limits.per_minute_w()]
        return stage(larger, stage_w=0, room_w=room)[:1]

    def _tagged(self, machine: str, positions: Mapping[str, bool]) -> bool:
        """A tag hangs at a switch above it: nothing starts behind a tag without somebody's order."""
        known = self.fleet.machines.get(machine)
        return known is not None and any(known.group.load in self.fleet.dark(s, positions) for s in self.gates.tags)

    def _cold(self, held: Held, positions: Mapping[str, bool]) -> str | None:
        """Why the machines that would start with this must wait for their cooling; a switch that feeds the cooling of
        its own machines does not wait for it."""
        loops = self.fleet.loops
        if held.kind != "switch":
            known = self.fleet.machines.get(held.target.removeprefix(LIMIT))
            return loops.why_not_wake(known.group.load) if known is not None and held.kind == "machine" else None
        state = self.live.switches.get(held.target)
        if state is not None and state.position is Position.CLOSED:
            return None
        dark = self.fleet.dark(held.target, positions)
        own = {loop.id for loop in loops.darkened(dark)}
        groups = {m.group.load for m in self.fleet.machines_behind(held.target, positions)}
        waits = (loops.why_not_wake(load) for load in sorted(groups) if loops.loop_of(load) not in own)
        return next((why for why in waits if why is not None), None)

    def _in_maintenance(self, machine: str) -> bool:
        """People work at its group: it sleeps on until they are done."""
        known = self.fleet.machines.get(machine)
        return known is not None and self.gates.maintained(known.group.id) is not None

    async def bring_back(self, order: Holder, items: tuple[Held, ...]) -> None:
        """One stage: switches close one after the other, machines wake staggered."""
        for item in items:
            if item.kind == "switch":
                await self._close(order, item)
        machines = [i for i in items if i.kind != "switch"]
        gap = 1.0 / self.site.agent.timing.wake_stagger_per_s
        async with asyncio.TaskGroup() as group:
            for number, item in enumerate(machines):
                back = self._wake if item.kind == "machine" else self._unlimit
                group.create_task(back(order, item, number * gap))

    async def _close(self, order: Holder, item: Held) -> None:
        port = self.fleet.switches[item.target]
        self.live.put_switch(item.target, await port.read())
        state = self.live.switches[item.target]
        if state.position is Position.CLOSED:
            await self.journal.drop(item.target)
            log.info("closed_by_others", switch=item.target, order=order.id)
            return
        why = self.gates.may_close(item.target)
        if why is not None:
            self._again(item.target)
            log.warning("close_refused", switch=item.target, reason=why)
            return
        n = await self.journal.intend(order, "close", item.target, item.expected_w, None, urgent=True)
        why = self.gates.may_close(item.target)
        if why is not None:  # a tag was hung, or a lock set, while the intent was written
            self._again(item.target)
            log.warning("close_refused", switch=item.target, reason=why)
            await self.journal.outcome(order.id, n, "skipped", why)
            return
        outcome = await port.close()
        after = await self.shedder.await_position(item.target, port, Position.CLOSED, within_s=CLOSE_READBACK_S)
        closed = after.position is Position.CLOSED
        await self.journal.outcome(
            order.id,
            n,
            "closed" if closed else "not_closed",
            f"{outcome.status} {outcome.detail}",
            drop=item.target if closed else None,
        )
        if closed:
            behind = self.fleet.machines_behind(item.target, self.fleet.positions())
            self.fleet.expect([machine.id for machine in behind])
        else:
            await self._failed(order, item, f"did not close, position {after.position}")

    async def _wake(self, order: Holder, item: Held, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        known = self.fleet.machines.get(item.target)
        if known is None or known.sleeper is None:
            await self._abandon(order, item, "the machine is no longer in the site file")
            return
        n = await self.journal.intend(order, "wake", item.target, item.expected_w, item.prior, urgent=False)
        if item.prior is None:
            await self.journal.outcome(order.id, n, "kept", "no prior state was read", drop=item.target)
            return
        outcome = await known.sleeper.wake(item.prior)
        self.fleet.expect([item.target])
        if outcome.status is WriteStatus.ACKNOWLEDGED:
            self._coming[item.target] = (item.expected_w, self.clock.mono_ns())
            await self.journal.outcome(order.id, n, outcome.status, outcome.detail, drop=item.target)
            return
        awake = await self._is_awake(item.target)
        await self.journal.outcome(order.id, n, outcome.status, outcome.detail, drop=item.target if awake else None)
        if not awake:
            await self._failed(order, item, f"wake {outcome.status}: {outcome.detail}")

    async def _unlimit(self, order: Holder, item: Held, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        machine = item.target.removeprefix(LIMIT)
        known = self.fleet.machines.get(machine)
        if known is None or known.limiter is None:
            await self._abandon(order, item, "the machine can no longer be limited: the site file changed")
            return
        n = await self.journal.intend(order, "unlimit", item.target, item.expected_w, item.prior, urgent=False)
        if item.prior is None:
            await self.journal.outcome(order.id, n, "kept", "no prior limit was read", drop=item.target)
            return
        outcome = await known.limiter.restore_limit(item.prior)
        self.fleet.expect([machine])
        done = outcome.status is WriteStatus.ACKNOWLEDGED
        if done:
            self._coming[machine] = (item.expected_w, self.clock.mono_ns())
        await self.journal.outcome(order.id, n, outcome.status, outcome.detail, drop=item.target if done else None)
        if not done:
            await self._failed(order, item, f"limit {outcome.status}: {outcome.detail}")

    async def _is_awake(self, machine: str) -> bool:
        """After an unknown answer the machine itself is asked; it is never just told again."""
        reader = self.fleet.machines[machine].sleeper
        status = getattr(reader, "status", None)
        if status is None:
            return False
        try:
            return (await status()).sleeping is False
        except DriverError:
            return False

    async def _failed(self, order: Holder, item: Held, why: str) -> None:
        now = self.clock.mono_ns()
        first = self._since.setdefault(item.target, now)
        self._tries[item.target] = self._tries.get(item.target, 0) + 1
        if (now - first) / 1e9 > GIVE_UP_S or (item.kind == "switch" and self._tries[item.target] >= 2):
            await self._abandon(order, item, why)
        else:
            self._again(item.target)

    def _again(self, target: str) -> None:
        self._not_before[target] = self.clock.mono_ns() + int(RETRY_S * 1e9)

    async def _abandon(self, order: Holder, item: Held, why: str) -> None:
        """What will not come back is reported, not hidden."""
        log.error("return_abandoned", target=item.target, order=order.id, reason=why)
        order.doc.abandoned.append(item.target)
        await self.journal.drop(item.target)
