"""Any sequence of orders, failures, restarts and passing time: what must never happen does not."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.curtailment.journal import STANDING
from tests.unit.agent_kit import Core, running_core, sealed, small_site
from wire.orders import Escalation, Order, Restore
from wire.states import OrderState, ended

T = TypeVar("T")
S = OrderState
NAMES = [f"rack{r}/{n}" for r in (1, 2) for n in range(1, 5)]


class Orders(RuleBasedStateMachine):
    """Reception and engine over the simulated plant."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.stack = contextlib.AsyncExitStack()
        site = small_site()
        groups = tuple(g.model_copy(update={"lowest_power_w": 2000.0}) for g in site.miners)
        site = site.model_copy(update={"miners": groups})
        self.core: Core = self.run(self.stack.enter_async_context(running_core(self.folder, site=site)))
        self.core.plant.at_write = self.on_write
        self.sent: list[Order] = []
        self.released = False
        self.wrongs: list[str] = []
        self.blind = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    def on_write(self, kind: str, target: str) -> None:
        """At the moment of a write: is there somebody who may want it?"""
        live = [o for o in self.core.journal.live.values() if o.order.sheds]
        back = kind in {"close", "wake", "unlimit"}
        if self.intended_by(kind, target) == STANDING:
            self.by_standing_limit(kind, target, back)
            return
        if back and not any(o.doc.released_by or o.doc.returning for o in live):
            self.wrongs.append(f"{kind} {target} without a release")
        if back and self.core.plant.meter_silent and self.blind:
            self.wrongs.append(f"{kind} {target} while no meter speaks")
        if kind in {"sleep", "open", "limit"} and not any(not ended(o.state) for o in live):
            self.wrongs.append(f"{kind} {target} without a live order")
        if kind in {"close", "open"} and target in self.core.gates.tags:
            self.wrongs.append(f"{kind} {target} under a tag")

    def intended_by(self, kind: str, target: str) -> str:
        with contextlib.closing(sqlite3.connect(self.core.path)) as db:
            rows = db.execute(
                "SELECT order_id FROM step WHERE kind=? AND target=? AND outcome_ms IS NULL", (kind, target)
            ).fetchall()
        return STANDING if (STANDING,) in rows else str(rows[0][0]) if rows else ""

    def by_standing_limit(self, kind: str, target: str, back: bool) -> None:
        """The site's own limits move machines alone, and only where they are enforced or their work is undone."""
        core = self.core
        if kind in {"open", "close"}:
            self.wrongs.append(f"{kind} {target} by a standing limit")
        if not back and not core.site.site.standing.enforce:
            self.wrongs.append(f"{kind} {target} by a limit that is not enforced")
        if back and (not core.clock.synchronised() or core.gates.saon_lock or (core.plant.meter_silent and self.blind)):
            self.wrongs.append(f"{kind} {target} by a standing limit in doubt")
        held = core.journal.held.get(target)
        if back and held is not None and held.order_id != STANDING:
            self.wrongs.append(f"{kind} {target} by a standing limit: {held.order_id} put it down")

    def give(self, order: Order) -> None:
        self.sent.append(order)
        self.run(self.core.send(order))

    @initialize()
    def settle(self) -> None:
        self.run(self.core.step())

    @rule(
        limit_kw=st.integers(36, 62),
        switch=st.booleans(),
        methods=st.sampled_from([("sleep",), ("sleep", "power_limit"), ("power_limit",)]),
        basis=st.sampled_from(["instant_1min", "instant_1min", "slot"]),
        follows=st.integers(0, 200),
    )
    def limit(self, limit_kw: int, switch: bool, methods: Any, basis: str, follows: int) -> None:
        escalation = Escalation(to="switch" if switch else "none", after_s=5)
        restore = Restore(stage_permille=500, stage_delay_s=1)
        more: dict[str, Any] = {"methods": methods, "limit_basis": basis}
        if follows < len(self.sent):  # stricter or looser than what it supersedes
            more["supersedes"] = self.sent[follows].id
        self.give(self.core.order("limit", limit_w=limit_kw * 1000, escalation=escalation, restore=restore, **more))

    @rule(action=st.sampled_from(["stop", "emergency_trip"]), drill=st.booleans())
    def stop(self, action: str, drill: bool) -> None:
        self.give(self.core.order(action, mode="drill" if drill else "live"))

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 100), action=st.sampled_from(["release", "release", "cancel"]))
    def follow(self, which: int, action: str) -> None:
        target = self.sent[which % len(self.sent)]
        if target.sheds:
            self.give(self.core.order(action, target=target.id))

    @rule(wait_s=st.sampled_from([0, 30]), restarts=st.booleans(), again=st.booleans())
    def cancel_first(self, wait_s: int, restarts: bool, again: bool) -> None:
        """A cancellation overtakes its order: the order never acts, however long and whatever lies between."""
        order = self.core.order("limit", limit_w=40_000)
        cancel = self.core.order("cancel", target=order.id)
        answer = self.run(self.core.send(cancel, self.core.people.second))
        if answer["state"] != "validated":
            assert answer["code"] == "unknown_order", answer  # too many wait already
            return
        if wait_s:
            self.wait(wait_s, 1)
        if restarts:
            self.restart()
        for _ in range(1 + again):
            self.run(self.core.reception.take(sealed(order, self.core.people.dispatcher), False))
            assert order.id not in self.core.journal.live
        rows = self.run(self.core.ledger.read("SELECT state FROM orders WHERE id=?", order.id))
        # An order that followed under a later number may have made it old before it came.
        assert rows in ([("cancelled",)], [])

    @precondition(lambda self: self.core.clock.synchronised())
    @rule(late_s=st.sampled_from([1, 61, 3600]), restarts=st.booleans())
    def too_late(self, late_s: int, restarts: bool) -> None:
        """What could not begin in time never acts, whether it comes late or its time passes while it waits."""
        now = self.core.clock.now_ms()
        when = {"issued_at": now - 1000 * late_s - 1000, "execute_by": now - 1000 * late_s}
        answer = self.run(self.core.send(self.core.order("limit", limit_w=37_000, **when)))
        assert answer["state"] == "rejected", answer
        order = self.core.order("limit", limit_w=37_000, not_before=now + 1000, execute_by=now + 1000)
        if self.run(self.core.send(order))["state"] != "validated":
            return
        self.core.clock.advance(1 + late_s)
        if restarts:
            self.restart()
        self.wait(1, 2)
        assert self.run(self.core.state(order.id)) is S.EXPIRED
        assert self.run(self.core.ledger.read("SELECT 1 FROM step WHERE order_id=?", order.id)) == []

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 100))
    def send_again(self, which: int) -> None:
        """The same bytes once more: at most one effect."""
        before = len(self.core.journal.states)
        order = self.sent[which % len(self.sent)]
        self.run(self.core.reception.take(sealed(order, self.core.people.dispatcher), False))
        assert len(self.core.journal.states) == before or order.id not in self.core.journal.states

    @rule(junk=st.binary(max_size=60), retained=st.booleans())
    def junk(self, junk: bytes, retained: bool) -> None:
        self.run(self.core.reception.take(junk, retained))

    @rule(seconds=st.sampled_from([1, 2, 5, 30, 120]), times=st.integers(1, 4))
    def wait(self, seconds: int, times: int) -> None:
        for _ in range(times):
            self.run(self.core.step(seconds))
            self.blind = self.core.plant.meter_silent and seconds >= 5

    @rule(name=st.sampled_from(NAMES), fault=st.sampled_from(["deaf", "refuses", "mute", "well", "woken"]))
    def machine(self, name: str, fault: str) -> None:
        machine = self.core.plant.machines[name]
        machine.deaf, machine.refuses, machine.mute = fault == "deaf", fault == "refuses", fault == "mute"
        if fault == "woken":
            machine.asleep = False

    @rule(
        name=st.sampled_from(["KM1", "KM2"]),
        change=st.sampled_from(["stuck", "well", "local", "trip", "unread", "opened", "closed"]),
    )
    def switch(self, name: str, change: str) -> None:
        switch = self.core.plant.switches[name]
        switch.stuck, switch.readable = change == "stuck", change != "unread"
        switch.remote = False if change == "local" else None
        switch.protection_trip = True if change == "trip" else None
        if change in {"opened", "closed"}:
            switch.closed = change == "closed"

    @rule(silent=st.booleans())
    def meter(self, silent: bool) -> None:
        self.core.plant.meter_silent = silent
        self.blind = False

    @rule(seconds=st.sampled_from([3, 20]))
    def blackout(self, seconds: int) -> None:
        """Supply goes and comes; machines start by themselves."""
        self.core.plant.blackout = True
        self.wait(seconds, 1)
        self.wait(seconds, 1)
        self.core.plant.blackout = False
        for machine in self.core.plant.machines.values():
            machine.asleep = False

    @rule()
    def all_is_well(self) -> None:
        """Nothing is broken for some minutes: then what is said to be held is held, at the strictest limit."""
        plant = self.core.plant
        plant.meter_silent = self.blind = False
        for machine in plant.machines.values():
            machine.deaf = machine.refuses = machine.mute = False
        for _ in range(60):
            self.run(self.core.step(5))
        permitted_kw, standing = self.core.site.site.standing.permitted_kw, self.core.engine.standing
        if self.core.site.site.standing.enforce and permitted_kw is not None and standing.state != "short":
            assert plant.net_w <= permitted_kw * 1000, f"{standing.state}: {plant.net_w} W over {permitted_kw} kW"
        for order in self.core.journal.live.values():
            if order.state is S.HOLDING and "degraded" not in order.flags and order.order.action != "open_feeders":
                assert order.limit_w is not None
                assert plant.net_w <= order.limit_w, f"{order.doc.text}: {plant.net_w} W over {order.limit_w} W"

    @rule(name=st.sampled_from(["KM1", "KM2"]))
    def tag(self, name: str) -> None:
        if name in self.core.gates.tags:
            self.run(self.core.gates.untag(name, "Dana"))
        else:
            self.run(self.core.gates.tag(name, "Dana", "permit"))

    @rule(
        permitted_kw=st.sampled_from([None, 46.0, 54.0]),
        ramp=st.sampled_from([None, None, 8.0]),
        enforce=st.booleans(),
        synchronised=st.sampled_from([True, True, False]),
    )
    def standing_limits(
        self, permitted_kw: float | None, ramp: float | None, enforce: bool, synchronised: bool
    ) -> None:
        """The site file says otherwise from the next start on."""
        site = self.core.site
        own = {"permitted_kw": permitted_kw, "ramp_kw_per_min": ramp, "enforce": enforce}
        head = site.site.model_copy(update={"standing": site.site.standing.model_copy(update=own)})
        self.core.site = site.model_copy(update={"site": head})
        self.core.clock.sync = synchronised
        self.restart()

    @rule()
    def restart(self) -> None:
        self.run(self.core.shut())
        released = {o.id: o.doc.released_by for o in self.core.journal.live.values()}
        db = sqlite3.connect(self.core.path)
        held = {row[0] for row in db.execute("SELECT target FROM held")}
        db.close()
        self.run(self.core.boot(run=False))
        for order in self.core.journal.live.values():
            assert order.doc.released_by == released[order.id]
        now = set(self.core.journal.held)
        assert now <= held
        assert held - now <= set(self.core.plant.switches), "only a switch that is found closed is no longer held"
        assert self.core.journal.open_steps() == [], "every intent has an outcome after recovery"
        self.run(self.core.go())

    @invariant()
    def nothing_wrong_was_written(self) -> None:
        assert self.wrongs == []
        assert self.core.plant.undurable == []

    @invariant()
    def every_order_has_one_row_and_memory_agrees_with_the_disk(self) -> None:
        assert self.run(self.disagreements()) == []

    async def disagreements(self) -> list[tuple[str, str, str | None]]:
        """(order, state on disk, state in memory); a change that is on its way gets a moment to arrive."""
        found: list[tuple[str, str, str | None]] = []
        for _ in range(100):
            rows = await self.core.ledger.read("SELECT id, state FROM orders")
            assert len({r[0] for r in rows}) == len(rows)
            live = self.core.journal.live
            found = [
                (order, state, live[order].state if order in live else None)
                for order, state in rows
                if (order not in live if not ended(OrderState(state)) else order in live)
                or (order in live and live[order].state != state)
            ]
            if not found:
                break
            await asyncio.sleep(0.005)
        return found

    @invariant()
    def drills_and_releases_are_never_live(self) -> None:
        assert all(o.order.mode == "live" and o.order.sheds for o in self.core.journal.live.values())

    @invariant()
    def what_is_held_belongs_to_a_live_order(self) -> None:
        rows = self.run(self.core.ledger.read("SELECT target, order_id FROM held"))
        for target, order in rows:
            assert order == STANDING or order in self.core.journal.live, (
                f"{target} is held by an order that has ended: nobody returns it"
            )

    def teardown(self) -> None:
        try:
            self.run(self.stack.aclose())
        finally:
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)


Orders.TestCase.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestOrders = Orders.TestCase
