"""Central in a stranger's hands, seen from the dispatcher's desk: every answer it gives is replaced, field by field."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from grid.client import CentralClient
from grid.desk import pages
from grid.desk.app import make_app
from grid.desk.desk import Desk
from grid.desk.security import Guard, Session
from grid.errors import GridError
from grid.keystore import create_key
from grid.progress import state_text
from grid.texts import load_texts
from grid.words import describe, headline
from wire.dsse import KEYS_TYPE, ORDER_TYPE, seal
from wire.keys import SigningKey
from wire.orders import Basis, Hold, Order, parse_order, uuid7
from wire.registry import Epoch, Issuer, KeysDocument, Person, RegisteredSite
from wire.states import OrderState

SITE, OTHER, EPOCH = "ekb-01", "pvl-02", "e2-0a1b2c3d"
NOW = 1_790_000_000_000
PORT = 4711
EVIL = "<script src=//evil.example/x.js></script>"
HOSTILE: dict[str, str] = {
    "markup": json.dumps(f"{EVIL}<img src=x onerror=alert(1)>"),
    "broken out of an attribute": json.dumps('"\' autofocus onfocus=alert(1) x="><svg onload=alert(1)>'),
    "an address": json.dumps("javascript:alert(1)"),
    "a path": json.dumps("../../evil?x#y"),
    "right to left": json.dumps("\u202eLLAC 007\u2066\u200b"),
    "lone surrogate": '"\\ud800"',
    "control characters": json.dumps("\x00\x1b[2J\r\nset-cookie: a=b"),
    "very long": json.dumps("A" * 100_000),
    "huge number": "9" * 400,
    "number without end": "9" * 5000,
    "huge float": "1e999",
    "NaN": "NaN",
    "minus": "-1",
    "fraction": "0.5",
    "true": "true",
    "null": "null",
    "list": "[[[[[]]]]]",
    "object": '{"id":{"id":"x"}}',
    "deep": "[" * 5000 + "]" * 5000,
}
"""Any JSON that may stand where a value is expected, as text."""


def order(action: str = "limit", **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "v": 1, "id": uuid7(NOW), "site": SITE, "epoch": EPOCH, "seq": 7, "action": action, "limit_w": 40_000_000,
        "issued_at": NOW, "execute_by": NOW + 600_000, "expires_at": NOW + 3_600_000, "hold": Hold(until_released=True),
        "basis": Basis(code="test"),
    }  # fmt: skip
    return Order(**(fields | changes))


@dataclass
class Evil:
    """Central's API under somebody else. ``answers`` is what it says, as JSON text."""

    answers: dict[str, str] = field(default_factory=dict)
    posted: list[bytes] = field(default_factory=list)

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.posted.append(request.read())
            return httpx.Response(200, content=self.answers["post"].encode())
        kind = request.url.path.removeprefix("/api/v1/").partition("/")[0]
        one = "order" if kind == "orders" and request.url.path.count("/") == 4 else kind
        return httpx.Response(200, content=self.answers[one].encode())


@dataclass
class Page(HTMLParser):
    """What a browser would find in a page."""

    html: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


ALLOWED = frozenset(
    [
        "html",
        "head",
        "meta",
        "link",
        "title",
        "body",
        "header",
        "h1",
        "h2",
        "a",
        "span",
        "details",
        "summary",
        "textarea",
        "form",
        "input",
        "button",
        "main",
        "section",
        "div",
        "p",
        "b",
        "code",
        "ol",
        "li",
        "table",
        "tr",
        "th",
        "td",
        "label",
        "select",
        "option",
        "script",
    ]
)


def check_page(html: str) -> None:
    """Nothing is loaded from elsewhere, nothing runs but the desk's own script."""
    for tag, attributes in Page(html).tags:
        assert tag in ALLOWED, tag
        assert not any(name.startswith("on") for name in attributes), attributes
        assert "style" not in attributes
        if tag == "script":
            assert attributes == {"src": "/desk.js", "defer": ""}
        for name in ("href", "src", "action", "data-part"):
            where = attributes.get(name, "/")
            assert where == "data:," or re.fullmatch(r"/(?!/)[A-Za-z0-9_./%-]*", where), where
    assert not re.search("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", html), "hidden characters"


