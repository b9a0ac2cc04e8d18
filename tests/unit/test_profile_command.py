"""``tizgin profile``: the shapes that the command line promises, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tizgin.commands.profile import app
from tizgin.errors import EXIT_WRONG_USE, UserError

RUN = CliRunner()


def test_list_has_every_kind_and_exactly_the_promised_fields() -> None:
    result = RUN.invoke(app, ["list", "--json"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert {row["kind"] for row in rows} >= {"meter", "relay", "pdu"}
    for row in rows:
        assert set(row) == {"id", "vendor", "model", "kind", "status", "points"}
        assert row["status"] in {"verified", "documented", "community"}
        assert row["points"] > 0


SDM630 = "eastron-sdm630"
DECODED: list[tuple[str, str, int, str, object]] = [
    (SDM630, "input", 52, "459a2000", {"power_w": 4932.0}),
    (SDM630, "input", 51, "0000 459a 2000", {"power_w": 4932.0}),
    (SDM630, "input", 53, "2000", {}),
    (SDM630, "holding", 52, "459a2000", {}),
    (SDM630, "input", 52, "7fc00000", {"power_w": None}),
    ("carlogavazzi-em24-e1", "input", 52, "86a00001", {"energy_import_wh": 1e7}),
    ("schneider-iem3000", "holding", 129, "01312d00", {"serial_number": "20000000"}),
]


@pytest.mark.parametrize(("profile_id", "table", "address", "words", "expected"), DECODED)
def test_decode_gives_every_point_that_the_block_covers_wholly(
    profile_id: str, table: str, address: int, words: str, expected: object
) -> None:
    where = ["--table", table, "--address", str(address), "--hex", words]
    result = RUN.invoke(app, ["decode", profile_id, *where, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["eastron-sdm630", "--table", "coil", "--address", "0", "--hex", "0000"],
        ["eastron-sdm630", "--table", "input", "--address", "0", "--hex", "123"],
        ["eastron-sdm630", "--table", "input", "--address", "0", "--hex", "zzzz"],
        ["moxa-iologik-e1214", "--table", "input", "--address", "0", "--hex", "0000"],
    ],
)
def test_decode_called_wrongly_says_so(arguments: list[str]) -> None:
    result = RUN.invoke(app, ["decode", *arguments])
    assert isinstance(result.exception, UserError)
    assert result.exception.exit_code == EXIT_WRONG_USE


def test_test_passes_on_what_is_shipped_and_fails_on_a_wrong_vector(tmp_path: Path) -> None:
    shipped = RUN.invoke(app, ["test", "--json"])
    assert shipped.exit_code == 0
    assert all(row["ok"] for row in json.loads(shipped.stdout))
    source = Path(__file__).parents[2] / "drivers" / "profiles" / "data" / "meters" / "eastron_sdm630.yaml"
    wrong = tmp_path / "eastron_sdm630.yaml"
    wrong.write_text(source.read_text(encoding="utf-8").replace("power_w: 4932", "power_w: 4933"), encoding="utf-8")
    result = RUN.invoke(app, ["test", str(wrong), "--json"], standalone_mode=False)
    assert result.return_value == 1
    (row,) = json.loads(result.stdout)
    assert row["ok"] is False
    assert "seen 4932.0, expected 4933" in row["problems"][0]


@pytest.mark.parametrize("profile_id", ["eastron-sdm630", "moxa-iologik-e1214", "apc-rpdu2"])
def test_show_prints_each_kind(profile_id: str) -> None:
    for flags in ([], ["--json", "--plan"]):
        result = RUN.invoke(app, ["show", profile_id, *flags])
        assert result.exit_code == 0, result.output
        assert profile_id in result.stdout
    assert json.loads(result.stdout)["id"] == profile_id


def test_schema_is_json_schema() -> None:
    schema = json.loads(RUN.invoke(app, ["schema", "--json"]).stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
