"""Intake: one row per reason of refusal, and what is accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.curtailment.intake import Context, Known, Verdict, judge
from tests.unit.agent_kit import (
    RIGHTS,
    START_MS,
    Core,
    People,
    SimClock,
    issuer,
    make_order,
    register,
    running_core,
    sealed,
)
from wire.dsse import ORDER_TYPE, Envelope
from wire.keys import SigningKey
from wire.orders import Hold, Order, parse_order
from wire.registry import KeysDocument, Revocation
from wire.states import Flag, OrderState, Reason, ended

EPOCH = "e1-0badcafe"
PEOPLE = People.make()
KEYS = register(PEOPLE)
NOW = START_MS
S = OrderState
TARGET = "01900000-0000-7000-8000-000000000001"


def context(**changes: Any) -> Context:
    fields: dict[str, Any] = {
        "site": "kz-small-1",
        "epoch": EPOCH,
        "genesis_ms": NOW - 3_600_000,
        "now_ms": NOW,
        "trusted_low_ms": NOW,
        "synchronised": True,
        "retained": False,
        "mode": "armed",
        "keys": KEYS,
        "last_seq": {},
        "known": {},
    }
    return Context(**(fields | changes))


def order(action: str = "limit", **changes: Any) -> Order:
    if action == "limit":
        changes = {"limit_w": 50_000, **changes}
    if action in {"release", "extend", "cancel"}:
        changes = {"target": TARGET, **changes}
    return make_order(SimClock(NOW), changes.pop("epoch", EPOCH), changes.pop("seq", 7), action, **changes)


def say(o: Order, ctx: Context | None = None, *keys: SigningKey) -> Verdict:
    return judge(parse_order(sealed(o, *(keys or (PEOPLE.dispatcher,)))), ctx or context())


def with_issuer(**changes: Any) -> KeysDocument:
    return register(PEOPLE, issuers=(issuer(PEOPLE.dispatcher, "aru", **changes), issuer(PEOPLE.second, "bek")))


BOTH_SIDES = (PEOPLE.dispatcher, PEOPLE.engineer)


def proof(*keys: SigningKey, **changes: Any) -> Verdict:
    fields: dict[str, Any] = {"feeders": ("KM1",), "not_before": NOW, "mode": "proof_test"}
    return say(order("open_feeders", **(fields | changes)), None, *(keys or BOTH_SIDES))


OLD = order()
CASES: dict[str, tuple[Reason, Callable[[], Verdict]]] = {
    "retained": (Reason.RETAINED, lambda: say(order(), context(retained=True))),
    "other site": (Reason.WRONG_SITE, lambda: say(order(site="kz-other"))),
    "other epoch": (Reason.WRONG_EPOCH, lambda: say(order(epoch="e2-0badcafe"))),
    "no register": (Reason.UNKNOWN_KEY, lambda: say(order(), context(keys=None))),
    "unknown key": (Reason.UNKNOWN_KEY, lambda: say(order(), None, SigningKey.generate())),
    "revoked": (
        Reason.REVOKED_KEY,
        lambda: say(
            order(),
            context(keys=register(PEOPLE, revoked=(Revocation(kid=PEOPLE.dispatcher.kid, at=NOW, reason="lost"),))),
        ),
    ),
    "one of two revoked": (
        Reason.REVOKED_KEY,
        lambda: say(
            order(),
            context(keys=register(PEOPLE, revoked=(Revocation(kid=PEOPLE.second.kid, at=NOW, reason="lost"),))),
            PEOPLE.dispatcher,
            PEOPLE.second,
        ),
    ),
    "not yet valid": (Reason.REVOKED_KEY, lambda: say(order(), context(keys=with_issuer(valid_from=NOW + 1)))),
    "no longer valid": (Reason.REVOKED_KEY, lambda: say(order(), context(keys=with_issuer(valid_to=NOW - 1)))),
    "no right": (
        Reason.NO_RIGHT,
        lambda: say(order(), context(keys=with_issuer(rights=tuple(r for r in RIGHTS if r != "limit")))),
    ),
    "a trip needs its own right": (
        Reason.NO_RIGHT,
        lambda: say(
            order("emergency_trip"),
            context(keys=with_issuer(rights=tuple(r for r in RIGHTS if r != "emergency_trip"))),
        ),
    ),
    "not this site": (Reason.NO_RIGHT, lambda: say(order(), context(keys=with_issuer(sites=("kz-other",))))),
    "not this zone": (
        Reason.NO_RIGHT,
        lambda: say(order(), context(keys=with_issuer(sites=(), zones=("almaty",)))),
    ),
    "same id, other bytes": (
        Reason.ID_REUSE,
        lambda: say(OLD, context(known={OLD.id: Known("0" * 64, S.HOLDING)})),
    ),
    "an old number": (Reason.OLD_SEQ, lambda: say(order(seq=7), context(last_seq={PEOPLE.dispatcher.kid: 7}))),
    "before genesis": (Reason.BEFORE_GENESIS, lambda: say(order(), context(genesis_ms=NOW + 1))),
    "from the future": (
        Reason.FUTURE,
        lambda: say(order(issued_at=NOW + 60_001, execute_by=NOW + 90_000, expires_at=NOW + 90_000)),
    ),
    "too late to begin": (Reason.EXPIRED, lambda: say(order(execute_by=NOW), context(trusted_low_ms=NOW + 1))),
    "a release at an unsure clock by one person": (
        Reason.CLOCK,
        lambda: say(order("release"), context(synchronised=False)),
    ),
    "an old release": (
        Reason.STALE_RELEASE,
        lambda: say(order("release", expires_at=NOW + 3_600_000), context(now_ms=NOW + 600_001)),
    ),
    "monitor": (Reason.MODE, lambda: say(order(), context(mode="monitor"))),
    "a proof test of a limit": (Reason.FORMAT, lambda: say(order(mode="proof_test"), None, *BOTH_SIDES)),
    "a proof test of two feeders": (Reason.FORMAT, lambda: proof(feeders=("KM1", "KM2"))),
    "a proof test without a window": (Reason.FORMAT, lambda: proof(not_before=None)),
    "a proof test of a whole day": (
        Reason.FORMAT,
        lambda: proof(execute_by=NOW + 86_000_000, expires_at=NOW + 87_000_000),
    ),
    "a proof test of the grid alone": (Reason.TWO_PERSONS, lambda: proof(PEOPLE.dispatcher, PEOPLE.second)),
    "a proof test of the site alone": (Reason.TWO_PERSONS, lambda: proof(PEOPLE.engineer)),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str) -> None:
    reason, verdict = CASES[case]
    found = verdict()
    assert found.reason is reason, found.text
    assert not found.accepted
    assert found.text


@pytest.mark.parametrize("state", list(S))
def test_the_same_order_again(state: OrderState) -> None:
    """Live: the same answer again. Finished: a replay."""
    digest = parse_order(sealed(OLD, PEOPLE.dispatcher)).digest
    found = say(OLD, context(known={OLD.id: Known(digest, state)}, last_seq={PEOPLE.dispatcher.kid: 99}))
    if ended(state):
        assert found.reason is Reason.REPLAY
    else:
        assert found.duplicate
    assert not found.accepted


@pytest.mark.parametrize(
    ("made", "ctx", "flags"),
    [
        (order, {}, set()),
        (lambda: order(seq=8), {"last_seq": {PEOPLE.dispatcher.kid: 7}}, set()),
        (lambda: order(seq=1), {"last_seq": {PEOPLE.second.kid: 7}}, set()),
        (lambda: order(issued_at=NOW + 60_000), {}, set()),
        (lambda: order(execute_by=NOW), {}, set()),
        (order, {"mode": "shadow"}, set()),
        (lambda: order(mode="drill"), {"mode": "monitor"}, {Flag.DRILL}),
        (order, {"synchronised": False}, {Flag.CLOCK_SUSPECT}),
        (order, {"synchronised": False, "now_ms": NOW - 10**9}, {Flag.CLOCK_SUSPECT}),
        (order, {"keys": with_issuer(sites=(), zones=("karaganda",))}, set()),
        (lambda: order("release"), {"now_ms": NOW + 600_000}, set()),
        (lambda: order("cancel"), {"synchronised": False}, {Flag.CLOCK_SUSPECT}),
    ],
)
def test_accepted(made: Callable[[], Order], ctx: dict[str, Any], flags: set[Flag]) -> None:
    found = say(made(), context(**ctx))
    assert found.accepted, found.text
    assert found.flags == flags
    assert found.kids == (PEOPLE.dispatcher.kid,)
    assert found.persons == ("aru",)


def test_two_persons_release_at_an_unsure_clock() -> None:
    found = say(order("release"), context(synchronised=False), PEOPLE.dispatcher, PEOPLE.second)
    assert found.accepted
    assert found.persons == ("aru", "bek")


def test_two_keys_of_one_person_are_one_person() -> None:
    spare = SigningKey.generate()
    keys = register(PEOPLE, issuers=(issuer(PEOPLE.dispatcher, "aru"), issuer(spare, "aru")))
    found = say(order("release"), context(synchronised=False, keys=keys), PEOPLE.dispatcher, spare)
    assert found.reason is Reason.CLOCK


def test_a_shed_with_the_wall_clock_behind_is_judged_by_what_is_trusted() -> None:
    """The wall clock may be wrong in either direction; only the trusted bound makes a shed too late."""
    late = context(synchronised=False, now_ms=NOW + 10**9, trusted_low_ms=NOW)
    assert say(order(), late).accepted


@pytest.mark.parametrize("part", ["payload", "signature", "type"])
def test_any_change_breaks_the_signature(part: str) -> None:
    signed = parse_order(sealed(OLD, PEOPLE.dispatcher))
    kid, sig = signed.envelope.signatures[0]
    payload = OLD.model_copy(update={"limit_w": 49_999}).encode() if part == "payload" else signed.envelope.payload
    if part == "signature":
        sig = sig[:-1] + bytes([sig[-1] ^ 1])
    if part == "type":
        sig = PEOPLE.dispatcher.sign(b"DSSEv1 1 x %d %s" % (len(payload), payload))
    found = judge(parse_order(Envelope(ORDER_TYPE, payload, ((kid, sig),)).encode()), context())
    assert found.reason is Reason.BAD_SIGNATURE


@given(st.integers(0, 300), st.integers(0, 255))
def test_no_flipped_byte_of_an_envelope_is_accepted_as_another_order(at: int, mask: int) -> None:
    from wire.errors import BadOrder

    raw = bytearray(sealed(OLD, PEOPLE.dispatcher))
    position = at * len(raw) // 301
    raw[position] ^= mask
    try:
        signed = parse_order(bytes(raw))
    except BadOrder:
        return
    found = judge(signed, context())
    assert not found.accepted or signed.order == OLD


# reception -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


async def test_the_order_and_the_decision_are_one_transaction_before_anything_follows(core: Core) -> None:
    o = core.order("limit", limit_w=70_000)
    answer = await core.send(o)
    received = (await core.records("cmd_rx"))[-1]
    assert received["id"] == answer["id"] == o.id
    assert received["digest"] == parse_order(sealed(o, core.people.dispatcher)).digest
    assert received["n"] + 1 == answer["n"]
    assert answer["target_w"] == 70_000
    assert answer["before_w"] == core.plant.net_w
    rows = await core.ledger.read("SELECT was, now FROM transition WHERE order_id=? LIMIT 1", o.id)
    assert rows == [(None, "validated")]


async def test_a_refusal_is_recorded_with_what_came(core: Core) -> None:
    answer = await core.send(core.order("limit", limit_w=1), SigningKey.generate())
    assert (answer["state"], answer["code"]) == ("rejected", "unknown_key")
    assert (await core.records("cmd_rx"))[-1]["raw"] is not None
    assert core.journal.live == {}


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"payloadType":"x","payload":"","signatures":[]}',
        b"x" * 40_000,
        b'{"payloadType":"application/vnd.tizgin.order.v1+json","payload":"e30=","signatures":[{"keyid":"'
        + b"\\ud800" * 16
        + b'","sig":"AAAA"}]}',
        b'{"payloadType":"\\ud800","payload":"e30=","signatures":[{"keyid":"0123456789abcdef","sig":"AAAA"}]}',
    ],
    ids=range(8),
)
async def test_junk_gets_an_answer_and_does_no_harm(core: Core, junk: bytes) -> None:
    await core.reception.take(junk, False)
    answer = (await core.answers())[-1]
    assert (answer["state"], answer["code"], answer["id"]) == ("rejected", "format", None)
    raw = (await core.records("cmd_rx"))[-1]["raw"]
    assert (raw is None) is (len(junk) > 8192)


async def test_a_key_name_that_cannot_be_written_is_recorded_all_the_same(core: Core) -> None:
    import json

    doc = json.loads(sealed(core.order("limit", limit_w=1), SigningKey.generate()))
    doc["signatures"][0]["keyid"] = "\ud800" * 16
    await core.reception.take(json.dumps(doc).encode(), False)
    assert (await core.answers())[-1]["state"] == "rejected"


async def test_a_flood_is_counted_not_recorded(core: Core) -> None:
    for number in range(50):
        await core.reception.take(b"junk %d" % number, False)
    assert len(await core.answers()) == 10
    assert core.reception.unrecorded == 40
    assert core.reception.refused == {"format": 50}
    core.clock.advance(61)
    await core.reception.take(b"junk", False)
    assert len(await core.answers()) == 11


async def test_a_flood_of_junk_does_not_keep_an_order_out(core: Core) -> None:
    for number in range(50):
        await core.reception.take(b"junk %d" % number, False)
    assert (await core.send(core.order("limit", limit_w=70_000)))["state"] == "validated"


async def test_one_person_sheds_only_so_much_per_ten_minutes(core: Core) -> None:
    def keys() -> KeysDocument:
        return register(
            core.people,
            issuers=(issuer(core.people.dispatcher, "aru", solo_w=6_000), issuer(core.people.second, "bek", solo_w=0)),
        )

    core.keys = keys()
    net = core.plant.net_w
    assert (await core.send(core.order("limit", limit_w=net - 4_000)))["state"] == "validated"
    second = await core.send(core.order("limit", limit_w=net - 4_000))
    assert (second["state"], second["code"]) == ("rejected", "solo_limit")
    both = await core.send(core.order("limit", limit_w=40_000), core.people.dispatcher, core.people.second)
    assert both["state"] == "validated"
    core.clock.advance(601)
    await core.plant.publish(core.live)
    third = await core.send(core.order("limit", limit_w=core.plant.net_w - 4_000))
    assert third["state"] == "validated"


async def test_a_point_nobody_measures_is_refused(core: Core) -> None:
    answer = await core.send(core.order("limit", limit_w=1, measured_at="point:M99"))
    assert (answer["state"], answer["code"]) == ("rejected", "no_meter")


@pytest.mark.parametrize(("action", "target"), [("release", "all"), ("extend", TARGET)])
async def test_what_follows_no_order_is_refused(core: Core, action: str, target: str) -> None:
    hold = {"hold": Hold(until_released=True)} if action == "extend" else {}
    answer = await core.send(core.order(action, target=target, **hold))
    assert (answer["state"], answer["code"]) == ("rejected", "unknown_order")


def test_a_proof_test_names_one_feeder_a_window_and_has_both_sides_consent() -> None:
    assert proof().accepted


async def test_a_proof_test_opens_its_feeder_and_gives_it_back(core: Core) -> None:
    now = core.clock.now_ms()
    test = core.order("open_feeders", feeders=("KM1",), not_before=now, mode="proof_test")
    answer = await core.send(test, core.people.dispatcher, core.people.engineer)
    assert answer["state"] == "validated", answer
    live = core.journal.live[test.id]
    await core.until_state(live, S.HOLDING)
    assert [kind for kind, target in core.plant.writes if target == "KM1"] == ["open"]
    await core.release(live)
    await core.until(lambda: test.id not in core.journal.live)
    assert {target for kind, target in core.plant.writes if kind in {"open", "close"}} == {"KM1"}
