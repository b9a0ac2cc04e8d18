"""The engine, its migrations, and the two statements that differ between SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from central.errors import CentralError
from central.store.schema import tallies

T = TypeVar("T")


def make_engine(url: str) -> Engine:
    """An engine; SQLite gets WAL and full synchronisation, so that a commit survives a power cut.

    Raises:
        CentralError: the URL is not usable.
    """
    try:
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise CentralError(
            f"database_url: {error}; expected an SQLAlchemy URL such as postgresql+psycopg://user@host/tizgin, "
            "with its driver installed"
        ) from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _tune_sqlite)
    return engine


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
    """Bring the database to this release's version."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def insert_new(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; those whose identity is there already are left alone."""
    if not rows:
        return
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(make(table).on_conflict_do_nothing(), list(rows))


def put(connection: Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Insert a row or replace the one with its primary key."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    keys = [column.name for column in table.primary_key.columns]
    statement = make(table).values(**row)
    rest = {name: statement.excluded[name] for name in row if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))


def tally(connection: Connection, site: str, name: str, count: int) -> None:
    """Add to a counter."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(tallies).values(site=site, name=name, count=count)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["site", "name"], set_={"count": tallies.c.count + statement.excluded["count"]}
        )
    )


class Database:
    """The engine with one writing thread and a few reading ones; asyncio callers wait, they never block."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="central-write")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="central-read")

    @classmethod
    def open(cls, url: str) -> Database:
        """Open and migrate."""
        engine = make_engine(url)
        try:
            migrate(engine)
        except sa.exc.SQLAlchemyError as error:
            engine.dispose()
            raise CentralError(f"database {engine.url!r}: {error}"[:400]) from None
        return cls(engine)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run work in one transaction, committed when it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._in_transaction, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run work that only reads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._reading, work)

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with self.engine.begin() as connection:
            return work(connection)

    def _reading(self, work: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            return work(connection)

    def close(self) -> None:
        """Wait for running work and close every connection."""
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()
