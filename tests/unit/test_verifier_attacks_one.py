"""Attacks 1 to 20 on a witnessed bundle: edits, cuts, replays, forks, false times, false identities, false texts.

The attacker is the collector too: every bundle has a manifest that fits it. What he has stolen is said in each test.
``docs/verification.md`` lists them all.
"""

from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_kit import (
    EPOCH,
    EXPORT_MAP,
    IMPORT,
    MAP,
    SITE,
    SLOT,
    SLOTS,
    START,
    Site,
    codes,
    doubts,
    f32,
    framed,
    frames,
    fresh,
    good_site,
    judged,
    ordered,
)

from verifier.cli import main
from wire.checkpoints import Submission, log_key
from wire.dsse import ORDER_TYPE, pae
from wire.keys import SigningKey, b64
from wire.notes import Note, parse_note
from wire.records import RecordLine
from wire.witness import Held, judge

NOTES, LEAVES = f"log/{EPOCH}.notes", f"log/{EPOCH}.leaves"
M1, M1_IDX = f"records/{EPOCH}/mp_M1.tzr", f"records/{EPOCH}/mp_M1.idx"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


@pytest.fixture
def site(template: Site) -> Site:
    return fresh(template)


def edited(site: Site) -> None:
    """A lower reading in slot 3, as consistent as one record can be."""
    doc = site.streams["mp:M1"][4]
    doc["reg"][IMPORT][1] = f32(1030.0)
    doc["wh"] = 1_030_000 - 1_029_350
    doc["raw"] = frames(f32(1030.0), doc["reg"]["energy_export_wh"][1])


def without_log(files: Files) -> Files:
    return ordered({k: v for k, v in files.items() if not k.startswith("log/") and not k.endswith(".idx")})


def lines_of(files: Files, name: str = M1) -> list[bytes]:
    return files[name].splitlines()


def with_lines(files: Files, lines: list[bytes], name: str = M1) -> Files:
    return ordered(files | {name: b"".join(line + b"\n" for line in lines)})


def body(line: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line.partition(b"|")[2].rsplit(b"|", 2)[0])
    return found


def test_the_bundle_that_is_attacked_is_intact_and_complete(site: Site, tmp_path: Path) -> None:
    report = judged(tmp_path, site)
    assert (report.errors, report.doubts, report.exit) == ([], [], 0)


def test_attack_01_a_value_is_edited_without_a_key(site: Site, tmp_path: Path) -> None:
    files = site.files()
    lines = lines_of(files)
    lines[4] = re.sub(rb'"wh":(\d+)', b'"wh":1', lines[4])
    report = judged(tmp_path, site, with_lines(files, lines))
    assert codes(report) - {"REPORT"} == {"SIG"}
    assert report.exit == 2


def test_attack_02_an_edited_record_is_signed_again_by_a_stolen_record_key(site: Site, tmp_path: Path) -> None:
    files = site.files()
    lines = lines_of(files)
    edited(site)
    changed = body(lines[4]) | {name: site.streams["mp:M1"][4][name] for name in ("reg", "wh", "raw")}
    lines[4] = RecordLine.sign(changed, site.rec).encode()
    attacked = with_lines(files, lines)
    assert codes(judged(tmp_path, site, attacked)) - {"REPORT"} == {"ROOT_MISMATCH"}
    assert "CHAIN" in codes(judged(tmp_path, site, without_log(attacked))), "without the log the chain shows it"
    site.anchored = False
    chained = judged(tmp_path, site, without_log(site.files()))
    assert "REGISTER_DISCONTINUITY" in codes(chained), "and with a new chain the next reading"


def test_attack_03_the_whole_log_is_chained_anew_by_a_stolen_record_key(site: Site, tmp_path: Path) -> None:
    honest = site.signed()
    site.streams["site"][1]["mode"] = "monitor"
    report = judged(tmp_path, site, ordered(site.files() | {NOTES: framed(honest.notes)}))
    assert "ROOT_MISMATCH" in codes(report)
    assert report.exit == 2


