"""What the site's own streams tell: orders held, switches open, disturbances, balances and machines' figures."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from verifier.canonical import Object
from verifier.errors import BalanceError, InputLimit, VerifyError
from verifier.plausible.rules import ANSWERED, DAY_S, HISTORY_DAYS, MOST_BALANCES, MOST_FEEDERS, MOST_SLOTS
from verifier.records import Record
from verifier.standing import NONE

HOLDS = "holding"
OPEN = "open"
MAX_ERRORS = 50


@dataclass(frozen=True, slots=True)
class Context:
    """What every metering point is told; travels to other processes."""

    since_s: int
    """Where the history before the asked period begins, on the grid."""
    contracted_w: int | None = None
    mains: frozenset[str] = frozenset()
    """Points of balances' ``main``: the boundary, and the site's own generation."""
    disturbed_s: array[int] = field(default_factory=lambda: array("q"))
    """Orders, switches and starts, rising."""
    works_ms: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """When people worked on an object, by signed events: maintenance, or an exchange."""


@dataclass(slots=True)
class Figures:
    """Machines behind one feeder, slot by slot from the history on."""

    wh: array[int]
    answered: bytearray
    """1 where nearly all machines answered."""


@dataclass(slots=True)
class Series:
    """Balances of one boundary, slot by slot from the history on."""

    main_wh: array[int]
    residual_wh: array[int]
    tol_wh: array[int]


@dataclass(slots=True)
class Around:
    """Reads along as the streams ``site``, ``cmd`` and ``bal`` are judged.

    Args:
        slot_s: slot length.
        start_s: beginning of the asked period.
        end_s: its end.
        known: points that the register or the bundle has; figures of others are not kept.
        contracted_w: contracted power by the register; without it that of the newest genesis counts.
    """

    slot_s: int
    start_s: int
    end_s: int
    known: Collection[str]
    contracted_w: int | None = None
    errors: list[VerifyError] = field(default_factory=list)
    feeders: dict[str, Figures] = field(default_factory=dict)
    balances: dict[tuple[str, ...], Series] = field(default_factory=dict)
    held_s: list[tuple[int, int | None]] = field(default_factory=list)
    """Times in which live orders were held."""
    _first_s: int | None = None
    _since_s: int | None = None
    _contracted_w: int | None = None
    _disturbed: set[int] = field(default_factory=set)
    _works: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    _positions: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    _held: dict[str, int] = field(default_factory=dict)
    _still: set[str] = field(default_factory=set)
    """Orders that move nothing: drills, and agents that only watch."""

    @property
    def since_s(self) -> int:
        """Where the history begins: so many days before the period, but not before the site's records do."""
        if self._since_s is None:
            earliest = self.start_s - (HISTORY_DAYS + 1) * DAY_S
            since = max(0, earliest, self._first_s if self._first_s is not None else self.start_s)
            self._since_s = min(since, self.start_s) // self.slot_s * self.slot_s
        return self._since_s

    @property
    def size(self) -> int:
        """Slots from the history's beginning to the period's end."""
        return (self.end_s - self.since_s) // self.slot_s

    def context(self, points: int) -> Context:
        """For so many metering points, once the streams of the site are read.

        Raises:
            InputLimit: more slots than any site has that a machine could hold.
        """
        if points * self.size > MOST_SLOTS:
            raise InputLimit(f"{points} metering points over {self.size} slots; ask for a shorter period")
        self.held_s.extend((since, None) for since in self._held.values())
        self._held.clear()
        contracted = self.contracted_w if self.contracted_w is not None else self._contracted_w
        mains = frozenset(point for main in self.balances for point in main)
        works = {name: tuple(spans) for name, spans in self._works.items()}
        return Context(self.since_s, contracted, mains, array("q", sorted(self._disturbed)), works)

    def opened_s(self, switch: str) -> list[tuple[int, int | None]]:
        """When a switch was open by signed positions: [from, to), ``None`` while it still is."""
        spans: list[tuple[int, int | None]] = []
        since: int | None = None
        for at_s, is_open in sorted(self._positions.get(switch, ())):
            if is_open and since is None:
                since = at_s
            elif not is_open and since is not None:
                spans.append((since, at_s))
                since = None
        return spans if since is None else [*spans, (since, None)]

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records."""
        for record in records:
            try:
                self._take(record)
            except InputLimit:
                raise
            except VerifyError as error:
                if len(self.errors) < MAX_ERRORS:
                    self.errors.append(error)
            yield record

    def _take(self, record: Record) -> None:
        doc, ty = record.doc, record.ty
        if ty == "balance":
            self._balance(doc, record.where)
        elif ty == "genesis":
            at_s = record.at // 1000
            self._first_s = at_s if self._first_s is None else min(self._first_s, at_s)
            if type(doc.get("contracted_w")) is int:
                self._contracted_w = doc["contracted_w"]
        elif ty == "start":
            self._disturbed.add(record.at // 1000)
        elif ty == "event" and doc.get("ev") == "switch_position":
            self._disturbed.add(record.at // 1000)
            self._position(record.at, doc.get("obj"), doc.get("now"))
        elif ty == "event" and doc.get("ev") in ("maintenance", "replaced"):
            self._work(doc, record.at)
        elif ty in {"cmd_ack", "cmd_eff"}:
            self._disturbed.add(record.at // 1000)
            self._answer(doc, record.at)

    def _work(self, doc: Object, at_ms: int) -> None:
        """Work ends when that is recorded, or else when it was declared to."""
        name, now, detail = doc.get("obj"), doc.get("now"), doc.get("detail")
        told = detail if isinstance(detail, dict) else {}
        since, until = told.get("since"), told.get("until")
        spans = self._works.setdefault(name, []) if isinstance(name, str) else []
        if doc["ev"] == "replaced":
            spans.append((since if type(since) is int else at_ms, at_ms + 1))
        elif now in ("begun", "renewed"):
            spans.append((at_ms, max(at_ms + 1, until) if type(until) is int else at_ms + 1))
        elif now == "ended" and spans:
            spans[-1] = spans[-1][0], min(spans[-1][1], at_ms + 1)

    def _position(self, at_ms: int, switch: Any, now: Any) -> None:
        if isinstance(switch, str):
            # Open from the next whole second on, and no longer than to the whole second before it was not.
            at_s = -(-at_ms // 1000) if now == OPEN else at_ms // 1000
            self._positions.setdefault(switch, []).append((at_s, now == OPEN))

    def _answer(self, doc: Object, at_ms: int) -> None:
        order = str(doc.get("id"))
        if doc["ty"] == "cmd_ack":
            if doc.get("order_mode") == "drill" or doc.get("agent_mode") in ("monitor", "shadow"):
                self._still.add(order)
            return
        positions = doc.get("positions")
        for one in positions if isinstance(positions, list) else ():
            if isinstance(one, list) and len(one) == 2:
                self._position(at_ms, *one)
        if doc.get("state") == HOLDS and order not in self._still:
            self._held.setdefault(order, -(-at_ms // 1000))
        elif order in self._held and doc.get("state") != HOLDS:
            self.held_s.append((self._held.pop(order), at_ms // 1000))

    # Balances

    def _balance(self, doc: Object, where: str) -> None:
        t0, main = doc.get("t0"), doc.get("main")
        if type(t0) is not int or not isinstance(main, list) or not all(isinstance(m, str) for m in main):
            return  # refused where balances are judged
        machines = _machines(doc.get("asic"), where)
        index = (t0 - self.since_s) // self.slot_s
        if not 0 <= index < self.size:
            return
        series = self._series(tuple(main), where)
        for name, values in (("main", series.main_wh), ("residual", series.residual_wh), ("tol", series.tol_wh)):
            wh = doc.get(f"{name}_wh")
            values[index] = wh if type(wh) is int else NONE
        for point, seen, expected, wh in machines:
            if point in self.known:
                figures = self._feeder(point, where)
                figures.wh[index] = NONE if wh is None else wh
                figures.answered[index] = bool(expected) and seen * ANSWERED[1] >= expected * ANSWERED[0]

    def _series(self, main: tuple[str, ...], where: str) -> Series:
        if main not in self.balances:
            if len(self.balances) == MOST_BALANCES:
                raise InputLimit(f"{where}: the {MOST_BALANCES + 1}th list of main meters in one period")
            self.balances[main] = Series(*(array("q", [NONE]) * self.size for _ in range(3)))
        return self.balances[main]

    def _feeder(self, point: str, where: str) -> Figures:
        if point not in self.feeders:
            if len(self.feeders) == MOST_FEEDERS:
                raise InputLimit(f"{where}: machines behind more than {MOST_FEEDERS} feeders")
            self.feeders[point] = Figures(array("q", [NONE]) * self.size, bytearray(self.size))
        return self.feeders[point]


def _machines(groups: Any, where: str) -> list[tuple[str, int, int, int | None]]:
    """(point, answered, expected, Wh) of each group.

    Raises:
        BalanceError: no list of such groups.
    """
    if groups is None:
        return []
    found: list[tuple[str, int, int, int | None]] = []
    for one in groups if isinstance(groups, list) else [None]:
        doc: Object = one if isinstance(one, dict) else {}
        point, seen, expected, wh = (doc.get(name) for name in ("mp", "seen", "expected", "wh"))
        if not isinstance(point, str) or not _count(seen) or not _count(expected):
            raise BalanceError(f"{where}: asic is a list of mp, seen, expected and wh, in whole numbers from 0 on")
        if wh is not None and not _count(wh):
            raise BalanceError(f"{where}: machines behind {point[:60]} drew {str(wh)[:40]} Wh")
        found.append((point, int(str(seen)), int(str(expected)), wh))
    return found


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0
