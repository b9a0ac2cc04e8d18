"""An agent's core for tests: the real ledger, journal, gates, engine and reception over a small simulated plant.

Only the ports are played: switches and machines answer from :class:`Plant`, which checks at every write that the
intent is already durable, through a database connection of its own. Time is simulated: it moves when a test says so,
and 50 ms with every reading of a switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from agent.clock import TrustedTime
from agent.curtailment import shed as shed_module
from agent.curtailment.account import Account
from agent.curtailment.engine import Engine
from agent.curtailment.fleet import Fleet, KnownMachine
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Journal, LiveOrder, limit_of
from agent.curtailment.reception import Reception
from agent.curtailment.restore import Restorer
from agent.curtailment.samples import Terms
from agent.curtailment.shed import Shedder
from agent.ledger import Ledger, Txn
from agent.ledger import store as store_module
from agent.live import LiveState
from config.check import check
from config.graph import Graph
from config.site import Site
from drivers.capabilities import (
    MinerStatus,
    Pool,
    Position,
    PowerRange,
    Reading,
    Sample,
    SwitchState,
    WriteOutcome,
    WriteStatus,
)
from drivers.errors import NoAnswer
from wire import canonical
from wire.acts import CommissioningAct, ModeAct, OutputTest, encode_act
from wire.dsse import ACT_TYPE, ORDER_TYPE, seal
from wire.keys import SigningKey
from wire.messages import Progress
from wire.orders import Basis, Hold, Order, uuid7
from wire.quality import Quality
from wire.registry import Issuer, KeysDocument, Person, RegisteredSite
from wire.states import OrderState

START_MS = 1_790_000_000_000
EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "small.yaml"
RIGHTS = (
    "limit",
    "reduce",
    "stop",
    "open_feeders",
    "release",
    "extend",
    "cancel",
    "emergency_trip",
    "mode",
    "commission",
)
ALL_PER_RACK = 4
MACHINE_W = 3500
SLEEP_W = 30
BASE_W = 32_000
"""Fans and guard of the small site: nothing sheds them."""
EMERGENCY_W = 36_000
PATIENCE_S = 20.0


class SimClock:
    """A clock that stands until it is moved."""

    def __init__(self, wall_ms: int = START_MS, *, synchronised: bool = True) -> None:
        self.wall_ms = wall_ms
        self.mono = 40_000_000_000_000_000
        """Over a year without a restart: no number of it in a record may need more than 53 bits."""
        self.sync = synchronised

    def now_ms(self) -> int:
        return self.wall_ms

    def mono_ns(self) -> int:
        return self.mono

    def synchronised(self) -> bool:
        return self.sync

    @property
    def source(self) -> str:
        return "host"

    def advance(self, seconds: float) -> None:
        self.wall_ms += round(seconds * 1000)
        self.mono += round(seconds * 1e9)


@contextlib.asynccontextmanager
async def running_core(
    folder: Path, *, armed: bool = True, site: Site | None = None, core: Core | None = None
) -> AsyncIterator[Core]:
    """A booted core; at the end it stands still and every write it ever made had its durable intent."""
    with (
        mock.patch.object(store_module, "GROUP_S", 0.001),
        mock.patch.object(shed_module, "READBACK_STEP_S", 0.001),
    ):
        core = await (core or Core(folder, site=site)).boot()
        if armed:
            await core.arm()
        try:
            yield core
        finally:
            await core.shut()
    assert core.plant.undurable == [], "these writes left before their intent was durable"


# people and orders ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class People:
    """Keys of the persons of the register."""

    dispatcher: SigningKey
    second: SigningKey
    engineer: SigningKey

    @classmethod
    def make(cls) -> People:
        return cls(SigningKey.generate(), SigningKey.generate(), SigningKey.generate())


def issuer(key: SigningKey, person: str, **changes: Any) -> Issuer:
    fields: dict[str, Any] = {
        "kid": key.kid,
        "key": key.public.text,
        "person": person,
        "rights": RIGHTS,
        "sites": ("kz-small-1",),
        "solo_w": 1_000_000_000,
        "valid_from": START_MS - 10**9,
        "valid_to": START_MS + 10**10,
    }
    return Issuer(**(fields | changes))


def register(people: People, **changes: Any) -> KeysDocument:
    """A register with a system operator's dispatcher, a grid company's, and an engineer of the site."""
    fields: dict[str, Any] = {
        "v": 1,
        "version": 1,
        "issued_at": START_MS - 1000,
        "persons": (
            Person(id="aru", name="Aru", organisation="SO", role="system_operator"),
            Person(id="bek", name="Bek", organisation="Grid", role="grid_company"),
            Person(id="dana", name="Dana", organisation="Site", role="site"),
        ),
        "issuers": (issuer(people.dispatcher, "aru"), issuer(people.second, "bek"), issuer(people.engineer, "dana")),
        "sites": (
            RegisteredSite(
                id="kz-small-1", zone="karaganda", contracted_w=220_000, emergency_w=EMERGENCY_W, slot_s=900
            ),
        ),
    }
    return KeysDocument(**(fields | changes))


def make_order(clock: SimClock, epoch: str, seq: int, action: str, **changes: Any) -> Order:
    """A well-formed order, issued now."""
    now = clock.now_ms()
    fields: dict[str, Any] = {
        "v": 1,
        "id": uuid7(now),
        "site": "kz-small-1",
        "epoch": epoch,
        "seq": seq,
        "action": action,
        "issued_at": now,
        "execute_by": now + 600_000,
        "expires_at": now + 3_600_000,
        "basis": Basis(code="test"),
    }
    if action not in {"release", "extend", "cancel"}:
        fields["hold"] = Hold(until_released=True)
    return Order(**(fields | changes))


def sealed(order: Order, *keys: SigningKey) -> bytes:
    return seal(ORDER_TYPE, order.encode(), *keys).encode()


# the plant -----------------------------------------------------------------------------------------------------------


@dataclass
class PlayedSwitch:
    """A contactor. ``stuck``: it answers and does not move."""

    id: str
    plant: Plant
    closed: bool = True
    stuck: bool = False
    readable: bool = True
    remote: bool | None = None
    lockout: bool | None = None
    protection_trip: bool | None = None
    trip_circuit_ok: bool | None = None
    spring_charged: bool | None = None
    closes: bool = True

    async def read(self) -> SwitchState:
        self.plant.clock.advance(0.05)
        position = Position.CLOSED if self.closed else Position.OPEN
        return SwitchState(
            position if self.readable else Position.UNKNOWN,
            self.plant.clock.now_ms(),
            self.plant.clock.mono_ns(),
            remote=self.remote,
            lockout=self.lockout,
            protection_trip=self.protection_trip,
            trip_circuit_ok=self.trip_circuit_ok,
            spring_charged=self.spring_charged,
        )

    async def open(self) -> WriteOutcome:
        self.plant.written("open", self.id)
        await asyncio.sleep(0)
        if not self.stuck:
            self.closed = False
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, self.plant.clock.now_ms())

    async def close(self) -> WriteOutcome:
        self.plant.written("close", self.id)
        if self.closes:
            self.closed = True
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, self.plant.clock.now_ms())


@dataclass
class PlayedMachine:
    """A machine.

    ``deaf``: it acknowledges sleep and goes on; ``refuses``: it says no; ``mute``: its prior state cannot be read.
    """

    id: str
    plant: Plant
    switch: str
    asleep: bool = False
    deaf: bool = False
    refuses: bool = False
    mute: bool = False
    draw_w: int = MACHINE_W
    limit_w: int = 10**6
    pools: tuple[Pool, ...] = ()
    lowest_w: int = 1500
    """The lowest limit that its firmware takes."""

    answers_at_ns: int = 0
    full_at_ns: int = 0
    """It starts: it answers from the first moment on and draws from the second."""

    @property
    def power_w(self) -> int:
        if self.plant.blackout or not self.plant.switches[self.switch].closed:
            return 0
        starting = self.plant.clock.mono_ns() < self.full_at_ns
        return SLEEP_W if self.asleep or starting else min(self.draw_w, self.limit_w)

    @property
    def answers(self) -> bool:
        live = not self.plant.blackout and self.plant.switches[self.switch].closed
        return live and self.plant.clock.mono_ns() >= self.answers_at_ns

    async def power_range(self) -> PowerRange:
        return PowerRange(self.lowest_w, self.draw_w, None if self.limit_w == 10**6 else self.limit_w)

    async def prior_limit(self) -> str:
        return f'{{"limit_w":{self.limit_w}}}'

    async def limit_power(self, limit_w: int) -> WriteOutcome:
        self.plant.written("limit", limit_of(self.id))
        assert limit_w >= self.lowest_w
        self.limit_w = limit_w
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, self.plant.clock.now_ms())

    async def restore_limit(self, prior: str) -> WriteOutcome:
        self.plant.written("unlimit", limit_of(self.id))
        self.limit_w = json.loads(prior)["limit_w"]
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, self.plant.clock.now_ms())

    async def prior_state(self) -> str:
        if self.mute:
            raise NoAnswer(f"{self.id}: no answer within 1 s")
        return '{"mode":"normal"}'

    async def sleep(self) -> WriteOutcome:
        self.plant.written("sleep", self.id)
        if self.refuses:
            return WriteOutcome(WriteStatus.REFUSED, self.plant.clock.now_ms(), "no")
        if not self.deaf:
            self.asleep = True
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, self.plant.clock.now_ms())

    async def wake(self, prior_state: str) -> WriteOutcome:
        assert prior_state == '{"mode":"normal"}'
        self.plant.written("wake", self.id)
        self.asleep = False
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, self.plant.clock.now_ms())


@dataclass
class Plant:
    """What is on site, and a list of everything that was ever written to it."""

    clock: SimClock
    ledger_path: Path
    per_rack: int = ALL_PER_RACK
    machines: dict[str, PlayedMachine] = field(default_factory=dict)
    switches: dict[str, PlayedSwitch] = field(default_factory=dict)
    meter_silent: bool = False
    blackout: bool = False
    dark_meters: dict[str, str] = field(default_factory=dict)
    """Meter → the switch behind which it is fed: it is silent while that is open."""
    volts: float | None = None
    """Phase voltage at every meter; none of them reads it where it is ``None``."""
    meter_volts: dict[str, float] = field(default_factory=dict)
    """Another one at some meters."""
    meter_var: dict[str, float] = field(default_factory=dict)
    """Reactive power that a meter reads; the others read none."""
    extra_w: int = 0
    battery_w: int | None = None
    """What a battery behind KM3 draws; it gives below 0. Read by em-3, unless :attr:`battery_silent`."""
    battery_silent: bool = False
    writes: list[tuple[str, str]] = field(default_factory=list)
    undurable: list[tuple[str, str]] = field(default_factory=list)
    """Writes that found no durable intent."""
    forbidden: bool = False
    """True: every write is a failure of the test."""
    at_write: Callable[[str, str], None] = lambda _kind, _target: None

    def __post_init__(self) -> None:
        for rack, switch in (("rack1", "KM1"), ("rack2", "KM2")):
            self.switches[switch] = PlayedSwitch(switch, self)
            for number in range(1, self.per_rack + 1):
                name = f"{rack}/{number}"
                self.machines[name] = PlayedMachine(name, self, switch)

    def written(self, kind: str, target: str) -> None:
        if self.forbidden:
            raise AssertionError(f"a write {kind} {target} left where none may")
        self.writes.append((kind, target))
        with sqlite3.connect(f"file:{self.ledger_path}?mode=ro", uri=True) as db:
            found = db.execute(
                "SELECT 1 FROM step WHERE kind=? AND target=? AND outcome_ms IS NULL", (kind, target)
            ).fetchone()
        db.close()
        if found is None:
            self.undurable.append((kind, target))
        self.at_write(kind, target)

    def feeder_w(self, switch: str) -> int:
        return sum(m.power_w for m in self.machines.values() if m.switch == switch)

    @property
    def net_w(self) -> int:
        return BASE_W + self.extra_w + self.stored_w + sum(m.power_w for m in self.machines.values())

    @property
    def stored_w(self) -> int:
        return (self.battery_w or 0) if "KM3" in self.switches and self.switches["KM3"].closed else 0

    @property
    def asleep(self) -> set[str]:
        return {m.id for m in self.machines.values() if m.asleep}

    async def publish(self, live: LiveState) -> None:
        """What acquisition would put into the live state now."""
        for name, switch in self.switches.items():
            live.put_switch(name, await switch.read())
        for machine in self.machines.values():
            if machine.answers:
                status = MinerStatus(
                    "played",
                    sleeping=machine.asleep,
                    power_w=float(machine.power_w),
                    power_source="measured",
                    pools=machine.pools,
                )
                live.put_miner(machine.id, status, Quality.GOOD, None)
            else:
                live.put_miner(machine.id, None, Quality.NO_CONNECTION, "dark")
        if self.meter_silent or self.blackout:
            return
        read = [("em-0", self.net_w), ("em-1", self.feeder_w("KM1")), ("em-2", self.feeder_w("KM2"))]
        if self.battery_w is not None and not self.battery_silent:
            read.append(("em-3", self.stored_w))
        for device, value in read:
            feed = self.switches.get(self.dark_meters.get(device, ""))
            if feed is not None and not feed.closed:
                continue
            live.put_sample(
                Sample(
                    device,
                    self.clock.now_ms(),
                    self.clock.mono_ns(),
                    {"power_w": Reading(value, Quality.GOOD), "frequency_hz": Reading(50.0, Quality.GOOD)}
                    | {
                        name: Reading(value, Quality.GOOD)
                        for name, value in (
                            ("voltage_l1_n_v", self.meter_volts.get(device, self.volts)),
                            ("power_reactive_var", self.meter_var.get(device)),
                        )
                        if value is not None
                    },
                )
            )


def small_doc() -> dict[str, Any]:
    """The small example without its meters of fans and guard, which nobody plays here."""
    doc: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    doc["devices"] = [d for d in doc["devices"] if d["id"] not in {"em-3", "em-4"}]
    doc["metering_points"] = [p for p in doc["metering_points"] if p["id"] not in {"M3", "M4"}]
    return doc


def small_site(**timing: float) -> Site:
    """The small example with four machines a rack, short times, and armed as far as the file goes."""
    doc = small_doc()
    doc["agent"]["mode"] = "armed"
    doc["agent"]["timing"] = {
        "cooldown_s": 60,
        "sleep_confirm_s": 15,
        "switch_confirm_s": 5,
        "wake_stagger_per_s": 10_000,
    } | timing
    for group, third in zip(doc["miners"], ("16", "17"), strict=True):
        group["rpc"] = f"10.1.{third}.1-10.1.{third}.4:4028"
        group["http"] = f"10.1.{third}.1-10.1.{third}.4:80"
    return Site.model_validate(doc)


# the agent's core ----------------------------------------------------------------------------------------------------


class Wake(asyncio.Event):
    """The engine's alarm clock; ``idle`` tells that a pass is over."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = asyncio.Event()

    async def wait(self) -> Any:
        self.idle.set()
        return await super().wait()


