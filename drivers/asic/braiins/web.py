"""The web interfaces of Braiins OS behind one face: REST where there is one, GraphQL before it.

gRPC, which lies between the two in time, is left out: its library is larger than the whole agent, and whatever it can
do the one or the other of these can do too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from drivers.asic.braiins import graphql, rest
from drivers.asic.credentials import Credentials
from drivers.asic.fields import integer
from drivers.asic.http import HttpClient
from drivers.asic.power import LimitState
from drivers.asic.session import SessionHttp, Token, checked, try_
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, Refused

TOKEN_LIFE_S = 1800.0
LIFE_SHARE = 0.8
_HAS_REST = (200, 401, 403)


class Complaint(Refused):
    """A GraphQL query was answered with errors."""


async def rest_log_in(http: HttpClient, credentials: Credentials) -> Token:
    """``auth/login`` of the REST interface; see :data:`~drivers.asic.session.LogIn`."""
    path = rest.ROOT + "auth/login"
    body = msgspec.json.encode({"username": credentials.user, "password": credentials.password})
    said = checked(http, path, await http.exchange("POST", path, body=body))
    token = rest.at(said, "token")
    if not isinstance(token, str):
        raise BadAnswer(f"{http.name}{path}: no token in the answer; nothing else was sent")
    life_s = integer(rest.at(said, "timeout_s"))
    return Token(token, min(TOKEN_LIFE_S, (life_s or TOKEN_LIFE_S) * LIFE_SHARE))


async def graphql_log_in(http: HttpClient, credentials: Credentials) -> Token:
    """``auth.login`` of the GraphQL interface; see :data:`~drivers.asic.session.LogIn`."""
    variables = {"username": credentials.user, "password": credentials.password}
    body = msgspec.json.encode({"query": graphql.LOG_IN, "variables": variables})
    answer = await http.exchange("POST", graphql.PATH, body=body)
    checked(http, graphql.PATH, answer)
    session = graphql.session_of(answer.cookies)
    if not session:
        raise Refused(f"{http.name}{graphql.PATH}: the log-in is wrong; correct the group's credentials")
    return Token(session, TOKEN_LIFE_S)


class BraiinsWeb:
    """One machine's web interface.

    Args:
        http: the client, made without credentials of its own.
        credentials: the log-in.
        mono: monotonic clock in seconds.
        write_s: deadline of a write.
    """

    def __init__(
        self, http: HttpClient, credentials: Credentials, *, mono: Callable[[], float], write_s: float
    ) -> None:
        self._http = http
        self._write_s = write_s
        self._is_rest: bool | None = None
        self._rest = SessionHttp(
            http, credentials, log_in=rest_log_in, header=lambda token: {"Authorization": token}, mono=mono
        )
        self._graphql = SessionHttp(
            http,
            credentials,
            log_in=graphql_log_in,
            header=lambda token: {"Cookie": graphql.COOKIE + token},
            mono=mono,
        )

    @property
    def busy(self) -> bool:
        """True while a request is open."""
        return self._http.busy

    async def status(self) -> MinerStatus:
        """A whole status.

        Raises:
            DriverError: the page that must be there was not answered.
        """
        if await self._rest_there():
            pages = {"details": await self._page("miner/details")}
            for name, path in list(rest.STATUS_PAGES.items())[1:]:
                pages[name] = await try_(self._page(path))
            return rest.rest_status(pages)
        answer = await self._query(graphql.STATUS)
        return replace(graphql.graphql_status({"status": answer}), sleeping=await self._asleep_by_uptime())

    async def identity_and_state(self) -> MinerStatus:
        """What the JSON socket does not tell: state, firmware, MAC, serial number; in one request.

        Raises:
            DriverError: it could not be read.
        """
        if await self._rest_there():
            return rest.rest_status({"details": await self._page("miner/details")})
        status = graphql.graphql_status({"status": await self._query(graphql.STATUS)})
        return replace(status, sleeping=await self._asleep_by_uptime())

    async def asleep(self) -> bool | None:
        """Whether it says that it is paused or stopped.

        Raises:
            DriverError: it could not be read.
        """
        if await self._rest_there():
            return rest.is_asleep(await self._page("miner/details"))
        return await self._asleep_by_uptime()

    async def tell(self, asleep: bool) -> str:
        """Pause or resume; stop or start before there was REST.

        Raises:
            DriverError: as of :meth:`SessionHttp.call`.
        """
        if await self._rest_there():
            path = rest.ROOT + ("actions/pause" if asleep else "actions/resume")
            was = await self._rest.call("PUT", path, timeout_s=self._write_s)
            return f"{'paused' if asleep else 'mining'} already: {was}"
        return await self._mutate(graphql.STOP if asleep else graphql.START)

    async def limit(self) -> LimitState | None:
        """The power target; ``None`` where the machine is tuned to no watts.

        Raises:
            DriverError: it could not be read.
        """
        if await self._rest_there():
            configuration = await self._page("configuration/miner")
            return rest.limit_state(configuration, await try_(self._page("configuration/constraints")))
        return graphql.limit_state(await self._query(graphql.LIMIT))

    async def tell_limit(self, limit_w: int) -> str:
        """Set the power target.

        Raises:
            DriverError: as of :meth:`SessionHttp.call`.
        """
        if await self._rest_there():
            path = rest.ROOT + "performance/power-target"
            said = await self._rest.call("PUT", path, {"watt": limit_w}, timeout_s=self._write_s)
            return f"{rest.at(said, 'watt')} W"
        return await self._mutate(graphql.SET_LIMIT, {"limit": limit_w})

    async def _rest_there(self) -> bool:
        """Whether there is a REST interface, found out once: its version is told to anybody."""
        if self._is_rest is None:
            answer = await self._http.exchange("GET", rest.ROOT + "version/")
            self._is_rest = answer.status in _HAS_REST
        return self._is_rest

    async def _page(self, path: str) -> Any:
        return await self._rest.get(rest.ROOT + path)

    async def _asleep_by_uptime(self) -> bool | None:
        try:
            return graphql.is_asleep(await self._query(graphql.STATE))
        except Complaint:
            return None  # older than 24.09: the field is not known

    async def _mutate(self, mutation: str, variables: dict[str, Any] | None = None) -> str:
        denied = graphql.denial(await self._query(mutation, variables, timeout_s=self._write_s))
        if denied is not None:
            raise Refused(f"{self._http.name}{graphql.PATH}: refused ({denied})")
        return "done"

    async def _query(
        self, query: str, variables: dict[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """One query or mutation; its whole answer.

        Raises:
            Complaint: it complains instead of answering.
            DriverError: as of :meth:`SessionHttp.call`.
        """
        value = {"query": query} if variables is None else {"query": query, "variables": variables}
        answer = await self._graphql.call("POST", graphql.PATH, value, timeout_s=timeout_s)
        said = graphql.complaints(answer)
        if said and ("auth" in said.lower() or "log" in said.lower()):
            # The session ended; it says so before doing anything, so that asking again repeats nothing.
            self._graphql.forget()
            answer = await self._graphql.call("POST", graphql.PATH, value, timeout_s=timeout_s)
            said = graphql.complaints(answer)
        if said or graphql.data_of(answer) is None:
            raise Complaint(f"{self._http.name}{graphql.PATH}: {said or 'no data'}")
        return dict(answer)
