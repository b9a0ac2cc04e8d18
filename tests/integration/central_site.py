"""A site for tests: real certificates, a real signing key, the contract's own encoders, a real MQTT client."""

from __future__ import annotations

import contextlib
import json
import secrets
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from central import pki
from central.paths import Paths
from config.central import Central
from wire.batch import Batch, PartBuilder, encode
from wire.dsse import ORDER_TYPE, seal
from wire.errors import WireError
from wire.keys import SigningKey
from wire.messages import Commit, Heads, Live, Message, Progress, State, StreamHead, Want, decode
from wire.names import DOWN, origin, topic
from wire.orders import Basis, Hold, Order, uuid7
from wire.quality import CODES, Quality
from wire.records import RecordLine
from wire.registry import Epoch, Issuer, KeysDocument, Person, RegisteredPoint, RegisteredSite, sign_keys

WAIT_S = 10.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Poll a condition that a thread or another process fulfils."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)
    return found


def make_settings(folder: Path, registrar: SigningKey, sites: tuple[str, ...], **changes: Any) -> Central:
    return Central.model_validate(
        {
            "schema": 1,
            "data_dir": str(folder),
            "port": 0,
            "broker": {"mode": "child", "port": 0},
            "registrar_keys": [registrar.public.text],
            "sites": [
                {
                    "id": site,
                    "name": {"kk": f"{site} алаңы", "ru": f"Площадка {site}", "en": f"Site {site}"},
                    "phone": "+7 700 000 00 01",
                    "contracted_kw": 5000,
                    "emergency_kw": 300,
                    "measured_at": "m1",
                }
                for site in sites
            ],
        }
        | changes
    )


def make_csr(common_name: str, key: Any | None = None) -> tuple[bytes, Any]:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM), key


def enroll(paths: Paths, site: str, folder: Path) -> tuple[Path, Path]:
    """Certificate and key files of a site, by the real signing function."""
    csr, key = make_csr("whatever-it-says")
    cert = pki.sign_csr(pki.Authority.load(paths), csr, site, datetime.now(UTC))
    cert_file, key_file = folder / f"{site}.pem", folder / f"{site}.key"
    cert_file.write_bytes(cert)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


def tls(ca: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


class Peer:
    """A plain MQTT client that notes what it hears."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, client_id: str = "") -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.codes: dict[int, str] = {}
        self.suback: list[str] = []
        self.connected = threading.Event()
        self.ended = threading.Event()
        self.refused: str | None = None
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or secrets.token_hex(8),
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self.ended.set()
        client.on_message = self._on_message
        client.on_publish = lambda _c, _u, mid, code, _p: self.codes.__setitem__(mid, str(code))
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self.suback.extend(str(c) for c in codes)
        self.client = client
        self._where = host, port

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            self.refused = str(code)
        else:
            self.connected.set()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload), message.retain))
        self.on_heard(message.topic, bytes(message.payload))

    def on_heard(self, full_topic: str, payload: bytes) -> None:
        """For subclasses."""

    def connect(self) -> None:
        host, port = self._where
        self.client.connect(host, port, keepalive=20, clean_start=True, properties=Properties(PacketTypes.CONNECT))
        self.client.loop_start()
        assert self.connected.wait(WAIT_S), f"not connected: {self.refused}"

    def subscribe(self, pattern: str) -> None:
        before = len(self.suback)
        self.client.subscribe(pattern, qos=1)
        wait_for(lambda: len(self.suback) > before, f"SUBACK for {pattern}")

    def publish(self, full_topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> str:
        """Publish and wait for the broker's word; returns the PUBACK reason."""
        info = self.client.publish(full_topic, payload, qos=qos, retain=retain)
        if qos == 0:
            return ""
        return str(wait_for(lambda: self.codes.get(info.mid), f"PUBACK of {full_topic}"))

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@dataclass
class Ledger:
    """Signed, chained record lines of one life of a site."""

    site: str
    key: SigningKey
    epoch: str = "e1-0badcafe"
    lines: dict[str, list[bytes]] = field(default_factory=dict)
    hashes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, stream: str, ty: str, *, at: int | None = None, **fields: Any) -> bytes:
        lines = self.lines.setdefault(stream, [])
        hashes = self.hashes.setdefault(stream, [])
        payload = {
            "v": 1,
            "log": origin(self.site, self.epoch),
            "st": stream,
            "n": len(lines),
            "p": hashes[-1] if hashes else None,
            "a": None,
            "ty": ty,
            "at": now_ms() if at is None else at,
            "mono": 1,
            "boot": "b1",
            "clk": {"s": "S", "off_us": 12, "src": "ntp"},
            "fw": "0.1.0",
        } | fields
        record = RecordLine.sign(payload, self.key)
        lines.append(record.encode())
        hashes.append(record.hash.hex())
        return lines[-1]

    def interval(self, mp: str, t0: int, wh: int, slot_s: int = 900, **fields: Any) -> bytes:
        base = {"t0": t0, "t1": t0 + slot_s, "rt0": t0 * 1000, "rt1": (t0 + slot_s) * 1000, "reg": {}, "cfg": "0" * 64}
        rest = {"wh": wh, "exp_wh": None, "sn": None, "mto": None, "q": [], "raw": []}
        return self.add(f"mp:{mp}", "interval", **(base | rest | fields))

    def gap(self, mp: str, t0: int, why: str, slot_s: int = 900) -> bytes:
        return self.add(f"mp:{mp}", "gap", t0=t0, t1=t0 + slot_s, why=why, tries=3)

    def heads(self, boot: str = "b1", bulk_last: int | None = None) -> Heads:
        streams = {name: StreamHead(count=len(lines), last=self.hashes[name][-1]) for name, lines in self.lines.items()}
        return Heads(site=self.site, epoch=self.epoch, boot=boot, at=now_ms(), streams=streams, bulk_last=bulk_last)


