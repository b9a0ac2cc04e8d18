"""Acts of people: a mode, a commissioning, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import canonical
from wire.acts import CommissioningAct, ModeAct, OutputTest, encode_act, open_act
from wire.dsse import ACT_TYPE, ORDER_TYPE, seal
from wire.errors import WireError
from wire.keys import SigningKey

K1, K2 = SigningKey.generate(), SigningKey.generate()
HEAD: dict[str, Any] = {
    "v": 1,
    "id": "019a0000-0000-7000-8000-000000000001",
    "site": "kz-01",
    "epoch": "e1-0a0b0c0d",
    "at": 1_795_000_000_000,
}
MODE = HEAD | {"ty": "mode", "mode": "armed", "reason": "commissioned"}
TEST: dict[str, Any] = {
    "output": "KM1",
    "fingerprint": "ab" * 32,
    "expected_w": 80_000,
    "seen_w": 79_500,
    "open_ms": 120,
    "stayed_open_s": 60,
    "meter": "M1",
}
COMMISSIONING = HEAD | {"ty": "commissioning", "outputs": [TEST]}


def act(document: Any, kind: str = ACT_TYPE) -> bytes:
    payload = document if isinstance(document, bytes) else canonical.encode(document)
    return seal(kind, payload, K1, K2).encode()


@pytest.mark.parametrize(
    "made",
    [
        ModeAct(**MODE),
        CommissioningAct(**HEAD, ty="commissioning", outputs=(OutputTest(**TEST),), note="in the rain"),
        CommissioningAct(**HEAD, ty="commissioning", outputs=(OutputTest(**TEST, others_moved=("M2",)),)),
    ],
    ids=["mode", "commissioning", "others moved"],
)
def test_acts_survive_the_round_trip_with_both_signatures(made: ModeAct | CommissioningAct) -> None:
    found, envelope = open_act(act(encode_act(made)))
    assert found == made
    assert envelope.verify({K1.kid: K1.public, K2.kid: K2.public}) == (K1.kid, K2.kid)


@pytest.mark.parametrize(
    ("document", "because"),
    [
        (MODE | {"mode": "off"}, "mode"),
        (MODE | {"reason": "x" * 501}, "reason"),
        (MODE | {"at": 5}, "at"),
        (MODE | {"v": True}, "v"),
        (MODE | {"id": "x"}, "id"),
        (MODE | {"ty": "other"}, "ty"),
        (MODE | {"ty": []}, "ty"),
        (MODE | {"outputs": [TEST]}, "outputs"),
        ({k: v for k, v in MODE.items() if k != "ty"}, "ty"),
        (COMMISSIONING | {"outputs": []}, "outputs"),
        (COMMISSIONING | {"outputs": [TEST] * 501}, "outputs"),
        (COMMISSIONING | {"outputs": [TEST | {"fingerprint": "AB" * 32}]}, "fingerprint"),
        (COMMISSIONING | {"outputs": [TEST | {"seen_w": -1}]}, "seen_w"),
        (COMMISSIONING | {"outputs": [TEST | {"seen_w": None}]}, "seen_w"),
        (COMMISSIONING | {"outputs": [{k: v for k, v in TEST.items() if k != "meter"}]}, "meter"),
        (COMMISSIONING | {"mode": "armed"}, "mode"),
        (b"", "act"),
        (b"[]", "act"),
        (b'{"ty":"mode","ty":"commissioning"}', "twice"),
        (b'{"a":' * 30_000, "act"),
    ],
    ids=lambda value: str(value)[-50:],
)
def test_malformed_acts_are_refused(document: Any, because: str) -> None:
    with pytest.raises(WireError, match=because):
        open_act(act(document))


def test_an_order_is_no_act() -> None:
    with pytest.raises(WireError, match="payload type"):
        open_act(act(MODE, ORDER_TYPE))


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_raise_nothing_but_a_wire_error(raw: bytes) -> None:
    for data in (raw, act(raw)):
        with pytest.raises(WireError):
            open_act(data)
