"""A whole site on loopback for tests: plant, agent, broker, central and people with keys, all real, in one process.

``SiteKit`` writes the files a person would write, enrols the agent, signs the register, proves the outputs by signed
acts, and starts what a test asks for. Ports are free ones; nothing outside the folder it is given is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from ports import free_ports, port_run

from agent.app import AgentApp, Started, config_digest
from agent.clock import SystemClock
from agent.hsm.key import token_of
from agent.identity import enrolment, load_keys, make_keys
from agent.ledger import Ledger
from central.paths import Paths
from central.pki import Authority, initialise, sign_csr
from central.service import CentralService
from central.store.database import make_engine
from central.store.schema import records
from central.witness import note_key
from config.central import Central
from config.loader import load_site
from config.site import Site
from simulator.site import SimulatedSite
from tizgin.commands._agent_ask import outputs_of
from tizgin.commands._agent_check import ProfileCatalogue
from wire.acts import CommissioningAct, ModeAct, OutputTest, encode_act
from wire.dsse import ACT_TYPE, ORDER_TYPE, seal
from wire.keys import SigningKey
from wire.orders import Basis, Escalation, Hold, Order, Restore, parse_order, uuid7
from wire.records import RecordLine
from wire.registry import Epoch, Issuer, KeysDocument, Person, RegisteredPoint, RegisteredSite, sign_keys

SITE = "kz-test-01"
ZONE = "north"


def site_doc(
    *, luxos: int, stock: int, broker_port: int, registrar: str, slot_s: int = 10, mode: str = "armed"
) -> dict[str, Any]:
    """A site file: two mining boards behind contactors, cooling and control on their own boards."""
    meters, relay = free_ports(2)
    lux_rpc, stock_rpc, stock_http = port_run(luxos), port_run(stock), port_run(stock)
    fans = round((luxos + stock) * 0.15, 1)

    def contactor(name: str, number: int, parent: str) -> dict[str, Any]:
        return {
            "id": name,
            "type": "switch",
            "fed_from": [parent],
            "actuator": "contactor_no",
            "close": "auto",
            "voltage_kv": 0.4,
            "reclose_guard_s": 1,
            "control": {"device": "io-1", "output": f"relay_{number}", "min_interval_s": 1},
            "position": {
                "open": {"device": "io-1", "input": f"di_{2 * number - 1}"},
                "closed": {"device": "io-1", "input": f"di_{2 * number}"},
            },
        }

    return {
        "schema": 1,
        "site": {
            "id": SITE,
            "name": {"kk": "Сынақ алаңы", "ru": "Испытательная площадка", "en": "Test site"},
            "zone": ZONE,
            "contracted_kw": 4.0 * (luxos + stock) + fans + 10,
            "reservation": {"emergency_kw": fans + 6},
            "simulation": True,
        },
        "agent": {
            "mode": mode,
            "state_dir": "state",
            "host": "box",
            "slot_s": slot_s,
            "metrics_port": 0,
            "bulk_period_s": 1,
            "live_period_s": 0.5,
            "clock_source": "host",
            "timing": {"cooldown_s": 1, "sleep_confirm_s": 4, "switch_confirm_s": 3, "wake_stagger_per_s": 200},
        },
        "uplink": {
            "broker": f"mqtts://127.0.0.1:{broker_port}",
            "ca_file": "ca.pem",
            "cert_file": "site.pem",
            "key_file": "state/tls.key",
        },
        "trust": {"registrar_keys": [registrar]},
        "credentials": {"miners": {"user": "root", "password_file": "miners.secret"}},
        "equipment": [{"id": "box", "kind": "host", "fed_from": "CTRL", "ups_min": 60}],
        "cooling_loops": [{"id": "AIR", "type": "air", "members": ["FANS"], "run_on_s": 60}],
        "nodes": [
            {"id": "GRID", "type": "grid_connection", "voltage_kv": 0.4},
            {"id": "QF0", "type": "switch", "role": "incomer", "fed_from": ["GRID"]},
            {"id": "MAIN", "type": "bus", "fed_from": ["QF0"], "voltage_kv": 0.4},
            contactor("KM1", 1, "MAIN"),
            {"id": "BOARD1", "type": "bus", "fed_from": ["KM1"]},
            {
                "id": "MINERS1",
                "type": "load",
                "kind": "mining",
                "rated_kw": 3.5 * luxos,
                "cooling_loop": "AIR",
                "fed_from": ["BOARD1"],
            },
            contactor("KM2", 2, "MAIN"),
            {"id": "BOARD2", "type": "bus", "fed_from": ["KM2"]},
            {
                "id": "MINERS2",
                "type": "load",
                "kind": "mining",
                "rated_kw": 3.3 * stock,
                "cooling_loop": "AIR",
                "fed_from": ["BOARD2"],
            },
            {"id": "CTRL", "type": "bus", "fed_from": ["MAIN"]},
            {
                "id": "FANS",
                "type": "load",
                "kind": "cooling",
                "rated_kw": fans,
                "cooling_loop": "AIR",
                "fed_from": ["MAIN"],
            },
            {
                "id": "GUARD",
                "type": "load",
                "kind": "protected",
                "rated_kw": 2,
                "emergency": True,
                "fed_from": ["CTRL"],
            },
        ],
        "links": [
            {"id": "meters", "url": f"modbus://127.0.0.1:{meters}"},
            {"id": "relays", "url": f"modbus://127.0.0.1:{relay}"},
        ],
        "devices": [
            {
                "id": "io-1",
                "kind": "relay",
                "profile": "moxa-iologik-e1214",
                "link": "relays",
                "fed_from": "CTRL",
                "ups_min": 60,
            },
            *(
                {
                    "id": f"em-{n}",
                    "kind": "meter",
                    "profile": profile,
                    "link": "meters",
                    "unit": n + 1,
                    "fed_from": fed,
                    "ups_min": ups,
                    "period_s": 0.5,
                }
                for n, profile, fed, ups in (
                    (0, "eastron-sdm630", "CTRL", 60),
                    (1, "schneider-iem3000", "CTRL", 60),
                    (2, "carlogavazzi-em24-e1", "BOARD2", 0),
                )
            ),
        ],
        "metering_points": [
            {"id": "M0", "device": "em-0", "node": "QF0", "role": "control", "owner": "site", "boundary": True},
            {"id": "M1", "device": "em-1", "node": "KM1", "role": "technical", "owner": "site"},
            {"id": "M2", "device": "em-2", "node": "KM2", "role": "technical", "owner": "site"},
        ],
        "virtual_points": [{"id": "MINING", "formula": "+M1 +M2", "role": "technical"}],
        "measured_at": {"net_import": "M0", "gross_mining": "MINING"},
        "miners": [
            {
                "id": "lux",
                "load": "MINERS1",
                "family": "luxos",
                "model": "S19k Pro",
                "rpc": f"127.0.0.1:{lux_rpc}-{lux_rpc + luxos - 1}",
                "nameplate_w": 2800,
                "nominal_ths": 120,
                "writes_allowed": True,
                "period_s": 2,
            },
            {
                "id": "stock",
                "load": "MINERS2",
                "family": "antminer-stock",
                "model": "S19 Pro",
                "rpc": f"127.0.0.1:{stock_rpc}-{stock_rpc + stock - 1}",
                "http": f"127.0.0.1:{stock_http}-{stock_http + stock - 1}",
                "nameplate_w": 3250,
                "nominal_ths": 110,
                "credentials": "miners",
                "writes_allowed": True,
                "period_s": 2,
            },
        ],
    }


@dataclass
class SiteKit:
    """See the module. Folders: ``site/`` for the site, ``central/`` for central."""

    root: Path
    luxos: int = 6
    stock: int = 4
    time_scale: float = 20.0
    solo_kw: int = 1_000_000
    doc_changes: dict[str, Any] = field(default_factory=dict)
    mode: str = "armed"
    broker_port: int = 0
    database_url: str | None = None
    seq: int = 0
    simulation: SimulatedSite | None = None
    central: CentralService | None = None
    agent_task: asyncio.Task[None] | None = None
    app: AgentApp | None = None
    version: int = 0

    def __post_init__(self) -> None:
        self.registrar, self.dispatcher, self.second, self.engineer = (SigningKey.generate() for _ in range(4))
        self.broker_port = self.broker_port or free_ports(1)[0]
        self.site_dir = self.root / "site"
        self.site_dir.mkdir(parents=True, exist_ok=True)
        (self.site_dir / "miners.secret").write_text("root")
        doc = site_doc(
            luxos=self.luxos, stock=self.stock, broker_port=self.broker_port, registrar=self.registrar.public.text
        )
        for path, value in self.doc_changes.items():
            target: Any = doc
            *parents, last = path.split("/")
            for key in parents:
                target = target[int(key)] if isinstance(target, list) else target[key]
            target[int(last) if isinstance(target, list) else last] = value
        self.site_file = self.site_dir / "site.yaml"
        self.site_file.write_text(yaml.safe_dump(doc, allow_unicode=True, sort_keys=False))
        self.site: Site = load_site(self.site_file)
        self._central_files()
        self._enrol()

    def _central_files(self) -> None:
        self.central_dir = self.root / "central"
        self.central_dir.mkdir(exist_ok=True)
        self.central_settings = Central.model_validate(
            {
                "schema": 1,
                "data_dir": "data",
                "port": 0,
                "broker": {"mode": "child", "host": "127.0.0.1", "port": self.broker_port},
                "database_url": self.database_url,
                "registrar_keys": [self.registrar.public.text],
                "sites": [
                    {
                        "id": SITE,
                        "name": {"kk": "Сынақ", "ru": "Тест", "en": "Test"},
                        "zone": ZONE,
                        "contracted_kw": self.site.site.contracted_kw,
                        "emergency_kw": self.site.site.reservation.emergency_kw,
                        "phone": "+7 700 000 00 00",
                    }
                ],
            }
        )
        self.paths = Paths.of(self.central_settings, self.central_dir)
        initialise(self.paths, "127.0.0.1", datetime.now(UTC))

    def _enrol(self) -> None:
        state = self.site_dir / "state"
        token = token_of(self.site, self.site_dir)
        make_keys(state, token)
        keys = load_keys(state, token)
        ledger = Ledger.open(state / "ledger.db", site=SITE, key=keys.rec, clock=SystemClock("host"), fw="test")
        self.epoch = ledger.epoch
        asyncio.run(ledger.close()) if not _in_loop() else ledger._db.close()
        if _in_loop():
            import os

            os.close(ledger._lock)
        self.enrolment = json.loads(enrolment(state, SITE, self.epoch, token))
        authority = Authority.load(self.paths)
        cert = sign_csr(authority, self.enrolment["csr"].encode(), SITE, datetime.now(UTC))
        (self.site_dir / "site.pem").write_bytes(cert)
        (self.site_dir / "ca.pem").write_bytes(self.paths.ca_file.read_bytes())

    def register(self, **changes: Any) -> bytes:
        """The signed register, with a version above the last."""
        self.version += 1
        now = now_ms()
        span = {"valid_from": now - 86_400_000, "valid_to": now + 86_400_000}
        orders = ("limit", "reduce", "stop", "open_feeders", "release", "extend", "cancel", "emergency_trip", "mode")
        document = KeysDocument(
            v=1,
            version=self.version,
            issued_at=now,
            persons=(
                Person(id="dispatcher", name="A. Dispatcher", organisation="KEGOC", role="system_operator"),
                Person(id="second", name="B. Dispatcher", organisation="REC", role="grid_company"),
                Person(id="engineer", name="C. Engineer", organisation="Site", role="site"),
            ),
            issuers=(
                self._issuer(self.dispatcher, "dispatcher", orders, span),
                self._issuer(self.second, "second", (*orders, "commission"), span),
                self._issuer(self.engineer, "engineer", ("mode", "commission"), span),
            ),
            sites=(
                RegisteredSite(
                    id=SITE,
                    zone=ZONE,
                    contracted_w=round(self.site.site.contracted_kw * 1000),
                    emergency_w=round(self.site.site.reservation.emergency_kw * 1000),
                    slot_s=self.site.agent.slot_s,
                    simulation=True,
                    epochs=(Epoch(epoch=self.epoch, k_rec=self.enrolment["k_rec"], k_log=self.enrolment["k_log"]),),
                    points=tuple(
                        RegisteredPoint(id=p.id, role=p.role, boundary=p.boundary) for p in self.site.metering_points
                    ),
                ),
            ),
        )
        return sign_keys(document.model_copy(update={"policy": self.policy} | changes), self.registrar)

    @property
    def policy(self) -> str:
        """Central is the one witness that has to have cosigned."""
        key = note_key(SigningKey.from_pem(self.paths.k_col.read_bytes()))
        return f"witness central {key.text}\nquorum central\n"

    @property
    def k_log(self) -> str:
        """Public key that signs the site's checkpoints, base64."""
        return str(self.enrolment["k_log"])

    def _issuer(self, key: SigningKey, person: str, rights: tuple[Any, ...], span: dict[str, int]) -> Issuer:
        return Issuer(
            kid=key.kid,
            key=key.public.text,
            person=person,
            rights=rights,
            zones=(ZONE,),
            solo_w=self.solo_kw * 1000,
            **span,
        )

    # starting ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Plant, central with register, agent, acts; returns when the agent is armed and its values are live."""
        await self.start_plant()
        await self.start_central()
        await self.start_agent()
        await self.arm()
        await until(lambda: self.net_w() is not None and self.answering() == self.luxos + self.stock, 20, "live values")

    async def start_plant(self) -> None:
        self.simulation = SimulatedSite(self.site, time_scale=self.time_scale, seed=1, base_dir=self.site_dir)
        await self.simulation.start()

    async def start_central(self, *, register: bool = True) -> None:
        self.central = CentralService(self.central_settings, self.central_dir)
        await self.central.start()
        await self.central.wait_connected()
        if register:
            await self.central.take_register(self.register())
            self.central.publish_keys()

    async def start_agent(self, *, wait_connected: bool = True) -> None:
        self.app = AgentApp(
            self.site,
            base=self.site_dir,
            config_sha256=config_digest(self.site_file),
            version="tizgin/test",
            profiles=ProfileCatalogue(),
        )
        ready: asyncio.Future[Started] = asyncio.get_running_loop().create_future()

        def on_ready(started: Started) -> None:
            if not ready.done():
                ready.set_result(started)

        self.agent_task = asyncio.create_task(self.app.run(on_ready), name="agent-app")
        await asyncio.wait({self.agent_task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        if self.agent_task.done():
            await self.agent_task
        assert ready.done(), "the agent did not start"
        if wait_connected:
            app = self.app
            await until(app.uplink.control.connected.is_set, 15, "agent connected")
            await until(lambda: app.register.document is not None, 10, "register at the agent")

    async def arm(self) -> None:
        """Commissioning and mode by signed acts of two persons."""
        assert self.app is not None
        tests = tuple(
            OutputTest(
                output=row["output"],
                fingerprint=row["fingerprint"],
                expected_w=row["expected_w"],
                seen_w=row["expected_w"],
                open_ms=60,
                stayed_open_s=10,
                meter=row["meter"] or "M0",
            )
            for row in outputs_of(self.site)
            if row["usable"]
        )
        now = now_ms()
        head = {"v": 1, "site": SITE, "epoch": self.epoch, "at": now}
        commissioning = CommissioningAct(ty="commissioning", id=uuid7(now), outputs=tests, **head)
        mode = ModeAct(ty="mode", id=uuid7(now), mode="armed", reason="test", **head)
        for act in (commissioning, mode):
            raw = seal(ACT_TYPE, encode_act(act), self.engineer, self.second).encode()
            await self.app.gates.take_act(raw, self.app.register.document)

    async def stop_agent(self) -> None:
        if self.agent_task is not None:
            self.agent_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.agent_task
            self.agent_task = None

    async def stop(self) -> None:
        await self.stop_agent()
        if self.central is not None:
            await self.central.stop()
        if self.simulation is not None:
            await self.simulation.stop()

    # orders --------------------------------------------------------------------------------------------------------

    def order(self, action: str, *, signers: tuple[SigningKey, ...] | None = None, **fields: Any) -> tuple[str, bytes]:
        """A signed order envelope: (id, bytes)."""
        self.seq += 1
        now = now_ms()
        sheds = action in {"limit", "reduce", "stop", "open_feeders", "emergency_trip"}
        values: dict[str, Any] = {
            "v": 1,
            "id": uuid7(now),
            "site": SITE,
            "epoch": self.epoch,
            "seq": now * 1000 + self.seq,
            "action": action,
            "issued_at": now,
            "execute_by": now + 60_000,
            "expires_at": now + 3_600_000,
            "basis": Basis(code="test"),
            "restore": Restore(stage_permille=500, stage_delay_s=1),
        }
        if sheds:
            values |= {"hold": Hold(until_released=True), "escalation": Escalation(to="switch", after_s=3)}
        order = Order(**values | fields)
        return order.id, seal(ORDER_TYPE, order.encode(), *(signers or (self.dispatcher,))).encode()

    async def give(self, raw: bytes) -> None:
        """Hand an order to the agent directly."""
        assert self.app is not None
        await self.app.reception.take(raw, False)

    async def post_order(self, raw: bytes) -> None:
        """Through central and the broker, as the desk does it."""
        assert self.central is not None
        await self.central.relay.post(parse_order(raw))

    async def edge_lines(self) -> list[tuple[str, int, bytes]]:
        """Every record line at the edge: (stream, n, line)."""
        assert self.app is not None
        rows = await self.app.ledger.read("SELECT stream, n, payload, kid, sig FROM record ORDER BY stream, n")
        return [(r[0], r[1], RecordLine(bytes(r[2]), r[3], bytes(r[4])).encode()) for r in rows]

    async def central_lines(self) -> list[tuple[str, int, bytes]]:
        """Every record at central, read from its database by another connection."""
        engine = make_engine(self.database_url or f"sqlite:///{self.paths.database}")
        try:
            with engine.connect() as connection:
                rows = connection.execute(sa.select(records.c.stream, records.c.n, records.c.line)).all()
        finally:
            engine.dispose()
        return sorted((stream, n, bytes(line)) for stream, n, line in rows)

    # looking -------------------------------------------------------------------------------------------------------

    def net_w(self) -> int | None:
        assert self.app is not None
        return self.app.live.power("M0").value_w

    def answering(self) -> int:
        assert self.app is not None
        return sum(1 for m in self.app.live.miners.values() if m.status and (m.status.hashrate_ths or 0) > 0)

    def state_of(self, order_id: str) -> str:
        assert self.app is not None
        return self.app.journal.states[order_id][1].value

    async def wait_state(self, order_id: str, *wanted: str, within_s: float = 30) -> str:
        await until(
            lambda: self.app is not None and order_id in self.app.journal.states and self.state_of(order_id) in wanted,
            within_s,
            lambda: f"order in {wanted}, is {self.app and self.app.journal.states.get(order_id)}",
        )
        return self.state_of(order_id)

    async def records(self, ty: str) -> list[dict[str, Any]]:
        assert self.app is not None
        rows = await self.app.ledger.read("SELECT payload FROM record WHERE ty=? ORDER BY idx", ty)
        return [json.loads(bytes(r[0])) for r in rows]


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def until(check: Any, within_s: float, what: Any) -> None:
    """Wait for a condition; fails with what was waited for."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.02)
