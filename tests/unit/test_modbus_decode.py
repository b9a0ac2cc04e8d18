"""The compiled way of reading a meter gives what the general way gives, for every shipped profile and any bytes."""

from __future__ import annotations

import random
import struct

import pytest

from drivers.modbus.decode import Compiled, Spot, compile_spots
from drivers.modbus.scheduler import Answer
from drivers.profiles import load_profiles
from drivers.profiles.codec import decode_bits, field_bits, plausible, to_value
from drivers.profiles.model import MeterProfile
from drivers.profiles.plan import plan
from drivers.profiles.points import Point, Variable
from wire.quality import Quality

METERS = {name: p for name, p in load_profiles().items() if isinstance(p, MeterProfile)}
ODD_WORDS = (0x0000, 0xFFFF, 0x8000, 0x7FFF, 0x7FC0, 0x7F80, 0xFF80, 0x0001)


def answer(request: bytes, data: bytes) -> Answer:
    return Answer(Quality.GOOD, 1, 1, request, request[:2] + bytes((len(data),)) + data, sent=True)


def general(point: Point, words: tuple[int, ...]) -> tuple[object, Quality, int]:
    bits = field_bits(point, words)
    number = decode_bits(point, bits)
    if number is None:
        return None, Quality.NO_VALUE, bits
    value = to_value(number)
    assert isinstance(value, float)
    if 0.0 < abs(value) < 1e-15:
        return None, Quality.DECODE, bits
    return value, Quality.GOOD if plausible(point, value) else Quality.SUSPECT, bits


def compiled_blocks(profile: MeterProfile) -> list[tuple[Point, Compiled, int, int]]:
    """(point, compiled block of it alone, registers, start)."""
    found = []
    known = {p.id: p for p in profile.readable}
    for block in plan(profile, [p.id for p in profile.points]):
        for name in block.points:
            point = known[name]
            made = compile_spots([name], [block.count], [Spot(0, point.addr - block.addr, point)])
            if made is not None:
                found.append((point, made, block.count, point.addr - block.addr))
    return found


@pytest.mark.parametrize("name", sorted(METERS))
def test_compiled_is_general(name: str) -> None:
    rng = random.Random(name)
    request = bytes.fromhex("0104000000ff")
    for point, made, count, start in compiled_blocks(METERS[name]):
        for _ in range(40):
            words = [rng.choice((rng.getrandbits(16), rng.choice(ODD_WORDS))) for _ in range(count)]
            if point.sentinels and rng.random() < 0.3:
                digits = rng.choice(point.sentinels)
                words[start : start + point.words] = [int(digits[i : i + 4], 16) for i in range(0, len(digits), 4)]
            read = made.read((answer(request, struct.pack(f">{count}H", *words)),))
            assert read is not None
            readings, bits = read
            seen = readings[point.id]
            assert (seen.value, seen.quality, bits[point.id]) == general(
                point, tuple(words[start : start + point.words])
            )
            # An exact zero has no sign, and every value is a float, as on the general way.
            assert seen.value is None or str(seen.value) != "-0.0"


def test_some_profiles_are_compiled_and_some_need_the_general_way() -> None:
    compiled = {name: len(compiled_blocks(p)) for name, p in METERS.items()}
    assert max(compiled.values()) >= 10
    general_only = [p for profile in METERS.values() for p in profile.points if p.type in {"str", "sum"} or p.scale_by]
    for point in general_only:
        assert compile_spots([point.id], [point.words], [Spot(0, 0, point)]) is None


def test_ratios_out_of_registers_are_never_compiled() -> None:
    for profile in METERS.values():
        for point in profile.readable:
            if isinstance(point, Variable):
                assert compile_spots([], [point.words], [Spot(0, 0, point)]) is None


def test_a_missing_or_short_answer_takes_the_general_way() -> None:
    _, made, count, _ = next(entry for p in METERS.values() for entry in compiled_blocks(p))
    request = bytes.fromhex("010400000002")
    whole = answer(request, bytes(2 * count))
    assert made.read((whole,)) is not None
    assert made.read((answer(request, bytes(2 * count - 2)),)) is None
    assert made.read((Answer(Quality.TIMEOUT, 1, 1, request, sent=True),)) is None
