"""Interval metering in simulated time: the real slot closer, ledger and meter images over the simulated plant.

Only the wire between them is played: requests are answered from the meter's register image with the frames that would
have gone over it. Time stands until everything waits for it, and then jumps to whoever is due first, so that days pass
in seconds and the same seed gives the same days.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest import mock

from agent.acquisition.bench import Bench, MeterPort
from agent.curtailment.fleet import Fleet
from agent.ledger import Ledger, Txn
from agent.ledger import store as store_module
from agent.live import LiveState
from agent.metering.balancing import Balancing
from agent.metering.closer import SlotCloser
from config.graph import Graph
from config.site import Site
from drivers.capabilities import Position, Sample, SwitchState
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.scheduler import Answer, Klass
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import ModbusError
from simulator.faults import Faults
from simulator.plant import Plant
from simulator.registers import Value
from tests.unit.agent_kit import START_MS, SimClock, small_doc
from verifier.canonical import read_canonical
from verifier.metering import MeteringPoint, Period
from verifier.records import Record
from verifier.switches import Switches
from wire.keys import SigningKey
from wire.quality import Quality
from wire.records import leaf_hash

SLOT = 900
WINDOW_S = 30.0
START_S = START_MS // 1000 // SLOT * SLOT
TABLE = {3: "holding", 4: "input"}


class SimTime:
    """Simulated waiting. Whoever waits here is woken in the order of time, once nobody runs any more."""

    def __init__(self, clock: SimClock) -> None:
        self.clock = clock
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = 0
        self._busy = 0

    async def sleep(self, seconds: float) -> None:
        """Wait in simulated time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._waiting, (self.clock.mono + max(0, round(seconds * 1e9)), self._number, future))
        await future

    async def drive(self, work: Awaitable[Any], waiters: Callable[[], int]) -> None:
        """Run something to its end; ``waiters`` tells how many tasks of it live now."""
        task = asyncio.ensure_future(work)
        idle = 0
        while not task.done():
            live = [w for w in self._waiting if not w[2].done()]
            idle = idle + 1 if live and len(live) >= waiters() else 0
            if idle > 2:
                due, _, future = heapq.heappop(self._waiting)
                self.clock.advance(max(0, due - self.clock.mono) / 1e9)
                future.set_result(None)
                idle = 0
            await asyncio.sleep(0)
        task.result()


@dataclass
class PlayedLink:
    """Answers from the register images. ``cut``: nothing comes through."""

    kit: MeteringKit
    name: str = "played"
    cut: bool = False

    async def read(
        self, device: MeterDevice, points: Sequence[str], *, klass: Klass = Klass.POLL, deadline_s: float = 1.0
    ) -> Sample:
        """As the real link does it, in simulated time."""
        del klass
        kit, asked = self.kit, device.reading(points)
        answers: list[Answer] = []
        for pdu in asked.pdus:
            if self.cut or not kit.units[device.id].answers():
                await kit.time.sleep(deadline_s)
                answers.append(Answer(Quality.TIMEOUT, kit.clock.now_ms(), kit.clock.mono_ns(), error="silent"))
                continue
            await kit.time.sleep(kit.rng.uniform(0.005, 0.03))
            answers.append(kit.answer(device, pdu))
        return device.sample(asked, tuple(answers))


@dataclass
class _Positions:
    """What the closer asks of the fleet."""

    graph: Graph
    live: LiveState

    def positions(self) -> dict[str, bool]:
        found = self.graph.normal_positions()
        for switch, state in self.live.switches.items():
            if state.position in {Position.OPEN, Position.CLOSED}:
                found[switch] = state.position is Position.CLOSED
        return found


