"""A TPM 2.0 in software: swtpm, the resource manager that shares it out, and the PKCS#11 library of tpm2-pkcs11.

A plant's computer has the chip and the kernel's resource manager (``/dev/tpmrm0``) in place of the first two; the
library is the same.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ports import port_run
from soft_token import LABEL, PIN, SoftToken

MODULES = (
    "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/pkcs11/libtpm2_pkcs11.so",
)
MODULE = next((path for path in MODULES if Path(path).exists()), None)
PROGRAMS = ("swtpm", "tpm2-abrmd", "tpm2_ptool", "dbus-daemon")


@dataclass(frozen=True)
class TpmToken(SoftToken):
    """One token, made by :func:`tpm_token`."""

    port: int
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def put_back(self) -> None:
        """The chip and its resource manager answer."""
        chip = f"type=tcp,bindaddr=127.0.0.1,port={self.port}"
        control = f"type=tcp,bindaddr=127.0.0.1,port={self.port + 1}"
        state = f"dir={self.folder / 'chip'}"
        flags = "not-need-init,startup-clear"
        args = ["swtpm", "socket", "--tpm2", "--tpmstate", state, "--server", chip, "--ctrl", control, "--flags", flags]
        self._run(args)
        self._until(lambda: _listens(self.port), "swtpm listens")
        tcti = f"--tcti=swtpm:host=127.0.0.1,port={self.port}"
        self._run(["tpm2-abrmd", "--session", "--allow-root", tcti])
        self._until(_has_owner, "the resource manager is on the bus")

    def pull(self) -> None:
        """The chip is gone."""
        for process in reversed(self.running):
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        self.running.clear()

    def _run(self, args: list[str]) -> None:
        log = (self.folder / f"{args[0]}.log").open("ab")
        self.running.append(subprocess.Popen(args, stdout=log, stderr=log))

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert all(p.poll() is None for p in self.running), f"{what}: ended; see {self.folder}"
            assert time.monotonic() < deadline, what
            time.sleep(0.05)


def _listens(port: int) -> bool:
    # A connection would be the chip's only one: looked up, not tried.
    wanted = f"0100007F:{port:04X}"
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1] == wanted and row.split()[3] == "0A" for row in rows)


def _has_owner() -> bool:
    args = ["dbus-send", "--session", "--dest=org.freedesktop.DBus", "--print-reply=literal", "/org/freedesktop/DBus"]
    args += ["org.freedesktop.DBus.NameHasOwner", "string:com.intel.tss2.Tabrmd"]
    done = subprocess.run(args, capture_output=True, timeout=10, check=False)
    return b"true" in done.stdout


@contextlib.contextmanager
def _bus(folder: Path) -> Iterator[str]:
    """Address of a message bus of our own."""
    args = ["dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address=unix:path={folder / 'bus'}"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            process.kill()


@contextlib.contextmanager
def tpm_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TpmToken]:
    """A new token in a new chip; skipped where what it needs is not installed."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if MODULE is None or lacking or importlib.util.find_spec("pkcs11") is None:
        pytest.skip(f"no TPM in software ({', '.join(lacking) or 'libraries'} missing): run deploy/setup.sh test")
    for name in ("chip", "store"):
        (folder / name).mkdir(parents=True)
    with _bus(folder) as address:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        for name in ("TPM2_PKCS11_TCTI", "TPM2TOOLS_TCTI"):
            monkeypatch.setenv(name, "tabrmd:bus_type=session")
        monkeypatch.setenv("TPM2_PKCS11_STORE", str(folder / "store"))
        made = TpmToken(folder, MODULE, port_run(2))
        try:
            made.put_back()
            for words in (
                ["init"],
                ["addtoken", "--pid=1", f"--label={LABEL}", "--sopin=12345678", f"--userpin={PIN}"],
            ):
                done = subprocess.run(
                    ["tpm2_ptool", *words, f"--path={folder / 'store'}"],
                    capture_output=True, timeout=60, check=False, env=dict(os.environ),
                )  # fmt: skip
                assert done.returncode == 0, done.stderr.decode()
            made.write_pin()
            yield made
        finally:
            made.pull()
