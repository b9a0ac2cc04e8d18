"""A site's log as a bundle carries it: leaves, cosigned checkpoints, and the place of each record."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import leaves, notes, records, splits
from wire.checkpoints import parse_checkpoint
from wire.errors import BadNote
from wire.notes import parse_note
from wire.records import leaf_hash, parse_line

NOWHERE = 2**64 - 1
LOOKED_AT = 2000
"""Newest events among which the last cosigned checkpoint is looked for; there is one with every slot."""


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
    framed = _framed([*(cosigned[n] for n in sorted(cosigned)), *proofs])
    return Log(b"".join(hashes), framed, {leaf: i for i, leaf in enumerate(hashes)})


def newest_cosigned(connection: Connection, site: str, epoch: str) -> bytes | None:
    """The note that the quorum cosigned last, as far as the newest events of the site tell."""
    query = _events(site, epoch).order_by(records.c.n.desc()).limit(LOOKED_AT)
    return next((told[1] for row in connection.execute(query) if (told := _told(bytes(row.line)))), None)


def note_of_size(connection: Connection, site: str, epoch: str, size: int) -> bytes | None:
    """A checkpoint of that size that the log signed."""
    of_log = (notes.c.site == site, notes.c.epoch == epoch, notes.c.size == size)
    found = connection.execute(sa.select(notes.c.note).where(*of_log).order_by(notes.c.received_at).limit(1)).scalar()
    return None if found is None else bytes(found)


def _events(site: str, epoch: str) -> sa.Select[tuple[bytes]]:
    return sa.select(records.c.line).where(
        records.c.site == site, records.c.epoch == epoch, records.c.stream == "site", records.c.ty == "event"
    )


def _cosigned(connection: Connection, site: str, epoch: str) -> dict[int, bytes]:
    """Size → the note that the quorum cosigned, out of the site's own records of it."""
    rows = connection.execute(_events(site, epoch))
    return dict(told for row in rows if (told := _told(bytes(row.line))))


def _told(line: bytes) -> tuple[int, bytes] | None:
    """Size and cosigned note of the record that a quorum was reached; ``None`` for any other record."""
    doc = parse_line(line)[1]
    if doc.get("ev") != "cosigned":
        return None
    try:
        raw = str(doc["detail"]["note"]).encode()
        return parse_checkpoint(parse_note(raw).text).size, raw
    except (BadNote, KeyError, TypeError):
        return None


def _framed(raws: Iterable[bytes]) -> bytes:
    return b"".join(b"%d\n" % len(raw) + raw for raw in raws)
