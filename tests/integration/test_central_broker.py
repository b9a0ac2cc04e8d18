"""The broker, attacked: a site reaches its own topics in their direction and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from central import pki
from central.broker import child as broker_child
from central.broker.child import ChildBroker
from central.errors import CentralError
from central.paths import COLLECTOR_NAME, Paths
from tests.integration.central_site import (
    Peer,
    RunningCentral,
    Site,
    enroll,
    make_csr,
    make_settings,
    tls,
    wait_for,
)
from wire.keys import SigningKey
from wire.names import DOWN, UP, topic

A, B = "site-a", "site-b"


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCentral]:
    registrar = SigningKey.generate()
    folder = tmp_path_factory.mktemp("broker")
    running = RunningCentral(folder, make_settings(folder / "data", registrar, (A, B)), registrar)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def sites(central: RunningCentral) -> Iterator[tuple[Site, Site]]:
    pair = central.site(A), central.site(B)
    for site in pair:
        site.come_online()
    yield pair
    for site in pair:
        site.close()


@pytest.fixture
def collector(central: RunningCentral) -> Iterator[Peer]:
    """A second client under the collector's own certificate, to look at what really passes the broker."""
    peer = Peer(central.host, central.port, tls(central.paths.ca_file, central.paths.cert_file, central.paths.key_file))
    peer.connect()
    for name in UP:
        peer.subscribe(f"tizgin/1/+/{name}")
    peer.heard.clear()
    yield peer
    peer.close()


def heard_everything_before(peer: Peer, publisher: Peer, site: str) -> list[tuple[str, bytes]]:
    """What a peer has heard once a later, permitted message of the same publisher has reached it."""
    mark = f"mark-{time.monotonic_ns()}".encode()
    publisher.publish(topic(site, "csr"), mark)
    wait_for(lambda: any(payload == mark for _, payload, _ in peer.heard), "the mark")
    return [(name, payload) for name, payload, _ in peer.heard if payload != mark]


def test_a_site_writes_its_own_up_topics_only(sites: tuple[Site, Site], collector: Peer) -> None:
    a, _ = sites
    for name in UP:
        assert a.publish(topic(A, name), b"own-" + name.encode()) in {"Success", "No matching subscribers"}
    refused = [a.publish(topic(B, name), b"foreign") for name in UP]
    refused += [a.publish(topic(A, name), b"down") for name in DOWN]
    refused += [a.publish(topic(B, name), b"down") for name in DOWN]
    refused += [a.publish("tizgin/1/all/order", b"x"), a.publish("other/topic", b"x"), a.publish("$SYS/x", b"x")]
    assert set(refused) == {"Not authorized"}
    heard = heard_everything_before(collector, a, A)
    assert sorted(heard) == sorted((topic(A, name), b"own-" + name.encode()) for name in UP)


def test_a_site_hears_nothing_of_another_whatever_it_subscribes_to(sites: tuple[Site, Site], collector: Peer) -> None:
    a, b = sites
    for pattern in ("#", "tizgin/1/#", "tizgin/1/+/order", "+/+/+/+", "$SYS/#", *(topic(B, n) for n in (*UP, *DOWN))):
        a.subscribe(pattern)
    a.heard.clear()
    for name in DOWN:
        assert collector.publish(topic(B, name), b"secret-of-b") == "Success"
    for name in UP:
        b.publish(topic(B, name), b"data-of-b")
    collector.publish(topic(A, "want"), b"for-a")
    wait_for(lambda: any(payload == b"for-a" for _, payload, _ in a.heard), "its own message")
    assert {t for t, _, _ in a.heard} == {topic(A, "want")}
    wait_for(lambda: b.orders == [b"secret-of-b"], "the other site hears its own")


def test_joining_a_shared_group_takes_nothing_from_the_collector(sites: tuple[Site, Site], collector: Peer) -> None:
    a, b = sites
    for group in ("$share/collectors", "$share/central", "$share/x"):
        for name in ("evidence", "bulk", "answer"):
            a.subscribe(f"{group}/tizgin/1/+/{name}")
    a.heard.clear()
    for n in range(20):
        b.publish(topic(B, "evidence"), b"line-%d" % n)
    heard = heard_everything_before(collector, b, B)
    assert heard == [(topic(B, "evidence"), b"line-%d" % n) for n in range(20)]
    assert a.heard == []


