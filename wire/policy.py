"""Who has to have cosigned a checkpoint (C2SP tlog-policy).

Lines ``witness <name> <vkey>``, ``group <name> <k|any|all> <member>…``, ``quorum <name|none>``; ``#`` begins a comment.
``log`` lines are allowed and ignored here: which log key is right says the register.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from wire.errors import BadNote
from wire.notes import COSIGNATURE, NoteKey

MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class Policy:
    """A quorum over witnesses. ``witnesses`` by the policy's own names."""

    text: str
    witnesses: dict[str, NoteKey]
    groups: dict[str, tuple[int, tuple[str, ...]]]
    quorum: str | None

    def satisfied(self, cosigners: Collection[str]) -> bool:
        """True where the witnesses with these key names make the quorum. One key counts once, whatever its names."""
        return self.quorum is None or self._holds(self.quorum, cosigners)

    def _holds(self, name: str, cosigners: Collection[str]) -> bool:
        if name in self.witnesses:
            return self.witnesses[name].name in cosigners
        needed, members = self.groups[name]
        return sum(self._holds(member, cosigners) for member in members) >= needed

    @property
    def keys(self) -> list[NoteKey]:
        """Keys of all witnesses."""
        return list(self.witnesses.values())


def parse_policy(text: str) -> Policy:
    """Read a policy.

    Raises:
        BadNote: what is wrong in which line.
    """
    lines = text.splitlines()
    if len(lines) > MAX_LINES or len(text) > MAX_LINES * 400:
        raise BadNote(f"policy is longer than {MAX_LINES} lines")
    witnesses: dict[str, NoteKey] = {}
    groups: dict[str, tuple[int, tuple[str, ...]]] = {}
    quorum: str | None = None
    said = False
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        known = {*witnesses, *groups}
        match words:
            case [] | ["log", _] | ["log", _, _]:
                continue
            case ["witness", name, key, *_] if len(words) <= 4 and name not in {*known, "none"}:
                witnesses[name] = _witness(number, key, witnesses)
            case ["group", name, needed, *members] if name not in {*known, "none"}:
                groups[name] = (_needed(number, needed, members, known), tuple(members))
            case ["quorum", name] if not said and name in {*known, "none"}:
                quorum, said = (None if name == "none" else name), True
            case _:
                raise BadNote(
                    f"policy line {number}: {line[:80]!r} is not a witness, group or quorum line in its place"
                )
    if not said:
        raise BadNote("policy names no quorum; write 'quorum none' where no witness is asked for")
    return Policy(text, witnesses, groups, quorum)


def _witness(number: int, text: str, others: dict[str, NoteKey]) -> NoteKey:
    try:
        key = NoteKey.parse(text)
    except BadNote as error:
        raise BadNote(f"policy line {number}: {error}") from None
    if key.kind != COSIGNATURE:
        raise BadNote(f"policy line {number}: key {key.name} is of type 0x{key.kind:02x}, expected 0x04 (cosignature)")
    if any(key.public == other.public or key.name == other.name for other in others.values()):
        raise BadNote(f"policy line {number}: the key of {key.name} stands there twice; one key is one witness")
    return key


def _needed(number: int, word: str, members: list[str], known: set[str]) -> int:
    if not members or len(set(members)) != len(members) or not known.issuperset(members):
        raise BadNote(f"policy line {number}: a group has different members that stand above it")
    if word in ("any", "all"):
        return 1 if word == "any" else len(members)
    if not word.isascii() or not word.isdecimal() or not 1 <= int(word) <= len(members):
        raise BadNote(f"policy line {number}: saw {word[:20]!r}, expected any, all or 1 to {len(members)}")
    return int(word)
