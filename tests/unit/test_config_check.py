"""What the check refuses and warns of, in exact words: each case is one small site with one thing changed.

Site and cases stand in ``test_config_check.yaml``, so that a case reads as what a person would write and be told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from config.check import CheckResult, ProfileFacts, check
from config.loader import parse_site

BOOK: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

TERMINALS = range(1, 7)
PROFILES = {
    "eastron-sdm630": ProfileFacts("meter", counts_energy=True),
    "gauge-meter": ProfileFacts("meter", counts_energy=False),
    "moxa-iologik-e1214": ProfileFacts(
        "relay", outputs={f"relay_{n}": True for n in TERMINALS}, inputs={f"di_{n}": True for n in TERMINALS}
    ),
    "plain-relay": ProfileFacts(
        "relay", outputs={f"relay_{n}": False for n in TERMINALS}, inputs={f"di_{n}": False for n in TERMINALS}
    ),
    "stepping-relay": ProfileFacts(
        "relay",
        outputs={f"relay_{n}": True for n in TERMINALS},
        inputs={f"di_{n}": False for n in TERMINALS},
        pulse_unit_ms={f"relay_{n}": 100 for n in TERMINALS},
        settings=frozenset({"watchdog", "power_on"}),
    ),
    "commanded-breaker": ProfileFacts(
        "breaker",
        outputs={"open": True, "close": True, "relay_2": True},
        inputs={f"di_{n}": False for n in TERMINALS},
        commands=frozenset({"open", "close"}),
    ),
    "thermometer": ProfileFacts("relay", outputs={}, inputs={}, temperatures=frozenset({"ti_1", "ti_2"})),
    "apc-rpdu2": ProfileFacts("pdu", outputs={"1": False}, inputs={}),
}


def checked(changes: list[dict[str, str]]) -> CheckResult:
    text: str = BOOK["site"]
    for change in changes:
        assert change["old"] in text, f"the site does not hold {change['old']!r}"
        text = text.replace(change["old"], change["new"], 1)
    loaded = parse_site(text, "site.yaml")
    return check(loaded.value, source=loaded.source, profiles=PROFILES.get)


def named(case: dict[str, Any]) -> str:
    return str(case["name"])


def test_the_unchanged_site_has_one_warning_and_two_usable_outputs() -> None:
    result = checked([])
    assert [problem.seen for problem in result.problems] == ["io-1, which holds KM1, KM2 closed"]
    assert result.ok
    assert [(o.id, o.dark, o.dark_w, o.usable, o.why, o.proved_by) for o in result.outputs] == [
        ("KM1", ("BOARD1", "KM1", "MINERS1"), 84_000, True, "", "M1"),
        ("KM2", ("BOARD2", "KM2", "MINERS2"), 84_000, True, "", "M2"),
    ]


@pytest.mark.parametrize("case", BOOK["refusals"], ids=named)
def test_refused_with_file_line_and_what_to_do(case: dict[str, Any]) -> None:
    result = checked(case["changes"])
    assert case["refusal"] in [str(problem) for problem in result.errors]
    assert not result.ok


@pytest.mark.parametrize("case", BOOK["warnings"], ids=named)
def test_warned_of_and_not_refused(case: dict[str, Any]) -> None:
    result = checked(case["changes"])
    assert case["warning"] in [str(problem) for problem in result.warnings]
    assert result.ok


def test_a_refused_output_says_why_in_few_words() -> None:
    case = next(c for c in BOOK["refusals"] if c["name"] == "a protected load behind an output")
    output = checked(case["changes"]).outputs[0]
    assert (output.id, output.usable, output.why) == ("KM1", False, "darkens protected load GUARD")


def test_a_broken_reference_gives_no_outputs_rather_than_wrong_ones() -> None:
    case = next(c for c in BOOK["refusals"] if c["name"] == "an unknown node in fed_from")
    assert checked(case["changes"]).outputs == ()


def test_a_meter_behind_an_output_is_passed_over_for_the_next_one_above() -> None:
    case = next(c for c in BOOK["warnings"] if c["name"] == "a meter behind an output")
    proved = {output.id: output.proved_by for output in checked(case["changes"]).outputs}
    assert proved == {"KM1": "M1", "KM2": "M0"}


def test_without_a_source_map_places_are_named_and_lines_left_out() -> None:
    site = parse_site(BOOK["site"].replace("  slot_s: 900", "  slot_s: 10"), "site.yaml").value
    (problem,) = check(site).errors
    assert problem.line is None
    assert str(problem).startswith("site: agent.slot_s: saw 10, expected 60|300|900|1800|3600")


def test_simulation_turns_the_network_refusal_into_one_warning() -> None:
    case = next(c for c in BOOK["warnings"] if c["name"] == "a simulated plant on one loopback")
    real = [change for change in case["changes"] if "simulation" not in change["new"]]
    assert any("expected a network that miners and PDUs do not reach" in str(p) for p in checked(real).errors)
    assert [p.where for p in checked(case["changes"]).warnings] == ["site.simulation", "devices[0]"]


def test_two_dead_sections_joined_by_a_closed_breaker_are_both_named() -> None:
    grid = "  - {id: GRID, type: grid_connection, permitted_kw: 250, voltage_kv: 0.4}\n"
    dead = """  - {id: X1, type: switch, fed_from: [GRID], normal: open}
  - {id: X2, type: switch, fed_from: [GRID], normal: open}
  - {id: XB1, type: bus, fed_from: [X1]}
  - {id: XB2, type: bus, fed_from: [X2]}
  - {id: XS, type: switch, role: section, between: [XB1, XB2]}
"""
    result = checked([{"old": grid, "new": grid + dead}])
    seen = [problem.seen for problem in result.errors]
    assert seen == [
        "XB1 never live in the normal positions (X1 is normally open)",
        "XB2 never live in the normal positions (X2 is normally open)",
    ]


def test_a_trip_supply_behind_an_output_is_refused_for_the_switches_it_trips() -> None:
    case = next(c for c in BOOK["refusals"] if c["name"] == "a shunt trip without pulse")
    tripped = [
        *case["changes"],
        {"old": "output: relay_1}", "new": "output: relay_1, pulse_ms: 200}"},
        {"old": "equipment: ", "new": "equipment:\n  - {id: dc, kind: dc_supply, fed_from: BOARD2, ups_min: 60}\n  #"},
    ]
    (problem,) = checked(tripped).errors
    assert problem.seen == "output KM2, which takes away the supply of dc"
    assert problem.expected == "that what is needed to control KM1 stays live"
