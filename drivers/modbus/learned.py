"""What one unit was found to refuse: learned by halving a refused request, kept over restarts, tried again seldom.

A request for several points that the unit answers with exception 2 or 3 is cut in two at the next poll, and again,
until the point it does not have stands alone, or until both sides of a cut are answered: then it is what lies between
them that must not be read. Nothing is asked beside the polls, so the number of requests per poll stays bounded. A unit
that refuses everything is in error, and nothing is learned of it.

The memory of a unit belongs to (link, unit, profile) and is void when the profile's version or the serial number
changes. Pure decisions here; the file is in :class:`LearnedFile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import structlog

from drivers.modbus.scheduler import Answer
from drivers.profiles.model import MeterProfile
from drivers.profiles.plan import Block, Group, Span, UnitLimits, groups_of

log = structlog.get_logger(__name__)

REFUSALS = frozenset({2, 3})
"""Exception codes that mean "not these registers" (illegal data address, illegal data value)."""
MAX_SPLITS = 4
"""Refused requests cut in two per poll."""
MAX_BARREN = 4
"""Polls in a row in which everything was refused, after which the unit itself is in error."""
HOPELESS_MS = 3_600_000
RETRY_FIRST_MS, RETRY_MAX_MS = 600_000, 86_400_000
SHAPE_RETRY_MS = 7 * 86_400_000
"""A hole or a cut costs one request more and no value: tried again once a week."""
MAX_FACTS = 500


class UnitKey(NamedTuple):
    """Whose memory it is."""

    link: str
    unit: int
    profile: str
    version: int


@dataclass(slots=True)
class Retry:
    """When a refusal is put to the test again; the wait grows while it holds."""

    at_ms: int
    wait_ms: int


@dataclass(slots=True)
class Facts:
    """What is kept of one unit."""

    serial: str | None = None
    refused: dict[Span, Retry] = field(default_factory=dict)
    holes: dict[Span, Retry] = field(default_factory=dict)
    cuts: dict[tuple[str, int], Retry] = field(default_factory=dict)
    layout: dict[str, Any] | None = None
    """What a walk over the unit's own directory found (SunSpec); ``None`` where there is none."""


class LearnedRanges(Protocol):
    """Where memories are kept. Neither method may raise because of the medium."""

    def load(self, key: UnitKey) -> Facts | None:
        """What is known of a unit, of this version of its profile; ``None``: nothing."""
        ...

    def save(self, key: UnitKey, facts: Facts) -> None:
        """Keep it, in place of what was known before."""
        ...


Fact = Span | tuple[str, int]


@dataclass(slots=True)
class _Session:
    """The search for what makes one request refused."""

    points: tuple[str, ...]
    origin: Span
    cuts: list[set[int]] = field(default_factory=list)
    """Addresses of the cuts, round by round."""


