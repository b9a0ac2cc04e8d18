"""The engine goes on with an order at the very moment in which its release or its end comes: one follows the other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.errors import Overtaken
from tests.unit.agent_kit import BASE_W, MACHINE_W, Core, sealed
from wire.states import OrderState, ended

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W


async def settled(core: Core) -> None:
    """Memory and disk say the same of every order, and what is held has somebody to give it back."""
    rows = await core.ledger.read("SELECT id, state FROM orders")
    for order, state in rows:
        live = core.journal.live.get(order)
        assert (live is None) == ended(S(state)), (order, state, live)
        assert live is None or live.state == state
    for target, order in await core.ledger.read("SELECT target, order_id FROM held"):
        assert order in core.journal.live, f"{target} is held by an order that has ended: nobody returns it"


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 14, 20])
@pytest.mark.parametrize("action", ["release", "cancel"])
async def test_a_release_in_the_midst_of_the_beginning(tmp_path: Path, turns: int, action: str) -> None:
    core = await Core(tmp_path).boot(run=False)
    try:
        await core.arm()
        order = await core.give("limit", limit_w=BASE_W + 2 * MACHINE_W)
        ender = sealed(core.order(action, target=order.id), core.people.dispatcher)
        begins = asyncio.create_task(core.engine._advance(order))
        for _ in range(turns):
            await asyncio.sleep(0.0002 if turns > 12 else 0)
        await core.reception.take(ender, False)
        try:
            await begins
        except Overtaken:
            assert ended(order.state) or order.state is S.RESTORING
        await settled(core)
        assert (order.id in core.journal.live) != ended(order.state)
        await core.go()
        if action == "release":
            await core.until(lambda: not core.journal.live)
            await core.until(lambda: core.plant.net_w == ALL_W)
        await settled(core)
    finally:
        await core.shut()


async def test_a_change_that_waited_is_judged_again(tmp_path: Path) -> None:
    core = await Core(tmp_path).boot(run=False)
    try:
        await core.arm()
        order = await core.give("limit", limit_w=BASE_W + 2 * MACHINE_W)
        found = await asyncio.gather(
            core.journal.move(order, S.CANCELLED, "first"),
            core.journal.move(order, S.ARMED, "second"),
            core.journal.save(order),
            return_exceptions=True,
        )
        assert found[0] is None
        assert isinstance(found[1], Overtaken)
        await settled(core)
        assert order.state is S.CANCELLED
    finally:
        await core.shut()
