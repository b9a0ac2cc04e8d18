"""Checkpoints of a site's log and their cosignatures (C2SP tlog-checkpoint, tlog-cosignature).

The text is ``origin LF size LF base64(root) LF`` and nothing else. The log's key name is its origin. A cosignature says
"at that time this was the largest consistent tree of that origin I had seen", never that the kilowatt-hours are right.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wire.errors import BadKey, BadNote, BadProof
from wire.keys import SigningKey, b64, unb64
from wire.logkeys import LogKey
from wire.merkle import HASH_BYTES, MAX_PROOF
from wire.notes import COSIGNATURE, ECDSA_P256, ED25519, Note, NoteKey, NoteSignature, parse_note, sign_note

_ORIGIN = re.compile(r"tizgin/[a-z0-9][a-z0-9-]{1,40}/(?:e[0-9]{1,6}-[0-9a-f]{8}|vee)")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
MAX_TIME_S = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How large a log is, and its root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n"

    def sign(self, key: SigningKey) -> Note:
        """The note signed by the log's key."""
        return sign_note(self.text, self.origin, key)

    def signed(self, key: LogKey, signature: bytes) -> Note:
        """The note with a signature that was made elsewhere, and that is checked here.

        Raises:
            BadNote: it is not this key's over this checkpoint.
        """
        named = log_key(self.origin, key.raw)
        note = Note(self.text, (NoteSignature(self.origin, named.key_id, signature),))
        note.signed_by(named)
        return note


def log_key(origin: str, public: bytes) -> NoteKey:
    """The note key of a log: raw Ed25519, or SubjectPublicKeyInfo DER of a P-256 key."""
    return NoteKey(origin, ED25519 if len(public) == 32 else ECDSA_P256, public)


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint of a note's text.

    Raises:
        BadNote: it is none, or of no log of this contract.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not _ORIGIN.fullmatch(lines[0]) or not _SIZE.fullmatch(lines[1]):
        raise BadNote("expected a checkpoint: tizgin/<site>/<epoch or vee>, size, base64 root, a line each")
    try:
        root = unb64(lines[2], max_bytes=64)
    except BadKey as error:
        raise BadNote(f"checkpoint root: {error}") from None
    if len(root) != HASH_BYTES:
        raise BadNote(f"checkpoint root of {len(root)} bytes, expected {HASH_BYTES}")
    return Checkpoint(lines[0], int(lines[1]), root)


def open_checkpoint(raw: bytes, keys: Sequence[NoteKey]) -> tuple[Checkpoint, Note]:
    """A checkpoint signed by its log.

    Raises:
        BadNote: not a note, or none of the keys signed it.
    """
    note = parse_note(raw)
    checkpoint = parse_checkpoint(note.text)
    if not any(key.name == checkpoint.origin and note.signed_by(key) for key in keys):
        raise BadNote(f"checkpoint of {checkpoint.origin} is not signed by a key of that log")
    return checkpoint, note


def cosigned_message(time_s: int, text: str) -> bytes:
    """What a witness signs."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def cosign(text: str, name: str, key: SigningKey, time_s: int) -> NoteSignature:
    """A witness's cosignature over a checkpoint text, at a POSIX time in seconds."""
    public = NoteKey(name, COSIGNATURE, key.public.raw)
    blob = time_s.to_bytes(8, "big") + key.sign(cosigned_message(time_s, text))
    return NoteSignature(name, public.key_id, blob)


def cosigned_at(text: str, line: NoteSignature, key: NoteKey) -> int:
    """When the witness signed, POSIX seconds.

    Raises:
        BadNote: the line is not this witness's signature over this text.
    """
    if key.kind != COSIGNATURE or not line.is_of(key) or len(line.signature) != 72:
        raise BadNote(f"not a cosignature of {key.name}")
    time_s = int.from_bytes(line.signature[:8], "big")
    if time_s > MAX_TIME_S or not key.verifies(cosigned_message(time_s, text), line.signature[8:]):
        raise BadNote(f"the cosignature of {key.name} is not over this checkpoint")
    return time_s


def cosignatures(note: Note, witnesses: Iterable[NoteKey]) -> dict[str, int]:
    """Who of the witnesses cosigned a note, and when (POSIX seconds); the earliest where one did so twice.

    Raises:
        BadNote: a line names a witness and is not its signature.
    """
    found: dict[str, int] = {}
    for key in witnesses:
        times = [cosigned_at(note.text, line, key) for line in note.of(key)]
        if times:
            found[key.name] = min(times)
    return found


def anchor_of(raw: bytes, size: int) -> dict[str, int | str]:
    """The anchor that records carry: size, and SHA-256 of the whole cosigned note.

    A cosignature cannot be guessed, so a record with this anchor was made after it.
    """
    return {"s": size, "h": hashlib.sha256(raw).hexdigest()}


@dataclass(frozen=True, slots=True)
class Submission:
    """What a log asks a witness (C2SP tlog-witness ``add-checkpoint``)."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """Request body: ``old N``, proof lines, an empty line, the note."""
        return "".join([f"old {self.old}\n", *(f"{b64(p)}\n" for p in self.proof), "\n"]).encode() + self.note

    @classmethod
    def parse(cls, raw: bytes) -> Submission:
        """From a request body.

        Raises:
            BadNote: it is none.
            BadProof: too long a proof, or something else than hashes in it.
        """
        head, gap, note = raw.partition(b"\n\n")
        lines = head.decode("ascii", "replace").split("\n")
        word, _, number = lines[0].partition(" ")
        if not gap or word != "old" or not _SIZE.fullmatch(number):
            raise BadNote("expected 'old <size>', proof lines, an empty line and a checkpoint")
        if len(lines) - 1 > MAX_PROOF - 1:
            raise BadProof(f"a proof of {len(lines) - 1} hashes, at most {MAX_PROOF - 1}")
        try:
            proof = tuple(unb64(line, max_bytes=64) for line in lines[1:])
        except BadKey as error:
            raise BadProof(f"proof: {error}") from None
        return cls(int(number), proof, note)
