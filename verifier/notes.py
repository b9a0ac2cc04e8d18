"""Signed notes, checkpoints, cosignatures and policies (C2SP), as far as a bundle needs them.

A note is text, an empty line, and lines ``— <name> <base64(4-byte key id ‖ signature)>``. Lines of unknown keys are
ignored; a known key whose line is wrong refuses the note.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verifier.errors import InputLimit
from verifier.keys import Key, P256Key, decode_base64, load_key

ED25519, ECDSA_P256, COSIGNATURE = 1, 2, 4
MAX_NOTE = 65_536
MAX_SIGNATURES = 64
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NAME = re.compile(r"[^\s+]{1,128}")


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key under the name that notes call it by."""

    name: str
    kind: int
    key: Key | P256Key

    @classmethod
    def of_log(cls, origin: str, key: Key | P256Key) -> NoteKey:
        """The key of a log, whose name is its origin."""
        return cls(origin, ECDSA_P256 if isinstance(key, P256Key) else ED25519, key)

    @property
    def key_id(self) -> bytes:
        """The four bytes before each signature."""
        if self.kind == ECDSA_P256:
            return hashlib.sha256(self.key.raw).digest()[:4]
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.key.raw).digest()[:4]


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint note, taken apart."""

    raw: bytes
    text: str
    origin: str
    size: int
    root: bytes
    lines: tuple[tuple[str, bytes, bytes], ...]
    """(name, key id, signature)."""

    @property
    def digest(self) -> str:
        """SHA-256 of the whole note, hex: what records are anchored to."""
        return hashlib.sha256(self.raw).hexdigest()

    def signed_by(self, keys: Sequence[NoteKey]) -> bool:
        """True if one of these log keys signed the text.

        Raises:
            ValueError: a line of one of them is not its signature.
        """
        good = False
        for key in keys:
            for name, key_id, signature in self.lines:
                if name != key.name or key_id != key.key_id:
                    continue
                if not key.key.verifies(self.text.encode(), signature):
                    raise ValueError(f"the signature of {name} is not over this text")
                good = True
        return good

    def cosigned(self, witnesses: Sequence[NoteKey]) -> dict[str, int]:
        """Witness name → POSIX time of its cosignature, the earliest where there are several.

        Raises:
            ValueError: a line of one of them is not its cosignature.
        """
        times: dict[str, int] = {}
        for key in witnesses:
            for name, key_id, blob in self.lines:
                if name != key.name or key_id != key.key_id:
                    continue
                at_s = int.from_bytes(blob[:8], "big")
                message = f"cosignature/v1\ntime {at_s}\n{self.text}".encode()
                if len(blob) != 72 or at_s >= 2**53 or not key.key.verifies(message, blob[8:]):
                    raise ValueError(f"the cosignature of {name} is not over this checkpoint")
                times[name] = min(at_s, times.get(name, at_s))
        return times


def read_note(raw: bytes) -> Note:
    """A checkpoint note out of its bytes; no signature is checked.

    Raises:
        ValueError: it is none.
        InputLimit: more bytes or signatures than any honest note has.
    """
    if len(raw) > MAX_NOTE:
        raise InputLimit(f"a note of {len(raw)} bytes")
    whole = raw.decode("utf-8")
    if _CONTROL.search(whole):
        raise ValueError("control characters in a note")
    head, gap, tail = whole.rpartition("\n\n")
    words = head.split("\n")
    if not gap or not tail.endswith("\n") or len(words) != 3 or not _SIZE.fullmatch(words[1]):
        raise ValueError("not origin, size, root, an empty line and signatures")
    root = decode_base64(words[2], 32)
    if len(root) != 32:
        raise ValueError("a root that is not 32 bytes")
    lines = tail.split("\n")[:-1]
    if len(lines) > MAX_SIGNATURES:
        raise InputLimit(f"a note with {len(lines)} signature lines, at most {MAX_SIGNATURES} are read")
    return Note(raw, head + "\n", words[0], int(words[1]), root, tuple(_line(line) for line in lines))


def _line(line: str) -> tuple[str, bytes, bytes]:
    name, space, body = line.removeprefix("— ").partition(" ")
    if not line.startswith("— ") or not space or not _NAME.fullmatch(name):
        raise ValueError("not a signature line")
    data = decode_base64(body, 8192)
    if len(data) < 5:
        raise ValueError("a signature that is too short")
    return name, data[:4], data[4:]


@dataclass(frozen=True, slots=True)
class Policy:
    """Which cosignatures make a quorum."""

    witnesses: Mapping[str, NoteKey]
    groups: Mapping[str, tuple[int, tuple[str, ...]]]
    quorum: str | None

    @property
    def keys(self) -> list[NoteKey]:
        """Keys of all witnesses."""
        return list(self.witnesses.values())

    def quorum_time(self, times: Mapping[str, int]) -> int | None:
        """The earliest time by which the quorum had cosigned, POSIX seconds; ``None`` where it never did."""
        if self.quorum is None:
            return None
        for at_s in sorted(set(times.values())):
            if self._holds(self.quorum, {name for name, when in times.items() if when <= at_s}):
                return at_s
        return None

    def _holds(self, name: str, cosigners: set[str]) -> bool:
        if name in self.witnesses:
            return self.witnesses[name].name in cosigners
        needed, members = self.groups[name]
        return sum(self._holds(member, cosigners) for member in members) >= needed


def read_policy(text: str) -> Policy:
    """A policy out of its text: ``witness``, ``group`` and ``quorum`` lines.

    Raises:
        ValueError: which line is wrong.
    """
    witnesses: dict[str, NoteKey] = {}
    groups: dict[str, tuple[int, tuple[str, ...]]] = {}
    quorum: str | None = None
    said = False
    for number, line in enumerate(text.splitlines()[:1000], 1):
        words = line.partition("#")[0].split()
        known = {*witnesses, *groups}
        if not words or words[0] == "log":
            continue
        if words[0] == "witness" and 3 <= len(words) <= 4 and words[1] not in {*known, "none"}:
            key = _witness(words[2])
            if any(key.key.raw == other.key.raw or key.name == other.name for other in witnesses.values()):
                raise ValueError(f"policy line {number}: one key twice")
            witnesses[words[1]] = key
        elif words[0] == "group" and len(words) > 3 and words[1] not in {*known, "none"}:
            members = tuple(words[3:])
            needed = {"any": "1", "all": str(len(members))}.get(words[2], words[2])
            if len(set(members)) != len(members) or not known.issuperset(members) or not needed.isdecimal():
                raise ValueError(f"policy line {number}: members")
            if not 1 <= int(needed) <= len(members):
                raise ValueError(f"policy line {number}: {needed} of {len(members)}")
            groups[words[1]] = (int(needed), members)
        elif words[0] == "quorum" and len(words) == 2 and not said and words[1] in {*known, "none"}:
            quorum, said = (None if words[1] == "none" else words[1]), True
        else:
            raise ValueError(f"policy line {number}: not understood")
    if not said:
        raise ValueError("the policy names no quorum")
    return Policy(witnesses, groups, quorum)


def _witness(text: str) -> NoteKey:
    name, _, rest = text.partition("+")
    key_id, _, body = rest.partition("+")
    data = decode_base64(body, 64)
    if not _NAME.fullmatch(name) or len(data) != 33 or data[0] != COSIGNATURE:
        raise ValueError(f"witness key {name[:60]!r} is not name+id+key of type 4")
    key = NoteKey(name, COSIGNATURE, load_key(base64.b64encode(data[1:]).decode()))
    if key.key_id.hex() != key_id:
        raise ValueError(f"witness key {name}: its identifier is {key.key_id.hex()}")
    return key
