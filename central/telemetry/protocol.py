"""What central asks of a telemetry store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wire.batch import Batch
from wire.messages import Range

MAX_STEPS = 5000
"""Most points of one series."""


class TooManyNames(ValueError):
    """A site makes up more devices or points than the store keeps."""


@dataclass(frozen=True, slots=True)
class BatchId:
    """Identity of a batch. ``boot`` is random per start of the agent: numbers begin again with it."""

    site: str
    epoch: str
    boot: str
    n: int


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did. Both lists are on disk now."""

    new: tuple[BatchId, ...]
    duplicates: tuple[BatchId, ...]
    conflicting: tuple[BatchId, ...] = ()
    """Same identity, other bytes: the first stays, this is counted."""


@dataclass(frozen=True, slots=True)
class Latest:
    """Newest value of one point."""

    kind: str
    device: str
    point: str
    at: int
    value: float | None
    quality: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a series; mean, least and greatest of the *good* values, null where there is none."""

    at: int
    mean: float | None
    least: float | None
    greatest: float | None
    good: int
    samples: int


@dataclass(frozen=True, slots=True)
class Counts:
    """For the count against the edge."""

    batches: int
    values: int
    distinct_values: int


class TelemetryStore(Protocol):
    """One collector writes; everybody else reads through it."""

    async def write(self, batches: Sequence[tuple[Batch, bytes]], now_ms: int) -> Written:
        """Store decoded batches with their packed bytes in one transaction, each at most once."""

    async def latest(self, site: str, *, kind: str | None = None, since: int = 0) -> list[Latest]:
        """Newest value of every point of a site that has one after ``since`` (ms)."""

    async def series(
        self, site: str, kind: str, device: str, point: str, first: int, last: int, step_s: int
    ) -> list[Step]:
        """Steps of [first, last) in ms; steps without a sample are absent."""

    async def energy(self, site: str, device: str, point: str, first: int, last: int, step_s: int) -> list[Step]:
        """Growth of a counter per step, in its own unit, as ``mean``; null where it fell or has no two readings."""

    async def missing(self, site: str, epoch: str, boot: str, last: int) -> list[Range]:
        """Batch numbers of one boot up to ``last`` that are not stored."""

    async def counts(self, site: str | None = None) -> Counts:
        """Rows and distinct identities."""

    async def close(self) -> None:
        """Write everything out and let go of the files."""
