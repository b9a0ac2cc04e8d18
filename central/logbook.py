"""A site's log as a bundle carries it: leaves, cosigned checkpoints, and the place of each record."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import leaves, records, splits
from wire.checkpoints import parse_checkpoint
from wire.errors import BadNote
from wire.notes import parse_note
from wire.records import leaf_hash, parse_line

NOWHERE = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Log:
    """``leaves``: hashes one after another; ``notes``: each after a line with its length in bytes."""

    leaves: bytes
    notes: bytes
    _place: dict[bytes, int]

    def places(self, lines: Sequence[bytes]) -> bytes:
        """Log index of each line, 8 bytes big-endian; all ones where no checkpoint holds it."""
        found = (self._place.get(leaf_hash(parse_line(line)[0].payload), NOWHERE) for line in lines)
        return b"".join(struct.pack(">Q", place) for place in found)


def read_log(connection: Connection, site: str, epoch: str) -> Log | None:
    """The log up to its largest cosigned checkpoint; ``None`` where none was cosigned or leaves are missing.

    Checkpoints that prove two histories go with it: whoever verifies has to see them.
    """
    cosigned = _cosigned(connection, site, epoch)
    if not cosigned:
        return None
    size = max(cosigned)
    rows = connection.execute(
        sa.select(leaves.c.hash)
        .where(leaves.c.site == site, leaves.c.epoch == epoch, leaves.c.idx < size)
        .order_by(leaves.c.idx)
    )
    hashes = [bytes(row.hash) for row in rows]
    if len(hashes) != size:
        return None
    split = connection.execute(
        sa.select(splits.c.note, splits.c.held).where(splits.c.site == site, splits.c.epoch == epoch)
    )
    proofs = [bytes(note) for row in split for note in (row.note, row.held) if note]
    notes = [*(cosigned[n] for n in sorted(cosigned)), *proofs]
    return Log(b"".join(hashes), _framed(notes), {leaf: i for i, leaf in enumerate(hashes)})


def _cosigned(connection: Connection, site: str, epoch: str) -> dict[int, bytes]:
    """Size → the note that the quorum cosigned, out of the site's own records of it."""
    rows = connection.execute(
        sa.select(records.c.line).where(
            records.c.site == site, records.c.epoch == epoch, records.c.stream == "site", records.c.ty == "event"
        )
    )
    found: dict[int, bytes] = {}
    for row in rows:
        doc = parse_line(bytes(row.line))[1]
        if doc.get("ev") != "cosigned":
            continue
        try:
            raw = str(doc["detail"]["note"]).encode()
            found[parse_checkpoint(parse_note(raw).text).size] = raw
        except (BadNote, KeyError, TypeError):
            continue
    return found


def _framed(notes: Iterable[bytes]) -> bytes:
    return b"".join(b"%d\n" % len(note) + note for note in notes)
