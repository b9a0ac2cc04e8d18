"""Learning on a live link: polls settle, the plan is kept over a restart, and a SunSpec meter is found once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from word_unit import WordUnit, live_registers, meter_unit, served

from agent.acquisition.meters import MeterPort, meter_port
from config.devices import Device
from drivers.capabilities import Sample
from drivers.modbus.learned import UnitKey, UnitMemory
from drivers.modbus.learned_file import LearnedFile
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.polling import MeterPoll, read_settled
from drivers.modbus.rtu import with_crc
from drivers.modbus.scan import host_range, lines, scan, unit_range
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import ModbusError, ModbusTcpServer, answer_pdu
from wire.quality import Quality

KEY = UnitKey("line", 1, "eastron-sdm630", 1)


def profile_of(name: str) -> MeterProfile:
    profile = load_profile(name)
    assert isinstance(profile, MeterProfile)
    return profile


class Older(MeterUnit):
    """An older meter of the model, without apparent power at 56 and its neighbours up to 59."""

    asked: list[tuple[int, int]]

    def read_registers(self, table: str, addr: int, count: int, /) -> list[int]:  # type: ignore[override]  # narrower
        self.asked.append((addr, count))
        if table == "input" and addr < 60 and addr + count > 56:
            raise ModbusError(2)
        return list(super().read_registers(table, addr, count))


def older() -> Older:
    registers = live_registers()
    unit = Older(profile_of("eastron-sdm630"), lambda: registers.values(0))
    unit.asked = []
    return unit


@contextlib.asynccontextmanager
async def linked(server: ModbusTcpServer) -> AsyncIterator[ModbusLink]:
    link = ModbusLink(f"modbus://127.0.0.1:{server.port}", name="line", timeout_s=0.5)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(met: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not met():  # noqa: ASYNC110 - what is waited for happens in a device's callback
            await asyncio.sleep(0.01)


POINTS = ("power_w", "power_apparent_va", "power_reactive_var", "power_factor", "frequency_hz", "energy_import_wh")


async def test_polls_settle_on_what_the_unit_has_and_the_next_start_asks_right_at_once(tmp_path: Path) -> None:
    unit = older()
    path = tmp_path / "learned.json"
    samples: list[Sample] = []
    async with served({1: unit}) as server:
        async with linked(server) as link:
            device = MeterDevice("m1", 1, profile_of("eastron-sdm630"), UnitMemory(KEY, LearnedFile(path)))
            poll = MeterPoll(link, device, POINTS, 0.02, samples.append)
            await until(lambda: len(samples) > 2 and samples[-1].ok and device.memory.settled)
            settled = len(samples)
            await until(lambda: len(samples) > settled + 2)
            poll.cancel()
        assert settled < 12
        assert {n: r.quality for n, r in samples[-1].readings.items()} == {
            name: Quality.EXCEPTION if name == "power_apparent_va" else Quality.GOOD for name in POINTS
        }
        unit.asked.clear()
        samples.clear()
        async with linked(server) as link:
            again = MeterDevice("m1", 1, profile_of("eastron-sdm630"), UnitMemory(KEY, LearnedFile(path)))
            poll = MeterPoll(link, again, POINTS, 0.02, samples.append)
            await until(lambda: len(samples) >= 3)
            poll.cancel()
    assert all(sample.ok for sample in samples)
    assert not any(addr < 60 and addr + count > 56 for addr, count in unit.asked)


async def test_a_single_reading_for_a_person_settles_by_itself() -> None:
    unit = older()
    async with served({1: unit}) as server, linked(server) as link:
        device = MeterDevice("m1", 1, profile_of("eastron-sdm630"))
        sample = await read_settled(link, device, device.profile.point_ids, deadline_s=10.0)
    bad = {name for name, r in sample.readings.items() if r.quality is not Quality.GOOD}
    assert bad == {"power_apparent_va"}
    assert len(unit.asked) < 40


# -- a meter that describes itself -----------------------------------------------------------------------------------


def port_of(link: ModbusLink, store: LearnedFile | None, unit: int = 1) -> MeterPort:
    device = Device.model_validate(
        {"id": "m1", "kind": "meter", "profile": "sunspec-meter", "link": "line", "unit": unit, "period_s": 0.05}
    )
    return meter_port(device, profile_of("sunspec-meter"), link, serial=False, learned=store)


async def test_the_directory_is_walked_once_and_remembered(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    samples: list[Sample] = []
    async with served({1: meter_unit(profile_of("sunspec-meter"))}) as server:
        async with linked(server) as link:
            port = port_of(link, LearnedFile(path))
            assert port.found is False
            port.poll(samples.append)
            assert port.subscription is None, "nothing is asked at a guess"
            await port.find_at_start()
            assert port.found is True
            port.poll(samples.append)
            await until(lambda: len(samples) > 1)
        assert samples[-1].readings["power_w"].quality is Quality.GOOD
        assert port.device.profile.point("energy_import_wh").kind == "counter"
        requests = server.requests
        async with linked(server) as link:
            known = port_of(link, LearnedFile(path))
            assert known.found is True
            assert known.device.profile == port.device.profile
            assert known.device.fixed == port.device.fixed
        assert server.requests == requests


async def test_a_dead_meter_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.acquisition.meters.WALK_S", 0.3)
    async with served({1: meter_unit(profile_of("sunspec-meter"))}) as server, linked(server) as link:
        port = port_of(link, None, unit=9)
        await port.find_at_start()
        assert port.found is False
        assert port.subscription is None


async def test_a_meter_found_later_is_polled_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.acquisition.meters.WALK_AGAIN_S", 0.01)
    samples: list[Sample] = []
    async with served({}) as server, linked(server) as link:
        port = port_of(link, None)
        task = asyncio.create_task(port.find_later(samples.append))
        server.units[1] = meter_unit(profile_of("sunspec-meter"))
        await until(lambda: bool(samples))
        await task
    assert samples[-1].readings["frequency_hz"].quality is Quality.GOOD


# -- scanning a line -------------------------------------------------------------------------------------------------


class LineOfMeters:
    """A pseudo-terminal with slaves at its other end: whole questions of eight bytes, answered with a check sum."""

    def __init__(self, units: dict[int, MeterUnit | WordUnit]) -> None:
        self.units = units
        self.functions: set[int] = set()
        self._theirs, self._ours = pty.openpty()
        for end in (self._theirs, self._ours):
            tty.setraw(end)
        self.path = os.ttyname(self._ours)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._theirs, self._hear)

    def _hear(self) -> None:
        data = os.read(self._theirs, 4096)
        self.functions.add(data[1])
        unit = self.units.get(data[0])
        if unit is not None and len(data) == 8:
            os.write(self._theirs, with_crc(data[:1] + answer_pdu(unit, data[1:6])))

    def close(self) -> None:
        self._loop.remove_reader(self._theirs)
        os.close(self._theirs)
        os.close(self._ours)


async def test_a_line_is_scanned_and_nothing_but_registers_is_read() -> None:
    board = WordUnit(dict.fromkeys(range(8), 255))
    line = LineOfMeters({2: meter_unit(profile_of("eastron-sdm630")), 4: board})
    done: list[int] = []
    try:
        url = f"rtu://{line.path}?baud=115200/1-5"
        rows = {r["url"].rpartition("/")[2]: r async for r in scan(url, timeout_s=0.15, on_progress=done.append)}
    finally:
        line.close()
    assert {unit: row["profile"] for unit, row in rows.items()} == {"2": "eastron-sdm630", "4": None}
    assert sum(done) == 5
    assert line.functions <= {3, 4}
    assert (board.writes, board.bit_reads) == (0, 0)


async def test_scan_of_a_gateway_finds_units_without_looking_closer() -> None:
    async with served({3: WordUnit({0: 1}), 7: WordUnit()}) as server:
        url = f"modbus://127.0.0.1:{server.port}/1-8"
        rows = [row async for row in scan(url, timeout_s=0.1, closer=False)]
    assert [row["url"].rpartition("/")[2] for row in rows] == ["3", "7"], "a refusal is an answer too"


def test_ranges_are_taken_apart_and_bounded() -> None:
    assert host_range("10.0.0.254-10.0.1.2") == ("10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1", "10.0.1.2")
    assert host_range("10.0.0.7-9") == ("10.0.0.7", "10.0.0.8", "10.0.0.9")
    assert host_range("meter-room.example") == ("meter-room.example",)
    assert unit_range("7") == (7,)
    assert unit_range("1-3") == (1, 2, 3)
    (serial,) = lines("rtu:///dev/ttyUSB0?baud=19200&parity=E")
    assert (serial.url.baud, serial.units) == (19200, tuple(range(1, 248)))
    assert serial.address(5) == "rtu:///dev/ttyUSB0?baud=19200&parity=E&stop=1/5"
    assert [(str(x.url), x.units) for x in lines("modbus://10.0.0.1-2:1502")] == [
        ("modbus://10.0.0.1:1502", (1,)),
        ("modbus://10.0.0.2:1502", (1,)),
    ]
    assert lines("rtutcp://[::1]:4001/1-2")[0].units == (1, 2)


@pytest.mark.parametrize(
    "url",
    ["modbus://10.0.0.2-1/1", "modbus://10.0.0.1-0.1/1", "modbus://10.0.0.1-9999/1", "modbus://10.0.0.1/x",
     "modbus://10.0.0.1/1-999", "modbus:///1", "rtu://ttyUSB0/1-9", "modbus://u:p@10.0.0.1/1", "10.0.0.1"],
)  # fmt: skip
def test_a_wrong_range_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected|unit") as refused:
        lines(url)
    assert "u:p" not in str(refused.value)
