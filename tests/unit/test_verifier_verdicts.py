"""The collector's log of verdicts in a bundle: what is checked of it, and what it may and may not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_kit import SITE, SLOT, SLOTS, START, Site, codes, doubts, good_site, judged, ordered
from verdict_kit import LEAVES, LINES, NOTES, ORIGIN, VerdictLog, finding
from vouch_kit import balance

from verifier.judgement import Windows, days, standing
from verifier.metering import Period
from verifier.report import Report
from verifier.verdicts import Run
from wire.checkpoints import Checkpoint
from wire.dsse import RECORD_TYPE, pae
from wire.keys import SigningKey
from wire.notes import COSIGNATURE, NoteKey
from wire.records import RecordLine

END = START + SLOTS * SLOT
HALF = START + SLOTS // 2 * SLOT


@pytest.fixture(scope="module")
def site() -> Site:
    """Witnessed, with two balances."""
    made = good_site(witnessed=True)
    for slot in (3, 4):
        balance(made, slot, loss_wh=0, residual_wh=0, feeders_wh=None)
        doc = made.streams["bal"][-1]
        doc |= balance_of(doc)
    return made


def balance_of(doc: dict[str, object]) -> dict[str, object]:
    """The figures of M1 against M2 as the verifier wants them."""
    main = doc["main_wh"]
    assert isinstance(main, int)
    return {"main": ["M1"], "feeders": [], "feeders_wh": 0, "residual_wh": main, "tol_wh": main + 1}


def told(site: Site) -> VerdictLog:
    """A run over the first half, and one with a finding over the second; each witnessed."""
    log = VerdictLog(site)
    log.run(START - 86_400, START, [finding(START - 900, START)])
    log.run(START, HALF)
    log.checkpoint(HALF + 1000)
    log.run(HALF, END, [finding(HALF, HALF + SLOT)])
    log.checkpoint(END + 1000)
    return log


def verify(folder: Path, site: Site, log: VerdictLog, files: dict[str, bytes] | None = None) -> Report:
    return judged(folder, site, ordered(site.files() | log.files() | (files or {})))


def test_a_bundle_without_verdicts_says_so_and_is_not_worse(site: Site, tmp_path: Path) -> None:
    report = judged(tmp_path, site)
    assert (report.exit, report.verdicts, report.doubts) == (0, None, [])
    assert "Verdicts       no verdicts" in report.to_text()
    assert "Balance        2 slots, 0 of them not known, 0 out of tolerance" in report.to_text()
    assert "verdicts" not in json.loads(report.to_json())


def test_verdicts_are_checked_and_summed_up(site: Site, tmp_path: Path) -> None:
    report = verify(tmp_path, site, told(site))
    assert report.errors == []
    found = json.loads(report.to_json())["verdicts"]
    assert found["log"] == {"lines": 5, "runs": 3, "checkpoints": 2, "witnessed": 5}
    assert [(r["n"], r["from"], r["to"], r["same_records"]) for r in found["runs"]] == [
        (2, START, HALF, True),
        (3, HALF, END, True),
    ]
    assert [r["witnessed"] for r in found["runs"]] == [HALF + 1000, END + 1000]
    assert found["findings"] == {"fail": 0, "suspect": 1, "warn": 0}
    assert {(r["thresholds"], r["thresholds_sha256"]) for r in found["runs"]} == {(1, "ab" * 32)}
    assert doubts(report) == {"VERDICT"}, "what the collector suspects is to be asked about"
    assert report.exit == 1
    text = report.to_text()
    assert "findings: 0 fail, 1 suspect, 0 warn | 2 of 2 runs judged exactly the records of this bundle" in text
    assert f"thresholds 1, sha256 {'ab' * 32}" in text


def test_a_verdict_without_findings_neither_lifts_nor_lowers_a_grade(site: Site, tmp_path: Path) -> None:
    log = VerdictLog(site)
    log.run(START, END)
    log.checkpoint(END + 1000)
    report = verify(tmp_path, site, log)
    assert (report.exit, report.doubts) == (0, [])
    assert {name: p.grades for name, p in report.points.items()} == {
        name: p.grades for name, p in judged(tmp_path, site).points.items()
    }


def _edited(log: VerdictLog) -> dict[str, bytes]:
    return {LINES: log.files()[LINES].replace(b'"severity":"suspect"', b'"severity":"warn"')}


def _edited_and_signed(log: VerdictLog) -> dict[str, bytes]:
    other = VerdictLog(log.site)
    other.run(START - 86_400, START, [finding(START - 900, START)])
    other.run(START, HALF)
    other.run(HALF, END, [finding(HALF, HALF + SLOT, severity="warn")])
    return {LINES: other.files()[LINES]}


def _other_leaves(log: VerdictLog) -> dict[str, bytes]:
    return {LEAVES: log.files()[LEAVES][:-32] + b"\7" * 32}


def _without_finding(log: VerdictLog) -> dict[str, bytes]:
    return {LINES: b"".join(log.files()[LINES].splitlines(keepends=True)[:-1])}


def _without_run(log: VerdictLog) -> dict[str, bytes]:
    lines = log.files()[LINES].splitlines(keepends=True)
    return {LINES: b"".join(lines[:1] + lines[2:])}


def _without_newest(log: VerdictLog) -> dict[str, bytes]:
    return {LINES: b"".join(log.files()[LINES].splitlines(keepends=True)[:2])}


def _cut(log: VerdictLog) -> dict[str, bytes]:
    files = log.files()
    return {LINES: _without_newest(log)[LINES], LEAVES: files[LEAVES][: 3 * 32]}


def _hidden(log: VerdictLog) -> dict[str, bytes]:
    """A run whose line tells of fewer findings than there are."""
    other = VerdictLog(log.site)
    other.run(START, END, [finding(START, HALF)], findings_n=0)
    other.checkpoint(END + 1000)
    return other.files()


def _stranger(log: VerdictLog) -> dict[str, bytes]:
    other = VerdictLog(log.site, SigningKey.generate())
    other.run(START, END)
    other.checkpoint(END + 1000)
    return other.files()


def _stranger_below(log: VerdictLog) -> dict[str, bytes]:
    """The collector's checkpoint over lines of somebody else."""
    other = VerdictLog(log.site, SigningKey.generate())
    other.run(START, END)
    other.key = None
    other.checkpoint(END + 1000)
    return other.files()


