"""A witness as a client of central's broker: it is asked and answers there, and can do nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from central import pki
from central.broker.acl import render
from central.errors import CentralError
from tests.integration.central_site import Peer, RunningCentral, Site, make_csr, make_settings, tls, wait_for
from wire.checkpoints import Checkpoint, Submission, cosign, cosigned_at
from wire.errors import WireError
from wire.keys import SigningKey, b64
from wire.merkle import Frontier, consistency_proof
from wire.messages import CheckpointMessage, Cosign, SizeProof, decode
from wire.names import DOWN, UP, topic
from wire.notes import COSIGNATURE, NoteKey, parse_note, parse_signature_lines
from wire.registry import Epoch, KeysDocument, RegisteredSite, sign_keys
from wire.witness_link import Ask, Said, ask_topic, client_name, said_topic

A, B = "site-a", "site-b"
EPOCH = "e1-0badcafe"
K_REC, K_LOG, K_LIAR, STRANGER = (SigningKey.generate() for _ in range(4))
LIAR = NoteKey("liar.example", COSIGNATURE, K_LIAR.public.raw)
TIZGIN = [sys.executable, "-m", "tizgin"]


class Log:
    """The growing log of one site, and its checkpoint messages."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.edge = Frontier()
        self.nodes: dict[tuple[int, int], bytes] = {}

    def next(self, olds: tuple[int, ...] = ()) -> CheckpointMessage:
        """Three records later."""
        first = self.edge.size
        leaves = [hashlib.sha256(b"%d" % n).digest() for n in range(first, first + 3)]
        for leaf in leaves:
            for height, index, node in self.edge.append(leaf):
                self.nodes[height, index] = node
        size = self.edge.size
        proofs = [
            SizeProof(old=o, path=tuple(b64(s) for s in consistency_proof(lambda h, i: self.nodes[h, i], o, size)))
            for o in olds
        ]
        note = Checkpoint(f"tizgin/{self.site}/{EPOCH}", size, self.edge.root()).sign(K_LOG).encode().decode()
        return CheckpointMessage(
            site=self.site, epoch=EPOCH, note=note, submit=True, proofs=tuple(proofs),
            first=first, leaves=b64(b"".join(leaves)),
        )  # fmt: skip


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and public key of the honest witness, made by its own command."""
    folder = tmp_path_factory.mktemp("witness")
    command = [*TIZGIN, "witness", "keygen", "--key", str(folder / "w.pem"), "--name", "so.example"]
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return folder, line.split()[2]


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory, honest: tuple[Path, str]) -> Iterator[RunningCentral]:
    registrar = SigningKey.generate()
    folder = tmp_path_factory.mktemp("broker")
    witnesses = [{"key": honest[1]}, {"key": LIAR.text}]
    settings = make_settings(folder / "data", registrar, (A, B), witnesses=witnesses)
    running = RunningCentral(folder, settings, registrar)
    running.start()
    sites = tuple(
        RegisteredSite(
            id=name, zone="north", contracted_w=1, emergency_w=0, slot_s=900,
            epochs=(Epoch(epoch=EPOCH, k_rec=K_REC.public.text, k_log=K_LOG.public.text),),
        )
        for name in (A, B)
    )  # fmt: skip
    document = KeysDocument(v=1, version=1, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=sites)
    raw = sign_keys(document, registrar)
    (folder / "keys.json").write_bytes(raw)
    httpx.put(
        f"{running.url}/api/v1/keys", content=raw, headers={"content-type": "application/json"}
    ).raise_for_status()
    yield running
    running.stop()


@pytest.fixture
def site(central: RunningCentral) -> Iterator[Site]:
    made = central.site(A)
    made.come_online()
    yield made
    made.close()


@pytest.fixture
def site_b(central: RunningCentral) -> Iterator[Site]:
    made = central.site(B)
    made.come_online()
    yield made
    made.close()


def said_by(site: Site, witness: str) -> list[Cosign]:
    found = []
    for name, payload, _ in list(site.heard):
        with contextlib.suppress(WireError):
            if name == topic(site.id, "cosign"):
                found.append(decode(Cosign, payload))
    return [said for said in found if said.witness == witness]


class Liar(Peer):
    """A client under the second witness's certificate; what it answers is up to the test."""

    def __init__(self, central: RunningCentral) -> None:
        csr, key = request()
        authority = pki.Authority.load(central.paths)
        cert = pki.sign_csr(authority, csr, client_name(LIAR), datetime.now(UTC))
        files = central.folder / "liar.pem", central.folder / "liar.key"
        files[0].write_bytes(cert)
        files[1].write_bytes(key)
        super().__init__(central.host, central.port, tls(central.paths.ca_file, *files))
        self.replies: list[tuple[Callable[[Ask], bytes], ...]] = []
        self.answered = 0

    def on_heard(self, full_topic: str, payload: bytes) -> None:
        if full_topic == ask_topic(client_name(LIAR)) and self.replies:
            ask = Ask.parse(payload)
            for reply in self.replies.pop(0):
                self.client.publish(said_topic(client_name(LIAR)), reply(ask))
            self.answered += 1


