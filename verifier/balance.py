"""``balance`` records: their arithmetic, and that their sums are those of the slots they name.

What they do not prove is the loss in between and the tolerance: both are the site's own statement.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from verifier.canonical import Object
from verifier.errors import BalanceError, CalendarError, EnergyError, VerifyError
from verifier.records import Record
from verifier.standing import NONE

FIGURES = ("main_wh", "feeders_wh", "loss_wh", "residual_wh", "tol_wh")
LISTS = ("main", "transit", "feeders", "missing")
MOST_MEMBERS = 1000
MAX_ERRORS = 50
Members = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    """What one record says."""

    where: str
    t0: int
    main: Members
    transit: Members
    feeders: Members
    missing: Members
    main_wh: int | None
    feeders_wh: int | None
    residual_wh: int | None
    tol_wh: int | None

    @property
    def over(self) -> bool:
        """Is more unexplained than the tolerance?"""
        return self.residual_wh is not None and self.tol_wh is not None and abs(self.residual_wh) > self.tol_wh


@dataclass(frozen=True, slots=True)
class Summary:
    """The balanced slots of a period: how many, with how many some figure is unknown, and sums over the rest, Wh."""

    slots: int
    unknown: int
    over: int
    main_wh: int
    residual_wh: int


@dataclass(slots=True)
class Balances:
    """Walks the ``bal`` stream of each epoch; findings go to ``errors``."""

    slot_s: int
    errors: list[VerifyError] = field(default_factory=list)
    count: int = 0
    _slots: list[_Slot] = field(default_factory=list)
    _lists: dict[Members, Members] = field(default_factory=dict)
    _next_s: int = 0
    _over: int = 0
    _worst: tuple[int, int, int] = (0, 0, 0)
    """Residual, tolerance and slot of the largest one."""

    def feed(self, records: Iterable[Record]) -> None:
        """All records of one epoch's stream."""
        for record in records:
            self.count += 1
            try:
                self._take(record.doc, record.where)
            except VerifyError as error:
                self._error(error)

    def _take(self, doc: Object, where: str) -> None:
        t0, t1 = doc.get("t0"), doc.get("t1")
        if type(t0) is not int or t0 % self.slot_s or t1 != t0 + self.slot_s or t0 < self._next_s:
            raise CalendarError(f"{where}: slot {t0!r} to {t1!r} is off the grid, or was balanced already")
        self._next_s = t0 + self.slot_s
        figures = [doc.get(name, "") for name in FIGURES]
        if any(figure is not None and type(figure) is not int for figure in figures):
            raise EnergyError(f"{where}: a balance has {', '.join(FIGURES)} in whole Wh or null")
        main_wh, feeders_wh, loss, residual, tolerance = figures
        known = None not in {main_wh, feeders_wh, loss}
        if known is (residual is None) or known is (tolerance is None):
            raise EnergyError(f"{where}: residual and tolerance are known exactly where all other figures are")
        if known and (residual != main_wh - feeders_wh - loss or tolerance < 0):
            raise EnergyError(f"{where}: residual {residual} Wh is not {main_wh} − {feeders_wh} − {loss}")
        main, transit, feeders, missing = (self._members(doc, name, where) for name in LISTS)
        slot = _Slot(where, t0, main, transit, feeders, missing, main_wh, feeders_wh, residual, tolerance)
        self._check_members(slot)
        self._slots.append(slot)
        if slot.over:
            self._over += 1
            if abs(residual) > abs(self._worst[0]):
                self._worst = (residual, tolerance, t0)

    def _members(self, doc: Object, name: str, where: str) -> Members:
        found = doc.get(name)
        if not isinstance(found, list) or len(found) > MOST_MEMBERS or not all(isinstance(m, str) for m in found):
            raise BalanceError(f"{where}: {name} is a list of metering points")
        members = tuple(found)
        return self._lists.setdefault(members, members)

    @staticmethod
    def _check_members(slot: _Slot) -> None:
        members = (*slot.main, *slot.transit, *slot.feeders)
        if len(set(members)) != len(members) or not set(slot.missing) <= set(members) or not slot.main:
            raise BalanceError(f"{slot.where}: a point counts twice, or one is missing that does not count")
        for figure, parts in ((slot.main_wh, slot.main + slot.transit), (slot.feeders_wh, slot.feeders)):
            if (figure is None) is not bool(set(slot.missing) & set(parts)):
                raise BalanceError(f"{slot.where}: a figure is null exactly where one of its members is missing")

    def check(self, net: Mapping[str, array[int]], start_s: int, broken: frozenset[str]) -> None:
        """Hold every slot of the asked period against the metering points.

        Args:
            net: point → net energy of each slot from ``start_s`` on; points without records here are not in it.
            broken: points with errors of their own: what they say is in doubt already.
        """
        for slot in self._slots:
            index = (slot.t0 - start_s) // self.slot_s
            for figure, plus, minus in (
                (slot.main_wh, slot.main, slot.transit),
                (slot.feeders_wh, slot.feeders, ()),
            ):
                members = (*plus, *minus)
                if not all(m in net and 0 <= index < len(net[m]) for m in members) or broken & set(members):
                    continue
                values = {m: net[m][index] for m in members}
                unread = {m for m, value in values.items() if value == NONE}
                if unread != set(slot.missing) & set(members):
                    named = ", ".join(sorted(unread ^ (set(slot.missing) & set(members))))
                    self._error(BalanceError(f"{slot.where}: {named} is missing on one side and read on the other"))
                elif figure is not None:
                    total = sum(values[m] for m in plus) - sum(values[m] for m in minus)
                    if total != figure:
                        self._error(BalanceError(f"{slot.where}: states {figure} Wh, its slots add up to {total} Wh"))

    def _error(self, error: VerifyError) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)

    def summary(self, start_s: int, end_s: int) -> Summary | None:
        """Over the slots of [``start_s``, ``end_s``); ``None`` where none was balanced."""
        found = [slot for slot in self._slots if start_s <= slot.t0 < end_s]
        known = [(s.main_wh, s.residual_wh) for s in found if s.main_wh is not None and s.residual_wh is not None]
        sums = sum(main for main, _ in known), sum(residual for _, residual in known)
        return Summary(len(found), len(found) - len(known), sum(s.over for s in found), *sums) if found else None

    def doubts(self) -> list[str]:
        """What to ask about: load or a by-pass that no meter sees."""
        if not self._over:
            return []
        residual, tolerance, t0 = self._worst
        text = f"{residual} Wh are not explained in slot {t0}, the tolerance is {tolerance} Wh"
        return [f"SUSPECT balance: {self._over} of {self.count} slots are out of tolerance; the most: {text}"]
