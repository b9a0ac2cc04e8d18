"""Unsigned messages: readable by older and newer sides, bounded, and wrong ones are refused by the field's name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import WireError
from wire.messages import (
    MAX_MESSAGE,
    Commit,
    Heads,
    Inventory,
    Live,
    Message,
    Progress,
    State,
    Want,
    decode,
    to_json,
)

AT = 1_795_000_000_000
HEAD: dict[str, Any] = {"v": 1, "site": "kz-01", "epoch": "e1-0a0b0c0d"}
EXAMPLES: list[tuple[type[Message], dict[str, Any]]] = [
    (
        State,
        HEAD | {"online": True, "boot": "b1", "agent_version": "1.0", "mode": "armed", "simulation": True, "at": AT},
    ),
    (Heads, HEAD | {"boot": "b1", "at": AT, "streams": {"cmd": {"count": 2, "last": "ab" * 32}}, "log_size": 2}),
    (Commit, HEAD | {"at": AT, "streams": [{"stream": "cmd", "ranges": [{"first": 0, "last": 1}]}], "state_at": AT}),
    (Want, HEAD | {"stream": "cmd", "first": 0, "last": 9}),
    (Live, HEAD | {"boot": "b1", "at": AT, "net_w": -5, "points": {"M0": 5, "M1": None}, "alarms": ["a"]}),
    (Progress, HEAD | {"signed": False, "order": "x", "state": "holding", "flags": ["drill"], "at": AT}),
    (
        Inventory,
        HEAD | {"at": AT, "devices": [{"id": "em-0", "kind": "meter", "profile": "p"}], "outputs": {"KM1": True}},
    ),
]
STATE = EXAMPLES[0][1]
LIVE = EXAMPLES[4][1]


@pytest.mark.parametrize(("model", "document"), EXAMPLES, ids=lambda value: getattr(value, "__name__", ""))
def test_messages_come_back_and_unknown_fields_are_passed_over(model: type[Message], document: dict[str, Any]) -> None:
    found = decode(model, to_json(document))
    assert decode(model, found.encode()) == found
    assert decode(model, to_json(document | {"from_a_newer_side": {"x": [1]}})) == found
    told = json.loads(found.encode())
    for name, value in document.items():
        if name != "points":
            assert told[name] == value or name in {"streams", "devices"}


def test_unknown_is_null_and_stays_null_in_maps() -> None:
    found = decode(Live, to_json(LIVE))
    assert found.points == {"M0": 5, "M1": None}
    assert decode(Live, found.encode()).points["M1"] is None
    assert found.mining_w is None
    assert b"mining_w" not in found.encode()


@pytest.mark.parametrize("name", ["site", "epoch"])
@pytest.mark.parametrize(("model", "document"), EXAMPLES, ids=lambda value: getattr(value, "__name__", ""))
def test_every_message_names_its_site_and_epoch(model: type[Message], document: dict[str, Any], name: str) -> None:
    for bad in ({k: v for k, v in document.items() if k != name}, document | {name: "X"}, document | {name: None}):
        with pytest.raises(WireError, match=f"{model.__name__} {name}"):
            decode(model, to_json(bad))


@pytest.mark.parametrize(
    ("model", "document", "because"),
    [
        (State, STATE | {"v": 2}, "State v"),
        (State, STATE | {"mode": "off"}, "State mode"),
        (State, STATE | {"boot": ""}, "State boot"),
        (State, STATE | {"boot": "b" * 129}, "State boot"),
        (State, STATE | {"at": -1}, "State at"),
        (State, STATE | {"at": 2**53}, "State at"),
        (State, STATE | {"at": 1.5}, "State at"),
        (State, STATE | {"online": None}, "State online"),
        (State, STATE | {"site": "kz-01\n"}, "State site"),
        (Live, LIVE | {"net_w": "many"}, "Live net_w"),
        (Live, LIVE | {"points": {str(i): 1 for i in range(2001)}}, "Live points"),
        (Live, LIVE | {"points": {"": 1}}, "Live points"),
        (Live, LIVE | {"points": {"x" * 129: 1}}, "Live points"),
        (Live, LIVE | {"alarms": ["a"] * 201}, "Live alarms"),
        (Progress, EXAMPLES[5][1] | {"signed": True}, "Progress signed"),
        (Progress, EXAMPLES[5][1] | {"state": "sleeping"}, "Progress state"),
        (Progress, EXAMPLES[5][1] | {"flags": ["tired"]}, "Progress flags"),
        (Progress, EXAMPLES[5][1] | {"text": "x" * 501}, "Progress text"),
        (Commit, EXAMPLES[2][1] | {"streams": [{"stream": "cmd", "ranges": [{"first": 1}]}]}, "Commit streams"),
        (
            Commit,
            EXAMPLES[2][1] | {"streams": [{"stream": "cmd", "ranges": [{"first": 0, "last": 1}] * 1001}]},
            "Commit streams",
        ),
        (Want, EXAMPLES[3][1] | {"first": -1}, "Want first"),
        (
            Inventory,
            EXAMPLES[6][1] | {"devices": [{"id": "x", "kind": "toaster", "profile": "p"}]},
            "Inventory devices",
        ),
        (Heads, EXAMPLES[1][1] | {"streams": {"cmd": {"count": -1}}}, "Heads streams"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_wrong_fields_are_named(model: type[Message], document: dict[str, Any], because: str) -> None:
    with pytest.raises(WireError, match=because):
        decode(model, to_json(document))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 200_000,
        b'{"points":' * 20_000,
        to_json(LIVE).replace(b"-5", b"9" * 5000),
        to_json(LIVE).replace(b'"a"', b'"\\ud800"'),
        to_json(LIVE).replace(b'"a"', b'"\xff"'),
    ],
    ids=lambda raw: "bytes",
)
def test_hostile_bytes_are_refused(raw: bytes) -> None:
    for model, _ in EXAMPLES:
        with pytest.raises(WireError) as caught:
            decode(model, raw)
        assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("figure", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"5.5", b'"five"', b"[]"])
def test_watts_are_whole_finite_numbers(figure: bytes) -> None:
    with pytest.raises(WireError, match="Live net_w"):
        decode(Live, to_json(LIVE).replace(b"-5", figure))


def test_size_is_judged_first() -> None:
    with pytest.raises(WireError, match=f"State of {MAX_MESSAGE + 1} bytes"):
        decode(State, b"x" * (MAX_MESSAGE + 1))
    with pytest.raises(WireError, match="at most 5"):
        decode(State, b"x" * 6, max_bytes=5)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_messages_are_refused_or_readable(data: st.DataObject) -> None:
    model, document = data.draw(st.sampled_from(EXAMPLES))
    raw = bytearray(to_json(document))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        found = decode(model, bytes(raw))
    except WireError:
        return
    assert decode(model, found.encode()) == found
