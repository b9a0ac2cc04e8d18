"""The offline verifier against bundles of a small generator that signs records as a site does."""

from __future__ import annotations

import base64
import copy
import io
import json
import subprocess
import sys
import zipfile
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
    f32,
    frames,
    gap,
    good_site,
    zipped,
)

from verifier.cli import main, parse_period
from verifier.metering import Period
from verifier.report import Report
from verifier.verify import verify
from wire import canonical
from wire.dsse import ORDER_TYPE
from wire.energy import interval_wh
from wire.keys import SigningKey, b64


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site()


@pytest.fixture
def site(template: Site) -> Site:
    fresh = copy.copy(template)
    fresh.streams, fresh.register = copy.deepcopy(template.streams), copy.deepcopy(template.register)
    return fresh


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Report]:
    def run(site: Site, data: bytes | None = None, trust: bytes | None = None, **asked: Any) -> Report:
        (tmp_path / "b.zip").write_bytes(site.pack() if data is None else data)
        (tmp_path / "trust.json").write_bytes(site.trust() if trust is None else trust)
        period, name = asked.get("period", Period(site.first, site.last)), asked.get("name")
        return verify(tmp_path / "b.zip", trust_path=tmp_path / "trust.json", period=period, site=name)

    return run


def test_a_good_bundle_is_intact_and_complete(site: Site, judge: Callable[..., Report]) -> None:
    report = judge(site)
    assert report.errors == []
    assert report.exit == 0
    assert [check.n for check in report.checks] == list(range(1, 14))
    assert report.records == sum(len(docs) for docs in site.streams.values())
    point = report.points["M1"]
    # Sums telescope: the total is the difference of the floors at the two ends, whatever lies between.
    first, last = site.streams["mp:M1"][1]["reg"][IMPORT][0], site.streams["mp:M1"][-1]["reg"][IMPORT][1]
    assert point.wh == interval_wh(first, last, MAP)
    assert point.grades == {"C": SLOTS}
    assert (report.orders, report.answers) == (1, 2)


def test_json_and_text_say_the_same(site: Site, judge: Callable[..., Report]) -> None:
    report = judge(site)
    doc = json.loads(report.to_json())
    assert doc["exit"] == 0
    assert doc["points"]["M2"] == {
        "slots": SLOTS,
        "grades": {"C": SLOTS},
        "wh": report.points["M2"].wh,
        "exp_wh": report.points["M2"].exp_wh,
        "bridged_wh": 0,
        "verified_wh": 0,
        "status": {"passport_incomplete": {"slots": SLOTS, "wh": report.points["M2"].wh}},
        "spots": [],
        "independent": [],
        "without_spot": ["2026-Q3"],
        "lowered": {},
    }
    assert (doc["records"], doc["checkpoints"], doc["cosigned"]) == (report.records, 0, 0)
    text = report.to_text()
    assert "INTEGRITY OK - COMPLETE (exit 0)" in text
    assert "12 slots = 12 C" in text


def test_a_bridged_gap_is_visible_and_loses_no_energy(site: Site, judge: Callable[..., Report]) -> None:
    whole = judge(site).points["M1"].wh
    gap(site, "mp:M1", range(3, 5))
    report = judge(site)
    assert report.errors == []
    assert report.exit == 1
    assert report.points["M1"].grades == {"C": SLOTS - 2, "R": 2}
    assert report.points["M1"].wh + report.points["M1"].bridged_wh == whole


def test_an_unbridged_gap_is_missing(site: Site, judge: Callable[..., Report]) -> None:
    gap(site, "mp:M1", range(3, 5), why="COUNTER_RESET")
    for name in ("bridge_wh", "bridge_rt", "bridge_reg"):
        del site.streams["mp:M1"][6][name]
    report = judge(site)
    assert (report.exit, report.points["M1"].grades) == (1, {"C": SLOTS - 2, "M": 2})


def still(site: Site, stream: str, slots: range) -> None:
    """Let the registers stand over these slots and keep every later reading shifted accordingly."""
    docs = site.streams[stream]
    held = docs[slots.start]["reg"]
    for doc in docs[slots.start + 1 :]:
        for name, how in ((IMPORT, MAP), ("energy_export_wh", EXPORT_MAP)):
            first = held[name][1]
            doc["reg"][name] = [first, first]
            doc["wh" if name == IMPORT else "exp_wh"] = interval_wh(first, first, how)
        doc["raw"] = frames(held[IMPORT][1], held["energy_export_wh"][1])


