"""The log of one epoch: leaf hashes, checkpoints, and the time that witnesses give to records.

``log/<epoch>.leaves`` holds every leaf hash up to the largest checkpoint, 32 bytes each; ``log/<epoch>.notes`` the
cosigned checkpoints, each after a line with its length; ``records/<epoch>/<stream>.idx`` the place of each line in the
log, 8 bytes big-endian, all ones where no checkpoint holds it yet. The order of the leaves is believed because the
roots that follow from it are those that the log signed and the witnesses cosigned.

A record was made after the cosignatures of its anchor and before those of the first checkpoint that holds it: between
the two its own clock has to lie.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

from verifier.archive import Bundle, Entry
from verifier.errors import (
    AnchorError,
    ArchiveError,
    CheckpointError,
    EquivocationError,
    LeafError,
    TimeEvidenceError,
    TruncatedError,
)
from verifier.notes import MAX_NOTE, Note, NoteKey, Policy, read_note
from verifier.register import LogKey

HASH = 32
NOWHERE = 2**64 - 1
MAX_LEAVES = 60_000_000
MAX_NOTES = 400_000
SLACK_S = 120
"""How far clocks of sites and witnesses may be apart."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint that the quorum cosigned, and by when."""

    size: int
    at_s: int
    digest: str


@dataclass(slots=True)
class EpochLog:
    """Leaves and checkpoints of one epoch, already checked against each other."""

    epoch: str
    slot_s: int
    leaves: bytes
    cosigned: list[Cosigned]
    checkpoints: int
    signers: frozenset[str] = frozenset()
    """Keys that signed checkpoints."""
    roots: dict[int, bytes] = field(default_factory=dict)
    """Root by size, of the checkpoints and of every other size that was asked for."""
    _anchors: dict[str, Cosigned] = field(init=False)
    _sizes: list[int] = field(init=False)
    _used: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self._anchors = {c.digest: c for c in self.cosigned}
        self._sizes = [c.size for c in self.cosigned]
        self._used = bytearray(self.size // 8 + 1)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self.leaves) // HASH

    def place(self, index: int, leaf: bytes, where: str) -> None:
        """A record says where in the log it is.

        Raises:
            LeafError: another leaf is there, or another record was.
        """
        if index >= self.size or self.leaves[index * HASH : index * HASH + HASH] != leaf:
            raise LeafError(f"{where}: is not leaf {index} of {self.epoch}")
        byte, bit = divmod(index, 8)
        if self._used[byte] >> bit & 1:
            raise LeafError(f"{where}: leaf {index} of {self.epoch} is another record")
        self._used[byte] |= 1 << bit

    def withheld(self) -> int:
        """Leaves whose records are not in the bundle."""
        return self.size - sum(byte.bit_count() for byte in self._used)

    def withheld_before(self, end_s: int) -> int:
        """Of these, the ones that witnesses saw in time for a period that ends at ``end_s``."""
        size = max((c.size for c in self.cosigned if c.at_s + SLACK_S <= end_s), default=0)
        byte, bits = divmod(size, 8)
        whole = sum(used.bit_count() for used in self._used[:byte])
        return size - whole - (self._used[byte] & ((1 << bits) - 1)).bit_count()

    def used(self) -> bytes:
        """Which leaves have their records: one bit each, the lowest first."""
        return bytes(self._used)

    def use(self, seen: bytes) -> None:
        """Take over what another process has seen of this log; streams do not share leaves."""
        both = int.from_bytes(self._used, "little") | int.from_bytes(seen, "little")
        self._used[:] = both.to_bytes(len(self._used), "little")

    def witnessed_by(self, index: int) -> int | None:
        """When the quorum had cosigned this leaf, POSIX seconds; ``None`` where it never did."""
        place = bisect_right(self._sizes, index)
        return self.cosigned[place].at_s if place < len(self.cosigned) else None

    def root(self, size: int) -> bytes:
        """The root of the first ``size`` leaves."""
        self.find({size})
        return self.roots[size]

    def find(self, sizes: Set[int]) -> None:
        """Compute the roots of these sizes that are not known yet, in one pass over the leaves."""
        wanted = {size for size in sizes if size <= self.size} - self.roots.keys()
        edge: list[bytes] = []
        for index in range(max(wanted, default=0)):
            if index in wanted:
                self.roots[index] = _root(edge)
            _push(edge, self.leaves[index * HASH : index * HASH + HASH], index)
        if wanted:
            self.roots[max(wanted)] = _root(edge)

    def grade(self, index: int, anchor: object, at_ms: int, where: str) -> str:
        """``B`` where witnesses bracket the record closely enough, else ``C``.

        Raises:
            AnchorError: anchored to a checkpoint that is not there, or that came after it.
            TimeEvidenceError: its clock cannot have been right.
        """
        after = self._after(index, anchor, where)
        before = bisect_right(self._sizes, index)
        at_s = at_ms / 1000
        if after is not None and at_s < after.at_s - SLACK_S:
            late = round(after.at_s - at_s)
            raise TimeEvidenceError(f"{where}: says a time {late} s before its anchor was cosigned: BACKDATED")
        if before == len(self.cosigned):
            return "C"
        upper = self.cosigned[before].at_s
        if at_s > upper + SLACK_S:
            raise TimeEvidenceError(f"{where}: was cosigned {round(at_s - upper)} s before the time it says: FUTURE")
        if index == 0 or after is None:
            return "B" if upper - at_s <= self._wide_s else "C"
        return "B" if upper - after.at_s <= 2 * self._wide_s else "C"

    @property
    def _wide_s(self) -> int:
        return 2 * self.slot_s + 600

    def _after(self, index: int, anchor: object, where: str) -> Cosigned | None:
        if anchor is None:
            return None
        if not isinstance(anchor, dict) or set(anchor) != {"s", "h"} or type(anchor["s"]) is not int:
            raise AnchorError(f"{where}: an anchor is size and hash")
        found = self._anchors.get(str(anchor["h"]))
        if found is None or found.size != anchor["s"]:
            raise AnchorError(f"{where}: anchored to a checkpoint that nobody cosigned")
        if found.size > index:
            raise AnchorError(f"{where}: anchored to a checkpoint that holds it")
        return found


def read_log(
    bundle: Bundle,
    epoch: str,
    origin: str,
    slot_s: int,
    keys: Sequence[LogKey],
    policy: Policy,
    head: Note | None,
    names: tuple[str, str] | None = None,
) -> EpochLog:
    """Leaves and checkpoints of an epoch: roots, the log's signatures, the quorum, sizes and times.

    ``names`` are the files of leaves and checkpoints where they are not those of an epoch.

    Raises:
        VerifyError: which of these does not hold.
    """
    names = names or (f"log/{epoch}.leaves", f"log/{epoch}.notes")
    leaves = bundle.read(bundle.entries[names[0]], MAX_LEAVES * HASH)
    if len(leaves) % HASH:
        raise LeafError(f"{names[0]}: {len(leaves)} bytes are no whole number of hashes")
    cosigned: list[Cosigned] = []
    wanted: dict[int, bytes] = {}
    witnesses = _Witnesses(names[1])
    checkpoints = largest = 0
    signers: set[str] = set()
    for note in _notes(bundle, bundle.entries[names[1]]):
        signers |= signed(note, origin, keys, names[1])
        try:
            _only_known(note, origin, keys, policy)
            times = note.cosigned(policy.keys)
            at_s = policy.quorum_time(times)
        except ValueError as error:
            raise CheckpointError(f"{names[1]}: size {note.size}: {error}") from None
        witnesses.saw(note.size, times)
        _want(wanted, note, epoch)
        checkpoints, largest = checkpoints + 1, max(largest, note.size)
        if at_s is not None:
            cosigned.append(Cosigned(note.size, at_s, note.digest))
    if head is not None and head.origin == origin:
        signed(head, origin, keys, "--head")
        _want(wanted, head, epoch)
    _roots(leaves, wanted, epoch)
    witnesses.check()
    cosigned.sort(key=lambda c: (c.size, c.at_s))
    for one, two in pairwise(cosigned):
        if two.at_s < one.at_s - SLACK_S:
            raise CheckpointError(f"{names[1]}: size {two.size} was cosigned before size {one.size}")
    if largest != len(leaves) // HASH:
        raise TruncatedError(f"{epoch}: {len(leaves) // HASH} leaves, the largest checkpoint has {largest}")
    return EpochLog(epoch, slot_s, leaves, cosigned, checkpoints, frozenset(signers), dict(wanted))


@dataclass(slots=True)
class _Witnesses:
    """Each witness by itself: it cosigns a log only as it grows, so its times grow too."""

    where: str
    _seen: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def saw(self, size: int, times: Mapping[str, int]) -> None:
        for name, at_s in times.items():
            self._seen.setdefault(name, []).append((size, at_s))

    def check(self) -> None:
        for name, seen in self._seen.items():
            for (size, at_s), (_, then_s) in pairwise(sorted(seen)):
                if then_s < at_s - SLACK_S:
                    raise CheckpointError(f"{self.where}: the time of {name} runs back after size {size}")


def signed(note: Note, origin: str, keys: Sequence[LogKey], where: str) -> set[str]:
    """Identifiers of the log's keys that signed."""
    # A checkpoint speaks about every leaf below its size, so its key has to be valid for the last of them.
    signers = {k.key.kid: NoteKey.of_log(origin, k.key) for k in keys if note.size == 0 or k.holds(note.size - 1)}
    try:
        good = {kid for kid, key in signers.items() if note.signed_by([key])}
        if note.origin != origin or not good:
            text = f"a checkpoint of {note.origin[:80]}, size {note.size}, not signed by a key that is valid there"
            raise CheckpointError(f"{where}: {text}, expected the log {origin}")
    except ValueError as error:
        raise CheckpointError(f"{where}: size {note.size}: {error}") from None
    return good


def _only_known(note: Note, origin: str, keys: Sequence[LogKey], policy: Policy) -> None:
    """In a bundle no line may be there that nobody can check: there would be two bundles that say the same."""
    known = {(k.name, k.key_id) for k in (*policy.keys, *(NoteKey.of_log(origin, key.key) for key in keys))}
    strange = sorted({name for name, key_id, _ in note.lines if (name, key_id) not in known})
    if strange:
        raise ValueError(f"signed by {', '.join(strange)[:80]}, neither the log nor a witness of the policy")


def _want(wanted: dict[int, bytes], note: Note, epoch: str) -> None:
    if wanted.setdefault(note.size, note.root) != note.root:
        raise EquivocationError(f"{epoch}: the log signed two roots of size {note.size}: proof of two histories")


def _notes(bundle: Bundle, entry: Entry) -> Iterator[Note]:
    data = bundle.read(entry, 2**30)
    at = count = 0
    while at < len(data):
        end = data.find(b"\n", at, at + 8)
        digits = data[at:end]
        if end < 0 or not digits.isdigit() or digits.startswith(b"0") or int(digits) > MAX_NOTE:
            raise ArchiveError(f"{entry.name}: no length before a note")
        raw = data[end + 1 : end + 1 + int(digits)]
        at, count = end + 1 + int(digits), count + 1
        if len(raw) != int(digits) or count > MAX_NOTES:
            raise ArchiveError(f"{entry.name}: ends within a note, or has too many")
        try:
            yield read_note(raw)
        except ValueError as error:
            raise CheckpointError(f"{entry.name}: {error}") from None


def _push(edge: list[bytes], node: bytes, index: int) -> None:
    """One leaf more at the right edge of the tree: the roots of its complete subtrees, the largest first."""
    sha = hashlib.sha256
    while index & 1:
        node = sha(b"\x01" + edge.pop() + node).digest()
        index >>= 1
    edge.append(node)


def _root(edge: Sequence[bytes]) -> bytes:
    if not edge:
        return hashlib.sha256(b"").digest()
    root = edge[-1]
    for left in reversed(edge[:-1]):
        root = hashlib.sha256(b"\x01" + left + root).digest()
    return root


def root_of(leaves: bytes) -> bytes:
    """The root of a tree over leaf hashes that stand one after the other."""
    edge: list[bytes] = []
    for index in range(len(leaves) // HASH):
        _push(edge, leaves[index * HASH : index * HASH + HASH], index)
    return _root(edge)


def _roots(leaves: bytes, wanted: Mapping[int, bytes], epoch: str) -> None:
    """One pass over the leaves; at every checkpoint's size the root has to be the one that was signed."""
    count = len(leaves) // HASH
    beyond = [size for size in wanted if size > count]
    if beyond:
        raise TruncatedError(f"{epoch}: the log has {max(beyond)} records, the bundle tells of {count}")
    edge: list[bytes] = []
    if wanted.get(0, _root(edge)) != _root(edge):
        raise LeafError(f"{epoch}: the root of the empty log")
    for index in range(count):
        _push(edge, leaves[index * HASH : index * HASH + HASH], index)
        if index + 1 in wanted and _root(edge) != wanted[index + 1]:
            raise LeafError(f"{epoch}: the root of {index + 1} leaves is not the one that was signed")


def places_of(bundle: Bundle, entry: Entry | None, where: str) -> Sequence[int] | None:
    """Log indexes of a stream's lines, in order; ``None`` where the bundle gives none.

    Raises:
        VerifyError: the file is no whole number of indexes.
    """
    if entry is None:
        return None
    data = bundle.read(entry, MAX_LEAVES * 8)
    if len(data) % 8:
        raise LeafError(f"{where}: {len(data)} bytes are no whole number of indexes")
    found = array("Q", data)
    if sys.byteorder == "little":
        found.byteswap()
    return found
