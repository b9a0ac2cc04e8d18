"""Central as a witness of its sites' logs: what it keeps of them, and what it cosigns.

A checkpoint is judged by :mod:`wire.witness` and kept in the transaction of its message, before the cosignature is
published. Central's cosignature is one among the register's policy; it says nothing about kilowatt-hours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from central.store.database import insert_new, put, tally
from central.store.schema import leaves, notes, splits, witnessed
from wire.checkpoints import Submission, cosign, open_checkpoint
from wire.errors import BadKey, BadNote
from wire.keys import SigningKey, unb64
from wire.merkle import HASH_BYTES
from wire.messages import CheckpointMessage, Cosign
from wire.notes import COSIGNATURE, NoteKey
from wire.witness import Held, Verdict, judge

log = structlog.get_logger(__name__)

MAX_NOTES_PER_LOG = 200_000
MAX_WITNESSED = 1000
LogKeys = Callable[[str, str], Sequence[NoteKey]]
"""``(site, epoch)`` → keys that may sign checkpoints of that log, from the register."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to a site, and to other witnesses."""

    cosign: Cosign
    submitted: CheckpointMessage | None = None
    """The checkpoint where other witnesses are to see it too."""


def note_key(key: SigningKey) -> NoteKey:
    """Central's witness key: its name holds its identifier, so that two centrals are two witnesses."""
    return NoteKey(f"central-{key.kid}", COSIGNATURE, key.public.raw)


