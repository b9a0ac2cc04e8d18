"""Orders: one document says one thing, and nothing inconsistent or hostile becomes an order."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wire import canonical
from wire.dsse import ACT_TYPE, ORDER_TYPE, Envelope, seal
from wire.errors import BadOrder
from wire.keys import SigningKey
from wire.orders import MAX_ORDER_BYTES, SHEDDING, Action, Order, parse_order, uuid7
from wire.registry import Right
from wire.states import Reason

KEY = SigningKey.generate()
NOW = 1_795_000_000_000
ID = "019a0000-0000-7000-8000-000000000001"
OTHER_ID = "019a0000-0000-7000-8000-000000000002"
HOLD = {"until_released": True}
LIMIT: dict[str, Any] = {
    "v": 1,
    "id": ID,
    "site": "kz-01",
    "epoch": "e1-0a0b0c0d",
    "seq": 1,
    "action": "limit",
    "limit_w": 1_000_000,
    "issued_at": NOW,
    "execute_by": NOW + 60_000,
    "expires_at": NOW + 3_600_000,
    "hold": HOLD,
    "basis": {"code": "deficit"},
}
AMOUNTS: dict[str, dict[str, Any]] = {
    "limit": {"limit_w": 5},
    "reduce": {"reduce_w": 5},
    "stop": {},
    "stage": {"stage": 3},
    "open_feeders": {"feeders": ["KM1"]},
    "schedule": {"hours": [7] * 24},
    "emergency_trip": {},
    "release": {"target": OTHER_ID},
    "extend": {"target": OTHER_ID},
    "cancel": {"target": OTHER_ID},
}


def order_of(action: str, /, **change: Any) -> dict[str, Any]:
    """A consistent document of an action, then changed; ``...`` takes a field away."""
    base = {k: v for k, v in LIMIT.items() if k != "limit_w"} | {"action": action} | AMOUNTS[action]
    if action in {"release", "cancel"}:
        base.pop("hold")
    return {k: v for k, v in (base | change).items() if v is not ...}


def envelope_of(document: Any) -> bytes:
    payload = document if isinstance(document, bytes) else canonical.encode(document)
    return seal(ORDER_TYPE, payload, KEY).encode()


def test_every_action_has_a_right_and_a_case_here() -> None:
    assert set(get_args(Action)) == set(AMOUNTS)
    assert set(get_args(Action)) <= set(get_args(Right))
    assert set(get_args(Right)) - set(get_args(Action)) == {"mode", "commission", "inspect", "declare", "mandate"}


@pytest.mark.parametrize("action", AMOUNTS)
def test_a_consistent_order_of_every_action_is_taken(action: str) -> None:
    raw = envelope_of(order_of(action))
    signed = parse_order(raw)
    assert signed.order.action == action
    assert signed.order.sheds == (action in SHEDDING)
    assert signed.raw == raw
    assert signed.envelope.verify({KEY.kid: KEY.public}) == (KEY.kid,)
    again = parse_order(envelope_of(signed.order.encode()))
    assert again.order == signed.order


@pytest.mark.parametrize("action", ["limit", "reduce"])
def test_limits_and_cuts_may_be_given_per_mille_of_the_contract(action: str) -> None:
    order = parse_order(envelope_of(order_of(action, limit_w=..., reduce_w=..., permille=400))).order
    assert order.permille == 400


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    # what it orders
    ("limit", {"limit_w": ...}, "exactly one"),
    ("limit", {"permille": 500}, "exactly one"),
    ("limit", {"reduce_w": 5}, "limit has no reduce_w"),
    ("reduce", {"reduce_w": ...}, "exactly one"),
    ("stop", {"limit_w": 5}, "stop has no limit_w"),
    ("stop", {"permille": 5}, "stop has no permille"),
    ("emergency_trip", {"feeders": ["KM1"]}, "emergency_trip has no feeders"),
    ("stage", {"stage": ...}, "exactly one"),
    ("stage", {"stage": 0}, "stage"),
    ("stage", {"stage": 33}, "stage"),
    ("open_feeders", {"feeders": ...}, "exactly one"),
    ("open_feeders", {"feeders": ["a b"]}, "feeders"),
    ("open_feeders", {"feeders": ["KM1"] * 201}, "feeders"),
    ("schedule", {"hours": [1] * 23}, "hours"),
    ("schedule", {"hours": [1] * 25}, "hours"),
    ("schedule", {"hours": [None] * 24}, "hours"),
    ("release", {"limit_w": 5}, "release has no limit_w"),
    ("limit", {"action": "heartbeat"}, "action"),
    # whom it follows
    ("release", {"target": ...}, "name a target"),
    ("extend", {"target": ...}, "name a target"),
    ("cancel", {"target": ...}, "name a target"),
    ("limit", {"target": OTHER_ID}, "name a target"),
    ("extend", {"target": "all"}, "only a release"),
    ("cancel", {"target": "all"}, "only a release"),
    ("release", {"target": "everything"}, "target"),
    # how long
    ("limit", {"hold": ...}, "hold"),
    ("extend", {"hold": ...}, "hold"),
    ("release", {"hold": HOLD}, "hold"),
    ("cancel", {"hold": HOLD}, "hold"),
    ("limit", {"hold": {}}, "exactly one"),
    ("limit", {"hold": {"until_released": False}}, "exactly one"),
    ("limit", {"hold": {"until": NOW, "until_released": True}}, "exactly one"),
    ("limit", {"hold": {"until_released": True, "restore_auto": True}}, "restore_auto"),
    ("limit", {"hold": {"until": 5}}, "until"),
    # when
    ("limit", {"issued_at": NOW + 60_001}, "issued_at"),
    ("limit", {"execute_by": NOW + 3_600_001}, "execute_by"),
    ("limit", {"expires_at": NOW - 1}, "expires_at"),
    ("limit", {"not_before": NOW + 60_001}, "not_before"),
    ("limit", {"issued_at": 1_500_000_000}, "issued_at"),
    ("limit", {"issued_at": "now"}, "issued_at"),
    ("limit", {"lease_s": 4}, "lease_s"),
    # who and which
    ("limit", {"id": "0" * 32}, "id"),
    ("limit", {"id": "019a0000-0000-4000-8000-000000000001"}, "id"),
    ("limit", {"id": ID.upper()}, "id"),
    ("limit", {"id": ID + "\n"}, "id"),
    ("limit", {"site": "KZ-01"}, "site"),
    ("limit", {"site": "-a"}, "site"),
    ("limit", {"site": "kz-01\n"}, "site"),
    ("limit", {"epoch": "e1"}, "epoch"),
    ("limit", {"epoch": "e1-0A0B0C0D"}, "epoch"),
    ("limit", {"seq": -1}, "seq"),
    ("limit", {"seq": "1"}, "seq"),
    ("limit", {"seq": True}, "seq"),
    ("limit", {"supersedes": "old"}, "supersedes"),
    ("limit", {"basis": ...}, "basis"),
    ("limit", {"basis": {}}, "basis.code"),
    ("limit", {"basis": {"code": "x", "text": "x" * 501}}, "basis.text"),
    ("limit", {"basis": {"code": "x", "attachment_sha256": "x"}}, "attachment"),
    # how
    ("limit", {"mode": "test"}, "mode"),
    ("limit", {"methods": ["sleep", "axe"]}, "methods"),
    ("limit", {"priority": 10}, "priority"),
    ("limit", {"escalation": {"to": "outlet"}}, "escalation"),
    ("limit", {"escalation": {"after_s": 0}}, "escalation"),
    ("limit", {"restore": {"stage_permille": 0}}, "restore"),
    ("limit", {"restore": {"min_mhz": 50}}, "restore"),
    ("limit", {"limit_w": -1}, "limit_w"),
    ("limit", {"limit_w": 10_000_000_001}, "limit_w"),
    ("limit", {"limit_w": "5"}, "limit_w"),
    ("limit", {"limit_w": True}, "limit_w"),
    ("limit", {"limit_w": ..., "permille": 1001}, "permille"),
    ("limit", {"measured_at": ""}, "measured_at"),
    ("limit", {"limit_basis": "year"}, "limit_basis"),
    # version and unknown fields
    ("limit", {"v": ...}, "v"),
    ("limit", {"v": 2}, "v"),
    ("limit", {"v": True}, "v"),
    ("limit", {"v": "1"}, "v"),
    ("limit", {"extra": 1}, "extra"),
    ("limit", {"hold": HOLD | {"extra": 1}}, "hold.extra"),
]


@pytest.mark.parametrize(("action", "change", "because"), BROKEN, ids=lambda value: str(value)[:50])
def test_inconsistent_orders_are_refused(action: str, change: dict[str, Any], because: str) -> None:
    with pytest.raises(BadOrder) as caught:
        parse_order(envelope_of(order_of(action, **change)))
    assert caught.value.code == Reason.FORMAT
    assert because in str(caught.value)


def test_not_before_may_be_the_last_moment() -> None:
    assert parse_order(envelope_of(order_of("limit", not_before=NOW + 60_000))).order.not_before == NOW + 60_000


REFS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,20}", fullmatch=True)
WATTS = st.integers(0, 10_000_000_000)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Consistent orders of every action with any of the optional fields."""
    action = draw(st.sampled_from(sorted(AMOUNTS)))
    amounts: dict[str, st.SearchStrategy[dict[str, Any]]] = {
        "limit": st.fixed_dictionaries({"limit_w": WATTS}),
        "reduce": st.fixed_dictionaries({"permille": st.integers(0, 1000)}),
        "stage": st.fixed_dictionaries({"stage": st.integers(1, 32)}),
        "open_feeders": st.fixed_dictionaries({"feeders": st.lists(REFS, max_size=5)}),
        "schedule": st.fixed_dictionaries({"hours": st.lists(WATTS, min_size=24, max_size=24)}),
        "release": st.fixed_dictionaries({"target": st.sampled_from([OTHER_ID, "all"])}),
    }
    base = order_of(action, **dict.fromkeys(AMOUNTS[action], ...)) if action in amounts else order_of(action)
    times = sorted(draw(st.lists(st.integers(NOW, NOW + 10**9), min_size=4, max_size=4)))
    optional = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "mode": st.sampled_from(["live", "drill", "proof_test"]),
                "measured_at": REFS,
                "tolerance_w": WATTS,
                "lease_s": st.integers(5, 86_400),
                "ramp_w_per_min": WATTS,
                "methods": st.lists(st.sampled_from(["sleep", "power_limit", "outlet", "switch"]), max_size=4),
                "escalation": st.fixed_dictionaries({"to": st.sampled_from(["none", "switch"])}),
                "restore": st.fixed_dictionaries({"ceiling_w": WATTS}),
                "priority": st.integers(0, 9),
                "supersedes": st.just(OTHER_ID),
                "basis": st.fixed_dictionaries({"code": REFS, "text": st.text(max_size=40)}),
                "seq": st.integers(0, 2**53 - 1),
            },
        )
    )
    drawn = draw(amounts[action]) if action in amounts else {}
    when = {"issued_at": times[0], "not_before": times[1], "execute_by": times[2], "expires_at": times[3]}
    return base | drawn | when | optional


