"""Switches that an order holds open, as they are read: closed by others, opened late, or opened by somebody else."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Held, Journal, LiveOrder
from agent.curtailment.shed import Shedder
from agent.curtailment.telling import Teller
from agent.live import LiveState
from config.site import Site
from drivers.capabilities import Position
from wire.states import Flag

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HeldOpen:
    """Opens again what others closed, attempts permitting; never closes anything."""

    site: Site
    journal: Journal
    gates: Gates
    fleet: Fleet
    shedder: Shedder
    live: LiveState
    teller: Teller

    async def reassert(self, order: LiveOrder) -> None:
        """A held switch was closed by others: no longer ours to close. OPEN is asserted again, attempts permitting.

        A switch in local control is a person's: that is told, not fought.
        """
        for held in self.journal.held_by(order.id):
            state = self.live.switches.get(held.target)
            if held.kind != "switch" or state is None or state.position is not Position.CLOSED:
                continue
            if held.target in order.doc.not_open:
                continue  # it never opened
            at_once = self._recloses(held)
            await self.journal.drop(held.target)
            log.error("held_switch_closed_by_others", switch=held.target, order=order.id, remote=state.remote)
            order.flags.add(Flag.LOCAL_OVERRIDE)
            await self._tell(order, f"{held.target} was closed by others")
            tries = order.doc.attempts.get(held.target, 0)
            again = state.remote is not False and tries < self.fleet.max_attempts(held.target)
            if again and self.gates.unusable(held.target) is None:
                await self.shedder.open(order, held.target, held.expected_w, again=True)
            elif at_once and state.remote is not False and not again:
                why = f"opened {tries} times and closed again within {self._guard_s(held):g} s: re-closing automatics"
                await self.gates.unarm(held.target, why)
                await self._tell(order, f"{held.target} is unarmed: {why}")

    async def settle(self, order: LiveOrder) -> None:
        """A switch that did not open when it was told to is read open now.

        Soon after our last word it is our own opening, come late. Later it is somebody else's, and not ours to close.
        """
        for held in self.journal.held_by(order.id):
            state = self.live.switches.get(held.target)
            if held.target not in order.doc.not_open or state is None or state.position is not Position.OPEN:
                continue
            if order.tasks:
                return
            order.doc.not_open.remove(held.target)
            if self._ours(held):
                log.warning("opened_late", switch=held.target, order=order.id)
                await self.journal.save(order)
                continue
            log.warning("opened_by_others", switch=held.target, order=order.id)
            await self.journal.drop(held.target)
            await self._tell(order, f"{held.target} was opened by others: they close it")

    def _guard_s(self, held: Held) -> float:
        return self.gates.switches[held.target].reclose_guard_s

    def _recloses(self, held: Held) -> bool:
        """True where it closed so soon after our opening that automatics did it (АПВ, АВР), not a person."""
        return 0 <= self.journal.held_ms(held) <= 1000 * self._guard_s(held)

    def _ours(self, held: Held) -> bool:
        """True while an opening may still be what our last word brought about."""
        return 0 <= self.journal.held_ms(held) <= 1000 * self.site.agent.timing.switch_confirm_s

    async def _tell(self, order: LiveOrder, text: str) -> None:
        await self.journal.save(order, record=self.teller.effect(order) | {"text": text})
