"""Words of people on site at central: projected with their record, judged with it, replaced with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import Connection

from central.dispatch import view
from central.history import acknowledged, history
from central.store.database import make_engine
from central.store.evidence import Incoming, reverify, store
from central.store.orders import StoredOrder
from central.store.words import site_words
from tests.integration.central_site import Ledger
from wire.keys import SigningKey
from wire.orders import uuid7
from wire.records import parse_line

SITE = "ekb-1"
NOW = 1_795_000_000_000


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    engine = make_engine(database_url)
    with engine.begin() as made:
        yield made
    engine.dispose()


def put(connection: Connection, ledger: Ledger, line: bytes, verified: bool | None, site: str = SITE) -> None:
    record, doc = parse_line(line)
    store(connection, [Incoming(site, ledger.epoch, line, record, doc, verified)], NOW)


def order(order_id: str) -> StoredOrder:
    return StoredOrder(order_id, SITE, "e1-0badcafe", "limit", "0" * 64, b"{}", NOW, NOW + 60_000)


def test_a_word_is_judged_when_its_key_becomes_known(connection: Connection) -> None:
    ledger, order_id = Ledger(SITE, SigningKey.generate()), uuid7(NOW)
    line = ledger.add("site", "event", at=NOW, ev="order_ack", obj=order_id, now="acknowledged", detail={"who": "A"})
    put(connection, ledger, line, None)
    (word,) = site_words(connection, order(order_id))
    assert (word.ev, word.verified) == ("order_ack", None)
    assert reverify(connection, SITE, {ledger.epoch: {ledger.key.kid: ledger.key.public}}) == 1
    assert site_words(connection, order(order_id))[0].verified is True


def test_junk_under_a_wrong_key_acknowledges_nothing_and_gives_way_to_the_true_record(connection: Connection) -> None:
    order_id = uuid7(NOW)
    forger, true = Ledger(SITE, SigningKey.generate()), Ledger(SITE, SigningKey.generate())
    fields = {"ev": "order_ack", "obj": order_id, "now": "acknowledged"}
    put(connection, forger, forger.add("site", "event", at=NOW, detail={"who": "nobody"}, **fields), False)
    seen = view(order(order_id), [], [], NOW, words=site_words(connection, order(order_id)))
    assert not acknowledged(seen)
    assert [(e.kind, e.verified) for e in history(seen, None)] == [("posted", None), ("acknowledged", False)]
    put(connection, true, true.add("site", "event", at=NOW, detail={"who": "A"}, **fields), True)
    (word,) = site_words(connection, order(order_id))
    assert word.verified is True
    assert acknowledged(view(order(order_id), [], [], NOW, words=(word,)))


def test_another_site_s_word_is_no_word_about_this_order(connection: Connection) -> None:
    order_id = uuid7(NOW)
    other = Ledger("pvl-2", SigningKey.generate())
    line = other.add("site", "event", at=NOW, ev="order_ack", obj=order_id, now="acknowledged", detail={"who": "A"})
    put(connection, other, line, True, "pvl-2")
    assert site_words(connection, order(order_id)) == ()


def test_a_word_of_any_shape_breaks_no_history(connection: Connection) -> None:
    ledger, order_id = Ledger(SITE, SigningKey.generate()), uuid7(NOW)
    for detail in (None, 7, [], {"who": 5, "at": "x"}, {"at": True}):
        line = ledger.add("site", "event", at=NOW, ev="spoken_order", obj=order_id, now=None, detail=detail)
        put(connection, ledger, line, True)
    odd = ledger.add("site", "event", at=NOW, ev="order_ack", obj=["x"], now="acknowledged")
    put(connection, ledger, odd, True)
    seen = view(order(order_id), [], [], NOW, words=site_words(connection, order(order_id)))
    assert [e.kind for e in history(seen, None)] == ["posted", *["spoken_on_site"] * 5]