def test_nothing_is_kept_for_a_site_that_was_not_there(central: RunningCentral, collector: Peer) -> None:
    collector.publish(topic(A, "order"), b"an old order")
    site = central.site(A)
    site.come_online()
    collector.publish(topic(A, "want"), b"later")
    wait_for(lambda: any(payload == b"later" for _, payload, _ in site.heard), "a later message")
    assert site.orders == []
    site.close()


def _refused(peer: Peer) -> bool:
    try:
        peer.client.connect(*peer._where, keepalive=5)
        peer.client.loop_start()
        wait_for(lambda: peer.connected.is_set() or peer.ended.is_set() or peer.refused, "the broker's word")
        return not peer.connected.is_set()
    except (ssl.SSLError, OSError):
        return True
    finally:
        peer.client.loop_stop()


def test_without_a_certificate_nobody_comes_in(central: RunningCentral) -> None:
    assert _refused(Peer(central.host, central.port, tls(central.paths.ca_file)))


def test_a_certificate_of_another_authority_does_not_come_in(central: RunningCentral, tmp_path: Path) -> None:
    foreign = pki.make_authority(datetime.now(UTC))
    for name in (A, COLLECTOR_NAME):
        cert, key = pki.make_client(foreign, name, datetime.now(UTC))
        (tmp_path / "c.pem").write_bytes(cert)
        (tmp_path / "c.key").write_bytes(key)
        context = tls(central.paths.ca_file, tmp_path / "c.pem", tmp_path / "c.key")
        assert _refused(Peer(central.host, central.port, context))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_tls_below_1_2_is_refused(central: RunningCentral) -> None:
    cert, key = enroll(central.paths, A, central.folder)
    context = tls(central.paths.ca_file, cert, key)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert _refused(Peer(central.host, central.port, context))


def test_a_name_the_register_of_sites_does_not_hold_can_do_nothing(
    central: RunningCentral, collector: Peer, sites: tuple[Site, Site]
) -> None:
    cert, key = enroll(central.paths, "unknown-9", central.folder)
    stranger = Peer(central.host, central.port, tls(central.paths.ca_file, cert, key))
    stranger.connect()
    stranger.subscribe("#")
    assert stranger.publish(topic("unknown-9", "state"), b"x") == "Not authorized"
    assert stranger.publish(topic(A, "state"), b"x") == "Not authorized"
    stranger.close()


def test_a_message_over_the_limit_ends_the_connection_not_the_broker(
    sites: tuple[Site, Site], central: RunningCentral
) -> None:
    a, b = sites
    a.client.publish(topic(A, "bulk"), b"0" * 400_000, qos=1)
    wait_for(a.ended.is_set, "the broker drops the connection")
    assert b.publish(topic(B, "csr"), b"still here") == "Success"


def test_a_new_site_may_come_in_after_a_reload(central: RunningCentral) -> None:
    text = central.config.read_text()
    more = make_settings(central.folder / "data", central.registrar, (A, B, "site-c"))
    import yaml

    central.config.write_text(yaml.safe_dump(more.model_dump(mode="json", by_alias=True)))
    central.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any(s["id"] == "site-c" for s in central.get("/api/v1/sites")), "the new site")
    site = central.site("site-c")
    site.connect()
    wait_for(lambda: site.publish(topic("site-c", "csr"), b"x") == "Success", "it may write")
    site.close()
    central.config.write_text("sites: [mistake")
    central.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "sites_not_reloaded" in central.log.read_text(), "a mistake is told and changes nothing")
    assert len(central.get("/api/v1/sites")) == 3
    central.config.write_text(text)


# -- the child itself --------------------------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths.of(make_settings(tmp_path / "data", SigningKey.generate(), (A,)), tmp_path)
    pki.initialise(made, "127.0.0.1", datetime.now(UTC))
    return made


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def _user_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


async def _until(condition, what: str) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(what)


async def test_a_broker_that_dies_is_started_again_on_its_port(paths: Paths) -> None:
    broker = ChildBroker(paths, "127.0.0.1", 0, (A,))
    await broker.start()
    first, port = broker.pid, broker.port
    os.kill(first, signal.SIGKILL)
    await _until(lambda: broker.restarts == 1, "restarted")
    await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 5)
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < 2.0
    assert broker.pid is None
    assert not (paths.broker_dir / "mosquitto.pid").exists()


