"""A log key of P-256: one encoding per key, one DER per signature, in every place that names a log key."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from p256 import P256Signer, not_der, other_form

from verifier.keys import _is_ecdsa_der, load_checkpoint_key
from wire.checkpoints import Checkpoint, log_key, open_checkpoint
from wire.errors import BadKey, BadNote, WireError
from wire.keys import SigningKey, VerifyKey, b64
from wire.logkeys import P256Key, read_log_key
from wire.notes import ECDSA_P256, ED25519, Note, NoteKey, NoteSignature
from wire.registry import Epoch, KeysDocument, RegisteredSite, open_keys, sign_keys
from wire.rotation import KeyChange, read_change

ORIGIN = "tizgin/ekb-01/e1-0badcafe"
KEY = P256Signer()
CHECKPOINT = Checkpoint(ORIGIN, 7, b"\x07" * 32)
TEXT = CHECKPOINT.text.encode()


def note_with(signature: bytes, key_id: bytes | None = None, *more: NoteSignature) -> bytes:
    named = log_key(ORIGIN, KEY.public.raw)
    return Note(CHECKPOINT.text, (NoteSignature(ORIGIN, key_id or named.key_id, signature), *more)).encode()


def test_a_log_key_as_text_and_back() -> None:
    assert read_log_key(KEY.public.text) == KEY.public
    assert (len(KEY.public.text), len(KEY.public.raw)) == (124, 91)
    assert KEY.public.kid == hashlib.sha256(KEY.der()).hexdigest()[:16]
    named = log_key(ORIGIN, KEY.public.raw)
    assert (named.kind, named.key_id) == (ECDSA_P256, hashlib.sha256(KEY.der()).digest()[:4])
    assert NoteKey.parse(named.text) == named
    ed = SigningKey.generate().public
    assert read_log_key(ed.text) == ed
    assert log_key(ORIGIN, ed.raw).kind == ED25519
    theirs = load_checkpoint_key(KEY.public.text)
    assert (theirs.raw, theirs.kid) == (KEY.public.raw, KEY.public.kid)


@pytest.mark.parametrize("kind", sorted(KEY.not_this_key()))
def test_another_encoding_of_a_key_is_no_key(kind: str) -> None:
    text = b64(KEY.not_this_key()[kind])
    with pytest.raises(BadKey):
        read_log_key(text)
    with pytest.raises(ValueError, match=r".+"):
        load_checkpoint_key(text)
    with pytest.raises(BadNote):
        NoteKey(ORIGIN, ECDSA_P256, KEY.not_this_key()[kind])


def test_a_record_key_is_never_of_p256() -> None:
    with pytest.raises(BadKey):
        VerifyKey.from_text(KEY.public.text)
    with pytest.raises(ValueError, match="k_rec"):
        Epoch(epoch="e1-0badcafe", k_rec=KEY.public.text, k_log=SigningKey.generate().public.text)


def test_a_checkpoint_is_signed_and_opened() -> None:
    note = CHECKPOINT.signed(KEY.public, KEY.sign(TEXT))
    opened, _ = open_checkpoint(note.encode(), [log_key(ORIGIN, KEY.public.raw)])
    assert opened == CHECKPOINT
    with pytest.raises(BadNote):
        CHECKPOINT.signed(KEY.public, KEY.sign(b"another text\n"))
    ed = SigningKey.generate()
    assert CHECKPOINT.signed(ed.public, ed.sign(TEXT)) == CHECKPOINT.sign(ed)


def test_both_forms_of_a_signature_are_good_and_the_text_is_the_same() -> None:
    """ECDSA has two signatures for one; what a leaf or a root is never hangs on which of them is there."""
    one = KEY.sign(TEXT)
    two = other_form(one)
    assert one != two
    for signature in (one, two):
        opened, note = open_checkpoint(note_with(signature), [log_key(ORIGIN, KEY.public.raw)])
        assert (opened, note.text) == (CHECKPOINT, CHECKPOINT.text)
        assert load_checkpoint_key(KEY.public.text).verifies(TEXT, signature)


@pytest.mark.parametrize("kind", sorted(not_der(KEY.sign(TEXT))))
def test_a_signature_in_another_encoding_is_none(kind: str) -> None:
    wrong = not_der(KEY.sign(TEXT))[kind]
    assert not KEY.public.verifies(TEXT, wrong)
    assert not load_checkpoint_key(KEY.public.text).verifies(TEXT, wrong)
    assert not _is_ecdsa_der(wrong)
    if wrong:
        with pytest.raises(BadNote, match="not over this text"):
            open_checkpoint(note_with(wrong), [log_key(ORIGIN, KEY.public.raw)])


def test_the_verifier_s_own_reading_of_der_takes_every_signature_that_the_library_makes() -> None:
    for n in range(300):
        signature = KEY.sign(b"%d" % n)
        assert _is_ecdsa_der(signature)
        assert _is_ecdsa_der(other_form(signature))
        for cut in range(len(signature)):
            assert not _is_ecdsa_der(signature[:cut])


def test_a_signature_of_the_other_kind_under_its_name_refuses_the_note() -> None:
    ed = SigningKey.generate()
    mine = log_key(ORIGIN, KEY.public.raw)
    with pytest.raises(BadNote, match="not over this text"):
        open_checkpoint(note_with(ed.sign(TEXT)), [mine])
    theirs = log_key(ORIGIN, ed.public.raw)
    with pytest.raises(BadNote, match="not over this text"):
        open_checkpoint(note_with(KEY.sign(TEXT), theirs.key_id), [theirs])
    # The key id that a P-256 key would have if it were named as Ed25519 keys are: nobody's.
    wrong = hashlib.sha256(f"{ORIGIN}\n".encode() + b"\x02" + KEY.der()).digest()[:4]
    with pytest.raises(BadNote, match="not signed by a key of that log"):
        open_checkpoint(note_with(KEY.sign(TEXT), wrong), [mine])


def test_openssl_verifies_the_signature_of_a_note(tmp_path: Path) -> None:
    """Another implementation: text and signature as they stand in the note, the key as it stands in a register."""
    raw = CHECKPOINT.signed(KEY.public, KEY.sign(TEXT)).encode()
    text, _, line = raw.decode().partition("\n\n")
    body = f"{KEY.public.text[:64]}\n{KEY.public.text[64:]}"
    (tmp_path / "key.pem").write_text(f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    (tmp_path / "sig").write_bytes(base64.b64decode(line.split(" ")[2])[4:])
    (tmp_path / "text").write_text(text + "\n")
    args = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "sig"]
    done = subprocess.run([*args, "text"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Verified OK"), done.stderr
    (tmp_path / "other").write_text(text.replace("\n7\n", "\n8\n") + "\n")
    done = subprocess.run([*args, "other"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("back", [False, True])
def test_a_change_of_key_with_the_proofs_of_both_kinds(back: bool) -> None:
    ed = SigningKey.generate()
    old, new = (KEY, ed) if back else (ed, KEY)
    change = KeyChange("ekb-01", "e1-0badcafe", "k_log", old.public, new.public, 40)
    said = change.statement()
    good = {"v": 1, "site": change.site, "epoch": change.epoch, **change.proven(old.sign(said), new.sign(said))}
    assert read_change(json.dumps(good).encode()) == change
    for wrong in ({"proof_new": good["proof_old"]}, {"proof_old": good["proof_new"]}, {"role": "k_rec"}):
        with pytest.raises(WireError):
            read_change(json.dumps(good | wrong).encode())


def test_a_register_with_a_p256_log_key_names_it_and_refuses_a_wrong_one() -> None:
    rec = SigningKey.generate().public.text
    entry = Epoch(epoch="e1-0badcafe", k_rec=rec, k_log=KEY.public.text)
    site = RegisteredSite(id="ekb-01", zone="z", contracted_w=1, emergency_w=0, slot_s=900, epochs=(entry,))
    registrar = SigningKey.generate()
    document = KeysDocument(v=1, version=1, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=(site,))
    taken, _ = open_keys(sign_keys(document, registrar), [registrar.public])
    assert taken.log_keys("ekb-01", "e1-0badcafe") == [log_key(ORIGIN, KEY.public.raw)]
    bad = site.model_copy(
        update={"epochs": (entry.model_copy(update={"k_log": b64(KEY.not_this_key()["off the curve"])}),)}
    )
    with pytest.raises(WireError, match="k_log"):
        open_keys(sign_keys(document.model_copy(update={"sites": (bad,)}), registrar), [registrar.public])


def test_keys_compare_by_their_bytes() -> None:
    assert P256Key(KEY.der()) == KEY.public
    assert P256Signer().public != KEY.public
