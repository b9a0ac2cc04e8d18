"""Commands around readings from outside the site: what is typed, what is signed, and that a verifier believes it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from bundle_kit import EPOCH, SITE, SLOT, SLOTS, START, good_site, judged
from typer.testing import CliRunner, Result
from vouch_kit import enrol, papers

from grid.keystore import create_key, load_key
from tizgin.commands._display import instant, kwh_to_wh, reading
from tizgin.commands.order import app
from tizgin.errors import UserError
from wire.acts import SpotAct, open_act

RUN = CliRunner()


@pytest.mark.parametrize(
    ("typed", "wh", "step"),
    [("12345.67", 12_345_670, 10), ("12345,670", 12_345_670, 1), ("12 345", 12_345_000, 1000), ("0.0", 0, 100)],
)
def test_a_display_is_read_with_the_worth_of_its_last_digit(typed: str, wh: int, step: int) -> None:
    assert reading(typed) == (wh, step)


@pytest.mark.parametrize("typed", ["", "-1", "1.2345", "1e3", "12.", "kWh", "1.5.2", "٣"])
def test_what_no_display_shows_is_refused(typed: str) -> None:
    with pytest.raises(UserError, match="expected kWh"):
        reading(typed)


def test_a_time_without_an_offset_is_kazakhstans() -> None:
    assert instant("2026-10-14T05:00:00") == instant("2026-10-14T00:00:00+00:00")
    with pytest.raises(UserError, match="expected a time"):
        instant("yesterday")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "me.pem"
    create_key(file, None)
    return file


def invoke(*arguments: str) -> Result:
    result = RUN.invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def test_an_inspector_signs_what_was_seen(key: Path, tmp_path: Path) -> None:
    out, photo = tmp_path / "act.json", tmp_path / "m1.jpg"
    photo.write_bytes(b"photograph")
    where = ("--site", SITE, "--epoch", EPOCH, "--point", "M1", "--at", "2026-10-14T11:20:30")
    seen = ("--display", "12345.67", "--seal", "0012", "--seal", "0013", "--photo", str(photo), "--serial", "A1")
    invoke("act", "spot", *where, *seen, "--key", str(key), "--out", str(out), "--yes")
    act, envelope = open_act(out.read_bytes().strip())
    assert isinstance(act, SpotAct)
    assert (act.point, act.display_wh, act.display_lsb_wh, act.serial) == ("M1", 12_345_670, 10, "A1")
    assert act.seals == ("0012", "0013")
    assert act.seen == round(datetime(2026, 10, 14, 6, 20, 30, tzinfo=UTC).timestamp()) * 1000
    signer = load_key(key, environment={}).public
    assert envelope.verify({signer.kid: signer}) == (signer.kid,)


def test_the_operators_reading_is_believed_by_the_verifier(key: Path, tmp_path: Path) -> None:
    site = good_site(witnessed=True)
    papers(site)
    enrol(site, load_key(key, environment={}), role="system_operator")
    wh = sum(doc["wh"] for doc in site.streams["mp:M1"] if doc["ty"] == "interval")
    ends = [datetime.fromtimestamp(t, UTC).isoformat() for t in (START, START + SLOTS * SLOT)]
    out = tmp_path / "m1.json"
    typed = f"{wh // 1000}.{wh % 1000:03d}"
    assert kwh_to_wh(typed) == wh
    asked = ("--site", SITE, "--point", "M1", "--period", "/".join(ends), "--kwh", typed, "--source", "ASKUE")
    invoke("reading", *asked, "--key", str(key), "--out", str(out))
    report = judged(tmp_path, site, independent=[out])
    assert (report.exit, report.points["M1"].grades) == (0, {"A": SLOTS})
