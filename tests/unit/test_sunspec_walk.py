"""SunSpec: the marker is found, a hostile directory ends the walk with a reason, a bound meter guards its scales."""

from __future__ import annotations

import struct
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from word_unit import WordUnit, served

from drivers.modbus.looking import Registers
from drivers.modbus.meter import MeterDevice
from drivers.modbus.probe import running
from drivers.modbus.sunspec import BASES, FLOAT, SCALED, Layout, NotSunSpec, bind, layout_from, walk
from drivers.modbus.url import parse_url
from drivers.profiles.codec import decode_map, exact
from drivers.profiles.plan import plan
from wire.quality import Quality

NONE16, NONE_SF = 0x8000, 0x8000


def text(value: str, words: int) -> list[int]:
    raw = value.encode().ljust(2 * words, b"\x00")
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, 2 * words, 2)]


def signed(value: int) -> int:
    return value & 0xFFFF


def common(unit: WordUnit, base: int, length: int = 66, serial: str = "SN-0042") -> int:
    """Marker and common model; address of the next model."""
    unit.put(base, 0x5375, 0x6E53, 1, length)
    unit.put(base + 4, *text("Maker", 16), *text("Model", 16), *text("", 8), *text("1.0", 8), *text(serial, 16))
    unit.put(base + 4 + 64, *([1] * (length - 64)))
    return base + 4 + length


def scaled_meter(unit: WordUnit, addr: int, *, model: int = 203, energy_sf: int = 1) -> int:
    """Model 203 written word by word after its definition: 3 phases, 12.34 kW, 1 000 000 Wh."""
    body = [NONE16] * 107
    body[0:2] = [model, 105]

    def put(offset: int, *words: int) -> None:
        body[offset : offset + len(words)] = [signed(w) for w in words]

    put(2, 540, 180, 181, 179, -1)  # A, phases, A_SF
    put(7, 2311, 2310, 2312, 2311, 4003, 4001, 4004, 4004, -1)  # PhV, phases, PPV, pairs, V_SF
    put(16, 5001, -2)  # Hz, Hz_SF
    put(18, 1234, 411, 412, 411, 1)  # W, phases, W_SF
    put(23, 1240, NONE16, NONE16, NONE16, 1)  # VA
    put(28, 122, NONE16, NONE16, NONE16, 1)  # VAR
    put(33, 985, NONE16, NONE16, NONE16, -1)  # PF in per cent
    for offset in range(38, 54, 2):
        put(offset, 0, 0)
    put(46, 1, 0x86A0)  # TotWhImp 100 000
    put(54, energy_sf)
    for offset in range(72, 104, 2):
        put(offset, 0, 0)
    put(72, 0, 1000)
    put(80, 0, 5)
    put(104, 0)
    put(105, 0, 0)
    unit.put(addr, *body)
    return addr + 107


def float_meter(unit: WordUnit, addr: int) -> int:
    body = [0x7FC0, 0x0000] * 63
    body[0:2] = [213, 124]

    def put(offset: int, value: float) -> None:
        raw = struct.pack(">f", value)
        body[offset : offset + 2] = [int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:], "big")]

    put(26, 50.0)
    put(28, 12_340.0)
    put(12, 231.0)
    put(68, 1_000_000.0)
    unit.put(addr, *body)
    return addr + 126


def end(unit: WordUnit, addr: int) -> None:
    unit.put(addr, 0xFFFF, 0)


async def walked(unit: WordUnit) -> Layout:
    async with served({1: unit}) as server, running(parse_url(f"modbus://127.0.0.1:{server.port}")[0], 0.5) as link:
        return await walk(Registers(link, 1))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("length", [65, 66])
async def test_the_meter_is_found_at_every_base_and_after_either_common_model(base: int, length: int) -> None:
    unit = WordUnit()
    addr = common(unit, base, length)
    end(unit, scaled_meter(unit, addr))
    layout = await walked(unit)
    assert (layout.base, layout.model, layout.addr, layout.energy_exponent) == (base, 203, addr, 1)
    assert layout.profile_id == SCALED
    assert layout_from(layout.document()) == layout


