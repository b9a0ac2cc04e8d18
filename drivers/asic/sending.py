"""Sending a command once and reading back what came of it; beneath every kind of write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from drivers.asic.given import Given
from drivers.errors import DriverError, Refused

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Sent(Generic[Seen]):
    """What came of a command."""

    said: str
    """What it answered, for people."""
    lost: DriverError | None
    """Why its answer was lost: then nobody knows whether it was carried out."""
    seen: Seen | None
    """What was read back last; ``None`` where it could not be read or does not say."""

    @property
    def note(self) -> str:
        """Behind an acknowledgement: that only the reading back says so, where the answer was lost."""
        return "" if self.lost is None else f"; the answer was lost ({self.lost})"

    def answer(self, name: str) -> str:
        """What the machine called ``name`` answered, or why that is not known."""
        return f"{name}: answered {self.said!r}" if self.lost is None else str(self.lost)


async def send(
    given: Given,
    tell: Callable[[], Awaitable[str]],
    read: Callable[[], Awaitable[Seen | None]],
    done: Callable[[Seen | None], bool],
    *,
    settle_s: float = 0.0,
) -> Sent[Seen]:
    """Send a command, never again whatever becomes of its answer, and read back until it is done.

    Args:
        given: what the driver was given; ``read_back_s`` says how often to read.
        tell: sends it; what it answered.
        read: reads back.
        done: whether what was read is what was wanted.
        settle_s: pause before the first reading, besides ``read_back_s``.

    Raises:
        Refused: it said no; nothing happened.
    """
    lost: DriverError | None = None
    said = ""
    try:
        said = await tell()
    except Refused:
        raise
    except DriverError as error:
        lost = error
    seen: Seen | None = None
    for number, pause_s in enumerate(given.timeouts.read_back_s):
        await given.pause(pause_s + (settle_s if number == 0 else 0.0))
        try:
            seen = await read()
        except DriverError:
            continue
        if done(seen):
            break
    return Sent(said, lost, seen)