class Core:
    """Ledger to engine, as :mod:`agent.app` puts them together, over a plant."""

    def __init__(self, folder: Path, *, clock: SimClock | None = None, site: Site | None = None) -> None:
        self.folder = folder
        self.path = folder / "ledger.db"
        self.clock = clock or SimClock()
        self.site = site or small_site()
        self.key = SigningKey.generate()
        self.people = People.make()
        self.keys: KeysDocument | None = register(self.people)
        self.plant = Plant(self.clock, self.path)
        self.progress: list[Progress] = []
        self.online = True
        self.silence_s = 0.0
        self.seq = 0
        self._task: asyncio.Task[None] | None = None

    async def boot(self, *, run: bool = True) -> Core:
        """Start the process: ledger, journal, positions, recovery; then the engine's loop."""
        site, clock = self.site, self.clock
        self.ledger = Ledger.open(self.path, site=site.site.id, key=self.key, clock=clock, fw="test")
        self.ledger.start()
        if self.ledger.is_new:
            await self.ledger.commit(Txn().record("site", "genesis", {"site": site.site.id}), urgent=True)
        self.live = LiveState(site, clock)
        self.journal = Journal(self.ledger, clock)
        self.journal.load()
        self.gates = Gates(site, self.ledger, self.live, clock, check(site), lambda _profile: "1")
        self.gates.load()
        groups = {g.id: g for g in site.miners}
        machines = {
            m.id: KnownMachine(m.id, group, m, m if group.lowest_power_w is not None else None)
            for m in self.plant.machines.values()
            if (group := groups[m.id.partition("/")[0]])
        }
        self.fleet = Fleet(
            site, Graph(site), self.live, self.gates, self.journal, clock, machines, dict(self.plant.switches)
        )
        self.shedder = Shedder(self.fleet, self.journal, self.live, clock, 64)
        self.restorer = Restorer(site, self.fleet, self.gates, self.journal, self.live, self.shedder, clock)
        self.trusted = TrustedTime(clock, int(self.ledger.meta("high_water") or 0))
        self.wake = Wake()
        self.engine = Engine(
            site,
            self.ledger,
            self.journal,
            self.gates,
            self.fleet,
            self.shedder,
            self.restorer,
            self.live,
            clock,
            self.trusted,
            lambda: EMERGENCY_W,
            lambda: self.silence_s if self.online else 3600.0,
            lambda: self.online,
            self._note,
            entry=lambda: self.keys.site(site.site.id) if self.keys else None,
            wake=self.wake,
        )
        self.reception = Reception(
            site, self.ledger, self.journal, self.engine, clock, self.trusted, lambda: self.keys, START_MS - 60_000
        )
        self.account = Account(
            site,
            self.ledger,
            self.journal,
            self.fleet,
            self.gates,
            self.engine.waves.cooling,
            self.live,
            clock,
            lambda: Terms(220_000, 0, EMERGENCY_W),
        )
        self.account.load()
        self.engine.observe = self.account.observe
        for name, switch in self.plant.switches.items():
            self.live.put_switch(name, await switch.read())
        await self.engine.recover()
        await self.reception.recover()
        await self.plant.publish(self.live)
        if run:
            await self.go()
        return self

    async def go(self) -> None:
        """Start the engine's loop."""
        self._task = asyncio.create_task(self.engine.run())

    async def _note(self, message: Progress) -> None:
        self.progress.append(message)

    async def arm(self) -> Core:
        """Raise the mode and commission both outputs, by acts that people sign."""
        await self.act(self.commissioning(), self.people.dispatcher, self.people.engineer)
        await self.act(self.mode_act("armed"), self.people.dispatcher, self.people.engineer)
        return self

    def mode_act(self, mode: str) -> ModeAct:
        return ModeAct(
            v=1,
            ty="mode",
            id=uuid7(self.clock.now_ms()),
            site=self.ledger.site,
            epoch=self.ledger.epoch,
            at=self.clock.now_ms(),
            mode=mode,  # type: ignore[arg-type]  # pydantic checks it
            reason="test",
        )

    def commissioning(self, *outputs: str, **changes: Any) -> CommissioningAct:
        tests = []
        for name in outputs or ("KM1", "KM2"):
            fields: dict[str, Any] = {
                "output": name,
                "fingerprint": self.gates.fingerprints[name],
                "expected_w": 14_000,
                "seen_w": 13_900,
                "open_ms": 120,
                "stayed_open_s": 30,
                "meter": name.replace("KM", "M"),
            }
            tests.append(OutputTest(**(fields | changes)))
        return CommissioningAct(
            v=1,
            ty="commissioning",
            id=uuid7(self.clock.now_ms()),
            site=self.ledger.site,
            epoch=self.ledger.epoch,
            at=self.clock.now_ms(),
            outputs=tuple(tests),
        )

    async def act(self, act: ModeAct | CommissioningAct, *keys: SigningKey) -> None:
        await self.gates.take_act(seal(ACT_TYPE, encode_act(act), *keys).encode(), self.keys)

    def order(self, action: str, **changes: Any) -> Order:
        self.seq += 1
        return make_order(self.clock, self.ledger.epoch, self.seq, action, **changes)

    async def send(self, order: Order, *keys: SigningKey) -> dict[str, Any]:
        """Hand an order in; the newest answer record."""
        await self.reception.take(sealed(order, *(keys or (self.people.dispatcher,))), False)
        return (await self.answers())[-1]

    async def give(self, action: str, **changes: Any) -> LiveOrder:
        """Hand an order in that must be accepted and live."""
        order = self.order(action, **changes)
        answer = await self.send(order)
        assert answer["state"] == "validated", answer
        return self.journal.live[order.id]

    async def release(self, order: LiveOrder | str, **changes: Any) -> None:
        target = order if isinstance(order, str) else order.id
        answer = await self.send(self.order("release", target=target, **changes))
        assert answer["state"] == "validated", answer

    async def records(self, ty: str, stream: str = "cmd") -> list[dict[str, Any]]:
        rows = await self.ledger.read("SELECT payload FROM record WHERE stream=? AND ty=? ORDER BY n", stream, ty)
        return [canonical.decode(bytes(row[0])) for row in rows]

    async def answers(self) -> list[dict[str, Any]]:
        return await self.records("cmd_ack")

    async def effects(self, order: str) -> list[dict[str, Any]]:
        return [e for e in await self.records("cmd_eff") if e["id"] == order]

    async def state(self, order: str) -> OrderState:
        rows = await self.ledger.read("SELECT state FROM orders WHERE id=?", order)
        return OrderState(rows[0][0])

    async def step(self, seconds: float = 1.0) -> None:
        """Time passes, the plant is read, the engine makes a pass, writes that it began end."""
        self.clock.advance(seconds)
        await self.plant.publish(self.live)
        self.wake.idle.clear()
        self.wake.set()
        deadline = time.monotonic() + PATIENCE_S
        await asyncio.wait_for(self.wake.idle.wait(), PATIENCE_S)
        while self.engine.standing.tasks or any(o.tasks for o in self.journal.live.values()):
            if time.monotonic() > deadline:
                raise AssertionError("writes do not end")
            await asyncio.sleep(0.001)

    async def until(self, condition: Callable[[], object], *, within_s: float = 300, step_s: float = 1.0) -> None:
        """Step until something is so."""
        began = self.clock.mono_ns()
        while not condition():
            if (self.clock.mono_ns() - began) / 1e9 > within_s:
                orders = [(o.state, sorted(o.flags), o.doc.text, o.block) for o in self.journal.live.values()]
                seen = f"{orders}; net {self.plant.net_w} W; {self.plant.writes}"
                raise AssertionError(f"not within {within_s} s; {seen}")
            await self.step(step_s)

    async def until_state(self, order: LiveOrder, state: OrderState, *, within_s: float = 300) -> None:
        await self.until(lambda: order.state is state, within_s=within_s)

    async def pass_time(self, seconds: float, *, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            await self.step(step_s)

    async def shut(self) -> None:
        """Stop the process in good order."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.ledger.close()

    async def reboot(self, *, run: bool = True) -> Core:
        """Another process life on the same files and the same plant."""
        await self.shut()
        return await self.boot(run=run)
