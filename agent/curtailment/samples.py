"""What the account of an order keeps until it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from agent.curtailment.electrical import Span
from agent.curtailment.journal import LiveOrder
from wire.orders import Order
from wire.states import OrderState, ended

STEP_MS = 5_000
"""Least distance of samples from before the order, and of those in a state that lasts."""
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Sample:
    """Power at ``at`` ms, W; ``lasting``: taken in a state in which not every sample is kept."""

    at: int
    watt: int | None
    code: int
    lasting: bool


@dataclass(frozen=True, slots=True)
class Terms:
    """What the register or the site file says, fixed when the order arrives."""

    contracted_w: int
    technological_s: int
    emergency_w: int


@dataclass(slots=True)
class Open:
    """An order whose account is not closed."""

    order: Order
    live: LiveOrder | None
    """``None`` where it ended before this process began."""
    facts: dict[str, Any]
    parts: int = 0
    states: int = 0
    """How many of the order's transitions are in the parts."""
    first_n: int | None = None
    """Number of the record of part 0."""
    samples: list[Sample] = field(default_factory=list)
    supply: dict[str, list[Span]] = field(default_factory=dict)
    """Voltage and reactive power, by point."""
    positions: list[tuple[int, str, str]] = field(default_factory=list)
    reasons: list[tuple[int, str, str]] = field(default_factory=list)
    seen_ns: int = 0
    known: dict[str, str] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)
    written_ms: int | None = None
    retry_ns: int = 0
    points: frozenset[str] = frozenset()
    """Where voltage and reactive power belong to it."""
    batteries: dict[str, list[Sample]] = field(default_factory=dict)
    """Power of batteries, by their point; of an order by net import."""
    batteries_ms: dict[str, int] = field(default_factory=dict)
    """Time of the newest sample that was taken of each."""
    state: OrderState | None = None
    """In which it was looked at last."""

    @property
    def over(self) -> bool:
        """Nothing further can happen to it."""
        return self.live is None or ended(self.live.state)


def thinned(samples: Sequence[Sample]) -> list[Sample]:
    """What is kept: every sample, but of those in a lasting state one in 5 s, the least and the greatest of each
    minute, and each change between known and unknown."""
    edges: set[int] = set()
    for _, minute in groupby((s for s in samples if s.lasting and s.watt is not None), lambda s: s.at // MINUTE_MS):
        ranked = sorted(minute, key=lambda s: s.watt or 0)
        edges |= {id(ranked[0]), id(ranked[-1])}
    kept: list[Sample] = []
    for sample in samples:
        last = kept[-1] if kept else None
        spaced = last is None or abs(sample.at - last.at) >= STEP_MS
        turned = last is not None and (last.watt is None) is not (sample.watt is None)
        if not sample.lasting or spaced or turned or id(sample) in edges:
            kept.append(sample)
    return kept
