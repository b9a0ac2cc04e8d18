"""A real PostgreSQL server for tests, of this machine's own package, in a folder and on a port of its own.

Names sort by the rules of a language there, not by bytes, as on most servers that an operator already has.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
from ports import free_ports

PASSWORD = "p@ss:w/r#d?%20é"
ROLE = "tizgin"
_IDENTITIES = ("postgres", "nobody")
_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def programs() -> Path | None:
    """Folder of the newest server's programs: Debian keeps them off PATH."""
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if (p / "initdb").exists()]
    if found:
        return max(found, key=lambda p: float(p.parent.name))
    there = shutil.which("initdb")
    return Path(there).resolve().parent if there else None


def required_programs() -> Path:
    """The same; the test is left out, by name, where there is no server."""
    folder = programs()
    if folder is None:
        pytest.skip("left out: no PostgreSQL server here; sudo apt-get install postgresql")
    return folder


class PostgresServer:
    """One server. It refuses to run as root, so there it runs as another user of this machine."""

    def __init__(self, bin_folder: Path, *, durable: bool = False) -> None:
        self.bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="tizgin-pg-"))
        (self.port,) = free_ports(1)
        self.log = self.folder / "log"
        self._durable = durable
        self._numbers = count()
        self._shared: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, object] = {}
        if os.getuid() == 0:
            entry = next(e for name in _IDENTITIES if (e := _entry(name)) is not None)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self._user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self._init()
        self.start()
        self.run("psql", "-c", f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'", database="postgres")

    def _init(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        command = ["initdb", "-D", str(self.folder / "data"), "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        if b"--icu-locale" in self._call(["initdb", "--help"]).stdout:
            command += ["--locale-provider=icu", "--icu-locale=ru-KZ"]
        self._call(command)

    def _call(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            capture_output=True,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | environment,
            check=False,
            **self._user,
        )
        assert done.returncode == 0, (command, done.stderr.decode(errors="replace")[-2000:])
        return done

    def start(self) -> None:
        """Start and wait until it takes connections; after a kill it recovers first."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder}
        settings |= {"shared_buffers": "16MB", "max_connections": 60, "log_statement": "none"}
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.bin / "postgres"), "-D", str(self.folder / "data"), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._user,
            )
        deadline = time.monotonic() + 30
        ready = [str(self.bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, "no PostgreSQL within 30 s"
            time.sleep(0.03)

    def kill(self) -> None:
        """kill -9 of the server and, without a word, of every process that serves a connection."""
        assert self._process is not None
        self._signal_all(signal.SIGKILL)
        self._process.wait(10)
        time.sleep(0.1)

    def hang(self) -> None:
        """Every process of it stands still; connections stay open, and nothing is answered on them."""
        self._signal_all(signal.SIGSTOP)

    def wake(self) -> None:
        """End of :meth:`hang`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        self._process.send_signal(number)
        for child in children.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), number)

    def stop(self) -> None:
        """Stop and leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str, database: str) -> bytes:
        """A client program as the superuser; its output."""
        command = [program, "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, *arguments]
        if program == "psql":
            command[1:1] = ["-X", "-q", "-v", "ON_ERROR_STOP=1"]
        return self._call(command, PGPASSWORD=PASSWORD).stdout

    def create(self, name: str | None = None, *, encoding: str = "UTF8", disk: Path | None = None) -> str:
        """URL of a new database that belongs to central's role; its tables on a disk of their own, if one is given."""
        name = name or f"t{next(self._numbers)}"
        options = f"TEMPLATE template0 ENCODING '{encoding}'"
        if encoding != "UTF8":
            options += " LOCALE_PROVIDER libc LOCALE 'C'"
        if disk is not None:
            if self._user:
                os.chown(disk, int(str(self._user["user"])), int(str(self._user["group"])))
            self.sql(f"CREATE TABLESPACE {name} LOCATION '{disk}'")
            options += f" TABLESPACE {name}"
        self.sql(f"CREATE DATABASE {name} OWNER {ROLE} {options}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Away with a database, and with its tablespace where it has one."""
        name = url.rpartition("/")[2]
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")
        self.sql(f"DROP TABLESPACE IF EXISTS {name}")

    def emptied(self) -> str:
        """URL of the one store with this release's tables that all tests share, with nothing in it."""
        from central.store.database import Database
        from central.store.schema import metadata

        if self._shared is None:
            self._shared = self.create()
            Database.open(self._shared).close()
        else:
            name = self._shared.rpartition("/")[2]
            # Whoever had it before is done with it, also where his thread still reads.
            self.sql(_END_OTHERS, name)
            self.sql(f"TRUNCATE {', '.join(metadata.tables)}", name)
        return self._shared

    def sql(self, statement: str, database: str = "postgres") -> None:
        """A statement as the superuser, in no transaction."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "password": PASSWORD}
        with contextlib.closing(psycopg.connect(**where, dbname=database, autocommit=True)) as connection:
            connection.execute(statement)

    def url(self, database: str, *, password: str = PASSWORD, port: int | None = None) -> str:
        """As an operator writes it into central's settings."""
        secret = quote(password, safe="")
        return f"postgresql+psycopg://{ROLE}:{secret}@127.0.0.1:{port or self.port}/{database}"


def _entry(name: str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name)
    return None