def metering_site(**changes: Any) -> Site:
    """The small example with the meter of board 1 behind its own contactor, and one meter with whole counts."""
    doc = small_doc()
    meters = {d["id"]: d for d in doc["devices"] if d["kind"] == "meter"}
    meters["em-1"] |= {"fed_from": "BOARD1", "ups_min": 0}
    meters["em-2"] |= {"profile": "abb-b23-b24"}
    for device in meters.values():
        device["period_s"] = 300
    for group, third in zip(doc["miners"], ("16", "17"), strict=True):
        group["rpc"] = f"10.1.{third}.1-10.1.{third}.4:4028"
        group["http"] = f"10.1.{third}.1-10.1.{third}.4:80"
    for path, value in changes.items():
        target: Any = doc
        *parents, last = path.split("__")
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target[key]
        target[int(last) if isinstance(target, list) else last] = value
    return Site.model_validate(doc)


@dataclass
class MeteringKit:
    """See the module."""

    folder: Path
    seed: int = 1
    site: Site = field(default_factory=metering_site)
    shown: Callable[[str, dict[str, Value]], dict[str, Value]] = lambda _device, values: values
    """What a meter's registers show, given what they would show: for rollovers and settings."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.clock = SimClock(START_S * 1000 - 60_000)
        self.time = SimTime(self.clock)
        self.zero_s = self.clock.mono / 1e9
        self.plant = Plant(self.site, rng=random.Random(self.seed), wall_ms=self.clock.now_ms)
        self.faults = Faults(self.plant)
        self.began_wh = {name: r.imported.reading for name, r in self.plant.registers.items()}
        """What each point's import register stood at when the plant began."""
        self.graph = Graph(self.site)
        self.link = PlayedLink(self)
        self.key = SigningKey.generate()
        self.units: dict[str, MeterUnit] = {}
        for device in self.site.devices:
            if device.kind != "meter":
                continue
            profile = load_profile(device.profile)
            assert isinstance(profile, MeterProfile)
            self.units[device.id] = MeterUnit(
                profile,
                self._values(device.id),
                powered=self._powered(device.id),
                faults=self.faults.devices[device.id],
                rng=self.rng,
            )

    def _values(self, device: str) -> Callable[[], dict[str, Value]]:
        registers = next(r for r in self.plant.registers.values() if r.point.device == device)
        return lambda: self.shown(device, registers.values(self.clock.now_ms()))

    def _powered(self, device: str) -> Callable[[], bool]:
        return lambda: self.plant.supplies.has_power(device)

    def step(self) -> None:
        """Bring the plant to now."""
        self.plant.step(self.clock.mono / 1e9 - self.zero_s)

    def answer(self, device: MeterDevice, pdu: bytes) -> Answer:
        """What the meter says to one request now."""
        self.step()
        request = bytes([device.unit]) + pdu
        fc, addr, count = pdu[0], int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        at, mono = self.clock.now_ms(), self.clock.mono_ns()
        try:
            words = self.units[device.id].read_registers(TABLE[fc], addr, count)
        except ModbusError as error:
            return Answer(Quality.EXCEPTION, at, mono, request, error=str(error), sent=True)
        data = b"".join(word.to_bytes(2, "big") for word in words)
        return Answer(Quality.GOOD, at, mono, request, bytes([device.unit, fc, len(data)]) + data, sent=True)

    async def boot(self) -> MeteringKit:
        """Start the agent's metering on the ledger as it stands."""
        self.ledger = Ledger.open(
            self.folder / "ledger.db", site=self.site.site.id, key=self.key, clock=self.clock, fw="test"
        )
        self.ledger.start()
        if self.ledger.is_new:
            await self.ledger.commit(Txn().record("site", "genesis", {"site": self.site.site.id}), urgent=True)
        self.live = LiveState(self.site, self.clock)
        self.bench = Bench(self.site, self.live, self.clock)
        for device in self.site.devices:
            if device.kind == "meter":
                profile = self.units[device.id].profile
                energy = tuple(p.id for p in profile.points if p.kind == "counter" or p.id == "serial_number")
                port = MeterDevice(device.id, device.unit, profile)
                link = cast("ModbusLink", self.link)
                self.bench.meters[device.id] = MeterPort(port, link, profile.point_ids, energy, device.period_s, False)
        fleet = cast("Fleet", _Positions(self.graph, self.live))
        self.balancing = Balancing(self.site, self.graph, self.ledger, fleet, self.clock)
        self.closer = SlotCloser(
            self.site, self.ledger, self.bench, fleet, self.graph, self.clock, balancing=self.balancing
        )
        self.closer.sleep = self.time.sleep
        self.see_switches()
        await self.closer.prepare()
        self.closer.watch_supply()
        return self

    async def shut(self) -> None:
        """Stop the agent's metering."""
        await self.ledger.close()

    def see_switches(self) -> None:
        """Positions as they would be read back now."""
        self.step()
        for name, body in self.plant.switches.items():
            position = Position.CLOSED if body.closed else Position.OPEN
            self.live.put_switch(name, SwitchState(position, self.clock.now_ms(), self.clock.mono_ns()))

    async def operate(self, switch: str, *, close: bool, poll: bool = True) -> None:
        """Somebody moves a switch; it is read back and recorded as the agent does it, with polls around it."""
        if poll:
            await self.poll()
        was = self.plant.switches[switch].closed
        self.plant.operate(switch, close)
        self.clock.advance(0.5)
        self.see_switches()
        self.closer.watch_supply()
        now = self.plant.switches[switch].closed
        if was is not now:
            names = {True: "closed", False: "open"}
            fields = {"ev": "switch_position", "obj": switch, "was": names[was], "now": names[now]}
            await self.ledger.commit(Txn().record("site", "event", fields))
        self.clock.advance(0.5)
        if poll:
            await self.poll()

    async def poll(self) -> None:
        """One regular poll of every meter that answers."""
        for device, unit in self.units.items():
            self.step()
            if unit.answers() and not self.link.cut:
                port = self.bench.meters[device]
                asked = port.device.reading(port.points)
                self.live.put_sample(port.device.sample(asked, tuple(self.answer(port.device, p) for p in asked.pdus)))

    async def go_to(self, t_s: float, *, poll_s: float = 300.0) -> None:
        """Let time pass, with regular polls."""
        while (left := t_s - self.clock.now_ms() / 1000) > 0:
            self.clock.advance(min(left, poll_s))
            await self.poll()

    async def close_slot(self, t: int) -> None:
        """Go to a boundary and close the slots that end there, all points at once."""
        await self.go_to(t)
        names = {f"slot-{p}" for p in self.closer.states}

        def living() -> int:
            return sum(1 for task in asyncio.all_tasks() if task.get_name() in names and not task.done())

        await self.time.drive(self.closer.close_slot(t, WINDOW_S), living)

    async def records(self, stream: str) -> list[dict[str, Any]]:
        """Payloads of one stream."""
        rows = await self.ledger.read("SELECT payload FROM record WHERE stream=? ORDER BY n", stream)
        return [json.loads(bytes(r[0])) for r in rows]

    async def verified(self, point: str, start: int, end: int) -> MeteringPoint:
        """The offline verifier's own walk over what was recorded of one point."""

        async def stream(name: str) -> list[Record]:
            rows = await self.ledger.read("SELECT payload FROM record WHERE stream=? ORDER BY n", name)
            return [
                Record(read_canonical(bytes(r[0]), max_bytes=65_536), leaf_hash(bytes(r[0])).hex(), f"{name}/{i}")
                for i, r in enumerate(rows)
            ]

        switches = Switches()
        switches.feed(await stream("site"))
        period = Period(start, end)
        walk = MeteringPoint(point, SLOT, period, period, None, switches)
        walk.feed(await stream(f"mp:{point}"))
        walk.end_epoch(last=True)
        walk.finish()
        return walk


@contextlib.asynccontextmanager
async def metering(folder: Path, **arguments: Any) -> AsyncIterator[MeteringKit]:
    """A booted kit."""
    with mock.patch.object(store_module, "GROUP_S", 0.0):
        kit = await MeteringKit(folder, **arguments).boot()
        try:
            yield kit
        finally:
            await kit.shut()
