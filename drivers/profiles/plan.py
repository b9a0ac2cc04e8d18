"""Which blocks of registers to read for a set of points: few requests, and never a forbidden register."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.model import LinkRules, MeterProfile, Point


@dataclass(frozen=True, slots=True)
class Block:
    """One read request and the points it answers."""

    table: str
    fc: int
    addr: int
    count: int
    points: tuple[str, ...]


def closure(profile: MeterProfile, point_ids: Iterable[str]) -> tuple[Point, ...]:
    """The points, with those they must come with (``atomic_with``) or are scaled by, in file order.

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
    return tuple(p for p in profile.points if p.id in wanted)


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
    """True where [first, end) meets a forbidden range."""
    return any(f.table == table and first <= f.last and end > f.first for f in link.forbidden)


def plan(profile: MeterProfile, point_ids: Iterable[str]) -> tuple[Block, ...]:
    """Blocks that together read the points, in order of table and address.

    Registers between two points are read along when they are at most ``max_hole`` and none is forbidden. A point or an
    atomic group is never split; no block is longer than ``max_registers``.

    Raises:
        KeyError: the profile has no such point.
    """
    spans: list[tuple[str, int, int, tuple[Point, ...]]] = []
    for group in atomic_groups(closure(profile, point_ids)):
        spans.append((group[0].table, group[0].addr, max(p.addr + p.words for p in group), group))
    spans.sort(key=lambda s: (s[0], s[1], s[2]))

    blocks: list[tuple[str, int, int, list[Point]]] = []
    for table, first, end, group in spans:
        if blocks:
            last_table, last_first, last_end, last_points = blocks[-1]
            new_end = max(end, last_end)
            if (
                table == last_table
                and first - last_end <= profile.link.max_hole
                and new_end - last_first <= profile.link.max_registers
                and not touches_forbidden(profile.link, table, last_first, new_end)
            ):
                blocks[-1] = (table, last_first, new_end, [*last_points, *group])
                continue
        blocks.append((table, first, end, list(group)))
    return tuple(
        Block(table, READ_FUNCTION[table], first, end - first, tuple(p.id for p in sorted(ps, key=lambda p: p.addr)))
        for table, first, end, ps in blocks
    )
