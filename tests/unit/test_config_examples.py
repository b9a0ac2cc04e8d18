"""The examples pass the check, the schema files are current, and ``tizgin agent check`` prints the promised shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.addresses import machines
from config.check import CheckResult, check
from config.graph import Graph
from config.loader import load_central, load_site, read_site
from config.schema import FOLDER, schemas, text
from tizgin.cli import run
from tizgin.commands._agent_check import ProfileCatalogue

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"


def checked(name: str) -> CheckResult:
    loaded = read_site(EXAMPLES / name)
    return check(loaded.value, source=loaded.source, profiles=ProfileCatalogue())


@pytest.mark.parametrize(
    ("name", "warned"), [("small.yaml", ["io-1, which holds KM1, KM2 closed"]), ("mw100.yaml", [])]
)
def test_an_example_site_passes_with_the_shipped_profiles_and_tells_what_a_dead_module_costs(
    name: str, warned: list[str]
) -> None:
    result = checked(name)
    assert [problem.seen for problem in result.problems] == warned
    assert result.ok
    assert all(output.usable and output.proved_by for output in result.outputs)


def test_the_large_example_is_a_hundred_megawatt_site() -> None:
    site = load_site(EXAMPLES / "mw100.yaml")
    graph = Graph(site)
    live = graph.energised(graph.normal_positions())
    rated_kw = sum(load.rated_kw for load in graph.loads.values())
    assert 90_000 <= rated_kw <= site.site.contracted_kw
    assert frozenset(graph.loads) <= live
    addresses = [machine for group in site.miners for machine in machines(group)]
    assert 20_000 <= len(addresses) <= 30_000
    assert len({(machine.rpc_host, machine.rpc_port) for machine in addresses}) == len(addresses)
    assert sum(node.type == "transformer" for node in site.nodes) >= 40


def test_losing_one_incomer_of_the_large_example_darkens_one_half_and_never_the_other() -> None:
    graph = Graph(load_site(EXAMPLES / "mw100.yaml"))
    dark = graph.dark_if_opened("Q10-2", graph.normal_positions())
    assert {"SEC-2", "F201", "M218-LOAD"} <= dark
    assert not dark & {"SEC-1", "OWN", "FIRE", "M101-LOAD"}


def test_the_settings_of_central_are_understood_and_name_the_example_sites() -> None:
    central = load_central(EXAMPLES / "central.yaml")
    for registered in central.sites:
        found = [load_site(EXAMPLES / name).site for name in ("small.yaml", "mw100.yaml")]
        site = next(head for head in found if head.id == registered.id)
        assert (site.contracted_kw, site.reservation.emergency_kw) == (
            registered.contracted_kw,
            registered.emergency_kw,
        )


@pytest.mark.parametrize("name", sorted(schemas()))
def test_the_committed_schema_is_current(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == text(schemas()[name]), "run python -m config.schema"


def test_agent_check_prints_the_promised_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "check", "--config", str(EXAMPLES / "small.yaml"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is True
    (warning,) = printed["problems"]
    assert (warning["severity"], warning["where"]) == ("warning", "devices[0]")
    assert printed["outputs"][0] == {
        "id": "KM1",
        "dark": ["BOARD1", "KM1", "MINERS1"],
        "dark_w": 84_000,
        "usable": True,
        "why": "",
        "proved_by": "M1",
    }


def test_agent_check_says_no_with_exit_1_and_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "site.yaml"
    broken.write_text((EXAMPLES / "small.yaml").read_text(encoding="utf-8").replace("[QF4]", "[BOARD1]"), "utf-8")
    assert run(["agent", "check", "--config", str(broken), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    assert printed["outputs"][0]["usable"] is False
    assert printed["outputs"][0]["why"] == "darkens protected load GUARD"
    (error,) = [problem for problem in printed["problems"] if problem["severity"] == "error"]
    assert error["where"] == "nodes[3]"
    assert error["message"].startswith("saw output KM1, which darkens the protected or emergency load GUARD")
    assert run(["agent", "check", "--config", str(broken)]) == 1
    assert f"site.yaml:{error['line']}: nodes[3]: {error['message']}" in capsys.readouterr().out


def test_agent_check_of_a_file_that_is_not_yaml_is_a_problem_and_of_none_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd.yaml"
    odd.write_text("a: [", encoding="utf-8")
    assert run(["agent", "check", "--config", str(odd), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["outputs"] == []
    assert run(["agent", "check", "--config", str(tmp_path / "none.yaml")]) == 2
    assert run(["agent", "check"]) == 2
