"""The client's side of HTTP digest log-in (RFC 7616; RFC 2617 where a server is that old). No I/O."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable

from drivers.asic.credentials import Credentials

_PAIR = re.compile(r'([A-Za-z*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_HASHES = {"md5": "md5", "sha-256": "sha256"}
MAX_CHALLENGE_CHARS = 2000


class Digest:
    """Answers challenges with one log-in; remembers the server's nonce, which saves a round trip per request.

    Args:
        credentials: user and password.
        cnonce: makes the client's own random text.
    """

    __slots__ = ("_algorithm", "_cnonce", "_count", "_credentials", "_nonce", "_opaque", "_qop", "_realm")

    def __init__(self, credentials: Credentials, *, cnonce: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self._credentials = credentials
        self._cnonce = cnonce
        self._nonce: str | None = None
        self._realm = ""
        self._opaque: str | None = None
        self._algorithm: str | None = None
        self._qop = False
        self._count = 0

    def __repr__(self) -> str:
        return f"Digest(user={self._credentials.user!r}, password=<hidden>)"

    def challenged(self, header: str | None) -> bool:
        """Take a ``WWW-Authenticate`` header; False where it holds no digest challenge that can be answered."""
        kind, _, rest = (header or "")[:MAX_CHALLENGE_CHARS].partition(" ")
        if kind.lower() != "digest":
            return False
        fields = {name.lower(): _plain(quoted) if quoted else bare for name, quoted, bare in _PAIR.findall(rest)}
        algorithm = fields.get("algorithm")
        qops = [word.strip() for word in fields["qop"].split(",")] if "qop" in fields else None
        if "nonce" not in fields or (algorithm or "md5").lower().removesuffix("-sess") not in _HASHES:
            return False
        if qops is not None and "auth" not in qops:
            return False  # integrity of the body alone: nobody in this field asks for it
        self._nonce = fields["nonce"]
        self._realm = fields.get("realm", "")
        self._opaque = fields.get("opaque")
        self._algorithm = algorithm
        self._qop = qops is not None
        self._count = 0
        return True

    def header(self, method: str, target: str) -> str | None:
        """``Authorization`` for a request, or ``None`` before the first challenge."""
        if self._nonce is None:
            return None
        self._count += 1
        name = (self._algorithm or "md5").lower()
        user, cnonce, count = self._credentials.user, self._cnonce(), f"{self._count:08x}"

        def digest(text: str) -> str:
            return hashlib.new(_HASHES[name.removesuffix("-sess")], text.encode(), usedforsecurity=False).hexdigest()

        secret = digest(f"{user}:{self._realm}:{self._credentials.password}")
        if name.endswith("-sess"):
            secret = digest(f"{secret}:{self._nonce}:{cnonce}")
        what = digest(f"{method}:{target}")
        middle = f"{self._nonce}:{count}:{cnonce}:auth" if self._qop else self._nonce
        parts = [
            f'username="{_quoted(user)}"',
            f'realm="{_quoted(self._realm)}"',
            f'nonce="{_quoted(self._nonce)}"',
            f'uri="{target}"',
            f'response="{digest(f"{secret}:{middle}:{what}")}"',
        ]
        if self._algorithm is not None:
            parts.append(f"algorithm={self._algorithm}")
        if self._opaque is not None:
            parts.append(f'opaque="{_quoted(self._opaque)}"')
        if self._qop or name.endswith("-sess"):
            parts += ["qop=auth", f"nc={count}", f'cnonce="{cnonce}"']
        return "Digest " + ", ".join(parts)


def _plain(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted)


def _quoted(plain: str) -> str:
    return plain.replace("\\", "\\\\").replace('"', '\\"')