async def test_models_it_does_not_know_are_stepped_over_and_whole_numbers_are_preferred_to_floats() -> None:
    unit = WordUnit()
    addr = common(unit, 40000)
    unit.put(addr, 12, 5, *[0] * 5)
    meter = float_meter(unit, addr + 7)
    end(unit, scaled_meter(unit, meter))
    layout = await walked(unit)
    assert [model for model, _, _ in layout.chain] == [1, 12, 213, 203]
    assert (layout.model, layout.addr) == (203, meter)


@pytest.mark.parametrize("no_scale", [NONE_SF, 11, signed(-11)])
async def test_a_scaled_model_without_a_usable_energy_scale_gives_way_to_the_float_model(no_scale: int) -> None:
    unit = WordUnit()
    addr = common(unit, 40000)
    after = scaled_meter(unit, addr)
    unit.put(addr + 54, no_scale)
    end(unit, float_meter(unit, after))
    assert (await walked(unit)).profile_id == FLOAT


HOSTILE: list[tuple[str, list[int], str]] = [
    ("no end", [], "cannot be read"),
    ("length 0", [203, 0], "length 0"),
    ("model 0", [0, 5], "model 0"),
    ("length of all registers", [203, 0xFFFF], "past the last register"),
    ("a meter that is too short", [203, 20, *[0] * 20, 0xFFFF, 0], "only 20 registers"),
    ("no meter", [103, 50, *[0] * 50, 0xFFFF, 0], "expected a meter"),
    ("models without an end", [500, 1, 0] * 80, "more than 64"),
]


@pytest.mark.parametrize(("name", "words", "message"), HOSTILE, ids=[name for name, _, _ in HOSTILE])
async def test_a_hostile_directory_ends_the_walk_with_a_reason(name: str, words: list[int], message: str) -> None:
    unit = WordUnit()
    unit.put(common(unit, 40000), *words)
    with pytest.raises(NotSunSpec, match=message):
        await walked(unit)
    assert len(unit.reads) <= 75


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 0xFFFF), max_size=120))
async def test_whatever_stands_behind_the_marker_the_walk_ends(words: list[int]) -> None:
    unit = WordUnit()
    unit.put(40000, 0x5375, 0x6E53, *words)
    try:
        layout = await walked(unit)
    except NotSunSpec:
        pass
    else:
        assert layout.model in {201, 202, 203, 204, 211, 212, 213, 214}
    assert len(unit.reads) <= 80


async def test_another_device_is_no_sunspec_meter_and_a_dead_one_is_nobody() -> None:
    unit = WordUnit({0: 1, 1: 2, 40000: 3, 40001: 4})
    with pytest.raises(NotSunSpec, match="no SunSpec marker"):
        await walked(unit)
    async with served({2: unit}) as server, running(parse_url(f"modbus://127.0.0.1:{server.port}")[0], 0.1) as link:
        with pytest.raises(NotSunSpec, match="no answer"):
            await walk(Registers(link, 1))


async def test_a_bound_meter_gives_si_values_exact_energy_and_nothing_for_what_is_not_implemented() -> None:
    unit = WordUnit()
    end(unit, scaled_meter(unit, common(unit, 50000, 65)))
    async with served({1: unit}) as server, running(parse_url(f"modbus://127.0.0.1:{server.port}")[0], 0.5) as link:
        layout = await walk(Registers(link, 1))
        profile, fixed = bind(layout)
        meter = MeterDevice("m1", 1, profile, fixed=fixed)
        sample = await link.read(meter, profile.point_ids)
    values = {name: r.value for name, r in sample.readings.items()}
    assert values["power_w"] == 12_340
    assert values["power_l2_w"] == 4_120
    assert values["voltage_l2_n_v"] == pytest.approx(231.2)
    assert values["voltage_l3_l1_v"] == pytest.approx(400.4)
    assert values["current_l1_a"] == 18.0
    assert values["frequency_hz"] == pytest.approx(50.01)
    assert values["power_factor"] == pytest.approx(0.985)
    assert values["energy_import_wh"] == 1_000_000
    assert values["energy_reactive_import_varh"] == 1005
    assert values["serial_number"] == "SN-0042"
    assert sample.readings["energy_export_wh"].quality is Quality.NO_VALUE
    assert sample.ok
    mapping = decode_map(profile.point("energy_import_wh"))
    assert mapping["lsb"] == {"num": 10, "den": 1}
    assert exact(sample.bits["energy_import_wh"], mapping) == 1_000_000


