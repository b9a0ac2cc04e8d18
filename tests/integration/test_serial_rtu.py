"""RTU on a real terminal with a slave nobody here wrote (libmodbus), over a wire that echoes, damages and is shared."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serial_line import SerialLine, libmodbus_slave, needs_libmodbus

from drivers.capabilities import Sample
from drivers.modbus import LinkEvent, MeterDevice, ModbusLink, RelayDevice
from drivers.modbus.pdu import read_request, write_coil_request
from drivers.modbus.rtu import with_crc
from drivers.modbus.scheduler import Klass
from drivers.profiles import load_profile
from drivers.profiles.model import MeterProfile
from wire.quality import Quality

pytestmark = needs_libmodbus
UNIT = 5


def meter(unit: int = UNIT, name: str = "m1") -> MeterDevice:
    profile = load_profile("eastron-sdm630")
    assert isinstance(profile, MeterProfile)
    return MeterDevice(name, unit, profile)


@pytest.fixture
async def line() -> AsyncIterator[SerialLine]:
    made = SerialLine()
    yield made
    made.close()


@pytest.fixture
def slave(line: SerialLine) -> Iterator[None]:
    with libmodbus_slave(line.slave_path, UNIT):
        yield


@contextlib.asynccontextmanager
async def running(
    line: SerialLine, *, timeout_s: float = 0.5, on_event: Callable[[LinkEvent], None] = lambda event: None
) -> AsyncIterator[ModbusLink]:
    url = f"rtu://{line.path}?baud=115200&parity=N"
    link = ModbusLink(url, name="line", timeout_s=timeout_s, on_event=on_event)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def read_power(link: ModbusLink, unit: int = UNIT, deadline_s: float = 5.0) -> Sample:
    return await link.read(meter(unit), ["power_w"], deadline_s=deadline_s)


async def answered(link: ModbusLink) -> Sample:
    """Ask until the unit answers: after silence a line is left alone for a while."""
    async with asyncio.timeout(20):
        while not (sample := await read_power(link)).ok:  # noqa: ASYNC110 - the link sets no event
            await asyncio.sleep(0.02)
    return sample


async def test_reads_values_bits_and_the_exact_frames(line: SerialLine, slave: None) -> None:
    async with running(line) as link:
        sample = await read_power(link)
        nobody = await read_power(link, unit=6)
    assert sample.readings["power_w"].value == 4926.0
    assert sample.frames == ((bytes.fromhex("050400340002"), bytes.fromhex("0504044599f000")),)
    assert nobody.readings["power_w"].quality is Quality.TIMEOUT
    assert (link.stats.foreign_frames, link.stats.noise_bytes, link.stats.echoes) == (0, 0, 0)


async def test_a_wrong_check_sum_costs_one_answer_and_far_less_than_the_time_out(line: SerialLine, slave: None) -> None:
    async with running(line, timeout_s=3.0) as link:
        assert (await read_power(link)).ok
        line.to_us = lambda data: data[:-1] + bytes((data[-1] ^ 1,))
        broken = await read_power(link)
        assert broken.readings["power_w"].quality is Quality.CRC
        assert broken.readings["power_w"].value is None
        assert broken.latency_ms < 1500
        line.to_us = bytes
        assert (await answered(link)).readings["power_w"].value == 4926.0


async def test_a_truncated_frame_is_damage_and_its_rest_is_not_read_as_the_next_answer(
    line: SerialLine, slave: None
) -> None:
    async with running(line, timeout_s=1.0) as link:
        rest = b""

        def cut(data: bytes) -> bytes:
            nonlocal rest
            rest = data[5:]
            return data[:5]

        line.to_us = cut
        short = await read_power(link)
        assert short.readings["power_w"].quality is Quality.CRC
        line.to_us = bytes
        line.tell_us(rest)
        again = await link.read(meter(), ["voltage_l1_n_v"], deadline_s=5)
        assert again.readings["voltage_l1_n_v"].value in {240.5, None}
        assert (await answered(link)).readings["power_w"].value == 4926.0


async def test_noise_before_and_after_each_answer_changes_no_value(line: SerialLine, slave: None) -> None:
    line.to_us = lambda data: b"\x00\xff\x05" + data + b"\x05\x04\x00"
    async with running(line) as link:
        samples = [await read_power(link) for _ in range(10)]
    assert [s.readings["power_w"].value for s in samples] == [4926.0] * 10
    assert link.stats.noise_bytes >= 30
    assert not link.stats.second_master


async def test_an_adapter_that_echoes_is_read_through(line: SerialLine, slave: None) -> None:
    line.echo = True
    async with running(line) as link:
        samples = [await read_power(link) for _ in range(5)]
        silent = await read_power(link, unit=6)
    assert [s.readings["power_w"].value for s in samples] == [4926.0] * 5
    assert silent.readings["power_w"].quality is Quality.TIMEOUT
    assert link.stats.echoes >= 6
    assert not link.stats.second_master


class Coil:
    """What the link asks of a device: here a relay that is written in the plainest way."""

    id, timeout_s, gap_s, turnaround_s = "relay", None, 0.0, 0.0
    functions = frozenset({1, 5})

    def __init__(self, unit: int) -> None:
        self.unit = unit


async def write(link: ModbusLink, unit: int) -> Quality:
    pdu = write_coil_request(3, 0xFF00)
    (answer,) = await link.exchange(Coil(unit), (pdu,), klass=Klass.CONTROL, deadline_s=5.0)
    return answer.quality


async def test_an_echo_never_acknowledges_a_write(line: SerialLine, slave: None) -> None:
    line.echo = True
    async with running(line) as link:
        assert await write(link, UNIT) is Quality.GOOD  # the very first question: both repetitions came
        line.to_slave = lambda data: b""  # the relay is gone, the adapter still echoes
        assert await write(link, UNIT) is Quality.TIMEOUT
        line.to_slave = bytes
    line.echo = False
    async with running(line) as link:
        assert await write(link, UNIT) is Quality.GOOD
        assert (await read_power(link)).ok
        assert await write(link, UNIT) is Quality.GOOD


async def test_a_stale_answer_is_thrown_away_before_the_next_question(line: SerialLine, slave: None) -> None:
    held: list[bytes] = []

    def hold(data: bytes) -> bytes:
        held.append(data)
        return b""

    async with running(line, timeout_s=0.2) as link:
        line.to_us = hold
        lost = await link.read(meter(), ["voltage_l1_n_v"], deadline_s=1)
        assert lost.readings["voltage_l1_n_v"].value is None
        line.to_us = bytes
        line.tell_us(b"".join(held))
        sample = await answered(link)
    assert sample.readings["power_w"].value == 4926.0
    assert link.stats.late_answers == 1
    assert link.stats.foreign_frames == 0


async def test_a_second_master_is_noticed_named_and_told_once(line: SerialLine, slave: None) -> None:
    events: list[LinkEvent] = []
    question = bytes((UNIT + 4,)) + read_request(3, 0, 2)
    async with running(line, on_event=events.append) as link:
        for _ in range(6):
            line.tell_us(with_crc(question))
            line.tell_us(with_crc(bytes.fromhex("090304deadbeef")))
            assert (await answered(link)).readings["power_w"].value == 4926.0
        assert link.stats.second_master
    (event,) = events
    assert (event.name, event.now, event.link) == ("second_master", True, "line")
    assert event.frame in {question, bytes.fromhex("090304deadbeef")}
    assert link.stats.foreign_frames >= 3


async def test_two_masters_in_earnest_give_no_wrong_value(line: SerialLine, slave: None) -> None:
    """The other one asks the same slave for other registers, at any time, also amid our question and its answer."""
    stop = asyncio.Event()
    line.one_at_a_time = True

    async def other() -> None:
        question = with_crc(bytes((UNIT,)) + read_request(4, 0, 2))
        while not stop.is_set():
            line.say(question)
            await asyncio.sleep(0.013)

    task = asyncio.create_task(other())
    async with running(line, timeout_s=1.0) as link:
        got = [await read_power(link, deadline_s=2.0) for _ in range(4)]
        stop.set()
        await task
        assert link.stats.second_master
        assert (await answered(link)).readings["power_w"].value == 4926.0
    assert {s.readings["power_w"].value for s in got} <= {4926.0, None}


async def test_a_terminal_that_goes_away_is_reported_and_others_are_not_stuck(line: SerialLine) -> None:
    url = "rtu:///dev/does-not-exist?baud=9600"
    link = ModbusLink(url, name="gone", timeout_s=0.2)
    task = asyncio.create_task(link.run())
    sample = await link.read(meter(), ["power_w"], deadline_s=1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert sample.readings["power_w"].quality is Quality.NO_CONNECTION
    assert "does-not-exist" in (sample.error or "")


def test_relay_devices_are_what_these_tests_write_like() -> None:
    assert {"id", "timeout_s", "gap_s", "turnaround_s", "functions", "unit"} <= set(dir(RelayDevice))