def request() -> tuple[bytes, bytes]:
    """A certificate request and its key, both PEM."""
    csr, key = make_csr("whatever")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return csr, key.private_bytes(*form)


@pytest.fixture
def liar(central: RunningCentral) -> Iterator[Liar]:
    made = Liar(central)
    made.connect()
    made.subscribe(ask_topic(client_name(LIAR)))
    yield made
    made.close()


@pytest.fixture
def running_witness(central: RunningCentral, honest: tuple[Path, str]) -> Iterator[None]:
    """The real commands: a request, a certificate, a witness that connects."""
    folder, key = honest
    csr, cert = folder / "w.csr", folder / "w-tls.pem"
    subprocess.run(
        [*TIZGIN, "witness", "request", "--key", str(folder / "w.pem"), "--name", "so.example",
         "--tls-key", str(folder / "w-tls.key"), "--out", str(csr)],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        [*TIZGIN, "central", "enroll-witness", "--config", str(central.config), "--csr", str(csr), "--key", key,
         "--out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    command = [
        *TIZGIN, "witness", "run", "--key", str(folder / "w.pem"), "--name", "so.example",
        "--register", str(central.folder / "keys.json"), "--registrar", central.registrar.public.text,
        "--store", str(folder / "w.db"), "--port", "0", "--ready-file", str(folder / "ready.json"),
        "--broker", f"mqtts://{central.host}:{central.port}", "--ca", str(central.paths.ca_file),
        "--cert", str(cert), "--tls-key", str(folder / "w-tls.key"),
    ]  # fmt: skip
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
    wait_for(lambda: b"broker_connected" in (folder / "log").read_bytes(), "the witness at the broker", 30)
    yield
    process.terminate()
    process.wait(20)


def line(ask: Ask, *, text: str | None = None, name: str = "liar.example", key: SigningKey = K_LIAR) -> str:
    """A cosignature line; without changes a true one, over what was asked."""
    asked = parse_note(Submission.parse(ask.body).note).text
    return cosign(text or asked, name, key, 1_790_000_000).line()


NOISE: tuple[Callable[[Ask], bytes], ...] = (
    lambda ask: b"",
    lambda ask: bytes(range(256)) * 40,
    lambda ask: f"id {ask.id}\n".encode() + b"no status",
    lambda ask: Said("0" * 32, 200, line(ask)).encode(),
    lambda ask: Said(ask.id, 200, "x" * 200_000).encode(),
)
"""Answers to no question; central goes on waiting."""
OTHER_LOG = Checkpoint(f"tizgin/{A}/{EPOCH}", 3, b"\x05" * 32).text
LIES: dict[str, Callable[[Ask], bytes]] = {
    "no line": lambda ask: Said(ask.id, 200, "yes\n").encode(),
    "not Unicode": lambda ask: Said(ask.id, 200, "").encode() + b"\xff\xfe\n",
    "a stranger's key": lambda ask: Said(ask.id, 200, line(ask, key=STRANGER)).encode(),
    "another witness's name": lambda ask: Said(ask.id, 200, line(ask, name="so.example")).encode(),
    "another log": lambda ask: Said(ask.id, 200, line(ask, text=OTHER_LOG)).encode(),
    "a size without end": lambda ask: Said(ask.id, 409, "9" * 15_000).encode(),
    "a size below nothing": lambda ask: Said(ask.id, 409, "-1\n").encode(),
    "teapot": lambda ask: Said(ask.id, 418, "short and stout\n").encode(),
}


def test_nothing_that_a_lying_witness_says_reaches_a_site_and_its_true_word_still_does(
    central: RunningCentral, site_b: Site, liar: Liar
) -> None:
    log, own = Log(B), f"central-{SigningKey.from_pem(central.paths.k_col.read_bytes()).kid}"
    for kind, lie in LIES.items():
        answered, heard = liar.answered, len(said_by(site_b, own))
        liar.replies = [(*NOISE, lie)]
        site_b.send("checkpoint", log.next())
        wait_for(lambda answered=answered: liar.answered > answered, f"asked: {kind}")
        wait_for(lambda heard=heard: len(said_by(site_b, own)) > heard, "central's own word goes on")
        assert said_by(site_b, "liar.example") == [], kind
    message = log.next()
    text = parse_note(message.note.encode()).text
    liar.replies = [(*NOISE, lambda ask: Said(ask.id, 200, line(ask)).encode())] * 3
    site_b.send("checkpoint", message)
    (said, *_) = wait_for(lambda: said_by(site_b, "liar.example"), "a true cosignature", 25)
    assert said.of_size == log.edge.size
    assert cosigned_at(text, parse_signature_lines(said.lines or "")[0], LIAR) == 1_790_000_000


def test_a_witness_at_the_broker_cosigns_what_continues_and_follows_the_log(
    central: RunningCentral, site: Site, running_witness: None, honest: tuple[Path, str]
) -> None:
    log, key = Log(A), NoteKey.parse(honest[1])
    for olds in ((), (3,), (3, 6)):
        message = log.next(olds)
        site.send("checkpoint", message)
        size = log.edge.size
        (said,) = wait_for(
            lambda size=size: [s for s in said_by(site, "so.example") if s.of_size == size], f"a cosignature of {size}"
        )
        (line,) = parse_signature_lines(said.lines or "")
        assert cosigned_at(parse_note(message.note.encode()).text, line, key) > 1_700_000_000
    (sent,) = [s for s in said_by(site, "so.example") if s.of_size == 9]
    assert sent.site == A


def test_a_witness_writes_nothing_but_its_answers_and_reads_nothing_but_its_questions(
    central: RunningCentral, site: Site, liar: Liar, honest: tuple[Path, str]
) -> None:
    other = client_name(NoteKey.parse(honest[1]))
    liar.subscribe("#")
    for name in (*UP, *DOWN):
        liar.subscribe(topic(A, name))
    liar.subscribe(ask_topic(other))
    liar.heard.clear()
    mark = b"from a witness"
    for name in (*UP, *DOWN):
        liar.publish(topic(A, name), mark)
    liar.publish(said_topic(other), mark)
    liar.publish(ask_topic(client_name(LIAR)), mark)
    site.publish(said_topic(client_name(LIAR)), b"from a site")
    site.subscribe(ask_topic(client_name(LIAR)))
    before = len(site.heard)
    site.send("checkpoint", Log(A).next())
    wait_for(lambda: len(liar.heard) > 0, "its own question")
    wait_for(lambda: len(site.heard) > before, "central's word")
    assert {name for name, _, _ in liar.heard} == {ask_topic(client_name(LIAR))}
    assert mark not in {payload for _, payload, _ in liar.heard + site.heard}
    assert not any(name.endswith(("/ask", "/said")) for name, _, _ in site.heard)


def test_no_site_may_have_a_witness_s_name() -> None:
    with pytest.raises(CentralError, match="belong to witnesses"):
        render([client_name(LIAR)])
