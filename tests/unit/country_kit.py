"""A country for tests: many whole agent cores in one process and in one simulated time, under the real gateway.

Central is the real judgement of shares over live messages; only the wires between the three are played: a posted order
is handed to its site's reception, and what the site signed is handed back line by line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from agent.curtailment import shed as shed_module
from agent.ledger import store as store_module
from central import shares
from central.api import views
from central.live import LiveState as CentralLive
from config.site import Site
from grid.errors import CentralRefused, CentralUnreachable
from grid.gateway.dispatcher import Dispatcher
from grid.gateway.journal import Journal
from grid.gateway.plan import Plan
from grid.sequence import Sequence
from tests.unit.agent_kit import (
    BASE_W,
    EMERGENCY_W,
    RIGHTS,
    START_MS,
    Core,
    People,
    Plant,
    SimClock,
    issuer,
    small_site,
)
from wire.keys import SigningKey, b64
from wire.messages import Inventory, Live, State
from wire.orders import Basis, Hold, parse_order, uuid7
from wire.powers import Declaration, Mandate, sign_power
from wire.registry import Epoch, KeysDocument, Person, RegisteredSite, Zone
from wire.states import OrderState

ZONE = "karaganda"
CONTRACTED_W = 300_000
PER_RACK = 12
DRAW_W = 10_000
FULL_W = BASE_W + 2 * PER_RACK * DRAW_W
GATEWAY = SigningKey.generate()
PEOPLE = People.make()


class CountryClock(SimClock):
    """One time for all sites: it moves when the country's does, not with a reading."""

    def advance(self, seconds: float) -> None:
        del seconds

    def tick(self, seconds: float) -> None:
        super().advance(seconds)


@dataclass
class LyingPlant(Plant):
    """Its machines say that they sleep, and go on; the agent's meter is made to agree, the boundary meter is not."""


def power_w(plant: Plant) -> int:
    """What a site really draws."""
    if isinstance(plant, LyingPlant):
        return BASE_W + sum(m.draw_w for m in plant.machines.values())
    return plant.net_w


def named_site(name: str) -> Site:
    site = small_site()
    return site.model_copy(update={"site": site.site.model_copy(update={"id": name})})


