"""A witness as a client of central's broker: its name, its two topics, and what is said on them.

``tizgin/1/witness-<kid>/ask`` carries what HTTP's ``POST /add-checkpoint`` carries, ``…/said`` its status and text; a
first line with a random identifier joins the two. The broker lets a witness read the one and write the other, nothing
else: what it says reaches a site only through central, and only as a cosignature that holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wire.errors import BadNote
from wire.keys import VerifyKey
from wire.names import PREFIX
from wire.notes import NoteKey

CLIENT = re.compile(r"witness-[0-9a-f]{16}")
"""Names of this form belong to witnesses: no site may have one."""
MAX_SAID = 20_000
_ASK = re.compile(rb"id ([0-9a-f]{32})\n")
_SAID = re.compile(rb"id ([0-9a-f]{32})\nstatus ([1-5][0-9]{2})\n")


def client_name(key: NoteKey) -> str:
    """Common name of a witness's TLS certificate: ``witness-`` and the kid of its Ed25519 key.

    Raises:
        BadKey: the key is not a usable Ed25519 key.
    """
    return f"witness-{VerifyKey(key.public).kid}"


def ask_topic(client: str) -> str:
    """Where central asks this witness."""
    return f"{PREFIX}/{_checked(client)}/ask"


def said_topic(client: str) -> str:
    """Where this witness answers."""
    return f"{PREFIX}/{_checked(client)}/said"


def _checked(client: str) -> str:
    if not CLIENT.fullmatch(client):
        raise BadNote(f"witness client {client[:60]!r}: expected witness-<16 hex digits>")
    return client


@dataclass(frozen=True, slots=True)
class Ask:
    """``id <32 hex> LF`` and the body of an ``add-checkpoint`` request."""

    id: str
    body: bytes

    def encode(self) -> bytes:
        """The message's bytes."""
        return f"id {self.id}\n".encode() + self.body

    @classmethod
    def parse(cls, raw: bytes) -> Ask:
        """From a message.

        Raises:
            BadNote: it has no identifier.
        """
        found = _ASK.match(raw)
        if found is None:
            raise BadNote("expected 'id <32 hex digits>' in the first line")
        return cls(found[1].decode(), raw[found.end() :])


@dataclass(frozen=True, slots=True)
class Said:
    """``id <32 hex> LF status <HTTP status> LF`` and the text of the answer."""

    id: str
    status: int
    text: str

    def encode(self) -> bytes:
        """The message's bytes."""
        return f"id {self.id}\nstatus {self.status}\n{self.text}".encode()

    @classmethod
    def parse(cls, raw: bytes) -> Said:
        """From a message.

        Raises:
            BadNote: too long, or not of this form.
        """
        found = _SAID.match(raw)
        if found is None or len(raw) > MAX_SAID:
            raise BadNote(f"expected 'id', 'status' and a text, at most {MAX_SAID} bytes")
        return cls(found[1].decode(), int(found[2]), raw[found.end() :].decode("utf-8", "replace"))
