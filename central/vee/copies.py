"""Every log of verdicts once more, as a file beside the database that is only ever added to.

A database that was put back to an older day has lost lines that witnesses have seen and bundles have carried. Written
anew they would be a second history. So the lines go into ``<data_dir>/vee/<site>.tzr`` too, after their transaction;
and before anything is added, the database takes back from there what it lacks.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from central.errors import CentralError
from central.store.schema import verdicts
from central.vee.book import Grown, grow, stand_of
from wire.errors import BadRecord
from wire.keys import SigningKey
from wire.names import check_site
from wire.records import MAX_PAYLOAD
from wire.verdicts import MAX_FINDINGS, open_verdict, verdict_of

log = structlog.get_logger(__name__)

MAX_LINE = MAX_PAYLOAD + 256
AT_ONCE = 500


class Copies:
    """The files of all sites, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, site: str) -> Path:
        """The file of one log."""
        return self._folder / f"{check_site(site)}.tzr"

    def level(self, connection: Connection, site: str, key: SigningKey, now_ms: int) -> int:
        """Take back what the file has and the database has not, in the caller's transaction.

        Returns:
            Lines that were taken back.

        Raises:
            CentralError: the file tells another history than the database, or was altered.
        """
        path = self.path(site)
        last = _last(path)
        if last is None:
            return 0
        there, line = last
        here = stand_of(connection, site)[0].size
        if there <= here:
            _same(connection, site, there - 1, line, path)
            return 0
        with path.open("rb") as file:
            lines = [raw[:-1] for n, raw in enumerate(_whole(file)) if n >= here - 1]
        if here:
            _same(connection, site, here - 1, lines.pop(0), path)
        grown = _checked(here, lines, key, path)
        if grown:
            grow(connection, site, grown, key, now_ms)
            log.warning("verdicts_taken_back", site=site, lines=len(grown), of=here + len(grown), file=str(path))
        return len(grown)

    def add(self, connection: Connection, site: str) -> None:
        """Write what the database has and the file has not. After the commit: the file must never be ahead by more.

        Raises:
            OSError: the file cannot be written.
        """
        size = stand_of(connection, site)[0].size
        path = self.path(site)
        last = _last(path)
        if size <= (last[0] if last else 0):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file, _locked(file.fileno()):
            last = _last(path)
            os.ftruncate(file.fileno(), _end(path))
            query = (
                sa.select(verdicts.c.line)
                .where(verdicts.c.site == site, verdicts.c.n >= (last[0] if last else 0), verdicts.c.n < size)
                .order_by(verdicts.c.n)
                .execution_options(yield_per=AT_ONCE)
            )
            for (line,) in connection.execute(query):
                file.write(bytes(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _end(path: Path) -> int:
    """Where the last whole line of a file ends; after a power cut there may be more."""
    at = path.stat().st_size
    with path.open("rb") as file:
        while at > 0:
            begin = max(0, at - MAX_LINE)
            file.seek(begin)
            found = file.read(at - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            at = begin
    return 0


def _last(path: Path) -> tuple[int, bytes] | None:
    """How many whole lines a file has, by the number in its last one, and that line."""
    try:
        end = _end(path)
    except FileNotFoundError:
        return None
    if not end:
        return None
    with path.open("rb") as file:
        file.seek(max(0, end - MAX_LINE - 1))
        line = file.read(end - file.tell())[:-1].rpartition(b"\n")[2]
    try:
        return int(verdict_of(line)["n"]) + 1, line
    except BadRecord as error:
        raise CentralError(f"{path}: its last line is no verdict ({error}); move the file away and keep it") from None


def _whole(file: Iterator[bytes]) -> Iterator[bytes]:
    return (raw for raw in file if raw.endswith(b"\n"))


def _same(connection: Connection, site: str, n: int, line: bytes, path: Path) -> None:
    here = connection.execute(sa.select(verdicts.c.line).where(verdicts.c.site == site, verdicts.c.n == n)).scalar()
    if here is None or bytes(here) != line:
        raise CentralError(
            f"log of verdicts on {site}: line {n} of the database is not line {n} of {path}: two histories. Nothing is "
            "added. Keep both, and restore the database to which the file belongs"
        )


def _checked(first: int, lines: list[bytes], key: SigningKey, path: Path) -> list[Grown]:
    """Lines with their documents, up to the end of the last run that is whole."""
    found: list[Grown] = []
    whole = behind = 0
    for n, line in enumerate(lines, first):
        try:
            record, doc = open_verdict(line, key.public)
        except BadRecord as error:
            raise CentralError(f"{path}: line {n}: {error}") from None
        if not behind and doc["ty"] == "vee_run":
            behind = min(doc["findings_n"], MAX_FINDINGS) + 1
        found.append(Grown(record, doc))
        behind -= 1
        whole = len(found) if not behind else whole
    return found[:whole]
