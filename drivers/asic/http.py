"""HTTP with digest log-in (RFC 7616), for control and for what the JSON socket does not give.

One connection per request: the web server of a miner forks a process per request on a weak CPU, and an idle connection
would hold one of its few slots. No redirects, no cookies, no proxies from the environment, hard deadline, bounded
answer. Log-ins never appear in errors or logs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import msgspec

from drivers.asic.credentials import Credentials
from drivers.asic.digest import Digest
from drivers.asic.http_wire import NotHttp, Reply, http_exchange
from drivers.asic.repair import MAX_BYTES, parse_answer, parse_strict
from drivers.errors import BadAnswer, NoAnswer, NoConnection, Refused

_OK = 200
_SERVER_ERROR = 500
_UNAUTHORISED = (401, 403)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One answer, whatever its status. ``repr`` shows no body and no cookie: either may hold a token."""

    status: int
    body: bytes = field(repr=False)
    challenge: str | None = None
    """``WWW-Authenticate``."""
    cookies: tuple[str, ...] = field(default=(), repr=False)
    """``Set-Cookie`` headers."""
    retry_after: str | None = None


class HttpClient:
    """Client of one machine's web interface; one open request at a time.

    Args:
        host: address or name.
        port: TCP port.
        credentials: log-in, or ``None`` for none.
        timeout_s: deadline of one request, log-in included, waiting for a previous one not included.
        max_bytes: larger answers are refused while they arrive.
    """

    def __init__(
        self,
        host: str,
        port: int = 80,
        *,
        credentials: Credentials | None = None,
        timeout_s: float = 5.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.host = host
        self.port = port
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()
        # Kept per machine: it remembers the server's nonce, which saves the round trip of a fresh challenge.
        self._digest = Digest(credentials) if credentials is not None else None

    @property
    def name(self) -> str:
        """What errors call the machine."""
        return f"miner http://{self.host}:{self.port}"

    @property
    def busy(self) -> bool:
        """True while a request is open; a reading that can wait should then wait for the next turn."""
        return self._lock.locked()

    @property
    def logs_in(self) -> bool:
        """True where a log-in was given."""
        return self._digest is not None

    async def get_json(self, path: str, *, timeout_s: float | None = None, strict: bool = False) -> dict[str, Any]:
        """GET a JSON object; ``strict`` refuses what had to be repaired.

        Raises:
            DriverError: see :meth:`request`; ``BadAnswer`` also where it is no JSON object.
        """
        body = await self.request("GET", path, timeout_s=timeout_s)
        parse = parse_strict if strict else parse_answer
        return parse(body, source=f"{self.name}{path}", max_bytes=self._max_bytes)

    async def post_json(self, path: str, value: dict[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
        """POST an object as JSON, return the object answered.

        Raises:
            DriverError: see :meth:`request`. After ``NoAnswer``, ``NoConnection`` and ``BadAnswer`` it is not known
                whether the machine took it.
        """
        body = await self.request("POST", path, body=msgspec.json.encode(value), timeout_s=timeout_s)
        return parse_answer(body, source=f"{self.name}{path}", max_bytes=self._max_bytes)

    async def realm(self, path: str = "/") -> str | None:
        """The realm of the log-in challenge of a page, asked without logging in; ``None`` where it asks for none.

        Raises:
            NoConnection: nothing listens there.
            NoAnswer: nothing complete within the deadline.
        """
        async with self._lock:
            answer = await self._exchange("GET", path, None, self._timeout_s, log_in=False)
        if answer.status not in _UNAUTHORISED or answer.challenge is None:
            return None
        return realm_of(answer.challenge)

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> HttpAnswer:
        """One request with headers of the caller's own; every status is an answer.

        Raises:
            NoConnection: refused, unreachable, broken, or no HTTP.
            NoAnswer: nothing complete within the deadline.
            BadAnswer: larger than ``max_bytes``.
        """
        async with self._lock:
            return await self._exchange(method, path, body, timeout_s or self._timeout_s, headers=headers)

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, timeout_s: float | None = None
    ) -> bytes:
        """One request, its whole answer.

        Raises:
            NoConnection: refused, unreachable, broken, or no HTTP.
            NoAnswer: nothing complete within the deadline.
            Refused: any status but 200 below 500; 401 names the log-in as the cause.
            BadAnswer: larger than ``max_bytes``, or a server error: a program that fell over half-way may have done
                what it was told.
        """
        answer = await self.exchange(method, path, body=body, timeout_s=timeout_s)
        status = answer.status
        if status in _UNAUTHORISED:
            cause = "the log-in is wrong" if self.logs_in else "it wants a log-in and none is configured"
            raise Refused(f"{self.name}{path}: HTTP {status}: {cause}; correct the group's credentials")
        if status >= _SERVER_ERROR:
            raise BadAnswer(f"{self.name}{path}: HTTP {status}, 200 expected; what it did is not known")
        if status != _OK:
            raise Refused(f"{self.name}{path}: HTTP {status}, 200 expected")
        return answer.body

    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        timeout_s: float,
        *,
        log_in: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        if not self.port:
            raise NoConnection(f"miner {self.host}: the port of its web interface is not known; give it")
        sent = {**({"Content-Type": "application/json"} if body is not None else {}), **(headers or {})}
        digest = self._digest if log_in else None
        give_up_s = monotonic() + timeout_s
        try:
            reply = await self._once(method, path, body, sent, digest, timeout_s)
            if reply.status in _UNAUTHORISED and digest is not None and digest.challenged(_challenge(reply)):
                # The first request to a machine, or the server has a new nonce: once more, with what it wants.
                reply = await self._once(method, path, body, sent, digest, give_up_s - monotonic())
        except TimeoutError as error:
            raise NoAnswer(f"{self.name}{path}: no complete answer within {timeout_s:g} s") from error
        except NotHttp as error:
            raise NoConnection(f"{self.name}{path}: {error}") from error
        except BadAnswer as error:
            raise BadAnswer(f"{self.name}{path}: {error}") from error
        except (OSError, ValueError) as error:
            # Only the kind and the system's own text: a request that cannot be written may hold a log-in.
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise NoConnection(f"{self.name}{path}: {reason}") from error
        return HttpAnswer(
            status=reply.status,
            body=reply.body,
            challenge=_challenge(reply),
            cookies=reply.all("set-cookie")[:8],
            retry_after=reply.header("retry-after"),
        )

    async def _once(
        self, method: str, path: str, body: bytes | None, sent: dict[str, str], digest: Digest | None, timeout_s: float
    ) -> Reply:
        given = digest.header(method, path) if digest is not None else None
        return await http_exchange(
            self.host,
            self.port,
            method,
            path,
            headers=sent if given is None else {**sent, "Authorization": given},
            body=body,
            timeout_s=timeout_s,
            max_bytes=self._max_bytes,
        )

    def value_of(self, answer: HttpAnswer, path: str) -> Any:
        """The JSON value of an answer: an object, repaired where need be, or a list, number or truth value.

        Raises:
            BadAnswer: it is none.
        """
        source = f"{self.name}{path}"
        try:
            return msgspec.json.decode(answer.body.strip(b"\x00 \r\n\t"))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return parse_answer(answer.body, source=source, max_bytes=self._max_bytes)


def _challenge(reply: Reply) -> str | None:
    """The digest challenge of an answer where it offers several ways to log in; else its first."""
    offered = reply.all("www-authenticate")
    return next((one for one in offered if one.lower().startswith("digest ")), offered[0] if offered else None)


def realm_of(challenge: str) -> str | None:
    """The ``realm`` of a ``WWW-Authenticate`` header, or ``None``."""
    _, found, rest = challenge[:1000].partition('realm="')
    realm, closed, _ = rest.partition('"')
    return realm if found and closed else None
