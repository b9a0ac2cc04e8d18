"""The planner: covers what is asked, never splits, never touches what is forbidden, keeps to the device's limit."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.profiles import load_profile, plan
from drivers.profiles.loader import load_profiles
from drivers.profiles.model import Forbidden, LinkRules, MeterProfile, Point
from drivers.profiles.plan import closure

NAMES = (
    "power_w", "power_l1_w", "power_l2_w", "power_l3_w", "frequency_hz", "voltage_l1_n_v", "voltage_l2_n_v",
    "voltage_l3_n_v", "current_l1_a", "current_l2_a", "current_l3_a", "power_factor",
)  # fmt: skip


BASE = load_profile("eastron-sdm630")
assert isinstance(BASE, MeterProfile)


@st.composite
def profiles(draw: st.DrawFn) -> MeterProfile:
    """Profiles that the loader would accept, with forbidden ranges and atomic pairs between the points."""
    maximum = draw(st.integers(4, 40))
    points: list[Point] = []
    forbidden: list[Forbidden] = []
    addr = draw(st.integers(0, 100))
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        kind = draw(st.sampled_from(("u16", "i32", "u64", "f32")))
        point = Point.model_validate({"id": name, "table": "holding", "addr": addr, "type": kind})
        gap = draw(st.integers(0, 12))
        if points and not forbidden_between(forbidden, points[-1], point) and draw(st.booleans()):
            previous = points[-1]
            if point.addr + point.words - previous.addr <= maximum and not previous.atomic_with:
                point = point.model_copy(update={"atomic_with": (previous.id,)})
        if gap and draw(st.booleans()):
            first = point.addr + point.words
            forbidden.append(Forbidden(table="holding", first=first, last=first + gap - 1))
        points.append(point)
        addr += point.words + gap
    rules = LinkRules(max_registers=maximum, max_hole=draw(st.integers(0, 16)), forbidden=tuple(forbidden))
    return BASE.model_copy(update={"points": tuple(points), "link": rules})


def forbidden_between(forbidden: list[Forbidden], first: Point, second: Point) -> bool:
    return any(first.addr < f.first and f.last < second.addr for f in forbidden)


@settings(deadline=None)
@given(profiles(), st.data())
def test_plans_cover_and_never_split_never_touch_never_exceed(profile: MeterProfile, data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.sampled_from(profile.point_ids), min_size=1, unique=True))
    blocks = plan(profile, asked)
    read = [(b.addr, b.addr + b.count) for b in blocks]
    banned = {r for f in profile.link.forbidden for r in range(f.first, f.last + 1)}
    for first, end in read:
        assert not banned & set(range(first, end))
        assert 1 <= end - first <= profile.link.max_registers
    wanted = {p.id for p in closure(profile, asked)}
    assert wanted >= set(asked)
    named = [name for block in blocks for name in block.points]
    assert sorted(named) == sorted(wanted)
    for block in blocks:
        for name in block.points:
            point = profile.point(name)
            assert block.addr <= point.addr
            assert point.addr + point.words <= block.addr + block.count
            assert set(point.atomic_with) <= set(block.points)


@settings(deadline=None)
@given(profiles())
def test_no_hole_is_larger_than_allowed(profile: MeterProfile) -> None:
    for block in plan(profile, profile.point_ids):
        spans = sorted((profile.point(n) for n in block.points), key=lambda p: p.addr)
        atomic = {frozenset((p.id, o)) for p in spans for o in p.atomic_with}
        for earlier, later in itertools.pairwise(spans):
            hole = later.addr - earlier.addr - earlier.words
            assert hole <= profile.link.max_hole or frozenset((earlier.id, later.id)) in atomic


def test_the_sdm630_is_read_within_its_limit_of_80_registers() -> None:
    profile = load_profile("eastron-sdm630")
    assert isinstance(profile, MeterProfile)
    blocks = plan(profile, ["power_w", "energy_import_wh", "serial_number"])
    assert [(b.fc, b.addr, b.count) for b in blocks] == [(3, 64512, 2), (4, 52, 2), (4, 72, 2)]
    assert all(b.count <= 80 for b in plan(profile, profile.point_ids))


def test_shipped_plans_are_few_requests() -> None:
    for profile in load_profiles().values():
        if isinstance(profile, MeterProfile):
            assert len(plan(profile, profile.point_ids)) <= 8
