"""A cancellation overtakes its order: the order is void when it comes, and a flood of them harms nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.curtailment.voids import AT_MOST, EACH, Void, Voids
from tests.unit.agent_kit import RIGHTS, Core, issuer, register, running_core
from wire.orders import uuid7
from wire.states import OrderState

S = OrderState
LIMIT_W = 50_000


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


@pytest.mark.parametrize("action", ["cancel", "release"])
@pytest.mark.parametrize("other_key", [False, True])
async def test_an_order_that_was_cancelled_before_it_came_moves_nothing(
    core: Core, action: str, other_key: bool
) -> None:
    core.plant.forbidden = True
    order = core.order("limit", limit_w=LIMIT_W)
    key = core.people.second if other_key else core.people.dispatcher
    cancel = core.order(action, target=order.id)
    answer = await core.send(cancel, key)
    assert (answer["state"], answer["text"]) == ("validated", f"voids {order.id} when it comes")
    answer = await core.send(order)
    assert (answer["state"], answer["text"]) == ("validated", f"cancelled by {cancel.id} before it came")
    assert [e["state"] for e in await core.effects(order.id)] == ["cancelled"]
    await core.pass_time(120, step_s=5)
    assert await core.state(order.id) is S.CANCELLED
    assert core.journal.live == {}
    assert (await core.send(order))["code"] == "replay"


async def test_it_survives_a_restart(core: Core) -> None:
    core.plant.forbidden = True
    order = core.order("limit", limit_w=LIMIT_W)
    await core.send(core.order("cancel", target=order.id), core.people.second)
    await core.reboot()
    await core.send(order)
    assert await core.state(order.id) is S.CANCELLED
    await core.reboot()
    assert core.journal.voids.of(order.id, 0) == ()


async def test_it_holds_for_as_long_as_the_cancellation_is_valid(core: Core) -> None:
    now = core.clock.now_ms()
    order = core.order("limit", limit_w=LIMIT_W)
    cancel = core.order("cancel", target=order.id, execute_by=now + 60_000, expires_at=now + 60_000)
    await core.send(cancel, core.people.second)
    await core.pass_time(62, step_s=2)
    assert (await core.send(order))["state"] == "validated"
    await core.until_state(core.journal.live[order.id], S.HOLDING)


async def test_one_person_does_not_void_what_two_others_order(core: Core) -> None:
    order = core.order("limit", limit_w=LIMIT_W)
    await core.send(core.order("cancel", target=order.id), core.people.engineer)
    await core.send(order, core.people.dispatcher, core.people.second)
    await core.until_state(core.journal.live[order.id], S.HOLDING)


async def test_what_one_of_two_signers_cancelled_is_judged_as_if_it_had_not_been(core: Core) -> None:
    """The number of the cancellation is above the order's, so that the order is old for that key."""
    order = core.order("limit", limit_w=LIMIT_W)
    await core.send(core.order("cancel", target=order.id))
    answer = await core.send(order, core.people.dispatcher, core.people.second)
    assert (answer["state"], answer["code"]) == ("rejected", "old_seq")


async def test_without_the_right_to_cancel_nothing_is_voided(core: Core) -> None:
    rights = tuple(r for r in RIGHTS if r != "cancel")
    core.keys = register(
        core.people,
        issuers=(issuer(core.people.dispatcher, "aru"), issuer(core.people.second, "bek", rights=rights)),
    )
    order = core.order("limit", limit_w=LIMIT_W)
    assert (await core.send(core.order("cancel", target=order.id), core.people.second))["code"] == "no_right"
    await core.send(order)
    await core.until_state(core.journal.live[order.id], S.HOLDING)


@pytest.mark.parametrize("target", ["ended", "drill"])
async def test_what_cannot_be_voided_is_unknown(core: Core, target: str) -> None:
    order = core.order("limit", limit_w=LIMIT_W, mode="drill" if target == "drill" else "live")
    if target == "ended":
        await core.send(order)
        await core.release(order.id)
        await core.until(lambda: not core.journal.live)
        cancel = core.order("cancel", target=order.id)
    else:
        cancel = core.order("cancel", target=order.id, mode="drill")
    assert (await core.send(cancel))["code"] == "unknown_order"


async def test_a_flood_of_cancellations_leaves_room_for_others_and_stops_no_order(core: Core) -> None:
    for _ in range(EACH + 5):
        await core.send(core.order("cancel", target=uuid7(core.clock.now_ms())))
    refused = [a for a in await core.answers() if a["code"] == "unknown_order"]
    assert len(refused) == 5
    order = core.order("limit", limit_w=LIMIT_W)
    await core.send(core.order("cancel", target=order.id), core.people.second)
    await core.send(order)
    assert await core.state(order.id) is S.CANCELLED
    other = await core.give("limit", limit_w=LIMIT_W)
    await core.until_state(other, S.HOLDING)


def test_there_are_never_more_than_so_many_and_time_frees_them() -> None:
    voids = Voids()
    for number in range(AT_MOST):
        assert voids.full([f"p{number}"]) is None
        voids.add(Void(f"by{number}", f"of{number}", 1000 + number, frozenset({f"p{number}"})))
    assert voids.full(["new"]) is not None
    voids.forget(1001)
    assert voids.full(["new"]) is None
    assert voids.of("of0", 0) == ()
    assert [v.by for v in voids.of("of1", 1001)] == ["by1"]
    assert voids.of("of1", 1002) == ()
