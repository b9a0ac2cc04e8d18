"""Names: sites, epochs, streams, topics, client ids."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wire.errors import WireError

SITE = re.compile(r"[a-z0-9][a-z0-9-]{1,40}")
EPOCH = re.compile(r"e[0-9]{1,6}-[0-9a-f]{8}")
STREAM = re.compile(r"mp:[A-Za-z0-9][A-Za-z0-9_.-]{0,60}|site|cmd|bal")
PREFIX = "tizgin/1"
VERDICTS = "vee"
"""Stands in the place of the epoch in the origin of a collector's log of verdicts."""

UP = ("state", "heads", "inventory", "evidence", "checkpoint", "answer", "progress", "bulk", "live", "csr")
"""Topics a site may write."""
DOWN = ("order", "commit", "want", "cosign", "keys", "cert")
"""Topics a site may read."""
RETAINED = frozenset({"state", "keys"})


def check_site(site: str) -> str:
    """The site id, if it is one.

    Raises:
        WireError: it is not.
    """
    if not SITE.fullmatch(site):
        raise WireError(f"site id {site[:60]!r}: expected 2-41 of a-z, 0-9, '-' and not '-' first")
    return site


def check_epoch(epoch: str) -> str:
    """The epoch, if it is one (``e<counter>-<8 hex>``)."""
    if not EPOCH.fullmatch(epoch):
        raise WireError(f"epoch {epoch[:40]!r}: expected e<counter>-<8 hex digits>")
    return epoch


def topic(site: str, name: str) -> str:
    """``tizgin/1/<site>/<name>``."""
    if name not in UP and name not in DOWN:
        raise WireError(f"topic {name!r} is not in the contract")
    return f"{PREFIX}/{check_site(site)}/{name}"


@dataclass(frozen=True, slots=True)
class Topic:
    """A parsed topic."""

    site: str
    name: str


def parse_topic(text: str) -> Topic:
    """Parse a full topic.

    Raises:
        WireError: not a topic of this contract.
    """
    parts = text.split("/")
    if len(parts) != 4 or "/".join(parts[:2]) != PREFIX or parts[3] not in (*UP, *DOWN):
        raise WireError(f"topic {text[:120]!r} is not tizgin/1/<site>/<name>")
    return Topic(check_site(parts[2]), parts[3])


def origin(site: str, epoch: str) -> str:
    """Log origin of one life of a site's ledger."""
    return f"tizgin/{site}/{epoch}"
