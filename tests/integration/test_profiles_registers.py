"""Every meter model as a simulated unit on a real socket: our own client and mbpoll read what the model says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from config.devices import MeteringPoint
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.pdu import read_request, read_words
from drivers.modbus.scheduler import Klass
from drivers.profiles.codec import failed_checks, field_bits, unlike_live
from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.loader import DATA, load_profile
from drivers.profiles.model import MeterProfile, Point
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import ModbusTcpServer
from simulator.registers import Registers
from wire.quality import Quality

CASES = Path(__file__).parents[1] / "vectors" / "meters"
Value = float | int | str | None
needs_mbpoll = pytest.mark.skipif(shutil.which("mbpoll") is None, reason="left out: mbpoll is not installed")


def meter(profile_id: str) -> MeterProfile:
    profile = load_profile(profile_id)
    assert isinstance(profile, MeterProfile)
    return profile


METERS = [meter(path.stem.replace("_", "-")) for path in sorted((DATA / "meters").glob("*.yaml"))]
UNITS = {profile.id: unit for unit, profile in enumerate(METERS, 1)}


def rows_of(profile: MeterProfile) -> list[dict[str, Any]]:
    path = CASES / f"{profile.id.replace('-', '_')}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert isinstance(rows, list)
    return rows


def plain(text: object) -> Value:
    return str(text) if not re.fullmatch(r"-?[0-9.]+", str(text)) else float(Fraction(str(text)))


def held(profile: MeterProfile) -> dict[str, Value]:
    """What the model's worked cases say it measures."""
    return _held(profile.id)


@cache
def _held(profile_id: str) -> dict[str, Value]:
    profile = next(p for p in METERS if p.id == profile_id)
    values: dict[str, Value] = {"serial_number": "4242"}
    for row in rows_of(profile):
        for name, value in row["expect"].items():
            values[name] = str(value) if name == "serial_number" else plain(value)
    return values


@asynccontextmanager
async def server_of(units: Mapping[int, MeterUnit]) -> AsyncIterator[ModbusTcpServer]:
    server = ModbusTcpServer(units)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def all_meters() -> AsyncIterator[tuple[ModbusTcpServer, ModbusLink]]:
    units = {UNITS[p.id]: MeterUnit(p, partial(held, p)) for p in METERS}
    async with server_of(units) as server:
        link = ModbusLink(f"modbus://127.0.0.1:{server.port}", name="all", timeout_s=5.0)
        task = asyncio.create_task(link.run())
        try:
            yield server, link
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def spread(profile: MeterProfile, row: dict[str, Any]) -> bool:
    """True where several register images give the same value, so the case's own need not be the simulator's."""
    points = [profile.point(name) for name in row["expect"]]
    return any(p.scale_by or (p.type == "sum" and all(part.positive == "import" for part in p.parts)) for p in points)


async def test_our_client_reads_the_very_words_that_were_worked_out_without_it() -> None:
    compared = 0
    wrong: list[str] = []
    async with all_meters() as (_, link):
        for profile in METERS:
            device = MeterDevice(profile.id, UNITS[profile.id], profile)
            for row in rows_of(profile):
                words = [int(w, 16) for w in row["words"].split()]
                if spread(profile, row):
                    continue
                pdu = read_request(READ_FUNCTION[row["table"]], row["addr"], len(words))
                (answer,) = await link.exchange(device, (pdu,), klass=Klass.VERIFICATION, deadline_s=30.0)
                assert answer.ok, f"{profile.id} {row['addr']}: {answer.error}"
                seen = list(read_words(answer.request, answer.answer))
                compared += len(words)
                if seen != words:
                    wrong.append(f"{profile.id} {row['table']} {row['addr']}: {seen} is not {words}")
    assert wrong == []
    assert compared > 800


async def test_our_client_gives_every_value_of_every_model_and_the_bits_behind_its_counters() -> None:
    async with all_meters() as (_, link):
        for profile in METERS:
            device = MeterDevice(profile.id, UNITS[profile.id], profile)
            values = held(profile)
            sample = await link.read(device, profile.point_ids, deadline_s=30.0)
            assert sample.error is None, f"{profile.id}: {sample.error}"
            for name, wanted in values.items():
                if name not in profile.point_ids:
                    continue
                reading = sample.readings[name]
                assert reading.quality is not Quality.DECODE, f"{profile.id} {name}"
                if isinstance(wanted, str) or wanted is None:
                    assert reading.value == wanted, f"{profile.id} {name}"
                else:
                    assert reading.value == pytest.approx(wanted, rel=1e-6), f"{profile.id} {name}"
            for point in profile.points:
                assert (point.id in sample.bits) >= point.evidence, f"{profile.id} {point.id}"


@needs_mbpoll
@pytest.mark.parametrize("profile", METERS, ids=[profile.id for profile in METERS])
async def test_mbpoll_reads_the_first_registers_of_every_model(profile: MeterProfile) -> None:
    await mbpoll_reads(profile, 2)


