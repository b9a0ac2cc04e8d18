"""Driver of Auradine's FluxOS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from drivers.asic.auradine.answers import (
    COMMANDS,
    CUSTOM,
    NAME,
    PAGES,
    auradine_status,
    first_row,
    identity_from,
    is_asleep,
    limit_body,
    limit_state,
)
from drivers.asic.cgminer import CgminerClient, error_of
from drivers.asic.cgminer_status import Answers, Identity
from drivers.asic.control import SleepControl, SleepsByControl
from drivers.asic.credentials import Credentials
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.http import HttpClient
from drivers.asic.power import LimitsByControl, LimitState, PowerControl, Setting
from drivers.asic.reading import MIN_WEB_S, timed
from drivers.asic.session import SessionHttp, Token, checked
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer, DriverError, NoConnection, Refused

HTTP_PORT = 8080
TOKEN_LIFE_S = 1800.0
WEB_RETRY_S = 60.0
"""Pause after a failed reading over HTTP, so that a broken web page does not slow every poll."""
SLOW_PAGES = ("ipreport", "led", "asccount")


async def log_in(http: HttpClient, credentials: Credentials) -> Token:
    """``token``: gives the value of the header ``Token``."""
    body = {"command": "token", "user": credentials.user, "password": credentials.password}
    said = checked(http, "/token", await http.exchange("POST", "/token", body=msgspec.json.encode(body)))
    answer = said if isinstance(said, dict) else {}
    error = error_of(answer)
    token = first_row(answer, "Token").get("Token")
    if error is not None:
        raise Refused(f"{http.name}/token: refused with code {error[0]}; correct the group's credentials")
    if not isinstance(token, str):
        raise BadAnswer(f"{http.name}/token: no token in the answer; nothing else was sent")
    return Token(token, TOKEN_LIFE_S)


class Auradine(SleepsByControl, LimitsByControl):
    """One machine with FluxOS: :class:`MinerReader`, :class:`Sleeper` and :class:`PowerLimiter`.

    Hash rate, boards and pools come from the JSON socket; power, mode, fans and temperatures over HTTP with a log-in.

    Without one there is no power, sleep or limit.
    """

    family = NAME

    def __init__(self, at: Address, given: Given) -> None:
        self._given = given
        self._rpc = CgminerClient(at.host, at.rpc(), timeout_s=given.timeouts.rpc_s)
        self._web: SessionHttp | None = None
        port = at.web(HTTP_PORT)
        if port and given.credentials is not None:
            http = HttpClient(at.web_host, port, timeout_s=given.timeouts.http_s)
            self._web = SessionHttp(
                http, given.credentials, log_in=log_in, header=lambda token: {"Token": token}, mono=given.mono
            )
        writing = asyncio.Lock()
        self._sleep = SleepControl(NAME, self._rpc.name, self, given, writing=writing)
        self._power = PowerControl(NAME, self._rpc.name, self, given, writing)
        self._slow: Answers = {}
        self._slow_until = float("-inf")
        self._web_not_before = float("-inf")

    # --- reading -------------------------------------------------------------------------------------------------

    async def status(self) -> MinerStatus:
        """Read the machine; asleep with a closed JSON socket is a status, not an error.

        Raises:
            DriverError: it did not answer, or not in a way that can be understood.
        """
        return await timed(self._given, self._rpc.name, self._read(self._given.mono()))

    async def _read(self, began: float) -> MinerStatus:
        lost: DriverError | None = None
        answers: Answers = {}
        try:
            answers = await self._rpc.ask(COMMANDS)
        except NoConnection as error:
            lost = error
        pages = await self._pages(began)
        if lost is not None and is_asleep(pages.get("mode")) is not True:
            raise lost
        status = auradine_status(answers, {**self._slow, **pages})
        return self._identity().into(status)

    async def _pages(self, began: float) -> Answers:
        """The pages of a status, as many as there is time for; none for a while after one failed."""
        pages: Answers = {}
        wanted = PAGES if self._given.mono() < self._slow_until else (*PAGES, *SLOW_PAGES)
        for name in wanted:
            now, web = self._given.mono(), self._web
            left_s = min(self._given.timeouts.http_s, 0.9 * self._given.timeouts.status_s - (now - began))
            if web is None or web.http.busy or now < self._web_not_before or left_s < MIN_WEB_S:
                break
            try:
                pages[name] = await self._page(web, name, timeout_s=left_s)
            except Refused:
                if not web.may_log_in():
                    self._web_not_before = self._given.mono() + WEB_RETRY_S
            except DriverError:
                self._web_not_before = self._given.mono() + WEB_RETRY_S
        if "ipreport" in pages:
            self._slow = {name: pages[name] for name in SLOW_PAGES if name in pages}
            self._slow_until = self._given.mono() + self._given.timeouts.mode_max_age_s
        return pages

    def _identity(self) -> Identity:
        return identity_from(self._slow.get("ipreport"))

    async def _page(self, web: SessionHttp, name: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        answer = await web.get(f"/{name}", timeout_s=timeout_s)
        return self._checked(web, name, answer)

    @staticmethod
    def _checked(web: SessionHttp, name: str, answer: object) -> dict[str, Any]:
        if not isinstance(answer, dict):
            raise BadAnswer(f"{web.name}/{name}: an object expected")
        error = error_of(answer)
        if error is not None:
            if "token" in error[1].lower() or "session" in error[1].lower():
                web.forget()
            raise Refused(f"{web.name}/{name} refused with code {error[0]} ({error[1]})")
        return answer

    # --- sleep and wake ------------------------------------------------------------------------------------------

    async def read_asleep(self) -> bool | None:
        """See :class:`~drivers.asic.control.TwoStates`."""
        return is_asleep(await self._page(self._needed_web(), "mode"))

    async def tell(self, asleep: bool) -> str:
        """See :class:`~drivers.asic.control.TwoStates`."""
        return await self._set_mode({"sleep": "on" if asleep else "off"})

    # --- power limit ---------------------------------------------------------------------------------------------

    async def read_limit(self) -> LimitState:
        """See :class:`~drivers.asic.power.Limited`."""
        web = self._needed_web()
        state = limit_state(await self._page(web, "mode"))
        if state is None:
            raise BadAnswer(f"{web.name}/mode: it does not say its mode; it must not be changed")
        return state

    async def tell_limit(self, limit_w: int) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        return await self._set_mode(limit_body(limit_w))

    async def tell_settings(self, settings: Mapping[str, Setting]) -> str:
        """See :class:`~drivers.asic.power.Limited`."""
        mode = settings.get("mode")
        if not isinstance(mode, str) or (mode == CUSTOM and "tune" not in settings):
            raise Refused(f"{self._rpc.name}: the prior limit holds no mode; nothing sent")
        return await self._set_mode(dict(settings))

    async def _set_mode(self, body: Mapping[str, Setting]) -> str:
        web = self._needed_web()
        said = await web.call("POST", "/mode", {"command": "mode", **body}, timeout_s=self._given.timeouts.write_s)
        self._checked(web, "mode", said)
        return "success"

    def _needed_web(self) -> SessionHttp:
        if self._web is None:
            raise Refused(f"{self._rpc.name}: this needs its web interface and a log-in; give the group credentials")
        return self._web
