"""The report of an unattended demo is a success only under the contract's conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tizgin.demo.count import Count, Difference
from tizgin.demo.errors import DemoError
from tizgin.demo.folder import MARKER, make_fresh, remove
from tizgin.demo.main import Options, first_of
from tizgin.demo.report import Figures, Verified, build_report, write_report
from tizgin.demo.unattended import waves

FIGURES = Figures(2, 200, 16, 93.2, 20.0, 10, 2)
CLEAN = Count(Difference(900, 900), Difference(40, 40), Difference(50_000, 50_000), 9000, 50_000, 14, 12)
REFUSED = [{"why": why} for why in ("unknown_key", "bad_signature", "replay", "expired")]


def order(**changes: Any) -> dict[str, Any]:
    body = {
        "id": "x",
        "site": "kz-demo-01",
        "action": "limit",
        "limit_kw": 200.0,
        "floor_kw": 25.0,
        "before_kw": 377.0,
        "after_kw": 198.0,
        "state": "done",
        "accepted_ms": 20,
        "first_output_ms": 30,
        "readback_ms": None,
        "confirmed_ms": 4000,
        "escalated": [],
        "restored": True,
        "answers_refused": [],
    }
    return body | changes


def verified(site: str = "kz-demo-01", exit_code: int = 0) -> Verified:
    return Verified(site, exit_code, 400, Path("b.zip"), Path("t.json"), "10/20")


def report(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "orders": [order(), order(action="stop", site="kz-demo-02", limit_kw=31.0, after_kw=29.0, escalated=["KM1"])],
        "refused": REFUSED,
        "counted": CLEAN,
        "verified": [verified(), verified("kz-demo-02")],
        "problems": [],
    }
    return build_report(FIGURES, **(body | changes))


def test_a_good_run_is_ok_and_has_every_field_of_the_contract() -> None:
    body = report()
    assert body["ok"] is True
    assert body.keys() >= {
        "sites", "asics", "meters", "duration_s", "readings", "telemetry_rows", "lost", "duplicated", "simulation",
        "evidence", "orders", "refused", "verifier",
    }  # fmt: skip
    assert body["simulation"] == {"time_scale": 20.0, "slot_s": 10, "restore_stage_s": 2}
    assert body["evidence"] == {"records": 900, "checkpoints": 14, "cosigned": 12}
    assert body["verifier"].keys() >= {"exit", "records", "bundle", "trust", "period"}


@pytest.mark.parametrize(
    "changes",
    [
        {"orders": []},
        {"orders": [order(state="holding")]},
        {"orders": [order(after_kw=200.001)]},
        {"orders": [order(after_kw=None)]},
        {"orders": [order(restored=False)]},
        {"orders": [order(answers_refused=["the signature does not verify"])]},
        {"refused": REFUSED[:3]},
        {"refused": []},
        {"counted": None},
        {"counted": Count(Difference(9, 9), Difference(), Difference(9, 9), 1, 1, 1, 0)},
        {"counted": Count(Difference(9, 8, lost=1), Difference(), Difference(), 1, 1, 1, 1)},
        {"counted": Count(Difference(), Difference(), Difference(9, 10, duplicated=1), 1, 1, 1, 1)},
        {"counted": Count(Difference(), Difference(), Difference(9, 9, altered=1), 1, 1, 1, 1)},
        {"counted": Count(Difference(), Difference(), Difference(9, 10, unexplained=1), 1, 1, 1, 1)},
        {"verified": []},
        {"verified": [verified()]},
        {"verified": [verified(), verified("kz-demo-02", 1)]},
        {"problems": ["not drained"]},
    ],
)
def test_anything_that_is_not_as_it_must_be_makes_it_a_failure(changes: dict[str, Any]) -> None:
    assert report(**changes)["ok"] is False


def test_the_verifier_that_was_not_content_is_the_one_shown() -> None:
    assert report(verified=[verified(), verified("kz-demo-02", 2)])["verifier"]["exit"] == 2


def test_what_was_not_counted_is_null_and_never_0(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", report(counted=None))
    read = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [read[name] for name in ("lost", "duplicated", "readings", "telemetry_rows")] == [None] * 4


def test_a_single_site_gets_its_orders_one_after_the_other() -> None:
    assert waves(["a"]) == [{"a": "limit"}, {"a": "stop"}]
    assert waves(["a", "b", "c"]) == [{"a": "limit", "b": "stop", "c": "limit"}]


def test_only_a_folder_that_the_demo_made_is_removed(tmp_path: Path) -> None:
    mine, foreign = tmp_path / "demo-data", tmp_path / "photos"
    folder = make_fresh(mine)
    (folder.root / "old").write_text("x")
    assert not (make_fresh(mine).root / "old").exists()
    foreign.mkdir()
    (foreign / "holiday.jpg").write_text("x")
    with pytest.raises(DemoError, match="left alone"):
        make_fresh(foreign)
    assert (foreign / "holiday.jpg").exists()
    (folder.root / MARKER).unlink()
    remove(folder)
    assert folder.root.exists()


@pytest.mark.parametrize(
    ("sites", "asics", "expected"), [(0, 200, "--sites"), (21, 2000, "--sites"), (2, 7, "--asics"), (2, 8, None)]
)
def test_sizes_that_cannot_be_run_are_refused_with_the_option_named(
    sites: int, asics: int, expected: str | None
) -> None:
    problem = Options(sites, asics, 0, None, None).problem()
    assert problem is None if expected is None else problem is not None and problem.startswith(expected)


def test_the_first_failure_of_a_group_is_told_and_a_fault_of_ours_is_not_hidden() -> None:
    inner = DemoError("the disk is full")
    assert first_of(ExceptionGroup("a", [ExceptionGroup("b", [inner])])) is inner
    assert first_of(ExceptionGroup("a", [inner, KeyError("x")])) is None
