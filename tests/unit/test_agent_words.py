"""Words of people on site about orders: acknowledged, spoken, handed in. They are evidence and move nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.duty import Duty
from agent.handover import hand_over
from agent.inbox import Inbox
from tests.unit.agent_kit import Core, running_core, sealed
from tizgin.commands._agent_words import envelope_of, moment_ms
from tizgin.errors import UserError
from wire.errors import WireError
from wire.orders import uuid7
from wire.states import OrderState as S


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


def duty_of(core: Core, ack_min: float = 5.0) -> Duty:
    duty = Duty(core.ledger, core.journal, core.clock, ack_min)
    duty.load()
    return duty


async def events(core: Core, ev: str) -> list[dict[str, Any]]:
    return [e for e in await core.records("event", "site") if e["ev"] == ev]


# acknowledgement -----------------------------------------------------------------------------------------------------


async def test_an_order_is_carried_out_unacknowledged_and_the_alarm_comes_at_its_time(core: Core) -> None:
    duty = duty_of(core)
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    assert duty.unacknowledged() == [order.id]
    assert duty.overdue() == [], "it was obeyed long before a person is late"
    await core.pass_time(300, step_s=10)
    assert duty.overdue() == [order.id]
    await duty.tick()
    await duty.tick()
    (told,) = await events(core, "order_ack")
    assert (told["obj"], told["now"], told["detail"]) == (order.id, "overdue", {"ack_s": 300})
    await duty.ack({"order": order.id, "who": "A. Serik"})
    assert duty.overdue() == []
    assert (await events(core, "order_ack"))[-1]["detail"] == {"who": "A. Serik"}
    assert duty_of(core).unacknowledged() == [], "it outlives a restart"
    assert order.state is S.HOLDING


async def test_a_restart_does_not_put_the_alarm_off(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    core.clock.advance(400)
    await core.reboot()
    assert duty_of(core).overdue() == [order.id]


async def test_what_was_ordered_in_a_drill_or_released_waits_for_nobody(core: Core) -> None:
    duty = duty_of(core)
    await core.send(core.order("stop", mode="drill"))
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    await core.release(order)
    await core.until_state(order, S.DONE)
    core.clock.advance(3600)
    assert duty.overdue() == []


async def test_an_acknowledgement_of_nothing_is_refused(core: Core) -> None:
    with pytest.raises(WireError, match="none of that id came here"):
        await duty_of(core).ack({"order": uuid7(core.clock.now_ms()), "who": "A. Serik"})
    with pytest.raises(WireError, match="expected an order's id"):
        await duty_of(core).ack({"order": "1", "who": "A. Serik"})
    assert await events(core, "order_ack") == []


# spoken orders -------------------------------------------------------------------------------------------------------


def said(core: Core, order: str, **changes: Any) -> dict[str, Any]:
    fields = {"order": order, "who": "A. Serik", "given_by": "B. Omarov", "at": core.clock.now_ms() - 60_000}
    return fields | {"recording": "4711", "text": "limit 0.05 MW until released"} | changes


async def test_a_spoken_order_is_evidence_and_moves_nothing(core: Core) -> None:
    core.plant.forbidden = True
    order = uuid7(core.clock.now_ms())
    text = await duty_of(core).spoken(said(core, order))
    assert "moves nothing" in text
    (entry,) = await events(core, "spoken_order")
    assert entry["obj"] == order
    assert entry["detail"] == {
        "who": "A. Serik",
        "given_by": "B. Omarov",
        "at": core.clock.now_ms() - 60_000,
        "recording": "4711",
        "text": "limit 0.05 MW until released",
        "delivered": False,
    }
    await core.pass_time(10)


async def test_the_signed_order_that_comes_after_the_call_is_the_same_order_and_needs_no_second_word(
    core: Core,
) -> None:
    duty = duty_of(core)
    order = core.order("limit", limit_w=50_000)
    await duty.spoken(said(core, order.id))
    assert (await core.send(order))["state"] == "validated"
    assert duty.unacknowledged() == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"who": ""}, "who: missing"),
        ({"given_by": "x" * 101}, "expected at most 100"),
        ({"recording": "4\n7"}, "cannot be printed"),
        ({"text": "\ud800"}, "cannot be printed"),
        ({"at": 1}, "within the last 7 days"),
        ({"at": "now"}, "expected a number"),
        ({"at": float("inf")}, "expected a number"),
        ({"who": ["A"]}, "expected text"),
        ({"order": "'; DROP TABLE orders"}, "expected an order's id"),
    ],
)
async def test_a_hostile_word_is_refused_by_name(core: Core, change: dict[str, Any], why: str) -> None:
    with pytest.raises(WireError, match=why):
        await duty_of(core).spoken(said(core, uuid7(core.clock.now_ms())) | change)
    assert await events(core, "spoken_order") == []


# orders by another way -----------------------------------------------------------------------------------------------


async def test_an_order_from_a_file_is_the_order_whichever_copy_comes_first(core: Core, tmp_path: Path) -> None:
    inbox = Inbox(
        tmp_path, core.gates, lambda: core.keys, order=lambda raw: hand_over(raw, core.reception.take, core.ledger)
    )
    order = core.order("limit", limit_w=50_000)
    raw = sealed(order, core.people.dispatcher)

    async def put(content: bytes) -> dict[str, Any]:
        path = tmp_path / "inbox" / "x.json"
        path.write_bytes(content)
        await inbox._take(path)
        found: dict[str, Any] = json.loads((tmp_path / "inbox" / "x.result").read_text())
        return found

    first = await put(raw)
    assert first["ok"], first
    assert "validated" in first["text"]
    await core.until_state(core.journal.live[order.id], S.HOLDING)
    assert (await core.send(order))["dup"] is True, "the broker's copy is a repetition"
    again = await put(raw)
    assert again["ok"]
    assert "came before" in again["text"]
    received = [r for r in await core.records("cmd_rx") if r["id"] == order.id]
    assert len(received) == 1
    forged = sealed(core.order("limit", limit_w=50_000, id=order.id), core.people.dispatcher)
    refused = await put(forged)
    assert not refused["ok"]
    assert "id_reuse" in refused["text"]
    assert not (await put(b'{"payloadType":"application/vnd.tizgin.order.v1+json"}'))["ok"]


def test_an_order_survives_the_ways_people_send_text() -> None:
    raw = b'{"payloadType":"x","payload":"e30=","signatures":[]}'
    code = base64.b64encode(raw)
    assert envelope_of(raw + b"\n") == raw
    assert envelope_of(b"  " + code[:20] + b"\r\n " + code[20:] + b"\n") == raw
    with pytest.raises(UserError, match="was all of it copied"):
        envelope_of(code[:-3])


def test_a_time_is_the_last_time_it_was_so_in_kazakhstan() -> None:
    now = int(datetime(2026, 11, 21, 17, 45, tzinfo=UTC).timestamp()) * 1000  # 22:45 in Kazakhstan
    assert moment_ms("22:40", now) == now - 5 * 60_000
    assert moment_ms("22:50", now) == now + 5 * 60_000 - 86_400_000
    assert moment_ms("2026-11-21T22:40+05:00", now) == now - 5 * 60_000
    for wrong in ("2026-11-21T22:40", "25:00", "soon"):
        with pytest.raises(UserError, match="expected 18:12"):
            moment_ms(wrong, now)
