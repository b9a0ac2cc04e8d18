"""Merkle trees, notes, checkpoints, policies and the witness's judgement."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.checkpoints import (
    Checkpoint,
    Submission,
    cosign,
    cosignatures,
    log_key,
    open_checkpoint,
    parse_checkpoint,
)
from wire.errors import BadNote, BadProof
from wire.keys import SigningKey
from wire.merkle import (
    EMPTY_ROOT,
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    node_hash,
)
from wire.notes import COSIGNATURE, ECDSA_P256, MAX_SIGNATURES, Note, NoteKey, NoteSignature, parse_note, sign_note
from wire.policy import parse_policy
from wire.witness import Held, judge

ORIGIN = "tizgin/ekb-01/e1-0badcafe"
LOG, SO, COL, REG = (SigningKey.generate() for _ in range(4))
KEY = log_key(ORIGIN, LOG.public.raw)


def leaf(n: int, salt: bytes = b"") -> bytes:
    return hashlib.sha256(b"\x00" + salt + n.to_bytes(4, "big")).digest()


class Grown:
    def __init__(self, size: int, salt: bytes = b"") -> None:
        self.edge, self.nodes = Frontier(), {}
        for n in range(size):
            for height, index, node in self.edge.append(leaf(n, salt)):
                self.nodes[height, index] = node

    def get(self, height: int, index: int) -> bytes:
        return self.nodes[height, index]


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


@given(st.integers(0, 300))
def test_the_root_is_that_of_the_definition(size: int) -> None:
    assert Grown(size).edge.root() == by_definition([leaf(n) for n in range(size)])


@given(st.integers(1, 300), st.data())
def test_every_leaf_and_every_growth_can_be_proven(size: int, data: st.DataObject) -> None:
    tree = Grown(size)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    check_inclusion(leaf(index), index, size, inclusion_proof(tree.get, index, size), tree.edge.root())
    before = Grown(old).edge.root()
    check_consistency(old, size, before, tree.edge.root(), consistency_proof(tree.get, old, size))


@given(st.integers(2, 200), st.data())
def test_nothing_else_is_proven(size: int, data: st.DataObject) -> None:
    tree = Grown(size)
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda n: n != index))
    path = inclusion_proof(tree.get, index, size)
    with pytest.raises(BadProof):
        check_inclusion(leaf(other), index, size, path, tree.edge.root())
    with pytest.raises(BadProof):
        check_inclusion(leaf(index), other, size, path, tree.edge.root())
    old = data.draw(st.integers(1, size - 1))
    growth = consistency_proof(tree.get, old, size)
    with pytest.raises(BadProof):
        check_consistency(old, size, Grown(old, b"x").edge.root(), tree.edge.root(), growth)


@given(st.integers(0, 500), st.integers(1, 60))
def test_an_edge_goes_on_from_what_was_kept(size: int, more: int) -> None:
    edge = Grown(size).edge
    again = Frontier.decode(edge.size, edge.encode())
    again.extend(leaf(n) for n in range(size, size + more))
    assert again.root() == Grown(size + more).edge.root()


def test_an_edge_that_does_not_fit_its_size_is_refused() -> None:
    with pytest.raises(BadProof):
        Frontier.decode(3, b"\x00" * 32)


# notes ----------------------------------------------------------------------------------------------------------------


def test_a_note_is_its_bytes_and_unknown_lines_are_ignored() -> None:
    note = sign_note("hello\nworld\n", "a/b", LOG)
    stranger = NoteSignature("x", b"1234", b"\x00" * 64)
    raw = Note(note.text, (stranger, *note.signatures)).encode()
    parsed = parse_note(raw)
    assert parsed.encode() == raw
    assert parsed.signed_by(NoteKey("a/b", 1, LOG.public.raw))
    assert not parsed.signed_by(NoteKey("a/b", 1, SO.public.raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"\n\n\xe2\x80\x94 a AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 a AAAAAAAA",
        b"text\n\n- a AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 a b AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 a AAAA\n",
        b"text\n\n\xe2\x80\x94 a AAAAAAB=\n",
        b"te\rxt\n\n\xe2\x80\x94 a AAAAAAAA\n",
        b"te\xffxt\n\n\xe2\x80\x94 a AAAAAAAA\n",
        b"text\n\n" + b"\xe2\x80\x94 a AAAAAAAA\n" * (MAX_SIGNATURES + 1),
        b"x" * 70_000,
    ],
)
def test_what_is_no_note_is_refused(raw: bytes) -> None:
    with pytest.raises(BadNote):
        parse_note(raw)


def test_keys_as_text_and_back_and_p256_keys() -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    assert NoteKey.parse(KEY.text) == KEY
    private = ec.generate_private_key(ec.SECP256R1())
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    tpm = NoteKey(ORIGIN, ECDSA_P256, der)
    assert tpm.key_id == hashlib.sha256(der).digest()[:4]
    assert NoteKey.parse(tpm.text) == tpm
    text = Checkpoint(ORIGIN, 1, b"\x01" * 32).text
    line = NoteSignature(ORIGIN, tpm.key_id, private.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    assert Note(text, (line,)).signed_by(tpm)


@pytest.mark.parametrize("text", ["", "a", "a+00000000", "a b+00000000+AQ==", f"{KEY.text}x", "a+00000000+Az8="])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        NoteKey.parse(text)


def test_a_key_under_another_identifier_is_refused() -> None:
    name, _, body = KEY.text.split("+")[0], KEY.text.split("+")[1], KEY.text.split("+", 2)[2]
    with pytest.raises(BadNote, match="identifier"):
        NoteKey.parse(f"{name}+00000000+{body}")


# checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "tizgin/ekb-01/e1-0badcafe\n1\n",
        "tizgin/ekb-01/e1-0badcafe\n01\n" + "A" * 43 + "=\n",
        "tizgin/ekb-01/e1-0badcafe\n1\nAAAA\n",
        "other.example/log\n1\n" + "A" * 43 + "=\n",
        "tizgin/ekb-01/e1-0badcafe\n1\n" + "A" * 43 + "=\nextension\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        parse_checkpoint(text)


def test_a_checkpoint_is_believed_only_under_its_own_log_s_key() -> None:
    raw = Checkpoint(ORIGIN, 1, leaf(0)).sign(LOG).encode()
    assert open_checkpoint(raw, [KEY])[0].size == 1
    for keys in ([], [log_key(ORIGIN, SO.public.raw)], [log_key("tizgin/ekb-02/e1-0badcafe", LOG.public.raw)]):
        with pytest.raises(BadNote):
            open_checkpoint(raw, keys)


def test_a_cosignature_is_over_time_and_text() -> None:
    text = Checkpoint(ORIGIN, 1, leaf(0)).text
    line, key = cosign(text, "so", SO, 1_790_000_000), NoteKey("so", COSIGNATURE, SO.public.raw)
    assert cosignatures(Note(text, (line,)), [key]) == {"so": 1_790_000_000}
    moved = NoteSignature("so", line.key_id, (1_790_000_001).to_bytes(8, "big") + line.signature[8:])
    for bad in (Note(text, (moved,)), Note(text.replace("\n1\n", "\n2\n"), (line,))):
        with pytest.raises(BadNote):
            cosignatures(bad, [key])


@given(st.integers(0, 2**50), st.lists(st.binary(min_size=32, max_size=32), max_size=8))
def test_submissions_there_and_back(old: int, proof: list[bytes]) -> None:
    note = Checkpoint(ORIGIN, 9, leaf(0)).sign(LOG).encode()
    made = Submission(old, tuple(proof), note)
    assert Submission.parse(made.encode()) == made


# policies -------------------------------------------------------------------------------------------------------------


def lines(*rest: str) -> str:
    keys = [(n, k) for n, k in (("so", SO), ("col", COL), ("reg", REG))]
    return "\n".join(
        [f"witness {n} {NoteKey(n + '.example', COSIGNATURE, k.public.raw).text}" for n, k in keys] + [*rest, ""]
    )


@pytest.mark.parametrize(
    ("rest", "who", "holds"),
    [
        (("quorum none",), "", True),
        (("quorum so",), "so", True),
        (("quorum so",), "col reg", False),
        (("group more any col reg", "group q all so more", "quorum q"), "so reg", True),
        (("group more any col reg", "group q all so more", "quorum q"), "col reg", False),
        (("group q 2 so col reg", "quorum q"), "col reg", True),
        (("group q 2 so col reg", "quorum q"), "reg", False),
    ],
)
def test_quorums(rest: tuple[str, ...], who: str, holds: bool) -> None:
    policy = parse_policy(lines(*rest))
    assert policy.satisfied({f"{name}.example" for name in who.split()}) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        lines("group q all so nobody", "quorum q"),
        lines("group q 4 so col reg", "quorum q"),
        lines("group q 0 so", "quorum q"),
        lines("group q any so so", "quorum q"),
        lines("quorum so", "quorum col"),
        lines("quorum nobody"),
        lines("frobnicate"),
        lines("quorum so").replace("witness col", "witness so", 1),
        lines(f"witness twin {NoteKey('twin', COSIGNATURE, SO.public.raw).text}", "quorum so"),
        f"witness so {KEY.text}\nquorum so\n",
        "witness so x\nquorum so\n",
    ],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        parse_policy(text)


# a witness's judgement ------------------------------------------------------------------------------------------------


def submission(tree: Grown, old: int, proof_of: Grown | None = None) -> Submission:
    size = tree.edge.size
    note = Checkpoint(ORIGIN, size, tree.edge.root()).sign(LOG).encode()
    proof = consistency_proof((proof_of or tree).get, old, size) if 0 < old <= size else []
    return Submission(old, tuple(proof), note)


FIVE, NINE, FORK = Grown(5), Grown(9), Grown(9, b"fork")
AT_FIVE = Held(5, FIVE.edge.root())
CASES: dict[str, tuple[int, Callable[[], Submission], Held | None]] = {
    "the first": (200, lambda: submission(FIVE, 0), None),
    "grown": (200, lambda: submission(NINE, 5), AT_FIVE),
    "the same again": (200, lambda: submission(FIVE, 5), AT_FIVE),
    "from another size": (409, lambda: submission(NINE, 4), AT_FIVE),
    "without old": (409, lambda: submission(NINE, 0), AT_FIVE),
    "a fork": (422, lambda: submission(FORK, 5), AT_FIVE),
    "a fork of the same size": (409, lambda: submission(Grown(5, b"fork"), 5), AT_FIVE),
    "back": (400, lambda: Submission(5, (), Checkpoint(ORIGIN, 3, leaf(0)).sign(LOG).encode()), AT_FIVE),
    "a proof from nothing": (
        422,
        lambda: Submission(0, (leaf(0),), Checkpoint(ORIGIN, 1, leaf(0)).sign(LOG).encode()),
        None,
    ),
    "a stranger's key": (403, lambda: Submission(0, (), Checkpoint(ORIGIN, 1, leaf(0)).sign(SO).encode()), None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_witness_cosigns_only_what_continues(name: str) -> None:
    status, make, held = CASES[name]
    verdict = judge(held, make(), [KEY])
    assert verdict.status == status
    assert (verdict.error is None) is (status == 200)
    assert verdict.misbehaviour is (name == "a fork of the same size")


def test_an_unknown_log_is_not_cosigned() -> None:
    assert judge(None, submission(FIVE, 0), []).status == 404
