"""Taking load away: a durable intent before every write, an outcome after it, and positions read back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from agent.clock import Clock
from agent.curtailment.fleet import Fleet
from agent.curtailment.holder import Holder
from agent.curtailment.journal import Journal, LiveOrder, limit_of
from agent.curtailment.wear import urgent
from agent.errors import LedgerError
from agent.live import LiveState
from drivers.asic.fanout import Command, FanOut
from drivers.capabilities import Position, Switch, SwitchState, WriteOutcome, WriteStatus
from drivers.errors import DriverError

log = structlog.get_logger()

READBACK_S = 1.0
READBACK_STEP_S = 0.04


@dataclass(slots=True)
class Shedder:
    """Executes steps. Every step is its own task: one dead machine never delays another."""

    fleet: Fleet
    journal: Journal
    live: LiveState
    clock: Clock
    concurrency: int
    _fan_out: FanOut = field(init=False)

    def __post_init__(self) -> None:
        self._fan_out = FanOut(concurrency=self.concurrency, per_subnet=max(1, self.concurrency // 2))

    def since_ms(self, order: Holder) -> int:
        """Milliseconds since the order entered the agent."""
        return (self.clock.mono_ns() - order.rx_mono) // 1_000_000

    def _first_output(self, order: Holder) -> None:
        if order.doc.first_output_ms is None:
            order.doc.first_output_ms = self.since_ms(order)

    def _read_back(self, order: LiveOrder, began_ns: int) -> None:
        took = (self.clock.mono_ns() - began_ns) // 1_000_000
        order.doc.readback_ms = max(order.doc.readback_ms or 0, took)

    async def sleep_all(self, order: Holder, expected: Mapping[str, int]) -> None:
        """Put machines to sleep side by side; slow ones do not hold up the others.

        Args:
            order: why.
            expected: machine → W that its sleep should bring.
        """
        commands = [
            Command(machine, partial(self._sleep, order, machine, gain_w), self.fleet.machines[machine].group.id)
            for machine, gain_w in expected.items()
        ]
        await self._fan_out.run(commands, stop=lambda: not order.sheds_now)

    async def _sleep(self, order: Holder, machine: str, expected_w: int) -> WriteOutcome:
        """Put one machine to sleep: prior state, durable intent, write, outcome."""
        known = self.fleet.machines[machine]
        if known.sleeper is None:
            return self._not_told(f"{machine} cannot sleep")
        order.doc.attempts[machine] = order.doc.attempts.get(machine, 0) + 1
        held = self.journal.held.get(machine)
        prior = held.prior if held is not None else None
        if prior is None:
            try:
                prior = await known.sleeper.prior_state()
            except DriverError as error:
                log.warning("sleep_skipped", machine=machine, order=order.id, error=str(error))
                return self._not_told(str(error))
        if not order.sheds_now:
            return self._not_told("the order ended while this machine was asked")
        try:
            n = await self.journal.intend(order, "sleep", machine, expected_w, prior, urgent=False)
        except LedgerError as error:
            order.doc.attempts[machine] -= 1  # nothing was tried: it may be, once there is a journal again
            log.error("no_journal_no_movement", target=machine, order=order.id, error=str(error))
            return self._not_told(str(error))
        self._first_output(order)
        began = self.clock.mono_ns()
        outcome = await known.sleeper.sleep()
        if outcome.status is WriteStatus.ACKNOWLEDGED:
            took = (self.clock.mono_ns() - began) // 1_000_000
            best = order.doc.sleep_readback_ms
            order.doc.sleep_readback_ms = took if best is None else min(best, took)
        await self._outcome(order.id, n, outcome.status, outcome.detail)
        if outcome.status is not WriteStatus.ACKNOWLEDGED:
            log.warning("sleep_not_acknowledged", machine=machine, status=outcome.status, detail=outcome.detail)
        return outcome

    async def limit_all(self, order: Holder, limits: Mapping[str, int], draws: Mapping[str, int]) -> None:
        """Limit the power of machines side by side.

        Args:
            order: why.
            limits: machine → W.
            draws: machine → W that it draws now.
        """
        commands = [
            Command(
                machine,
                partial(self._limit, order, machine, limit_w, max(0, draws[machine] - limit_w)),
                self.fleet.machines[machine].group.id,
            )
            for machine, limit_w in limits.items()
        ]
        await self._fan_out.run(commands, stop=lambda: not order.sheds_now)

    async def _limit(self, order: Holder, machine: str, limit_w: int, expected_w: int) -> WriteOutcome:
        """Limit one machine: what it accepts and had before, durable intent, write, outcome."""
        limiter, target = self.fleet.machines[machine].limiter, limit_of(machine)
        if limiter is None:
            return self._not_told(f"{machine} has no power limit")
        order.doc.attempts[target] = order.doc.attempts.get(target, 0) + 1
        try:
            held = self.journal.held.get(target)
            prior = held.prior if held is not None else await limiter.prior_limit()
            bounds = await limiter.power_range()
        except DriverError as error:
            log.warning("limit_skipped", machine=machine, order=order.id, error=str(error))
            return self._not_told(str(error))
        if bounds.highest_w is not None:
            limit_w = min(limit_w, bounds.highest_w)
        limit_w = max(limit_w, bounds.lowest_w or 0)
        if not order.sheds_now:
            return self._not_told("the order ended while this machine was asked")
        if bounds.now_w is not None and bounds.now_w <= limit_w:
            return self._not_told(f"{machine} stands at {bounds.now_w} W already")
        try:
            n = await self.journal.intend(order, "limit", target, expected_w, prior, urgent=False)
        except LedgerError as error:
            order.doc.attempts[target] -= 1
            log.error("no_journal_no_movement", target=target, order=order.id, error=str(error))
            return self._not_told(str(error))
        self._first_output(order)
        outcome = await limiter.limit_power(limit_w)
        await self._outcome(order.id, n, outcome.status, f"{limit_w} W {outcome.detail}")
        return outcome

    def _not_told(self, why: str) -> WriteOutcome:
        return WriteOutcome(WriteStatus.REFUSED, self.clock.now_ms(), why)

    async def open(self, order: LiveOrder, switch: str, expected_w: int, *, again: bool = False) -> None:
        """Open one switch and read its position back. ``again``: others closed it; it is not spared for that."""
        at_once = again or urgent(order.order)
        port = self.fleet.switches[switch]
        before = await port.read()
        self.live.put_switch(switch, before)
        if before.position is Position.OPEN:
            log.info("already_open", switch=switch, order=order.id)
            return
        order.doc.attempts[switch] = order.doc.attempts.get(switch, 0) + 1
        try:
            n = await self.journal.intend(order, "open", switch, expected_w, None, urgent=True)
        except LedgerError as error:
            order.doc.attempts[switch] -= 1
            log.error("no_journal_no_movement", target=switch, order=order.id, error=str(error))
            return
        why = self.fleet.gates.may_open(switch, urgent=at_once)
        if why is not None:  # a tag was hung, or a person took over, while the intent was written
            log.warning("open_refused", switch=switch, order=order.id, reason=why)
            await self._outcome(order.id, n, "skipped", why)
            return
        self._first_output(order)
        await self.drive_open(order, switch, port, n)

    async def drive_open(self, order: LiveOrder, switch: str, port: Switch, n: int) -> None:
        """Write OPEN and read back; the intent ``n`` is on disk."""
        began = self.clock.mono_ns()
        outcome = await port.open()
        state = await self.await_position(switch, port, Position.OPEN)
        self._read_back(order, began)
        if state.position is Position.OPEN:
            if switch in order.doc.not_open:
                order.doc.not_open.remove(switch)
            await self._outcome(order.id, n, "open", outcome.detail)
            return
        if switch not in order.doc.not_open:
            order.doc.not_open.append(switch)
        log.error("switch_did_not_open", switch=switch, position=state.position, answer=outcome.status)
        await self._outcome(order.id, n, "not_open", f"{outcome.status} {outcome.detail}; position {state.position}")

    async def await_position(
        self, switch: str, port: Switch, wanted: Position, *, within_s: float = READBACK_S
    ) -> SwitchState:
        """Read until the switch is where it should be, or time is up."""
        deadline = self.clock.mono_ns() + int(within_s * 1e9)
        while True:
            state = await port.read()
            self.live.put_switch(switch, state)
            if state.position is wanted or self.clock.mono_ns() >= deadline:
                return state
            await asyncio.sleep(READBACK_STEP_S)

    async def _outcome(self, order: str, n: int, status: str, detail: str) -> None:
        try:
            await self.journal.outcome(order, n, status, detail)
        except LedgerError as error:
            # The intent is durable; on the next start the device is asked what became of it.
            log.error("outcome_not_recorded", order=order, step=n, error=str(error))

    def launch(self, order: Holder, work: list[Callable[[], asyncio.Task[None]]]) -> None:
        """Start steps as tasks owned by the order."""
        for start in work:
            task = start()
            order.tasks.add(task)
            task.add_done_callback(order.tasks.discard)