def rewritten(site: Site, *witnesses: str, at_s: int | None = None) -> Files:
    """Another history, with checkpoints by K_log and the named witnesses; no anchors, since nobody cosigned it."""
    site.streams["site"][1]["mode"] = "monitor"
    site.anchored = False
    signed = site.signed()
    if witnesses:
        times = [at_s or START + 30 + i * SLOT for i in range(len(signed.sizes))]
        notes = [site.checkpoint(signed.leaves[:n], t, *witnesses) for n, t in zip(signed.sizes, times, strict=True)]
    else:
        notes = [Note(n.text, n.signatures[:1]).encode() for n in map(parse_note, signed.notes)]
    return ordered(site.files() | {NOTES: framed(notes)})


def test_attack_04_record_and_log_key_are_stolen(site: Site, tmp_path: Path) -> None:
    """The rewritten log is consistent in itself; no quorum cosigned it, and the witness has another."""
    head = site.signed().notes[5]
    files = rewritten(site)
    alone = judged(tmp_path, site, files)
    assert (alone.exit, codes(alone), alone.cosigned) == (1, set(), 0)
    assert "UNWITNESSED" in doubts(alone)
    assert alone.points["M1"].grades == {"C": SLOTS}
    against = judged(tmp_path, site, files, head=head)
    assert codes(against) & {"ROOT_MISMATCH", "EQUIVOCATION"}, "against the witness's own head it is a fork"
    assert against.exit == 2


@pytest.mark.parametrize("stolen", [("so",), ("col",), ("col", "reg")])
def test_attack_05_a_witness_key_is_stolen_too(site: Site, tmp_path: Path, stolen: tuple[str, ...]) -> None:
    report = judged(tmp_path, site, rewritten(site, *stolen))
    assert report.cosigned == 0
    assert "UNWITNESSED" in doubts(report)


def test_attack_05_a_quorum_that_cosigns_only_later_shows_the_late_date(site: Site, tmp_path: Path) -> None:
    """What witnesses honestly cosign afterwards, they cosign with the time at which they saw it."""
    late = judged(tmp_path, site, rewritten(site, "so", "col", at_s=START + 40 * SLOT))
    assert (late.exit, late.points["M1"].grades) == (1, {"C": SLOTS})
    assert "LATE" in doubts(late)