@pytest.mark.long
@needs_mbpoll
@pytest.mark.parametrize("profile", METERS, ids=[profile.id for profile in METERS])
async def test_mbpoll_reads_every_register_of_every_model(profile: MeterProfile) -> None:
    await mbpoll_reads(profile, len(rows_of(profile)))


async def mbpoll_reads(profile: MeterProfile, count: int) -> None:
    values = held(profile)
    async with server_of({1: MeterUnit(profile, lambda: values)}) as server:
        for row in rows_of(profile)[:count]:
            words = row["words"].split()
            process = await asyncio.create_subprocess_exec(
                "mbpoll", "-m", "tcp", "-p", str(server.port), "-a", "1", "-0", "-1", "-o", "5",
                "-t", "4:hex" if row["table"] == "holding" else "3:hex",
                "-r", str(row["addr"]), "-c", str(len(words)), "127.0.0.1",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            output, _ = await process.communicate()
            seen = re.findall(r"^\[\d+\]:\s+0x([0-9A-Fa-f]+)", output.decode(), re.MULTILINE)
            if spread(profile, row):
                assert len(seen) == len(words), output.decode()
            else:
                assert [w.lower() for w in seen] == words, output.decode()


async def test_a_scale_register_scales_what_is_read_with_it() -> None:
    profile = meter("schneider-ion6200")
    measured: dict[str, Value] = {
        "voltage_l1_n_v": 230.5, "current_l1_a": 812.0, "power_w": -552_000.0, "frequency_hz": 50.0,
    }  # fmt: skip
    async with server_of({1: MeterUnit(profile, lambda: measured)}) as server:
        link = ModbusLink(f"modbus://127.0.0.1:{server.port}", name="ion", timeout_s=5.0)
        task = asyncio.create_task(link.run())
        try:
            sample = await link.read(MeterDevice("m", 1, profile), list(measured), deadline_s=30.0)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    assert {name: reading.value for name, reading in sample.readings.items()} == measured


async def test_the_raw_bits_of_the_energy_counter_are_those_on_the_wire() -> None:
    async with all_meters() as (_, link):
        for profile in METERS:
            points = {p.id: p for p in profile.points}
            point = points.get("energy_import_wh")
            if point is None or not point.evidence:
                continue
            device = MeterDevice(profile.id, UNITS[profile.id], profile)
            pdu = read_request(READ_FUNCTION[point.table], point.addr, point.words)
            (answer,) = await link.exchange(device, (pdu,), klass=Klass.VERIFICATION, deadline_s=30.0)
            sample = await link.read(device, ["energy_import_wh"], deadline_s=30.0)
            assert sample.bits["energy_import_wh"] == field_bits(point, read_words(answer.request, answer.answer))


def plant_meter(power_w: float) -> Registers:
    """A 0.4 kV feeder with this load, as the simulated plant measures it."""
    point = MeteringPoint(id="M1", device="m", node="QF1", role="control", owner="site")
    registers = Registers(
        point, opening_wh=7_654_000.0, opening_export_wh=1_000.0, nominal_v=400.0, shares=(0.35, 0.33, 0.32),
        serial_number="20000001",
    )  # fmt: skip
    registers.measure(True, power_w, power_w / 10, 1.01, 50.0)
    registers.integrate(3600.0)
    return registers


@pytest.mark.parametrize("power_w", [6_000.0, -6_000.0])
async def test_what_the_plant_measures_comes_back_through_every_model(power_w: float) -> None:
    registers = plant_meter(power_w)
    truth = registers.values(1_790_000_000_000)
    async with server_of({UNITS[p.id]: MeterUnit(p, lambda: truth) for p in METERS}) as server:
        link = ModbusLink(f"modbus://127.0.0.1:{server.port}", name="plant", timeout_s=5.0)
        task = asyncio.create_task(link.run())
        try:
            samples = {
                p.id: await link.read(MeterDevice(p.id, UNITS[p.id], p), p.point_ids, deadline_s=30.0) for p in METERS
            }
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    for profile in METERS:
        for point in profile.points:
            reading, wanted = samples[profile.id].readings[point.id], truth[point.id]
            where = f"{profile.id} {point.id}: {reading} for {wanted}"
            assert reading.quality in {Quality.GOOD, Quality.SUSPECT}, where
            if isinstance(wanted, str):
                assert reading.value == wanted, where
            elif isinstance(wanted, float | int) and not unsigned(point):
                step = max(float(scale) for scale in (point.scale, *(part.scale for part in point.parts)))
                assert reading.value == pytest.approx(wanted, rel=1e-6, abs=step), where
        values = {name: r.value for name, r in samples[profile.id].readings.items()}
        assert failed_checks(profile, values) == ()
        assert unlike_live(profile, values) == ()


def unsigned(point: Point) -> bool:
    """True where the register has no sign (and the plant may), or the value is scaled by a setting."""
    return bool(point.scale_by) or (point.type[0] == "u" and point.id.startswith(("power", "current")))