@pytest.mark.parametrize(
    ("opened", "closed", "grades"),
    [(3 * SLOT, 6 * SLOT, {"C": 9, "Z": 3}), (3 * SLOT + 60, 6 * SLOT, {"C": 9, "Z": 2, "R": 1})],
)
def test_a_dead_branch_is_proven_by_signed_positions(
    site: Site, judge: Callable[..., Report], opened: int, closed: int, grades: dict[str, int]
) -> None:
    still(site, "mp:M2", range(3, 6))
    gap(site, "mp:M2", range(3, 6), why="DE_ENERGISED", sw="Q1")
    for at, was, now in ((START + opened, "closed", "open"), (START + closed + 1, "open", "closed")):
        site.add("site", "event", at, {"ev": "switch_position", "obj": "Q1", "was": was, "now": now})
    report = judge(site)
    assert report.errors == []
    assert report.points["M2"].grades == grades
    assert report.exit == (1 if "R" in grades else 0)


def test_silence_without_a_switch_proves_nothing(site: Site, judge: Callable[..., Report]) -> None:
    still(site, "mp:M2", range(3, 6))
    gap(site, "mp:M2", range(3, 6), why="DE_ENERGISED", sw="Q1")
    report = judge(site)
    assert (report.exit, report.points["M2"].grades) == (1, {"C": 9, "R": 3})


def test_a_registered_point_without_records_is_missing(site: Site, judge: Callable[..., Report]) -> None:
    del site.streams["mp:M2"]
    report = judge(site)
    assert (report.exit, report.points["M2"].grades) == (1, {"M": SLOTS})


def test_a_point_outside_the_register_is_a_doubt(site: Site, judge: Callable[..., Report]) -> None:
    site.register["sites"][0]["points"].pop()
    report = judge(site)
    assert (report.exit, codes(report)) == (1, set())
    assert "unconfirmed" in report.doubts[0]


Change = Callable[[Site], None]


def at(stream: str, index: int, **fields: Any) -> Change:
    def change(site: Site) -> None:
        site.streams[stream][index].update(fields)

    return change


def drop(stream: str, index: int) -> Change:
    def change(site: Site) -> None:
        del site.streams[stream][index]

    return change


def register(path: tuple[str | int, ...], value: Any) -> Change:
    def change(site: Site) -> None:
        target: Any = site.register["sites"][0]
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = value

    return change


def swap_bits(site: Site) -> None:
    doc = site.streams["mp:M1"][4]
    doc["reg"][IMPORT][1] = f32(1100.0)
    doc["wh"] = interval_wh(doc["reg"][IMPORT][0], doc["reg"][IMPORT][1], MAP)


def swap_bits_and_frames(site: Site) -> None:
    swap_bits(site)
    doc = site.streams["mp:M1"][4]
    doc["raw"] = frames(doc["reg"][IMPORT][1], doc["reg"]["energy_export_wh"][1])


def foreign_order(site: Site) -> None:
    envelope = {
        "payloadType": ORDER_TYPE,
        "payload": "e30=",
        "signatures": [{"keyid": "0" * 16, "sig": b64(bytes(64))}],
    }
    site.streams["cmd"][0]["raw"] = base64.b64encode(json.dumps(envelope).encode()).decode()


def badly_signed_order(site: Site) -> None:
    doc = json.loads(base64.b64decode(site.streams["cmd"][0]["raw"]))
    doc["signatures"][0]["sig"] = b64(bytes(64))
    site.streams["cmd"][0]["raw"] = b64(json.dumps(doc).encode())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (at("mp:M1", 4, wh=1), "DELTA"),
        (at("mp:M1", 4, exp_wh=None), "DELTA"),
        (swap_bits, "DECODE"),
        (swap_bits_and_frames, "REGISTER_DISCONTINUITY"),
        (at("mp:M1", 4, rt0=(START + 3 * SLOT) * 1000 + 777), "REGISTER_DISCONTINUITY"),
        (at("mp:M1", 4, rt1=(START + 4 * SLOT) * 1000 + 30_001), "SLOT"),
        (at("mp:M1", 4, raw=[]), "DECODE"),
        (at("mp:M1", 4, raw=[["010400640004", "0104"]]), "DECODE"),
        (at("mp:M1", 4, reg={}), "DELTA"),
        (at("mp:M1", 4, reg=7), "DECODE"),
        (at("mp:M1", 4, cfg="00" * 32), "BIND"),
        (at("mp:M1", 4, sn="B2"), "RATIO"),
        (at("mp:M1", 4, t0=START + 3 * SLOT + 1), "SLOT"),
        (at("mp:M1", 4, t0=START, t1=START + SLOT), "SLOT"),
        (at("mp:M1", 4, bridge_wh=0, bridge_rt=1, bridge_reg={}), "REGISTER_DISCONTINUITY"),
        (drop("mp:M1", 4), "SLOT"),
        (drop("mp:M1", -1), "SLOT"),
        (drop("mp:M1", 0), "BIND"),
        (at("mp:M1", 0, ct={"num": 121, "den": 1}), "RATIO"),
        (at("mp:M2", 0, sn="A2"), "RATIO"),
        (register(("points", 0, "vt_num"), 2), "RATIO"),
        (register(("slot_s",), 300), "GENESIS"),
        (register(("simulation",), True), "GENESIS"),
        (register(("epochs", 0, "epoch"), "e1-ffffffff"), "KEY"),
        (register(("epochs", 0, "k_rec"), SigningKey.generate().public.text), "KEY"),
        (register(("epochs", 0, "to_index"), 3), "KEY"),
        (drop("site", 0), "GENESIS"),
        (at("site", 1, ty="genesis"), "GENESIS"),
        (at("site", 0, log=f"tizgin/other/{EPOCH}"), "FORMAT"),
        (at("mp:M1", 4, st="mp:M2"), "FORMAT"),
        (at("mp:M1", 4, p="00" * 32), "CHAIN"),
        (at("mp:M1", 4, n=9), "SEQ"),
        (drop("cmd", 0), "COMMAND"),
        (at("cmd", 0, digest="00" * 32), "COMMAND"),
        (at("cmd", 2, id="01912345-0000-7000-8000-000000000002"), "COMMAND"),
        (at("cmd", 1, id=None), "COMMAND"),
        (foreign_order, "COMMAND"),
        (badly_signed_order, "COMMAND"),
    ],
)
def test_every_falsehood_has_its_own_error(site: Site, judge: Callable[..., Report], change: Change, code: str) -> None:
    """Signed again by the site's own key: a stolen or misused key does not help."""
    change(site)
    report = judge(site)
    assert report.exit == 2
    assert code in codes(report), [error.line() for error in report.errors]


