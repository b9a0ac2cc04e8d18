"""Which blocks of registers to read for a set of points: few requests, and never a forbidden register."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.model import LinkRules, MeterProfile, Point

CLASSES = ("boundary", "fast", "normal", "slow", "once")
"""Poll classes, the most urgent first."""


class Span(NamedTuple):
    """Registers of one table, first and last included."""

    table: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.table} {self.first}" if self.first == self.last else f"{self.table} {self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class UnitLimits:
    """What one unit was found to refuse, beyond what its profile says."""

    refused: frozenset[Span] = frozenset()
    """Points or atomic groups that it refused when they were asked for alone: each is a request of its own."""
    holes: frozenset[Span] = frozenset()
    """Registers between points that must not be read along."""
    cuts: frozenset[tuple[str, int]] = frozenset()
    """(table, address): no request may hold both the register before it and that one."""


NO_LIMITS = UnitLimits()


@dataclass(frozen=True, slots=True)
class Block:
    """One read request and the points it answers."""

    table: str
    fc: int
    addr: int
    count: int
    points: tuple[str, ...]
    why: str = field(default="", compare=False)
    """Why it is a request of its own, for people."""

    @property
    def span(self) -> Span:
        """The registers it reads."""
        return Span(self.table, self.addr, self.addr + self.count - 1)


class Group(NamedTuple):
    """Points that one request must answer together."""

    table: str
    first: int
    end: int
    """One past the last register."""
    points: tuple[Point, ...]

    @property
    def span(self) -> Span:
        """The registers from its first point to its last."""
        return Span(self.table, self.first, self.end - 1)


def closure(profile: MeterProfile, point_ids: Iterable[str]) -> tuple[Point, ...]:
    """The points, with those they must come with (``atomic_with``) and what they are scaled by, in file order.

    Raises:
        KeyError: the profile has no such point.
    """
    wanted: set[str] = set()
    todo = list(point_ids)
    while todo:
        name = todo.pop()
        if name not in wanted:
            point = profile.point(name)
            wanted.add(name)
            todo += [*point.atomic_with, *point.scale_by]
    return tuple(p for p in profile.readable if p.id in wanted)


def atomic_groups(points: Iterable[Point]) -> tuple[tuple[Point, ...], ...]:
    """Points that must stay together, as groups; a point alone is a group of one."""
    members = {p.id: p for p in points}
    root = {name: name for name in members}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for point in members.values():
        for other in point.atomic_with:
            if other in members:
                root[find(other)] = find(point.id)
    groups: dict[str, list[Point]] = {}
    for name, point in members.items():
        groups.setdefault(find(name), []).append(point)
    return tuple(tuple(sorted(g, key=lambda p: p.addr)) for g in groups.values())


def touches_forbidden(link: LinkRules, table: str, first: int, end: int) -> bool:
    """True where [first, end) meets a forbidden range or leaves what is known to exist."""
    return link.barred(table, first, end)


def groups_of(profile: MeterProfile, point_ids: Iterable[str]) -> tuple[Group, ...]:
    """The atomic groups that answer the points, by table and address.

    Raises:
        KeyError: the profile has no such point.
    """
    groups = [
        Group(points[0].table, points[0].addr, max(p.addr + p.words for p in points), points)
        for points in atomic_groups(closure(profile, point_ids))
    ]
    return tuple(sorted(groups, key=lambda g: (g.table, g.first, g.end)))


def plan(profile: MeterProfile, point_ids: Iterable[str], limits: UnitLimits = NO_LIMITS) -> tuple[Block, ...]:
    """Blocks that together read the points, in order of table and address.

    Registers between two points are read along when they are at most ``max_hole`` and none is barred, by the profile or
    by what the unit refused before. A point or an atomic group is never split; no block is longer than
    ``max_registers``. What the unit refused alone still gets its own request, for whoever asks for it by name.

    Raises:
        KeyError: the profile has no such point.
    """
    return tuple(
        Block(b.table, READ_FUNCTION[b.table], b.first, b.end - b.first, _names(b.groups), b.why)
        for b in _merged(profile.link, groups_of(profile, point_ids), limits)
    )


def plan_classes(
    profile: MeterProfile, point_ids: Iterable[str], limits: UnitLimits = NO_LIMITS
) -> dict[str, tuple[Block, ...]]:
    """One plan for each poll class that occurs, the most urgent first.

    An atomic group belongs to the most urgent class among its points. A ratio comes along with each class it scales.

    Raises:
        KeyError: the profile has no such point.
    """
    asked = tuple(dict.fromkeys(point_ids))
    by_class: dict[str, list[str]] = {}
    for group in atomic_groups(closure(profile, asked)):
        names = [p.id for p in group if p.id in asked]
        if names:
            urgent = min((p.poll for p in group), key=CLASSES.index)
            by_class.setdefault(urgent, []).extend(names)
    return {name: plan(profile, by_class[name], limits) for name in CLASSES if name in by_class}


def holes_in(profile: MeterProfile, block: Block) -> tuple[Span, ...]:
    """Registers that a block reads along without any of its points needing them."""
    wanted: set[int] = set()
    for name in block.points:
        point = profile.point(name)
        wanted.update(range(point.addr, point.addr + point.words))
    return tuple(_runs(block.table, (r for r in range(block.addr, block.addr + block.count) if r not in wanted)))


def _runs(table: str, registers: Iterable[int]) -> Iterator[Span]:
    first = last = -2
    for register in registers:
        if register != last + 1:
            if last >= 0:
                yield Span(table, first, last)
            first = register
        last = register
    if last >= 0:
        yield Span(table, first, last)


@dataclass(slots=True)
class _Draft:
    table: str
    first: int
    end: int
    groups: list[Group]
    why: str
    alone: bool = False


def _names(groups: Iterable[Group]) -> tuple[str, ...]:
    points = sorted((p for g in groups for p in g.points), key=lambda p: (p.addr, p.id))
    return tuple(p.id for p in points)


def _merged(link: LinkRules, groups: Iterable[Group], limits: UnitLimits) -> list[_Draft]:
    drafts: list[_Draft] = []
    last: _Draft | None = None
    for group in groups:
        if group.span in limits.refused:
            drafts.append(_Draft(group.table, group.first, group.end, [group], "refused before: asked alone", True))
            continue
        why = "first of its table" if last is None or last.table != group.table else _apart(link, limits, last, group)
        if why is None and last is not None:
            last.end = max(last.end, group.end)
            last.groups.append(group)
        else:
            last = _Draft(group.table, group.first, group.end, [group], why or "")
            drafts.append(last)
    return drafts


def _apart(link: LinkRules, limits: UnitLimits, last: _Draft, group: Group) -> str | None:
    """Why a group cannot join the block before it; ``None`` where it can."""
    hole = group.first - last.end
    end = max(last.end, group.end)
    if hole > link.max_hole:
        return f"hole of {hole} registers before it, at most {link.max_hole} are read along"
    if end - last.first > link.max_registers:
        return f"together {end - last.first} registers, at most {link.max_registers} at once"
    if link.barred(group.table, last.first, end):
        return "what lies between must not be read"
    for span in limits.holes | limits.refused:
        if span.table == group.table and last.first <= span.last and span.first < end:
            return f"learned: the unit refuses {span}"
    for table, addr in limits.cuts:
        if table == group.table and last.first < addr < end:
            return f"learned: the unit refuses a request across {addr}"
    return None