@dataclass
class Case:
    """A desk before an evil central."""

    evil: Evil
    desk: Desk
    web: TestClient
    mine: Order
    theirs: Order

    def compose(self, **form: str) -> tuple[str, Order]:
        """A draft through the page; its path and the order that would be signed."""
        fields = {"site": SITE, "action": "limit", "kw": "38000", "hold_minutes": "60"} | form
        answer = self.web.post("/compose", data=fields, headers={"origin": f"http://127.0.0.1:{PORT}"})
        assert answer.status_code == 303, answer.text
        where = answer.headers["location"]
        found = self.desk.draft(where.rpartition("/")[2])
        assert found is not None
        return where, found

    def sign(self, where: str) -> None:
        answer = self.web.post(f"{where}/sign", headers={"origin": f"http://127.0.0.1:{PORT}"})
        assert answer.status_code == 303, answer.text


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    signer, other, rec = create_key(tmp_path / "me.pem", None), SigningKey.generate(), SigningKey.generate()
    epochs = (Epoch(epoch=EPOCH, k_rec=rec.public.text, k_log=SigningKey.generate().public.text),)
    register = KeysDocument(
        v=1, version=1, issued_at=NOW,
        persons=(Person(id="a", name="А. Серіков", organisation="KEGOC", role="system_operator"),),
        issuers=tuple(
            Issuer(kid=k.kid, key=k.public.text, person="a", rights=("limit", "release"), sites=(SITE, OTHER),
                   valid_from=NOW - 10**9, valid_to=NOW + 10**10)
            for k in (signer, other)
        ),
        sites=tuple(
            RegisteredSite(id=s, zone="n", contracted_w=10**8, emergency_w=10**6, slot_s=900, epochs=epochs)
            for s in (SITE, OTHER)
        ),
    )  # fmt: skip
    evil = Evil()
    client = CentralClient("http://central", transport=httpx.MockTransport(evil.handle))
    desk = Desk(client=client, signer=signer, key_file=tmp_path / "me.pem", register=register, now_ms=lambda: NOW)
    session = Session()
    theirs = order(site=OTHER)
    evil.answers = {
        kind: json.dumps(doc) for kind, doc in honest(theirs, seal(ORDER_TYPE, theirs.encode(), other)).items()
    }
    with TestClient(
        Guard(make_app(desk, session), session, PORT), base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False
    ) as web:
        assert web.get(f"/enter?token={session.token}").status_code == 200
        found = Case(evil, desk, web, theirs, theirs)
        where, found.mine = found.compose()
        found.sign(where)
        yield found


def honest(one: Order, envelope: Any) -> dict[str, Any]:
    """What a true central says, of every kind."""
    row = {
        "id": SITE, "name": {"kk": "Екібастұз", "ru": "Экибастуз", "en": "Ekibastuz"}, "power_w": 81_250_000,
        "age_ms": 1200, "freshness": "fresh", "limit_w": 90_000_000, "mode": "armed", "presence": "online",
        "epoch": EPOCH, "phone": "+7 700 000 00 00",
    }  # fmt: skip
    progress = {
        "state": "holding", "at": NOW, "power_w": 40_000_000, "flags": ["degraded"],
        "waiting_for": ["QF1"], "text": "x",
    }  # fmt: skip
    document = {
        "id": one.id, "envelope": base64.b64encode(envelope.encode()).decode(), "phone": "+7 700 000 00 00",
        "answers": ["TZR1|e30|0123456789abcdef|AAAA"], "progress": [progress],
    }  # fmt: skip
    return {
        "sites": [row],
        "proposals": [{"site": SITE, "action": "limit", "limit_w": 50_000_000, "minutes": 60, "note": "please"}],
        "orders": [{"id": one.id, "site": OTHER, "action": "limit"}],
        "order": document,
        "post": {"id": one.id},
    }


