"""Plausibility from stored records to the signed log, the command line and what it makes of energy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from benchmarks.detection import on_day
from benchmarks.vee_plant import plant
from central.energy import as_dict, energy
from central.errors import CentralError
from central.store import evidence
from central.store.database import Database
from central.store.schema import outside_readings, records, registers, verdict_logs, verdicts
from central.vee.book import append, check, lines
from central.vee.copies import Copies
from central.vee.daily import AGAIN_S, DailyJudge, due, judged
from central.vee.judge import judge
from central.vee.limits import load
from central.vee.model import Machines
from central.vee.reader import read_site
from central.vee.standing import open_findings
from tests.integration.central_site import Ledger, make_settings
from tizgin.cli import run
from wire.checkpoints import log_key, open_checkpoint
from wire.errors import BadRecord
from wire.keys import SigningKey
from wire.merkle import Frontier
from wire.records import parse_line
from wire.registry import Epoch, KeysDocument, RegisteredPoint, RegisteredSite, sign_keys
from wire.verdicts import open_verdict

SITE, POINT, SLOT = "ekb-1", "F1", 900
DAY0 = 1_790_794_800
"""Midnight in Kazakhstan, 1 October 2026."""
DAYS = 2
REGISTRAR, SITE_KEY, COLLECTOR = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
MAP = {"fc": 4, "addr": 0, "words": 4, "order": "big", "enc": "u64", "lsb": {"num": 100, "den": 1}}
PASSPORT: dict[str, Any] = {
    "meter_serial": "77",
    "accuracy_class": "0.5S",
    "expires": "2026-10-01",
    "ct": {"num": 600, "den": 5, "expires": "2030-01-01"},
    "ratio_checked": {"date": "2026-01-10", "by": "B. Omarov"},
}
ENTRY = RegisteredSite(
    id=SITE,
    zone="north",
    contracted_w=5_000_000,
    emergency_w=300_000,
    slot_s=900,
    epochs=(Epoch(epoch="e1-0badcafe", k_rec=SITE_KEY.public.text, k_log=SigningKey.generate().public.text),),
    points=(RegisteredPoint(id=POINT, role="technical", serial="77", ct_num=120),),
)


def ledger() -> Ledger:
    """Two days of one point; the second day's slot 10 says more than its registers."""
    made = Ledger(SITE, SITE_KEY)
    made.add("site", "genesis", at=DAY0 * 1000 - 5000, site=SITE, slot_s=900)
    bind = {"device": "m1", "profile": "p", "sn": "77", "role": "technical", "owner": "o", "boundary": False}
    bind |= {"node": "QF1", "inverted": False, "ct": {"num": 600, "den": 5}, "vt": {"num": 1, "den": 1}}
    bind |= {"ct_read": None, "vt_read": None, "ratio_applied_in": "meter", "seals": []}
    made.add(f"mp:{POINT}", "bind", at=DAY0 * 1000 - 4000, **bind, pts={"energy_import_wh": MAP}, passport=PASSPORT)
    cfg, register = made.hashes[f"mp:{POINT}"][0], 10_000
    for i in range(96 * DAYS):
        t0, wh = DAY0 + i * SLOT, 1_000_000 + 100 * ((i * 37) % 23)
        if i == 20:
            made.gap(POINT, t0, "TIMEOUT")
            register += 10_000
            continue
        bridge = {"bridge_wh": 1_000_000, "bridge_rt": (DAY0 + 20 * SLOT) * 1000, "bridge_reg": {}} if i == 21 else {}
        reg = {"energy_import_wh": [register, register + wh // 100]}
        told = wh + 50_000 if i == 106 else wh
        pi = {"wh": wh, "n": 900, "gap_ms": 1000}
        made.interval(POINT, t0, told, reg=reg, cfg=cfg, sn="77", at=(t0 + SLOT) * 1000, pi=pi, **bridge)
        register += wh // 100
    return made


def fill(url: str) -> None:
    database = Database.open(url)
    items = []
    for line in (line for lines_ in ledger().lines.values() for line in lines_):
        record, doc = parse_line(line)
        items.append(evidence.Incoming(SITE, "e1-0badcafe", line, record, doc, True))
    register = sign_keys(
        KeysDocument(v=1, version=1, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=(ENTRY,)), REGISTRAR
    )
    with database.engine.begin() as connection:
        evidence.store(connection, items, DAY0 * 1000)
        connection.execute(sa.insert(registers), [{"version": 1, "envelope": register, "received_at": 1}])
    database.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    fill(database_url)
    opened = Database.open(database_url)
    yield opened
    opened.close()


def run_of(database: Database, day: int, now_ms: int = 1_791_000_000_000) -> int:
    start = DAY0 + day * 86_400
    with database.engine.begin() as connection:
        site, verdict = judged(connection, ENTRY, start, start + 86_400)
        return append(connection, site, verdict, load(), COLLECTOR, now_ms).n


def test_a_run_is_signed_chained_and_points_at_the_records_it_judged(database: Database) -> None:
    first, second = run_of(database, 0), run_of(database, 1)
    with database.engine.connect() as connection:
        assert check(connection, SITE, COLLECTOR.public) == connection.scalar(sa.select(sa.func.count(verdicts.c.n)))
        docs = [open_verdict(line, COLLECTOR.public)[1] for line in lines(connection, SITE, second)]
        stored = {r.hash for r in connection.execute(sa.select(records.c.hash))}
        note = connection.execute(sa.select(verdict_logs.c.note)).scalar_one()
    origin = f"tizgin/{SITE}/vee"
    assert open_checkpoint(bytes(note), [log_key(origin, COLLECTOR.public.raw)])[0].origin == origin
    assert (first, docs[0]["ty"], docs[0]["run"], docs[0]["thresholds"]) == (0, "vee_run", second, 2)
    assert docs[0]["thresholds_sha256"] == load().sha256
    found = {d["rule"]: d for d in docs[1:]}
    assert set(found) == {"V10", "V11"}
    assert (found["V10"]["severity"], found["V10"]["seen"] - found["V10"]["expected"]) == ("fail", 50_000)
    assert found["V11"]["t0"] == DAY0 + 106 * SLOT
    tree = Frontier()
    tree.extend(bytes.fromhex(h) for h in found["V11"]["evidence"])
    assert (found["V11"]["evidence_root"], found["V11"]["evidence_n"]) == (tree.root().hex(), 1)
    assert set(found["V11"]["evidence"]) <= stored


def test_judging_again_appends_and_an_altered_line_is_seen(database: Database) -> None:
    run_of(database, 1)
    with database.engine.connect() as connection:
        before = lines(connection, SITE, 0)
    again = run_of(database, 1)
    with database.engine.connect() as connection:
        assert again == len(before)
        assert lines(connection, SITE, 0) == before
        assert len(open_findings(connection, SITE, DAY0, 50)) == len(before) - 1, "the newest run stands, not both"
    other = bytes(before[1]).replace(b'"severity":"fail"', b'"severity":"warn"')
    assert other != before[1]
    for change in ({"line": other}, {"line": before[0]}):
        with database.engine.begin() as connection:
            connection.execute(sa.update(verdicts).where(verdicts.c.n == 1).values(**change))
        with database.engine.connect() as connection, pytest.raises(CentralError, match="log of verdicts"):
            check(connection, SITE, COLLECTOR.public)
    with pytest.raises(BadRecord, match="signed by"):
        open_verdict(before[0], SITE_KEY.public)
    with pytest.raises(BadRecord, match="has no field 'st'"):
        parse_line(before[0])


def test_only_records_whose_signature_holds_are_judged(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.update(records).where(records.c.n == 50).values(verified=None))
        site, verdict = judged(connection, ENTRY, DAY0, DAY0 + 86_400)
    assert len(site.points[POINT].slots) == 95
    (silent,) = [f for f in verdict.findings if f.text == "no_record"]
    assert silent.t0 == DAY0 + 49 * SLOT


def test_balances_orders_and_switches_are_read_as_the_rules_want_them(tmp_path: Path) -> None:
    made = Ledger(SITE, SITE_KEY)
    made.interval(POINT, DAY0, 1_000_000)
    asic = [{"mp": POINT, "seen": 99, "expected": 100, "wh": 990_000}, {"mp": "F2", "seen": None, "expected": 1}]
    sums = {"main": ["M0"], "main_wh": 1_020_000, "feeders_wh": 1_000_000, "loss_wh": 15_000, "residual_wh": 5_000}
    made.add(
        "bal", "balance", at=(DAY0 + 900) * 1000, t0=DAY0, t1=DAY0 + 900, **sums, tol_wh=9_000, missing=[], asic=asic
    )
    unknown = {"main_wh": None, "feeders_wh": None, "loss_wh": None, "residual_wh": None, "tol_wh": None}
    made.add(
        "bal", "balance", at=(DAY0 + 1800) * 1000, t0=DAY0 + 900, t1=DAY0 + 1800, **unknown, missing=[POINT], asic=[]
    )
    for order, mode, first in (("o-1", "live", 100), ("o-2", "drill", 200), ("o-3", "live", 300)):
        made.add(
            "cmd", "cmd_ack", at=(DAY0 + first) * 1000, id=order, state="armed", order_mode=mode, agent_mode="armed"
        )
        made.add("cmd", "cmd_eff", at=(DAY0 + first + 10) * 1000, id=order, state="holding")
        if order != "o-3":
            made.add("cmd", "cmd_eff", at=(DAY0 + first + 50) * 1000, id=order, state="restoring")
    made.add("site", "event", at=(DAY0 + 400) * 1000, ev="switch_position", obj="QF1", was="closed", now="open")
    opened = Database.open(f"sqlite:///{tmp_path / 'c.db'}")
    lines_ = [line for stream in made.lines.values() for line in stream]
    items = [evidence.Incoming(SITE, made.epoch, line, *parse_line(line), True) for line in lines_]
    with opened.engine.begin() as connection:
        evidence.store(connection, items, DAY0 * 1000)
        site = read_site(connection, ENTRY, DAY0, DAY0 + 86_400, load())
    opened.close()
    first, second = site.balances
    assert (first.residual_wh, first.tol_wh, first.main) == (5_000, 9_000, ("M0",))
    assert first.asic == {POINT: Machines(99, 100, 990_000)}, "machines of which nobody knows how many are left out"
    assert (second.residual_wh, second.missing, second.asic) == (None, (POINT,), {})
    assert [(h.order, h.begin_s - DAY0, h.end_s and h.end_s - DAY0) for h in site.held] == [
        ("o-1", 110, 150),
        ("o-3", 310, None),
    ], "a drill holds nothing"
    assert [(s.switch, s.now) for s in site.switched] == [("QF1", "open")]
    assert (DAY0 + 400) * 1000 in site.disturbed_ms


def test_absurd_records_that_a_site_signed_do_not_keep_it_from_being_judged(tmp_path: Path) -> None:
    huge = 2**53 - 1
    made = Ledger(SITE, SITE_KEY)
    made.add(f"mp:{POINT}", "bind", at=DAY0 * 1000, sn=7, ct={"num": 1, "den": 0}, pts={"energy_import_wh": "x"}, n=0)
    odd: list[dict[str, Any]] = [
        {"wh": huge, "pi": {"wh": -huge}, "mto": huge, "q": ["rollover"], "reg": {"energy_import_wh": [huge, 0]}},
        {"wh": huge, "reg": {"energy_import_wh": "ab"}},
        {"wh": None, "q": None},
        {"wh": "1", "exp_wh": [], "sn": {}, "cfg": made.hashes[f"mp:{POINT}"][0], "mto": "x"},
        {"wh": -huge},
        {"wh": 0, "bridge_wh": huge, "bridge_rt": -huge, "pi": []},
    ]
    for i, fields in enumerate(odd):
        made.interval(POINT, DAY0 + i * SLOT, **({"wh": 1} | fields))
    made.gap(POINT, DAY0 + 10 * SLOT, "\0" * 5_000)
    for more in ({"main": [1, "\0" * 99], "asic": [{"mp": [], "seen": 1, "expected": 1}]}, {"asic": {"f1": 1}}):
        sums = {"main_wh": huge, "feeders_wh": -huge, "loss_wh": 0, "residual_wh": huge, "tol_wh": -huge}
        made.add("bal", "balance", at=DAY0 * 1000, t0=DAY0 + 7, t1=DAY0, **(sums | more))
    made.add("site", "event", at=DAY0 * 1000, ev="switch_position", obj=[], now={})
    made.add("cmd", "cmd_eff", at=DAY0 * 1000, id={}, state=[])
    opened = Database.open(f"sqlite:///{tmp_path / 'c.db'}")
    lines_ = [line for stream in made.lines.values() for line in stream]
    items = [evidence.Incoming(SITE, made.epoch, line, *parse_line(line), True) for line in lines_]
    with opened.engine.begin() as connection:
        evidence.store(connection, items, DAY0 * 1000)
        site, verdict = judged(connection, ENTRY, DAY0, DAY0 + 86_400)
        append(connection, site, verdict, load(), COLLECTOR, 1)
        assert check(connection, SITE, COLLECTOR.public) == 1 + len(verdict.findings)
    opened.close()
    assert {"V01", "V04", "V05", "V13", "V20"} <= {f.rule for f in verdict.findings}


def test_verdicts_of_every_kind_can_be_signed(database: Database) -> None:
    made = plant(7, "bypass", days=16)
    slots = on_day(made.site, 15)
    verdict = judge(slots, load())
    assert {"V20", "V21"} <= {f.rule for f in verdict.findings}
    with database.engine.begin() as connection:
        append(connection, slots, verdict, load(), COLLECTOR, 1_791_000_000_000)
        assert check(connection, slots.site, COLLECTOR.public) == 1 + len(verdict.findings)


def test_verified_energy_needs_papers_and_a_verdict(database: Database) -> None:
    def days() -> list[dict[str, Any]]:
        with database.engine.connect() as connection:
            (found,) = energy(connection, SITE, [POINT], SLOT, DAY0, DAY0 + DAYS * 86_400, "day", ENTRY)
        return as_dict(found)["periods"]

    first, second = days()
    assert (first["verified_wh"], first["unjudged_wh"]) == (0, first["known_wh"]), "not judged is not verified"
    run_of(database, 0)
    run_of(database, 1)
    first, second = days()
    assert first["import_wh"] == first["known_wh"] + 1_000_000
    assert first["verified_wh"] == first["known_wh"], "what is bridged alone is not verified slot by slot"
    assert first["status_wh"] == {"valid": first["known_wh"]}
    assert (first["failed_wh"], first["unjudged_wh"]) == (0, 0)
    # The certificate's last day was the first: the kWh are the same, their standing is not. A sum that fails taints
    # the slots it is over.
    assert second["status_wh"] == {"verification_expired": second["known_wh"]}
    assert second["verified_wh"] == 0
    assert second["failed_wh"] == second["known_wh"]


async def test_central_judges_each_closed_day_once_and_again_when_slots_come_late(
    database: Database, tmp_path: Path
) -> None:
    now = [(DAY0 + DAYS * 86_400 + 3600) * 1000]
    document = KeysDocument(v=1, version=1, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=(ENTRY,))
    daily = DailyJudge(database, lambda: document, COLLECTOR, lambda _: {}, lambda: now[0], Copies(tmp_path / "vee"))
    assert len(await daily.look()) == DAYS
    assert await daily.look() == []
    with database.engine.begin() as connection:
        connection.execute(sa.text("update intervals set verified = null where n = 100"))
        assert due(connection, SITE, now[0] // 1000) == [], "not before the last run is some hours old"
        now[0] += AGAIN_S * 1000
        assert [d.name for d in due(connection, SITE, now[0] // 1000)] == ["2026-10-02"]
    assert len(await daily.look()) == 1
    daily.start()
    await asyncio.sleep(0)
    await daily.stop()
    with database.engine.connect() as connection:
        assert check(connection, SITE, COLLECTOR.public) > 0


async def test_other_thresholds_judge_every_day_anew_and_replace_nothing(database: Database, tmp_path: Path) -> None:
    now = (DAY0 + DAYS * 86_400 + 3600) * 1000
    with database.engine.begin() as connection:
        for start in (DAY0, DAY0 + 86_400):
            site, verdict = judged(connection, ENTRY, start, start + 86_400, version=1)
            append(connection, site, verdict, load(1), COLLECTOR, now - 1000)
        before = [bytes(line) for line in connection.execute(sa.select(verdicts.c.line)).scalars()]
    document = KeysDocument(v=1, version=1, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=(ENTRY,))
    daily = DailyJudge(database, lambda: document, COLLECTOR, lambda _: {}, lambda: now, Copies(tmp_path / "vee"))
    runs = await daily.look()
    assert len(runs) == DAYS
    assert await daily.look() == []
    with database.engine.connect() as connection:
        assert check(connection, SITE, COLLECTOR.public) == runs[-1].size
        after = [
            bytes(line) for line in connection.execute(sa.select(verdicts.c.line).order_by(verdicts.c.n)).scalars()
        ]
        heads = [open_verdict(lines(connection, SITE, run.n)[0], COLLECTOR.public)[1] for run in runs]
    assert after[: len(before)] == before
    assert {(d["thresholds"], d["thresholds_sha256"]) for d in heads} == {(2, load(2).sha256)}


async def test_a_record_that_no_rule_can_read_does_not_make_its_day_judged_for_ever(tmp_path: Path) -> None:
    made = ledger()
    cfg = made.hashes[f"mp:{POINT}"][0]
    made.interval(POINT, DAY0 + 96 * SLOT - 1, 1, q=None, cfg=cfg)
    opened = Database.open(f"sqlite:///{tmp_path / 'c.db'}")
    take(opened, made, range(10_000))
    now = [(DAY0 + DAYS * 86_400 + 3600) * 1000]
    document = KeysDocument(v=1, version=1, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=(ENTRY,))
    daily = DailyJudge(opened, lambda: document, COLLECTOR, lambda _: {}, lambda: now[0], Copies(tmp_path / "vee"))
    assert len(await daily.look()) == DAYS
    now[0] += AGAIN_S * 1000
    assert await daily.look() == []
    opened.close()


@pytest.mark.parametrize(
    ("stream", "ty", "fields"),
    [
        ("bal", "balance", {"at": (DAY0 + 900) * 1000, "t0": DAY0, "t1": DAY0 + 900}),
        (f"mp:{POINT}", "spot", {"at": (DAY0 + 3 * 86_400) * 1000, "rt": (DAY0 + 900) * 1000}),
        (f"mp:{POINT}", "archive", {"at": (DAY0 + 2 * 86_400) * 1000, "t0": DAY0 + 20 * SLOT, "t1": DAY0 + 21 * SLOT}),
    ],
)
async def test_what_comes_late_beside_the_slots_has_its_day_judged_again(
    database: Database, tmp_path: Path, stream: str, ty: str, fields: dict[str, Any]
) -> None:
    now = [(DAY0 + DAYS * 86_400 + 3600) * 1000]
    document = KeysDocument(v=1, version=1, issued_at=1_790_000_000_000, persons=(), issuers=(), sites=(ENTRY,))
    daily = DailyJudge(database, lambda: document, COLLECTOR, lambda _: {}, lambda: now[0], Copies(tmp_path / "vee"))
    assert len(await daily.look()) == DAYS
    made = ledger()
    made.add(stream, ty, **fields)
    now[0] += 60_000
    take(database, made, [len(made.lines[stream]) - 1], now[0], stream)
    assert await daily.look() == []
    now[0] += AGAIN_S * 1000
    (run,) = await daily.look()
    with database.engine.connect() as connection:
        (head, *_rest) = [open_verdict(line, COLLECTOR.public)[1] for line in lines(connection, SITE, run.n)]
        if connection.dialect.name == "sqlite":  # what PostgreSQL plans depends on how much it has seen
            query = "select line from records where site = 'x' and received_at > 5 and verified is 1"
            beside = "and ty IN ('archive', 'balance', 'spot')"
            plan = connection.execute(sa.text(f"explain query plan {query} {beside}")).all()
            assert any("records_beside_slots" in str(row) for row in plan), "every look reads all records of the site"
    assert head["t0"] == DAY0
    now[0] += AGAIN_S * 1000
    assert await daily.look() == []


def take(database: Database, made: Ledger, numbers: Iterable[int], now_ms: int = 1, only: str | None = None) -> None:
    """Lines of these numbers, of every stream or of one, come in."""
    wanted = set(numbers)
    chosen = [
        line for stream, of in made.lines.items() for n, line in enumerate(of) if n in wanted and only in {None, stream}
    ]
    items = [evidence.Incoming(SITE, made.epoch, line, *parse_line(line), True) for line in chosen]
    with database.engine.begin() as connection:
        evidence.store(connection, items, now_ms)


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def test_the_command_line_judges_enters_readings_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(tmp_path / "data", REGISTRAR, (SITE,))
    config = tmp_path / "central.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True, exclude_none=True)))

    def central(*arguments: str) -> Done:
        code = run(["central", *arguments, "--config", str(config)])
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    (tmp_path / "data" / "pki").mkdir(parents=True)
    (tmp_path / "data" / "pki" / "k_col.pem").write_bytes(COLLECTOR.to_pem())
    fill(f"sqlite:///{tmp_path / 'data' / 'central.db'}")
    day = f"{DAY0}/{DAY0 + 86_400}"
    judge = ("vee", "--site", SITE, "--period", day, "--json")
    done = central(*judge)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {f["rule"] for f in told["findings"]} == {"V01"}
    assert {u["rule"] for u in told["not_judged"]} >= {"V12", "V17", "V20", "V26"}
    enter = ["reading", "--site", SITE, "--point", POINT, "--from", str(DAY0), "--to", str(DAY0 + 86_400)]
    enter += ["--wh", "110000000", "--act", "118", "--who", "A. Serik"]
    assert "expected one of" in central(*enter, "--source", "a neighbour").stderr
    assert "has sent slots of F1" in central(*enter, "--source", "inspector", "--point", "F9").stderr
    assert central(*enter, "--source", "system_operator").returncode == 0
    done = central(*judge)
    assert done.returncode == 1
    (found,) = [f for f in json.loads(done.stdout)["findings"] if f["rule"] == "V26"]
    assert (found["expected"], found["params"]["act"]) == (110_000_000, "118")
    assert json.loads(done.stdout)["log"]["n"] > 0
    opened = Database.open(f"sqlite:///{tmp_path / 'data' / 'central.db'}")
    with opened.engine.connect() as connection:
        row = connection.execute(sa.select(outside_readings)).one()
        assert (row.entered_by, row.source) == ("A. Serik", "system_operator")
        size = check(connection, SITE, COLLECTOR.public)
    opened.close()
    copied = (tmp_path / "data" / "vee" / f"{SITE}.tzr").read_bytes()
    assert copied.count(b"\n") == size, "the copy from which a database that was put back takes its lines"
    assert central(*judge, "--dry").returncode == 1
    assert "expected one of 1" in central(*judge, "--thresholds", "7").stderr
    opened = Database.open(f"sqlite:///{tmp_path / 'data' / 'central.db'}")
    with opened.engine.connect() as connection:
        assert check(connection, SITE, COLLECTOR.public) == size
    opened.close()
