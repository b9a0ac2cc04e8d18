"""HTTP with a log-in that gives a token for a while: bearer tokens, token headers, session cookies.

A token is kept and used again; when the machine calls it expired there is one fresh log-in. Log-ins that failed are
not repeated for a while, because firmwares shut out whoever tries too often. No token or password is ever in an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import msgspec

from drivers.asic.credentials import Credentials
from drivers.asic.http import HttpAnswer, HttpClient
from drivers.errors import BadAnswer, DriverError, Refused

_OK = range(200, 300)
_UNAUTHORISED = (401, 403)
_TOO_MANY = 429
_SERVER_ERROR = 500
RETRY_S = 20.0
"""Pause after a log-in was refused: long enough not to be shut out, short enough for an order that is under way."""
MAX_RETRY_S = 900.0
MAX_TOKEN_CHARS = 4096


@dataclass(frozen=True, slots=True)
class Token:
    """What a log-in gave."""

    value: str = field(repr=False)
    life_s: float
    """Used no longer than this, whatever the machine says."""


LogIn = Callable[[HttpClient, Credentials], Awaitable[Token]]
"""Logs in; raises ``Refused`` where the machine says no (see :func:`checked`)."""


class SessionHttp:
    """One machine's web interface behind a log-in.

    Args:
        http: the client beneath, made without credentials of its own.
        credentials: the log-in, or ``None``.
        log_in: how a token is got.
        header: how a token is shown.
        mono: monotonic clock in seconds.
    """

    def __init__(
        self,
        http: HttpClient,
        credentials: Credentials | None,
        *,
        log_in: LogIn,
        header: Callable[[str], Mapping[str, str]],
        mono: Callable[[], float] = monotonic,
    ) -> None:
        self.http = http
        self._credentials = credentials
        self._log_in = log_in
        self._header = header
        self._mono = mono
        self._token: Token | None = None
        self._token_until = float("-inf")
        self._not_before = float("-inf")

    @property
    def name(self) -> str:
        """What errors call the machine."""
        return self.http.name

    @property
    def has_log_in(self) -> bool:
        """True where a log-in is configured."""
        return self._credentials is not None

    def may_log_in(self) -> bool:
        """False while no log-in is configured, or the last one was refused too short a time ago."""
        return self._credentials is not None and self._mono() >= self._not_before

    async def get(self, path: str, *, open_: bool = False, timeout_s: float | None = None) -> Any:
        """GET a JSON value; ``open_`` where the machine wants no log-in for it.

        Raises:
            DriverError: see :meth:`call`.
        """
        return await self.call("GET", path, open_=open_, timeout_s=timeout_s)

    async def call(
        self, method: str, path: str, value: object = None, *, open_: bool = False, timeout_s: float | None = None
    ) -> Any:
        """One request; its JSON value, ``None`` where the answer is empty.

        Raises:
            Refused: no log-in is configured or it is wrong, or the machine refused the request: it was not done.
            NoConnection: refused, unreachable or broken.
            NoAnswer: nothing complete within the deadline.
            BadAnswer: no JSON, too large, or a server error: a write may have been done.
        """
        # A POST or PUT without anything to say still tells that its length is 0: some servers refuse it otherwise.
        empty = None if method == "GET" else b""
        body = empty if value is None else msgspec.json.encode(value)
        if open_:
            answer = await self.http.exchange(method, path, body=body, timeout_s=timeout_s)
            return checked(self.http, path, answer)
        fresh = self._token is None or self._mono() >= self._token_until
        answer = await self._with_token(method, path, body, timeout_s)
        if answer.status in _UNAUTHORISED and not fresh:
            # Expired or dropped: it says so before doing anything, so that asking again repeats nothing.
            self.forget()
            answer = await self._with_token(method, path, body, timeout_s)
        if answer.status in _UNAUTHORISED:
            self.forget()
        return checked(self.http, path, answer)

    def forget(self) -> None:
        """Drop the token; the next request logs in."""
        self._token = None

    async def _with_token(self, method: str, path: str, body: bytes | None, timeout_s: float | None) -> HttpAnswer:
        token = await self._fresh_token()
        return await self.http.exchange(method, path, body=body, headers=self._header(token.value), timeout_s=timeout_s)

    async def _fresh_token(self) -> Token:
        if self._token is not None and self._mono() < self._token_until:
            return self._token
        if self._credentials is None:
            raise Refused(f"{self.name}: this needs a log-in and none is configured; give the group credentials")
        if self._mono() < self._not_before:
            wait_s = self._not_before - self._mono()
            raise Refused(
                f"{self.name}: the last log-in was refused; not tried again for {wait_s:.0f} s; "
                "correct the group's credentials"
            )
        try:
            token = await self._log_in(self.http, self._credentials)
        except TooManyLogIns as error:
            self._not_before = self._mono() + error.wait_s
            raise
        except Refused:
            self._not_before = self._mono() + RETRY_S
            raise
        if not 0 < len(token.value) <= MAX_TOKEN_CHARS or not token.value.isascii() or not token.value.isprintable():
            raise BadAnswer(f"{self.name}: the log-in gave no token that could be sent back")
        self._token = token
        self._token_until = self._mono() + token.life_s
        return token


def bearer(token: str) -> Mapping[str, str]:
    """A token shown as RFC 6750 wants it."""
    return {"Authorization": f"Bearer {token}"}


class TooManyLogIns(Refused):
    """The machine wants a pause before the next log-in."""

    wait_s: float = RETRY_S


def checked(http: HttpClient, path: str, answer: HttpAnswer) -> Any:
    """The JSON value of an answer with a good status; ``None`` for an empty one.

    Raises:
        Refused: any other status below 500.
        BadAnswer: a server error, or no JSON.
    """
    where = f"{http.name}{path}: HTTP {answer.status}"
    if answer.status in _OK:
        return http.value_of(answer, path) if answer.body.strip() else None
    if answer.status in _UNAUTHORISED:
        raise Refused(f"{where}: the log-in is wrong or missing; correct the group's credentials")
    if answer.status == _TOO_MANY:
        error = TooManyLogIns(f"{where}: too many requests; it wants a pause")
        error.wait_s = _wait_s(answer.retry_after)
        raise error
    if answer.status >= _SERVER_ERROR:
        raise BadAnswer(f"{where}, 200 expected; what it did is not known")
    raise Refused(f"{where}, 200 expected")


def _wait_s(retry_after: str | None) -> float:
    if retry_after is not None and retry_after.strip()[:6].isdecimal():
        return min(max(float(retry_after.strip()[:6]), 1.0), MAX_RETRY_S)
    return RETRY_S


async def try_(reading: Awaitable[Any]) -> Any:
    """The value of a reading that a status can do without; ``None`` where it failed."""
    try:
        return await reading
    except DriverError:
        return None
