"""Central on a real PostgreSQL: a site's records from the meter to the verifier, through deaths of the server."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa
import yaml
from fastapi import FastAPI
from ports import free_ports
from postgres_kit import PASSWORD, PostgresServer, required_programs
from site_kit import SITE, SiteKit, until
from structlog.testing import capture_logs

from agent.ledger import Txn
from central import bundle
from central.api import problems
from central.collector import watch
from central.store import evidence
from central.store import postgres as store
from central.store.database import Database, make_engine, put, remedy, tally, unavailable, writing
from central.store.schema import metadata, records, tallies
from tizgin.cli import run
from verifier.metering import Period
from verifier.verify import verify
from wire.keys import SigningKey
from wire.records import parse_line

DERIVED = {"records", "streams", "intervals", "order_answers", "order_events"}
"""Tables that :func:`evidence.store` fills."""


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """A server that writes to the disk what it says it has written."""
    server = PostgresServer(required_programs(), durable=True)
    yield server
    server.stop()


@pytest.fixture
async def kit(durable: PostgresServer, tmp_path: Path) -> AsyncIterator[SiteKit]:
    made = SiteKit(tmp_path, luxos=1, stock=1, database_url=durable.create())
    try:
        await made.start_plant()
        await made.start_central()
        await made.start_agent()
        yield made
    finally:
        await made.stop()


async def stream(kit: SiteKit, stop: asyncio.Event) -> None:
    """Events without a pause, each of them signed and chained like any other."""
    assert kit.app is not None
    while not stop.is_set():
        await kit.app.ledger.commit(Txn().record("site", "event", {"ev": "tag", "obj": "F3", "now": "tagged"}))
        await asyncio.sleep(0.005)


async def committed(kit: SiteKit) -> set[tuple[str, int]]:
    """What central told the site that it has on disk."""
    assert kit.app is not None
    return {(r[0], r[1]) for r in await kit.app.ledger.read("SELECT stream, n FROM record WHERE committed = 1")}


async def outage(kit: SiteKit, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """One outage in the middle of a stream: nothing was said to be on disk that is not, and central goes on alone."""
    assert kit.central is not None
    collector = kit.central.collector
    before = len(await committed(kit))
    await until(lambda: _committed_now(kit) > before + 20, 15, "the stream is on its way")
    begin()
    told = await committed(kit)
    await until(lambda: not collector.store_up, 15, "central sees it")
    end()
    there = {(stream, n) for stream, n, _ in await kit.central_lines()}
    assert told <= there, "what was said to be on disk was on disk"
    await until(lambda: collector.store_up, 15, "central is connected again, by itself")


def _committed_now(kit: SiteKit) -> int:
    assert kit.app is not None
    return int(kit.app.ledger.read_now("SELECT count(*) FROM record WHERE committed = 1")[0][0])


async def test_no_outage_of_the_server_loses_or_doubles_a_record_and_the_bundle_is_that_of_sqlite(
    kit: SiteKit, durable: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENT_S", 1.0)
    app, central = kit.app, kit.central
    assert app is not None
    assert central is not None
    begin, enough = int(time.time()) // 10 * 10, asyncio.Event()
    with capture_logs() as logs:
        writer = asyncio.create_task(stream(kit, enough))
        await outage(kit, durable.kill, durable.start)
        await outage(kit, durable.hang, durable.wake)
        await outage(kit, durable.kill, durable.start)
        await until(lambda: time.time() > begin + 11, 15, "a slot is over")
        enough.set()
        await writer
        deadline = time.monotonic() + 30
        while await kit.central_lines() != await kit.edge_lines():
            assert time.monotonic() < deadline, "central has what the edge has, byte for byte"
            await asyncio.sleep(0.2)
    said = [entry["event"] for entry in logs]
    assert said.count("store_unavailable") == 2, "an outage is said once, not at every try"
    assert said.count("store_silent") == 1
    assert said.count("store_available_again") == 3
    assert "message_refused_by_store" not in said
    assert PASSWORD not in repr(logs)
    assert quote(PASSWORD, safe="") not in repr(logs)

    key, registrar = SigningKey.generate(), kit.registrar.public
    period = bundle.Period(begin, int(time.time()) // 10 * 10)

    def build(connection: sa.Connection) -> bytes:
        keys = {registrar.kid: registrar}
        return bundle.build(connection, SITE, period, key, keys, tool="test", now_ms=1_800_000_000_000).data

    made = await central.database.read(build)
    (tmp_path / "b.zip").write_bytes(made)
    trust = {"v": 1, "registrar": [registrar.text], "collector": [key.public.text]}
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    span = Period(period.first_s, period.last_s)
    report = await asyncio.to_thread(verify, tmp_path / "b.zip", trust_path=tmp_path / "trust.json", period=span)
    assert report.errors == [], report.to_text()
    assert report.records > 0

    with central.database.engine.connect() as connection:
        rest = {
            name: [dict(row._mapping) for row in connection.execute(sa.select(table))]
            for name, table in metadata.tables.items()
            if name not in DERIVED
        }
        assert set(connection.execute(sa.select(records.c.verified)).scalars()) == {True}
    other = Database.open(f"sqlite:///{tmp_path / 'other.db'}")
    with writing(other.engine) as connection:
        for name, rows in rest.items():
            if rows:
                connection.execute(sa.insert(metadata.tables[name]), rows)
        parsed = [(line, *parse_line(line)) for _, _, line in await kit.edge_lines()]
        items = [evidence.Incoming(SITE, kit.epoch, line, record, doc, True) for line, record, doc in parsed]
        evidence.store(connection, items, 1)
        assert build(connection) == made
    other.close()


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str, str], str]:
    """What ``tizgin central`` prints about a database that it cannot use."""
    config, registrar = tmp_path / "central.yaml", SigningKey.generate().public.text
    assert run(["central", "init", "--config", str(config), "--registrar", registrar]) == 0
    settings = yaml.safe_load(config.read_text())
    capsys.readouterr()

    def call(command: str, url: str) -> str:
        config.write_text(yaml.safe_dump(settings | {"database_url": url}))
        assert run(["central", *command.split(), "--config", str(config)]) == 1
        printed = capsys.readouterr()
        return printed.out + printed.err

    return call


def test_a_database_that_cannot_be_used_is_named_with_what_to_do_and_never_with_the_password(
    postgres: PostgresServer, check: Callable[[str, str], str]
) -> None:
    (closed,) = free_ports(1)
    url, crowded, locked, foreign = (postgres.create() for _ in range(4))
    secret = quote(PASSWORD, safe="")
    name = url.rpartition("/")[2]
    postgres.sql(f"ALTER DATABASE {crowded.rpartition('/')[2]} CONNECTION LIMIT 0")
    postgres.sql(f"ALTER DATABASE {locked.rpartition('/')[2]} SET default_transaction_read_only = on")
    postgres.sql(f"ALTER DATABASE {foreign.rpartition('/')[2]} OWNER TO postgres")
    where = f"PostgreSQL tizgin@127.0.0.1:{postgres.port}"
    cases = {
        url.replace(f":{postgres.port}/", f":{closed}/"): "check that the server runs and lets this user in at that",
        url.replace(f"/{name}", "/absent"): f'{where}/absent: .* database "absent" does not exist; create it',
        url.replace(secret, secret + "x"): f"{where}/{name}: .*password authentication failed .*; check the user and",
        url.replace(f":{secret}", ""): "give the password in PGPASSWORD",
        url.replace("127.0.0.1", "no-host.invalid"): "check the host's name",
        url + "?sslmode=require": "SSL.*; check sslmode and sslrootcert",
        url + f"?nonsense={secret}": "invalid connection option",
        url.replace(secret, PASSWORD): "percent-encode",
        url.replace(secret, "p@ss"): "second '@': percent-encode it in the password as %40",
        url.replace("+psycopg", "+asyncpg"): r"of kind 'postgresql\+asyncpg'; expected postgresql\+psycopg://",
        crowded: "too many connections for database .*; raise CONNECTION LIMIT of the role or database",
        locked: "cannot be written to; this server only reads .*: name the one that is written to",
        foreign: "no right to make tables in the database .*; the role must own the database",
        "sqlite://someone@/x": "no SQLite URL; expected sqlite:////absolute",
        f"{PASSWORD}": "not a database's URL",
    }
    for wrong, expected in cases.items():
        said = check("check", wrong)
        assert _matches(expected, said), (expected, said)
        assert PASSWORD not in said
        assert secret not in said
    assert _matches("a table is missing: start central once", check("energy --site a --period 1800/3600", url))
    for command in ("run", "energy --site a --period 1800/3600"):
        said = check(command, url.replace(secret, secret + "x"))
        assert _matches("password authentication failed .*; check the user and its password", said), said
        assert PASSWORD not in said


def _matches(expected: str, said: str) -> bool:
    return re.search(expected, " ".join(said.split())) is not None


async def test_a_request_meets_an_absent_server_with_503_and_a_wrong_value_with_500(postgres: PostgresServer) -> None:
    app = FastAPI()
    problems.install(app)
    database = Database.open(postgres.emptied())
    (closed,) = free_ports(1)
    absent = sa.create_engine(f"postgresql+psycopg://u:{quote(PASSWORD, safe='')}@127.0.0.1:{closed}/x")

    @app.get("/absent")
    def of_absent() -> None:
        absent.connect()

    @app.get("/wrong")
    async def of_wrong() -> None:
        await database.write(lambda c: c.execute(sa.text("SELECT 1 / 0")))

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://central") as client:
        for path, status in (("/absent", 503), ("/wrong", 500)):
            answer = await client.get(path)
            assert answer.status_code == status
            assert answer.json()["code"] == "store"
            assert PASSWORD not in answer.text
    database.close()


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same statement, with limits that a test can wait for."""
    quick = str(store._BEGIN_WRITING).replace("'10s'", "'300ms'").replace("'60s'", "'700ms'")
    monkeypatch.setattr(store, "_BEGIN_WRITING", sa.text(quick))


