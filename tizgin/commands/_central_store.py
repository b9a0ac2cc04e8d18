"""Central's store and settings, opened by commands that work while central runs and while it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tizgin.errors import UserError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from config.central import Central


def load_settings(path: Path) -> Central:
    """Settings of central.

    Raises:
        UserError: the file is not there or refused.
    """
    from config.loader import load_central
    from config.problems import ConfigError

    try:
        return load_central(path)
    except ConfigError as error:
        raise UserError(str(error)) from None


@contextmanager
def opened_store(settings: Central, base: Path, *, update: bool = False) -> Iterator[Engine]:
    """The database that the settings name; ``update`` brings it to this release's version first.

    Raises:
        UserError: there is none, it cannot be reached, or the work in it ends with an error of central.
    """
    import sqlalchemy as sa

    from central.errors import CentralError
    from central.paths import Paths
    from central.store.database import make_engine, migrate, refused

    paths = Paths.of(settings, base)
    if settings.database_url is None and not paths.database.exists():
        raise UserError(f"{paths.database} is not there: run central first, or check data_dir in the settings")
    try:
        engine = make_engine(settings.database_url or f"sqlite:///{paths.database}")
    except CentralError as error:
        raise UserError(str(error)) from None
    try:
        if update:
            migrate(engine)
        yield engine
    except CentralError as error:
        raise UserError(str(error)) from None
    except sa.exc.DBAPIError as error:
        raise UserError(str(refused(engine, error))) from None
    finally:
        engine.dispose()
