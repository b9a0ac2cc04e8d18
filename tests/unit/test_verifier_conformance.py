"""The bundles of ``tests/conformance``: fixed bytes and the report that every verifier should agree with."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "conformance"
NAMES = sorted(path.stem for path in FOLDER.glob("*.zip"))


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make() -> ModuleType:
    return load()


def test_every_case_has_its_files(make: ModuleType) -> None:
    assert sorted(make.CASES) == NAMES
    exits = {json.loads((FOLDER / f"{name}.report.json").read_text(encoding="utf-8"))["exit"] for name in NAMES}
    assert exits == {0, 1, 2, 3}


@pytest.mark.parametrize("name", NAMES)
def test_bundle_and_verdict_are_the_recorded_ones(make: ModuleType, tmp_path: Path, name: str) -> None:
    make.write(tmp_path, name)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(made) >= 3
    for file, data in made.items():
        assert data == (FOLDER / file).read_bytes(), file
