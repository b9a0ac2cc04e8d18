"""The agent from order reception to the ledger, put together as :mod:`agent.app` does, without broker and field bus.

Everything that an accepted order passes through is the agent's own: parsing, signatures, register, journal, ledger,
engine. The meter's value is given, the switches are left out; the machines are polled by the agent's own poller.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import yaml

from agent.clock import SystemClock, TrustedTime
from agent.curtailment.engine import Engine
from agent.curtailment.fleet import Fleet, KnownMachine
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Journal
from agent.curtailment.reception import Reception
from agent.curtailment.restore import Restorer
from agent.curtailment.shed import Shedder
from agent.ledger import Ledger, Txn
from agent.live import LiveState
from benchmarks.miners import MinerPorts
from config.check import check
from config.graph import Graph
from config.site import Site
from drivers.asic.fleet import FleetPoller, Machine
from drivers.asic.identify import driver_for
from drivers.asic.timing import Timeouts
from drivers.capabilities import Reading, Sample, Sleeper
from wire.acts import ModeAct, encode_act
from wire.dsse import ACT_TYPE, ORDER_TYPE, seal
from wire.keys import SigningKey
from wire.messages import Progress
from wire.orders import Basis, Hold, Order, uuid7
from wire.quality import Quality
from wire.registry import Issuer, KeysDocument, Person, RegisteredSite

EXAMPLE = Path(__file__).parents[1] / "config" / "examples" / "small.yaml"
POWER_W = 190_000
LIMIT_W = 200_000
"""Above the power: an order is accepted, begun and confirmed, and nothing has to be put to sleep for it."""


def _site(miners: int) -> Site:
    doc = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    doc["agent"]["mode"] = "armed"
    doc["agent"]["clock_source"] = "host"
    for group, net, family in zip(doc["miners"], ("16", "17"), ("antminer-stock", "luxos"), strict=True):
        last = f"10.1.{int(net)}.{miners // 2}"
        group["family"] = family
        group["rpc"] = f"10.1.{net}.1-{last}:4028"
        if family == "luxos":
            group.pop("http")
        else:
            group["http"] = f"10.1.{net}.1-{last}:80"
    return Site.model_validate(doc)


class AgentCore:
    """A running core; :meth:`start`, then hand envelopes to ``reception.take``, then :meth:`stop`."""

    def __init__(self, folder: Path, ports: list[MinerPorts], *, period_s: float) -> None:
        self.clock = SystemClock("host")
        self.site = _site(len(ports))
        self.key, self.dispatcher, self.engineer = (SigningKey.generate() for _ in range(3))
        self.ledger = Ledger.open(
            folder / "ledger.db", site=self.site.site.id, key=self.key, clock=self.clock, fw="benchmark"
        )
        self.register = self._register()
        self._tasks: list[asyncio.Task[None]] = []
        self._build(ports, period_s)

    def _build(self, ports: list[MinerPorts], period_s: float) -> None:
        site, clock = self.site, self.clock
        self.live = LiveState(site, clock)
        self.journal = Journal(self.ledger, clock)
        self.journal.load()
        self.gates = Gates(site, self.ledger, self.live, clock, check(site), lambda _profile: "1")
        self.gates.load()
        known: dict[str, KnownMachine] = {}
        polled: list[Machine] = []
        counts: dict[str, int] = {}
        groups = {g.family: g for g in site.miners}
        for at in ports:
            group = groups[at.family]
            counts[group.id] = number = counts.get(group.id, 0) + 1
            driver = driver_for(
                at.family, "127.0.0.1", rpc_port=at.rpc_port, http_port=at.http_port, timeouts=Timeouts()
            )
            name = f"{group.id}/{number}"
            known[name] = KnownMachine(name, group, driver if isinstance(driver, Sleeper) else None)
            polled.append(Machine(name, driver, subnet=group.id))
        self.poller = FleetPoller(polled, period_s=period_s, on_status=self.live.put_miner)
        trusted = TrustedTime(clock, 0)
        fleet = Fleet(site, Graph(site), self.live, self.gates, self.journal, clock, known, {})
        shedder = Shedder(fleet, self.journal, self.live, clock, site.agent.timing.sleep_concurrency)
        self.engine = Engine(
            site=site,
            ledger=self.ledger,
            journal=self.journal,
            gates=self.gates,
            fleet=fleet,
            shedder=shedder,
            restorer=Restorer(site, fleet, self.gates, self.journal, self.live, shedder, clock),
            live=self.live,
            clock=clock,
            trusted=trusted,
            emergency_w=lambda: 36_000,
            silence_s=lambda: 0.0,
            online=lambda: True,
            on_progress=self._progress,
        )
        self.reception = Reception(
            site, self.ledger, self.journal, self.engine, clock, trusted, lambda: self.register, clock.now_ms() - 60_000
        )

    async def start(self) -> None:
        """Genesis, mode armed by a signed act of two persons, engine, polls and meter."""
        self.ledger.start()
        await self.ledger.commit(Txn().record("site", "genesis", {"site": self.site.site.id}), urgent=True)
        now = self.clock.now_ms()
        act = ModeAct(
            v=1,
            ty="mode",
            id=uuid7(now),
            site=self.ledger.site,
            epoch=self.ledger.epoch,
            at=now,
            mode="armed",
            reason="benchmark",
        )
        await self.gates.take_act(
            seal(ACT_TYPE, encode_act(act), self.dispatcher, self.engineer).encode(), self.register
        )
        if self.gates.mode != "armed":
            raise RuntimeError(f"the agent's mode is {self.gates.mode}, expected armed")
        self._tasks = [
            asyncio.create_task(self.engine.run(), name="engine"),
            asyncio.create_task(self.poller.run(), name="polls"),
            asyncio.create_task(self._meter(), name="meter"),
        ]

    async def stop(self) -> None:
        """Stop everything that was started."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.ledger.close()

    async def _meter(self) -> None:
        while True:
            values = {"power_w": Reading(POWER_W, Quality.GOOD), "frequency_hz": Reading(50.0, Quality.GOOD)}
            self.live.put_sample(Sample("em-0", self.clock.now_ms(), time.monotonic_ns(), values))
            self.engine.wake.set()
            await asyncio.sleep(0.5)

    async def _progress(self, message: Progress) -> None:
        del message  # would be published unsigned

    def _register(self) -> KeysDocument:
        now = self.clock.now_ms()
        rights = ("limit", "release", "mode", "commission")

        def issuer(key: SigningKey, person: str) -> Issuer:
            return Issuer(
                kid=key.kid,
                key=key.public.text,
                person=person,
                rights=rights,  # type: ignore[arg-type]  # pydantic checks the words
                sites=(self.site.site.id,),
                solo_w=1_000_000,
                valid_from=now - 1_000_000,
                valid_to=now + 100_000_000,
            )

        return KeysDocument(
            v=1,
            version=1,
            issued_at=now - 1000,
            persons=(
                Person(id="dispatcher", name="Dispatcher", organisation="SO", role="system_operator"),
                Person(id="engineer", name="Engineer", organisation="Site", role="site"),
            ),
            issuers=(issuer(self.dispatcher, "dispatcher"), issuer(self.engineer, "engineer")),
            sites=(
                RegisteredSite(
                    id=self.site.site.id, zone="karaganda", contracted_w=220_000, emergency_w=36_000, slot_s=900
                ),
            ),
        )

    def orders(self, count: int) -> list[tuple[str, bytes]]:
        """Signed limits, each superseding the one before it, as a dispatcher who corrects himself sends them."""
        made: list[tuple[str, bytes]] = []
        now = self.clock.now_ms()
        for seq in range(1, count + 1):
            fields: dict[str, Any] = {"supersedes": made[-1][0]} if made else {}
            order = Order(
                v=1,
                id=uuid7(now),
                site=self.ledger.site,
                epoch=self.ledger.epoch,
                seq=seq,
                action="limit",
                limit_w=LIMIT_W,
                issued_at=now,
                execute_by=now + 3_600_000,
                expires_at=now + 7_200_000,
                hold=Hold(until_released=True),
                basis=Basis(code="benchmark", text="Ограничение по команде диспетчера"),
                **fields,
            )
            made.append((order.id, seal(ORDER_TYPE, order.encode(), self.dispatcher).encode()))
        return made
