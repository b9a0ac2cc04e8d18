"""The register: consistent in itself, signed by the registrar, and never a ground for anything but a named refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wire import canonical
from wire.dsse import KEYS_TYPE, ORDER_TYPE, seal
from wire.errors import WireError
from wire.keys import SigningKey, b64
from wire.registry import KeysDocument, open_keys, sign_keys

REGISTRAR, K1, K2, K_REC, K_LOG = (SigningKey.generate() for _ in range(5))
NOW = 1_795_000_000_000
LOW_ORDER = b64((1).to_bytes(32, "little"))
NOT_CANONICAL = b64(b"\xff" * 32)


def issuer(key: SigningKey, person: str) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "key": key.public.text,
        "person": person,
        "rights": ["limit", "release"],
        "sites": ["kz-01"],
        "solo_w": 500_000,
        "valid_from": NOW,
        "valid_to": NOW + 10**9,
    }


def person(name: str) -> dict[str, Any]:
    return {"id": name, "name": name.title(), "organisation": "SO", "role": "system_operator"}


def site(name: str = "kz-01", **change: Any) -> dict[str, Any]:
    epoch = {"epoch": "e1-0a0b0c0d", "k_rec": K_REC.public.text, "k_log": K_LOG.public.text}
    base = {"id": name, "zone": "north", "contracted_w": 5_000_000, "emergency_w": 300_000, "slot_s": 900}
    return base | {"epochs": [epoch], "points": [{"id": "M0", "role": "commercial", "boundary": True}]} | change


def register(**change: Any) -> dict[str, Any]:
    base = {
        "v": 1,
        "version": 7,
        "issued_at": NOW,
        "persons": [person("aigul"), person("daniyar")],
        "issuers": [issuer(K1, "aigul"), issuer(K2, "daniyar")],
        "sites": [site()],
    }
    return base | change


def signed(document: Any, *keys: SigningKey, kind: str = KEYS_TYPE) -> bytes:
    payload = document if isinstance(document, bytes) else canonical.encode(document)
    return seal(kind, payload, *(keys or (REGISTRAR,))).encode()


def opened(document: Any) -> KeysDocument:
    return open_keys(signed(document), [REGISTRAR.public])[0]


def test_a_register_is_read_back_as_signed() -> None:
    document = opened(register())
    again, envelope = open_keys(sign_keys(document, REGISTRAR), {REGISTRAR.kid: REGISTRAR.public})
    assert again == document
    assert envelope.payload == document.encode()


def test_what_the_register_answers() -> None:
    document = opened(
        register(
            revoked=[{"kid": K2.kid, "at": NOW + 5, "reason": "lost"}, {"kid": K2.kid, "at": NOW, "reason": "stolen"}]
        )
    )
    found = document.site("kz-01")
    assert found is not None
    assert (found.zone, found.points[0].ct_num, found.technological_w) == ("north", 1, 0)
    assert document.site("kz-02") is None
    known = document.issuer(K1.kid)
    assert known is not None
    assert known.person == "aigul"
    assert document.issuer("0" * 16) is None
    named = document.person("daniyar")
    assert named is not None
    assert named.name == "Daniyar"
    assert document.person("nobody") is None
    assert document.revoked_at(K2.kid) == NOW
    assert document.revoked_at(K1.kid) is None
    assert document.verify_keys() == {K1.kid: K1.public, K2.kid: K2.public}
    assert document.record_keys("kz-01") == {"e1-0a0b0c0d": {K_REC.kid: K_REC.public}}
    assert document.record_keys("kz-02") == {}


def test_one_epoch_may_change_its_record_key() -> None:
    other = SigningKey.generate()
    entries = [
        {"epoch": "e1-0a0b0c0d", "k_rec": k.public.text, "k_log": K_LOG.public.text, "from_index": at}
        for k, at in ((K_REC, 0), (other, 500))
    ]
    keys = opened(register(sites=[site(epochs=entries)])).record_keys("kz-01")
    assert keys == {"e1-0a0b0c0d": {K_REC.kid: K_REC.public, other.kid: other.public}}


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"v": 2}, "v"),
        ({"v": True}, "v"),
        ({"version": 0}, "version"),
        ({"version": "7"}, "version"),
        ({"issued_at": 5}, "issued_at"),
        ({"extra": 1}, "extra"),
        ({"persons": [person("aigul")]}, "unknown person"),
        ({"persons": [person("aigul"), person("daniyar"), person("aigul")]}, "person is listed twice"),
        ({"persons": [person("aigul") | {"role": "owner"}]}, "role"),
        ({"issuers": [issuer(K1, "aigul"), issuer(K1, "daniyar")]}, "issuer is listed twice"),
        ({"issuers": [issuer(K1, "aigul") | {"kid": K2.kid}]}, "identifier"),
        ({"issuers": [issuer(K1, "aigul") | {"kid": "x"}]}, "kid"),
        ({"issuers": [issuer(K1, "aigul") | {"key": LOW_ORDER}]}, "low order"),
        ({"issuers": [issuer(K1, "aigul") | {"key": NOT_CANONICAL}]}, "canonical"),
        ({"issuers": [issuer(K1, "aigul") | {"key": "!" * 44}]}, "base64"),
        ({"issuers": [issuer(K1, "aigul") | {"key": K1.public.text[:-1]}]}, "key"),
        ({"issuers": [issuer(K1, "aigul") | {"rights": ["all"]}]}, "rights"),
        ({"issuers": [issuer(K1, "aigul") | {"solo_w": -1}]}, "solo_w"),
        ({"sites": [site(), site()]}, "site is listed twice"),
        ({"sites": [site(slot_s=901)]}, "slot_s"),
        ({"sites": [site(contracted_w=-1)]}, "contracted_w"),
        ({"sites": [site(points=[{"id": "M0", "role": "commercial", "ct_den": 0}])]}, "ct_den"),
        ({"sites": [site(epochs=[{"epoch": "e1-0a0b0c0d", "k_rec": LOW_ORDER, "k_log": K_LOG.public.text}])]}, "k_rec"),
        ({"sites": [site(epochs=[{"epoch": "e1-0a0b0c0d", "k_rec": "?" * 44, "k_log": K_LOG.public.text}])]}, "k_rec"),
        ({"revoked": [{"kid": K1.kid, "at": NOW}]}, "reason"),
    ],
    ids=lambda _value: "case",
)
def test_inconsistent_registers_are_refused_though_signed(change: dict[str, Any], because: str) -> None:
    with pytest.raises(WireError, match=because):
        opened(register(**change))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        signed(register(), K1),
        signed(register(), kind=ORDER_TYPE),
        signed(b""),
        signed(b"[]"),
        signed(b"{}"),
        signed(b'{"a":' * 20_000),
        signed(canonical.encode(register()) + b" "),
        signed(canonical.encode(register()).replace(b'"version":7', b'"version":7,"version":8')),
        signed(canonical.encode(register()).replace(b'"version":7', b'"version":7.0')),
        signed(register()).replace(b'"payload":"', b'"payload":"AAAA'),
    ],
    ids=[f"bad-{number}" for number in range(13)],  # the bytes themselves differ from run to run
)
def test_what_the_registrar_did_not_sign_or_no_register_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        open_keys(raw, [REGISTRAR.public])


def test_without_a_registrars_key_nothing_is_taken() -> None:
    with pytest.raises(WireError, match="no signature of a known key"):
        open_keys(signed(register()), [])


def test_a_second_registrars_signature_need_not_be_known() -> None:
    assert open_keys(signed(register(), K1, REGISTRAR), [REGISTRAR.public])[0].version == 7


def test_a_document_made_here_is_held_to_the_same_rules() -> None:
    good = opened(register())
    with pytest.raises(ValidationError, match="listed twice"):
        KeysDocument.model_validate(good.model_dump() | {"issuers": good.issuers * 2})


LEAVES = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8) | st.just(LOW_ORDER)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_signed_document_is_a_register_or_a_wire_error(data: st.DataObject) -> None:
    """One value anywhere in a good register is replaced by any other."""
    document = register()
    spot: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
        if isinstance(spot[key], dict | list) and spot[key] and data.draw(st.booleans()):
            spot = spot[key]
            continue
        spot[key] = data.draw(LEAVES | st.lists(LEAVES, max_size=2))
        break
    try:
        found = opened(document)
    except WireError:
        return
    found.verify_keys()
    found.record_keys("kz-01")


ZONE = {"id": "north", "max_step_w": 50_000_000, "max_ramp_w_per_min": 200_000_000}


def test_bounds_of_a_zone_are_read_back_and_a_zone_without_them_stays_legal() -> None:
    document = opened(register(zones=[ZONE | {"max_return_w_per_min": 20_000_000}, ZONE | {"id": "west"}]))
    north = document.zone("north")
    assert north is not None
    assert (north.max_step_w, north.max_return_w_per_min) == (50_000_000, 20_000_000)
    assert document.zone("south") is None
    assert open_keys(sign_keys(document, REGISTRAR), [REGISTRAR.public])[0] == document
    # A register without zones has the bytes it always had: older sides refuse fields they do not know.
    assert "zones" not in canonical.decode(opened(register()).encode())


@pytest.mark.parametrize(
    ("zones", "match"),
    [
        ([ZONE, ZONE], "zone is listed twice"),
        ([ZONE | {"max_step_w": -1}], "greater than or equal to 0"),
        ([ZONE | {"max_step": 1}], "Extra inputs"),
        ([{"id": "north", "max_step_w": 1}], "Field required"),
        ([ZONE | {"id": "no rth"}], "pattern"),
    ],
)
def test_bounds_of_zones_that_cannot_be_are_refused(zones: list[dict[str, Any]], match: str) -> None:
    with pytest.raises(WireError, match=match):
        opened(register(zones=zones))


def test_collectors_are_named_for_their_verdicts_and_for_nothing_else() -> None:
    own, gone = SigningKey.generate(), SigningKey.generate()
    collectors = [{"name": "Central", "key": own.public.text}, {"name": "Before", "key": gone.public.text}]
    revoked = [{"kid": gone.kid, "at": NOW, "reason": "replaced"}]
    document = opened(register(collectors=collectors, revoked=revoked))
    assert [k.public for k in document.log_keys("kz-01", "vee")] == [own.public.raw]
    assert {k.name for k in document.log_keys("kz-01", "vee")} == {"tizgin/kz-01/vee"}
    assert document.log_keys("kz-02", "vee") == []
    assert [k.public for k in document.log_keys("kz-01", "e1-0a0b0c0d")] == [K_LOG.public.raw]
    assert b"collectors" in document.encode()
    bare = opened(register())
    assert b"collectors" not in bare.encode(), "an older side reads a register that names none"
    assert bare.log_keys("kz-01", "vee") == []


@pytest.mark.parametrize("text", [K1.public.text, K_REC.public.text, K_LOG.public.text, LOW_ORDER, NOT_CANONICAL])
def test_a_collectors_key_serves_no_other_purpose(text: str) -> None:
    with pytest.raises(WireError, match="collector"):
        opened(register(collectors=[{"name": "Central", "key": text}]))


def test_a_collector_is_listed_once() -> None:
    twice = [{"name": name, "key": SigningKey.generate().public.text} for name in ("A", "B")]
    twice[1]["key"] = twice[0]["key"]
    with pytest.raises(WireError, match="listed twice"):
        opened(register(collectors=twice))
