"""What a bundle carries of the log of verdicts on a site.

The leaf hashes of the whole log, so that its root can be computed; the line of every run, so that none can be left out
unseen; and the findings of the runs that touch the period. Five years of daily runs are some megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import verdicts
from central.vee.book import stand_of
from central.vee.witnessing import hashes, kept, merged, stand
from wire.checkpoints import Checkpoint, log_key
from wire.keys import SigningKey
from wire.notes import Note, NoteKey
from wire.verdicts import verdict_origin

LEAVES, NOTES, LINES = "vee/verdicts.leaves", "vee/verdicts.notes", "vee/verdicts.tzr"
AT_ONCE = 500
"""Lines that are fetched together."""


def carried(
    connection: Connection, site: str, start: int, end: int, key: SigningKey, witnesses: Sequence[NoteKey]
) -> dict[str, Iterable[bytes]]:
    """Files of a bundle over [``start``, ``end``) by name, in pieces; none where nothing was ever judged.

    Args:
        key: K_col. Where it is another one than signed the newest checkpoint, it signs that anew: cosignatures are over
            the text and stay.
        witnesses: of the register's policy; signatures by anybody else are left out.
    """
    now = stand(connection, site)
    if now is None:
        return {}
    known = (log_key(verdict_origin(site), key.public.raw), *witnesses)
    notes = kept(connection, site)
    newest = merged(now.note, *(notes[now.size],) if now.size in notes else ())
    if not newest.of(known[0]):
        tree = stand_of(connection, site)[0]
        newest = merged(Checkpoint(verdict_origin(site), tree.size, tree.root()).sign(key), _only(newest, witnesses))
    notes[now.size] = newest
    carried_notes = [_only(notes[size], known) for size in sorted(notes) if size <= now.size]
    signed = [note.encode() for note in carried_notes if note.of(known[0])]
    runs = sa.select(verdicts.c.n).where(verdicts.c.site == site, verdicts.c.ty == "vee_run")
    touching = runs.where(verdicts.c.t0_s < end, verdicts.c.t1_s > start)
    query = (
        sa.select(verdicts.c.line)
        .where(verdicts.c.site == site, verdicts.c.n < now.size)
        .where((verdicts.c.ty == "vee_run") | verdicts.c.run.in_(touching))
        .order_by(verdicts.c.n)
    )
    lines = connection.execute(query.execution_options(yield_per=AT_ONCE))
    return {
        LEAVES: hashes(connection, site, now.size),
        NOTES: [b"%d\n" % len(note) + note for note in signed],
        LINES: (bytes(line) + b"\n" for (line,) in lines),
    }


def _only(note: Note, known: Sequence[NoteKey]) -> Note:
    return Note(note.text, tuple(line for line in note.signatures if any(line.is_of(key) for key in known)))
