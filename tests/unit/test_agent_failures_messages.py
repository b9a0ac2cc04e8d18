"""Orders that come twice, too late, out of order, torn or with figures that cannot be: at most one effect, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent_kit import BASE_W, EMERGENCY_W, MACHINE_W, Core, issuer, register, running_core, sealed
from wire.dsse import ORDER_TYPE, open_envelope, seal
from wire.keys import SigningKey
from wire.orders import Hold, Order
from wire.states import OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
LIMIT_W = 50_000


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


async def held(core: Core, **changes: Any) -> str:
    order = await core.give("limit", limit_w=LIMIT_W, **changes)
    await core.until_state(order, S.HOLDING)
    return order.id


# the same again ------------------------------------------------------------------------------------------------------


async def test_copies_that_come_in_the_same_moment_are_one_order(core: Core) -> None:
    order = core.order("limit", limit_w=LIMIT_W)
    raw = sealed(order, core.people.dispatcher)
    await asyncio.gather(*(core.reception.take(raw, False) for _ in range(5)))
    await core.until_state(core.journal.live[order.id], S.HOLDING)
    assert await core.ledger.read("SELECT count(*) FROM orders WHERE id=?", order.id) == [(1,)]
    assert len(core.plant.writes) == len(set(core.plant.writes)) == 3
    answers = [a for a in await core.answers() if a["id"] == order.id]
    assert [a["state"] for a in answers if not a.get("dup")] == ["validated"]
    assert core.reception.refused == {}


async def test_other_bytes_under_a_known_id_change_nothing(core: Core) -> None:
    order = core.order("limit", limit_w=LIMIT_W)
    await core.send(order)
    await core.until_state(core.journal.live[order.id], S.HOLDING)
    writes = list(core.plant.writes)
    for change in ({"limit_w": 40_000}, {"limit_w": ALL_W}, {"seq": order.seq + 5, "limit_w": 40_000}):
        assert (await core.send(order.model_copy(update=change)))["code"] == "id_reuse"
    await core.pass_time(30)
    assert core.plant.writes == writes
    assert core.journal.live[order.id].doc.target_w == LIMIT_W


async def test_numbers_may_have_gaps_and_never_fall(core: Core) -> None:
    core.seq = 100
    assert (await core.send(core.order("limit", limit_w=ALL_W)))["state"] == "validated"
    late = core.order("stop").model_copy(update={"seq": 50})
    assert (await core.send(late))["code"] == "old_seq"
    core.seq = 10_000
    assert (await core.send(core.order("limit", limit_w=ALL_W)))["state"] == "validated"
    await core.pass_time(20)
    assert core.plant.writes == []


# times ---------------------------------------------------------------------------------------------------------------


def forged(core: Core, order: Order, was: bytes, now: bytes) -> bytes:
    """Signed by the right person over bytes that no side of ours would have made."""
    payload = order.encode()
    assert was in payload
    return seal(ORDER_TYPE, payload.replace(was, now, 1), core.people.dispatcher).encode()


@pytest.mark.parametrize("field", ["not_before", "issued_at", "execute_by", "until"])
@pytest.mark.parametrize("instead", [-62_135_596_800_000, 0], ids=["year one", "1970"])
async def test_a_time_that_means_now_elsewhere_is_no_time_here(core: Core, field: str, instead: int) -> None:
    core.plant.forbidden = True
    now = core.clock.now_ms()
    order = core.order("limit", limit_w=LIMIT_W, not_before=now + 1000, hold=Hold(until=now + 2000))
    value = now + 2000 if field == "until" else getattr(order, field)
    raw = forged(core, order, b'"%s":%d' % (field.encode(), value), b'"%s":%d' % (field.encode(), instead))
    await core.reception.take(raw, False)
    answer = (await core.answers())[-1]
    assert (answer["state"], answer["code"]) == ("rejected", "format")
    assert field in answer["text"]
    await core.pass_time(20)


async def test_an_order_of_no_length_cancels_nothing(core: Core) -> None:
    first = await held(core)
    now = core.clock.now_ms()
    nothing = core.order(
        "limit", limit_w=LIMIT_W, supersedes=first, execute_by=now, expires_at=now, hold=Hold(until=now)
    )
    await core.send(nothing)
    await core.pass_time(120, step_s=2)
    assert core.plant.net_w <= LIMIT_W
    assert {kind for kind, _ in core.plant.writes} == {"sleep"}, "nothing comes back by an order that lasted no time"


async def test_a_cancellation_in_the_middle_of_shedding_ends_it_and_keeps_what_is_shed(core: Core) -> None:
    order = await core.give("limit", limit_w=37_000, ramp_w_per_min=2 * MACHINE_W)
    await core.until(lambda: core.plant.asleep)
    assert order.state in {S.EXECUTING, S.VERIFYING}
    assert (await core.send(core.order("cancel", target=order.id)))["state"] == "validated"
    asleep = set(core.plant.asleep)
    await core.pass_time(240, step_s=2)
    assert core.plant.asleep == asleep
    assert order.id in core.journal.live, "what it took stays its own until a release"
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert core.plant.net_w == ALL_W


# who signed ----------------------------------------------------------------------------------------------------------


async def test_after_saon_two_keys_of_one_person_open_nothing(core: Core) -> None:
    order = await held(core)
    await core.gates.set_saon_lock("stage 1")
    spare = SigningKey.generate()
    core.keys = register(core.people, issuers=(issuer(core.people.dispatcher, "aru"), issuer(spare, "aru")))
    answer = await core.send(core.order("release", target=order), core.people.dispatcher, spare)
    assert (answer["state"], answer["code"]) == ("rejected", "locked")
    twice = sealed(core.order("release", target=order), core.people.dispatcher)
    doubled = twice.replace(b'"signatures":[', b'"signatures":[' + signature_of(twice) + b",")
    await core.reception.take(doubled, False)
    assert (await core.answers())[-1]["state"] == "rejected"
    await core.pass_time(20)
    assert core.plant.net_w <= LIMIT_W


def signature_of(raw: bytes) -> bytes:
    start = raw.index(b'"signatures":[') + len(b'"signatures":[')
    return raw[start : raw.index(b"}", start) + 1]


async def test_of_two_signatures_a_bad_one_spoils_the_order(core: Core) -> None:
    order = await held(core)
    await core.gates.set_saon_lock("stage 1")
    release = core.order("release", target=order)
    envelope = open_envelope(
        sealed(release, core.people.dispatcher, core.people.second), expected_type=ORDER_TYPE, max_bytes=32_768
    )
    (first, good), (second, sig) = envelope.signatures
    torn = type(envelope)(ORDER_TYPE, envelope.payload, ((first, good), (second, sig[:-1] + bytes([sig[-1] ^ 1]))))
    await core.reception.take(torn.encode(), False)
    answer = (await core.answers())[-1]
    assert (answer["state"], answer["code"]) == ("rejected", "bad_signature")
    stranger = SigningKey.generate()
    answer = await core.send(core.order("release", target=order), core.people.dispatcher, stranger)
    assert answer["state"] == "rejected", "a second signature that nobody knows is none"
    await core.pass_time(20)
    assert core.plant.net_w <= LIMIT_W


# figures and bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "figure",
    [b"NaN", b"Infinity", b"-0", b"-1", b"1e400", b"5e4", b"50000.0", b'"50000"', b'"50 kW"', b"null", b"true", b"[]"],
    ids=lambda figure: figure.decode(),
)
async def test_a_power_that_is_no_whole_number_of_watts_moves_nothing(core: Core, figure: bytes) -> None:
    core.plant.forbidden = True
    order = core.order("limit", limit_w=LIMIT_W)
    await core.reception.take(forged(core, order, b'"limit_w":50000', b'"limit_w":' + figure), False)
    answer = (await core.answers())[-1]
    assert (answer["state"], answer["code"]) == ("rejected", "format")
    await core.pass_time(20)


@pytest.mark.parametrize("field", [b"limit_kw", b"limit_mw", b"limit"])
async def test_a_power_in_another_unit_is_an_unknown_field(core: Core, field: bytes) -> None:
    core.plant.forbidden = True
    order = core.order("limit", limit_w=LIMIT_W)
    await core.reception.take(forged(core, order, b'"limit_w":50000', b'"%s":50' % field), False)
    assert (await core.answers())[-1]["code"] == "format"
    await core.pass_time(20)


@pytest.mark.parametrize(("watts", "target_w"), [(50, EMERGENCY_W), (50_000_000, 50_000_000)], ids=["as kW", "as mW"])
async def test_a_figure_that_was_meant_otherwise_stays_between_reservation_and_no_effect(
    core: Core, watts: int, target_w: int
) -> None:
    answer = await core.send(core.order("limit", limit_w=watts))
    assert answer["target_w"] == target_w
    assert f"target {target_w / 1000:.1f} kW" in answer["text"], "the answer says what was understood"
    await core.pass_time(60)
    assert core.plant.net_w >= BASE_W
    assert {kind for kind, _ in core.plant.writes} <= {"sleep"}


async def test_an_envelope_that_ends_early_moves_nothing(core: Core) -> None:
    core.plant.forbidden = True
    raw = sealed(core.order("stop"), core.people.dispatcher)
    for end in range(0, len(raw), 37):
        await core.reception.take(raw[:end], False)
    assert set(core.reception.refused) == {"format"}
    assert core.journal.live == {}
    await core.pass_time(5)


# two orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict_first", [True, False])
@pytest.mark.parametrize("priorities", [(5, 5), (9, 0), (0, 9)])
async def test_of_two_dispatchers_the_stricter_holds_whoever_came_first_and_whatever_the_priority(
    core: Core, strict_first: bool, priorities: tuple[int, int]
) -> None:
    strict = core.order("limit", limit_w=42_000, priority=priorities[0])
    loose = core.order("limit", limit_w=54_000, priority=priorities[1])
    given = [(strict, core.people.dispatcher), (loose, core.people.second)]
    for order, key in given if strict_first else reversed(given):
        answer = await core.send(order, key)
        assert answer["state"] == "validated", answer
        await core.until_state(core.journal.live[order.id], S.HOLDING)
    for _ in range(30):
        await core.step(2)
        assert core.plant.net_w <= 42_000
    told = {o.id: [e["text"] for e in await core.effects(o.id)] for o, _ in given}
    assert any(strict.id in text for text in told[loose.id])
    assert any(loose.id in text for text in told[strict.id])
