"""HTTP with digest log-in (RFC 7616), for control and for what the JSON socket does not give.

One connection per request: the web server of a miner forks a process per request on a weak CPU, and an idle connection
would hold one of its few slots. No redirects, no cookies, no proxies from the environment, hard deadline, bounded
answer. Log-ins never appear in errors or logs.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from drivers.asic.credentials import Credentials
from drivers.asic.repair import MAX_BYTES, parse_answer, parse_strict
from drivers.errors import BadAnswer, NoAnswer, NoConnection, Refused

_OK = 200
_SERVER_ERROR = 500
_UNAUTHORISED = (401, 403)


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
        self._digest = (
            aiohttp.DigestAuthMiddleware(credentials.user, credentials.password) if credentials is not None else None
        )

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
            status, challenge, _ = await self._exchange("GET", path, None, self._timeout_s, log_in=False)
        if status not in _UNAUTHORISED or challenge is None:
            return None
        return realm_of(challenge)

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
        async with self._lock:
            status, _, answer = await self._exchange(method, path, body, timeout_s or self._timeout_s)
        if status in _UNAUTHORISED:
            cause = "the log-in is wrong" if self.logs_in else "it wants a log-in and none is configured"
            raise Refused(f"{self.name}{path}: HTTP {status}: {cause}; correct the group's credentials")
        if status >= _SERVER_ERROR:
            raise BadAnswer(f"{self.name}{path}: HTTP {status}, 200 expected; what it did is not known")
        if status != _OK:
            raise Refused(f"{self.name}{path}: HTTP {status}, 200 expected")
        return answer

    async def _exchange(
        self, method: str, path: str, body: bytes | None, timeout_s: float, *, log_in: bool = True
    ) -> tuple[int, str | None, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        middlewares = (self._digest,) if self._digest is not None and log_in else ()
        connector = aiohttp.TCPConnector(limit=1, force_close=True, use_dns_cache=False)
        try:
            async with (
                asyncio.timeout(timeout_s),
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=None),
                    middlewares=middlewares,
                ) as session,
                session.request(
                    method,
                    URL.build(scheme="http", host=self.host, port=self.port, path=path),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                answer = await self._read(response, path)
                return response.status, response.headers.get("WWW-Authenticate"), answer
        except TimeoutError as error:
            raise NoAnswer(f"{self.name}{path}: no complete answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Only the kind and the system's own text: an HTTP library's message may quote headers.
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise NoConnection(f"{self.name}{path}: {reason}") from error

    async def _read(self, response: aiohttp.ClientResponse, path: str) -> bytes:
        answer = bytearray()
        async for chunk in response.content.iter_any():
            answer += chunk
            if len(answer) > self._max_bytes:
                raise BadAnswer(f"{self.name}{path}: answer larger than {self._max_bytes} bytes")
        return bytes(answer)


def realm_of(challenge: str) -> str | None:
    """The ``realm`` of a ``WWW-Authenticate`` header, or ``None``."""
    _, found, rest = challenge[:1000].partition('realm="')
    realm, closed, _ = rest.partition('"')
    return realm if found and closed else None
