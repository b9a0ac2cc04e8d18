"""File descriptors: every open request to a machine is one, and the usual limit of 1024 is a small fleet's."""

from __future__ import annotations

import resource

import structlog

RESERVED = 256
"""Left for everything else: databases, broker, field bus, logs."""
_UNLIMITED = 1 << 20
"""What "no limit" is taken as."""


def descriptors_for(wanted: int) -> int:
    """Room for so many connections at once; the process's soft limit is raised to its hard one where need be.

    To the hard one at once: several fleets in one process ask for themselves alone. Everything here waits by epoll, so
    that descriptors above 1023 are as good as others.

    Args:
        wanted: connections that should be possible at the same time.

    Returns:
        How many are possible, at most ``wanted`` and at least 1. Where it is fewer, a warning says what to set.
    """
    soft, hard = (_UNLIMITED if value == resource.RLIM_INFINITY else value for value in _limits())
    needed = wanted + RESERVED
    if soft < needed:
        target = min(_UNLIMITED, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, _limits()[1]))
            soft = target
        except (OSError, ValueError):
            pass  # what could not be raised is told below
    possible = max(1, min(wanted, soft - RESERVED))
    if possible < wanted:
        structlog.get_logger(__name__).warning(
            "file_descriptors_too_few",
            limit=soft,
            needed=needed,
            connections=possible,
            do=f"set LimitNOFILE={needed} in the service (or ulimit -n {needed}); until then fewer machines at once",
        )
    return possible


def _limits() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)
