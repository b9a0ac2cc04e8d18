"""Mosquitto as a supervised child process.

It dies with central (parent-death signal), is restarted with back-off when it dies alone, and a child that an earlier
central left behind is recognised by its pid file *and* its command line before it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import select
import shutil
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import structlog

from central.broker import acl, conf
from central.errors import CentralError
from central.paths import Paths

log = structlog.get_logger(__name__)

START_S = 5.0
STOP_S = 1.5
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 30.0
"""A broker that ran this long starts again with the shortest pause."""

# Runs between fork and exec in a fresh interpreter, because code between fork and exec of a process with threads may
# deadlock. The user is set first: a change of user clears the parent-death signal. getppid closes the race in which
# central died before the signal was asked for.
_LAUNCHER = """
import ctypes, os, sys
parent, uid, gid = (int(a) for a in sys.argv[1:4])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(3)
os.execv(sys.argv[4], sys.argv[4:])
"""


def find_mosquitto() -> str:
    """Path of the Mosquitto binary.

    Raises:
        CentralError: it is not installed.
    """
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    if found is None:
        raise CentralError(
            "mosquitto is not installed (looked on PATH, /usr/sbin, /usr/local/sbin): install the broker, on Debian "
            "'apt-get install mosquitto', or set broker.mode: url and run one elsewhere"
        )
    return found


def free_port(host: str) -> int:
    """A TCP port that is free now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class ChildBroker:
    """One Mosquitto for one central. Start, change the sites, stop."""

    def __init__(
        self,
        paths: Paths,
        host: str,
        port: int,
        sites: Iterable[str],
        *,
        witnesses: Iterable[str] = (),
        user: str | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.restarts = 0
        self._paths = paths
        self._any_port = port == 0
        self._sites = tuple(sites)
        self._witnesses = tuple(witnesses)
        self._user = user
        self._process: asyncio.subprocess.Process | None = None
        self._owner: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=40)

    @property
    def pid(self) -> int | None:
        """Process id of the running child."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def _conf_file(self) -> Path:
        return self._paths.broker_dir / "mosquitto.conf"

    @property
    def _acl_file(self) -> Path:
        return self._paths.broker_dir / "acl"

    @property
    def _pid_file(self) -> Path:
        return self._paths.broker_dir / "mosquitto.pid"

    async def start(self) -> None:
        """Start the child and wait until it accepts connections.

        Raises:
            CentralError: Mosquitto is missing, or does not come up; the message has its own last words.
        """
        binary = find_mosquitto()
        await asyncio.to_thread(self._end_stale)
        for attempt in range(3):
            if self._any_port:
                self.port = free_port(self.host)
            await asyncio.to_thread(self._write_files)
            try:
                await self._spawn(binary)
                break
            except CentralError:
                if not self._any_port or attempt == 2:
                    raise
        self._owner = asyncio.create_task(self._supervise(binary), name="broker-supervisor")
        log.info("broker_ready", host=self.host, port=self.port, pid=self.pid, sites=len(self._sites))

    async def stop(self) -> None:
        """End the child; returns within two seconds."""
        if self._owner is not None:
            self._owner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._owner
            self._owner = None
        await self._end_process()
        await asyncio.to_thread(self._pid_file.unlink, missing_ok=True)

    async def set_sites(self, sites: Iterable[str]) -> None:
        """Write the access list anew and let the child read it."""
        self._sites = tuple(sites)
        await asyncio.to_thread(self._write_acl)
        if self.pid is not None:
            os.kill(self.pid, signal.SIGHUP)
        log.info("broker_sites_changed", sites=len(self._sites))

    def _ids(self) -> tuple[int, int]:
        """User and group the child runs under; -1 keeps the current ones."""
        if self._user is None or os.geteuid() != 0:
            return -1, -1
        try:
            entry = pwd.getpwnam(self._user)
        except KeyError:
            raise CentralError(f"broker.user {self._user!r}: this machine has no such user; create it") from None
        return (entry.pw_uid, entry.pw_gid) if entry.pw_uid != 0 else (-1, -1)

    def _write_files(self) -> None:
        folder = self._paths.broker_dir
        keep = folder / "persistence"
        keep.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        uid, gid = self._ids()
        files = {}
        # Copies, because another user must read them and the originals stay 0600 of central's own user.
        for name, source in (
            ("ca.pem", self._paths.ca_file),
            ("broker.pem", self._paths.broker_cert),
            ("broker.key", self._paths.broker_key),
        ):
            try:
                data = source.read_bytes()
            except OSError as error:
                raise CentralError(f"broker needs {source}: {error.strerror}; run 'tizgin central init'") from None
            files[name] = folder / name
            self._put(files[name], data)
        self._write_acl()
        text = conf.render(
            conf.BrokerFiles(files["ca.pem"], files["broker.pem"], files["broker.key"], self._acl_file, keep),
            self.host,
            self.port,
            # Started as root without this line, Mosquitto drops to a user that cannot read the key.
            user="root" if os.geteuid() == 0 and uid < 0 else None,
        )
        self._put(self._conf_file, text.encode())
        if uid >= 0:
            for path in (folder, keep, *keep.iterdir()):
                os.chown(path, uid, gid)

    def _write_acl(self) -> None:
        self._put(self._acl_file, acl.render(self._sites, self._witnesses).encode())

    def _put(self, path: Path, data: bytes) -> None:
        uid, gid = self._ids()
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        if uid >= 0:
            os.chown(beside, uid, gid)
        beside.replace(path)

    def _end_stale(self) -> None:
        """End a broker that an earlier central of this data folder left behind."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii").strip())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if str(self._conf_file).encode() not in words or Path(words[0].decode(errors="replace")).name != "mosquitto":
            return
        log.warning("stale_broker_ended", pid=pid)
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    signal.pidfd_send_signal(fd, number)
                    if select.select([fd], [], [], STOP_S)[0]:
                        return
            finally:
                os.close(fd)

    async def _spawn(self, binary: str) -> None:
        uid, gid = self._ids()
        self._said.clear()
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(uid), str(gid)]
        command += [binary, "-c", str(self._conf_file)]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._process = process
        self._reader = asyncio.create_task(self._listen(process), name="broker-log")
        await asyncio.to_thread(self._put_pid, process.pid)
        deadline = asyncio.get_running_loop().time() + START_S
        while not await self._accepts():
            if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                await self._end_process()
                words = " / ".join(list(self._said)[-4:]) or "nothing"
                raise CentralError(
                    f"mosquitto did not come up on {self.host}:{self.port}; it said: {words}; "
                    "free the port or choose another in broker.port"
                )
            await asyncio.sleep(0.02)

    def _put_pid(self, pid: int) -> None:
        self._pid_file.write_text(f"{pid}\n", encoding="ascii")

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        # Another server may hold the port while our child fails to bind it: only its own word counts.
        return any(line.endswith(" running") for line in self._said)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        while process.stderr is not None and (line := await process.stderr.readline()):
            text = line.decode(errors="replace").rstrip()[:300]
            self._said.append(text)
            log.debug("broker_says", text=text)

    async def _supervise(self, binary: str) -> None:
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            began = loop.time()
            process = self._process
            if process is not None:
                code = await process.wait()
                log.error("broker_died", code=code, said=list(self._said)[-3:])
            if loop.time() - began > STEADY_S:
                tries = 0
            await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1
            try:
                await self._spawn(binary)
                self.restarts += 1
                log.info("broker_restarted", pid=self.pid, port=self.port)
            except (CentralError, OSError) as error:
                self._process = None
                log.error("broker_restart_failed", error=str(error))

    async def _end_process(self) -> None:
        process, reader = self._process, self._reader
        self._process = self._reader = None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if reader is not None:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
