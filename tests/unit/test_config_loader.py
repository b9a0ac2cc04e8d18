"""A file that cannot be understood is refused with file, line, what was seen, what was expected, what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import yamlsource
from config.loader import load_central, load_site, parse_central, parse_site
from config.problems import ConfigError, Problem

MINIMAL = """schema: 1
site:
  id: kz-one
  name: {kk: a, ru: b, en: c}
  contracted_kw: 10
  reservation: {emergency_kw: 1}
nodes:
  - {id: GRID, type: grid_connection}
  - id: Q1
    type: switch
    fed_from: [GRID]
    close: never
measured_at: {net_import: M0}
"""


def refusals(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_site(text)
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def test_the_minimal_file_is_understood_and_its_lines_are_known() -> None:
    loaded = parse_site(MINIMAL)
    assert [node.id for node in loaded.value.nodes] == ["GRID", "Q1"]
    assert loaded.source.line(("nodes", 1, "close")) == 12
    assert loaded.source.line(("nodes", 1)) == 9
    assert loaded.source.line(("nodes", 1, "position", "open")) == 9


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "close: never",
            "close: automatic",
            "site.yaml:12: nodes[1].close: saw 'automatic', expected one of never|by_person|auto; choose one",
        ),
        (
            "  contracted_kw: 10",
            "  contracted_kw: -1",
            "site.yaml:5: site.contracted_kw: saw -1, expected at least 0.0; correct the number",
        ),
        (
            "  contracted_kw: 10",
            "  contracted_kw: .inf",
            "site.yaml:5: site.contracted_kw: saw '.inf', expected a number; correct it",
        ),
        (
            "  contracted_kw: 10",
            "  contracted_kw: nan",
            "site.yaml:5: site.contracted_kw: saw 'nan', expected a finite number; correct it",
        ),
        (
            "  contracted_kw: 10\n",
            "",
            "site.yaml:2: site.contracted_kw: saw nothing, expected a value; add it",
        ),
        (
            "{emergency_kw: 1}",
            "{emergency_kw: 1, tecnological_kw: 0}",
            "site.yaml:6: site.reservation.tecnological_kw: saw the unknown key 'tecnological_kw', "
            "expected one of emergency_kw|technological_kw|technological_min; did you mean technological_kw?",
        ),
        (
            "type: switch",
            "type: swich",
            "site.yaml:10: nodes[1].type: saw 'swich', expected one of "
            "grid_connection|line|transformer|bus|switch|load|generator|storage|compensation; set type",
        ),
        (
            "    type: switch\n",
            "",
            "site.yaml:9: nodes[1]: saw no 'type', expected one of "
            "grid_connection|line|transformer|bus|switch|load|generator|storage|compensation; set type",
        ),
        ("id: Q1", "id: 17", "site.yaml:9: nodes[1].id: saw 17, expected text; put it in quotes"),
        (
            "fed_from: [GRID]",
            "fed_from: GRID",
            "site.yaml:11: nodes[1].fed_from: saw 'GRID', expected a list; correct it",
        ),
        (
            "    close: never",
            "    control: {device: io, output: a}",
            "site.yaml:9: nodes[1]: saw a mapping, expected a switch with 'control' needs its 'actuator' "
            "(its nature decides what a write does); correct it",
        ),
        (
            "schema: 1",
            "schema: 2",
            "site.yaml:1: schema: saw 2, expected 1; this release reads no other version of the file",
        ),
        (
            "    close: never",
            "    close: never\n    close: auto",
            "site.yaml:13: nodes[1].close: saw 'close' again, first in line 12, expected each key once; "
            "remove one of the two",
        ),
        (
            "name: {kk: a",
            "name: &n {kk: a",
            "site.yaml:4: file: saw an anchor or alias (& or *), expected plain values; "
            "write the value out in each place",
        ),
        (
            "    close: never",
            "    close: !!python/name:os.system never",
            "site.yaml:12: file: saw the tag tag:yaml.org,2002:python/name:os.system, expected plain values; "
            "remove the tag",
        ),
        (
            "  contracted_kw: 10",
            "\tcontracted_kw: 10",
            "site.yaml:5: file: saw a tab, expected spaces for indentation; replace the tab by spaces",
        ),
        (
            "measured_at:",
            "---\nmeasured_at:",
            "site.yaml:13: file: saw a second document (---), expected one document; remove it",
        ),
        (
            "  contracted_kw: 10",
            "  [a, b]: 10",
            "site.yaml:5: file: saw a list or mapping as a key, expected a word; write a plain key",
        ),
    ],
)
def test_a_mistake_is_told_in_exact_words(old: str, new: str, expected: str) -> None:
    assert old in MINIMAL
    assert refusals(MINIMAL.replace(old, new, 1)) == [expected]


def test_several_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = MINIMAL.replace("close: never", "close: x").replace("kz-one", "KZ").replace("{net_import: M0}", "{}")
    assert [line.split(": ")[1] for line in refusals(text)] == ["site.id", "nodes[1].close", "measured_at.net_import"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "saw nothing"),
        ("- 1", "saw a list of 1"),
        ("[" * 500, f"saw nesting deeper than {yamlsource.MAX_DEPTH}"),
        ("a: \x01", "expected printable text"),
        ("a: {b: [c", "expected YAML"),
        ("a: &a [x]\nb: [*a, *a]", "saw an anchor or alias"),
        ("x: " + "1" * yamlsource.MAX_BYTES, "at most 4194304"),
    ],
)
def test_hostile_or_broken_text_is_refused_and_bounded(text: str, seen: str) -> None:
    (line,) = refusals(text)
    assert seen in line


def test_words_keep_their_meaning_and_numbers_with_leading_zeros_stay_text() -> None:
    data, _lines = yamlsource.parse("[no, on, 12:30, 2027-05-01, 007, 7, 1.5, 1e3, true, null, '7', 0x1F]", "t")
    assert data == ["no", "on", "12:30", "2027-05-01", "007", 7, 1.5, 1000.0, True, None, "7", "0x1F"]


def problems_of(text: str) -> tuple[Problem, ...] | None:
    """Problems, or None where the text was parsed."""
    try:
        yamlsource.parse(text, "t")
    except ConfigError as error:
        return error.problems
    return None


@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-&*!|>'\"#?%@` \n\tab0", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_either_parsed_or_refused_with_problems(text: str) -> None:
    assert problems_of(text) != ()


def test_a_file_that_is_too_large_not_there_or_not_utf8_is_refused(tmp_path: Path) -> None:
    large, odd = tmp_path / "large.yaml", tmp_path / "odd.yaml"
    large.write_bytes(b"#" * (yamlsource.MAX_BYTES + 1))
    odd.write_bytes(b"a: 1\nb: \xff\n")
    for path, words in (
        (large, "large.yaml: file: saw more than 4194304 bytes"),
        (odd, "odd.yaml:2: file: saw byte 0xff, expected UTF-8 text"),
        (tmp_path / "none.yaml", "none.yaml: file: saw No such file or directory"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_site(path)
        with pytest.raises(ConfigError, match=words):
            load_central(path)


def test_central_refuses_to_leave_loopback() -> None:
    text = "schema: 1\nhost: 0.0.0.0\nbroker: {mode: child}\nregistrar_keys: [k]\n"
    with pytest.raises(ConfigError, match="only loopback is allowed while central has no log-in"):
        parse_central(text)


def test_a_secret_in_a_misplaced_key_is_not_repeated() -> None:
    text = MINIMAL + "credentials:\n  miners: {user: root, password: hunter2}\n"
    assert "hunter2" not in "\n".join(refusals(text))