def test_junk_orders_are_evidence_too(site: Site, judge: Callable[..., Report]) -> None:
    site.add("cmd", "cmd_rx", START + 90, {"id": None, "digest": None, "raw": "anything", "rx": 1})
    site.add("cmd", "cmd_ack", START + 90, {"id": None, "state": "rejected", "code": "format", "text": "junk"})
    assert judge(site).exit == 0


def test_a_record_of_another_key_is_refused(site: Site, judge: Callable[..., Report]) -> None:
    files = site.files()
    name = f"records/{EPOCH}/mp_M1.tzr"
    files[name] = b"".join(line + b"\n" for line in site.lines("mp:M1", SigningKey.generate()))
    report = judge(site, site.pack(files))
    assert (report.exit, codes(report) & {"KEY"}) == (2, {"KEY"})
    assert report.points["M1"].grades == {"X": SLOTS}
    assert report.points["M2"].grades == {"C": SLOTS}


@pytest.mark.parametrize(
    "twin",
    [
        lambda line: line.replace(b'"wh":', b'"wh": ', 1),
        lambda line: line.replace(b'"v":1', b'"v":1.0', 1),
        lambda line: line + b"\r",
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: line.replace(b'"boot":"b0"', b'"boot":"\\u0062\\u0030"', 1),
        lambda line: line.replace(b"TZR1", b"TZR2", 1),
        lambda line: line[:-4],
    ],
)
def test_a_non_canonical_twin_is_refused(
    site: Site, judge: Callable[..., Report], twin: Callable[[bytes], bytes]
) -> None:
    files = site.files()
    name = f"records/{EPOCH}/mp_M1.tzr"
    lines = files[name].splitlines()
    lines[3] = twin(lines[3])
    files[name] = b"\n".join(lines) + b"\n"
    report = judge(site, site.pack(files))
    assert report.exit == 2
    assert codes(report) & {"FORMAT", "SIG"}


def test_report_totals_are_recomputed(site: Site, judge: Callable[..., Report]) -> None:
    files = site.files()
    doc = json.loads(files["report.json"])
    doc["points"]["p0000"]["wh"] += 1
    files["report.json"] = canonical.encode(doc)
    report = judge(site, site.pack(files))
    assert (report.exit, codes(report)) == (2, {"REPORT"})