class Witness:
    """Decides within the caller's transaction; holds no state of its own."""

    def __init__(self, key: SigningKey, log_keys: LogKeys) -> None:
        self._key = key
        self.public = note_key(key)
        self._log_keys = log_keys

    def take(self, connection: Connection, message: CheckpointMessage, now_ms: int) -> list[Answer]:
        """Keep a checkpoint message and judge it; returns what to publish after the commit."""
        keys = self._log_keys(message.site, message.epoch)
        raw = message.note.encode()
        try:
            checkpoint, note = open_checkpoint(raw, keys)
        except BadNote as error:
            code = "bad_signature" if keys else "unknown_log"
            tally(connection, message.site, f"checkpoint_{code}", 1)
            return [Answer(self._say(connection, message, Verdict(403, None, code, str(error))))]
        if checkpoint.origin != f"tizgin/{message.site}/{message.epoch}":
            tally(connection, message.site, "checkpoint_other_log", 1)
            return []
        self._keep_leaves(connection, message, checkpoint.size)
        if not self._keep_note(connection, message, raw, checkpoint.size, now_ms):
            return []
        if not message.submit:
            return []
        held = self._held(connection, message)
        verdict = judge(held, self._submission(message, held), keys)
        if verdict.misbehaviour and verdict.checkpoint is not None:
            self._keep_split(connection, message, raw, verdict.text, now_ms)
        if verdict.error is not None or verdict.checkpoint is None:
            log.warning("checkpoint_not_cosigned", site=message.site, error=verdict.error, text=verdict.text)
            # Another witness may stand where this one does not.
            return [Answer(self._say(connection, message, verdict), message)]
        row = {"site": message.site, "epoch": message.epoch, "size": checkpoint.size, "root": checkpoint.root}
        put(connection, witnessed, row | {"note": raw, "at": now_ms})
        line = cosign(note.text, self.public.name, self._key, now_ms // 1000)
        said = self._say(connection, message, verdict)
        return [Answer(said.model_copy(update={"of_size": checkpoint.size, "lines": line.line()}), message)]

    @staticmethod
    def _submission(message: CheckpointMessage, held: Held | None) -> Submission:
        """The proof that begins where this witness stands; without one the answer is a conflict with its size."""
        size = held.size if held else 0
        found = next((p for p in message.proofs if p.old == size), None)
        path: tuple[bytes, ...] = ()
        if found is not None:
            try:
                path = tuple(unb64(step, max_bytes=64) for step in found.path)
            except BadKey:
                path = (b"",)
        old = size if found is not None or size == 0 else 0
        return Submission(old, path, message.note.encode())

    def _held(self, connection: Connection, message: CheckpointMessage) -> Held | None:
        row = connection.execute(
            sa.select(witnessed.c.size, witnessed.c.root).where(
                witnessed.c.site == message.site, witnessed.c.epoch == message.epoch
            )
        ).first()
        return None if row is None else Held(int(row.size), bytes(row.root))

    def _say(self, connection: Connection, message: CheckpointMessage, verdict: Verdict) -> Cosign:
        held = self._held(connection, message)
        return Cosign.model_validate(
            {
                "site": message.site,
                "epoch": message.epoch,
                "witness": self.public.name,
                "size": held.size if held else 0,
                "error": verdict.error,
                "text": verdict.text[:500] or None,
            }
        )

    @staticmethod
    def _keep_leaves(connection: Connection, message: CheckpointMessage, size: int) -> None:
        try:
            data = unb64(message.leaves, max_bytes=180_000) if message.leaves else b""
        except BadKey:
            tally(connection, message.site, "leaves_bad", 1)
            return
        if len(data) % HASH_BYTES or message.first + len(data) // HASH_BYTES > size:
            tally(connection, message.site, "leaves_bad", 1)
            return
        rows = [
            {
                "site": message.site,
                "epoch": message.epoch,
                "idx": message.first + i // HASH_BYTES,
                "hash": data[i : i + HASH_BYTES],
            }
            for i in range(0, len(data), HASH_BYTES)
        ]
        insert_new(connection, leaves, rows)

    @staticmethod
    def _keep_note(connection: Connection, message: CheckpointMessage, raw: bytes, size: int, now_ms: int) -> bool:
        of_log = (notes.c.site == message.site, notes.c.epoch == message.epoch)
        count = connection.execute(sa.select(sa.func.count()).select_from(notes).where(*of_log)).scalar_one()
        if count >= MAX_NOTES_PER_LOG:
            tally(connection, message.site, "checkpoints_over_bound", 1)
            return False
        row = {"site": message.site, "epoch": message.epoch, "sha256": hashlib.sha256(raw).hexdigest()}
        insert_new(connection, notes, [row | {"size": size, "note": raw, "received_at": now_ms}])
        return True

    @staticmethod
    def _keep_split(connection: Connection, message: CheckpointMessage, raw: bytes, why: str, now_ms: int) -> None:
        held = connection.execute(
            sa.select(witnessed.c.note).where(witnessed.c.site == message.site, witnessed.c.epoch == message.epoch)
        ).scalar()
        row = {"site": message.site, "epoch": message.epoch, "sha256": hashlib.sha256(raw).hexdigest()}
        proof = {"why": why[:300], "note": raw, "held": bytes(held or b""), "received_at": now_ms}
        insert_new(connection, splits, [row | proof])
        log.error("log_split", site=message.site, epoch=message.epoch, why=why)

    def greet(self, connection: Connection, site: str, epoch: str) -> Cosign:
        """What a site hears when it comes on line: what this witness holds of its log, and of the one before."""
        rows = connection.execute(
            sa.select(witnessed.c.epoch, witnessed.c.size, witnessed.c.note)
            .where(witnessed.c.site == site)
            .order_by(witnessed.c.at.desc())
            .limit(MAX_WITNESSED)
        ).all()
        mine = next((row for row in rows if row.epoch == epoch), None)
        before = next((row for row in rows if row.epoch != epoch), None)
        return Cosign(
            site=site,
            epoch=epoch,
            witness=self.public.name,
            size=int(mine.size) if mine else 0,
            latest=bytes(mine.note).decode() if mine else None,
            previous=bytes(before.note).decode() if before else None,
        )


def largest_note(connection: Connection, site: str, epoch: str) -> int:
    """Size of the largest checkpoint held of a log, 0 for none."""
    of_log = (notes.c.site == site, notes.c.epoch == epoch)
    return int(connection.execute(sa.select(sa.func.max(notes.c.size)).where(*of_log)).scalar() or 0)


def missing_leaves(connection: Connection, site: str, epoch: str, size: int) -> tuple[int, int] | None:
    """The first hole among the leaves below ``size``, both ends included; ``None`` where there is none."""
    of_log = (leaves.c.site == site, leaves.c.epoch == epoch, leaves.c.idx < size)
    count, top = connection.execute(
        sa.select(sa.func.count(), sa.func.max(leaves.c.idx)).select_from(leaves).where(*of_log)
    ).one()
    if count == size:
        return None
    if count == (top + 1 if top is not None else 0):
        return (count, size - 1)
    expected = 0
    for (idx,) in connection.execute(sa.select(leaves.c.idx).where(*of_log).order_by(leaves.c.idx)):
        if idx != expected:
            return (expected, int(idx) - 1)
        expected += 1
    return (expected, size - 1)
