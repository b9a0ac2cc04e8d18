"""A certificate that lives seconds, on a real Mosquitto: the agent renews it over and over and loses nothing."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from site_kit import SITE, SiteKit, until

from agent import tls
from central.pki import Authority, make_authority, sign_csr

LIFE_S = 5.0
DAY_S = 86_400


async def started(folder: Path) -> SiteKit:
    kit = SiteKit(folder, luxos=1, stock=1)
    await kit.start_plant()
    return kit


def short(kit: SiteKit) -> None:
    """The site's first certificate ends soon, and those that follow too."""
    assert kit.central is not None
    kit.central.renewals.days = LIFE_S / DAY_S
    csr = kit.enrolment["csr"].encode()
    cert = sign_csr(Authority.load(kit.paths), csr, SITE, datetime.now(UTC), days=1.5 * LIFE_S / DAY_S)
    (kit.site_dir / "site.pem").write_bytes(cert)


async def test_an_agent_outlives_its_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.uplink.renewal.LOOK_S", 0.3)
    monkeypatch.setattr("agent.uplink.renewal.ASK_S", 1.0)
    kit = await started(tmp_path)
    try:
        await kit.start_central()
        short(kit)
        await kit.start_agent()
        app = kit.app
        assert app is not None
        first = app.uplink.renewal.store.in_force()
        counters = app.uplink.renewal.counters
        await until(lambda: counters.renewed >= 2, 60, lambda: f"renewed twice: {counters}")
        await until(lambda: first.ends < datetime.now(UTC), 30, "the first certificate is over")
        assert app.uplink.control.connected.is_set()
        assert app.uplink.bulk.connected.is_set()
        assert counters.last_error is None
        # The broker takes the renewed one from a client that comes anew, too.
        connects = app.uplink.control.connects
        await app.uplink.control.use(app.uplink.renewal._with(app.uplink.renewal.store.in_force()))
        await until(lambda: app.uplink.control.connects > connects, 10, "connected anew")
        names = {path.name for path in (kit.site_dir / "state").glob("tls*")}
        assert {"tls.key", "tls.pem"} <= names
        renewed = [r for r in await kit.records("event") if r["ev"] == "certificate"]
        assert len(renewed) >= 2
        await kit.stop_agent()
        # What the agent wrote while it ended comes with the next start, which begins with the renewed certificate.
        await kit.start_agent()
        assert kit.app is not None
        app = kit.app
        assert Path(app.uplink.renewal.endpoint.cert_file).name == "tls.pem"

        async def drained() -> bool:
            return not await app.ledger.undelivered(0, 1)

        for _ in range(300):
            if await drained():
                break
            await asyncio.sleep(0.05)
        edge, central = await kit.edge_lines(), await kit.central_lines()
        keys = [line[:2] for line in central]
        assert len(set(keys)) == len(keys)
        assert set(central) <= set(edge)
        last = max(json.loads(line.split(b"|")[1])["at"] for _, _, line in edge) - 1500
        assert {e for e in edge if json.loads(e[2].split(b"|")[1])["at"] < last} <= set(central)
    finally:
        await kit.stop()


async def test_what_the_broker_refuses_is_given_up_and_the_old_pair_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.uplink.renewal.CONNECT_S", 1.5)
    kit = await started(tmp_path)
    try:
        await kit.start_central()
        await kit.start_agent()
        app = kit.app
        assert app is not None
        key = ec.generate_private_key(ec.SECP256R1())
        stranger = make_authority(datetime.now(UTC))
        store = app.uplink.renewal.store
        store._put(tls.PENDING, tls._pem(key))
        csr = tls.make_request(key, SITE).encode()
        store.keep(x509.load_pem_x509_certificate(sign_csr(stranger, csr, SITE, datetime.now(UTC))))
        app.uplink.renewal._kick.set()
        counters = app.uplink.renewal.counters
        await until(lambda: counters.refused == 1, 20, lambda: f"refused: {counters}")
        assert "did not take" in str(counters.last_error)
        await until(lambda: app.uplink.control.connected.is_set() and app.uplink.bulk.connected.is_set(), 5, "back")
        assert store.candidate() is None
        assert "certificate_refused" in app.reports.alarms()
        assert "PRIVATE" not in json.dumps(app.reports.status())
    finally:
        await kit.stop()
