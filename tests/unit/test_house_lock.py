"""The lock file: every package by hash, for every supported Python, from no named host."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENTRY = re.compile(r"^(?P<requirement>[A-Za-z0-9][^\\]*?) \\\n(?P<hashes>(?: {4}--hash=\S+(?: \\)?\n)+)", re.MULTILINE)
HASH = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}(?: \\)?")


NOT_LOCKED = frozenset({"pyasic"})
"""Runs in a process, and as a rule in an environment, of its own; nothing else here needs it."""


@pytest.fixture(scope="module")
def lock(repository: Path) -> str:
    return (repository / "requirements.lock").read_text()


@pytest.fixture(scope="module")
def locked(lock: str) -> dict[str, Requirement]:
    requirements = [Requirement(entry["requirement"]) for entry in ENTRY.finditer(lock)]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_every_entry_is_one_version_with_sha256_hashes(lock: str) -> None:
    rest = ENTRY.sub("", lock)
    assert rest.strip() == "", f"not an entry with hashes: {rest[:200]!r}"
    for entry in ENTRY.finditer(lock):
        requirement = Requirement(entry["requirement"])
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), entry["requirement"]
        assert all(HASH.fullmatch(line) for line in entry["hashes"].splitlines()), entry["requirement"]


def test_no_index_or_host_is_named(lock: str) -> None:
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links|--trusted-host|@ ", lock) == []


def test_everything_pyproject_asks_for_is_locked_within_its_range(
    repository: Path, locked: dict[str, Requirement]
) -> None:
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    project = settings["project"]
    asked = [
        *project["dependencies"],
        *(t for name, extra in project["optional-dependencies"].items() if name not in NOT_LOCKED for t in extra),
        *settings["build-system"]["requires"],
    ]
    for text in asked:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is in pyproject.toml and not in requirements.lock: run `make lock`"
        version = next(iter(locked[name].specifier)).version
        assert requirement.specifier.contains(version, prereleases=True), f"{name} {version} is outside {text}"
