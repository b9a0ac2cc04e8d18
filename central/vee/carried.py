"""What a bundle carries of the log of verdicts on a site.

The leaf hashes of the whole log, so that its root can be computed; the line of every run, so that none can be left out
unseen; and the findings of the runs that touch the period. Five years of daily runs are some megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import verdicts
from central.vee.witnessing import hashes, kept, merged, stand
from wire.checkpoints import log_key
from wire.keys import VerifyKey
from wire.notes import Note, NoteKey
from wire.verdicts import verdict_origin

LEAVES, NOTES, LINES = "vee/verdicts.leaves", "vee/verdicts.notes", "vee/verdicts.tzr"


def carried(
    connection: Connection, site: str, start: int, end: int, key: VerifyKey, witnesses: Sequence[NoteKey]
) -> dict[str, bytes]:
    """Files of a bundle over [``start``, ``end``) by name; none where nothing was ever judged.

    Args:
        key: K_col.
        witnesses: of the register's policy; signatures by anybody else are left out.
    """
    now = stand(connection, site)
    if now is None:
        return {}
    known = (log_key(verdict_origin(site), key.raw), *witnesses)
    notes = kept(connection, site)
    notes[now.size] = merged(now.note, *(notes[now.size],) if now.size in notes else ())
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
    return {
        LEAVES: b"".join(hashes(connection, site, now.size)),
        NOTES: b"".join(b"%d\n" % len(note) + note for note in signed),
        LINES: b"".join(bytes(line) + b"\n" for (line,) in connection.execute(query)),
    }


def _only(note: Note, known: Sequence[NoteKey]) -> Note:
    return Note(note.text, tuple(line for line in note.signatures if any(line.is_of(key) for key in known)))
