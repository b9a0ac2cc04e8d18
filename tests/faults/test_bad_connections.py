"""No broker, the wrong authority, the wrong certificate: the agent goes on, says why once, delivers all later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from site_kit import SITE, SiteKit, until

from central.paths import Paths
from central.pki import Authority, initialise, sign_csr

Logs = list[Any]


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    made = SiteKit(tmp_path)
    try:
        yield made
    finally:
        await made.stop()


async def until_delivered(kit: SiteKit, within_s: float) -> None:
    app = kit.app
    assert app is not None
    deadline = asyncio.get_running_loop().time() + within_s
    while await app.ledger.undelivered(0, 1) or await app.bulk.open_batches(0, 1):
        assert asyncio.get_running_loop().time() < deadline, f"not delivered: {app.uplink.control.last_error}"
        await asyncio.sleep(0.1)


def said(logs: Logs, event: str) -> list[str]:
    return [str(line["error"]) for line in logs if line["event"] == event]


async def test_without_a_broker_the_agent_records_says_so_once_and_delivers_everything_later(kit: SiteKit) -> None:
    await kit.start_plant()
    with structlog.testing.capture_logs() as logs:
        await kit.start_agent(wait_connected=False)
        app = kit.app
        assert app is not None
        await until(lambda: kit.net_w() is not None, 10, "the meter is read all the same")
        await until(lambda: all(s.chain is not None for s in app.closer.states.values()), 15, "slots are kept")
        failures = said(logs, "mqtt_cannot_connect")
        status = app.reports.status()
        assert 1 <= len(failures) <= 2, "once for each of the two connections, however often it is tried"
        assert "the broker cannot be reached" in failures[0]
        assert status["connected"] is False
        assert "the broker cannot be reached" in status["broker_error"]
        assert status["ok"] is True
        assert app.bulk.rows > 0
        await kit.start_central()
        await until(app.uplink.control.connected.is_set, 30, "connected by itself")
        await until_delivered(kit, 30)
    assert app.reports.status()["broker_error"] is None
    assert await kit.central_lines() == await kit.edge_lines()
    assert kit.central is not None
    assert (await kit.central.telemetry.counts(SITE)).values == app.bulk.cells


def another_authority(kit: SiteKit) -> Paths:
    paths = Paths.of(kit.central_settings, kit.root / "stranger")
    (kit.root / "stranger").mkdir()
    initialise(paths, "127.0.0.1", datetime.now(UTC))
    return paths


def wrong_authority(kit: SiteKit) -> None:
    (kit.site_dir / "ca.pem").write_bytes(another_authority(kit).ca_file.read_bytes())


def wrong_certificate(kit: SiteKit) -> None:
    authority = Authority.load(another_authority(kit))
    cert = sign_csr(authority, kit.enrolment["csr"].encode(), SITE, datetime.now(UTC))
    (kit.site_dir / "site.pem").write_bytes(cert)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (wrong_authority, ("the broker's certificate is not trusted", "ca.pem")),
        (wrong_certificate, ("the broker closed the connection before it accepted this site", "site.pem")),
    ],
)
async def test_the_wrong_tls_file_is_named_and_everything_arrives_once_the_right_one_is_there(
    kit: SiteKit, spoil: Callable[[SiteKit], None], words: tuple[str, ...]
) -> None:
    right = {n: (kit.site_dir / n).read_bytes() for n in ("ca.pem", "site.pem")}
    spoil(kit)
    await kit.start_plant()
    await kit.start_central()
    with structlog.testing.capture_logs() as logs:
        await kit.start_agent(wait_connected=False)
        app = kit.app
        assert app is not None
        await until(lambda: app.uplink.control.last_error, 10, "a refusal")
        await until(lambda: app.bulk.rows > 0, 10, "telemetry is kept")
        await asyncio.sleep(2.5)  # time for two more attempts, which must not be told again
        failures = said(logs, "mqtt_cannot_connect")
        assert not app.uplink.control.connected.is_set()
        assert len(failures) <= 2, failures
        for word in words:
            assert word in failures[0]
        assert not [line for line in logs if line.get("exc_info") or "Traceback" in str(line)]
        await kit.stop_agent()
    for name, data in right.items():
        (kit.site_dir / name).write_bytes(data)
    await kit.start_agent()
    await until_delivered(kit, 20)
    lines = await kit.edge_lines()
    assert await kit.central_lines() == lines
    assert sum(1 for _, _, line in lines if b'"ty":"start"' in line) == 2
