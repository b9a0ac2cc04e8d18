"""Checkpoints that a site and those who order it name to each other.

An order carries the newest cosigned checkpoint that its issuer knows, an answer the newest that the site has signed.
Both stand in records, so a site that was shown one history while a dispatcher was shown another is found afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from verifier.errors import CheckpointError, EquivocationError, TruncatedError, VerifyError
from verifier.log import EpochLog, signed
from verifier.notes import Note
from verifier.register import LogKey


@dataclass(frozen=True, slots=True)
class Shown:
    """A checkpoint that one named to the other: the log of the bundle has to be the same."""

    where: str
    size: int
    root: bytes | None = None
    note: Note | None = None
    """Of an issuer: counts where the log's own key signed it."""


def check_shown(log: EpochLog, shown: Sequence[Shown], origin: str, keys: Sequence[LogKey]) -> list[VerifyError]:
    """Hold what site and issuers of orders named to each other against the log.

    A note counts that the log's own key signed. A site's own word beyond the last cosigned checkpoint of the bundle
    cannot be looked at; a cosigned note beyond it means that the end of the log is not here.
    """
    held: list[tuple[Shown, bytes]] = []
    found: list[VerifyError] = []
    for one in shown:
        if one.note is None:
            held += [(one, one.root or b"")]
            continue
        with suppress(CheckpointError):
            signed(one.note, origin, keys, one.where)
            held.append((one, one.note.root))
            if one.size > log.size:
                found.append(TruncatedError(f"{one.where} has {one.size} records, the bundle tells of {log.size}"))
    log.find({one.size for one, _ in held})
    for one, root in held:
        if one.size <= log.size and log.roots[one.size] != root:
            found.append(EquivocationError(f"{one.where}: size {one.size} has another root here: two histories"))
    return found
