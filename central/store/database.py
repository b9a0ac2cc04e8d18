"""The engine, its migrations, and the statements that differ between SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine

from central.errors import CentralError
from central.store import postgres
from central.store.schema import tallies

T = TypeVar("T")
_OF_THE_MESSAGE = ("22", "23", "54")
"""Classes of SQLSTATE: data exception, integrity constraint violation, program limit exceeded."""


def make_engine(url: str) -> Engine:
    """An engine; SQLite gets WAL and full synchronisation, so that a commit survives a power cut.

    Raises:
        CentralError: the URL is not usable. Its password stands in no error.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        try:
            engine = sa.create_engine(parsed, hide_parameters=True)
        except sa.exc.ArgumentError:
            raise CentralError("database_url is no SQLite URL; expected sqlite:////absolute/path.db, or none") from None
        sa.event.listen(engine, "connect", _tune_sqlite)
        return engine
    try:
        return sa.create_engine(
            parsed,
            pool_pre_ping=True,
            hide_parameters=True,
            # Whatever the database's own default is: what another writer committed is seen once it is this one's turn.
            isolation_level="READ COMMITTED",
            connect_args=postgres.link_arguments(parsed),
        )
    except ImportError:
        raise CentralError(
            f"database_url, {postgres.place(parsed)}: its driver is not installed; pip install 'tizgin[postgres]'"
        ) from None


def _parse(url: str) -> URL:
    expected = "expected postgresql+psycopg://user@host/database, or none for SQLite in data_dir"
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise CentralError(
            f"database_url is not a database's URL (or a character of the password is not percent-encoded); {expected}"
        ) from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername=postgres.DRIVER)
    if parsed.get_backend_name() == "sqlite":
        return parsed
    if parsed.drivername != postgres.DRIVER:
        raise CentralError(f"database_url is of kind {parsed.drivername[:40]!r}; {expected}")
    if "@" in f"{parsed.host}{parsed.database}":
        raise CentralError("database_url has a second '@': percent-encode it in the password as %40")
    return parsed


def _tune_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=10000",
        "cache_size=-16384",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def migrate(engine: Engine) -> None:
    """Bring the database to this release's version; two processes that start together do it one after the other."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with writing(engine) as connection:
        if is_postgres(connection):
            postgres.require(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if is_postgres(connection):
            postgres.order_by_bytes(connection)


def try_connection(url: str) -> None:
    """Connect to a server and change nothing; a file of SQLite is left alone, which connecting would make.

    Raises:
        CentralError: the database cannot be reached or is not usable.
    """
    engine = make_engine(url)
    try:
        if engine.dialect.name == "postgresql":
            with engine.connect() as connection:
                postgres.require(connection)
    except sa.exc.SQLAlchemyError as error:
        raise refused(engine, error) from None
    finally:
        engine.dispose()


def is_postgres(connection: Connection) -> bool:
    """False on SQLite."""
    return connection.dialect.name == "postgresql"


def unavailable(error: Exception) -> bool:
    """Whether it is the database, rather than what was to be stored: to be waited for, never held against a message.

    Values that no column takes and broken constraints are the message's own fault; so is what SQLite's driver cannot
    bind. All else (no connection, no room, a restart, a missing right, a damaged file) says nothing about the message.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, sa.exc.TimeoutError)
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return not str(state).startswith(_OF_THE_MESSAGE)
    return not isinstance(
        error, (sa.exc.DataError, sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.NotSupportedError)
    )


def reason(error: Exception) -> str:
    """What a driver said, in one line, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def remedy(error: Exception) -> str:
    """What a person can do about a store that takes nothing."""
    kind = type(getattr(error, "orig", None)).__module__
    if kind.startswith("psycopg") or isinstance(error, sa.exc.TimeoutError):
        return postgres.remedy(error)
    return "see the room and the rights of data_dir; central goes on by itself"


def refused(engine: Engine, error: sa.exc.SQLAlchemyError) -> CentralError:
    """A database's error for people."""
    if engine.dialect.name == "postgresql":
        return postgres.explain(engine.url, error)
    return CentralError(f"database {postgres.place(engine.url)}: {reason(error)}")


def insert_new(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; those whose identity is there already are left alone."""
    if not rows:
        return
    make = postgresql.insert if is_postgres(connection) else sqlite.insert
    connection.execute(make(table).on_conflict_do_nothing(), list(rows))


def put(connection: Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Insert a row or replace the one with its primary key."""
    make = postgresql.insert if is_postgres(connection) else sqlite.insert
    keys = [column.name for column in table.primary_key.columns]
    statement = make(table).values(**row)
    rest = {name: statement.excluded[name] for name in row if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))


def tally(connection: Connection, site: str, name: str, count: int) -> None:
    """Add to a counter."""
    make = postgresql.insert if is_postgres(connection) else sqlite.insert
    statement = make(tallies).values(site=site, name=name, count=count)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["site", "name"], set_={"count": tallies.c.count + statement.excluded["count"]}
        )
    )


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction of the one writer; committed where nothing is raised.

    What is read before it is written (a number that may be there already, a checkpoint that was cosigned, a log's last
    line) is still true when it is written, whatever other processes do.

    Raises:
        sa.exc.OperationalError: another process has been writing for 10 s.
    """
    with engine.begin() as connection:
        if is_postgres(connection):
            postgres.begin_writing(connection)
        else:
            # The driver itself would begin only at the first change, after what was read.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads: all of it sees one moment, whatever is stored meanwhile."""
    with engine.connect() as connection:
        if is_postgres(connection):
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        else:
            # The driver itself would begin none for what only reads.
            connection.exec_driver_sql("BEGIN")
        yield connection


class Database:
    """The engine with one writing thread and a few reading ones; asyncio callers wait, they never block."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="central-write")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="central-read")

    @classmethod
    def open(cls, url: str) -> Database:
        """Open and migrate.

        Raises:
            CentralError: it cannot be reached or is not usable.
        """
        engine = make_engine(url)
        try:
            migrate(engine)
            if engine.dialect.name == "postgresql":
                with engine.connect() as connection:
                    postgres.warn(connection)
        except sa.exc.SQLAlchemyError as error:
            engine.dispose()
            raise refused(engine, error) from None
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run work in one transaction, committed when it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._in_transaction, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run work that only reads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._reading, work)

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with writing(self.engine) as connection:
            return work(connection)

    def _reading(self, work: Callable[[Connection], T]) -> T:
        with reading(self.engine) as connection:
            return work(connection)

    def close(self) -> None:
        """Wait for running work and close every connection."""
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()