def places(doc: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, the whole first."""
    yield path
    for key, value in doc.items() if isinstance(doc, dict) else enumerate(doc) if isinstance(doc, list) else ():
        yield from places(value, (*path, key))


def replaced(doc: Any, path: tuple[Any, ...], text: str) -> str:
    """The document as JSON text with one place replaced by other JSON text."""
    mark = "\u241amark"
    if not path:
        return text
    changed = copy.deepcopy(doc)
    target = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = mark
    return json.dumps(changed, ensure_ascii=False).replace(json.dumps(mark, ensure_ascii=False), text)


def render(case: Case, kind: str) -> Iterator[str]:
    """Every page that asks central for this kind of answer."""
    desk, t = case.desk, load_texts(case.desk.language)
    if kind in {"sites", "proposals", "orders"}:
        yield pages.home(desk, t, None)
    if kind == "sites":
        yield pages.order_page(desk, t, desk.order(case.mine.id))
    if kind == "order":
        yield pages.order_page(desk, t, desk.order(case.mine.id))
        yield pages.target_part(desk, t, case.mine.id)
        with contextlib.suppress(GridError):  # an order of others may be refused; the page then says why
            yield pages.order_page(desk, t, desk.order(case.theirs.id))


@pytest.mark.parametrize("kind", ["sites", "proposals", "orders", "order"])
def test_no_value_in_any_answer_breaks_a_page_or_gets_into_it_raw(case: Case, kind: str) -> None:
    doc = json.loads(case.evil.answers[kind])
    for name, text in HOSTILE.items():
        for path in places(doc):
            case.evil.answers[kind] = replaced(doc, path, text)
            try:
                for html in render(case, kind):
                    html.encode()
                    check_page(html)
            except Exception as error:
                raise AssertionError(f"{name} at {path}: {error!r}") from error
        for where in ("/", f"/order/{case.mine.id}", f"/order/{case.theirs.id}"):
            answer = case.web.get(where)
            assert answer.status_code == 200 or (answer.status_code == 422 and case.theirs.id in where)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
    assert len(case.evil.posted) == 1, "nothing was signed or sent by looking"


@pytest.mark.parametrize("name", ["markup", "right to left", "huge number", "object"])
def test_what_is_signed_is_what_was_shown_whatever_central_says_meanwhile(case: Case, name: str) -> None:
    genuine = {kind: json.loads(text) for kind, text in case.evil.answers.items()}
    for kind, doc in genuine.items():
        for path in [p for p in places(doc) if len(p) <= 2]:
            case.evil.answers[kind] = replaced(doc, path, HOSTILE[name])
        where, meant = case.compose()
        shown = case.web.get(where)
        assert shown.status_code == 200
        check_page(shown.text)
        text = " ".join(Page(shown.text).text)
        t = load_texts(case.desk.language)
        assert headline(meant, t) in text
        for _, value in describe(meant, t, site_name=None, signers="")[1:]:
            assert value.partition(" (")[0] in text, value
        case.sign(where)
        sent = parse_order(case.evil.posted[-1])
        assert sent.order == meant
        assert (sent.order.site, sent.order.limit_w) == (SITE, 38_000_000)
        case.evil.answers[kind] = json.dumps(doc)


@pytest.mark.parametrize("kind", ["an order", "a register", "two proposals in one", "another site's"])
def test_a_proposal_is_never_more_than_fields_of_a_draft(case: Case, kind: str) -> None:
    strange = order("stop", site=OTHER, limit_w=None)
    envelope = seal(ORDER_TYPE, strange.encode(), SigningKey.generate()).encode().decode()
    good = {"site": SITE, "action": "limit", "limit_w": 50_000_000, "minutes": 60, "note": ""}
    row: dict[str, Any] = {
        "an order": json.loads(envelope) | {"envelope": envelope},
        "a register": json.loads(seal(KEYS_TYPE, b"{}", SigningKey.generate()).encode()),
        "two proposals in one": good | {"kw": "0", "epoch": "e9-00000000", "target": "all", "declaration": envelope},
        "another site's": good | {"site": OTHER},
    }[kind]
    case.evil.answers["proposals"] = json.dumps([row])
    html = case.web.get("/part/proposals").text
    check_page(html)
    hidden = {a["name"]: a["value"] for tag, a in Page(html).tags if tag == "input"}
    assert set(hidden) <= {"site", "action", "limit_kw", "reduce_kw", "hold_minutes"}
    if hidden:
        where, meant = case.compose(**hidden, kw="")
        assert (meant.site, meant.limit_w, meant.epoch) == (row["site"], 50_000_000, EPOCH)
        assert f"({meant.site})" in case.web.get(where).text or meant.site in case.web.get(where).text
    assert len(case.evil.posted) == 1


def swapped(case: Case) -> dict[str, Callable[[], str]]:
    """Another order, or another signature, where the desk asked for one."""
    theirs = json.loads(case.evil.answers["order"])
    forged = seal(ORDER_TYPE, case.mine.model_copy(update={"limit_w": 1}).encode(), SigningKey.generate()).encode()
    return {
        "another order": lambda: json.dumps(theirs),
        "other bytes under its id": lambda: json.dumps(theirs | {"envelope": base64.b64encode(forged).decode()}),
        "a page": lambda: json.dumps(EVIL),
    }


@pytest.mark.parametrize("kind", ["another order", "other bytes under its id", "a page"])
def test_an_order_signed_here_is_shown_from_here_whatever_central_shows(case: Case, kind: str) -> None:
    case.evil.answers["order"] = swapped(case)[kind]()
    html = case.web.get(f"/order/{case.mine.id}").text
    check_page(html)
    t = load_texts(case.desk.language)
    assert headline(case.mine, t) in html
    for state in (OrderState.HOLDING, OrderState.DONE, OrderState.VALIDATED):
        (shown,) = [a["data-state"] for _, a in Page(html).tags if a.get("data-testid") == "desk-state"]
        assert shown != state
    assert state_text("holding", t) not in html.split("desk-claim")[0]
    assert 'data-ok="false"' in html


def test_an_order_of_others_that_nobody_signed_is_shown_as_such(case: Case) -> None:
    forged = order(site=OTHER, id=case.theirs.id, limit_w=1)
    envelope = seal(ORDER_TYPE, forged.encode(), SigningKey.generate()).encode()
    doc = json.loads(case.evil.answers["order"]) | {"envelope": base64.b64encode(envelope).decode()}
    case.evil.answers["order"] = json.dumps(doc)
    t = load_texts(case.desk.language)
    html = case.web.get(f"/order/{case.theirs.id}").text
    assert t("THE ORDER ITSELF IS NOT PROPERLY SIGNED") in html
    assert 'data-ok="true"' not in html


def test_the_desk_s_own_files_name_no_other_place(case: Case) -> None:
    for name in ("/desk.css", "/desk.js"):
        text = case.web.get(name).text
        assert "://" not in text
        assert "//" not in re.sub(r"^//.*$", "", text, flags=re.MULTILINE)
        assert "@import" not in text
        assert "url(" not in text
        assert "eval" not in text