def renumbered(site: Site, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the documents of a stream; the kit numbers and chains them anew, as a thief of K_rec would."""
    change(site.streams["mp:M1"])


def test_attack_06_a_record_is_dropped(site: Site, tmp_path: Path) -> None:
    files = site.files()
    lines = lines_of(files)
    del lines[4]
    places = files[M1_IDX]
    cut = files | {M1_IDX: places[: 4 * 8] + places[5 * 8 :]}
    assert "SEQ" in codes(judged(tmp_path, site, with_lines(cut, lines)))
    renumbered(site, lambda docs: docs.pop(4))
    report = judged(tmp_path, site)
    assert "SLOT" in codes(report), "numbered and chained anew, the calendar shows it"
    assert report.exit == 2
    kept = judged(tmp_path, site, ordered(site.files() | {NOTES: files[NOTES]}))
    assert codes(kept) & {"ROOT_MISMATCH", "TRUNCATED"}, "and the checkpoints that were cosigned, the log"


def test_attack_07_two_records_are_swapped(site: Site, tmp_path: Path) -> None:
    files = without_log(site.files())
    lines = lines_of(files)
    lines[4], lines[5] = lines[5], lines[4]
    assert "SEQ" in codes(judged(tmp_path, site, with_lines(files, lines)))
    lines[4], lines[5] = (
        RecordLine.sign(body(line) | {"n": n}, site.rec).encode() for n, line in ((4, lines[4]), (5, lines[5]))
    )
    assert "CHAIN" in codes(judged(tmp_path, site, with_lines(files, lines)))


def test_attack_08_a_record_is_replayed(site: Site, tmp_path: Path) -> None:
    files = without_log(site.files())
    lines = lines_of(files)
    assert "SEQ" in codes(judged(tmp_path, site, with_lines(files, [*lines[:5], lines[4], *lines[5:]])))
    renumbered(site, lambda docs: docs.insert(5, copy.deepcopy(docs[4])))
    assert "SLOT" in codes(judged(tmp_path, site)), "chained anew, its slot was accounted for already"


def test_attack_09_the_tail_is_cut_and_the_checkpoints_are_kept(site: Site, tmp_path: Path) -> None:
    files = site.files()
    assert "TRUNCATED" in codes(judged(tmp_path, site, ordered(files | {LEAVES: files[LEAVES][:-64]})))
    lines = lines_of(files)
    cut = with_lines(files | {M1_IDX: files[M1_IDX][:-16]}, lines[:-2])
    report = judged(tmp_path, site, cut)
    assert "SLOT" in codes(report), "with all leaves, the calendar and the log say that two records are kept back"
    assert report.withheld == 2


def test_attack_09_an_order_that_is_kept_back_is_missed_in_the_log(site: Site, tmp_path: Path) -> None:
    files = site.files()
    name = f"records/{EPOCH}/cmd"
    cut = {f"{name}.tzr": lines_of(files, f"{name}.tzr")[0] + b"\n", f"{name}.idx": files[f"{name}.idx"][:8]}
    report = judged(tmp_path, site, ordered(files | cut))
    assert report.exit == 1
    assert "WITHHELD" in doubts(report)


def test_attack_10_records_and_checkpoints_are_cut(site: Site, tmp_path: Path) -> None:
    head = site.signed().notes[-1]
    for stream in ("mp:M1", "mp:M2"):
        del site.streams[stream][-3:]
    assert "SLOT" in codes(judged(tmp_path, site)), "because the period was asked for"
    site.last = START + (SLOTS - 3) * SLOT
    assert judged(tmp_path, site).exit == 0, "a shorter period that nobody doubts is whole"
    assert "TRUNCATED" in codes(judged(tmp_path, site, head=head)), "but the witness has seen more"
    with pytest.raises(SystemExit) as refused:
        main([str(tmp_path / "b.zip"), "--trust", str(tmp_path / "trust.json")])
    assert refused.value.code == 4, "without a period nothing is verified"


def test_attack_11_an_old_database_is_restored_and_goes_on(site: Site, tmp_path: Path) -> None:
    """The witness refuses both ways to go on; where it is not asked, the log's own signatures prove two histories."""
    signed, again = site.signed(), fresh(site)
    again.streams["site"].append(again.streams["site"][1] | {"at": (START + 4 * SLOT) * 1000, "mode": "shadow"})
    other = again.signed()
    keys = [log_key(f"tizgin/{SITE}/{EPOCH}", site.log.public.raw)]
    held = Held(signed.sizes[6], parse_root(signed.notes[6]))
    back = judge(held, Submission(signed.sizes[3], (), signed.notes[4]), keys)
    assert (back.status, back.error) == (409, "conflict")
    longer = judge(held, Submission(held.size, (b"\x00" * 32,), other.notes[8]), keys)
    assert (longer.status, longer.error) == (422, "bad_proof")
    report = judged(tmp_path, again, ordered(again.files() | {NOTES: framed([*other.notes, signed.notes[-1]])}))
    assert codes(report) & {"EQUIVOCATION", "ROOT_MISMATCH"}


def parse_root(raw: bytes) -> bytes:
    from wire.checkpoints import parse_checkpoint

    return parse_checkpoint(parse_note(raw).text).root


def test_attack_12_a_fork_with_a_longer_branch(site: Site, tmp_path: Path) -> None:
    head = site.signed().notes[7]
    more = {"ev": "alarm", "obj": "x", "now": "on"}
    site.add("site", "event", START + 5 * SLOT, more)
    site.add("site", "event", START + 6 * SLOT, more)
    assert judged(tmp_path, site).exit == 0, "each branch is whole in itself"
    report = judged(tmp_path, site, head=head)
    assert codes(report) & {"EQUIVOCATION", "ROOT_MISMATCH"}


def event(site: Site, at_s: float, after_s: float) -> None:
    """An event that says ``at_s`` and was written after ``after_s``."""
    site.add("site", "event", after_s, {"ev": "x", "obj": "y"})
    site.add("site", "event", at_s, {"ev": "x", "obj": "z"})


def test_attack_13_a_record_is_appended_with_an_old_time(site: Site, tmp_path: Path) -> None:
    event(site, START - 50, START + 9 * SLOT)
    report = judged(tmp_path, site)
    assert "TIME" in codes(report)
    assert any("BACKDATED" in error.line() for error in report.errors)


def test_attack_14_an_agent_s_clock_runs_an_hour_ahead(site: Site, tmp_path: Path) -> None:
    """The witnesses' clocks are right: they cosigned an hour before the time that the records say."""
    site.anchored = False
    signed = site.signed()
    notes = [site.checkpoint(signed.leaves[:n], START + 30 + i * SLOT - 3600) for i, n in enumerate(signed.sizes)]
    report = judged(tmp_path, site, ordered(site.files() | {NOTES: framed(notes)}))
    assert "TIME" in codes(report)
    assert any("FUTURE" in error.line() for error in report.errors)


def test_attack_15_the_clock_is_set_back_and_a_slot_is_written_twice(site: Site, tmp_path: Path) -> None:
    clock = {"step_ms": -SLOT * 1000, "was": (START + 5 * SLOT) * 1000, "now": (START + 4 * SLOT) * 1000}
    site.add("site", "clock", START + 5 * SLOT, clock)
    renumbered(site, lambda docs: docs.insert(6, docs[5] | {"rt1": docs[5]["rt1"] + 3}))
    assert "SLOT" in codes(judged(tmp_path, site))


@pytest.mark.parametrize("anchor", [{"s": 1, "h": "ab" * 32}, {"s": 1}, 7, "later"])
def test_attack_16_an_anchor_that_nobody_cosigned(site: Site, tmp_path: Path, anchor: object) -> None:
    if anchor == "later":
        signed = site.signed()
        import hashlib

        anchor = {"s": signed.sizes[-1], "h": hashlib.sha256(signed.notes[-1]).hexdigest()}
    site.streams["mp:M1"][3]["a"] = anchor
    report = judged(tmp_path, site)
    assert "ANCHOR" in codes(report)
    assert report.points["M1"].grades["X"] >= 1


def test_attack_17_a_record_of_another_site(site: Site, tmp_path: Path) -> None:
    site.streams["mp:M1"][4]["log"] = f"tizgin/other-01/{EPOCH}"
    assert "FORMAT" in codes(judged(tmp_path, site))


def test_attack_18_a_stream_is_passed_as_another_meter_s(site: Site, tmp_path: Path) -> None:
    files = without_log(site.files())
    swapped = files | {M1: files[f"records/{EPOCH}/mp_M2.tzr"]}
    assert "FORMAT" in codes(judged(tmp_path, site, swapped)), "the stream is named in every record"
    for doc in site.streams["mp:M2"]:
        doc["sn"] = "B7"
    assert "RATIO" in codes(judged(tmp_path, site)), "named anew, its serial number is not the register's"
    other = fresh(site)
    other.streams["mp:M2"][0]["sn"] = "A1"
    assert "RATIO" in codes(judged(tmp_path, other)), "nor what the meter itself said in each slot"


def test_attack_19_a_signature_over_something_else(site: Site, tmp_path: Path) -> None:
    files = site.files()
    lines = lines_of(files)
    payload = lines[4].partition(b"|")[2].rsplit(b"|", 2)[0]
    note = parse_note(site.signed().notes[0])
    for signature in (
        site.rec.sign(pae(ORDER_TYPE, payload)),
        site.rec.sign(payload),
        note.signatures[0].signature[-64:],
    ):
        head = lines[4].rsplit(b"|", 1)[0]
        forged = [*lines[:4], head + b"|" + b64(signature).encode(), *lines[5:]]
        assert "SIG" in codes(judged(tmp_path, site, with_lines(files, forged)))


TWINS: list[Callable[[bytes], bytes]] = [
    lambda p: p.replace(b'"wh":', b'"wh": ', 1),
    lambda p: p.replace(b'{"a"', b'{"v":1,"a"', 1),
    lambda p: p.replace(b'"v":1', b'"v":1.0', 1),
    lambda p: p.replace(b'"v":1', b'"v":1e0', 1),
    lambda p: p.replace(b'"boot":"b0"', b'"boot":"\\u0062\\u0030"', 1),
    lambda p: p.replace(b'"boot":"b0"', b'"boot":"\\ud800"', 1),
    lambda p: p.replace(b'"boot":"b0"', b'"boot":"\xed\xa0\x80"', 1),
    lambda p: p.replace(b'"mto":12', b'"mto":-0', 1),
    lambda p: p.replace(b'"mto":12', b'"mto":012', 1),
    lambda p: p.replace(b'"mto":12', b'"mto":NaN', 1),
    lambda p: p.replace(b'"mto":12', b'"Mto":12', 1),
    lambda p: b"\xef\xbb\xbf" + p,
    lambda p: p + b"\r",
    lambda p: p + b" ",
    lambda p: b"[" + p + b"]",
]


@pytest.mark.parametrize("number", range(len(TWINS)))
def test_attack_20_a_second_text_of_the_same_record(site: Site, tmp_path: Path, number: int) -> None:
    """Signed by the record key itself: two texts that read the same must not both pass."""
    files = without_log(site.files())
    lines = lines_of(files)
    payload = lines[4].partition(b"|")[2].rsplit(b"|", 2)[0]
    twin = TWINS[number](payload)
    assert twin != payload
    signature = b64(site.rec.sign(pae("application/vnd.tizgin.record.v1+json", twin)))
    lines[4] = b"TZR1|" + twin + f"|{site.rec.kid}|{signature}".encode()
    report = judged(tmp_path, site, with_lines(files, lines))
    assert "FORMAT" in codes(report)


def test_attack_20_line_ends_and_bars(site: Site, tmp_path: Path) -> None:
    files = without_log(site.files())
    crlf = ordered(files | {M1: files[M1].replace(b"\n", b"\r\n")})
    assert "FORMAT" in codes(judged(tmp_path, site, crlf))
    assert judged(tmp_path, site, ordered(files | {M1: files[M1][:-1]})).exit == 2
    site.streams["mp:M1"][4]["fw"] = "1.0|x|y|z"
    assert judged(tmp_path, site).exit == 0, "a bar inside a text is no separator"


def test_places_in_the_log_are_unique(site: Site, tmp_path: Path) -> None:
    files = site.files()
    places = list(struct.unpack(f">{len(files[M1_IDX]) // 8}Q", files[M1_IDX]))
    places[5] = places[4]
    report = judged(tmp_path, site, ordered(files | {M1_IDX: struct.pack(f">{len(places)}Q", *places)}))
    assert "ROOT_MISMATCH" in codes(report)


def test_the_maps_of_the_kit_are_the_ones_that_are_signed(site: Site) -> None:
    assert site.streams["mp:M1"][0]["pts"] == {IMPORT: MAP, "energy_export_wh": EXPORT_MAP}
    assert SigningKey.generate().kid != site.rec.kid
