"""In the child: no address but the asked machine's, no other program, no file written. Standard library only.

An audit hook cannot be taken off again, and every connection that Python code makes passes it: sockets of ``asyncio``,
``httpx``, ``asyncssh`` and the rest alike. Each request runs in a context of its own that holds the one address it may
speak to; code outside any request may speak to nobody. It is a fence against a library that calls home or follows a
redirect, not against code that was made to break out of a process: that is the operating system's business.
"""

from __future__ import annotations

import resource
import signal
import socket
import sys
from contextlib import suppress
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any

MACHINE: ContextVar[str | None] = ContextVar("machine", default=None)
"""Address (a number) of the machine that the running request asks."""

_PR_SET_PDEATHSIG = 1

_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
_SENDS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_PROGRAMS = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "pty.spawn",
        "subprocess.Popen",
    }
)


class OutsideCall(ConnectionRefusedError):
    """A call to anybody but the asked machine; it was not made."""


def limit(memory_bytes: int, files: int) -> None:
    """Bound this process for good: address space, open files, no file written, no core dump."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone, also where it is stuck. Linux; elsewhere nothing."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def fence() -> None:
    """From here on only :data:`MACHINE` can be spoken to. Cannot be undone."""
    sys.addaudithook(_watch)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event in _SENDS:
        _check_send(event, args)
    elif event in _LOOKUPS:
        _check(event, args[0])
    elif event == "socket.bind":
        raise OutsideCall("socket.bind: nothing listens here")
    elif event in _PROGRAMS:
        raise OutsideCall(f"{event}: no other program is started here")


def _check_send(event: str, args: tuple[Any, ...]) -> None:
    sock, address = args[0], args[1]
    if address is None and event != "socket.connect":
        return  # on a connection that was let through when it was made
    family = getattr(sock, "family", None)
    if family not in {socket.AF_INET, socket.AF_INET6} or not isinstance(address, tuple) or not address:
        raise OutsideCall(f"{event}: {str(address)[:60]!r} is no address of a machine")
    _check(event, address[0])


def _check(event: str, host: object) -> None:
    allowed = MACHINE.get()
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        same = allowed is not None and ip_address(text) == ip_address(allowed)
    except ValueError:
        same = False
    if not same:
        raise OutsideCall(f"{event}: {text[:60]!r} is not the machine that was asked ({allowed})")
