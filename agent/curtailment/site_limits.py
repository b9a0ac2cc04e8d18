"""The standing limits of a site at work: they put machines to sleep or limit them, and give back what they took.

Nobody ordered it: no switch is moved, nothing stands under an order's id, and every record names the standing limit.
It acts only where the site file says ``standing.enforce`` and the agent is armed. What it put down it gives back by
itself, in stages and below a margin; never what an order put down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.journal import STANDING, Journal, OrderDoc
from agent.curtailment.load_loss import LossWatch
from agent.curtailment.planner import choose_limits, choose_machines
from agent.curtailment.power_return import PowerReturn
from agent.curtailment.proof import CREEP_SAMPLES
from agent.curtailment.restore import Restorer
from agent.curtailment.shed import Shedder
from agent.curtailment.standing import NEAR_PERMILLE, PERMITTED, PLAN, RAMP, Limit, StandingLimits
from agent.ledger import Ledger, Txn
from agent.live import LiveState, Power
from config.site import Site
from wire.orders import Restore

log = structlog.get_logger()

CALM_NS = 30_000_000_000
"""So long load is below the margin before anything comes back."""
TELL_NS = 60_000_000_000
"""A limit that is not enforced is told to be exceeded, or not any more, at most this often."""
LOSS_ALARM_NS = 600_000_000_000
RETURN = Restore(stage_permille=100, stage_delay_s=30)


@dataclass(slots=True)
class SiteLimits:
    """A holder of its own (:class:`agent.curtailment.holder.Holder`) beside the orders."""

    site: Site
    ledger: Ledger
    journal: Journal
    gates: Gates
    fleet: Fleet
    shedder: Shedder
    restorer: Restorer
    supply: PowerReturn
    live: LiveState = field(init=False)
    clock: Clock = field(init=False)
    limits: StandingLimits = field(init=False)
    losses: LossWatch = field(init=False)
    state: str = "idle"
    """``idle shedding short holding returning``."""
    doc: OrderDoc = field(default_factory=OrderDoc)
    rx_mono: int = 0
    wave_ns: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _seen_ns: int = 0
    _over: int = 0
    _calm_ns: int | None = None
    _next_ns: int = 0
    _told: dict[str, tuple[str, int]] = field(default_factory=dict)
    _lost_ns: int | None = None
    _acts: bool = False

    def __post_init__(self) -> None:
        self.live, self.clock, self.limits = self.restorer.live, self.restorer.clock, self.restorer.limits
        self.losses = LossWatch(self.site, self.live, self.fleet, self.gates, self.journal, self.clock)
        self.doc.point = self.site.measured_at.net_import

    @property
    def id(self) -> str:
        """See :data:`agent.curtailment.journal.STANDING`: no order's id."""
        return STANDING

    @property
    def restore(self) -> Restore:
        """How the load comes back."""
        return RETURN

    @property
    def aim_w(self) -> int | None:
        """Up to where what it put down may come back, W; the ramp is the restorer's to keep."""
        return self.limits.back_w()

    @property
    def sheds_now(self) -> bool:
        """True while it may put machines down."""
        return self._acts and self.gates.mode == "armed"

    def busy(self) -> bool:
        """True while the meters are to be read each second: it acts, or may have to soon."""
        if not self.limits.enforced:
            return False
        power = self.live.power(self.doc.point).value_w
        nearest = min((x.watt for x in self.limits.limits() if x.name in {PERMITTED, PLAN}), default=None)
        near = power is not None and nearest is not None and power * 1000 >= nearest * NEAR_PERMILLE
        return near or self.state != "idle" or self.limits.returning() or self.supply.awaited()

    async def look(self) -> None:
        """One pass: read, tell, put down or give back.

        Raises:
            LedgerError: something could not be written; nothing moved because of it.
        """
        power = self.live.judged(self.doc.point)
        self._observe(power)
        await self._tell_loss()
        if self.tasks:
            return
        if self._acts:
            self._acts, self.wave_ns = False, self.clock.mono_ns()
        found = self.limits.limits()
        if not self.limits.enforced:
            await self._tell_exceeded(power, found)
        if self.gates.mode != "armed":
            return
        if power.value_w is None:  # without a meter nothing is exceeded and nothing comes back
            self._over, self._calm_ns = 0, None
            return
        if self.limits.enforced and found and await self._keep(power, found[0]):
            return
        await self._give_back(power.value_w)

    def _observe(self, power: Power) -> None:
        if power.value_w is not None and power.mono_ns > self._seen_ns:
            self._seen_ns = power.mono_ns
            self.limits.observe(power.mono_ns, power.value_w)
            fall = self.losses.observe(power.mono_ns, power.value_w)
            if fall is not None and self.limits.enforced:
                self.limits.lost(fall.was_w - fall.ours_w, fall.now_w)
            self._count(power.mono_ns, power.value_w)

    def _count(self, mono_ns: int, watt: int) -> None:
        strictest = next(iter(self.limits.limits()), None)
        if strictest is None or mono_ns <= self.wave_ns:
            return
        above = watt - self._falling_w() > strictest.watt + strictest.noise_w
        self._over = self._over + 1 if above else 0

    # taking load down ----------------------------------------------------------------------------------------------

    async def _keep(self, power: Power, limit: Limit) -> bool:
        """Keep load at the limit; false where it is."""
        ahead = self.supply.ahead_w()
        excess = (power.value_w or 0) + ahead - self._falling_w() - limit.watt
        if excess <= limit.noise_w or not (ahead or self._over >= CREEP_SAMPLES):
            return excess > limit.noise_w
        self._calm_ns = None
        self.fleet.forgive(self.doc.attempts)
        work = self._wave(excess, limit)
        if work is not None:
            self._over, self.rx_mono, self._acts = 0, self.clock.mono_ns(), True
            try:
                await self._move("shedding", limit, power.value_w)
            except BaseException:
                work.close()
                self._acts = False
                raise
            self.shedder.launch(self, [lambda: asyncio.create_task(work, name="standing-shed")])
        elif not self._falling_w():
            await self._move("short", limit, power.value_w)
        return True

    def _wave(self, excess_w: int, limit: Limit) -> Coroutine[Any, Any, None] | None:
        """The next machines to put to sleep, or where none is left to limit; ``None`` where there are none."""
        choice = choose_machines(
            self.fleet.sleepers(self.doc.attempts),
            excess_w,
            target_w=limit.watt,
            largest_first=self.supply.awaited(),
        )
        if choice.targets:
            return self.shedder.sleep_all(self, choice.expected)
        machines = self.fleet.throttles(self.doc.attempts)
        limits = choose_limits(machines, excess_w, target_w=limit.watt)
        return self.shedder.limit_all(self, limits, {m.id: m.draw_w for m in machines}) if limits else None

    def _falling_w(self) -> int:
        """What was told to sleep, by whomever, and was not heard since: it is on its way down."""
        now, total = self.clock.mono_ns(), 0
        for held in self.journal.held.values():
            since, seen = held.since_mono_ns, self.live.miners.get(held.target)
            if held.kind != "machine" or since is None or seen is None:
                continue
            if now - since < self.site.agent.timing.sleep_confirm_s * 1e9 and seen.mono_ns <= since + 1_000_000_000:
                total += held.expected_w
        return total

    # giving it back ------------------------------------------------------------------------------------------------

    async def _give_back(self, power_w: int) -> None:
        now = self.clock.mono_ns()
        if not self.journal.held_by(STANDING):
            if self.state != "idle":
                await self._move("idle", None, power_w)
                self.doc = OrderDoc(point=self.doc.point)
            return
        if self.state in {"idle", "shedding", "short"}:
            await self._move("holding", None, power_w)
        back = self.limits.back_w()
        calm = self.clock.synchronised() and not self.supply.awaited() and (back is None or power_w < back)
        if not calm:
            self._calm_ns = None
            return
        self._calm_ns = self._calm_ns or now
        if now - self._calm_ns < CALM_NS or now < self._next_ns or self.restorer.blocked(self) is not None:
            return
        self.doc.stage_total_w = max(self.doc.stage_total_w, sum(h.expected_w for h in self.journal.held_by(STANDING)))
        items, _ = self.restorer.next_stage(self)
        if not items:
            return
        if self.state != "returning":
            await self._move("returning", None, power_w)
        self._next_ns = now + RETURN.stage_delay_s * 1_000_000_000
        task = asyncio.create_task(self.restorer.bring_back(self, items), name="standing-return")
        self.tasks.add(task)
        task.add_done_callback(self._staged)

    def _staged(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.wave_ns = self.clock.mono_ns()
        if not task.cancelled() and task.exception() is not None:
            log.error("standing_stage_failed", error=repr(task.exception()))

    # telling -------------------------------------------------------------------------------------------------------

    async def _move(self, state: str, limit: Limit | None, power_w: int | None) -> None:
        """Another state, durable as an event before anything follows from it."""
        if state == self.state:
            return
        await self._record(state, limit, power_w)
        log.warning("standing_limit", state=state, limit=None if limit is None else limit.name, power_w=power_w)
        self.state = state

    async def _record(self, now: str, limit: Limit | None, power_w: int | None) -> None:
        held = self.journal.held_by(STANDING)
        detail = {
            "power_w": power_w,
            "limit_w": None if limit is None else limit.watt,
            "held": len(held),
            "held_w": sum(h.expected_w for h in held),
            "enforced": self.limits.enforced,
        }
        name = "site" if limit is None else limit.name
        event = {"ev": "standing_limit", "obj": name, "was": self.state, "now": now, "detail": detail}
        await self.ledger.commit(Txn().record("site", "event", event))

    async def _tell_exceeded(self, power: Power, found: tuple[Limit, ...]) -> None:
        """Limits that are not enforced are told all the same, when they are exceeded and when they are not any more."""
        now = self.clock.mono_ns()
        for limit in found:
            if power.value_w is None:
                continue
            said, since = self._told.get(limit.name, ("within", -TELL_NS))
            over = power.value_w > limit.watt + limit.noise_w
            verdict = "exceeded" if over else "within"
            if verdict != said and now - since >= TELL_NS:
                self._told[limit.name] = verdict, now
                await self._record(verdict, limit, power.value_w)

    async def _tell_loss(self) -> None:
        loss = self.losses.look()
        if loss is None:
            return
        log.error("load_loss", was_w=loss.was_w, now_w=loss.now_w, cause=loss.cause, evidence=loss.evidence)
        self._lost_ns = self.clock.mono_ns()
        await self.ledger.commit(Txn().record("site", "event", loss.record()))

    def warnings(self) -> set[tuple[str, str]]:
        """(limit, ``near`` or ``over``) for every limit that load is near to or above; a ramp has no near."""
        power = self.live.power(self.doc.point).value_w
        if power is None:
            return set()
        found = set()
        for limit in self.limits.limits():
            if power > limit.watt + limit.noise_w:
                found.add((limit.name, "over"))
            elif limit.name != RAMP and limit.back_w < limit.watt and power > limit.back_w:
                found.add((limit.name, "near"))
        return found

    def lately_lost(self) -> bool:
        """True for ten minutes after load was lost by no command."""
        return self._lost_ns is not None and self.clock.mono_ns() - self._lost_ns < LOSS_ALARM_NS