async def test_floats_are_read_too() -> None:
    unit = WordUnit()
    end(unit, float_meter(unit, common(unit, 0)))
    async with served({1: unit}) as server, running(parse_url(f"modbus://127.0.0.1:{server.port}")[0], 0.5) as link:
        profile, fixed = bind(await walk(Registers(link, 1)))
        sample = await link.read(MeterDevice("m1", 1, profile, fixed=fixed), profile.point_ids)
    assert sample.readings["power_w"].value == 12_340
    assert sample.readings["energy_import_wh"].value == 1_000_000
    assert sample.readings["current_l1_a"].quality is Quality.NO_VALUE


async def test_a_changed_energy_scale_takes_the_energies_away_and_a_changed_model_everything() -> None:
    unit = WordUnit()
    addr = common(unit, 40000)
    end(unit, scaled_meter(unit, addr))
    async with served({1: unit}) as server, running(parse_url(f"modbus://127.0.0.1:{server.port}")[0], 0.5) as link:
        layout = await walk(Registers(link, 1))
        profile, fixed = bind(layout)
        meter = MeterDevice("m1", 1, profile, fixed=fixed)
        meter.memory.facts.layout = layout.document()
        unit.put(addr + 54, 0)
        sample = await link.read(meter, ["energy_import_wh", "power_w"])
        assert sample.readings["energy_import_wh"].quality is Quality.DECODE
        assert "energy_import_wh" not in sample.bits
        assert sample.readings["power_w"].value == 12_340
        assert "totwh_sf: seen 1, expected 10" in str(sample.error)
        assert meter.memory.facts.layout is None, "the next start reads the directory anew"
        unit.put(addr + 54, 1)
        unit.put(addr + 22, 2)  # another scale of the power is no fault: it is read along each time
        assert (await link.read(meter, ["power_w"])).readings["power_w"].value == 123_400
        unit.put(addr, 160)
        gone = await link.read(meter, profile.point_ids)
    assert {r.quality for n, r in gone.readings.items() if n != "serial_number"} <= {Quality.DECODE, Quality.NO_VALUE}
    assert gone.bits == {}


def test_a_value_and_its_scale_are_never_in_two_requests() -> None:
    layout = Layout(40000, 203, 40069, 1, ((1, 40002, 65), (203, 40069, 105)))
    profile, _ = bind(layout)
    for most in (60, 80, 125):
        narrow = profile.model_copy(update={"link": profile.link.model_copy(update={"max_registers": most})})
        for point in profile.points:
            for block in plan(narrow, [point.id]):
                if point.id in block.points:
                    assert set(point.scale_by) <= set(block.points)
    assert profile.point("energy_import_wh").scale == Fraction(10)


@pytest.mark.parametrize(
    "doc",
    [
        None,
        [],
        {},
        {"base": 40000, "model": 203, "addr": 40070, "energy_exponent": 99, "chain": [[203, 40070, 105]]},
        {"base": 40000, "model": 999, "addr": 40070, "energy_exponent": 0, "chain": [[999, 40070, 105]]},
        {"base": 40000, "model": 203, "addr": 65500, "energy_exponent": 0, "chain": [[203, 65500, 105]]},
        {"base": 40000, "model": 203, "addr": 40070, "energy_exponent": 0, "chain": [[203, 40071, 105]]},
        {"base": 40000, "model": 203, "addr": 40070, "energy_exponent": 0, "chain": [["x", None, {}]]},
        {"base": 1, "model": 203, "addr": 40070, "energy_exponent": 0, "chain": []},
    ],
)
def test_a_layout_from_a_damaged_store_is_none(doc: object) -> None:
    assert layout_from(doc) is None
