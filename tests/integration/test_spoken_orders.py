"""An order that is not delivered is called through: one history under one id, each word proven by who signed it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from grid.client import CentralClient
from grid.desk.desk import Desk
from grid.desk.pages import order_page, order_part
from grid.errors import ComposeError
from grid.keystore import create_key
from grid.texts import LANGUAGES, load_texts
from tests.integration.central_site import RunningCentral, Site, make_register, make_settings, now_ms, wait_for
from wire.dsse import SPOKEN_TYPE, seal
from wire.keys import SigningKey
from wire.names import origin
from wire.registry import Issuer, KeysDocument, open_keys, sign_keys
from wire.spoken import SpokenNote

SITE = "ekibastuz-1"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCentral]:
    registrar = SigningKey.generate()
    folder = tmp_path_factory.mktemp("spoken")
    running = RunningCentral(folder, make_settings(folder / "data", registrar, (SITE,)), registrar)
    running.start()
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def site(central: RunningCentral) -> Iterator[Site]:
    made = central.site(SITE)
    yield made
    made.close()


@pytest.fixture(scope="module")
def desk(central: RunningCentral, site: Site) -> Desk:
    key_file = central.folder / "me.pem"
    signer = create_key(key_file, None)
    document, _ = open_keys(make_register(central.registrar, {SITE: site.ledger.key}), [central.registrar.public])
    mine = Issuer(
        kid=signer.kid,
        key=signer.public.text,
        person="p1",
        rights=("limit", "release"),
        sites=(SITE,),
        valid_from=1_700_000_000_000,
        valid_to=9_000_000_000_000,
    )
    document = KeysDocument.model_validate(document.model_dump() | {"issuers": (mine.model_dump(),)}, strict=False)
    raw = sign_keys(document, central.registrar)
    assert httpx.put(central.url + "/api/v1/keys", content=raw, headers=JSON).status_code == 200
    return Desk(client=CentralClient(central.url), signer=signer, key_file=key_file, register=document, now_ms=now_ms)


def sign_one(desk: Desk, **fields: str) -> str:
    form = {"site": SITE, "action": "limit", "limit_kw": "3000", "dispatch_no": "417"} | fields
    return desk.sign(desk.compose(form))


@pytest.fixture(scope="module")
def waiting(desk: Desk) -> str:
    """An order for a site that is not connected; its ten seconds pass while other tests run."""
    return sign_one(desk, limit_kw="3000.05")


def test_the_note_is_kept_once_and_by_dispatchers_of_this_site_alone(
    central: RunningCentral, desk: Desk, waiting: str
) -> None:
    del waiting
    order, other = sign_one(desk), sign_one(desk)
    now = now_ms()
    fields: dict[str, Any] = {
        "v": 1,
        "order": order,
        "site": SITE,
        "given_by": "B",
        "taken_by": "A",
        "at": now,
        "text": "",
    }

    def post(raw: bytes, to: str = order) -> tuple[int, str]:
        answer = httpx.post(f"{central.url}/api/v1/orders/{to}/spoken", content=raw, headers=JSON)
        return answer.status_code, answer.json().get("detail", "")

    def note(key: SigningKey, **changes: Any) -> bytes:
        return seal(SPOKEN_TYPE, SpokenNote.model_validate(fields | changes).encode(), key).encode()

    key = desk._signer
    assert post(note(key))[0] == 201
    assert post(note(key))[0] == 200
    assert post(note(SigningKey.generate()))[0] == 422
    assert "speaks of" in post(note(key, order=other))[1]
    assert "speaks of" in post(note(key), to=other)[1]
    assert "no right at site" in post(note(key, site="pavlodar-2"))[1]
    assert post(note(key, at=now + 3_600_000))[0] == 422
    assert post(b"x" * 9000)[0] == 413
    assert post(b"{}")[0] == 422
    assert post(note(key), to="01a0c450-0000-7000-8000-000000000000")[0] == 404
    assert len(central.get(f"/api/v1/orders/{order}")["notes"]) == 1
    for number in range(19):
        assert post(note(key, text=str(number)))[0] == 201
    assert post(note(key, text="one too many"))[0] == 409
    with pytest.raises(ComposeError, match="taken_by"):
        desk.note(order, {"given_by": "B", "taken_by": ""})


def test_central_cannot_make_up_a_word(desk: Desk, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    order = sign_one(desk)
    stranger = SigningKey.generate()
    note = SpokenNote.model_validate(
        {"v": 1, "order": order, "site": SITE, "given_by": "B", "taken_by": "A", "at": now_ms(), "text": "yes"}
    )
    forged = base64.b64encode(seal(SPOKEN_TYPE, note.encode(), stranger).encode()).decode()
    said = {
        "v": 1,
        "log": origin(SITE, site.ledger.epoch),
        "st": "site",
        "n": 99,
        "p": "00" * 32,
        "a": None,
        "ty": "event",
    }
    said |= {"at": now_ms(), "mono": 1, "boot": "b", "clk": {"s": "S"}, "fw": "1"}
    said |= {"ev": "order_ack", "obj": order, "now": "acknowledged", "detail": {"who": "A. Serik"}}
    from wire.records import RecordLine

    another = sign_one(desk)
    wrong = [
        RecordLine.sign(said, stranger).encode().decode(),
        RecordLine.sign(said | {"obj": another}, site.ledger.key).encode().decode(),
        RecordLine.sign(said | {"ev": "switch_position"}, site.ledger.key).encode().decode(),
        7,
    ]
    doc = desk.client.order(order) | {"notes": [forged, "!", None], "words": wrong}
    monkeypatch.setattr(desk.client, "order", lambda _: doc)
    page = desk.order(order)
    assert page.words == ()
    assert len(page.story.refused) == 7


def test_a_drill_is_called_one_in_both_languages_everywhere(central: RunningCentral, desk: Desk) -> None:
    order = sign_one(desk, mode="drill")
    page = desk.order(order)
    for language in LANGUAGES:
        assert "УЧЕНИЕ / ОҚУ-ЖАТТЫҒУ" in order_page(desk, load_texts(language), page)
    from grid.desk.pages import draft_page, orders_part

    draft = desk.compose({"site": SITE, "action": "limit", "limit_kw": "3000", "mode": "drill"})
    waiting = desk.draft(draft)
    assert waiting is not None
    assert "УЧЕНИЕ / ОҚУ-ЖАТТЫҒУ" in draft_page(desk, load_texts("en"), draft, waiting)
    assert "УЧЕНИЕ / ОҚУ-ЖАТТЫҒУ" in orders_part(desk, load_texts("en"))
    assert central.get(f"/api/v1/orders/{order}")["mode"] == "drill"
    live = sign_one(desk)
    assert "УЧЕНИЕ" not in order_part(desk, load_texts("ru"), desk.order(live))


def test_an_undelivered_order_is_called_through_and_stays_one_history(
    central: RunningCentral, site: Site, desk: Desk, waiting: str
) -> None:
    order = waiting
    desk.sites()
    wait_for(lambda: desk.order(order).not_delivered, "ten seconds without a word of the site", 15)
    shown = {language: order_part(desk, load_texts(language), desk.order(order)) for language in LANGUAGES}
    for language, words in (("kk", "Қайталаңыз."), ("ru", "Повторите."), ("en", "Repeat back.")):
        page = shown[language]
        assert "+7 700 000 00 01" in page
        assert "417" in page
        assert words in page
    # A limit is said exactly: a rounded one would be another order.
    assert "Ограничить нагрузку до 3,00005 МВт." in shown["ru"]
    told = central.get(f"/api/v1/orders/{order}")
    assert told["not_delivered"] is True
    assert told["acknowledged"] is False
    assert [e["kind"] for e in told["history"]] == ["posted", "not_delivered"]

    desk.note(order, {"given_by": "Б. Омаров", "taken_by": "А. Серік", "recording_no": "4711", "text": "3,0 МВт"})
    site.come_online()
    detail: dict[str, Any] = {"who": "A. Serik", "given_by": "B. Omarov", "at": now_ms(), "recording": "4711"}
    detail |= {"text": "machines stopped by hand", "delivered": False}
    signed = desk.order(order).signed
    ledger = site.ledger
    lines = [
        ledger.add("site", "event", ev="spoken_order", obj=order, now="entered", detail=detail),
        ledger.add("cmd", "cmd_rx", id=order, digest=signed.digest, raw=None, rx=now_ms()),
        ledger.add(
            "cmd",
            "cmd_ack",
            **{"id": order, "state": "validated", "code": None, "text": "accepted", "order_mode": "live"},
            **{"agent_mode": "armed", "kids": [desk.kid], "seq": signed.order.seq},
        ),
        ledger.add("site", "event", ev="order_ack", obj=order, now="acknowledged", detail={"who": "A. Serik"}),
    ]
    site.send_lines(*lines)
    wait_for(lambda: len(central.get(f"/api/v1/orders/{order}")["history"]) == 7, "all words at central")
    told = central.get(f"/api/v1/orders/{order}")
    kinds = [e["kind"] for e in told["history"]]
    assert kinds == ["posted", "not_delivered", "spoken", "spoken_on_site", "answer", "answer", "acknowledged"]
    assert all(e["verified"] is True for e in told["history"][2:])
    assert told["acknowledged"] is True
    assert [e["at"] for e in told["history"]] == sorted(e["at"] for e in told["history"])

    page = desk.order(order)
    assert not page.not_delivered
    assert page.story.refused == []
    assert [w.kind for w in page.words] == ["spoken", "spoken_on_site", "acknowledged"]
    assert page.words[0].kid == desk.kid
    text = order_page(desk, load_texts("ru"), page)
    for said in ("передал Б. Омаров, принял А. Серік", "запись № 4711", "подтвердил на площадке: A. Serik"):
        assert said in text
