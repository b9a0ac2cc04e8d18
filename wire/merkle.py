"""RFC 6962 Merkle trees: growing one, proving with one, checking its proofs.

Leaf = SHA-256(0x00 ‖ data), node = SHA-256(0x01 ‖ left ‖ right). A tree is never kept whole: a :class:`Frontier` holds
the roots of its complete subtrees, and proofs ask a :class:`Nodes` for hashes of complete, aligned subtrees. Proofs
about a tree of size 0 are refused: they say nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from wire.errors import BadProof

HASH_BYTES = 32
MAX_PROOF = 64
"""A tree of 2^53 leaves has no longer proof."""
EMPTY_ROOT = hashlib.sha256(b"").digest()

Nodes = Callable[[int, int], bytes]
"""``nodes(height, index)``: root of the complete subtree of 2^height leaves that begins at leaf index·2^height."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Frontier:
    """Right edge of a tree: what is needed to add leaves and to say the root.

    ``roots`` holds the roots of the complete subtrees, largest first, one for each bit set in ``size``.
    """

    size: int = 0
    roots: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf hash; returns the subtrees it completed: ``(height, index, hash)``, the leaf itself first."""
        done = [(0, self.size, leaf)]
        height, rest, node = 0, self.size, leaf
        while rest & 1:
            node = node_hash(self.roots.pop(), node)
            rest >>= 1
            height += 1
            done.append((height, rest, node))
        self.roots.append(node)
        self.size += 1
        return done

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """Root of the tree."""
        if not self.roots:
            return EMPTY_ROOT
        node = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            node = node_hash(left, node)
        return node

    def encode(self) -> bytes:
        """Roots one after another; the size is kept beside."""
        return b"".join(self.roots)

    @classmethod
    def decode(cls, size: int, data: bytes) -> Frontier:
        """From :meth:`encode`.

        Raises:
            BadProof: the number of hashes does not fit the size.
        """
        if size < 0 or len(data) != HASH_BYTES * size.bit_count():
            raise BadProof(f"frontier of {len(data)} bytes does not fit a tree of {size} leaves")
        return cls(size, [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)])


def root_of(nodes: Nodes, begin: int, end: int) -> bytes:
    """Root of the leaves ``begin`` to ``end`` (excluded); ``begin`` is aligned as RFC 6962 splits.

    Raises:
        BadProof: no leaves.
    """
    size = end - begin
    if size < 1:
        raise BadProof("no leaves between the bounds")
    if size & (size - 1) == 0 and begin % size == 0:
        return nodes(size.bit_length() - 1, begin // size)
    split = _split(size)
    return node_hash(root_of(nodes, begin, begin + split), root_of(nodes, begin + split, end))


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """Path from leaf ``index`` to the root of a tree of ``size`` leaves, lowest first.

    Raises:
        BadProof: there is no such leaf.
    """
    if not 0 <= index < size:
        raise BadProof(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(root_of(nodes, middle, end))
            end = middle
        else:
            path.append(root_of(nodes, begin, middle))
            begin = middle
    return path[::-1]


def consistency_proof(nodes: Nodes, old: int, new: int) -> list[bytes]:
    """That the first ``old`` leaves of a tree of ``new`` are the tree of ``old``; empty where the sizes are equal.

    Raises:
        BadProof: the sizes make no proof.
    """
    if not 0 < old <= new:
        raise BadProof(f"no proof from size {old} to size {new}")
    path: list[bytes] = []
    begin, end, whole = 0, new, True
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append(root_of(nodes, middle, end))
            end = middle
        else:
            path.append(root_of(nodes, begin, middle))
            begin, whole = middle, False
    if not whole:
        path.append(root_of(nodes, begin, end))
    return path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check a path (RFC 9162, 2.1.3.2).

    Raises:
        BadProof: it does not lead to the root.
    """
    _sane([leaf, root, *path])
    if not 0 <= index < size:
        raise BadProof(f"leaf {index} is not in a tree of {size}")
    position, last, node = index, size - 1, leaf
    for step in path:
        if last == 0:
            raise BadProof("the path is longer than the tree is high")
        if position & 1 or position == last:
            node = node_hash(step, node)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            node = node_hash(node, step)
        position >>= 1
        last >>= 1
    if last != 0 or node != root:
        raise BadProof("the path does not lead to the root")


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that a tree only grew (RFC 9162, 2.1.4.2).

    Raises:
        BadProof: it did not, or nothing is proven.
    """
    _sane([old_root, new_root, *path])
    if not 0 < old <= new:
        raise BadProof(f"no proof from size {old} to size {new}")
    if old == new:
        if path or old_root != new_root:
            raise BadProof("the same size with another root")
        return
    steps = list(path) if old & (old - 1) else [old_root, *path]
    if not steps:
        raise BadProof("the proof is empty")
    position, last = old - 1, new - 1
    while position & 1:
        position >>= 1
        last >>= 1
    was = now = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise BadProof("the proof is longer than the tree is high")
        if position & 1 or position == last:
            was, now = node_hash(step, was), node_hash(step, now)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            now = node_hash(now, step)
        position >>= 1
        last >>= 1
    if last != 0 or was != old_root or now != new_root:
        raise BadProof(f"the tree of {new} does not continue the tree of {old}")


def _split(size: int) -> int:
    """Largest power of two smaller than ``size`` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def _sane(hashes: Sequence[bytes]) -> None:
    if len(hashes) > MAX_PROOF + 2 or any(len(step) != HASH_BYTES for step in hashes):
        raise BadProof(f"leaf, roots and at most {MAX_PROOF} steps are hashes of {HASH_BYTES} bytes")
