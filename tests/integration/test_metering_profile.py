"""Load profiles over real Modbus TCP: gaps are filled from the meter's own memory, slots that were read are checked.

The meters are imagined ones; plant, registers, files, driver, ledger and verifier are the product's own. Time is
simulated, the wire is not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

from agent.ledger import Txn
from agent.ledger import store as store_module
from agent.metering.archive import Archivist
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.pdu import READ_FILE
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile
from simulator.curve import memory_of
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import ModbusTcpServer
from tests.unit.agent_kit import SimClock
from tests.unit.metering_kit import SLOT, START_S, MeteringKit, PlayedLink, metering_site
from wire.record_types import Archive

DATA = Path(__file__).parents[2] / "simulator" / "data"
RING, FILE = str(DATA / "imagined_ring.yaml"), str(DATA / "imagined_file.yaml")
POINT, DEVICE = "M0", "em-0"


@dataclass
class RealTime:
    """Wall clock as simulated; waiting for answers is real."""

    clock: SimClock

    def monotonic_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)

    def wall_ms(self) -> int:
        return self.clock.now_ms()


@dataclass
class Kit(MeteringKit):
    """One meter has a memory and hangs on a real link."""

    profile_file: str = RING

    def __post_init__(self) -> None:
        number = next(i for i, d in enumerate(self.site.devices) if d.id == DEVICE)
        self.site = metering_site(**{f"devices__{number}__profile": self.profile_file})
        super().__post_init__()
        self.archived = 0
        profile = load_profile(self.profile_file)
        assert isinstance(profile, MeterProfile)
        registers = self.plant.registers[POINT]
        registers.memory = memory_of(profile, 1.0, self.clock.now_ms, self.faults.devices[DEVICE])
        self.units[DEVICE] = MeterUnit(
            profile,
            self._values(DEVICE),
            powered=self._powered(DEVICE),
            faults=self.faults.devices[DEVICE],
            memory=registers.memory,
        )

    async def join(self) -> None:
        """Put the meter on its own wire."""
        device = next(d for d in self.site.devices if d.id == DEVICE)
        self.server = ModbusTcpServer({device.unit: self.units[DEVICE]})
        await self.server.start()
        self.wire = ModbusLink(
            f"modbus://127.0.0.1:{self.server.port}", name="wire", timeout_s=2.0, clock=RealTime(self.clock)
        )
        self.serving = asyncio.create_task(self.wire.run())

    async def boot(self) -> Kit:
        """The agent starts; closer and archivist read over the wire."""
        await super().boot()
        port = self.bench.meters[DEVICE]
        port.link = self.wire
        self.asked: list[bytes] = []
        exchange = self.wire.exchange

        async def noted(device: MeterDevice, pdus: tuple[bytes, ...], **more: Any) -> Any:
            self.asked += pdus
            return await exchange(device, pdus, **more)

        port.link.exchange = noted  # type: ignore[assignment, method-assign]  # it is listened to
        self.closer.sleep = self._pass
        self.archivist = Archivist(SLOT, self.ledger, self.closer, self.clock, sleep=_at_once)
        self.archivist.prepare()
        return self

    async def _pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def leave(self) -> None:
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)
        await self.server.stop()

    async def look(self, *, settle_s: float = 70) -> None:
        """Looks until there is nothing more to be had."""
        await self.go_to(self.clock.now_ms() / 1000 + settle_s)
        while await self.archivist.look(POINT):
            pass

    async def go_to(self, t_s: float, *, poll_s: float = 300.0) -> None:
        while (left := t_s - self.clock.now_ms() / 1000) > 0:
            self.clock.advance(min(left, poll_s))
            self.step()

    async def close_slot(self, t: int) -> None:
        await self.go_to(t)
        self.step()
        await asyncio.wait_for(self._closed(t), 20)

    async def _closed(self, t: int) -> None:
        played = cast("PlayedLink", self.link)
        with mock.patch.object(played, "read", self._played):
            await self.closer.close_slot(t, 30.0)

    async def _played(self, device: MeterDevice, points: Any, **_more: Any) -> Any:
        asked = device.reading(points)
        return device.sample(asked, tuple(self.answer(device, pdu) for pdu in asked.pdus))

    async def through(self, first: int, last: int) -> None:
        for n in range(first, last + 1):
            await self.close_slot(START_S + n * SLOT)

    async def down(self, slots: int) -> None:
        """The agent is not there for so long; the plant and the meters are."""
        await self.shut()
        for _ in range(slots * 9):
            self.clock.advance(SLOT / 9)
            self.step()
        await self.boot()

    async def of_type(self, ty: str) -> list[dict[str, Any]]:
        return [r for r in await self.records(f"mp:{POINT}") if r["ty"] == ty]


async def _at_once(_seconds: float) -> None:
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def on_wire(folder: Path, profile: str = RING) -> AsyncIterator[Kit]:
    with mock.patch.object(store_module, "GROUP_S", 0.0):
        kit = Kit(folder, profile_file=profile)
        await kit.join()
        try:
            await kit.boot()
            yield kit
        finally:
            await kit.shut()
            await kit.leave()


@pytest.mark.parametrize("profile", [RING, FILE])
async def test_two_hours_without_an_agent_are_filled_from_the_meter_and_the_gaps_stay(
    tmp_path: Path, profile: str
) -> None:
    async with on_wire(tmp_path, profile) as kit:
        await kit.through(0, 3)
        await kit.down(8)
        await kit.through(12, 14)
        await kit.look()
        gaps, archives = await kit.of_type("gap"), await kit.of_type("archive")
        assert [g["why"] for g in gaps] == ["AGENT_DOWN"] * len(gaps)
        assert len(gaps) >= 8
        told = {a["t0"]: a for a in archives}
        assert {g["t0"] for g in gaps} <= told.keys()
        assert len(told) == len(archives), "never twice"
        bridge = next(i["bridge_wh"] for i in await kit.of_type("interval") if "bridge_wh" in i)
        filled = sum(told[g["t0"]]["wh"] for g in gaps)
        assert filled == pytest.approx(bridge, rel=0.01), "the sum telescopes but for the moments of the readings"
        for interval in (await kit.of_type("interval"))[1:]:
            assert told[interval["t0"]]["wh"] == pytest.approx(interval["wh"], rel=0.01)
        walk = await kit.verified(POINT, START_S, START_S + 14 * SLOT)
        assert walk.errors == []
        assert set(walk.counts()) <= {"C", "R"}
        functions = {pdu[0] for pdu in kit.asked}
        assert functions == ({3, READ_FILE} if profile == FILE else {3}), "nothing but reads"
        assert kit.archivist.methods()[POINT]["method"] == "profile"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"wh": 1}, "DECODE"),
        ({"raw": None}, "DECODE"),
        ({"raw": []}, "DECODE"),
        ({"mto": 500}, "DECODE"),
        ({"rt": 1, "mto": START_S * 1000}, "DECODE"),
        ({"t0": START_S - 4 * SLOT, "t1": START_S - 3 * SLOT}, "BIND"),
        ({"sn": "1"}, "BIND"),
        ({"src": "average"}, "QUALITY"),
    ],
)
async def test_the_verifier_decodes_an_archive_again(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    async with on_wire(tmp_path, FILE) as kit:
        await kit.through(0, 3)
        await kit.look()
        honest = await kit.of_type("archive")
        assert len(honest) >= 2
        forged = {k: v for k, v in (honest[-1] | change).items() if k in Archive.__annotations__ and v is not None}
        await kit.ledger.commit(Txn().record(f"mp:{POINT}", "archive", forged))
        walk = await kit.verified(POINT, START_S, START_S + 3 * SLOT)
        assert code in {error.code for error in walk.errors}


async def test_a_memory_that_says_less_than_the_registers_is_a_contradiction(tmp_path: Path) -> None:
    async with on_wire(tmp_path) as kit:
        memory = kit.plant.registers[POINT].memory
        assert memory is not None
        memory._ratio = 1.25
        await kit.through(0, 4)
        await kit.look()
        (of_gaps, of_reads) = await kit.of_type("gap"), await kit.of_type("interval")
        assert of_gaps == []
        told = {a["t0"]: a["wh"] for a in await kit.of_type("archive")}
        assert all(told[i["t0"]] < 0.85 * i["wh"] for i in of_reads if i["t0"] in told)
        walk = await kit.verified(POINT, START_S, START_S + 4 * SLOT)
        assert {error.code for error in walk.errors} == {"PROFILE"}


async def test_a_start_writes_no_slot_again(tmp_path: Path) -> None:
    async with on_wire(tmp_path) as kit:
        await kit.through(0, 4)
        await kit.look()
        before = await kit.of_type("archive")
        assert before
        for _ in range(3):
            await kit.shut()
            await kit.boot()
            await kit.look(settle_s=1)
        assert await kit.of_type("archive") == before


async def test_a_clock_in_another_zone_or_a_few_seconds_off_gives_nothing(tmp_path: Path) -> None:
    async with on_wire(tmp_path) as kit:
        kit.faults.set("clock", DEVICE, seconds=3600)
        await kit.through(0, 4)
        await kit.look()
        assert await kit.of_type("archive") == []
        assert kit.archivist.methods()[POINT] == {"method": "snapshots", "load_profile": "clock", "open_gaps": 0}
        kit.faults.set("clock", DEVICE, seconds=9)
        await kit.look()
        assert await kit.of_type("archive") == []


async def test_an_entry_that_was_left_empty_is_not_made_up(tmp_path: Path) -> None:
    async with on_wire(tmp_path) as kit:
        await kit.through(0, 2)
        kit.faults.set("profile_empty", DEVICE)
        await kit.through(3, 3)
        kit.faults.clear("profile_empty", DEVICE)
        await kit.through(4, 6)
        await kit.look()
        told = {a["t0"] for a in await kit.of_type("archive")}
        assert START_S + 2 * SLOT not in told
        assert START_S + 4 * SLOT in told


async def test_another_meters_memory_tells_nothing_of_the_one_before(tmp_path: Path) -> None:
    async with on_wire(tmp_path) as kit:
        await kit.through(0, 3)
        kit.faults.set("exchange", DEVICE, serial="60000001", reading_wh=5_000)
        await kit.go_to(START_S + 3 * SLOT + 100)
        await kit.look()
        assert await kit.of_type("archive") == [], "another meter answers"
        await kit.through(4, 7)
        await kit.look()
        binds, archives = await kit.of_type("bind"), await kit.of_type("archive")
        assert len(binds) == 2
        assert archives
        assert all(a["t0"] >= START_S + 4 * SLOT for a in archives)
        walk = await kit.verified(POINT, START_S, START_S + 7 * SLOT)
        assert walk.errors == []