class UnitMemory:
    """What a meter device knows of its unit. Times are those of the samples (UTC, ms)."""

    def __init__(self, key: UnitKey | None = None, store: LearnedRanges | None = None) -> None:
        self._key, self._store = key, store
        self.facts = (store.load(key) if store is not None and key is not None else None) or Facts()
        self._sessions: list[_Session] = []
        self._seen_once: set[tuple[Span, frozenset[int]]] = set()
        self._barren = 0
        self._hopeless_until_ms = 0
        self._now_ms = 0
        self.changes = 0
        """Grows whenever plans may have become others."""

    @property
    def hopeless(self) -> bool:
        """True where the unit refused everything, poll after poll."""
        return self._now_ms < self._hopeless_until_ms

    @property
    def settled(self) -> bool:
        """True where no search is under way."""
        return not self._sessions

    def limits(self, lifted: Fact | None = None) -> UnitLimits:
        """Facts and open searches, as the planner takes them; ``lifted`` is left out, to be tried."""
        facts = self.facts
        cuts = {cut for cut in facts.cuts if cut != lifted}
        for session in self._sessions:
            cuts.update((session.origin.table, addr) for round_ in session.cuts for addr in round_)
        return UnitLimits(frozenset(facts.refused), frozenset(h for h in facts.holes if h != lifted), frozenset(cuts))

    def due(self) -> Fact | None:
        """A refusal that is to be put to the test now."""
        facts = self.facts
        for kind in (facts.refused, facts.holes, facts.cuts):
            for fact, retry in kind.items():
                if retry.at_ms <= self._now_ms:
                    return fact
        return None

    def serial(self, number: str) -> None:
        """The unit's serial number was read: another unit has nothing in common with the one before."""
        if self.facts.serial == number:
            return
        if self.facts.serial is not None:
            log.info("learned_ranges_forgotten", unit=self._key and self._key.unit, reason="another serial number")
            self.facts = Facts()
            self._sessions.clear()
            self.changes += 1
        self.facts.serial = number
        self.save()

    def save(self) -> None:
        """Hand the facts to the store, if there is one."""
        if self._store is not None and self._key is not None:
            self._store.save(self._key, self.facts)

    def nothing_new(self, answers: Sequence[Answer]) -> bool:
        """True for the usual poll: everything was answered and nothing is being searched for or known to be refused."""
        if self._sessions or self.facts.refused or not all(a.ok for a in answers):
            return False
        self._now_ms = max(self._now_ms, answers[-1].at_ms)
        self._barren, self._hopeless_until_ms = 0, 0
        return True

    # -- learning ------------------------------------------------------------------------------------------------

    def learn(
        self,
        profile: MeterProfile,
        points: tuple[str, ...],
        blocks: Sequence[Block],
        answers: Sequence[Answer],
        lifted: Fact | None = None,
    ) -> None:
        """Take the answers of one poll."""
        if not answers:
            return
        self._now_ms = max(self._now_ms, answers[-1].at_ms)
        refused = [b for b, a in zip(blocks, answers, strict=True) if a.exception in REFUSALS]
        good = [b for b, a in zip(blocks, answers, strict=True) if a.ok]
        if good:
            self._barren, self._hopeless_until_ms = 0, 0
        if self.hopeless or len(refused) + len(good) < len(blocks):
            return  # an answer is missing: nothing can be said of what belongs together
        self._recovered(good)
        if lifted is not None:
            self._tried(lifted, refused)
            return
        fresh = [b for b in refused if b.span not in self.facts.refused]
        session = next((s for s in self._sessions if s.points == points), None)
        if not fresh and session is None:
            return
        if not good and self._give_up():
            return
        groups = groups_of(profile, points)
        for session in [s for s in self._sessions if s.points == points]:
            inside = [b for b in fresh if _within(b.span, session.origin)]
            self._step(session, inside, groups, record=bool(good))
            fresh = [b for b in fresh if b not in inside]
        for block in fresh[:MAX_SPLITS]:
            session = _Session(points, block.span)
            self._sessions.append(session)
            self._step(session, [block], groups, record=bool(good))

    def _give_up(self) -> bool:
        self._barren += 1
        if self._barren < MAX_BARREN:
            return False
        log.error("modbus_unit_refuses_everything", unit=self._key and self._key.unit)
        self._sessions.clear()
        self._barren = 0
        self._hopeless_until_ms = self._now_ms + HOPELESS_MS
        self.changes += 1
        return True

    def _recovered(self, good: Iterable[Block]) -> None:
        back = [b.span for b in good if b.span in self.facts.refused]
        for span in back:
            log.info("modbus_range_answers_again", unit=self._key and self._key.unit, registers=str(span))
            del self.facts.refused[span]
        if back:
            self._changed()

    def _tried(self, lifted: Fact, refused: Sequence[Block]) -> None:
        """A trial without one fact: dropped where nothing was refused, and put off otherwise."""
        facts = self.facts
        if isinstance(lifted, Span) and lifted in facts.refused:
            _put_off(facts.refused[lifted], self._now_ms)  # had it been answered, it would be gone by now
        elif isinstance(lifted, Span) and lifted in facts.holes:
            _settle(facts.holes, lifted, self._now_ms, held=any(_meets(b.span, lifted) for b in refused))
        elif not isinstance(lifted, Span) and lifted in facts.cuts:
            held = any(b.table == lifted[0] and b.addr < lifted[1] < b.addr + b.count for b in refused)
            _settle(facts.cuts, lifted, self._now_ms, held=held)
        self._changed()

    def _step(self, session: _Session, refused: Sequence[Block], groups: Sequence[Group], *, record: bool) -> None:
        """One round of a search. ``record``: something else was answered, so a refusal is about these registers."""
        self.changes += 1
        if not refused:
            # Everything inside is answered, so the newest cuts are what was needed; the older ones were on the way. A
            # unit that was just starting up looks the same once, so only the second time counts.
            newest = frozenset(session.cuts[-1]) if session.cuts else frozenset()
            if (session.origin, newest) in self._seen_once:
                for addr in newest:
                    self._between(session.origin.table, addr, groups)
            elif len(self._seen_once) < MAX_FACTS:
                self._seen_once.add((session.origin, newest))
            self._end(session)
            return
        cuts: set[int] = set()
        found = False
        for block in refused[:MAX_SPLITS]:
            middle = _middle(block, groups)
            if middle is not None:
                cuts.add(middle)
            elif record:
                found = True
                self._refuses(block.span)
        if found:
            self._end(session)
        elif cuts:
            session.cuts.append(cuts)

    def _end(self, session: _Session) -> None:
        if session in self._sessions:
            self._sessions.remove(session)

    def _refuses(self, span: Span) -> None:
        log.warning("modbus_range_refused", unit=self._key and self._key.unit, registers=str(span))
        self.facts.refused[span] = Retry(self._now_ms + RETRY_FIRST_MS, RETRY_FIRST_MS)
        self._changed()

    def _between(self, table: str, addr: int, groups: Sequence[Group]) -> None:
        """Both sides of a cut are answered and together they were not."""
        ends = [g.end for g in groups if g.table == table and g.end <= addr]
        retry = Retry(self._now_ms + SHAPE_RETRY_MS, SHAPE_RETRY_MS)
        if ends and max(ends) < addr:
            hole = Span(table, max(ends), addr - 1)
            log.info("modbus_hole_refused", unit=self._key and self._key.unit, registers=str(hole))
            self.facts.holes[hole] = retry
        else:
            log.info("modbus_cut_needed", unit=self._key and self._key.unit, table=table, addr=addr)
            self.facts.cuts[table, addr] = retry
        self._changed()

    def _changed(self) -> None:
        self.changes += 1
        facts = self.facts
        if len(facts.refused) + len(facts.holes) + len(facts.cuts) > MAX_FACTS:
            log.error("learned_ranges_dropped", unit=self._key and self._key.unit, reason="too many")
            self.facts = Facts(serial=facts.serial, layout=facts.layout)
        self.save()


def _put_off(retry: Retry, now_ms: int) -> None:
    retry.wait_ms = min(retry.wait_ms * 4, max(RETRY_MAX_MS, retry.wait_ms))
    retry.at_ms = now_ms + retry.wait_ms


def _settle(kind: dict[Any, Retry], fact: Fact, now_ms: int, *, held: bool) -> None:
    if held:
        _put_off(kind[fact], now_ms)
    else:
        del kind[fact]


def _within(inner: Span, outer: Span) -> bool:
    return inner.table == outer.table and outer.first <= inner.first and inner.last <= outer.last


def _meets(one: Span, other: Span) -> bool:
    return one.table == other.table and one.first <= other.last and other.first <= one.last


def _middle(block: Block, groups: Sequence[Group]) -> int | None:
    """Address at which the block can be cut nearest to its middle; ``None`` where it cannot be cut."""
    inside = [g for g in groups if _within(g.span, block.span)]
    places: list[int] = []
    end = -1
    for group in inside:  # in order of address
        if 0 <= end <= group.first:
            places.append(group.first)
        end = max(end, group.end)
    centre = block.addr + block.count / 2
    return min(places, key=lambda addr: (abs(addr - centre), addr), default=None)
