"""Changes of many machines as few records: one per group and change, after a while, never one per machine.

A hall that is switched to another pool gives one record that counts its machines; a firmware that lies anew with each
answer gives a bounded number of records, the rest counted together.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

SETTLE_MS = 60_000
"""From the first machine of a change to its record, so that the others of the hall are in it."""
REPEAT_MS = 900_000
"""The same change of the same group is told again no sooner."""
MAX_PER_GROUP = 8
"""Records of one kind and group within :data:`REPEAT_MS`; beyond it changes are told together."""
MAX_LISTED = 50
MANY = "several"


@dataclass(frozen=True, slots=True)
class Change:
    """What changed, for a whole group: one record's worth."""

    ev: str
    group: str
    was: str | None
    now: str | None


@dataclass(slots=True)
class Pending:
    """Machines of one change that are not yet told."""

    since_ms: int
    """When the first of them was put in."""
    machines: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Machine → its own (was, now), where it says more than the change."""
    first_ms: int = 2**53
    """Earliest sighting of the new."""
    old_ms: int | None = None
    """Latest sighting of the old; ``None`` where there was none."""


class Grouped:
    """Gathers changes until they are due."""

    def __init__(self, *, settle_ms: int = SETTLE_MS, repeat_ms: int = REPEAT_MS) -> None:
        self._settle_ms = settle_ms
        self._repeat_ms = repeat_ms
        self._pending: dict[Change, Pending] = {}
        self._told: dict[Change, int] = {}

    def add(
        self,
        change: Change,
        machine: str,
        at_ms: int,
        *,
        first_ms: int | None = None,
        old_ms: int | None = None,
        own: tuple[str | None, str | None] = (None, None),
    ) -> Change:
        """Put a machine in. Returns the change under which it is kept, for :meth:`remove`."""
        change = self._bounded(change, at_ms)
        pending = self._pending.setdefault(change, Pending(at_ms))
        pending.machines[machine] = own
        pending.first_ms = min(pending.first_ms, at_ms if first_ms is None else first_ms)
        if old_ms is not None:
            pending.old_ms = old_ms if pending.old_ms is None else max(pending.old_ms, old_ms)
        return change

    def remove(self, change: Change, machine: str) -> None:
        """Take a machine out whose change was undone before it was told."""
        pending = self._pending.get(change)
        if pending is not None:
            pending.machines.pop(machine, None)
            if not pending.machines:
                del self._pending[change]

    def due(self, now_ms: int) -> list[tuple[Change, Pending]]:
        """What is to be told now; it counts as told."""
        self._told = {change: at for change, at in self._told.items() if 0 <= now_ms - at < self._repeat_ms}
        ready = [
            change
            for change, pending in self._pending.items()
            if not 0 <= now_ms - pending.since_ms < self._settle_ms and change not in self._told
        ]
        self._told |= dict.fromkeys(ready, now_ms)
        return [(change, self._pending.pop(change)) for change in ready]

    def _bounded(self, change: Change, now_ms: int) -> Change:
        if change in self._pending:
            return change
        # A change told a moment ago is told again when its time comes: it takes no further place.
        recent = {
            known
            for known in (*self._pending, *(c for c, at in self._told.items() if 0 <= now_ms - at < self._repeat_ms))
            if (known.ev, known.group) == (change.ev, change.group)
        }
        if change in recent or len(recent) < MAX_PER_GROUP:
            return change
        return Change(change.ev, change.group, MANY, MANY)


def fields(change: Change, pending: Pending, **more: Any) -> dict[str, Any]:
    """The fields of an ``event`` record: count, digest over all machine ids, and the first of them by name."""
    names = sorted(pending.machines)
    detail: dict[str, Any] = {
        "machines": len(names),
        "digest": machines_digest(names),
        "first_seen": pending.first_ms,
        "last_seen_old": pending.old_ms,
        "list": [[name, *pending.machines[name]] for name in names[:MAX_LISTED]],
    }
    return {"ev": change.ev, "obj": change.group, "was": change.was, "now": change.now, "detail": detail | more}


def machines_digest(names: list[str]) -> str:
    """SHA-256, hex, over sorted machine ids, one a line."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()
