"""Reading registers of a unit nobody has described yet: each register is asked for once, refusals are halved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from drivers.modbus.link import ModbusLink
from drivers.modbus.pdu import read_request, read_words
from drivers.modbus.scheduler import Answer, Klass
from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.plan import Span
from wire.quality import Quality

MAX_WORDS = 50
"""Few devices take less in one request; some take no more."""
SAMPLED = 3
"""Of a refused run so many are asked singly before the rest is given up."""
QUIET_S = 0.01
"""Pause that every serial device is content with."""
FIRST_TRIES = 5
"""Different requests without any answer after which nobody is there."""
SILENCE = frozenset({Quality.TIMEOUT, Quality.NO_CONNECTION, Quality.CRC})


@dataclass(frozen=True, slots=True)
class Asker:
    """A unit of which nothing is known but its address. Reads of registers only."""

    unit: int
    id: str = "looking"
    functions: frozenset[int] = frozenset({3, 4})
    timeout_s: float | None = None
    gap_s: float = 0.0
    turnaround_s: float = 0.0


class NobodyThere(Exception):
    """No request was answered; the message says how the last one ended."""


@dataclass(slots=True)
class Registers:
    """What a unit said of its registers so far."""

    link: ModbusLink
    unit: int
    words: dict[tuple[str, int], int] = field(default_factory=dict)
    refused: set[Span] = field(default_factory=set)
    """Asked for alone and refused, or met with silence."""
    assumed: set[Span] = field(default_factory=set)
    """Not asked, because what lies before, between and behind was refused."""
    answered: int = 0
    requests: int = 0
    latency_ms: float = 0.0
    """Of the newest answer."""
    _alive: tuple[str, int, int] | None = None
    """A request that was answered: asked again after a silence, to know which is at fault, unit or register."""

    def holds(self, span: Span) -> tuple[int, ...] | None:
        """Its words, if all were read."""
        found = [self.words.get((span.table, r)) for r in range(span.first, span.last + 1)]
        words = tuple(w for w in found if w is not None)
        return words if len(words) == len(found) else None

    async def fetch(self, spans: Iterable[Span], *, thorough: bool = False) -> None:
        """Read what is not known yet. A span is never split: half a number may be refused, or be no number.

        Where a run of several is refused, and its first, middle and last one too, the others are taken as refused,
        unless it has to be ``thorough``.

        Raises:
            NobodyThere: the unit never answered anything.
        """
        known = self.refused if thorough else self.refused | self.assumed
        missing = sorted({s for s in spans if s not in known and self.holds(s) is None})
        run: list[Span] = []
        for span in missing:
            fits = run and span.table == run[0].table and span.first <= max(s.last for s in run) + 1
            if fits and max(span.last, *(s.last for s in run)) - run[0].first < MAX_WORDS:
                run.append(span)
                continue
            await self._read(run, thorough)
            run = [span]
        await self._read(run, thorough)

    async def _read(self, run: list[Span], thorough: bool) -> None:
        if not run:
            return
        table, first, last = run[0].table, run[0].first, max(s.last for s in run)
        answer = await self._ask(table, first, last - first + 1)
        if answer.ok:
            data = read_words(answer.request, answer.answer)
            self.words.update({(table, first + i): word for i, word in enumerate(data)})
        elif len(run) == 1:
            self.refused.add(run[0])
        elif len(run) > SAMPLED and not thorough and not await self._any_of(run):
            self.assumed.update(s for s in run if s not in self.refused)
        else:
            middle = len(run) // 2
            await self._read(run[:middle], thorough)
            await self._read(run[middle:], thorough)

    async def _any_of(self, run: list[Span]) -> bool:
        """True where the first, the middle or the last of a run is answered by itself."""
        for span in (run[0], run[len(run) // 2], run[-1]):
            if span not in self.refused and self.holds(span) is None:
                await self._read([span], thorough=False)
            if self.holds(span) is not None:
                return True
        return False

    async def _ask(self, table: str, addr: int, count: int) -> Answer:
        answer = await self._exchange(table, addr, count)
        if answer.quality not in SILENCE:
            self.answered += 1
            self.latency_ms = answer.latency_ms
            if self._alive is None:
                self._alive = (table, addr, count)
            return answer
        if self._alive is None:
            if self.requests >= FIRST_TRIES or answer.quality is Quality.NO_CONNECTION:
                raise NobodyThere(answer.error or "no answer")
            return answer
        again = await self._exchange(*self._alive)
        if again.quality in SILENCE:
            again = await self._exchange(*self._alive)
        if again.quality in SILENCE:
            raise NobodyThere(f"it answered at first and then no more: {again.error}")
        return answer

    async def _exchange(self, table: str, addr: int, count: int) -> Answer:
        self.requests += 1
        pdu = read_request(READ_FUNCTION[table], addr, count)
        deadline_s = 3.0 + 4 * self.link.timeout_s
        gap_s = QUIET_S if self.link.url.rtu_framing else 0.0
        asker = Asker(self.unit, gap_s=gap_s, turnaround_s=gap_s)
        answers = await self.link.exchange(asker, (pdu,), klass=Klass.VERIFICATION, deadline_s=deadline_s)
        return answers[0]
