"""Renewal of the site's certificate: what is taken, what is not, and what is on disk at every moment of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent import tls
from agent.ledger import Ledger
from agent.tls import NEW, PENDING, RENEWED, TlsStore
from agent.uplink.link import Endpoint
from agent.uplink.renewal import GRANTS_PER_MIN, Renewal
from central import pki
from central.paths import Paths
from central.renewal import TRIES_PER_HOUR, Renewals
from config.central import Central
from tests.unit.agent_kit import SimClock
from wire.keys import SigningKey, b64
from wire.messages import CertGrant, CertRequest
from wire.registry import Epoch, KeysDocument, RegisteredSite, Revocation

SITE = "kz-small-1"


@dataclass
class Link:
    """A connection that connects with what the broker takes."""

    takes: Any = lambda _endpoint: True
    used: list[str] = field(default_factory=list)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    last_error: str | None = None

    async def use(self, endpoint: Endpoint) -> None:
        self.used.append(Path(endpoint.cert_file).name)
        self.connected.clear()
        if self.takes(endpoint):
            self.connected.set()


@dataclass
class Kit:
    """A site with a certificate of 100 days, central's authority, and a clock."""

    root: Path
    clock: SimClock = field(default_factory=SimClock)
    sent: list[CertRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.paths = Paths.of(
            Central.model_validate(
                {
                    "schema": 1,
                    "data_dir": "central",
                    "broker": {"mode": "child", "port": 0},
                    "registrar_keys": [SigningKey.generate().public.text],
                }
            ),
            self.root,
        )
        pki.initialise(self.paths, "127.0.0.1", self.now - timedelta(days=1))
        self.authority = pki.Authority.load(self.paths)
        self.state = self.root / "state"
        self.state.mkdir(mode=0o700)
        self.old = ec.generate_private_key(ec.SECP256R1())
        self.put(self.root / "site.key", _pem(self.old))
        (self.root / "site.pem").write_bytes(self.cert(self.old, days=100))
        self.store = TlsStore(self.state, self.paths.ca_file, self.root / "site.pem", self.root / "site.key", SITE)
        self.links = (Link(), Link())
        for link in self.links:
            link.connected.set()
        self.k_rec = SigningKey.generate()

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    @staticmethod
    def put(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        path.chmod(0o600)

    def cert(
        self,
        key: ec.EllipticCurvePrivateKey,
        *,
        name: str = SITE,
        days: float = 200,
        authority: pki.Authority | None = None,
        ago: float = 0,
    ) -> bytes:
        csr = tls.make_request(key, name).encode()
        return pki.sign_csr(authority or self.authority, csr, name, self.now - timedelta(days=ago), days=days)

    def register(self, **changes: Any) -> KeysDocument:
        entry = Epoch(epoch=self.ledger.epoch, k_rec=self.k_rec.public.text, k_log=SigningKey.generate().public.text)
        site = RegisteredSite(id=SITE, zone="z", contracted_w=1, emergency_w=0, slot_s=900, epochs=(entry,))
        fields: dict[str, Any] = {
            "v": 1,
            "version": 1,
            "issued_at": 1_700_000_000_000,
            "persons": (),
            "issuers": (),
            "sites": (site,),
        }
        return KeysDocument(**(fields | changes))

    async def publish(self, request: CertRequest) -> None:
        self.sent.append(request)

    def answer(self, request: CertRequest, **changes: Any) -> CertGrant:
        answer = Renewals(self.paths, lambda: self.register(**changes), 200, self.clock.now_ms).answer(request)
        assert answer is not None
        return answer

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.state.glob("tls*")}


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    kit = Kit(tmp_path)
    kit.ledger = Ledger.open(kit.state / "ledger.db", site=SITE, key=kit.k_rec, clock=kit.clock, fw="t")
    kit.ledger.start()
    endpoint = Endpoint("mqtts://127.0.0.1:1", str(kit.paths.ca_file), "", "")
    kit.renewal = Renewal(SITE, kit.store, endpoint, kit.ledger, kit.clock, kit.links, kit.publish)
    yield kit
    await kit.ledger.close()


async def asked(kit: Kit) -> CertRequest:
    """Time goes by until less than a third of the certificate's life is left."""
    kit.clock.advance(70 * 86_400)
    await kit.renewal._round()
    return kit.sent[-1]


async def test_asks_when_a_third_is_left_and_at_most_once_an_hour(kit: Kit) -> None:
    await kit.renewal._round()
    kit.clock.advance(66 * 86_400)
    await kit.renewal._round()
    assert kit.sent == []
    request = await asked(kit)
    for _ in range(5):
        await kit.renewal._round()
    assert len(kit.sent) == 1
    kit.clock.advance(3601)
    await kit.renewal._round()
    first, second = (x509.load_pem_x509_csr(r.csr.encode()) for r in kit.sent)
    assert first.public_key() == second.public_key() != kit.old.public_key(), "one new key, kept until it is granted"
    assert (kit.state / PENDING).stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in request.encode()


async def test_a_granted_certificate_is_tried_by_both_connections_and_then_in_force(kit: Kit) -> None:
    request = await asked(kit)
    await kit.renewal.take(kit.answer(request))
    assert set(kit.files()) == {NEW}
    assert kit.store.in_force().cert_file.name == "site.pem", "not before it has made a connection"
    await kit.renewal._round()
    assert [link.used for link in kit.links] == [[NEW], [NEW]]
    found = kit.store.in_force()
    assert (found.cert_file.name, found.key_file.name) == (RENEWED, RENEWED)
    assert set(kit.files()) == {RENEWED}
    assert found.cert_file.stat().st_mode & 0o777 == 0o600
    assert found.certificate.public_key() == x509.load_pem_x509_csr(request.csr.encode()).public_key()
    rows = await kit.ledger.read("SELECT count(*) FROM record WHERE ty='event'")
    assert rows == [(1,)]
    # And the next one is asked for with the renewed key.
    kit.clock.advance(140 * 86_400)
    await kit.renewal._round()
    assert kit.answer(kit.sent[-1]).error is None


def _hostile(kit: Kit, key: ec.EllipticCurvePrivateKey) -> dict[str, str | bytes]:
    stranger = pki.make_authority(kit.now - timedelta(days=1))
    server = pki._leaf(kit.authority, SITE, key.public_key(), kit.now, server_names=(x509.DNSName("localhost"),))
    good = kit.cert(key)
    return {
        "another key": kit.cert(ec.generate_private_key(ec.SECP256R1())),
        "issued to": kit.cert(key, name="kz-other-9"),
        "authority": kit.cert(key, authority=stranger),
        "it ends": kit.cert(key, days=2, ago=3),
        "the one in use": kit.cert(key, days=10),
        "it begins": kit.cert(key, ago=-30),
        "not for clients": server,
        "no certificate in PEM": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "no certificate": "Ж" * 500,
        "no certificate in": good[: len(good) // 2],
    }


async def test_what_central_sends_that_was_not_asked_for_changes_nothing_and_is_told(kit: Kit) -> None:
    await asked(kit)
    key = tls.private_key(kit.state / PENDING)
    before = kit.files()
    for number, (why, cert) in enumerate(_hostile(kit, key).items(), 1):
        text = cert if isinstance(cert, str) else cert.decode()
        await kit.renewal.take(CertGrant(site=SITE, epoch=kit.ledger.epoch, cert=text))
        assert why in str(kit.renewal.counters.last_error)
        assert kit.renewal.counters.refused == number
        assert "certificate_refused" in kit.renewal.alarms()
        assert kit.files() == before
        kit.clock.advance(60)
    await kit.renewal.take(CertGrant(site="kz-other-9", epoch=kit.ledger.epoch, cert=kit.cert(key).decode()))
    assert kit.files() == before


async def test_a_flood_of_grants_is_looked_at_up_to_a_bound(kit: Kit) -> None:
    await asked(kit)
    before = kit.files()
    for _ in range(500):
        await kit.renewal.take(CertGrant(site=SITE, epoch=kit.ledger.epoch, cert="junk"))
    assert (kit.renewal.counters.refused, kit.renewal.counters.unasked) == (GRANTS_PER_MIN, 500 - GRANTS_PER_MIN)
    assert kit.files() == before


async def test_a_grant_without_a_request_is_counted_and_dropped(kit: Kit) -> None:
    await kit.renewal.take(CertGrant(site=SITE, epoch=kit.ledger.epoch, cert=kit.cert(kit.old).decode()))
    assert (kit.renewal.counters.unasked, kit.files()) == (1, {})


@pytest.mark.parametrize("which", [0, 1])
async def test_back_to_the_old_pair_where_the_broker_refuses_the_new_one(
    kit: Kit, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.uplink.renewal.CONNECT_S", 0.05)
    await kit.renewal.take(kit.answer(await asked(kit)))
    kit.links[which].takes = lambda endpoint: Path(endpoint.cert_file).name != NEW
    await kit.renewal._round()
    assert [link.used for link in kit.links] == [[NEW, "site.pem"], [NEW, "site.pem"][: 2 * which]]
    assert all(link.connected.is_set() for link in kit.links)
    assert kit.files() == {}
    assert "did not take" in str(kit.renewal.counters.last_error)
    assert kit.store.in_force().cert_file.name == "site.pem"


async def test_a_broker_that_is_away_says_nothing_of_the_new_pair(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.uplink.renewal.CONNECT_S", 0.05)
    await kit.renewal.take(kit.answer(await asked(kit)))
    for link in kit.links:
        link.takes = lambda _endpoint: False
    await kit.renewal._round()
    assert set(kit.files()) == {NEW}, "kept for the next try"
    for link in kit.links:
        link.takes = lambda _endpoint: True
        link.connected.set()
    await kit.renewal._round()
    assert set(kit.files()) == {RENEWED}


async def test_killed_anywhere_the_files_are_a_usable_pair(kit: Kit) -> None:
    await kit.renewal.take(kit.answer(await asked(kit)))
    pending = kit.state / PENDING
    kit.put(pending, _pem(tls.private_key(kit.state / NEW)))  # killed between keeping and removing
    kit.put(kit.state / f"{NEW}.part", b"half a fi")  # killed while writing the next one
    again = TlsStore(kit.state, kit.paths.ca_file, kit.root / "site.pem", kit.root / "site.key", SITE)
    assert again.in_force().cert_file.name == "site.pem"
    found = again.candidate()
    assert found is not None
    again.accept()
    assert again.in_force().certificate == found.certificate
    assert not pending.exists()
    # A file that became unreadable does not stop the agent while the one of the site file is there.
    kit.put(kit.state / RENEWED, b"junk")
    assert again.in_force().cert_file.name == "site.pem"


async def test_a_newer_certificate_that_a_person_put_there_is_obeyed(kit: Kit) -> None:
    await kit.renewal.take(kit.answer(await asked(kit)))
    await kit.renewal._round()
    assert kit.store.in_force().cert_file.name == RENEWED
    (kit.root / "site.pem").write_bytes(kit.cert(kit.old, days=800))
    assert kit.store.in_force().cert_file.name == "site.pem"


async def test_warnings_at_30_7_and_1_days(kit: Kit) -> None:
    (kit.root / "site.pem").write_bytes(kit.cert(kit.old, days=730))
    kit.links[-1].connected.set()
    seen = []
    for left in (200, 31, 29, 8, 6.5, 2, 0.9, -0.1):
        kit.clock.wall_ms = round((kit.store.in_force().ends.timestamp() - left * 86_400) * 1000)
        await kit.renewal._round()
        seen.append(kit.renewal.alarms())
    ends = [{f"certificate_ends:{n}d"} for n in (30, 30, 7, 7, 1)]
    assert seen == [set(), set(), *ends, {"certificate_expired"}]
    assert kit.renewal.status()["days_left"] == -1


# central -------------------------------------------------------------------------------------------------------------


async def test_central_grants_only_what_both_keys_ask_for(kit: Kit) -> None:
    request = await asked(kit)
    other = SigningKey.generate()
    thief = ec.generate_private_key(ec.SECP256R1())

    def signed(**changes: Any) -> CertRequest:
        """By the site's record key, as somebody does who has stolen that alone."""
        bare = request.model_copy(update=changes)
        return bare.model_copy(update={"sig": tls_sig(kit.k_rec, bare)})

    stranger = pki.make_authority(kit.now - timedelta(days=1))
    cases: list[tuple[CertRequest, str | None]] = [
        (request, None),
        (request.model_copy(update={"sig": tls_sig(other, request)}), "bad_signature"),
        (request.model_copy(update={"kid": other.kid}), "unknown_key"),
        (request.model_copy(update={"epoch": "e9-00000000"}), "unknown_key"),
        (request.model_copy(update={"sig": "!"}), "bad_signature"),
        (signed(csr=tls.make_request(thief, SITE)), "bad_signature"),
        (signed(cert=kit.cert(thief).decode()), "bad_signature"),
        (signed(cert=kit.cert(kit.old, name="kz-other-9").decode()), "bad_certificate"),
        (signed(cert=kit.cert(kit.old, authority=stranger).decode()), "bad_certificate"),
        (signed(cert=kit.cert(kit.old, days=1, ago=3).decode()), "bad_certificate"),
        (signed(cert="junk"), "bad_certificate"),
        (signed(at=request.at + 3_600_000), "bad_request"),
    ]
    for asked_for, code in cases:
        answer = kit.answer(asked_for)
        assert (answer.error, answer.cert is None) == (code, code is not None)
    revoked = (Revocation(kid=kit.k_rec.kid, at=1_700_000_000_000, reason="stolen"),)
    assert kit.answer(request, revoked=revoked).error == "unknown_key"
    assert Renewals(kit.paths, lambda: None, 1, kit.clock.now_ms).answer(request).error == "no_register"


def tls_sig(key: SigningKey, request: CertRequest) -> str:
    return b64(key.sign(request.signed()))


async def test_central_refuses_other_names_and_the_key_in_use(kit: Kit) -> None:
    request = await asked(kit)

    def by_both(csr: str) -> CertRequest:
        bare = request.model_copy(update={"csr": csr})
        tls_part = b64(kit.old.sign(bare.signed(), ec.ECDSA(hashes.SHA256())))
        return bare.model_copy(update={"sig": tls_sig(kit.k_rec, bare), "sig_tls": tls_part})

    for csr in (tls.make_request(ec.generate_private_key(ec.SECP256R1()), "kz-other-9"), "junk"):
        assert kit.answer(by_both(csr)).error == "bad_request"
    assert kit.answer(by_both(tls.make_request(kit.old, SITE))).error == "bad_request"
    weak = ec.generate_private_key(ec.SECP384R1())
    assert kit.answer(by_both(tls.make_request(weak, SITE))).error == "bad_request"
    good = kit.answer(by_both(tls.make_request(ec.generate_private_key(ec.SECP256R1()), SITE)))
    found = x509.load_pem_x509_certificate(str(good.cert).encode())
    assert [n.value for n in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [SITE]
    assert timedelta(days=199) < found.not_valid_after_utc - kit.now <= timedelta(days=200)


async def test_central_answers_a_site_only_so_often(kit: Kit) -> None:
    request = await asked(kit)
    renewals = Renewals(kit.paths, kit.register, 200, kit.clock.now_ms)
    answers = [renewals.answer(request) for _ in range(50)]
    assert [a is None for a in answers] == [False] * TRIES_PER_HOUR + [True] * (50 - TRIES_PER_HOUR)
    assert (renewals.granted, renewals.refused) == (TRIES_PER_HOUR, 50 - TRIES_PER_HOUR)
    kit.clock.advance(3601)
    later = renewals.answer(request)
    assert later is not None
    assert later.cert is not None
