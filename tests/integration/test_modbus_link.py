"""The link against a small server written for these tests: raw sockets, no Modbus library on the other side."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from drivers.capabilities import Sample, WriteStatus
from drivers.modbus import (
    ForbiddenFunction,
    Klass,
    MeterDevice,
    ModbusLink,
    RelayDevice,
)
from drivers.profiles.model import MeterProfile
from tests.integration.modbus_server import POINTS, Server, meter_profile, relay_profile, running, serving, until
from wire.quality import Quality


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as served:
        yield served


async def test_a_read_gives_values_bits_and_the_exact_frames(server: Server) -> None:
    async with running(server.port) as link:
        sample = await link.read(MeterDevice("m1", 7, meter_profile()), POINTS)
    assert sample.ok
    assert sample.readings["power_w"].value == 4932.0
    assert sample.readings["energy_import_wh"].value == 1_000_000.0
    assert sample.bits["power_w"] == 0x459A2000
    assert sample.frames == (
        (bytes.fromhex("070400000002"), bytes.fromhex("07040443708000")),
        (bytes.fromhex("070400340002"), bytes.fromhex("070404459a2000")),
        (bytes.fromhex("070400480002"), bytes.fromhex("070404447a0000")),
    )


async def test_a_refused_block_takes_only_its_own_points(server: Server) -> None:
    server.refuse.add((4, 0))
    async with running(server.port) as link:
        sample = await link.read(MeterDevice("m1", 1, meter_profile()), POINTS)
    assert sample.readings["voltage_l1_n_v"].quality is Quality.EXCEPTION
    assert sample.readings["voltage_l1_n_v"].value is None
    assert sample.readings["power_w"].quality is Quality.GOOD
    assert sample.error is not None
    assert "exception 2" in sample.error


async def test_a_dead_unit_is_a_timeout_and_nothing_listening_is_no_connection(server: Server) -> None:
    server.dead.add(9)
    device = MeterDevice("m9", 9, meter_profile())
    async with running(server.port) as link:
        sample = await link.read(device, ["power_w"])
        assert sample.readings["power_w"].quality is Quality.TIMEOUT
    unused = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = unused.sockets[0].getsockname()[1]
    unused.close()
    await unused.wait_closed()
    async with running(port) as link:
        sample = await link.read(device, ["power_w"], deadline_s=1)
        assert sample.readings["power_w"].quality is Quality.NO_CONNECTION


async def test_a_late_answer_is_never_taken_for_the_next_question(server: Server) -> None:
    # Unit 1 answers after its time-out, while unit 2 (other registers) is being asked.
    server.late[1] = 0.25
    server.delay_s = 0.08
    profile = meter_profile()
    async with running(server.port) as link:
        slow = await link.read(MeterDevice("m1", 1, profile), ["voltage_l1_n_v"])
        others = [await link.read(MeterDevice("m2", 2, profile), ["power_w"]) for _ in range(4)]
    assert slow.readings["voltage_l1_n_v"].quality is Quality.TIMEOUT
    assert [o.readings["power_w"].value for o in others] == [4932.0] * 4


async def test_polling_goes_on_after_the_connection_broke(server: Server) -> None:
    samples: list[Sample] = []
    async with running(server.port) as link:
        link.poll(MeterDevice("m1", 1, meter_profile()), ["power_w"], 0.05, samples.append)
        await until(lambda: any(s.ok for s in samples))
        server.drop_connections()
        await until(lambda: link.stats.connects >= 2)
        before = len(samples)
        await until(lambda: any(s.ok for s in samples[before:]))


async def test_cancelling_a_subscription_ends_it_and_a_new_period_is_kept(server: Server) -> None:
    samples: list[Sample] = []
    async with running(server.port) as link:
        subscription = link.poll(MeterDevice("m1", 1, meter_profile()), ["power_w"], 3600.0, samples.append)
        subscription.set_period(0.02)
        await until(lambda: len(samples) >= 5)
        subscription.cancel()
        count = len(samples)
        await link.read(MeterDevice("m2", 2, meter_profile()), ["power_w"])
        await link.read(MeterDevice("m2", 2, meter_profile()), ["power_w"])
        assert len(samples) <= count + 1


async def test_a_receiver_that_fails_does_not_stop_the_link(server: Server) -> None:
    def fail(sample: Sample) -> None:
        raise RuntimeError("receiver")

    good: list[Sample] = []
    async with running(server.port) as link:
        link.poll(MeterDevice("a", 1, meter_profile()), ["power_w"], 0.02, fail)
        link.poll(MeterDevice("b", 2, meter_profile()), ["power_w"], 0.02, good.append)
        await until(lambda: len(good) >= 5)


async def test_ten_dead_units_of_a_hundred_leave_the_others_on_time(server: Server) -> None:
    profile = meter_profile()
    server.dead = set(range(5, 105, 10))
    assert len(server.dead) == 10
    taken: dict[int, list[float]] = {unit: [] for unit in range(1, 101)}
    begun = time.monotonic()
    async with running(server.port, timeout_s=0.5) as link:
        for unit in range(1, 101):

            def note(sample: Sample, unit: int = unit) -> None:
                if sample.ok:
                    taken[unit].append(time.monotonic())

            link.poll(MeterDevice(f"m{unit}", unit, profile), ["power_w"], 1.0, note)
        await asyncio.sleep(6.0)  # the length of the measurement, not a wait for something
        stats = link.stats
        share = stats.probing_s / (time.monotonic() - begun)
    healthy = [unit for unit in taken if unit not in server.dead]
    assert all(not taken[unit] for unit in server.dead)
    # Fixed phase: a poll is on time if it comes within half a period of where its first one puts it.
    due = on_time = 0
    for unit in healthy:
        assert len(taken[unit]) >= 4, f"unit {unit} was answered {len(taken[unit])} times in 6 s"
        for earlier, later in zip(taken[unit], taken[unit][1:], strict=False):
            due += 1
            on_time += 0.5 <= later - earlier <= 1.5
    assert on_time / due >= 0.9, f"{on_time} of {due}"
    assert stats.on_time >= 0.9 * (stats.on_time + stats.late)
    assert share < 0.4, f"{share:.2f} of the time went to silent units"  # the first contact with each included


async def test_a_control_write_goes_before_queued_polls(server: Server) -> None:
    server.delay_s = 0.02
    relay_unit = 200
    async with running(server.port, timeout_s=1.0) as link:
        relay = RelayDevice("r1", relay_unit, relay_profile(), link)
        reads = [
            asyncio.create_task(link.read(MeterDevice(f"m{i}", i, meter_profile()), ["power_w"], deadline_s=10))
            for i in range(1, 30)
        ]
        await until(lambda: len(server.log) >= 3)
        before = len(server.log)
        outcome = await relay.write("relay_3", True)
        position = next(i for i, (_, unit, _) in enumerate(server.log) if unit == relay_unit)
        await asyncio.gather(*reads)
    assert outcome.status is WriteStatus.ACKNOWLEDGED
    assert position <= before + 1  # at most the running request stood before it
    assert server.coils[2] is True


async def test_boundary_reads_go_before_verification_and_polls(server: Server) -> None:
    server.delay_s = 0.02
    profile = meter_profile()
    async with running(server.port, timeout_s=1.0) as link:
        queued = [
            asyncio.create_task(
                link.read(MeterDevice("m", 1, profile), ["power_w"], klass=Klass.VERIFICATION, deadline_s=9)
            )
            for _ in range(10)
        ]
        await until(lambda: len(server.log) >= 2)
        before = len(server.log)
        await link.read(MeterDevice("b", 50, profile), ["power_w"], klass=Klass.BOUNDARY)
        assert [unit for _, unit, _ in server.log].index(50) <= before + 1
        await asyncio.gather(*queued)


async def test_no_function_but_reads_ever_leaves_for_a_meter(server: Server) -> None:
    async with running(server.port) as link:
        device = MeterDevice("m1", 1, meter_profile())
        for function in set(range(256)) - {3, 4}:
            pdu = bytes((function, 0, 0, 0, 1))
            with pytest.raises(ForbiddenFunction, match="nothing was sent"):
                await link.exchange(device, (pdu,), klass=Klass.CONTROL, deadline_s=1)
            with pytest.raises(ForbiddenFunction):
                link.subscribe(device, (pdu,), 1.0, lambda answers: None)
        await link.read(device, ["power_w"])
    assert {pdu[0] for _, _, pdu in server.log} == {4}


def test_a_meter_has_no_method_that_writes() -> None:
    names = {name for name in dir(MeterDevice) if not name.startswith("_")}
    about = {"id", "unit", "profile", "memory", "fixed", "functions", "timeout_s", "gap_s", "turnaround_s"}
    assert names == about | {"reading", "polling", "sample"}
    assert not {"outputs", "writes"} & set(MeterProfile.model_fields)


# -- relays and switches ---------------------------------------------------------------------------------------------


async def test_a_write_nobody_answers_is_unknown_and_one_that_never_left_is_refused(server: Server) -> None:
    async with running(server.port) as link:
        relay = RelayDevice("r1", 3, relay_profile(), link)
        server.swallow_functions = {5}
        lost = await relay.write("relay_1", True)
        server.swallow_functions = set()
        server.refuse.add((5, 0))
        refused = await relay.write("relay_1", True)
    assert lost.status is WriteStatus.UNKNOWN
    assert refused.status is WriteStatus.REFUSED
    idle = ModbusLink(f"modbus://127.0.0.1:{server.port}", name="nobody-runs-it", timeout_s=0.05)
    never = await RelayDevice("r1", 3, relay_profile(), idle).write("relay_1", True, deadline_s=0.05)
    assert never.status is WriteStatus.REFUSED
    assert "not sent" in never.detail


async def test_a_write_given_up_by_its_caller_does_not_leave_later(server: Server) -> None:
    link = ModbusLink(f"modbus://127.0.0.1:{server.port}", name="later", timeout_s=0.2)
    relay = RelayDevice("r1", 3, relay_profile(), link)
    write = asyncio.create_task(relay.write("relay_1", True, deadline_s=30))
    await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    worker = asyncio.create_task(link.run())
    await link.read(MeterDevice("m1", 1, meter_profile()), ["power_w"])
    worker.cancel()
    assert all(pdu[0] != 5 for _, _, pdu in server.log)


async def test_rtu_frames_have_no_number_so_a_late_answer_must_not_meet_the_next_question() -> None:
    """RTU over TCP: unit 1 answers the first block late; the second block of the same unit must not take it."""
    profile = meter_profile()
    asked: list[bytes] = []

    def checked(body: bytes) -> bytes:
        crc = 0xFFFF
        for byte in body:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        return body + crc.to_bytes(2, "little")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readexactly(8)
                asked.append(request)
                if len(asked) == 1:
                    await asyncio.sleep(0.25)  # past the time-out, before the next block could be asked
                value = b"\x43\x70\x80\x00" if request[3] == 0 else b"\x45\x9a\x20\x00"
                writer.write(checked(request[:2] + b"\x04" + value))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = ModbusLink(f"rtutcp://127.0.0.1:{listener.sockets[0].getsockname()[1]}", name="rtu", timeout_s=0.2)
    worker = asyncio.create_task(link.run())
    sample = await link.read(MeterDevice("m1", 1, profile), ["voltage_l1_n_v", "power_w"], deadline_s=5)
    again = await link.read(MeterDevice("m1", 1, profile), ["voltage_l1_n_v", "power_w"], deadline_s=5)
    worker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await worker
    listener.close()
    assert sample.readings["voltage_l1_n_v"].value is None
    assert sample.readings["power_w"].value in {4932.0, None}
    assert again.readings["voltage_l1_n_v"].value == 240.5
    assert again.readings["power_w"].value == 4932.0


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(4096),
        b"\xff" * 4096,
        bytes.fromhex("0001000000030104ff"),  # says 255 data bytes, brings none
        bytes.fromhex("00010000000701040200010203"),  # other length than asked
        bytes.fromhex("000100000005010302ffff"),  # other function
        bytes.fromhex("0001000000020184"),  # exception without its code
        bytes.fromhex("00010000ffff0104"),  # promises 64 KiB
    ],
)
async def test_junk_costs_one_answer_and_neither_the_link_nor_a_wrong_value(junk: bytes) -> None:
    good = Server()
    good.hold(meter_profile(), {"power_w": 4932.0})
    angry = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if angry:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readexactly(12)
                writer.write(junk)
                await reader.read()
            writer.close()
        else:
            await good.serve(reader, writer)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with running(listener.sockets[0].getsockname()[1], timeout_s=0.1) as link:
        device = MeterDevice("m1", 1, meter_profile())
        first = await link.read(device, ["power_w"])
        assert first.readings["power_w"].value is None
        assert first.readings["power_w"].quality in {Quality.TIMEOUT, Quality.CRC, Quality.NO_CONNECTION}
        angry = False
        async with asyncio.timeout(10):
            # The link reconnects in its own time and sets no event for it
            while not (await link.read(device, ["power_w"], deadline_s=1)).ok:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
    listener.close()
    good.drop_connections()
