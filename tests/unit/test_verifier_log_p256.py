"""Bundles of a site whose log key is of P-256, as the verifier judges them: whole ones, changes of key, attacks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from bundle_kit import EPOCH, SITE, SLOT, SLOTS, START, Doc, Site, codes, framed, fresh, good_site, judged, ordered
from p256 import P256Signer, not_der, other_form

from wire.checkpoints import log_key
from wire.keys import SigningKey, b64
from wire.notes import Note, NoteSignature, parse_note
from wire.rotation import KeyChange

NOTES = f"log/{EPOCH}.notes"
ORIGIN = f"tizgin/{SITE}/{EPOCH}"
LOG = P256Signer()


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True, log=LOG)


@pytest.fixture
def site(template: Site) -> Site:
    return fresh(template)


def of_site(site: Site) -> Doc:
    found: Doc = site.register["sites"][0]
    return found


def first_line(raw: bytes, key_id: bytes | None, signature: bytes) -> bytes:
    """The note with another line of the log in place of its own."""
    note = parse_note(raw)
    own = note.signatures[0]
    line = NoteSignature(own.name, key_id or own.key_id, signature)
    return Note(note.text, (line, *note.signatures[1:])).encode()


def with_last_line(site: Site, key_id: bytes | None, make: Any) -> dict[str, bytes]:
    """Files with the newest note's own line changed; no record is anchored to that one."""
    notes = site.signed().notes
    files = site.files()
    last = parse_note(notes[-1])
    changed = first_line(notes[-1], key_id, make(last.text.encode(), last.signatures[0].signature))
    return ordered(files | {NOTES: framed([*notes[:-1], changed])})


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_whole_bundle_is_good(site: Site, tmp_path: Path, jobs: int) -> None:
    report = judged(tmp_path, site, jobs=jobs)
    assert (report.errors, report.doubts, report.exit) == ([], [], 0)
    assert report.points["M1"].grades == {"B": SLOTS}


def test_a_head_note_by_the_key_is_taken(site: Site, tmp_path: Path) -> None:
    head = site.signed().notes[-1]
    assert judged(tmp_path, site, head=head).exit == 0
    bad = first_line(head, None, LOG.sign(b"something else"))
    assert "CHECKPOINT" in codes(judged(tmp_path, site, head=bad))


def test_the_other_form_of_a_signature_is_as_good(site: Site, tmp_path: Path) -> None:
    files = with_last_line(site, None, lambda _, signature: other_form(signature))
    assert judged(tmp_path, site, files).exit == 0


@pytest.mark.parametrize("kind", sorted(set(not_der(LOG.sign(b"x"))) - {"empty"}))
def test_attack_a_signature_that_is_not_der(site: Site, tmp_path: Path, kind: str) -> None:
    files = with_last_line(site, None, lambda _, signature: not_der(signature)[kind])
    report = judged(tmp_path, site, files)
    assert (report.exit, codes(report)) == (2, {"CHECKPOINT"})


def test_attack_an_ed25519_signature_under_the_key_s_name(site: Site, tmp_path: Path) -> None:
    thief = SigningKey.generate()
    report = judged(tmp_path, site, with_last_line(site, None, lambda text, _: thief.sign(text)))
    assert (report.exit, codes(report)) == (2, {"CHECKPOINT"})


@pytest.mark.parametrize("kind", [b"\x01", b"\x02", b"\x04"])
def test_attack_a_key_id_as_of_another_type(site: Site, tmp_path: Path, kind: bytes) -> None:
    key_id = hashlib.sha256(f"{ORIGIN}\n".encode() + kind + LOG.der()).digest()[:4]
    report = judged(tmp_path, site, with_last_line(site, key_id, lambda _, signature: signature))
    assert (report.exit, codes(report)) == (2, {"CHECKPOINT"})


def test_attack_a_p256_signature_under_the_name_of_an_ed25519_key(tmp_path: Path) -> None:
    site = good_site(witnessed=True)
    files = with_last_line(site, None, lambda text, _: LOG.sign(text))
    report = judged(tmp_path, site, files)
    assert (report.exit, codes(report)) == (2, {"CHECKPOINT"})


