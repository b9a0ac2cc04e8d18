"""What a unit refuses is found by halving, kept, forgotten with another meter, and never costs a hundred requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.capabilities import Sample
from drivers.modbus.learned import MAX_SPLITS, SHAPE_RETRY_MS, Facts, Retry, UnitKey, UnitMemory
from drivers.modbus.learned_file import LearnedFile
from drivers.modbus.meter import Asked, MeterDevice
from drivers.modbus.scheduler import Answer
from drivers.profiles.loader import load_profile
from drivers.profiles.model import LinkRules, MeterProfile, Point
from drivers.profiles.plan import Span, UnitLimits, plan
from wire.quality import Quality

NAMES = (
    "power_w", "power_l1_w", "power_l2_w", "power_l3_w", "frequency_hz", "voltage_l1_n_v", "voltage_l2_n_v",
    "voltage_l3_n_v", "current_l1_a", "current_l2_a", "current_l3_a", "power_factor", "current_n_a",
)  # fmt: skip
BASE = load_profile("eastron-sdm630")
assert isinstance(BASE, MeterProfile)
KEY = UnitKey("link-1", 7, "made-up", 1)


def made_up(addresses: Sequence[int], *, max_hole: int = 8, atomic: Sequence[tuple[int, int]] = ()) -> MeterProfile:
    """A profile of one-register points at these addresses; ``atomic`` are pairs of positions in the list."""
    points = []
    for index, addr in enumerate(addresses):
        others = [NAMES[b] for a, b in atomic if a == index] + [NAMES[a] for a, b in atomic if b == index]
        doc = {"id": NAMES[index], "table": "holding", "addr": addr, "type": "u16", "atomic_with": others}
        points.append(Point.model_validate(doc))
    rules = LinkRules(max_registers=125, max_hole=max_hole)
    return BASE.model_copy(update={"points": tuple(points), "link": rules, "checks": (), "identify": ()})


class Unit:
    """A unit that refuses every request that touches a register it does not have, or that is longer than it likes."""

    def __init__(self, missing: set[int], longest: int = 125, mute: bool = False) -> None:
        self.missing, self.longest, self.mute = missing, longest, mute
        self.now_ms = 1_000_000
        self.requests = 0

    def answer(self, device: MeterDevice, asked: Asked) -> Sample:
        answers = []
        for pdu in asked.pdus:
            self.requests += 1
            request = bytes((7,)) + pdu
            addr, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
            if self.mute:
                answers.append(Answer(Quality.TIMEOUT, self.now_ms, 0, request, error="silence", sent=True))
            elif count > self.longest or self.missing & set(range(addr, addr + count)):
                code = 3 if count > self.longest else 2
                frame = bytes((7, pdu[0] | 0x80, code))
                answers.append(
                    Answer(Quality.EXCEPTION, self.now_ms, 0, request, frame, error="no", sent=True, exception=code)
                )
            else:
                data = b"".join((230).to_bytes(2, "big") for _ in range(count))
                frame = bytes((7, pdu[0], len(data))) + data
                answers.append(Answer(Quality.GOOD, self.now_ms, 0, request, frame, sent=True))
        self.now_ms += 1000
        return device.sample(asked, tuple(answers))

    def poll(self, device: MeterDevice, points: Sequence[str] | None = None) -> Sample:
        return self.answer(device, device.polling(points or device.profile.point_ids))


def good(sample: Sample) -> set[str]:
    return {name for name, r in sample.readings.items() if r.quality is Quality.GOOD}


def test_a_point_the_unit_does_not_have_is_found_and_left_out_of_later_polls() -> None:
    device = MeterDevice("m1", 7, made_up(range(0, 20, 2)))
    unit = Unit({6})
    polls = 0
    while good(unit.poll(device)) != set(device.profile.point_ids) - {"power_l3_w"}:
        polls += 1
        assert polls < 8
    unit.poll(device)
    assert [(b.addr, b.count) for b in device.polling(device.profile.point_ids).blocks] == [(0, 5), (8, 11)]
    sample = unit.poll(device)
    assert sample.ok
    assert sample.readings["power_l3_w"].value is None
    assert sample.readings["power_l3_w"].quality is Quality.EXCEPTION


def test_a_hole_the_unit_refuses_is_found_though_all_its_points_are_there() -> None:
    device = MeterDevice("m1", 7, made_up((0, 2, 4, 6, 12, 14, 16, 18)))
    unit = Unit({9})
    for _ in range(8):
        unit.poll(device)
    assert set(device.memory.facts.holes) == {Span("holding", 7, 11)}
    assert good(unit.poll(device)) == set(device.profile.point_ids)
    assert [(b.addr, b.count) for b in device.polling(device.profile.point_ids).blocks] == [(0, 7), (12, 7)]


def test_a_unit_that_takes_shorter_requests_than_its_profile_says_is_cut_to_size() -> None:
    device = MeterDevice("m1", 7, made_up(range(12)))
    unit = Unit(set(), longest=5)
    for _ in range(30):
        unit.poll(device)
    assert device.memory.settled
    assert good(unit.poll(device)) == set(device.profile.point_ids)
    assert max(b.count for b in device.polling(device.profile.point_ids).blocks) <= 5


def test_a_unit_that_refuses_everything_is_an_error_and_nothing_is_learned() -> None:
    device = MeterDevice("m1", 7, made_up(range(0, 26, 2)))
    whole = device.polling(device.profile.point_ids).pdus
    unit = Unit(set(range(100)))
    samples = [unit.poll(device) for _ in range(20)]
    assert unit.requests < 40
    assert "refuses every request" in str(samples[-1].error)
    assert device.memory.facts == Facts()
    assert device.polling(device.profile.point_ids).pdus == whole
    unit.missing = set()
    assert good(unit.poll(device)) == set(device.profile.point_ids)
    assert not device.memory.hopeless


def test_a_unit_that_refuses_while_it_starts_up_teaches_nothing() -> None:
    device = MeterDevice("m1", 7, made_up(range(0, 20, 2)))
    unit = Unit(set(range(100)))
    unit.poll(device)
    unit.poll(device)
    unit.missing.clear()
    for _ in range(3):
        sample = unit.poll(device)
    assert good(sample) == set(device.profile.point_ids)
    assert device.memory.facts == Facts()
    assert len(device.polling(device.profile.point_ids).blocks) == 1


def test_silence_teaches_nothing() -> None:
    device = MeterDevice("m1", 7, made_up(range(0, 20, 2)))
    unit = Unit({6}, mute=True)
    for _ in range(5):
        unit.poll(device)
    assert device.memory.facts == Facts()
    assert device.memory.settled


def test_a_boundary_reading_still_asks_for_what_polls_leave_out() -> None:
    device = MeterDevice("m1", 7, made_up(range(0, 20, 2)))
    unit = Unit({6})
    for _ in range(8):
        unit.poll(device)
    assert Span("holding", 6, 6) in device.memory.facts.refused
    unit.missing.clear()
    assert good(unit.answer(device, device.reading(["power_l3_w", "power_w"]))) == {"power_l3_w", "power_w"}
    assert not device.memory.facts.refused
    assert good(unit.poll(device)) == set(device.profile.point_ids)


def test_a_refused_point_is_tried_again_seldom_and_comes_back() -> None:
    device = MeterDevice("m1", 7, made_up(range(0, 20, 2)))
    unit = Unit({6})
    for _ in range(8):
        unit.poll(device)
    tried = 0
    for _ in range(24 * 60):  # a day, one poll a minute
        unit.now_ms += 60_000
        asked = device.polling(device.profile.point_ids)
        tried += asked.lifted is not None
        sample = unit.answer(device, asked)
        assert good(sample) == set(device.profile.point_ids) - {"power_l3_w"}
    assert 2 <= tried <= 6
    unit.missing.clear()
    unit.now_ms += 100_000_000
    unit.poll(device)
    unit.poll(device)
    assert good(unit.poll(device)) == set(device.profile.point_ids)
    assert not device.memory.facts.refused


def test_a_hole_is_tried_again_after_a_week_and_forgotten_when_it_answers() -> None:
    device = MeterDevice("m1", 7, made_up((0, 2, 4, 6, 12, 14, 16, 18)))
    unit = Unit({9})
    for _ in range(8):
        unit.poll(device)
    unit.now_ms += SHAPE_RETRY_MS
    for _ in range(3):
        unit.poll(device)
    assert set(device.memory.facts.holes) == {Span("holding", 7, 11)}
    unit.missing.clear()
    unit.now_ms += 5 * SHAPE_RETRY_MS
    for _ in range(3):
        unit.poll(device)
    assert device.memory.facts.holes == {}
    assert len(device.polling(device.profile.point_ids).blocks) == 1


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=len(NAMES), unique=True).map(sorted),
    st.sets(st.integers(0, 60), max_size=6),
    st.integers(0, 12),
)
def test_whatever_is_missing_every_point_that_is_there_is_read_in_the_end(
    addresses: list[int], missing: set[int], max_hole: int
) -> None:
    device = MeterDevice("m1", 7, made_up(addresses, max_hole=max_hole))
    there = {n for n, a in zip(NAMES, addresses, strict=False) if a not in missing}
    unit = Unit(missing)
    sizes = []
    stable = 0
    while len(sizes) < 80 and stable < 3:
        before = unit.requests
        sample = unit.poll(device)
        sizes.append(unit.requests - before)
        stable = stable + 1 if good(sample) == there and device.memory.settled else 0
    assert max(sizes) <= len(plan(device.profile, device.profile.point_ids)) + MAX_SPLITS + len(addresses)
    if there and not device.memory.hopeless:
        assert stable == 3
    if 2 * len(there) >= len(addresses):
        assert stable == 3, "a unit that answers for half of its points is not given up"
    if not there:
        assert device.memory.facts == Facts()


def test_the_memory_is_kept_in_a_file_and_void_for_another_version_and_another_meter(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    device = MeterDevice("m1", 7, made_up(range(0, 20, 2)), UnitMemory(KEY, LearnedFile(path)))
    unit = Unit({6})
    for _ in range(8):
        unit.poll(device)
    device.memory.serial("A1")
    kept = UnitMemory(KEY, LearnedFile(path))
    assert kept.facts == device.memory.facts
    assert kept.facts.serial == "A1"
    assert UnitMemory(KEY._replace(version=2), LearnedFile(path)).facts == Facts()
    assert UnitMemory(KEY._replace(unit=8), LearnedFile(path)).facts == Facts()
    kept.serial("A1")
    assert kept.facts.refused
    kept.serial("B2")
    assert kept.facts == Facts(serial="B2")
    assert UnitMemory(KEY, LearnedFile(path)).facts == Facts(serial="B2")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        '{"schema":2,"units":[]}',
        '{"schema":1,"units":[{"link":"a"}]}',
        json.dumps({"schema": 1, "units": [{"link": "l", "unit": 1, "profile": "p", "version": 1, "serial": None,
                    "refused": [["holding", 5, 99999, 1, 1]], "holes": [], "cuts": [], "layout": None}]}),
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_no_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "learned.json"
    path.write_text(text, encoding="utf-8")
    store = LearnedFile(path)
    assert store.load(KEY) is None
    store.save(KEY, Facts(refused={Span("holding", 1, 2): Retry(5, 6)}))
    assert LearnedFile(path).load(KEY) == Facts(refused={Span("holding", 1, 2): Retry(5, 6)})


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    store = LearnedFile(tmp_path / "absent" / "learned.json")
    store.save(KEY, Facts(serial="A1"))
    assert store.load(KEY) == Facts(serial="A1")


def test_limits_never_split_a_point_nor_join_across_what_is_refused() -> None:
    profile = made_up((0, 1, 2, 3, 4, 5), atomic=((1, 2),))
    limits = UnitLimits(refused=frozenset({Span("holding", 4, 4)}), cuts=frozenset({("holding", 1)}))
    spans = [(b.addr, b.count, b.points) for b in plan(profile, profile.point_ids, limits)]
    assert spans == [
        (0, 1, ("power_w",)),
        (1, 3, ("power_l1_w", "power_l2_w", "power_l3_w")),
        (4, 1, ("frequency_hz",)),
        (5, 1, ("voltage_l1_n_v",)),
    ]
