"""The log in a bundle: roots, checkpoints, witnesses, time. Each test is an attack, or an honest oddity."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_kit import EPOCH, SLOT, SLOTS, START, Site, codes, gap, good_site

from verifier.metering import Period
from verifier.report import Report
from verifier.verify import verify
from wire.checkpoints import Checkpoint, cosign
from wire.keys import SigningKey
from wire.notes import Note, parse_note

NOTES, LEAVES = f"log/{EPOCH}.notes", f"log/{EPOCH}.leaves"
SITE_IDX = f"records/{EPOCH}/site.idx"


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


@pytest.fixture
def site(template: Site) -> Site:
    fresh = copy.copy(template)
    fresh.streams, fresh.register = copy.deepcopy(template.streams), copy.deepcopy(template.register)
    return fresh


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Report]:
    def run(site: Site, files: dict[str, bytes] | None = None, head: bytes | None = None) -> Report:
        (tmp_path / "b.zip").write_bytes(site.pack(files))
        (tmp_path / "trust.json").write_bytes(site.trust())
        if head is not None:
            (tmp_path / "head.note").write_bytes(head)
        period = Period(site.first, site.last)
        return verify(
            tmp_path / "b.zip",
            trust_path=tmp_path / "trust.json",
            period=period,
            head_path=tmp_path / "head.note" if head is not None else None,
        )

    return run


def framed(notes: list[bytes]) -> bytes:
    return b"".join(b"%d\n" % len(note) + note for note in notes)


def ordered(files: dict[str, bytes]) -> dict[str, bytes]:
    head = {name: files[name] for name in ("keys.json", "report.json")}
    return head | {name: files[name] for name in sorted(files.keys() - head.keys())}


def test_witnessed_records_are_of_grade_b_and_the_bundle_is_whole(site: Site, judge: Callable[..., Report]) -> None:
    report = judge(site)
    assert (report.errors, report.doubts, report.exit) == ([], [], 0)
    assert report.points["M1"].grades == report.points["M2"].grades == {"B": SLOTS}
    assert report.checkpoints == report.cosigned > SLOTS
    assert report.withheld == 0


def test_a_record_changed_and_signed_again_does_not_give_the_root(site: Site, judge: Callable[..., Report]) -> None:
    """K_rec is stolen: the chain is made anew, the leaves too; the cosigned checkpoints are not."""
    honest = site.signed()
    site.streams["site"][1]["mode"] = "monitor"
    files = site.files()
    files[NOTES] = framed(honest.notes)
    report = judge(site, ordered(files))
    assert "ROOT_MISMATCH" in codes(report)
    assert report.exit == 2


def test_new_checkpoints_by_a_stolen_log_key_are_not_witnessed(site: Site, judge: Callable[..., Report]) -> None:
    site.streams["site"][1]["mode"] = "monitor"
    signed = site.signed()
    bare = [Note(n.text, n.signatures[:1]).encode() for n in (parse_note(raw) for raw in signed.notes)]
    files = site.files()
    files[NOTES] = framed(bare)
    report = judge(site, ordered(files))
    assert "ANCHOR" in codes(report)
    assert report.cosigned == 0


def test_one_witness_key_stolen_too_is_no_quorum(site: Site, judge: Callable[..., Report]) -> None:
    signed = site.signed()
    at_s = START + 30
    files = site.files()
    files[NOTES] = framed([site.checkpoint(signed.leaves[:size], at_s, "col", "reg") for size in signed.sizes])
    report = judge(site, ordered(files))
    assert report.cosigned == 0
    assert report.exit == 2


def test_the_same_witness_twice_is_one(site: Site, judge: Callable[..., Report]) -> None:
    signed = site.signed()
    notes = []
    for raw in signed.notes:
        note = parse_note(raw)
        so = next(line for line in note.signatures if line.name == "so")
        twin = cosign(note.text, "so", site.witnesses["so"], START)
        notes.append(Note(note.text, (note.signatures[0], so, twin)).encode())
    files = site.files()
    files[NOTES] = framed(notes)
    assert judge(site, ordered(files)).cosigned == 0


def test_a_cosignature_of_another_checkpoint_is_refused(site: Site, judge: Callable[..., Report]) -> None:
    signed = site.signed()
    one, two = parse_note(signed.notes[-1]), parse_note(signed.notes[-2])
    files = site.files()
    files[NOTES] = framed([*signed.notes[:-1], Note(one.text, (one.signatures[0], *two.signatures[1:])).encode()])
    assert "CHECKPOINT" in codes(judge(site, ordered(files)))


def test_two_roots_of_one_size_prove_two_histories(site: Site, judge: Callable[..., Report]) -> None:
    signed = site.signed()
    other = Checkpoint(f"tizgin/ekb-01/{EPOCH}", signed.sizes[0], b"\x07" * 32).sign(site.log).encode()
    files = site.files()
    files[NOTES] = framed([*signed.notes, other])
    assert "EQUIVOCATION" in codes(judge(site, ordered(files)))


def test_a_cut_tail_is_seen_against_the_checkpoints(site: Site, judge: Callable[..., Report]) -> None:
    files = site.files()
    files[LEAVES] = files[LEAVES][:-32]
    assert "TRUNCATED" in codes(judge(site, ordered(files)))


def test_a_cut_of_records_and_checkpoints_is_seen_against_a_witness_s_head(
    site: Site, judge: Callable[..., Report]
) -> None:
    signed = site.signed()
    head = signed.notes[-1]
    cut = copy.deepcopy(site)
    cut.last = START + (SLOTS - 1) * SLOT
    for stream in ("mp:M1", "mp:M2"):
        cut.streams[stream] = cut.streams[stream][:-1]
    assert judge(cut).exit == 0, "without period and head nothing tells that there was more"
    assert "TRUNCATED" in codes(judge(cut, head=head))
    assert judge(site, head=head).exit == 0


def test_a_head_of_another_history_is_seen(site: Site, judge: Callable[..., Report]) -> None:
    other = copy.deepcopy(site)
    other.streams["site"][1]["mode"] = "shadow"
    report = judge(site, head=other.signed().notes[0])
    assert codes(report) & {"EQUIVOCATION", "ROOT_MISMATCH"}


def test_a_record_with_an_old_time_appended_later_is_backdated(site: Site, judge: Callable[..., Report]) -> None:
    late = dict(site.streams["site"][1]) | {"at": (START - 50) * 1000, "ty": "event", "ev": "x", "obj": "y"}
    filler = dict(late) | {"at": (START + 9 * SLOT) * 1000}
    site.streams["site"] += [filler, late]
    assert "TIME" in codes(judge(site))


def test_a_record_with_a_future_time_is_seen(site: Site, judge: Callable[..., Report]) -> None:
    signed = site.signed()
    files = site.files()
    early = [site.checkpoint(signed.leaves[:size], START - 3000 + i) for i, size in enumerate(signed.sizes)]
    files[NOTES] = framed(early)
    assert {"TIME", "ANCHOR"} & codes(judge(site, ordered(files)))


def test_an_anchor_that_nobody_cosigned_is_refused(site: Site, judge: Callable[..., Report]) -> None:
    site.streams["mp:M1"][3]["a"] = {"s": 1, "h": "ab" * 32}
    report = judge(site)
    assert "ANCHOR" in codes(report)
    assert report.points["M1"].grades["X"] == 1


def test_places_that_are_not_the_leaf_or_are_used_twice_are_refused(site: Site, judge: Callable[..., Report]) -> None:
    for change in (lambda places: (places[1], *places[1:]), lambda places: (places[0], places[0], *places[2:])):
        files = site.files()
        places = struct.unpack(f">{len(files[SITE_IDX]) // 8}Q", files[SITE_IDX])
        files[SITE_IDX] = struct.pack(f">{len(places)}Q", *change(places))
        assert "ROOT_MISMATCH" in codes(judge(site, ordered(files)))


def test_a_stripped_log_is_no_better_than_grade_c_and_says_so(site: Site, judge: Callable[..., Report]) -> None:
    files = {k: v for k, v in site.files().items() if not k.startswith("log/") and not k.endswith(".idx")}
    report = judge(site, files)
    assert report.exit == 1
    assert report.points["M1"].grades == {"C": SLOTS}


def test_what_was_cosigned_late_is_grade_c(site: Site, judge: Callable[..., Report]) -> None:
    """The uplink was down from the fourth slot on: everything after it is cosigned at once at the end."""
    signed = site.signed()
    keep = [i for i, size in enumerate(signed.sizes) if i < 4] + [len(signed.sizes) - 1]
    late = copy.deepcopy(site)
    for stream, docs in late.streams.items():
        for doc, place in zip(docs, signed.places[stream], strict=True):
            if place >= signed.sizes[3]:
                doc["a"] = late_anchor(signed, 3)
    again = late.signed()
    files = late.files()
    files[LEAVES] = b"".join(again.leaves)
    notes = [signed.notes[i] for i in keep[:-1]]
    notes.append(late.checkpoint(again.leaves, late.last + SLOT))
    files[NOTES] = framed(notes)
    report = judge(late, ordered(files))
    assert report.errors == []
    assert report.points["M1"].grades["C"] >= SLOTS - 6
    assert report.points["M1"].grades["B"] >= 2


def late_anchor(signed: object, number: int) -> dict[str, object]:
    import hashlib

    note, size = signed.notes[number], signed.sizes[number]  # type: ignore[attr-defined]  # a Signed
    return {"s": size, "h": hashlib.sha256(note).hexdigest()}


def test_a_key_is_valid_only_for_its_part_of_the_log(site: Site, judge: Callable[..., Report]) -> None:
    site.register["sites"][0]["epochs"][0]["to_index"] = 5
    assert "KEY" in codes(judge(site))


def test_a_gap_is_graded_as_before(site: Site, judge: Callable[..., Report]) -> None:
    gap(site, "mp:M1", range(3, 5))
    report = judge(site)
    assert report.points["M1"].grades == {"B": SLOTS - 2, "R": 2}


def test_a_log_signed_by_a_stranger_is_refused(site: Site, judge: Callable[..., Report]) -> None:
    site.register["sites"][0]["epochs"][0]["k_log"] = SigningKey.generate().public.text
    assert "CHECKPOINT" in codes(judge(site))