@pytest.mark.parametrize(
    "changes",
    [
        {"date": (1999, 1, 1, 0, 0, 0)},
        {"method": zipfile.ZIP_DEFLATED},
        {"comment": b"hello"},
        {"end": b"hello"},
    ],
)
def test_a_zip_that_is_not_the_canonical_one_is_refused(
    site: Site, judge: Callable[..., Report], changes: dict[str, Any]
) -> None:
    with zipfile.ZipFile(io.BytesIO(site.pack())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    report = judge(site, zipped(files, **changes))
    assert (report.exit, codes(report)) == (2, {"ARCHIVE"})


def test_something_before_or_behind_the_zip_is_refused(site: Site, judge: Callable[..., Report]) -> None:
    data = site.pack()
    for changed in (b"x" + data, data + b"x", data[:-1], b"", b"PK"):
        assert judge(site, changed).exit in {2, 3}


def test_bombs_and_absurd_directories_are_not_unpacked(site: Site, judge: Callable[..., Report]) -> None:
    many = zipped({f"f{i}": b"" for i in range(5000)})
    assert (judge(site, many).exit, codes(judge(site, many))) == (3, {"LIMIT"})
    bomb = zipped({"manifest.json": bytes(1 << 24)}, method=zipfile.ZIP_DEFLATED)
    assert (judge(site, bomb).exit, codes(judge(site, bomb))) == (3, {"LIMIT"})


def test_unknown_signers_cannot_be_verified(site: Site, judge: Callable[..., Report]) -> None:
    other = Site()
    for wrong in ("registrar", "collector"):
        trust = json.loads(site.trust())
        trust[wrong] = [other.reg.public.text]
        report = judge(site, trust=json.dumps(trust).encode())
        assert (report.exit, codes(report)) == (3, {"UNKNOWN_SIGNER"})


@pytest.mark.parametrize(
    "key",
    [
        b64(bytes(32)),
        b64(b"\x01" + bytes(31)),
        b64((2**255 - 20).to_bytes(32, "little")),
        b64((2**255 - 18).to_bytes(32, "little")),
        b64(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")),
        b64(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")),
        b64(bytes(31)),
        "not base64",
        7,
        None,
    ],
)
def test_keys_that_prove_nothing_are_not_trusted(site: Site, judge: Callable[..., Report], key: Any) -> None:
    trust = json.loads(site.trust())
    trust["registrar"] = [key]
    report = judge(site, trust=json.dumps(trust).encode())
    assert (report.exit, codes(report)) == (3, {"TRUST"})


@pytest.mark.parametrize(
    ("asked", "exit_code"),
    [
        ({"period": Period(START - SLOT, START + SLOT)}, 3),
        ({"period": Period(START, START + SLOT * (SLOTS + 1))}, 3),
        ({"period": Period(START, START + SLOT + 1)}, 4),
        ({"period": Period(START + SLOT, START + 3 * SLOT)}, 0),
        ({"name": "other"}, 3),
        ({"name": SITE}, 0),
    ],
)
def test_what_is_asked_for_must_be_there(
    site: Site, judge: Callable[..., Report], asked: dict[str, Any], exit_code: int
) -> None:
    assert judge(site, **asked).exit == exit_code


def test_a_cut_end_is_seen_because_the_period_is_given(site: Site, judge: Callable[..., Report]) -> None:
    """Records, totals and manifest are all consistent; only the asked period shows what is not there."""
    for stream in ("mp:M1", "mp:M2"):
        del site.streams[stream][-3:]
    report = judge(site)
    assert (report.exit, codes(report)) == (2, {"SLOT"})
    assert report.points["M1"].grades == {"C": SLOTS - 3, "M": 3}


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("1790000000/1790000900", Period(1790000000, 1790000900)),
        ("2026-10-01T00:00:00Z/2026-10-01T05:00:00+05:00", None),
        ("2026-10-01/2026-10-02", Period(1790812800, 1790899200)),
        ("2026-10-01T05:00:00+05:00/2026-10-02T00:00Z", Period(1790812800, 1790899200)),
        ("2026-10-01", None),
        ("a/b", None),
        ("2026-10-02/2026-10-01", None),
        ("2026-10-01T00:00:00.5/2026-10-02", None),
    ],
)
def test_periods(text: str, period: Period | None) -> None:
    if period is None:
        with pytest.raises(Exception, match=r"expected|after"):
            parse_period(text)
    else:
        assert parse_period(text) == period


def test_command_line_in_a_process_of_its_own(site: Site, tmp_path: Path, repository: Path) -> None:
    (tmp_path / "b.zip").write_bytes(site.pack())
    (tmp_path / "t.json").write_bytes(site.trust())
    period = f"{site.first}/{site.last}"
    words = [str(tmp_path / "b.zip"), "--trust", str(tmp_path / "t.json"), "--period", period, "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "verifier", *words],
        capture_output=True,
        text=True,
        cwd=repository,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["site"] == SITE
    from tizgin.cli import run

    assert run(["verify", *words[:-2]]) == 0
    assert run(["verify", *words[:3], "--period", "nonsense"]) == 4
    assert run(["verify", words[0]]) == 4
    assert main([str(tmp_path / "absent.zip"), *words[1:5]]) == 3
    assert main([words[0], "--trust", str(tmp_path / "absent"), *words[3:5]]) == 3


def test_bounds_of_zones_in_the_register_change_no_verdict(site: Site, judge: Callable[..., Report]) -> None:
    before = judge(site)
    site.register["zones"] = [{"id": "north", "max_step_w": 1, "max_ramp_w_per_min": 1}]
    after = judge(site)
    assert (after.exit, after.errors, after.points) == (0, [], before.points)
