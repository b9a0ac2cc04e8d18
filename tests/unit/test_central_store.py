"""Central's store on both databases: the same records in, the same answers out, whatever is sent to it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from postgres_kit import PostgresServer

from central.errors import CentralError
from central.store import evidence, orders, words
from central.store.database import Database, insert_new, make_engine, migrate, put, reading, tally, unavailable, writing
from central.store.schema import forks, intervals, metadata, order_answers, quarantine, records, streams, tallies
from tests.integration.central_site import Ledger, make_order
from wire.canonical import MAX_INT
from wire.dsse import ORDER_TYPE, open_envelope
from wire.keys import SigningKey
from wire.messages import Heads, StreamHead
from wire.orders import parse_order
from wire.records import parse_line

SITE, NOW = "ekb-1", 1_795_000_000_000
T0 = 1_795_000_500 // 900 * 900


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    yield opened
    opened.close()


def incoming(ledger: Ledger, *lines: bytes, verified: bool | None = True) -> list[evidence.Incoming]:
    found = []
    for line in lines:
        record, doc = parse_line(line)
        found.append(evidence.Incoming(ledger.site, ledger.epoch, line, record, doc, verified))
    return found


def keep(database: Database, items: list[evidence.Incoming], now_ms: int = NOW) -> evidence.Stored:
    with writing(database.engine) as connection:
        return evidence.store(connection, items, now_ms)


def rows(database: Database, *columns: Any, where: Any = None) -> list[tuple[Any, ...]]:
    query = sa.select(*columns)
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query if where is None else query.where(where))]


def slots(ledger: Ledger, count: int) -> list[bytes]:
    return [ledger.interval("main", T0 + i * 900, i) for i in range(count)]


def test_the_tables_are_those_of_the_schema_and_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database.engine)
    found = sa.inspect(database.engine)
    assert set(found.get_table_names()) == {*metadata.tables, "alembic_version"}
    for name, table in metadata.tables.items():
        assert {c["name"]: c["nullable"] for c in found.get_columns(name)} == {
            c.name: c.nullable for c in table.columns
        }, name
        assert set(found.get_pk_constraint(name)["constrained_columns"]) == {c.name for c in table.primary_key}, name


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_that_start_on_an_empty_database_make_its_tables_once(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").create()
    make = (
        "import sys; from central.store.database import Database; sys.stdin.read(); Database.open(sys.argv[1]).close()"
    )
    command = [sys.executable, "-c", make, url]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in running] == [("", 0)] * 3
    engine = make_engine(url)
    assert set(sa.inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    engine.dispose()


def test_records_are_stored_once_byte_for_byte_and_their_stream_advances(database: Database) -> None:
    ledger = Ledger(SITE, SigningKey.generate())
    lines = slots(ledger, 5)
    first = keep(database, incoming(ledger, *lines[:2], lines[3]))
    again = keep(database, incoming(ledger, *lines, *lines[:2]))
    assert (first.new, first.duplicates, again.new, again.duplicates) == (3, 0, 2, 5)
    assert sorted(again.on_disk[SITE, ledger.epoch, "mp:main"]) == [0, 0, 1, 1, 2, 3, 4]
    stored = rows(database, records.c.n, records.c.line)
    assert sorted((n, bytes(line)) for n, line in stored) == list(enumerate(lines))
    assert rows(database, streams.c.next_n, streams.c.last_hash) == [(5, ledger.hashes["mp:main"][-1])]
    assert sorted(rows(database, intervals.c.n, intervals.c.wh)) == [(i, i) for i in range(5)]


def test_other_bytes_are_kept_once_as_a_fork_and_junk_gives_way(database: Database) -> None:
    ledger, other = Ledger(SITE, SigningKey.generate()), Ledger(SITE, SigningKey.generate())
    junk, true = other.interval("main", T0, 99), ledger.interval("main", T0, 10)
    keep(database, incoming(other, junk, verified=False))
    assert keep(database, incoming(ledger, true)).forked_sites == {SITE}
    for _ in range(2):
        assert keep(database, incoming(other, junk, verified=False)).forked_sites == {SITE}
    assert [bytes(line) for (line,) in rows(database, records.c.line)] == [true]
    assert [bytes(line) for (line,) in rows(database, forks.c.line)] == [junk]
    assert rows(database, intervals.c.wh, intervals.c.verified) == [(10, True)]


def test_holes_are_found_and_a_contradiction_is_seen(database: Database) -> None:
    ledger = Ledger(SITE, SigningKey.generate())
    lines = slots(ledger, 9)
    keep(database, incoming(ledger, *(lines[i] for i in (0, 1, 3, 6))))
    with database.engine.connect() as connection:
        found = evidence.compare(connection, ledger.heads())
        assert found.missing == (("mp:main", 2, 2), ("mp:main", 4, 5), ("mp:main", 7, 8))
        assert evidence.holes(connection, (SITE, ledger.epoch, "cmd"), 0, 4) == [(0, 3)]
        lie = {"mp:main": StreamHead(count=7, last="00" * 32)}
        heads = Heads(site=SITE, epoch=ledger.epoch, boot="b1", at=NOW, streams=lie, bulk_last=None)
        assert evidence.compare(connection, heads).other_hash == ("mp:main",)


def test_nul_characters_and_the_largest_integers_come_back_as_they_were(database: Database) -> None:
    ledger = Ledger(SITE, SigningKey.generate())
    lines = [
        ledger.interval("main", T0, MAX_INT, exp_wh=MAX_INT, q=["a\0b"]),
        ledger.gap("main", T0 + 900, "TIME\0OUT"),
        ledger.add("cmd", "cmd_ack", at=NOW, id="x\0y", state="re\0jected", code="c\0", text="\0ә", power_w=MAX_INT),
        ledger.add("site", "event", at=NOW, ev="order_ack", obj="o\0", now="\0"),
    ]
    assert keep(database, incoming(ledger, *lines)).new == 4
    assert {bytes(line) for (line,) in rows(database, records.c.line)} == set(lines)
    assert rows(database, intervals.c.wh, intervals.c.exp_wh, intervals.c.flags, where=intervals.c.n == 0) == [
        (MAX_INT, MAX_INT, "a\ufffdb")
    ]
    assert rows(database, order_answers.c.text, order_answers.c.power_w) == [("\ufffdә", MAX_INT)]


def test_what_is_no_whole_number_is_unknown_never_zero(database: Database) -> None:
    ledger = Ledger(SITE, SigningKey.generate())
    lines = [ledger.interval("main", T0 + i * 900, wh) for i, wh in enumerate((True, "7", None, [], {}))]
    keep(database, incoming(ledger, *lines))
    assert rows(database, intervals.c.wh) == [(None,)] * 5


def test_records_are_judged_when_their_key_becomes_known(database: Database) -> None:
    ledger, wrong = Ledger(SITE, SigningKey.generate()), Ledger(SITE, SigningKey.generate(), "e2-0badcafe")
    keep(database, incoming(ledger, *slots(ledger, 3), verified=None))
    keep(database, incoming(wrong, *slots(wrong, 3), verified=False))
    keys = {ledger.epoch: {ledger.key.kid: ledger.key.public}, wrong.epoch: {wrong.key.kid: wrong.key.public}}
    with writing(database.engine) as connection:
        assert evidence.reverify(connection, SITE, keys) == 3
        assert evidence.reverify(connection, SITE, keys) == 0
        place: Any = ("", "", -1)
        seen = 0
        while (place := evidence.rejudge(connection, SITE, keys, {wrong.key.kid}, place, limit=2)) is not None:
            seen += 1
    assert seen == 2
    assert rows(database, records.c.verified, where=records.c.verified.is_not(True)) == []
    assert len(rows(database, intervals.c.n, where=intervals.c.verified.is_(True))) == 6


def test_an_order_is_kept_once_and_its_answers_are_found(database: Database) -> None:
    key = SigningKey.generate()
    order_id, raw = make_order(SITE, key)
    signed = parse_order(raw)
    ledger = Ledger(SITE, key)
    with writing(database.engine) as connection:
        assert orders.insert(connection, signed, NOW) is None
        there = orders.insert(connection, signed, NOW + 5)
        assert there is not None
        assert (there.raw, there.posted_at) == (raw, NOW)
        assert [o.id for o in orders.unanswered(connection, NOW)] == [order_id]
    lines = [
        ledger.add("cmd", "cmd_rx", at=NOW, id=order_id),
        ledger.add("cmd", "cmd_ack", at=NOW + 1, id=order_id, state="validated", power_w=5),
        ledger.add("site", "event", at=NOW, ev="order_ack", obj=order_id, now="acknowledged"),
    ]
    keep(database, incoming(ledger, *lines))
    with writing(database.engine) as connection:
        assert orders.unanswered(connection, NOW) == []
        assert [a.line for a in orders.answers(connection, there)] == lines[:2]
        assert [w.line for w in words.site_words(connection, there)] == lines[2:]
        assert [o.id for o in orders.listed(connection, SITE, 5, frozenset({"limit"}))] == [order_id]
        orders.insert_proposal(connection, "p1", SITE, '{"ә": 1}', NOW)
        assert [p.body for p in orders.listed_proposals(connection, SITE, NOW, 5)] == ['{"ә": 1}']


def test_what_reads_sees_one_moment_and_writes_nothing(database: Database) -> None:
    ledger = Ledger(SITE, SigningKey.generate())
    first, second = slots(ledger, 2)
    keep(database, incoming(ledger, first))
    count = sa.select(sa.func.count()).select_from(records)
    with reading(database.engine) as connection:
        before = connection.execute(count).scalar_one()
        keep(database, incoming(ledger, second))
        assert connection.execute(count).scalar_one() == before == 1
    with reading(database.engine) as connection:
        assert connection.execute(count).scalar_one() == 2
        with contextlib.suppress(sa.exc.DBAPIError):
            tally(connection, SITE, "x", 1)
    assert rows(database, tallies.c.count) == []
    with writing(database.engine) as connection:
        tally(connection, SITE, "x", 1)
    assert rows(database, tallies.c.count) == [(1,)], "the same connection writes again"


def test_rows_with_an_identity_are_replaced_or_left_and_counters_count(database: Database) -> None:
    row = {"site": SITE, "epoch": "e1-00000000", "stream": "cmd", "next_n": 1, "last_hash": None}
    with writing(database.engine) as connection:
        for _ in range(2):
            insert_new(connection, streams, [row, row | {"stream": "site"}])
        insert_new(connection, streams, [])
        put(connection, streams, row | {"next_n": 9})
        for count in (2, 3):
            tally(connection, SITE, "x", count)
    assert sorted(rows(database, streams.c.stream, streams.c.next_n)) == [("cmd", 9), ("site", 1)]
    assert rows(database, tallies.c.count) == [(5,)]


def test_writers_of_two_processes_store_the_same_records_once(database_url: str) -> None:
    ledger = Ledger(SITE, SigningKey.generate())
    other = Ledger(SITE, ledger.key)
    lines, others = slots(ledger, 40), [other.interval("main", T0 + i * 900, 1000 + i) for i in range(40)]
    items, counter = [incoming(ledger, *lines), incoming(other, *others)], []
    failed: list[Exception] = []

    def write(database: Database, own: list[evidence.Incoming]) -> None:
        try:
            for start in range(0, 40, 4):
                counter.append(keep(database, own[start : start + 4]).new)
        except Exception as error:
            failed.append(error)

    made = [Database.open(database_url) for _ in items]
    threads = [threading.Thread(target=write, args=pair) for pair in zip(made, items, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    stored = {bytes(line) for (line,) in rows(made[0], records.c.line)}
    refused = {bytes(line) for (line,) in rows(made[0], forks.c.line)}
    assert sum(counter) == len(stored) == 40
    assert stored | refused == {*lines, *others}, "each of the two stories is kept, one in the streams, one as forks"
    for database in made:
        database.close()


def test_a_value_no_column_takes_is_the_message_s_fault_and_a_missing_table_is_not(database: Database) -> None:
    bad = {"site": SITE, "topic": "bulk", "reason": "x", "detail": "d", "size": 1, "body": b"", "received_at": 2**70}
    with pytest.raises(Exception, match=r"(?i)range|too large") as value, writing(database.engine) as connection:
        connection.execute(sa.insert(quarantine), [bad])
    assert not unavailable(value.value)
    with pytest.raises(sa.exc.IntegrityError) as twice, writing(database.engine) as connection:
        connection.execute(sa.insert(tallies), [{"site": SITE, "name": "y", "count": 1}] * 2)
    assert not unavailable(twice.value)
    with pytest.raises(sa.exc.DBAPIError) as absent, writing(database.engine) as connection:
        connection.execute(sa.text("SELECT * FROM nothing_of_that_name"))
    assert unavailable(absent.value)


def test_names_sort_by_bytes_whatever_language_the_server_speaks(database: Database) -> None:
    names = ["site", "mp:M10", "mp:m1", "mp:M_2", "mp:a-b", "mp:a.b", "mp:aB", "cmd"]
    rest = {"site": SITE, "epoch": "e1-00000000", "next_n": 0, "last_hash": None}
    with writing(database.engine) as connection:
        insert_new(connection, streams, [rest | {"stream": name} for name in names])
        query = sa.select(streams.c.stream).order_by(streams.c.stream)
        assert list(connection.execute(query).scalars()) == sorted(names)


def test_every_text_of_postgresql_is_ordered_by_bytes(postgres: PostgresServer) -> None:
    engine = make_engine(postgres.emptied())
    other = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    with engine.connect() as connection:
        found = connection.execute(sa.text(other + " AND collation_name <> 'C'")).all()
        speaks = connection.execute(sa.text("SELECT ('mp:M10' COLLATE \"default\") < 'mp:a1'")).scalar_one()
    engine.dispose()
    assert found == []
    assert speaks is False, "the server itself sorts by language, so the test above means something"


def test_a_database_that_keeps_no_unicode_is_refused(postgres: PostgresServer) -> None:
    with pytest.raises(CentralError, match="is in LATIN1, expected UTF8; make it anew: CREATE DATABASE"):
        Database.open(postgres.create(encoding="LATIN1"))


def test_signed_bytes_are_opened_as_they_were_posted(database: Database) -> None:
    key = SigningKey.generate()
    order_id, raw = make_order(SITE, key)
    with writing(database.engine) as connection:
        orders.insert(connection, parse_order(raw), NOW)
        found = orders.find(connection, order_id)
        assert orders.find(connection, "nothing") is None
    assert found is not None
    assert open_envelope(found.raw, expected_type=ORDER_TYPE).verify({key.kid: key.public}) == (key.kid,)
