"""The state of each switch over time, out of the site's signed events. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wire.canonical import Json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """[begin, end), ms."""

    begin: int
    end: int

    @property
    def length(self) -> int:
        """ms."""
        return self.end - self.begin


def clipped(spans: Iterable[Span], bound: Span) -> list[Span]:
    """What of the spans lies within the bound."""
    cut = (Span(max(s.begin, bound.begin), min(s.end, bound.end)) for s in spans)
    return [s for s in cut if s.length > 0]


@dataclass(slots=True)
class SwitchLine:
    """What was told of one switch, in order of time: (ms, value)."""

    switch: str
    positions: list[tuple[int, str]] = field(default_factory=list)
    ready: list[tuple[int, str]] = field(default_factory=list)
    tags: list[tuple[int, bool]] = field(default_factory=list)
    works: list[Span] = field(default_factory=list)
    """Declared maintenance."""
    starts: tuple[int, ...] = ()
    """When the agent began anew: what was told before says nothing of what is after."""
    moves: list[int] = field(default_factory=list)

    def states(self, span: Span) -> Iterator[tuple[Span, str]]:
        """(part, state) over a span: ``available``, ``unknown``, or why not. Tags and maintenance outlive restarts."""
        marks = {span.begin, span.end}
        marks |= {at for at, _ in (*self.positions, *self.ready, *self.tags)} | set(self.starts)
        marks |= {edge for work in self.works for edge in (work.begin, work.end)}
        inside = sorted(m for m in marks if span.begin <= m <= span.end)
        for begin, end in itertools.pairwise(inside):
            yield Span(begin, end), self._at(begin)

    def _at(self, at: int) -> str:
        since = max((s for s in self.starts if s <= at), default=0)
        position = _last(self.positions, since, at)
        if position is None or position == "unknown":
            return "unknown"
        if any(work.begin <= at < work.end for work in self.works):
            return "maintenance"
        if _last(self.tags, 0, at):
            return "tag"
        if position not in {"open", "closed"}:
            return f"position {position}"
        ready = _last(self.ready, since, at) or "absent"
        if ready.startswith("unknown"):
            return "unknown"
        return ready.removeprefix("bad: ") if ready.startswith("bad") else "available"


def _last(told: Sequence[tuple[int, T]], since: int, at: int) -> T | None:
    return next((value for when, value in reversed(told) if since <= when <= at), None)


def rows_of(detail: dict[str, Any], name: str, size: int) -> list[list[Any]]:
    """Rows of a list in a record's detail; what has another shape is left out: a signature proves no shape."""
    found = detail.get(name)
    if not isinstance(found, list):
        return []
    return [row for row in found if isinstance(row, list) and len(row) == size]


def read_lines(docs: Sequence[Json]) -> dict[str, SwitchLine]:
    """Lines of every switch that the events name. ``docs`` in order of time."""
    lines: dict[str, SwitchLine] = {}
    starts = tuple(doc["at"] for doc in docs if doc["ty"] == "start")

    def line(name: object) -> SwitchLine:
        return lines.setdefault(str(name), SwitchLine(str(name), starts=starts))

    works: dict[str, list[Span]] = {}
    for doc in docs:
        if doc["ty"] != "event":
            continue
        found = doc.get("detail")
        detail: dict[str, Any] = found if isinstance(found, dict) else {}
        at, now, obj = doc["at"], str(doc.get("now")), doc.get("obj")
        match doc.get("ev"):
            case "round":
                for name, position, ready, tagged in rows_of(detail, "switches", 4):
                    line(name).positions.append((at, str(position)))
                    line(name).ready.append((at, str(ready)))
                    line(name).tags.append((at, tagged is True))
            case "switch_position":
                line(obj).positions.append((at, now))
                if {str(doc.get("was")), now} == {"open", "closed"}:
                    line(obj).moves.append(at)
            case "readiness":
                line(obj).ready.append((at, now))
            case "tag":
                line(obj).tags.append((at, now == "tagged"))
            case "maintenance":
                _work(works.setdefault(str(obj), []), at, now, detail)
    for name, spans in works.items():
        if name in lines:
            lines[name].works = spans
    return lines


def _work(spans: list[Span], at: int, now: str, detail: dict[str, Any]) -> None:
    until = detail.get("until")
    if now in {"begun", "renewed"} and isinstance(until, int) and until > at:
        spans.append(Span(at, until))
    elif now == "ended" and spans and spans[-1].end > at:
        spans[-1] = Span(spans[-1].begin, max(at, spans[-1].begin))
