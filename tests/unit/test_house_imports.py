"""The house's import rules: which package may use which, and the verifier's independence."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

LINT_IMPORTS = (sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
ALLOWED_IN_VERIFIER = frozenset(sys.stdlib_module_names) | {"cryptography", "verifier"}
MAY_IMPORT = {
    "wire": set[str](),
    "verifier": set[str](),
    "config": {"wire"},
    "drivers": {"config", "wire"},
    "agent": {"drivers", "config", "wire"},
    "simulator": {"drivers", "config", "wire"},
    "central": {"config", "wire"},
    "grid": {"config", "wire"},
}
PACKAGES = sorted({*MAY_IMPORT, "tizgin"})
FORBIDDEN_PAIRS = [
    (importer, imported)
    for importer, allowed in sorted(MAY_IMPORT.items())
    for imported in PACKAGES
    if imported != importer and imported not in allowed
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LINT_IMPORTS, "--no-cache", "--config", "pyproject.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def foreign_imports(source: str) -> list[str]:
    """Imports in a module of the verifier that are neither standard library, nor cryptography, nor itself."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"__import__", "importlib.import_module"}:
            names = [f"dynamic import in line {node.lineno}"]
        else:
            continue
        found += [name for name in names if name.partition(".")[0] not in ALLOWED_IN_VERIFIER]
    return found


def test_packages_import_only_what_the_architecture_allows(repository: Path) -> None:
    outcome = lint_imports(repository)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.fixture(scope="module")
def broken_everywhere(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says about a tree in which every package imports every other."""
    tree = tmp_path_factory.mktemp("broken")
    for name in PACKAGES:
        (tree / name).mkdir()
        # A submodule each: packages that import each other in __init__ would still be one cycle apart.
        (tree / name / "__init__.py").write_text("")
        others = "".join(f"import {other}\n" for other in PACKAGES if other != name)
        (tree / name / "offender.py").write_text(others)
    (tree / "pyproject.toml").write_bytes((repository / "pyproject.toml").read_bytes())
    outcome = lint_imports(tree)
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.mark.parametrize(("importer", "imported"), FORBIDDEN_PAIRS)
def test_the_rules_notice_a_forbidden_import(importer: str, imported: str, broken_everywhere: str) -> None:
    assert f"{importer}.offender -> {imported} " in broken_everywhere


def test_the_rules_cover_every_package_of_the_distribution(repository: Path) -> None:
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    assert sorted(settings["tool"]["importlinter"]["root_packages"]) == PACKAGES
    assert sorted(settings["tool"]["mypy"]["packages"]) == PACKAGES
    packaged = settings["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(packaged) == sorted([*PACKAGES, *(f"{name}.*" for name in PACKAGES)])
    assert all((repository / name / "py.typed").is_file() for name in PACKAGES)


def test_verifier_uses_the_standard_library_and_cryptography_alone(repository: Path) -> None:
    modules = sorted((repository / "verifier").rglob("*.py"))
    assert modules
    offences = {str(path.relative_to(repository)): foreign_imports(path.read_text()) for path in modules}
    assert {path: names for path, names in offences.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import json, hashlib", []),
        ("from cryptography.hazmat.primitives import hashes", []),
        ("from . import checks", []),
        ("from verifier.checks import chain", []),
        ("import wire", ["wire"]),
        ("from wire.records import Record", ["wire.records"]),
        ("def f():\n    import pydantic", ["pydantic"]),
        ("if True:\n    from config import site", ["config"]),
        ("import importlib\nimportlib.import_module('wire')", ["dynamic import in line 2"]),
        ("__import__('wire')", ["dynamic import in line 1"]),
    ],
)
def test_the_verifier_rule_sees_every_form_of_import(source: str, expected: list[str]) -> None:
    assert foreign_imports(source) == expected
