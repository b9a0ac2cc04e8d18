"""A witness of its own: cosigns what continues a log, refuses and keeps what does not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from ports import free_ports
from site_kit import SITE, SiteKit, until

from central.pki import Authority, sign_csr
from config.central import RemoteWitness
from grid.witness.app import Witness, make_app
from grid.witness.link import Broker, BrokerLink
from grid.witness.request import make_request
from grid.witness.store import WitnessStore
from wire.checkpoints import Checkpoint, Submission, cosignatures, cosigned_at, open_checkpoint
from wire.keys import SigningKey
from wire.merkle import Frontier, consistency_proof
from wire.notes import Note, NoteKey, parse_note, parse_signature_lines
from wire.policy import parse_policy
from wire.registry import Epoch, KeysDocument, RegisteredSite, sign_keys
from wire.witness_link import client_name

EPOCH = "e1-0badcafe"
ORIGIN = f"tizgin/ekb-1/{EPOCH}"
K_REC, K_LOG, K_WIT = (SigningKey.generate() for _ in range(3))


class Tree:
    def __init__(self) -> None:
        self.edge, self.store = Frontier(), {}

    def grow(self, count: int, salt: bytes = b"") -> None:
        for _ in range(count):
            for height, index, node in self.edge.append(hashlib.sha256(salt + b"%d" % self.edge.size).digest()):
                self.store[height, index] = node

    def submission(self, old: int, key: SigningKey = K_LOG) -> Submission:
        note = Checkpoint(ORIGIN, self.edge.size, self.edge.root()).sign(key).encode()
        proof = consistency_proof(lambda h, i: self.store[h, i], old, self.edge.size) if old else []
        return Submission(old, tuple(proof), note)


def register(version: int = 1) -> KeysDocument:
    site = RegisteredSite(
        id="ekb-1",
        zone="north",
        contracted_w=1,
        emergency_w=0,
        slot_s=900,
        epochs=(Epoch(epoch=EPOCH, k_rec=K_REC.public.text, k_log=K_LOG.public.text),),
    )
    return KeysDocument(v=1, version=version, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=(site,))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    from fastapi.testclient import TestClient

    store = WitnessStore(tmp_path / "w.db")
    witness = Witness("so.example", K_WIT, store, register, lambda: 1_790_000_000_000)
    with TestClient(make_app(witness)) as client:
        yield client
    store.close()


def test_it_cosigns_what_continues_and_names_its_size_otherwise(client: httpx.Client) -> None:
    tree = Tree()
    tree.grow(5)
    first = tree.submission(0)
    answer = client.post("/add-checkpoint", content=first.encode())
    assert answer.status_code == 200
    note = parse_note(first.note)
    key = NoteKey("so.example", 4, K_WIT.public.raw)
    assert cosigned_at(note.text, parse_signature_lines(answer.text)[0], key) == 1_790_000_000
    tree.grow(8)
    stale = client.post("/add-checkpoint", content=tree.submission(3).encode())
    assert (stale.status_code, stale.text, stale.headers["content-type"].split(";")[0]) == (
        409, "5\n", "text/x.tlog.size",
    )  # fmt: skip
    assert client.post("/add-checkpoint", content=tree.submission(5).encode()).status_code == 200
    latest = client.get(f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
    assert open_checkpoint(latest.content, register().log_keys("ekb-1", EPOCH))[0].size == 13


def test_what_does_not_continue_is_refused_and_kept_as_proof(client: httpx.Client) -> None:
    tree, fork = Tree(), Tree()
    tree.grow(6)
    fork.grow(6, b"other")
    assert client.post("/add-checkpoint", content=tree.submission(0).encode()).status_code == 200
    assert client.post("/add-checkpoint", content=fork.submission(6).encode()).status_code == 422
    fork.grow(3, b"other")
    assert client.post("/add-checkpoint", content=fork.submission(6).encode()).status_code == 422
    told = client.get("/status").json()
    assert [(log["origin"], log["size"]) for log in told["logs"]] == [(ORIGIN, 6)]
    assert len(told["splits"]) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"old x\n\nnote", 400),
        (b"old 0\n" + b"A" * 44 + b"\n\nno note", 400),
        (b"x" * 200_000, 413),
        (b"old 0\n\n" + Checkpoint("tizgin/nobody/e1-00000000", 1, b"\1" * 32).sign(K_LOG).encode(), 404),
        (b"old 0\n\n" + Checkpoint(ORIGIN, 1, b"\1" * 32).sign(SigningKey.generate()).encode(), 403),
    ],
    ids=["empty", "size", "proof", "large", "unknown log", "stranger's key"],
)
def test_hostile_requests_get_their_status(client: httpx.Client, body: bytes, status: int) -> None:
    assert client.post("/add-checkpoint", content=body).status_code == status


def test_the_command_makes_a_key_serves_and_remembers_over_a_restart(tmp_path: Path) -> None:
    registrar = SigningKey.generate()
    (tmp_path / "keys.json").write_bytes(sign_keys(register(), registrar))
    tizgin = [sys.executable, "-m", "tizgin", "witness"]
    line = subprocess.run(
        [*tizgin, "keygen", "--key", str(tmp_path / "w.pem"), "--name", "so.example"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert parse_policy(f"{line}quorum so.example\n").keys[0].name == "so.example"

    @contextlib.contextmanager
    def running() -> Iterator[str]:
        ready = tmp_path / "ready.json"
        ready.unlink(missing_ok=True)
        command = [
            *tizgin, "run", "--key", str(tmp_path / "w.pem"), "--name", "so.example",
            "--register", str(tmp_path / "keys.json"), "--registrar", registrar.public.text,
            "--store", str(tmp_path / "w.db"), "--port", "0", "--ready-file", str(ready),
        ]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while not ready.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield json.loads(ready.read_text())["url"]
        finally:
            process.terminate()
            assert process.wait(20) in (0, -signal.SIGTERM)

    tree = Tree()
    tree.grow(4)
    with running() as url:
        assert httpx.post(f"{url}/add-checkpoint", content=tree.submission(0).encode()).status_code == 200
    tree.grow(1)
    with running() as url:
        assert httpx.post(f"{url}/add-checkpoint", content=tree.submission(0).encode()).text == "4\n"
        assert httpx.post(f"{url}/add-checkpoint", content=tree.submission(4).encode()).status_code == 200


class Listening:
    """A witness in a thread of this process, for a site in the same process."""

    def __init__(self, folder: Path, key: SigningKey) -> None:
        self.key = key
        self.store = WitnessStore(folder / "witness.db")
        self.document: KeysDocument | None = None
        (self.port,) = free_ports(1)

    @property
    def note_key(self) -> NoteKey:
        return NoteKey("so.example", 4, self.key.public.raw)


@pytest.fixture(params=["http", pytest.param("broker", marks=pytest.mark.long)])
async def kit(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SiteKit]:
    """A site whose policy asks for central and for another witness, reached in one of two ways."""
    import asyncio

    import uvicorn

    listening = Listening(tmp_path, K_WIT)

    class Kit(SiteKit):
        @property
        def policy(self) -> str:
            key = listening.note_key.text
            return super().policy.replace(
                "quorum central\n", f"witness so {key}\ngroup both all central so\nquorum both\n"
            )

        def register(self, **changes: object) -> bytes:
            raw = super().register(**changes)
            from wire.registry import open_keys

            listening.document, _ = open_keys(raw, [self.registrar.public])
            return raw

    made = Kit(tmp_path / "site", luxos=2, stock=1)
    over_broker = request.param == "broker"
    url = None if over_broker else f"http://127.0.0.1:{listening.port}"
    remote = RemoteWitness(url=url, key=listening.note_key.text)
    made.central_settings = made.central_settings.model_copy(update={"witnesses": (remote,)})
    witness = Witness("so.example", K_WIT, listening.store, lambda: listening.document, lambda: time.time_ns() // 10**6)
    server = uvicorn.Server(
        uvicorn.Config(make_app(witness), port=listening.port, log_level="warning", lifespan="off", access_log=False)
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # older uvicorn has it
    running = asyncio.create_task(server.serve())
    link = None
    if over_broker:
        cert = tmp_path / "witness-tls.pem"
        csr = make_request(listening.note_key, tmp_path / "witness-tls.key")
        cert.write_bytes(sign_csr(Authority.load(made.paths), csr, client_name(listening.note_key), datetime.now(UTC)))
        place = f"mqtts://127.0.0.1:{made.broker_port}"
        link = BrokerLink(witness, Broker(place, made.paths.ca_file, cert, tmp_path / "witness-tls.key"))
        link.start()
    try:
        await made.start()
        yield made
    finally:
        if link is not None:
            link.stop()
        await made.stop()
        server.should_exit = True
        await running
        listening.store.close()


async def test_system_operator_by_name_and_one_more_cosign_a_live_site(kit: SiteKit) -> None:
    app = kit.app
    assert app is not None
    await until(lambda: app.checkpointer.counters.cosigned_size > 0, 60, "a checkpoint cosigned by both")
    first = app.checkpointer.counters.cosigned_size
    await until(lambda: app.checkpointer.counters.cosigned_size > first, 60, "and the next, with a proof")
    raw = bytes((await app.ledger.read("SELECT note FROM cosigned ORDER BY size DESC LIMIT 1"))[0][0])
    note: Note = parse_note(raw)
    policy = parse_policy(kit.policy)
    assert set(cosignatures(note, policy.keys)) == {"so.example", policy.witnesses["central"].name}
    assert note.text.startswith(f"tizgin/{SITE}/")
