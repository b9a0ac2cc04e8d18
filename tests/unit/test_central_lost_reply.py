"""The database dies over a commit: it may have kept everything, and only its word is lost. Given again, it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.metrics import Metrics
from central.registers import OlderRegister, RegisterBook
from central.relay import Relay, Reused
from central.store import orders
from central.store.database import Database, unavailable, writing
from central.store.schema import registers
from tests.integration.central_site import Ledger, make_order, make_register, now_ms
from tests.unit.test_central_store import incoming, keep
from wire.keys import SigningKey
from wire.orders import parse_order

SITE, OTHER, EPOCH = "ekb-1", "ekb-2", "e1-0badcafe"
KEY, REGISTRAR = SigningKey.generate(), SigningKey.generate()
T = TypeVar("T")


class Dying(Database):
    """Keeps what it is given, and once says that the server went away."""

    dies = True

    async def write(self, work: Callable[[Connection], T]) -> T:
        done = await super().write(work)
        if self.dies:
            self.dies = False
            raise sa.exc.OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))
        return done


@pytest.fixture
def database(database_url: str) -> Iterator[Dying]:
    opened = Dying.open(database_url)
    assert isinstance(opened, Dying)
    yield opened
    opened.close()


async def test_an_order_whose_commit_was_not_confirmed_is_sent_when_it_is_posted_again(database: Database) -> None:
    sent: list[bytes] = []
    out = asyncio.Event()

    def publish(_topic: str, raw: bytes, _life_s: int) -> bool:
        sent.append(raw)
        out.set()
        return True

    relay = Relay(database, publish, Metrics(), now_ms)
    await relay.start()
    order_id, raw = make_order(SITE, KEY)
    _, changed = make_order(SITE, KEY, id=order_id, limit_w=1)
    try:
        with pytest.raises(sa.exc.OperationalError) as lost:
            await relay.post(parse_order(raw))
        assert unavailable(lost.value)
        assert sent == []
        assert await relay.post(parse_order(raw)) is False
        await asyncio.wait_for(out.wait(), 5)
        assert await relay.post(parse_order(raw)) is False
        assert sent == [raw], "and not twice"
        with pytest.raises(Reused):
            await relay.post(parse_order(changed))
    finally:
        await relay.stop()


async def test_a_register_whose_commit_was_not_confirmed_is_in_force_when_it_is_put_again(database: Database) -> None:
    book = RegisterBook(database, {REGISTRAR.kid: REGISTRAR.public})
    raw, other, later = (make_register(REGISTRAR, {SITE: KEY}, version=version) for version in (2, 2, 3))
    with pytest.raises(sa.exc.OperationalError):
        await book.accept(raw, 1)
    with pytest.raises(OlderRegister, match="register version 2, stored is 2 with other bytes"):
        await book.accept(other, 1)
    assert await book.accept(raw, 1)
    assert book.envelope == raw
    assert await book.accept(later, 1)
    with database.engine.connect() as connection:
        assert connection.execute(sa.select(registers.c.version).order_by(registers.c.version)).scalars().all() == [
            2,
            3,
        ]


async def test_of_two_registers_that_come_together_the_older_never_takes_the_place_of_the_newer(
    database: Dying,
) -> None:
    database.dies = False
    book = RegisterBook(database, {REGISTRAR.kid: REGISTRAR.public})
    newer, older = (make_register(REGISTRAR, {SITE: KEY}, version=version) for version in (6, 5))
    told = await asyncio.gather(book.accept(newer, 1), book.accept(older, 1), return_exceptions=True)
    assert told[0] is True
    assert isinstance(told[1], OlderRegister)
    assert book.document is not None
    assert book.document.version == 6


def test_after_a_restart_only_the_order_s_own_site_under_its_own_key_has_decided(database: Database) -> None:
    order_id, raw = make_order(SITE, KEY)
    own, wrong, other = (Ledger(site, SigningKey.generate()) for site in (SITE, SITE, OTHER))
    at = now_ms()

    def open_orders() -> list[str]:
        with database.engine.connect() as connection:
            return [order.id for order in orders.unanswered(connection, at)]

    with writing(database.engine) as connection:
        assert orders.insert(connection, parse_order(raw), at) is None
    keep(database, incoming(other, other.add("cmd", "cmd_ack", at=at, id=order_id, state="rejected")))
    keep(database, incoming(wrong, wrong.add("cmd", "cmd_ack", at=at, id=order_id, state="rejected"), verified=False))
    assert open_orders() == [order_id]
    own.add("cmd", "cmd_rx", at=at, id=order_id)
    keep(database, incoming(own, own.add("cmd", "cmd_ack", at=at, id=order_id, state="armed")))
    assert open_orders() == []