def add(connection: sa.Connection, name: str) -> None:
    tally(connection, "ekb-1", name, 1)


def test_a_writer_that_stands_still_is_waited_for_then_given_up_and_stores_nothing(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    first, second = (Database.open(postgres.emptied()) for _ in range(2))

    def stand_still() -> None:
        with writing(first.engine) as connection:
            add(connection, "slow")
            with pytest.raises(sa.exc.DBAPIError) as waited, writing(second.engine) as other:
                add(other, "quick")
            assert unavailable(waited.value)
            assert "another process keeps the right to write" in remedy(waited.value)
            time.sleep(0.8)
            with writing(second.engine) as other:
                add(other, "quick")
            add(connection, "slow")

    with pytest.raises(sa.exc.DBAPIError) as gone:
        stand_still()
    assert unavailable(gone.value)
    with second.engine.connect() as connection:
        assert connection.execute(sa.select(tallies.c.name, tallies.c.count)).all() == [("quick", 1)]
    first.close()
    second.close()


def test_a_store_that_was_locked_is_waited_for_and_told_of(postgres: PostgresServer) -> None:
    url = postgres.create()
    Database.open(url).close()
    postgres.sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    engine = make_engine(url)
    with pytest.raises(sa.exc.DBAPIError) as error, writing(engine) as connection:
        add(connection, "x")
    assert unavailable(error.value)
    assert "this server only reads" in remedy(error.value)
    engine.dispose()


def test_what_others_committed_is_seen_whatever_isolation_is_the_database_s_default(postgres: PostgresServer) -> None:
    url = postgres.create()
    postgres.sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_isolation = 'serializable'")
    databases = [Database.open(url) for _ in range(4)]

    def count(database: Database) -> None:
        for _ in range(10):
            with writing(database.engine) as connection:
                before = connection.execute(sa.select(tallies.c.count)).scalar() or 0
                put(connection, tallies, {"site": "ekb-1", "name": "x", "count": before + 1})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, databases))
    with databases[0].engine.connect() as connection:
        assert connection.execute(sa.select(tallies.c.count)).scalar_one() == 40
    for database in databases:
        database.close()