@dataclass
class Country:
    """Sites, central and a gateway."""

    folder: Path
    clock: CountryClock
    cores: dict[str, Core]
    register: KeysDocument
    live: CentralLive
    cut_off: set[str] = field(default_factory=set)
    """Sites that central knows to be off line."""
    deaf: set[str] = field(default_factory=set)
    """Sites that central believes on line and that no order reaches."""
    central_down: bool = False
    look_s: int = 5
    """How often an agent that holds looks; its meter's value lives long enough for this."""
    posts: list[bytes] = field(default_factory=list)
    """Everything that the gateway handed over."""
    at_post: Callable[[bytes], None] = lambda _raw: None
    _queue: list[bytes] = field(default_factory=list)
    _lines: dict[str, list[str]] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)

    # what the gateway sees of central

    def shares(self, zones: tuple[str, ...], **wanted: Any) -> dict[str, Any]:
        if self.central_down:
            raise CentralUnreachable("central does not answer")
        service: Any = SimpleNamespace(
            sites={n: SimpleNamespace(phone=f"+7 700 {i:04d}", emergency_kw=36, contracted_kw=300, zone=ZONE)
                   for i, n in enumerate(self.cores)},
            live=self.live, now_ms=self.clock.now_ms, registers=SimpleNamespace(document=self.register),
        )  # fmt: skip
        found = shares.propose(
            [views.site_now(service, name) for name in self.cores],
            [self.register.zone(zone) for zone in zones],
            methods=wanted.pop("method"),
            **wanted,
        )
        return views.proposal(service, found)

    def post_order(self, raw: bytes, /) -> dict[str, Any]:
        if self.central_down:
            raise CentralUnreachable("central does not answer")
        self.at_post(raw)
        self.posts.append(raw)
        self._queue.append(raw)
        return {}

    def checkpoint(self, _site: str, _epoch: str, _size: int | None = None, /) -> str | None:
        return None

    def order(self, order_id: str, /) -> dict[str, Any]:
        if self.central_down:
            raise CentralUnreachable("central does not answer")
        raw = next((raw for raw in self.posts[-400:] if parse_order(raw).order.id == order_id), None)
        if raw is None:
            raise CentralRefused(404, "unknown order")
        return {"envelope": b64(raw), "answers": self._lines.get(order_id, [])}

    def orders(self, site: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        found = dict.fromkeys(o.id for raw in reversed(self.posts) if (o := parse_order(raw).order).site == site)
        return [{"id": name} for name in found][:limit]

    def sites(self) -> list[dict[str, Any]]:
        return [
            {"id": name, "presence": site.presence(broker_up=True).value, "phone": "+7 700 0001", "alarms": []}
            for name, site in self.live.sites.items()
        ]

    # time

    def publish(self) -> None:
        """Every site on line says what its boundary meter shows."""
        now = self.clock.now_ms()
        self.live.broker_up = True
        for name, core in self.cores.items():
            site, epoch, boot = self.live.sites[name], core.ledger.epoch, core.ledger.boot
            if name in self.cut_off:
                if site.state is None or site.state.online:
                    site.take_state(_state(name, core, online=False, at=now), now)
                if site.live is not None:
                    continue  # its last word stays
            elif site.state is None or not site.state.online:
                site.take_state(_state(name, core, online=True, at=now), now)
            net = power_w(core.plant)
            said = Live(
                site=name, epoch=epoch, boot=boot, at=now, net_w=net, mining_w=net - BASE_W,
                asics_hashing=len(core.plant.machines) - len(core.plant.asleep),
            )  # fmt: skip
            site.take_live(said, now)
            if site.inventory is None:
                site.inventory = Inventory(site=name, epoch=epoch, at=now, outputs={"KM1": True, "KM2": True})

    async def second(self, seconds: float = 1.0) -> None:
        """Time passes: orders arrive, agents act, what they signed comes back."""
        self.clock.tick(seconds)
        queue, self._queue = self._queue, []
        for raw in queue:
            order = parse_order(raw).order
            if order.site not in self.cut_off | self.deaf:
                core = self.cores[order.site]
                await core.plant.publish(core.live)  # its meters are read all the time; here when it matters
                await core.reception.take(raw, False)
                await self._collect(order.site, core)
        second = self.clock.now_ms() // 1000
        for number, (name, core) in enumerate(self.cores.items()):
            live = core.journal.live.values()
            if any(o.state is not OrderState.HOLDING for o in live) or (live and (second + number) % self.look_s == 0):
                await core.step(0)
                await self._collect(name, core)
        self.publish()

    async def _collect(self, name: str, core: Core) -> None:
        for row in await core.ledger.lines("cmd", self._read.get(name, 0), 10**9, limit=500):
            doc = row.line.payload.decode()
            start = doc.index('"id":"') + 6
            self._lines.setdefault(doc[start : start + 36], []).append(row.line.encode().decode())
            self._read[name] = row.n + 1

    @property
    def total_w(self) -> int:
        """What the country really draws."""
        return sum(power_w(core.plant) for core in self.cores.values())

    # the gateway and its papers

    def dispatcher(self, journal: Journal | None = None) -> Dispatcher:
        return Dispatcher(
            key=GATEWAY,
            sequence=Sequence(self.folder / "gateway.pem", GATEWAY.kid),
            register=self.register,
            journal=journal or Journal(self.folder / "gateway.db"),
            central=self,
        )

    def plan(self, **changes: Any) -> Plan:
        now = self.clock.now_ms()
        fields: dict[str, Any] = {
            "v": 1, "id": uuid7(now), "zones": [ZONE], "target": {"permille": 300}, "hold": Hold(until_released=True),
            "basis": Basis(code="country_drill"),
        }  # fmt: skip
        return Plan.model_validate(fields | changes, strict=False)

    def mandate(self, plan: Plan, *keys: SigningKey, **changes: Any) -> str:
        now = self.clock.now_ms()
        fields: dict[str, Any] = {
            "v": 1, "id": uuid7(now), "plan": plan.id, "zones": plan.zones, "gateway": GATEWAY.kid, "issued_at": now,
            "valid_from": now, "valid_to": now + 3_600_000, "actions": ("limit",),
            "band_w": max(len(self.cores) * FULL_W * 3 // 500, 50_000), "max_cut_w": 250_000, "max_step_w": 100_000,
            "max_ramp_w_per_min": 40_000_000,
        }  # fmt: skip
        return b64(sign_power(Mandate(**(fields | changes)), keys or (PEOPLE.dispatcher, PEOPLE.second)))

    def declaration(self, *keys: SigningKey, **changes: Any) -> str:
        now = self.clock.now_ms()
        fields: dict[str, Any] = {
            "v": 1, "id": uuid7(now), "zones": (ZONE,), "issued_at": now, "valid_from": now,
            "valid_to": now + 3_600_000, "cap_w": 250_000, "text": "Авария: отключение ВЛ",
        }  # fmt: skip
        return b64(sign_power(Declaration(**(fields | changes)), keys or (PEOPLE.dispatcher, PEOPLE.second)))


def _state(name: str, core: Core, *, online: bool, at: int) -> State:
    return State(
        site=name, epoch=core.ledger.epoch, online=online, boot=core.ledger.boot, agent_version="t",
        mode=core.gates.mode, at=at,
    )  # fmt: skip


def register_of(cores: dict[str, Core], zone: Zone | None) -> KeysDocument:
    """The country's register: two dispatchers, the sites' engineer, the gateway, the zone."""
    both = {"rights": (*RIGHTS, "declare", "mandate"), "sites": (), "zones": (ZONE,)}
    return KeysDocument(
        v=1,
        version=1,
        issued_at=START_MS - 1000,
        persons=(
            Person(id="aru", name="Aru", organisation="SO", role="system_operator"),
            Person(id="bek", name="Bek", organisation="Grid", role="grid_company"),
            Person(id="dana", name="Dana", organisation="Site", role="site"),
            Person(id="gate", name="Gateway", organisation="SO", role="gateway"),
        ),
        issuers=(
            issuer(PEOPLE.dispatcher, "aru", **both),
            issuer(PEOPLE.second, "bek", **both),
            issuer(PEOPLE.engineer, "dana", **(both | {"rights": ("mode", "commission")})),
            issuer(GATEWAY, "gate", rights=("limit", "reduce"), sites=(), zones=(ZONE,), solo_w=0),
        ),
        sites=tuple(
            RegisteredSite(
                id=name, zone=ZONE, contracted_w=CONTRACTED_W, emergency_w=EMERGENCY_W, slot_s=900,
                epochs=(Epoch(epoch=core.ledger.epoch, k_rec=core.key.public.text,
                              k_log=SigningKey.generate().public.text),),
            )
            for name, core in cores.items()
        ),
        zones=() if zone is None else (zone,),
    )  # fmt: skip


@asynccontextmanager
async def running_country(folder: Path, sites: int, *, zone: Zone | None, liars: int = 0) -> AsyncIterator[Country]:
    """So many armed sites; the first ``liars`` of them lie."""
    clock = CountryClock()
    cores: dict[str, Core] = {}
    with (
        mock.patch.object(store_module, "GROUP_S", 0.001),
        mock.patch.object(shed_module, "READBACK_STEP_S", 0.001),
    ):
        for number in range(sites):
            name = f"kz-{number:02d}"
            (folder / name).mkdir()
            core = Core(folder / name, clock=clock, site=named_site(name))
            core.people = PEOPLE
            kind = LyingPlant if number < liars else Plant
            core.plant = kind(clock, core.path, per_rack=PER_RACK)
            for machine in core.plant.machines.values():
                machine.draw_w = DRAW_W
            cores[name] = await core.boot()
        register = register_of(cores, zone)
        for core in cores.values():
            core.keys = register
            await core.arm()
        country = Country(folder, clock, cores, register, CentralLive(list(cores)))
        country.publish()
        try:
            yield country
        finally:
            await asyncio.gather(*(core.shut() for core in cores.values()))
    for core in cores.values():
        assert core.plant.undurable == [], "these writes left before their intent was durable"
