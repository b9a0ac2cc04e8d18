"""The planner under everything at once: barred and allowed ranges, learned refusals, atomic groups, ratios, classes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.profiles.loader import load_profile, load_profiles
from drivers.profiles.model import Forbidden, LinkRules, MeterProfile, Point
from drivers.profiles.plan import (
    CLASSES,
    Block,
    Span,
    UnitLimits,
    atomic_groups,
    closure,
    groups_of,
    holes_in,
    plan,
    plan_classes,
)

GAUGES = (
    "power_w", "power_l1_w", "power_l2_w", "power_l3_w", "frequency_hz", "voltage_l1_n_v", "voltage_l2_n_v",
    "voltage_l3_n_v", "current_l1_a", "current_l2_a", "current_l3_a", "power_factor",
)  # fmt: skip
BASE = load_profile("eastron-sdm630")
assert isinstance(BASE, MeterProfile)
METERS = [p for p in load_profiles().values() if isinstance(p, MeterProfile)]


@st.composite
def profiles(draw: st.DrawFn) -> MeterProfile:
    """What the loader would accept: no group is barred or longer than a request may be."""
    most = draw(st.integers(4, 60))
    tables = draw(st.sampled_from((("holding",), ("input",), ("holding", "input"))))
    points: list[Point] = []
    gaps: list[tuple[str, int, int]] = []
    for table in tables:
        addr = draw(st.integers(0, 300))
        for name in [n for n in GAUGES if n not in {p.id for p in points}][: draw(st.integers(1, 8))]:
            doc = {
                "id": name,
                "table": table,
                "addr": addr,
                "type": draw(st.sampled_from(("u16", "i32", "u64", "f32"))),
                "poll": draw(st.sampled_from(CLASSES[1:])),
            }
            before = points[-1] if points and points[-1].table == table else None
            point = Point.model_validate(doc)
            together = before is not None and point.addr + point.words - before.addr <= most
            if before is not None and together and not before.atomic_with and draw(st.booleans()):
                point = point.model_copy(update={"atomic_with": (before.id,)})
            elif before is not None and addr > before.addr + before.words:
                gaps.append((table, before.addr + before.words, addr - 1))
            if points and draw(st.booleans()) and not point.atomic_with:
                point = point.model_copy(update={"scale_by": (points[0].id,)})
            points.append(point)
            addr += point.words + draw(st.integers(0, 12))
    forbidden = tuple(
        Forbidden(table=t, first=first, last=last)
        for t, first, last in gaps
        if draw(st.booleans())  # type: ignore[arg-type]  # drawn from the two tables
    )
    rules = LinkRules(max_registers=most, max_hole=draw(st.integers(0, 20)), forbidden=forbidden)
    return BASE.model_copy(update={"points": tuple(points), "link": rules, "checks": (), "identify": ()})


@st.composite
def limited(draw: st.DrawFn) -> tuple[MeterProfile, tuple[str, ...], UnitLimits]:
    profile = draw(profiles())
    asked = tuple(draw(st.lists(st.sampled_from(profile.point_ids), min_size=1, unique=True)))
    groups = groups_of(profile, profile.point_ids)
    ends = [(g.table, g.end) for g in groups]
    return (
        profile,
        asked,
        UnitLimits(
            refused=frozenset(draw(st.sets(st.sampled_from([g.span for g in groups]), max_size=3))),
            holes=frozenset(Span(t, e, e + draw(st.integers(0, 3))) for t, e in ends if draw(st.integers(0, 3)) == 0),
            cuts=frozenset(draw(st.sets(st.sampled_from([(g.table, g.first) for g in groups]), max_size=3))),
        ),
    )


def registers(block: Block) -> set[tuple[str, int]]:
    return {(block.table, register) for register in range(block.addr, block.addr + block.count)}


@settings(max_examples=300, deadline=None)
@given(limited())
def test_whatever_is_asked_and_known_a_plan_keeps_every_promise(
    case: tuple[MeterProfile, tuple[str, ...], UnitLimits],
) -> None:
    profile, asked, limits = case
    blocks = plan(profile, asked, limits)
    wanted = closure(profile, asked)
    # Every point asked for exactly once, with what scales it.
    assert sorted(n for b in blocks for n in b.points) == sorted(p.id for p in wanted)
    assert {n for p in wanted for n in p.scale_by} <= {p.id for p in wanted}
    for block in blocks:
        assert 1 <= block.count <= profile.link.max_registers
        assert not profile.link.barred(block.table, block.addr, block.addr + block.count)
        for name in block.points:
            point = profile.point(name)
            assert point.table == block.table
            assert {(point.table, r) for r in point.span} <= registers(block)
        assert all(hole.last - hole.first + 1 <= profile.link.max_hole for hole in holes_in_groups(profile, block))
        inner = range(block.addr + 1, block.addr + block.count)
        own = {r for g in groups_of(profile, block.points) for r in range(g.first + 1, g.end)}
        assert not any(t == block.table and a in inner and a not in own for t, a in limits.cuts)
    # An atomic group is whole in one block.
    for group in atomic_groups(wanted):
        names = {p.id for p in group}
        assert sum(bool(names & set(b.points)) for b in blocks) == 1
    # What is refused alone stands alone.
    for group in groups_of(profile, asked):
        if group.span in limits.refused:
            assert group.span in {b.span for b in blocks}


def holes_in_groups(profile: MeterProfile, block: Block) -> list[Span]:
    """Holes between groups; those inside an atomic group are its own."""
    own = {r for g in groups_of(profile, block.points) for r in range(g.first, g.end)}
    return [h for h in holes_in(profile, block) if not own & set(range(h.first, h.last + 1))]


@settings(max_examples=150, deadline=None)
@given(profiles(), st.data())
def test_classes_together_read_what_was_asked_and_each_reads_its_own(
    profile: MeterProfile, data: st.DataObject
) -> None:
    asked = data.draw(st.lists(st.sampled_from(profile.point_ids), min_size=1, unique=True))
    by_class = plan_classes(profile, asked)
    assert list(by_class) == [c for c in CLASSES if c in by_class]
    read = {n for blocks in by_class.values() for b in blocks for n in b.points}
    assert set(asked) <= read
    for group in atomic_groups(closure(profile, asked)):
        if {p.id for p in group} & set(asked):
            urgent = min((p.poll for p in group), key=CLASSES.index)
            assert {p.id for p in group} <= {n for b in by_class[urgent] for n in b.points}


def test_only_registers_that_exist_are_read_along_where_a_list_of_them_is_known() -> None:
    points = tuple(
        Point.model_validate({"id": name, "table": "holding", "addr": addr, "type": "u16"})
        for name, addr in zip(GAUGES, (0, 3, 6, 9), strict=False)
    )
    allowed = (Forbidden(table="holding", first=0, last=6), Forbidden(table="holding", first=9, last=9))
    profile = BASE.model_copy(update={"points": points, "link": LinkRules(max_hole=8, allowed=allowed)})
    assert [(b.addr, b.count) for b in plan(profile, profile.point_ids)] == [(0, 7), (9, 1)]


def test_every_shipped_plan_keeps_to_its_profile_and_says_why_it_is_split() -> None:
    for profile in METERS:
        blocks = plan(profile, profile.point_ids)
        for block in blocks:
            assert block.why
            assert block.count <= profile.link.max_registers
            assert not profile.link.barred(block.table, block.addr, block.addr + block.count)
        for group in groups_of(profile, profile.point_ids):
            assert sum({p.id for p in group.points} <= set(b.points) for b in blocks) == 1
