"""Serial numbers of the meters at one point: which were in service, and whose act exchanged them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from verifier.errors import RatioError


@dataclass(slots=True)
class Serials:
    """Collects binds; the meter of the register is the one in service last."""

    point: str
    _bound: list[tuple[str | None, bool, str]] = field(default_factory=list)
    """Serial numbers as they were bound, whether a person's act led to it, and where."""

    def bind(self, serial: str | None, where: str, *, swapped: bool) -> None:
        """A meter is bound."""
        if not self._bound or self._bound[-1][0] != serial or swapped:
            self._bound.append((serial, swapped, where))

    def doubts(self) -> Iterator[str]:
        """Every exchange is shown."""
        for (serial, _, _), (now, by_act, _) in zip(self._bound, self._bound[1:], strict=False):
            why = "by a person's act" if by_act else "and nobody's act says why"
            yield f"SERIAL {self.point}: meter {serial} was exchanged for {now} {why}"

    def errors(self, known: str | None) -> Iterator[RatioError]:
        """Meters that are not the register's, unless a person's act exchanged them later."""
        for number, (serial, _, where) in enumerate(self._bound):
            exchanged = number + 1 < len(self._bound) and self._bound[number + 1][1]
            if known is not None and serial not in {None, known} and not exchanged:
                yield RatioError(f"{where}: serial number {serial!r}, the register has {known!r}")
