"""Vectors of other projects (``tests/vectors/public``, with notice), against the writer's code and the verifier's."""

from __future__ import annotations

import csv
import hashlib
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from verifier.keys import load_key
from verifier.notes import read_note
from wire.checkpoints import cosigned_message
from wire.errors import BadKey, BadNote, BadProof
from wire.keys import VerifyKey, b64
from wire.merkle import HASH_BYTES, check_consistency, check_inclusion
from wire.notes import NoteKey, parse_note

PUBLIC = Path(__file__).parents[1] / "vectors" / "public"
MERKLE = json.loads((PUBLIC / "merkle.json").read_text())


STRICTER_HERE = {"consistency/additional/sizes-are-equal-one-and-proof-is-empty"}
"""Its two roots are equal and no hashes; here a root has 32 bytes."""


def proven(case: dict[str, Any]) -> bool:
    path = [b64decode(step) for step in case["proof"] or ()]
    try:
        if case["kind"] == "inclusion":
            leaf, root = b64decode(case["leafHash"] or ""), b64decode(case["root"] or "")
            check_inclusion(leaf, case["leafIdx"], case["treeSize"], path, root)
        else:
            check_consistency(
                case["size1"], case["size2"], b64decode(case["root1"] or ""), b64decode(case["root2"] or ""), path
            )
    except BadProof:
        return False
    return True


@pytest.mark.parametrize("case", MERKLE, ids=[case["case"] for case in MERKLE])
def test_all_196_cases_of_transparency_dev_merkle(case: dict[str, Any]) -> None:
    if case["case"] in STRICTER_HERE:
        assert not proven(case)
        assert len(b64decode(case["root1"])) != HASH_BYTES
    else:
        assert proven(case) is not case["wantErr"]


def test_edge_cases_of_ed25519_are_judged_alike_and_no_key_of_low_order_passes() -> None:
    with (PUBLIC / "ed25519.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 914
    accepted = 0
    for row in rows:
        raw, signature = bytes.fromhex(row["key"]), bytes.fromhex(row["signature"])
        message = row["message"].encode()
        try:
            ours = VerifyKey(raw).verifies(message, signature)
        except BadKey:
            ours = False
        try:
            theirs = load_key(b64(raw)).verifies(message, signature)
        except ValueError:
            theirs = False
        assert ours is theirs, row["number"]
        if ours:
            accepted += 1
            flags = set(row["flags"].split(","))
            assert not flags & {"low_order_A", "non_canonical_A", "non_canonical_R"}, row
    assert accepted == 86


def test_the_example_of_the_note_format_s_first_implementation() -> None:
    """Key and note as in the package documentation of golang.org/x/mod/sumdb/note."""
    key = NoteKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    raw = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    ).encode()
    assert parse_note(raw).signed_by(key)
    with pytest.raises(BadNote):
        parse_note(raw.replace(b"answer", b"Answer")).signed_by(key)


def test_the_example_of_the_cosignature_format() -> None:
    """Of C2SP's tlog-cosignature; it publishes no key, so what it fixes is the text and where the time stands."""
    raw = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+"
        "zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0"
        "xUe+mbIUBkBIfZ+qnA==\n"
    ).encode()
    note = parse_note(raw)
    line = note.signatures[1]
    assert note.encode() == raw
    assert (line.name, len(line.signature)) == ("witness.example.com/w1", 72)
    time_s = int.from_bytes(line.signature[:8], "big")
    assert cosigned_message(time_s, note.text) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_the_example_of_a_signed_note_has_an_empty_line_in_its_text() -> None:
    """Of C2SP's signed-note: text and signatures are parted by the last empty line."""
    raw = (
        "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
        "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaq"
        "P3ZekRwNtIc=\n"
    ).encode()
    note = parse_note(raw)
    assert note.text.endswith("sole:\n\ned è subito sera.\n")
    assert [(s.name, len(s.signature)) for s in note.signatures] == [("quasimodo.example/salvatore", 64)]
    assert note.encode() == raw


def test_checkpoint_notes_are_read_alike_by_writer_and_verifier() -> None:
    from wire.checkpoints import Checkpoint, log_key, open_checkpoint
    from wire.keys import SigningKey

    key = SigningKey.generate()
    made = Checkpoint("tizgin/ekb-01/e1-0badcafe", 7, hashlib.sha256(b"x").digest()).sign(key).encode()
    ours, _ = open_checkpoint(made, [log_key("tizgin/ekb-01/e1-0badcafe", key.public.raw)])
    theirs = read_note(made)
    assert (ours.origin, ours.size, ours.root) == (theirs.origin, theirs.size, theirs.root)
