"""What the link must know of a device, and the error for a request that must never leave for it."""

from __future__ import annotations

from typing import Protocol


class LinkDevice(Protocol):
    """What the link must know of a device."""

    @property
    def id(self) -> str:
        """Its id in the site file."""
        ...

    @property
    def unit(self) -> int:
        """Unit address, 0 to 255."""
        ...

    @property
    def functions(self) -> frozenset[int]:
        """Function codes that may be sent to it."""
        ...

    @property
    def timeout_s(self) -> float | None:
        """Its own time-out, if it needs another than the link's."""
        ...

    @property
    def gap_s(self) -> float:
        """Quiet time it needs before the next question."""
        ...

    @property
    def turnaround_s(self) -> float:
        """Quiet time a serial line needs after its answer."""
        ...


class ForbiddenFunction(Exception):
    """A request that must never leave for this device; a programming error, not a device's."""
