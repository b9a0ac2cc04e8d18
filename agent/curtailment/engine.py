"""The engine: one loop that carries every live order through its states.

Each order is judged against its own point and target; the strictest does the work, looser ones find it done. What is
held is shared through the journal. The loop wakes on orders, on meter samples and every 200 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from agent.clock import Clock, TrustedTime
from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.held_open import HeldOpen
from agent.curtailment.journal import HOLD_ENDED, Journal, LiveOrder
from agent.curtailment.link_watch import LinkWatch
from agent.curtailment.power_return import Change, PowerReturn
from agent.curtailment.proof import CREEP_SAMPLES, Proof
from agent.curtailment.restore import Restorer
from agent.curtailment.returning import Returning
from agent.curtailment.shed import Shedder
from agent.curtailment.site_limits import SiteLimits
from agent.curtailment.stillness import Stillness
from agent.curtailment.targets import Targets
from agent.curtailment.telling import Teller
from agent.curtailment.waves import Waves
from agent.errors import LedgerError, Overtaken
from agent.ledger import Ledger
from agent.live import LiveState
from config.site import Site
from drivers.capabilities import Position
from wire.messages import Progress
from wire.registry import RegisteredSite
from wire.states import Flag, OrderState

log = structlog.get_logger()

TICK_S = 0.2
RETURN_PACE_S = 2.0
"""Between waves while machines start after lost supply came back."""
S = OrderState
ACTING = frozenset({S.EXECUTING, S.VERIFYING, S.HOLDING, S.FAILED})
MOVING = ACTING | {S.RESTORING}
"""States in which a target that changes by itself is followed; in others it is set when the order begins."""


@dataclass(slots=True)
class Engine:
    """See the module."""

    site: Site
    ledger: Ledger
    journal: Journal
    gates: Gates
    fleet: Fleet
    shedder: Shedder
    restorer: Restorer
    live: LiveState
    clock: Clock
    trusted: TrustedTime
    emergency_w: Callable[[], int]
    silence_s: Callable[[], float]
    """Seconds since central last spoke."""
    online: Callable[[], bool]
    on_progress: Callable[[Progress], Awaitable[None]]
    check_clock: Callable[[], None] = lambda: None
    """Looks for a step of the wall clock before anything is done because of what it shows."""
    entry: Callable[[], RegisteredSite | None] = lambda: None
    """The site in the register, as far as there is one."""
    observe: Callable[[], None] = lambda: None
    """Called with every pass, for who keeps account of the orders."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    targets: Targets = field(init=False)
    supply: PowerReturn = field(init=False)
    waves: Waves = field(init=False)
    proof: Proof = field(init=False)
    returning: Returning = field(init=False)
    teller: Teller = field(init=False)
    standing: SiteLimits = field(init=False)
    held_open: HeldOpen = field(init=False)
    link: LinkWatch = field(init=False)
    stillness: Stillness = field(init=False)

    def __post_init__(self) -> None:
        self.targets = Targets(self.site, self.live, self.clock, self.entry, self.emergency_w)
        self.supply = PowerReturn(self.site, self.live, self.fleet, self.journal, self.clock)
        self.waves = Waves(
            self.site, self.journal, self.gates, self.fleet, self.shedder, self.live, self.targets, self.supply
        )
        self.proof = Proof(self.site, self.journal, self.gates, self.fleet, self.live, self.clock)
        self.teller = Teller(self.ledger, self.journal, self.live, self.clock, self.on_progress)
        self.held_open = HeldOpen(self.site, self.journal, self.gates, self.fleet, self.shedder, self.live, self.teller)
        self.link = LinkWatch(self.clock, self.online, self.silence_s)
        self.stillness = Stillness(self.site, self.journal, self.fleet, self.shedder, self.live, self.clock)
        self.returning = Returning(
            self.journal, self.restorer, self.proof, self.live, self.clock, self.teller, self.wake.set
        )
        self.standing = SiteLimits(
            self.site, self.ledger, self.journal, self.gates, self.fleet, self.shedder, self.restorer, self.supply
        )

    def busy(self) -> bool:
        """True while any order is live, or a standing limit near: meters are then read each second."""
        return bool(self.journal.live) or self.standing.busy()

    def limit_w(self, point: str) -> int | None:
        """Strictest live target at a point."""
        targets = [
            o.doc.target_w
            for o in self.journal.live.values()
            if o.order.sheds and o.doc.point == point and o.doc.released_by is None and o.doc.target_w is not None
        ]
        return min(targets, default=None)

    def clock_stepped(self, step_ms: int) -> None:
        """The wall clock was set. One that jumped forward must not end what an order holds: a release must."""
        if step_ms > 0:
            for order in self.journal.live.values():
                order.flags.add(Flag.CLOCK_SUSPECT)

    # start-up ------------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """After a restart: ask every device of an unfinished step what became of it; only OPEN is ever re-issued."""
        for order_id, n, kind, target, _prior in self.journal.open_steps():
            order = self.journal.live.get(order_id)
            if kind in {"open", "close"} and target in self.fleet.switches:
                port = self.fleet.switches[target]
                state = await port.read()
                self.live.put_switch(target, state)
                acting = order is not None and order.state in ACTING
                acting = acting and self.gates.may_open(target) is None
                if kind == "open" and state.position is not Position.OPEN and acting and order is not None:
                    log.warning("reissue_open", switch=target, order=order_id, position=state.position)
                    await self.shedder.drive_open(order, target, port, n)
                    continue
                closed = state.position is Position.CLOSED
                await self.journal.outcome(
                    order_id,
                    n,
                    f"found_{state.position}",
                    "read after restart",
                    drop=target if kind == "close" and closed else None,
                )
            else:
                await self.journal.outcome(order_id, n, "unknown", "the agent restarted before the answer")
        for order in self.journal.live.values():
            if order.state is S.ARMED:
                await self.journal.move(order, S.VALIDATED, "selection does not survive a restart")
            if order.state is S.EXECUTING:
                await self.journal.move(order, S.VERIFYING, "restart: positions read, meter decides")
            order.wave_ns = self.clock.mono_ns()

    # the loop ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry orders until cancelled; then let running writes end."""
        try:
            while True:
                self.link.look()
                await self._watch_supply()
                for order in list(self.journal.live.values()):
                    try:
                        await self._advance(order)
                    except Overtaken as error:
                        log.info("order_overtaken", order=order.id, text=str(error))
                        self.wake.set()
                    except LedgerError as error:
                        log.error("no_journal_no_movement", order=order.id, error=str(error))
                    except Exception:  # one order's trouble must not stop the others
                        log.exception("order_failed_to_advance", order=order.id)
                await self._keep_standing()
                self.observe()
                # Not wait_for: in Python 3.11 it can lose a cancellation that comes together with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self.wake.wait()
                self.wake.clear()
        finally:
            pending = [*self.standing.tasks, *(t for o in self.journal.live.values() for t in o.tasks)]
            if pending:
                await asyncio.wait(pending, timeout=2)
            for task in pending:
                task.cancel()

    async def _keep_standing(self) -> None:
        """The site's own limits, after what was ordered; their trouble is no order's."""
        try:
            await self.standing.look()
        except Exception:
            log.exception("standing_limits_failed")

    async def _watch_supply(self) -> None:
        """Supply that goes or comes is told under every order in force; what wakes with it is met at once."""
        change = self.supply.look()
        if change is None:
            return
        log.error("supply", change=change)
        for order in [o for o in self.journal.live.values() if o.order.sheds and o.doc.released_by is None]:
            if change is Change.LOST:
                text = (
                    f"supply lost; on its return up to {self.supply.on_return_w() / 1000:.0f} kW start by themselves, "
                    f"for about {self.site.agent.timing.return_s:.0f} s"
                )
            else:
                text = "supply is back: machines are put to sleep as they answer"
                order.doc.attempts = {t: n for t, n in order.doc.attempts.items() if t in self.fleet.switches}
            order.doc.text = text
            try:
                await self.journal.save(order, record=self.teller.effect(order))
            except LedgerError as error:
                log.error("supply_not_recorded", order=order.id, error=str(error))

    def _flag(self, order: LiveOrder) -> None:
        """Flags that come from outside the order: the lease and САОН. They move nothing (``docs/protocol.md``)."""
        lease = order.order.lease_s
        lapsed = lease is not None and self.silence_s() > lease
        if lapsed and Flag.ORPHANED not in order.flags:
            log.error("order_orphaned", order=order.id, lease_s=lease)
        (order.flags.add if lapsed else order.flags.discard)(Flag.ORPHANED)
        (order.flags.add if self.gates.saon_lock else order.flags.discard)(Flag.SAON_LOCK)

    async def _advance(self, order: LiveOrder) -> None:
        if not order.order.sheds:
            return
        self._flag(order)
        if order.doc.released_by is not None and order.state in ACTING:
            # A release and a move of ours were made durable in the other order: the release stands.
            await self.journal.move(order, S.RESTORING, f"released by {order.doc.released_by}")
        await self._aim(order)
        match order.state:
            case S.VALIDATED | S.SCHEDULED:
                await self._begin(order)
            case S.EXECUTING:
                if not order.tasks:
                    order.wave_ns = self.clock.mono_ns()
                    order.good = 0
                    await self.journal.move(order, S.VERIFYING, "all outputs of the wave answered")
            case S.VERIFYING:
                await self._verify(order)
            case S.HOLDING:
                await self._hold(order)
            case S.FAILED:
                await self._failed(order)
            case S.RESTORING if order.doc.returning:
                await self.returning.part(order)
            case S.RESTORING | S.RESTORE_BLOCKED:
                await self.returning.whole(order)
            case _:
                pass
        await self.teller.tell(order)

    async def _aim(self, order: LiveOrder) -> None:
        """Follow what the order allows now: the hour of its schedule, a process that ends, the energy left."""
        doc = order.doc
        if doc.released_by is not None:
            return
        sure = self.clock.synchronised() and Flag.CLOCK_SUSPECT not in order.flags
        now_ms = self.clock.now_ms()
        target = self.targets.at(order.order, doc.before_w, now_ms, sure=sure)
        if target is not None and doc.target_w is not None and target != doc.target_w and order.state in MOVING:
            text = f"target {doc.target_w / 1000:.1f} kW -> {target / 1000:.1f} kW"
            auto = order.order.hold is not None and order.order.hold.restore_auto
            doc.returning = text if target > doc.target_w and auto and sure else ""
            doc.target_w, order.good, order.stable_ns = target, 0, 0
            await self.journal.save(order, record=self.teller.effect(order) | {"text": text})
        was = doc.window
        self.targets.account(order)
        if (was is not None and doc.window is not was) or self._minute_over(order):
            await self.journal.save(order)

    def _minute_over(self, order: LiveOrder) -> bool:
        """True once a minute for orders whose energy is counted: a restart must not lose more."""
        now = self.clock.mono_ns()
        if order.doc.window is None or now - order.saved_ns < 60_000_000_000:
            return False
        order.saved_ns = now
        return True

    # shedding ------------------------------------------------------------------------------------------------------

    async def _begin(self, order: LiveOrder) -> None:
        low = self.trusted.low_ms()
        if order.order.execute_by < low and order.state is not S.EXECUTING:
            await self.journal.move(order, S.EXPIRED, "could not begin in time", record=self.teller.effect(order))
            return
        if order.order.not_before is not None and self.clock.now_ms() < order.order.not_before:
            if order.state is S.VALIDATED:
                await self.journal.move(order, S.SCHEDULED, "begins later")
            return
        await self.journal.move(order, S.ARMED, "plan made")
        await self.journal.move(order, S.EXECUTING, "acting")
        self.waves.next(order)

    # verification --------------------------------------------------------------------------------------------------

    async def _verify(self, order: LiveOrder) -> None:
        self.proof.observe(order)
        await self.held_open.settle(order)
        timing = self.site.agent.timing
        proof = self.proof.confirmed(order)
        if proof is not None:
            now = self.clock.mono_ns()
            order.stable_ns = order.stable_ns or now
            if order.doc.confirmed_ms is None:
                order.doc.confirmed_ms = self.shedder.since_ms(order)
            if (now - order.stable_ns) / 1e9 < self.proof.reclose_guard_s(order):
                return
            (order.flags.add if order.doc.not_open else order.flags.discard)(Flag.DEGRADED)
            order.bad = 0
            await self.journal.move(order, S.HOLDING, proof, record=self.teller.effect(order, S.HOLDING))
            return
        if order.stable_ns:  # it did not last
            order.stable_ns, order.doc.confirmed_ms = 0, None
        # АПВ, АВР or somebody may close a switch again before the meter ever confirmed the opening.
        await self.held_open.reassert(order)
        waited = (self.clock.mono_ns() - order.wave_ns) / 1e9
        opened = any(t in self.fleet.switches and not self.fleet.is_battery(t) for t in order.doc.attempts)
        patience = timing.switch_confirm_s if opened else min(order.order.escalation.after_s, timing.sleep_confirm_s)
        ramping = order.order.ramp_w_per_min is not None or order.order.max_step_w is not None
        if ramping and self.waves.sleep_left(order):
            patience = min(patience, 2.0)
        if self.supply.awaited():
            patience = min(patience, RETURN_PACE_S)
        if self.waves.stops(order) and not opened:
            patience = min(patience, timing.cooldown_s)
        excess = self.waves.excess_w(order)
        settled = excess is not None and excess <= order.order.tolerance_w and self.proof.positions_agree(order)
        if waited < patience or settled:
            return
        if self.waves.next(order):
            await self.journal.move(order, S.EXECUTING, "short of the target: next wave")
        elif not self.waves.cooling(order) and not self.waves.paced(order):
            order.flags.add(Flag.DEGRADED)
            await self.journal.move(
                order,
                S.FAILED,
                self.proof.shortfall(order, self.waves.excess_w(order)),
                record=self.teller.effect(order, S.FAILED),
            )

    async def _hold(self, order: LiveOrder) -> None:
        self.proof.observe(order)
        await self.held_open.settle(order)
        self.fleet.forgive(order.doc.attempts)
        excess = self.waves.excess_w(order) if self.supply.awaited() else None
        comes = excess is not None and excess > order.order.tolerance_w
        if order.bad >= CREEP_SAMPLES or comes or not self.proof.positions_agree(order):
            await self.held_open.reassert(order)
            if self.waves.next(order):
                order.bad = 0
                why = "load returns with the supply" if comes else "load crept above the limit"
                await self.journal.move(order, S.EXECUTING, why)
                return
        still = self.stillness.answer(order)
        if still is not None:
            await self.journal.move(order, S.EXECUTING, still, record=self.teller.effect(order, S.EXECUTING))
            return
        await self._tell_drift(order)
        if order.doc.returning and self.clock.synchronised() and Flag.CLOCK_SUSPECT not in order.flags:
            await self.journal.move(order, S.RESTORING, f"part may return: {order.doc.returning}"[:480])
            return
        until = order.doc.hold_until
        hold = order.order.hold
        over = until is not None and hold is not None and hold.restore_auto and self.clock.now_ms() >= until
        if over:
            self.check_clock()
        doubt = order.flags & {Flag.ORPHANED, Flag.CLOCK_SUSPECT}
        if over and self.clock.synchronised() and self.link.settled() and not doubt:
            order.doc.released_by = HOLD_ENDED
            await self.journal.move(order, S.RESTORING, "the order allowed its own end")

    async def _tell_drift(self, order: LiveOrder) -> None:
        """Above the limit with nothing left to do is said once, by a signed record; so is the end of it."""
        agree = self.proof.positions_agree(order) and not self.proof.flows(order)
        if (order.bad >= CREEP_SAMPLES or not agree) and Flag.DEGRADED not in order.flags:
            order.flags.add(Flag.DEGRADED)
            order.doc.text = self.proof.shortfall(order, self.waves.excess_w(order))
        elif self.proof.confirmed(order) is not None and Flag.DEGRADED in order.flags and not order.doc.not_open:
            order.flags.discard(Flag.DEGRADED)
            order.doc.text = "below the limit again"
        else:
            return
        await self.journal.save(order, record=self.teller.effect(order))

    async def _failed(self, order: LiveOrder) -> None:
        self.proof.observe(order)
        await self.held_open.settle(order)
        if self.proof.confirmed(order) is not None:
            await self.journal.move(order, S.EXECUTING, "the target is met now")
        elif self.waves.next(order):
            await self.journal.move(order, S.EXECUTING, "more can be done now")