@settings(max_examples=100, deadline=None)
@given(documents())
def test_orders_survive_the_round_trip(document: dict[str, Any]) -> None:
    first = parse_order(envelope_of(document))
    second = parse_order(envelope_of(first.order.encode()))
    assert second.order == first.order
    assert second.order.encode() == first.order.encode()
    told = json.loads(first.order.encode())
    for name, value in document.items():
        nested = isinstance(value, dict)
        assert (told[name] | value if nested else told[name]) == (told[name] if nested else value)


def test_the_digest_is_of_the_signed_payload() -> None:
    one, other = parse_order(envelope_of(LIMIT)), parse_order(envelope_of(LIMIT | {"seq": 2}))
    assert one.digest != other.digest
    assert len(one.digest) == 64


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\xff",
        b"{}",
        b"[" * 30_000,
        b'{"payloadType":' + b"[" * 900 + b"]" * 900 + b',"payload":"","signatures":[]}',
        seal(ACT_TYPE, canonical.encode(LIMIT), KEY).encode(),
        Envelope(ORDER_TYPE, canonical.encode(LIMIT), ()).encode(),
        envelope_of(b""),
        envelope_of(b"[]"),
        envelope_of(b"null"),
        envelope_of(b'{"v":1}'),
        envelope_of(json.dumps(LIMIT).encode()),
        envelope_of(canonical.encode(LIMIT).replace(b'"seq":1', b'"seq":1,"seq":1')),
        envelope_of(canonical.encode(LIMIT).replace(b'"seq":1', b'"seq":1.0')),
        envelope_of(canonical.encode(LIMIT).replace(b'"seq":1', b'"seq":1e400')),
        envelope_of(canonical.encode(LIMIT).replace(b'"seq":1', b'"seq":NaN')),
        envelope_of(canonical.encode(LIMIT).replace(b'"deficit"', b'"\\ud800"')),
        envelope_of(canonical.encode(LIMIT).replace(b'"seq":1', b'"seq":' + b"9" * 5000)),
        envelope_of(b'{"a":' * 4000),
        envelope_of(canonical.encode(LIMIT | {"basis": {"code": "x", "text": "x" * MAX_ORDER_BYTES}})),
    ],
    ids=lambda raw: "bytes",
)
def test_hostile_bytes_are_refused_as_a_bad_order(raw: bytes) -> None:
    with pytest.raises(BadOrder) as caught:
        parse_order(raw)
    assert caught.value.code == Reason.FORMAT
    assert len(str(caught.value)) < 600
    str(caught.value).encode()  # can be written into a record: no lone surrogate from the sender's text


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100) | st.recursive(st.none() | st.text() | st.floats(), st.lists, max_leaves=5))
def test_any_bytes_raise_nothing_but_a_bad_order(raw: Any) -> None:
    for data in (raw, envelope_of(raw)) if isinstance(raw, bytes) else (json.dumps(raw).encode(),):
        with pytest.raises(BadOrder):
            parse_order(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_anywhere_gives_a_bad_order_or_a_readable_one(data: st.DataObject) -> None:
    where = data.draw(st.sampled_from(["payload", "envelope"]))
    raw = bytearray(canonical.encode(LIMIT) if where == "payload" else envelope_of(LIMIT))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        signed = parse_order(envelope_of(bytes(raw)) if where == "payload" else bytes(raw))
    except BadOrder as error:
        str(error).encode()
        return
    assert canonical.encode(json.loads(signed.envelope.payload)) == signed.envelope.payload


def test_an_order_cannot_be_changed() -> None:
    order = parse_order(envelope_of(LIMIT)).order
    with pytest.raises(ValidationError):
        order.limit_w = 5  # type: ignore[misc]  # that is the point
    assert isinstance(order, Order)


def test_identifiers_are_version_7_and_rise_with_time() -> None:
    made = [uuid7(NOW + i) for i in range(50)]
    assert made == sorted(made)
    assert len({uuid7(NOW) for _ in range(100)}) == 100
    for identifier in made:
        assert parse_order(envelope_of(LIMIT | {"id": identifier})).order.id == identifier
    assert int(uuid7(NOW).replace("-", "")[:12], 16) == NOW
