"""Fixtures that every folder of tests may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from postgres_kit import PostgresServer, required_programs

LONGEST_NAME = 40
REPOSITORY = Path(__file__).parents[1]

# How long an example takes says something about the machine that runs it and its other work, nothing about the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    """A command run in this process sets up logs for its own, captured streams; the next test must not inherit it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded material beside the checkout; the test is left out, by name, where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("left out: ../shared/data is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for all tests of this process; left out, by name, where there is none."""
    server = PostgresServer(required_programs())
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of central on either database, migrated."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres").emptied())
    from central.store.database import Database

    url = f"sqlite:///{tmp_path / 'store.db'}"
    Database.open(url).close()
    return url


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes and long texts make no name: those with keys in them differ from run to run, and workers must agree."""
    return argname if isinstance(val, bytes) or (isinstance(val, str) and len(val) > LONGEST_NAME) else None
