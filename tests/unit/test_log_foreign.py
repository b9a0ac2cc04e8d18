"""Our checkpoints, cosignatures and proofs, checked by an implementation nobody here wrote (``tlog-scales``)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tlog_scales import tlog
from tlog_scales.signing import PlainEd25519Signer, Vkey, VkeySet
from tlog_scales.tlog import ConsistencyProof, ConsistencyProofInvalid, InclusionProof, InclusionProofInvalid

from agent.ledger import Ledger, Txn
from tests.unit.agent_kit import SimClock
from wire.checkpoints import Checkpoint, cosign, log_key
from wire.keys import SigningKey
from wire.merkle import Frontier, check_consistency, check_inclusion, consistency_proof, inclusion_proof
from wire.notes import COSIGNATURE, Note, NoteKey, parse_note

ORIGIN = "tizgin/ekb-01/e1-0badcafe"
LOG, SO, REG, STRANGER = (SigningKey.generate() for _ in range(4))
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 255, 256, 257, 300)


class Grown:
    """Our tree, with its roots at every size."""

    def __init__(self, size: int) -> None:
        self.leaves = [hashlib.sha256(b"\x00record %d" % n).digest() for n in range(size)]
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.roots = [hashlib.sha256(b"").digest()]
        edge = Frontier()
        for leaf in self.leaves:
            for height, index, node in edge.append(leaf):
                self.nodes[height, index] = node
            self.roots.append(edge.root())

    def get(self, height: int, index: int) -> bytes:
        return self.nodes[height, index]


@pytest.fixture(scope="module")
def tree() -> Grown:
    return Grown(max(SIZES))


def damaged(path: Sequence[bytes], rng: random.Random) -> list[bytes]:
    """The same path with one bit, one step or one order changed."""
    changed = list(path)
    kind = rng.randrange(3) if path else 1
    if kind == 0:
        at = rng.randrange(len(changed))
        changed[at] = bytes([changed[at][0] ^ 1]) + changed[at][1:]
    elif kind == 1:
        changed.insert(rng.randrange(len(changed) + 1), hashlib.sha256(b"x").digest())
    else:
        changed.pop(rng.randrange(len(changed)))
    return changed


def test_every_inclusion_proof_of_ours_holds_there_and_none_that_was_damaged(tree: Grown) -> None:
    rng = random.Random(1)
    for size in SIZES:
        for index in {0, size // 2, size - 1, rng.randrange(size)}:
            path = inclusion_proof(tree.get, index, size)
            leaf, root = tree.leaves[index], tree.roots[size]
            InclusionProof(index, size, path).check(leaf, root)
            check_inclusion(leaf, index, size, path, root)
            with pytest.raises(InclusionProofInvalid):
                InclusionProof(index, size, damaged(path, rng)).check(leaf, root)
            if size > 1:
                with pytest.raises(InclusionProofInvalid):
                    InclusionProof(index, size, path).check(tree.leaves[(index + 1) % size], root)


def test_every_consistency_proof_of_ours_holds_there_and_none_that_was_damaged(tree: Grown) -> None:
    rng = random.Random(2)
    for new in SIZES:
        for old in (size for size in SIZES if size < new):
            path = consistency_proof(tree.get, old, new)
            ConsistencyProof(old, new, path).check(tree.roots[old], tree.roots[new])
            check_consistency(old, new, tree.roots[old], tree.roots[new], path)
            with pytest.raises(ConsistencyProofInvalid):
                ConsistencyProof(old, new, damaged(path, rng)).check(tree.roots[old], tree.roots[new])
            with pytest.raises(ConsistencyProofInvalid):
                ConsistencyProof(old, new, path).check(hashlib.sha256(b"another").digest(), tree.roots[new])


def witnessed(tree: Grown) -> tuple[bytes, list[NoteKey]]:
    """A checkpoint of ours with two witnesses' lines, and the keys in the order of its lines."""
    note = Checkpoint(ORIGIN, 300, tree.roots[300]).sign(LOG)
    lines = [cosign(note.text, name, key, 1_790_000_000) for name, key in (("so.example", SO), ("reg.example", REG))]
    keys = [log_key(ORIGIN, LOG.public.raw)]
    keys += [NoteKey(n, COSIGNATURE, k.public.raw) for n, k in (("so.example", SO), ("reg.example", REG))]
    return Note(note.text, (*note.signatures, *lines)).encode(), keys


def test_a_cosigned_checkpoint_of_ours_is_read_and_verified_there(tree: Grown) -> None:
    raw, keys = witnessed(tree)
    there = tlog.Checkpoint.from_text(raw.decode())
    assert (there.origin, there.size, there.root_hash) == (ORIGIN, 300, tree.roots[300])
    for key in keys:
        named = Vkey.from_string(key.text)
        assert named.key_id == int.from_bytes(key.key_id, "big")
        assert named.serialize() == key.text
        there.verify(named)
    found = VkeySet(*(Vkey.from_string(key.text) for key in keys)).verify(there.signatures, there)
    assert {vkey.name for vkey, _ in found} == {ORIGIN, "so.example", "reg.example"}
    assert there.serialize().encode() == raw


def test_no_line_holds_there_over_another_size_or_under_a_stranger_s_key(tree: Grown) -> None:
    raw, keys = witnessed(tree)
    other = tlog.Checkpoint.from_text(raw.decode().replace("\n300\n", "\n301\n"))
    for key in keys:
        with pytest.raises(InvalidSignature):
            other.verify(Vkey.from_string(key.text))
        strange = NoteKey(key.name, key.kind, STRANGER.public.raw)
        with pytest.raises(RuntimeError):
            tlog.Checkpoint.from_text(raw.decode()).verify(Vkey.from_string(strange.text))


def test_what_is_signed_there_is_verified_here(tree: Grown) -> None:
    signer = PlainEd25519Signer(ORIGIN, Ed25519PrivateKey.generate())
    made = tlog.Checkpoint.make_signed(ORIGIN, 7, tree.roots[7], [signer]).serialize()
    assert parse_note(made.encode()).signed_by(NoteKey.parse(signer.vkey.serialize()))


async def test_the_proofs_that_a_ledger_on_disk_gives_hold_there(tmp_path: Path) -> None:
    key = SigningKey.generate()
    ledger = Ledger.open(tmp_path / "ledger.db", site="ekb-01", key=key, clock=SimClock(), fw="test")
    ledger.start()
    heads: list[tuple[int, bytes]] = []
    for count in (1, 4, 255, 40, 300):
        txn = Txn()
        for _ in range(count):
            txn.record("site", "event", {"ev": "x"})
        await ledger.commit(txn, urgent=True)
        heads.append(await ledger.head())
    size, root = heads[-1]
    leaves = await ledger.leaves(0, size)
    for old, old_root in heads[:-1]:
        ConsistencyProof(old, size, await ledger.consistency(old, size)).check(old_root, root)
    for index in (0, 255, 256, 511, size - 1):
        InclusionProof(index, size, await ledger.inclusion(index + 1, size)).check(leaves[index], root)
    await ledger.close()
