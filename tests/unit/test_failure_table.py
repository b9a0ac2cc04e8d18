"""``docs/failures.md`` against the tests: every failure has its row, every row its tests, and each of them is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "failures.md"
ROW = re.compile(r"^\| ([A-Z])(\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
NAMED = re.compile(r"`([^`]+)`( \(long\))?")
NUMBERS = {
    "M": range(1, 23),
    "O": range(1, 15),
    "A": range(1, 10),
    "E": range(1, 12),
    "P": range(1, 9),
    "L": range(1, 6),
    "R": range(1, 9),
    "I": range(1, 7),
    "T": (1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 14),
}
"""What there is of each kind."""


@dataclass
class File:
    """Tests of a file, as its source has them."""

    tests: dict[str, set[str]] = field(default_factory=dict)
    """Test → names of its marks, with those of the whole file."""
    cases: dict[str, set[str]] = field(default_factory=dict)
    """What may stand in brackets (up to 40 characters; pytest names longer ones otherwise): constants and names of the
    file → marks of that case alone."""


def dotted(node: ast.AST) -> str:
    """``pytest.mark.long`` of such an expression; empty for any other."""
    if isinstance(node, ast.Name):
        return node.id
    before = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{before}.{node.attr}" if before and isinstance(node, ast.Attribute) else ""


def marks_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Names of marks; those of single cases (``pytest.param``) are not the whole test's."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Call) and dotted(node.func) == "pytest.param":
            continue
        if isinstance(node, ast.Attribute) and dotted(node.value) == "pytest.mark":
            found.add(node.attr)
        found |= marks_in(ast.iter_child_nodes(node))
    return found


@cache
def read(path: Path) -> File:
    tree, found = ast.parse(path.read_text(encoding="utf-8")), File()
    of_file: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(dotted(t) == "pytestmark" for t in node.targets):
            of_file |= marks_in([node.value])
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.cases.setdefault(node.name, set())
            if node.name.startswith("test_"):
                skips = {"skip" for call in ast.walk(node) if dotted(call) in {"pytest.skip", "pytest.importorskip"}}
                found.tests[node.name] = of_file | skips | marks_in(node.decorator_list)
        elif isinstance(node, ast.Constant):
            found.cases.setdefault(str(node.value), set())
        elif isinstance(node, ast.Call) and dotted(node.func) == "pytest.param":
            marks = marks_in([k.value for k in node.keywords if k.arg == "marks"])
            for constant in (c for c in ast.walk(node) if isinstance(c, ast.Constant)):
                found.cases.setdefault(str(constant.value), set()).update(marks)
    for node in tree.body:  # a state machine of hypothesis is a test by assignment
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and node.value.attr == "TestCase":
            found.tests |= {dotted(target): of_file for target in node.targets}
    return found


def what_is_wrong(node_id: str, said_long: bool) -> str | None:
    """Why a test that the page names shows nothing; ``None`` where it does."""
    where, _, name = node_id.partition("::")
    name, _, case = name.partition("[")
    case = case.removesuffix("]")
    path = TESTS / where
    if not path.is_file():
        return "there is no such file"
    found = read(path)
    if name not in found.tests:
        return "there is no such test"
    if case and (case not in found.cases or len(case) > 40):
        return f"there is no case {case!r}"
    marks = found.tests[name] | (found.cases[case] if case else set())
    skipped = marks & {"skip", "skipif", "xfail"}
    if skipped:
        return f"it may not be run: {', '.join(skipped)}"
    if ("long" in marks) is not said_long:
        return "it is long, and the page does not say so" if "long" in marks else "the page calls it long"
    return None


ROWS = {
    f"{kind}{number}": (wrong, done, NAMED.findall(tests))
    for kind, number, wrong, done, tests in ROW.findall(PAGE.read_text(encoding="utf-8"))
}


def test_every_failure_has_its_row_and_no_other_is_there() -> None:
    assert list(ROWS) == [f"{kind}{number}" for kind, numbers in NUMBERS.items() for number in numbers]
    assert len(ROW.findall(PAGE.read_text(encoding="utf-8"))) == len(ROWS), "a number stands there twice"


@pytest.mark.parametrize("number", ROWS)
def test_what_a_row_names_is_there_and_is_run(number: str) -> None:
    _, _, tests = ROWS[number]
    wrong = {node: why for node, said_long in tests if (why := what_is_wrong(node, bool(said_long))) is not None}
    assert wrong == {}
    assert any(not said_long for _, said_long in tests), "make test shows nothing of it"


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ("unit/test_agent_nothing.py::test_x", "no such file"),
        ("unit/test_agent_failures.py::test_nothing", "no such test"),
        ("unit/test_agent_intake.py::test_refused[no such case]", "no case"),
        ("faults/test_power_cut_orders.py::test_a_cut_at_every_write_ends_as_without_it", "does not say so"),
        ("integration/test_browser_end_to_end.py::test_x", "no such test"),
    ],
)
def test_a_row_that_shows_nothing_is_found(node: str, why: str) -> None:
    assert why in str(what_is_wrong(node, said_long=False))