def _forked(log: VerdictLog) -> dict[str, bytes]:
    second = Checkpoint(ORIGIN, 5, b"\7" * 32).sign(log.site.col).encode()
    return {NOTES: log.files()[NOTES] + b"%d\n" % len(second) + second}


def _as_records(log: VerdictLog) -> dict[str, bytes]:
    """The type inside the signed bytes is that of records."""
    body = log.lines[0].payload
    line = RecordLine(body, log.site.col.kid, log.site.col.sign(pae(RECORD_TYPE, body)))
    lines = log.files()[LINES].splitlines(keepends=True)
    return {LINES: line.encode() + b"\n" + b"".join(lines[1:])}


def _false_evidence(log: VerdictLog) -> dict[str, bytes]:
    other = VerdictLog(log.site)
    other.run(START, END, [finding(START, HALF, evidence_root="00" * 32)])
    other.checkpoint(END + 1000)
    return other.files()


def _from_the_future(log: VerdictLog) -> dict[str, bytes]:
    other = VerdictLog(log.site)
    other.run(START, END, at_s=END + 9000)
    other.checkpoint(END + 1000)
    return other.files()


def _strange_field(log: VerdictLog) -> dict[str, bytes]:
    other = VerdictLog(log.site)
    other.run(START, END, note="trust me")
    other.checkpoint(END + 1000)
    return other.files()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_edited, "SIG"),
        (_edited_and_signed, "ROOT_MISMATCH"),
        (_other_leaves, "ROOT_MISMATCH"),
        (_without_finding, "VERDICT"),
        (_without_run, "VERDICT"),
        (_without_newest, "VERDICT"),
        (_cut, "TRUNCATED"),
        (_hidden, "VERDICT"),
        (_stranger, "CHECKPOINT"),
        (_stranger_below, "KEY"),
        (_forked, "EQUIVOCATION"),
        (_as_records, "SIG"),
        (_false_evidence, "VERDICT"),
        (_from_the_future, "TIME"),
        (_strange_field, "FORMAT"),
    ],
)
def test_what_was_done_to_the_log_is_seen(
    site: Site, tmp_path: Path, change: Callable[[VerdictLog], dict[str, bytes]], code: str
) -> None:
    log = told(site)
    report = verify(tmp_path, site, log, change(log))
    assert codes(report) == {code}, report.errors
    assert report.exit == 2


