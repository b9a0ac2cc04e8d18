"""Links over TCP against a device of its own process: silent units, several connections, TLS, second masters."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from config.devices import Link
from drivers.capabilities import Sample
from drivers.modbus import LinkEvent, ModbusLink
from drivers.modbus.pdu import read_request, write_coil_request
from drivers.modbus.scheduler import Answer
from tests.integration.modbus_sides import POINTS, Device, Slow, meter, running, served, until
from wire.quality import Quality


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device(1)
    yield made
    made.close()


# -- silent units ------------------------------------------------------------------------------------------------------


@dataclass
class Judge:
    """Due times are known from the period and the first answer: each poll is judged, those that never came too."""

    period_s: float
    good: dict[str, list[float]] = field(default_factory=dict)

    def take(self, sample: Sample) -> None:
        if sample.ok:
            self.good.setdefault(sample.device, []).append(sample.mono_ns / 1e9)

    def on_time_share(self, healthy: set[str], begun: float, ended: float) -> float:
        expected = (ended - begun) / self.period_s
        shares = []
        for name in healthy:
            inside = [at for at in self.good.get(name, []) if begun <= at < ended]
            windows = {int((at - begun) / self.period_s) for at in inside}
            # A phase near the edge of a window may fall on either side: neighbours count once each.
            shares.append(min(1.0, max(len(windows), min(len(inside), expected)) / int(expected)))
        return sum(shares) / len(shares)


async def judged(
    links: list[ModbusLink], units: int, dead: set[int], kill: Callable[[], None], *, seconds: float
) -> tuple[float, float]:
    """(share of healthy polls that came, p99 of their lateness in s), from the moment units fall silent."""
    period_s = 1.0
    judge = Judge(period_s)
    async with running(*links):
        for unit in range(1, units + 1):
            links[(unit - 1) % len(links)].poll(meter(unit), POINTS, period_s, judge.take)
        await until(lambda: len(judge.good) == units)
        kill()
        for link in links:
            link.stats.lateness_ms.clear()
        begun = time.monotonic()
        await asyncio.sleep(seconds)  # the length of the measurement, not a wait for something
        ended = time.monotonic()
        healthy = {f"m{unit}" for unit in range(1, units + 1)} - {f"m{unit}" for unit in dead}
        lateness = sorted(ms for link in links for ms in link.stats.lateness_ms)
    return judge.on_time_share(healthy, begun, ended), lateness[int(0.99 * len(lateness)) - 1] / 1000


@pytest.mark.long
@pytest.mark.parametrize(("dead_units", "share"), [(1, 0.99), (10, 0.90)])
async def test_units_that_fall_silent_leave_the_others_on_time_behind_one_link(
    device: Device, dead_units: int, share: float
) -> None:
    dead = set(range(5, 5 + 10 * dead_units, 10))
    link = ModbusLink(f"modbus://127.0.0.1:{device.ports[0]}", name="one", timeout_s=0.5)
    got, p99_s = await judged(
        [link], 100, dead, lambda: device.tell("dead " + ",".join(map(str, dead))) and None, seconds=20.0
    )
    assert got >= share
    assert p99_s <= 2 * 0.5


@pytest.mark.long
@pytest.mark.parametrize(("dead_hosts", "share"), [(1, 0.99), (10, 0.90)])
async def test_hosts_that_fall_silent_leave_the_others_on_time(dead_hosts: int, share: float) -> None:
    device = Device(100)
    try:
        dead = set(range(5, 5 + 10 * dead_hosts, 10))
        links = [ModbusLink(f"modbus://127.0.0.1:{p}", name=f"h{p}", timeout_s=0.5) for p in device.ports]
        silenced = ",".join(f"@{unit - 1}" for unit in dead)
        got, p99_s = await judged(links, 100, dead, lambda: device.tell(f"dead {silenced}") and None, seconds=20.0)
    finally:
        device.close()
    assert got >= share
    assert p99_s <= 2 * 0.5


async def test_a_unit_that_fell_silent_is_probed_by_one_question_and_read_wholly_when_it_returns(
    device: Device,
) -> None:
    link = ModbusLink(f"modbus://127.0.0.1:{device.ports[0]}", name="one", timeout_s=0.1)
    points = tuple(p.id for p in meter(1).profile.points)  # two requests
    samples: list[Sample] = []
    async with running(link):
        link.poll(meter(2), ("voltage_l1_n_v",), 0.05, lambda sample: None)
        link.poll(meter(1), points, 0.05, samples.append)
        await until(lambda: any(s.ok for s in samples))
        device.tell("dead 1")
        await until(lambda: link.stats.timeouts >= 2)
        device.tell("reset")
        timeouts = link.stats.timeouts
        await until(lambda: link.stats.timeouts >= timeouts + 1)
        told = device.tell("counts")
        asked = next((n for _, unit, n in told["polls"] if unit == 1), 0)
        # Only the request that begins at register 0 went out: the second one waits for an answer to the first.
        others = next(n for _, unit, n in told["polls"] if unit == 2)
        assert told["requests"] == asked + others
        device.tell("dead")
        before = len(samples)
        await until(lambda: any(s.ok for s in samples[before:]))


async def test_a_slow_unit_among_quick_ones_is_found_by_its_late_answer() -> None:
    async def mixed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readexactly(12)
                if request[6] == 9:
                    await asyncio.sleep(0.25)
                count = request[11]
                head = request[:4] + (3 + 2 * count).to_bytes(2, "big") + request[6:8]
                writer.write(head + bytes((2 * count,)) + bytes(2 * count))
        writer.close()

    async with served(mixed) as port:
        link = ModbusLink(f"modbus://127.0.0.1:{port}", name="mixed", timeout_s=2.0)
        async with running(link):
            for _ in range(12):
                assert (await link.read(meter(1), POINTS)).ok
            # Units that never answered are waited for a short time only; the late answer says that this one is there.
            assert not (await link.read(meter(9), POINTS, deadline_s=5.0)).ok
            await until(lambda: link.stats.late_answers >= 1)
            samples = [await link.read(meter(9), POINTS, deadline_s=5.0) for _ in range(2)]
    assert [s.ok for s in samples] == [True, True]


async def test_requests_of_a_subscription_change_but_never_to_what_must_not_be_sent(device: Device) -> None:
    link = ModbusLink(f"modbus://127.0.0.1:{device.ports[0]}", name="one", timeout_s=1.0)
    seen: list[tuple[Quality, int]] = []

    def take(answers: tuple[Answer, ...]) -> None:
        seen.append((answers[0].quality, len(answers[0].answer)))

    async with running(link):
        subscription = link.subscribe(meter(1), (read_request(4, 0, 2),), 0.02, take)
        await until(lambda: (Quality.GOOD, 7) in seen)
        subscription.set_requests((read_request(4, 0, 4),), take)
        await until(lambda: (Quality.GOOD, 11) in seen)
        sent = device.tell("counts")["requests"]
        subscription.set_requests((write_coil_request(0, 0xFF00),), take)
        await until(lambda: seen[-1][0] is Quality.EXCEPTION)
        before = len(seen)
        await until(lambda: len(seen) >= before + 3)
        assert device.tell("counts")["requests"] - sent <= 2  # at most what was under way


# -- several connections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 3])
async def test_as_many_requests_are_open_as_there_are_connections_and_one_per_unit(connections: int) -> None:
    slow = Slow(0.02)
    got: list[Sample] = []
    async with served(slow.serve) as port:
        link = ModbusLink(f"modbus://127.0.0.1:{port}", name="n", timeout_s=2.0, connections=connections)
        async with running(link):
            for unit in range(1, 7):
                link.poll(meter(unit), POINTS, 0.05, got.append)
                link.poll(meter(unit), ("energy_import_wh",), 0.05, got.append)
            await until(lambda: len(got) >= 60)
    assert slow.most == connections
    assert not slow.twice
    assert slow.connections == connections
    assert link.stats.connections == connections


def test_several_connections_are_refused_where_frames_carry_no_number() -> None:
    with pytest.raises(ValueError, match="expected 1 to 16, and 1 on serial frames"):
        ModbusLink("rtutcp://127.0.0.1:4001", name="x", connections=2)
    with pytest.raises(ValueError, match="connections: seen 2 on rtu://"):
        Link(id="x", url="rtu:///dev/ttyUSB0?baud=9600", connections=2)


async def test_cancelling_a_link_of_several_connections_answers_whoever_waits() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with served(mute) as port:
        link = ModbusLink(f"modbus://127.0.0.1:{port}", name="n", timeout_s=30.0, connections=2)
        task = asyncio.create_task(link.run())
        waiting = [asyncio.create_task(link.read(meter(n), POINTS, deadline_s=60)) for n in range(1, 6)]
        await until(lambda: link.stats.requests == 2)
        task.cancel()
        async with asyncio.timeout(5):
            samples = await asyncio.gather(*waiting)
            await asyncio.wait({task})
    assert {s.readings["power_w"].quality for s in samples} == {Quality.NO_CONNECTION}


# -- answers that are not ours -----------------------------------------------------------------------------------------


async def test_a_gateway_that_hands_us_others_answers_is_named_and_gives_no_wrong_value() -> None:
    async def mixed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readexactly(12)
                count = request[11]
                size = (3 + 2 * count).to_bytes(2, "big")
                foreign = b"\xee\xee" + request[2:4] + size + request[6:8] + bytes((2 * count,)) + b"\x7f" * 2 * count
                other_unit = request[:4] + size + b"\x63" + request[7:8] + bytes((2 * count,)) + b"\x7f" * 2 * count
                ours = request[:4] + size + request[6:8] + bytes((2 * count,)) + bytes(2 * count)
                writer.write(foreign + other_unit + ours)
        writer.close()

    events: list[LinkEvent] = []
    async with served(mixed) as port:
        link = ModbusLink(f"modbus://127.0.0.1:{port}", name="gw", timeout_s=2.0, on_event=events.append)
        async with running(link):
            samples = [await link.read(meter(1), ["power_w"]) for _ in range(4)]
    assert [s.readings["power_w"].value for s in samples] == [0.0] * 4
    assert link.stats.foreign_frames == 8
    assert [(e.name, e.now) for e in events] == [("second_master", True)]


async def test_a_stream_out_of_step_is_made_anew_and_not_at_once(device: Device) -> None:
    tries = 0

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read(12)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with served(web) as port:
        link = ModbusLink(f"modbus://127.0.0.1:{port}", name="web", timeout_s=0.5)
        samples: list[Sample] = []
        async with running(link):
            link.poll(meter(1), POINTS, 0.01, samples.append)
            await until(lambda: len(samples) >= 40)
    assert not any(s.ok for s in samples)
    assert any("expected protocol 0" in (s.error or "") for s in samples)
    assert tries <= 10


# -- the site file -----------------------------------------------------------------------------------------------------


def test_what_the_site_file_says_reaches_the_link() -> None:
    link = ModbusLink.from_config(
        Link(id="gw", url="modbus://h:502", timeout_s=1.5, connections=3, turnaround_ms=25, silent_share=0.1)
    )
    assert (link.name, link.timeout_s, link.stats.connections) == ("gw", 1.5, 3)
    assert link._worker.sched.probe_share == 0.1
    assert link._turnaround_s == 0.025
    serial = ModbusLink.from_config(Link(id="s", url="rtu:///dev/ttyS0?baud=9600"))
    assert serial._worker.guard_s == pytest.approx(3.5 * 10 / 9600)
    fixed = ModbusLink.from_config(Link(id="s", url="rtu:///dev/ttyS0?baud=9600&parity=E", guard_ms=12))
    assert fixed._worker.guard_s == pytest.approx(0.012)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": "rtu:///dev/ttyS0", "tls": {}}, "tls: seen on rtu"),
        ({"url": "modbus://h", "guard_ms": 5}, "guard_ms: seen on modbus"),
        ({"url": "modbus://h", "connections": 17}, "less than or equal to 16"),
        ({"url": "modbus://h", "tls": {"cert_file": "a.pem"}}, "both cert_file and key_file"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Link.model_validate({"id": "x", **fields})


async def test_a_pause_after_each_answer_is_kept(device: Device) -> None:
    link = ModbusLink(f"modbus://127.0.0.1:{device.ports[0]}", name="one", timeout_s=1.0, turnaround_s=0.05)
    async with running(link):
        await link.read(meter(1), POINTS)
        begun = time.monotonic()
        for unit in range(2, 8):
            assert (await link.read(meter(unit), POINTS)).ok
        took_s = time.monotonic() - begun
    assert took_s >= 6 * 0.05
