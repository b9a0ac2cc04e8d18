"""What a witness decides about a checkpoint. Pure: the caller keeps what is decided before it answers.

A witness remembers one size and root per log. It cosigns only what continues them, so that nobody can be shown another
history than it was (C2SP tlog-witness). What a log signed and must not have signed is kept as proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wire.checkpoints import Checkpoint, Submission, open_checkpoint
from wire.errors import BadNote, BadProof
from wire.merkle import EMPTY_ROOT, check_consistency
from wire.notes import NoteKey


@dataclass(frozen=True, slots=True)
class Held:
    """The newest checkpoint of a log that this witness cosigned."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """``checkpoint`` is to be kept and cosigned where ``error`` is ``None``.

    ``status`` is the HTTP status of C2SP tlog-witness. ``misbehaviour`` is True where the log's own signatures prove
    two histories.
    """

    status: int
    checkpoint: Checkpoint | None
    error: str | None = None
    text: str = ""
    misbehaviour: bool = False


def judge(held: Held | None, submission: Submission, log_keys: Sequence[NoteKey]) -> Verdict:
    """Judge a submission against what is held.

    Args:
        held: newest checkpoint cosigned for this log; ``None`` for the first.
        submission: what the log sent.
        log_keys: keys of that log; none where the log is unknown.
    """
    if not log_keys:
        return Verdict(404, None, "unknown_log", "no key of this log is known; the registrar has to name it")
    try:
        checkpoint, _ = open_checkpoint(submission.note, log_keys)
    except BadNote as error:
        return Verdict(403, None, "bad_signature", str(error))
    size = held.size if held else 0
    if submission.old > checkpoint.size:
        return Verdict(400, checkpoint, "bad_proof", f"old size {submission.old} is above the size {checkpoint.size}")
    if held is not None and checkpoint.size == size and checkpoint.root != held.root:
        return Verdict(409, checkpoint, "conflict", f"another root of size {size} was cosigned", misbehaviour=True)
    if submission.old != size:
        return Verdict(409, checkpoint, "conflict", f"this witness has size {size}, not {submission.old}")
    try:
        if held is None or size == 0:
            if submission.proof:
                raise BadProof("a proof from size 0 proves nothing and has to be empty")
            if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
                raise BadProof("an empty log has another root")
        else:
            check_consistency(size, checkpoint.size, held.root, checkpoint.root, submission.proof)
    except BadProof as error:
        return Verdict(422, checkpoint, "bad_proof", str(error), misbehaviour=False)
    return Verdict(200, checkpoint)