def test_a_log_cut_with_its_checkpoints_is_seen_by_a_witness_head(site: Site, tmp_path: Path) -> None:
    log, short = told(site), VerdictLog(site)
    short.run(START - 86_400, START, [finding(START - 900, START)])
    short.run(START, HALF)
    short.checkpoint(HALF + 1000)
    assert verify(tmp_path, site, short).exit == 0
    head = log.notes[-1]
    report = judged(tmp_path, site, ordered(site.files() | short.files()), head=head)
    assert codes(report) == {"TRUNCATED"}
    assert judged(tmp_path, site, ordered(site.files() | log.files()), head=head).errors == []


def test_unwitnessed_verdicts_are_a_doubt_and_the_collector_is_no_witness_of_itself(site: Site, tmp_path: Path) -> None:
    log = VerdictLog(site)
    log.run(START, END)
    log.checkpoint(END + 1000, "so")
    report = verify(tmp_path, site, log)
    assert (report.errors, doubts(report), report.exit) == ([], {"UNWITNESSED"}, 1)
    assert "1 of 1 lines of verdicts were not cosigned" in report.doubts[0]
    # A policy that the collector alone fulfils: the site's log is witnessed by it, its own log is not.
    own = good_site(witnessed=True)
    own.witnesses = {"central": own.col}
    own.register["policy"] = f"witness c {NoteKey('central', COSIGNATURE, own.col.public.raw).text}\nquorum c\n"
    alone = VerdictLog(own)
    alone.run(START, END)
    alone.checkpoint(END + 1000)
    report = verify(tmp_path, own, alone)
    assert (report.errors, report.doubts) == ([], [f"UNWITNESSED vee: {UNSEEN}"])
    no_policy = good_site()
    quiet = VerdictLog(no_policy)
    quiet.run(START, END)
    quiet.checkpoint(END + 1000)
    assert verify(tmp_path, no_policy, quiet).doubts == []


UNSEEN = "1 of 1 lines of verdicts were not cosigned as the policy asks"


def test_a_verdict_made_long_after_the_time_it_says_is_a_doubt(site: Site, tmp_path: Path) -> None:
    log = VerdictLog(site)
    log.run(START, END)
    log.checkpoint(END + 200_000)
    assert doubts(verify(tmp_path, site, log)) == {"LATE"}


def test_a_verdict_on_other_records_is_a_doubt_and_a_newer_one_on_these_settles_it(site: Site, tmp_path: Path) -> None:
    other = good_site(witnessed=True)
    log = VerdictLog(site)
    elsewhere = VerdictLog(other, site.col)
    elsewhere.run(START, END)
    said = json.loads(elsewhere.lines[0].payload)
    assert said["records_n"] == 24
    log.run(START, END, records_root=said["records_root"], records_n=said["records_n"])
    log.checkpoint(END + 1000)
    report = verify(tmp_path, site, log)
    assert (report.errors, doubts(report)) == ([], {"VERDICT"})
    assert "run 0 on 24 records of its time, here are 26" in report.doubts[0]
    assert json.loads(report.to_json())["verdicts"]["runs"][0]["same_records"] is False
    log.run(START, END)
    log.checkpoint(END + 2000)
    assert verify(tmp_path, site, log).doubts == []


