"""HTTP sessions: tokens kept and renewed, log-ins that were refused left alone, nothing said that is secret."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from drivers.asic.credentials import Credentials
from drivers.asic.http import HttpAnswer, HttpClient
from drivers.asic.session import SessionHttp, Token, checked
from drivers.errors import BadAnswer, DriverError, Refused
from simulator.devices.asic_families.session_web import WebAnswer, WebRequest, WebServer
from simulator.devices.asic_server import Json
from simulator.devices.models import StandaloneMachine

MARK = "t0ken-marked"


class Site(WebServer):
    """Answers as told."""

    def __init__(self) -> None:
        super().__init__(StandaloneMachine())
        self.seen: list[WebRequest] = []
        self.answers: Callable[[WebRequest], WebAnswer] = lambda _: WebAnswer(200, {"good": True})

    def answer(self, command: str, parameter: str) -> Json:
        raise AssertionError(f"nobody asks the JSON socket here: {command} {parameter}")

    def page(self, request: WebRequest) -> WebAnswer:
        self.seen.append(request)
        return self.answers(request)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    one = Site()
    await one.start()
    yield one
    await one.stop()


class Counted(SessionHttp):
    """A session that knows how often it logged in."""

    logins: list[int]


def session(site: Site, token: Token | Exception, **options: Any) -> Counted:
    logins: list[int] = []

    async def log_in(_http: HttpClient, _credentials: Credentials) -> Token:
        logins.append(1)
        if isinstance(token, Exception):
            raise token
        return token

    options = {"mono": lambda: 0.0, **options}
    http = HttpClient("127.0.0.1", site.http_port or 0, timeout_s=10.0)
    one = Counted(http, Credentials("u", "p"), log_in=log_in, header=lambda value: {"X-Token": value}, **options)
    one.logins = logins
    return one


async def test_a_token_is_shown_and_used_again(site: Site) -> None:
    one = session(site, Token(MARK, 100.0))
    for _ in range(3):
        assert await one.get("/x") == {"good": True}
    assert [request.headers["x-token"] for request in site.seen] == [MARK] * 3
    assert len(one.logins) == 1


async def test_a_token_that_grew_old_is_renewed_before_it_is_shown(site: Site) -> None:
    now_s = 0.0
    one = session(site, Token(MARK, 100.0), mono=lambda: now_s)
    await one.get("/x")
    now_s = 101.0
    await one.get("/x")
    assert len(one.logins) == 2
    assert len(site.seen) == 2


async def test_a_dropped_session_is_renewed_once_and_the_request_repeated(site: Site) -> None:
    one = session(site, Token(MARK, 100.0))
    await one.get("/x")
    statuses = iter((401, 200))
    site.answers = lambda _: WebAnswer(next(statuses), {"good": True})
    assert await one.call("POST", "/write", {"a": 1}) == {"good": True}
    assert len(one.logins) == 2


async def test_a_fresh_token_that_is_not_taken_is_a_refusal_and_no_loop(site: Site) -> None:
    site.answers = lambda _: WebAnswer(401, {})
    one = session(site, Token(MARK, 100.0))
    with pytest.raises(Refused):
        await one.get("/x")
    assert len(site.seen) == 1


async def test_a_refused_log_in_rests(site: Site) -> None:
    now_s = 0.0
    one = session(site, Refused("no"), mono=lambda: now_s)
    for _ in range(3):
        with pytest.raises(Refused):
            await one.get("/x")
    assert not one.may_log_in()
    now_s = 21.0
    assert one.may_log_in()
    assert len(one.logins) == 1
    assert site.seen == []


@pytest.mark.parametrize("value", ["", "a\r\nX: y", "ключ", "x" * 5000])
async def test_a_token_that_could_break_a_header_is_not_sent_back(site: Site, value: str) -> None:
    with pytest.raises(BadAnswer, match="no token"):
        await session(site, Token(value, 100.0)).get("/x")
    assert site.seen == []


async def test_an_open_page_is_asked_without_a_token(site: Site) -> None:
    one = session(site, Refused("no"))
    assert await one.get("/x", open_=True) == {"good": True}
    assert "x-token" not in site.seen[0].headers


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Refused), (404, Refused), (429, Refused), (500, BadAnswer), (503, BadAnswer)]
)
async def test_statuses(site: Site, status: int, kind: type[DriverError]) -> None:
    site.answers = lambda _: WebAnswer(status, {"secret": MARK})
    with pytest.raises(kind) as caught:
        await session(site, Token(MARK, 1.0)).get("/x")
    assert MARK not in f"{caught.value} {caught.value!r}"
    assert str(status) in str(caught.value)


async def test_values_of_every_kind(site: Site) -> None:
    one = session(site, Token(MARK, 100.0))
    for value in ([1, 2], True, {"a": None}, 5):
        site.answers = lambda _, value=value: WebAnswer(200, value)
        assert await one.get("/x") == value
    site.answers = lambda _: WebAnswer(204, b"")
    assert await one.call("PUT", "/x") is None
    site.answers = lambda _: WebAnswer(200, b"<html>")
    with pytest.raises(BadAnswer):
        await one.get("/x")


def test_neither_token_nor_answer_shows_what_it_holds() -> None:
    assert MARK not in repr(Token(MARK, 1.0))
    assert MARK not in repr(HttpAnswer(200, MARK.encode(), cookies=(MARK,)))


@pytest.mark.parametrize(
    ("header", "wait_s"), [("30", 30.0), (None, 20.0), ("soon", 20.0), ("999999", 900.0), ("0", 1.0)]
)
def test_how_long_a_machine_wants_to_be_left_alone(header: str | None, wait_s: float) -> None:
    with pytest.raises(Refused) as caught:
        checked(HttpClient("127.0.0.1"), "/x", HttpAnswer(429, b"", retry_after=header))
    assert getattr(caught.value, "wait_s", None) == wait_s