@pytest.mark.parametrize("kind", sorted(set(LOG.not_this_key()) - {"empty"}))
def test_attack_a_register_with_another_encoding_of_the_key(site: Site, tmp_path: Path, kind: str) -> None:
    of_site(site)["epochs"][0]["k_log"] = b64(LOG.not_this_key()[kind])
    assert "REGISTER" in codes(judged(tmp_path, site))


def test_attack_a_record_key_of_p256(site: Site, tmp_path: Path) -> None:
    of_site(site)["epochs"][0]["k_rec"] = LOG.public.text
    assert "REGISTER" in codes(judged(tmp_path, site))


def rotated(site: Site, new: SigningKey | P256Signer, at_s: int, proof_by: Any = None) -> int:
    """The log key changes: the old one's proof, the register's entry, later checkpoints. Returns the first place."""
    old = site.later_log[1] if site.later_log else site.log
    site.add("site", "event", at_s - 50, {"ev": "tag", "obj": "F1"})
    site.add("site", "key_rotate", at_s, {})
    index = site.signed().places["site"][-1]
    change = KeyChange(SITE, site.epoch, "k_log", old.public, new.public, index + 1)
    said = change.statement()
    site.streams["site"][-1] |= change.proven((proof_by or old).sign(said), new.sign(said))
    *before, entry = of_site(site)["epochs"]
    later = {k: v for k, v in entry.items() if k != "to_index"} | {"k_log": new.public.text, "from_index": index + 1}
    of_site(site)["epochs"] = [*before, entry | {"to_index": index}, later]
    site.later_log = (index + 1, new)
    return index + 1


@pytest.mark.parametrize("old_is_token", [False, True])
def test_a_change_from_one_kind_to_the_other_is_good(old_is_token: bool, tmp_path: Path) -> None:
    site = good_site(witnessed=True, log=LOG if old_is_token else None)
    rotated(site, SigningKey.generate() if old_is_token else P256Signer(), START + 5 * SLOT + 100)
    report = judged(tmp_path, site)
    assert (report.errors, report.doubts, report.exit) == ([], [], 0)


@pytest.mark.parametrize("old_is_token", [False, True])
def test_attack_a_change_that_the_old_key_did_not_say(old_is_token: bool, tmp_path: Path) -> None:
    site = good_site(witnessed=True, log=LOG if old_is_token else None)
    new: Any = SigningKey.generate() if old_is_token else P256Signer()
    rotated(site, new, START + 5 * SLOT + 100, proof_by=new)
    report = judged(tmp_path, site)
    assert report.exit == 2
    assert any("KEY_CHAIN" in error.line() for error in report.errors)


def test_attack_a_proof_that_is_not_der(tmp_path: Path) -> None:
    site = good_site(witnessed=True, log=LOG)

    class Padded:
        def sign(self, said: bytes) -> bytes:
            return not_der(LOG.sign(said))["padded number"]

    rotated(site, SigningKey.generate(), START + 5 * SLOT + 100, proof_by=Padded())
    assert any("KEY_CHAIN" in error.line() for error in judged(tmp_path, site).errors)


def test_attack_the_key_signs_beyond_its_range(site: Site, tmp_path: Path) -> None:
    rotated(site, SigningKey.generate(), START + 5 * SLOT + 100)
    assert judged(tmp_path, site).exit == 0
    site.later_log = None  # the old key goes on for good
    report = judged(tmp_path, site)
    assert report.exit == 2
    assert "CHECKPOINT" in codes(report)


def test_attack_the_key_signs_before_its_range(tmp_path: Path) -> None:
    site = good_site(witnessed=True)
    first = rotated(site, LOG, START + 5 * SLOT + 100)
    assert judged(tmp_path, site).exit == 0
    site.later_log = (first - 12, LOG)
    assert "CHECKPOINT" in codes(judged(tmp_path, site))


def test_the_line_that_names_the_key(site: Site) -> None:
    note = parse_note(site.signed().notes[0])
    assert note.signatures[0].is_of(log_key(ORIGIN, LOG.public.raw))