def test_a_run_that_reaches_beyond_the_bundle_is_not_held_against_it(site: Site, tmp_path: Path) -> None:
    log = VerdictLog(site)
    log.run(START - SLOT, END, records_root="11" * 32)
    log.checkpoint(END + 1000)
    report = verify(tmp_path, site, log)
    assert (report.exit, json.loads(report.to_json())["verdicts"]["runs"][0]["same_records"]) == (0, None)


@pytest.mark.parametrize(
    ("files", "code", "exits"),
    [
        ({LINES: b"TZR1|" + b"[" * 40_000 + b"|0|0\n"}, "LIMIT", 3),
        ({LINES: b"x" * 200_000}, "LIMIT", 3),
        ({LINES: b"x\n"}, "FORMAT", 2),
        ({LINES: b""}, "VERDICT", 2),
        ({LEAVES: b"\0" * 33}, "ROOT_MISMATCH", 2),
        ({LEAVES: b""}, "TRUNCATED", 2),
        ({NOTES: b"999999\nx"}, "ARCHIVE", 2),
        ({NOTES: b""}, "TRUNCATED", 2),
    ],
    ids=["deep", "long line", "no line", "no lines", "odd leaves", "no leaves", "note", "no notes"],
)
def test_hostile_files_end_in_a_named_error(
    site: Site, tmp_path: Path, files: dict[str, bytes], code: str, exits: int
) -> None:
    report = verify(tmp_path, site, told(site), files)
    assert (codes(report), report.exit) == ({code}, exits), report.errors


def test_the_log_comes_whole_or_not_at_all(site: Site, tmp_path: Path) -> None:
    files = site.files() | told(site).files()
    del files[NOTES]
    assert codes(judged(tmp_path, site, ordered(files))) == {"ARCHIVE"}
    stray = site.files() | {"vee/notes.txt": b"hello"}
    assert codes(judged(tmp_path, site, ordered(stray))) == {"ARCHIVE"}


RUN = Run(0, 0, 0, 0, 1, "", 1, "", 0, True, 0, (), None)


def test_newer_runs_stand_for_the_time_they_cover() -> None:
    times = [(0, 10), (2, 4), (20, 30), (0, 15), (25, 35), (20, 30), (3, 22)]
    runs = [replace(RUN, n=n, t0=t0, t1=t1) for n, (t0, t1) in enumerate(times)]
    kept = [n for n, (a, b) in enumerate(times) if not any(c <= a and b <= d for c, d in times[n + 1 :])]
    found, covered = standing(runs)
    assert [run.n for run in found] == kept == [3, 4, 5, 6]
    assert (covered.starts, covered.ends) == ([0, 3, 20, 25], [15, 22, 30, 35])
    assert covered.cover(4, 22)
    assert not covered.cover(2, 22)
    assert not Windows().cover(0, 1)


def test_days_are_those_of_kazakhstan_and_one_has_25_hours() -> None:
    found = list(days(Period(1_790_794_800, 1_790_794_800 + 2 * 86_400 + 10)))
    assert [(name, end - start) for name, start, end in found] == [("2026-10-01", 86_400), ("2026-10-02", 86_400)]
    assert list(days(Period(1_790_794_801, 1_790_794_800 + 86_400))) == []
    around = list(days(Period(1_709_056_800, 1_709_406_000)))
    assert [(name, (end - start) // 3600) for name, start, end in around] == [
        ("2024-02-28", 24),
        ("2024-02-29", 25),
        ("2024-03-01", 24),
        ("2024-03-02", 24),
    ]


def test_a_day_that_nobody_judged_is_named(tmp_path: Path) -> None:
    made = good_site()
    made.first, made.last = START, START + 3 * 86_400
    log = VerdictLog(made)
    first, second = list(days(Period(made.first, made.last)))
    log.run(first[1], first[2])
    log.checkpoint(made.last)
    report = verify(tmp_path, made, log)
    assert report.verdicts is not None
    assert report.verdicts.missing == [second[0]]
    assert f"days judged: 1 of 2; not: {second[0]}" in report.to_text()
    assert SITE in report.to_text()