async def test_keys_of_the_broker_are_readable_by_its_user_alone(paths: Paths) -> None:
    broker = ChildBroker(paths, "127.0.0.1", 0, (A,))
    await broker.start()
    try:
        modes = {p.name: p.stat().st_mode & 0o077 for p in paths.broker_dir.iterdir() if p.is_file()}
        assert modes.pop("mosquitto.pid", 0) & 0o022 == 0
        assert set(modes.values()) == {0}
    finally:
        await broker.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="left out: dropping to another user needs root")
async def test_started_as_root_it_runs_as_the_configured_user(paths: Paths) -> None:
    for parent in paths.broker_dir.parents:  # pytest's folders are for root alone
        if str(parent).startswith(("/tmp/", "/var/tmp/")):
            parent.chmod(0o755) if parent.exists() else None
    broker = ChildBroker(paths, "127.0.0.1", 0, (A,), user="nobody")
    await broker.start()
    try:
        assert _user_of(broker.pid) != 0
    finally:
        await broker.stop()


async def test_a_child_left_behind_is_ended_and_a_stranger_is_not(
    paths: Paths, stranger: subprocess.Popen[bytes]
) -> None:
    first = ChildBroker(paths, "127.0.0.1", 0, (A,))
    await first.start()
    left = first.pid
    first._owner.cancel()  # an owner that forgot its child
    second = ChildBroker(paths, "127.0.0.1", 0, (A,))
    await second.start()
    try:
        assert not _alive(left)
        assert _alive(second.pid)
    finally:
        await second.stop()
    (paths.broker_dir / "mosquitto.pid").write_text(f"{stranger.pid}\n")
    third = ChildBroker(paths, "127.0.0.1", 0, (A,))
    await third.start()
    await third.stop()
    assert stranger.poll() is None


async def test_a_port_in_use_is_told_clearly(paths: Paths) -> None:
    first = ChildBroker(paths, "127.0.0.1", 0, (A,))
    await first.start()
    other = Paths.of(make_settings(paths.data_dir.parent / "other", SigningKey.generate(), (A,)), Path("/"))
    pki.initialise(other, "127.0.0.1", datetime.now(UTC))
    try:
        with pytest.raises(CentralError, match=r"did not come up.*Address already in use"):
            await ChildBroker(other, "127.0.0.1", first.port, (A,)).start()
    finally:
        await first.stop()


async def test_a_missing_binary_names_what_to_install(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_child.shutil, "which", lambda *_args, **_kwargs: None)
    with pytest.raises(CentralError, match="apt-get install mosquitto"):
        await ChildBroker(paths, "127.0.0.1", 0, (A,)).start()


def test_when_central_is_killed_its_broker_dies_too(tmp_path: Path) -> None:
    registrar = SigningKey.generate()
    running = RunningCentral(tmp_path, make_settings(tmp_path / "data", registrar, (A,)), registrar)
    running.start()
    pid = int((running.paths.broker_dir / "mosquitto.pid").read_text())
    assert _alive(pid)
    running.kill()
    wait_for(lambda: not _alive(pid), "the broker is gone")
    running.start()
    running.stop()


def test_a_request_is_signed_for_the_site_it_was_enrolled_as_and_for_p256_alone(paths: Paths) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    authority = pki.Authority.load(paths)
    now = datetime.now(UTC)
    csr, _ = make_csr(COLLECTOR_NAME)
    cert = x509.load_pem_x509_certificate(pki.sign_csr(authority, csr, A, now))
    assert cert.subject.rfc4514_string() == f"CN={A}"
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(CentralError, match="collector's own name"):
        pki.sign_csr(authority, csr, COLLECTOR_NAME, now)
    with pytest.raises(CentralError, match="site id"):
        pki.sign_csr(authority, csr, "Site A", now)
    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        with pytest.raises(CentralError, match="expected an EC key on P-256"):
            pki.sign_csr(authority, make_csr(A, key)[0], A, now)
    broken = csr.replace(csr[100:104], b"AAAA", 1)
    with pytest.raises(CentralError):
        pki.sign_csr(authority, broken, A, now)


def test_private_files_are_private_and_init_replaces_nothing(paths: Paths) -> None:
    private = (paths.ca_key, paths.broker_key, paths.key_file, paths.k_col)
    assert [f.stat().st_mode & 0o777 for f in private] == [0o600] * 4
    before = [f.read_bytes() for f in private]
    assert pki.initialise(paths, "127.0.0.1", datetime.now(UTC)) == []
    assert [f.read_bytes() for f in private] == before
