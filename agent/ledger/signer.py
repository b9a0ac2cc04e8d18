"""Which key signs the next record: the ledger says, not the file.

A change of key is planned for a place of the log. The record before that place is ``key_rotate``, signed by the old
key; it, and the word in ``meta`` that the new key signs from there on, become durable in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.hsm.key import LogSigner
from wire.canonical import Json
from wire.keys import SigningKey

PLANNED = "key_change"
"""``meta``: the planned change as JSON; gone once it happened."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A change that happens when the log has ``from_index`` − 1 records.

    Args:
        role: ``k_rec`` or ``k_log``.
        from_index: first place of the log where the new key is valid.
        key: the new key.
        fields: of the ``key_rotate`` record.
    """

    role: str
    from_index: int
    key: LogSigner
    fields: Json


@dataclass(slots=True)
class Signer:
    """The record key, and what is planned for it."""

    key: SigningKey
    planned: Planned | None = None
    done: list[Planned] = field(default_factory=list)

    def due(self, size: int) -> Planned | None:
        """The change whose ``key_rotate`` is the next record of a log of this size."""
        return self.planned if self.planned is not None and self.planned.from_index - 1 == size else None

    def turn(self, change: Planned) -> list[tuple[str, str]]:
        """The change has its record: from now on the new key signs. Returns what ``meta`` has to say of it."""
        self.planned = None
        self.done.append(change)
        if change.role == "k_rec" and isinstance(change.key, SigningKey):
            self.key = change.key
            return [("kid", change.key.kid)]
        return [("log_kid", change.key.kid), ("log_from", str(change.from_index))]

    def mark(self) -> Signer:
        """A state to go back to."""
        return Signer(self.key, self.planned, list(self.done))

    def back_to(self, mark: Signer) -> None:
        """Nothing of what came after the mark has happened."""
        self.key, self.planned, self.done = mark.key, mark.planned, list(mark.done)
