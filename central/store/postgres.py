"""What PostgreSQL needs beside SQL: a bounded wait for its server, one writer at a time, texts ordered by bytes.

SQLite gives all three by itself. Here they are asked for, so that a store behaves the same on both.
"""

from __future__ import annotations

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import URL, Connection

from central.errors import CentralError

log = structlog.get_logger(__name__)

DRIVER = "postgresql+psycopg"
_LINK = {
    "application_name": "tizgin-central",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""libpq's parameters: a server that is gone without a word is given up after some 20 s, never waited for."""

_WRITER = 0x74697A67696E
"""Key of the advisory lock that the one writer holds until its transaction ends."""
_BEGIN_WRITING = sa.text(
    "SELECT set_config('lock_timeout', '10s', true),"
    " set_config('idle_in_transaction_session_timeout', '60s', true),"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END,"
    f" pg_advisory_xact_lock({_WRITER})"
)

_REMEDIES = {
    "25006": "this server only reads (a replica, or locked by its keeper): name the one that is written to",
    "42501": "the role must own the database: ALTER DATABASE … OWNER TO …",
    "42P01": "a table is missing: start central once, which makes the tables, or put the backup back",
    "53100": "the server's disk is full: make room there; central goes on by itself",
    "53200": "the server is out of memory: see its log; central goes on by itself",
    "55P03": "another process keeps the right to write: see pg_stat_activity for what waits in a transaction",
    "57014": "the server's administrator or its statement_timeout broke it off; central needs none",
}
"""SQLSTATE → what to do. Errors of connecting have none: libpq gives text alone, in the server's language."""
_ADVICE = (
    ("no password supplied", "give the password in PGPASSWORD, in a password file (PGPASSFILE), or in the URL"),
    ("password authentication failed", "check the user and its password (URL, PGPASSWORD or PGPASSFILE)"),
    ("no pg_hba.conf entry", "allow this user, database and address in the server's pg_hba.conf"),
    ("does not exist", "create it, or correct the URL; docs/operations.md says how (CREATE ROLE, CREATE DATABASE)"),
    ("permission denied", _REMEDIES["42501"]),
    ("resolve host", "check the host's name in the URL"),
    ("SSL", "check sslmode and sslrootcert in the URL against the server's settings"),
    ("connection option", "correct what stands after '?' in the URL; libpq's parameters are known"),
    ("too many connections", "raise CONNECTION LIMIT of the role or database: central needs 3, each command 1"),
    ("too many clients", "raise max_connections of the server: central needs 3, each command 1"),
    ("connection slots", "raise max_connections of the server: central needs 3, each command 1"),
    ("starting up", "wait until the server has recovered; central goes on by itself"),
    ("shutting down", "start the server again; central goes on by itself"),
)
_OTHER_ADVICE = "check that the server runs and lets this user in at that host and port; its log may say more"


def link_arguments(url: URL) -> dict[str, str]:
    """Parameters of the connection that the URL leaves open."""
    return {name: value for name, value in _LINK.items() if name not in url.query}


def place(url: URL) -> str:
    """Where a database is, for people: never the password, nor anything that stands in the query."""
    if url.drivername.startswith("sqlite"):
        return f"SQLite {url.database or 'in memory'}"
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL {user}{url.host or 'local socket'}{port}/{url.database or ''}"


def without_password(url: URL, text: str) -> str:
    """A driver's text without the password, should it ever stand there."""
    secrets = [url.password, *(v for v in (url.query.get("password"),) if isinstance(v, str))]
    for secret in secrets:
        if secret:
            text = text.replace(str(secret), "***")
    return text


def explain(url: URL, error: Exception) -> CentralError:
    """What failed, where, and what to do."""
    said = str(getattr(error, "orig", None) or error)
    seen = without_password(url, " ".join(said.split()))[:300]
    return CentralError(f"database_url, {place(url)}: {seen}; {remedy(error)}")


def remedy(error: Exception) -> str:
    """What a person can do about it."""
    cause = getattr(error, "orig", None) or error
    known = _REMEDIES.get(str(getattr(cause, "sqlstate", None)))
    return known or next((advice for part, advice in _ADVICE if part in str(cause)), _OTHER_ADVICE)


def begin_writing(connection: Connection) -> None:
    """Become the only writer until this transaction ends. A writer that died is given up by the server in a minute."""
    connection.execute(_BEGIN_WRITING)


def order_by_bytes(connection: Connection) -> None:
    """Give every text column collation "C": names sort by bytes as they do on SQLite, in the same bundle bytes.

    Indexes then do not depend on the operating system's locales either, whose order changes with its releases.
    """
    rows = connection.execute(
        sa.text(
            "SELECT table_name, column_name, character_maximum_length FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND data_type IN ('character varying', 'text')"
            " AND collation_name IS DISTINCT FROM 'C' ORDER BY table_name, ordinal_position"
        )
    ).all()
    quote = connection.dialect.identifier_preparer.quote
    by_table: dict[str, list[str]] = {}
    for table, column, size in rows:
        kind = "TEXT" if size is None else f"VARCHAR({size})"
        by_table.setdefault(table, []).append(f'ALTER COLUMN {quote(column)} TYPE {kind} COLLATE "C"')
    for table, changes in by_table.items():
        connection.execute(sa.text(f"ALTER TABLE {quote(table)} {', '.join(changes)}"))


def require(connection: Connection) -> None:
    """What a database must be like to keep evidence.

    Raises:
        CentralError: it does not keep Unicode text, or this role cannot write to it.
    """
    query = sa.text(
        "SELECT current_setting('server_encoding'), current_database(), current_setting('transaction_read_only'),"
        " coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
    )
    encoding, name, read_only, own = connection.execute(query).one()
    if encoding != "UTF8":
        raise CentralError(
            f"database_url: the database {name} is in {encoding}, expected UTF8; make it anew: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    if read_only != "off":
        raise CentralError(f"database_url: the database {name} cannot be written to; {_REMEDIES['25006']}")
    if not own:
        raise CentralError(f"database_url: no right to make tables in the database {name}; {_REMEDIES['42501']}")


def warn(connection: Connection) -> None:
    """Log what makes the server forget what it said it has written."""
    fsync = connection.execute(sa.text("SELECT current_setting('fsync')")).scalar_one()
    if fsync != "on":
        log.warning("database_not_durable", fsync=fsync, do="set fsync = on in postgresql.conf: a power cut loses data")
