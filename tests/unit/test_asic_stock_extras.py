"""What only some stock Antminers have: a second web port with their power, and a second form of the JSON socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from drivers.asic.antminer_stock import AntminerStock
from drivers.asic.antminer_stock.extra_port import power_of, warning_of
from drivers.asic.antminer_stock.new_api import is_new_form
from drivers.asic.credentials import Credentials
from drivers.asic.identify import driver_for
from drivers.asic.timing import Timeouts
from drivers.capabilities import WriteStatus
from simulator.devices.asic import StockAntminer
from simulator.devices.asic_families.web_only import Page, Request, WebMiner, logged_in
from simulator.devices.models import StandaloneMachine
from tests.support.asic_kit import made

LOGIN = Credentials("root", "root")
LONG = Timeouts(10, 10, 10, 20, read_back_s=(0.0, 0.01, 0.05))
SPEED = 10_000.0
REALM = "antMiner Configuration"
Start = Callable[..., Any]


class PowerPort(WebMiner):
    """TCP 6060 of a newer machine: text, behind the same log-in."""

    said: Any = "miner power:3498"
    warning: Any = None

    def page(self, request: Request) -> Page:
        """See :class:`WebMiner`."""
        if not logged_in(request, user="root", password="root", realm=REALM, nonce="n"):
            return Page("", 401, f'Digest realm="{REALM}", nonce="n", qop="auth"')
        if request.path == "/warning":
            return Page(self.warning or {"error_message": "None"})
        return Page(self.said) if request.path == "/miner_power" else Page("", 404)

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: Page) -> None:
        if not isinstance(page.value, str):
            await super()._send(reader, writer, page)
            return
        body = page.value.encode()
        challenge = f"WWW-Authenticate: {page.challenge}\r\n" if page.challenge else ""
        writer.write(f"HTTP/1.1 {page.status} X\r\n{challenge}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def one(kind: Any = StockAntminer, machine: Any = None) -> Any:
            server = kind(machine or StandaloneMachine(time_scale=SPEED), time_scale=SPEED)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield one


def stock(server: Any, port: Any = None, **options: Any) -> Any:
    return made(
        AntminerStock,
        server.rpc_port,
        server.http_port,
        credentials=LOGIN,
        power_port=None if port is None else port.rpc_port,
        timeouts=LONG,
        writes_allowed=True,
        **options,
    )


@pytest.mark.parametrize(
    ("body", "watts"),
    [
        (b"miner power:3498", 3498.0),
        (b"miner power: 3498 W\n", 3498.0),
        (b"miner power:0", 0.0),
        (b"error 6060 cmd", None),
        (b"miner power:", None),
        (b"miner power:-1", None),
        (b"", None),
        (b"\xff" * 200, None),
        (b"miner power:" + b"9" * 300, None),
    ],
)
def test_watts_of_the_second_port(body: bytes, watts: float | None) -> None:
    assert power_of(body) == watts


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        (b'{"error_message":"P:2"}', "P:2"),
        (b'{"error_message":"None"}', None),
        (b'{"error_message":""}', None),
        (b"error 6060 cmd", None),
        (b"{}", None),
        (b'{"error_message":7}', None),
    ],
)
def test_warnings_of_the_second_port(body: bytes, warning: str | None) -> None:
    assert warning_of(body) == warning


async def test_power_of_the_second_port_is_an_estimate_and_read_seldom(start: Start) -> None:
    server, port, clock = await start(), await start(PowerPort), [0.0]
    port.warning = {"error_message": "P:2"}
    driver = stock(server, port, mono=lambda: clock[0])
    for _ in range(3):
        status = await driver.status()
        assert (status.power_w, status.power_source) == (3498.0, "estimated")
        assert status.errors == ("warning P:2",)
    assert port.commands["GET /miner_power"] == 2, "a challenge and an answer"
    clock[0] = 100.0
    port.said = "miner power:3100"
    assert (await driver.status()).power_w == 3100.0


async def test_what_was_read_before_a_write_is_not_believed_after_it(start: Start) -> None:
    server, port = await start(), await start(PowerPort)
    driver = stock(server, port)
    assert (await driver.status()).power_w == 3498.0
    port.said = "miner power:40"
    assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
    assert (await driver.status()).power_w == 40.0


async def test_a_machine_without_the_port_is_asked_once_an_hour(start: Start) -> None:
    server, port, clock = await start(), await start(PowerPort), [0.0]
    port.said = "error 6060 cmd"
    driver = stock(server, port, mono=lambda: clock[0])
    for _ in range(5):
        clock[0] += 60.0
        status = await driver.status()
        assert (status.power_w, status.power_source) == (None, "none")
    assert port.commands["GET /miner_power"] == 2
    assert "GET /warning" not in port.commands


def test_the_second_port_is_never_asked_behind_an_address_translation() -> None:
    def power_port(**given: Any) -> Any:
        driver: Any = driver_for("antminer-stock", "192.0.2.1", credentials=LOGIN, **given)
        return driver._extra

    assert power_port() is not None
    assert power_port(http_host="192.0.2.1", http_port=80) is not None
    assert power_port(rpc_port=24001) is None
    assert power_port(rpc_port=24001, http_host="192.0.2.1", http_port=25001) is None


async def test_a_machine_that_says_nothing_in_the_old_form_is_asked_in_the_new(start: Start) -> None:
    server = await start()
    plain, asked = server.answer, []

    def newer(request: object) -> bytes:
        assert isinstance(request, dict)
        command = str(request["command"])
        asked.append((command, request.get("new_api")))
        if command == "stats" and request.get("new_api") is True:
            return json.dumps(
                {
                    "STATUS": {"STATUS": "S", "Msg": "stats", "api_version": "1.0.0"},
                    "INFO": {"type": "Antminer S21", "CompileTime": "Mon Jan  6 10:00:00 CST 2025"},
                    "STATS": [{"elapsed": 900, "rate_5s": 200000.0, "rate_unit": "GH/s", "fan": [5000], "chain": []}],
                }
            ).encode()
        if "+" in command or command == "stats":
            return b'{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command"}]}'
        return json.dumps(plain(command, "")).encode()

    server.answer_bytes = newer
    driver = stock(server)
    for _ in range(2):
        status = await driver.status()
        assert status.model == "Antminer S21"
        assert status.fans_rpm == (5000,)
    assert asked.count(("stats", True)) == 2


async def test_a_machine_that_knows_neither_form_is_asked_in_the_new_only_once(start: Start) -> None:
    server = await start()
    plain, asked = server.answer, []

    def older(request: object) -> bytes:
        assert isinstance(request, dict)
        asked.append(request.get("new_api"))
        if request["command"] == "summary":
            return json.dumps(plain("summary", "")).encode()
        return b'{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command"}]}'

    server.answer_bytes = older
    driver = stock(server)
    for _ in range(3):
        assert (await driver.status()).hashrate_ths == pytest.approx(95.0)
    assert asked.count(True) == 1


def test_the_new_form_is_known_by_its_shape() -> None:
    assert is_new_form({"INFO": {"type": "x"}})
    assert is_new_form({"STATS": [{"chain": []}]})
    assert not is_new_form({"STATS": [{"Type": "Antminer"}, {"Elapsed": 5}]})
    assert not is_new_form({})