class Site(Peer):
    """A whole small site: ledger, batches, presence; sends again what ``want`` asks for, until ``commit``."""

    def __init__(self, site: str, host: str, port: int, context: ssl.SSLContext, key: SigningKey | None = None) -> None:
        super().__init__(host, port, context, f"{site}.c.{secrets.token_hex(16)}")
        self.id = site
        self.ledger = Ledger(site, key or SigningKey.generate())
        self.commits: list[Commit] = []
        self.wants: list[Want] = []
        self.orders: list[bytes] = []
        self.keys: list[bytes] = []
        self.batches: dict[int, bytes] = {}

    def on_heard(self, full_topic: str, payload: bytes) -> None:
        name = full_topic.rsplit("/", 1)[1]
        with contextlib.suppress(WireError):  # some tests send junk to see who hears it
            if name == "commit":
                self.commits.append(decode(Commit, payload))
            elif name == "want":
                self.wants.append(decode(Want, payload))
        if name == "order":
            self.orders.append(payload)
        elif name == "keys":
            self.keys.append(payload)

    def come_online(self) -> None:
        self.connect()
        for name in DOWN:
            self.subscribe(topic(self.id, name))
        self.send("state", self.state())

    def state(self, *, online: bool = True) -> State:
        return State(
            site=self.id,
            epoch=self.ledger.epoch,
            online=online,
            boot="b1",
            agent_version="0.1.0",
            mode="armed",
            simulation=True,
            at=now_ms(),
        )

    def send(self, name: str, message: Message) -> str:
        return self.publish(topic(self.id, name), message.encode(), retain=name == "state")

    def send_lines(self, *lines: bytes, name: str = "evidence") -> str:
        return self.publish(topic(self.id, name), b"\n".join(lines))

    def send_live(self, net_w: int | None, **fields: Any) -> None:
        live = Live(site=self.id, epoch=self.ledger.epoch, boot="b1", at=now_ms(), net_w=net_w, **fields)
        self.publish(topic(self.id, "live"), live.encode(), qos=0)

    def send_progress(self, order: str, state: str, **fields: Any) -> None:
        doc = {"site": self.id, "epoch": self.ledger.epoch, "order": order, "state": state, "at": now_ms()} | fields
        self.send("progress", Progress.model_validate(doc))

    def batch(self, n: int, *, boot: str = "b1", rows: int = 5, at: int | None = None) -> bytes:
        """Make (once) and remember batch ``n``."""
        if n not in self.batches:
            # Whole seconds plus the batch's number: no two batches of a site have a value of the same time.
            t0 = (now_ms() // 1000 * 1000 if at is None else at) - rows * 1000
            builder = PartBuilder("meter", CODES[Quality.NO_VALUE])
            for i in range(rows):
                builder.add("m1", t0 + i * 1000 + n, {"power_w": (4_000_000.0 + n, 0), "frequency_hz": (50.0, 0)})
            whole = Batch(1, self.id, self.ledger.epoch, boot, n, t0, "S", [builder.build(t0)])
            self.batches[n] = encode(whole)
        return self.batches[n]

    def send_batch(self, n: int, **kind: Any) -> str:
        return self.publish(topic(self.id, "bulk"), self.batch(n, **kind))

    def committed(self, stream: str) -> set[int]:
        """Numbers that central says are on disk."""
        return {
            n
            for commit in self.commits
            for part in commit.streams
            if part.stream == stream
            for span in part.ranges
            for n in range(span.first, span.last + 1)
        }

    def wait_committed(self, stream: str, count: int, timeout_s: float = WAIT_S) -> None:
        wait_for(lambda: len(self.committed(stream)) >= count, f"commit of {count} in {stream}", timeout_s)


def make_register(
    registrar: SigningKey, sites: dict[str, SigningKey], *, version: int = 1, epoch: str = "e1-0badcafe"
) -> bytes:
    dispatcher = SigningKey.generate()
    document = KeysDocument(
        v=1,
        version=version,
        issued_at=now_ms(),
        persons=(Person(id="p1", name="Dispatcher", organisation="SO", role="system_operator"),),
        issuers=(
            Issuer(
                kid=dispatcher.kid,
                key=dispatcher.public.text,
                person="p1",
                rights=("limit", "stop", "release"),
                valid_from=1_700_000_000_000,
                valid_to=9_000_000_000_000,
            ),
        ),
        sites=tuple(
            RegisteredSite(
                id=site,
                zone="default",
                contracted_w=5_000_000,
                emergency_w=300_000,
                slot_s=900,
                epochs=(Epoch(epoch=epoch, k_rec=key.public.text, k_log=SigningKey.generate().public.text),),
                points=(RegisteredPoint(id="main", role="commercial", boundary=True),),
            )
            for site, key in sites.items()
        ),
    )
    return sign_keys(document, registrar)


def make_order(
    site: str, key: SigningKey, *, epoch: str = "e1-0badcafe", life_ms: int = 60_000, **fields: Any
) -> tuple[str, bytes]:
    now = now_ms()
    base: dict[str, Any] = {
        "v": 1,
        "id": uuid7(now),
        "site": site,
        "epoch": epoch,
        "seq": now,
        "action": "limit",
        "limit_w": 1_500_000,
        "issued_at": now,
        "execute_by": now + life_ms,
        "expires_at": now + life_ms + 3_600_000,
        "hold": Hold(until_released=True),
        "basis": Basis(code="balance"),
    }
    order = Order(**(base | fields))
    return order.id, seal(ORDER_TYPE, order.encode(), key).encode()


class RunningCentral:
    """``tizgin central run`` as a process of its own, with everything real."""

    def __init__(self, folder: Path, settings: Central, registrar: SigningKey) -> None:
        self.folder = folder
        self.settings = settings
        self.registrar = registrar
        self.base = folder / "config"
        self.base.mkdir(exist_ok=True)
        self.config = self.base / "central.yaml"
        self.paths = Paths.of(settings, self.base)
        self.ready = folder / "ready.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "central.log"
        self.config.write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True)))
        pki.initialise(self.paths, "127.0.0.1", datetime.now(UTC))

    def start(self) -> None:
        command = [sys.executable, "-m", "tizgin.cli", "central", "run", "--config", str(self.config)]
        self.ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--ready-file", str(self.ready)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(lambda: self.ready.exists() or self.process.poll() is not None, "central is ready", 30)
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        facts = json.loads(self.ready.read_text())
        self.url, self.host, self.port = facts["api_url"], facts["broker_host"], facts["broker_port"]

    def stop(self) -> float:
        """SIGTERM; returns how long the stop took."""
        began = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def site(self, name: str, key: SigningKey | None = None) -> Site:
        cert, private = enroll(self.paths, name, self.folder)
        return Site(name, self.host, self.port, tls(self.paths.ca_file, cert, private), key)

    def get(self, path: str, **headers: str) -> Any:
        answer = httpx.get(self.url + path, headers=headers, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()
