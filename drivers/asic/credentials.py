"""Log-ins of machines: from files or the environment, never from a URL, never into a log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from config.devices import Credentials as CredentialSource

MAX_PASSWORD_BYTES = 1024


class CredentialError(ValueError):
    """A named log-in cannot be loaded; the message names it and its source, never its content."""


class Credentials:
    """User and password of one machine. ``repr`` shows neither password nor its length."""

    __slots__ = ("password", "user")

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self.password = password

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, password=<hidden>)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Credentials) and (self.user, self.password) == (other.user, other.password)

    def __hash__(self) -> int:
        return hash((self.user, self.password))


def load_credentials(
    sources: Mapping[str, CredentialSource], *, base: Path, environ: Mapping[str, str] = os.environ
) -> dict[str, Credentials]:
    """Load every named log-in of a site file.

    Args:
        sources: the site file's ``credentials``.
        base: folder that relative password files are relative to (the site file's own).
        environ: the environment to look names up in.

    Raises:
        CredentialError: a file or variable is missing, empty or too long.
    """
    return {name: _load(name, source, base, environ) for name, source in sources.items()}


def _load(name: str, source: CredentialSource, base: Path, environ: Mapping[str, str]) -> Credentials:
    if source.password_env is not None:
        if source.password_env not in environ:
            raise CredentialError(f"credentials {name}: environment variable {source.password_env} is not set; set it")
        password = environ[source.password_env]
    else:
        path = base / (source.password_file or "")
        try:
            with path.open("rb") as file:
                data = file.read(MAX_PASSWORD_BYTES + 1)
            password = data.decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise CredentialError(
                f"credentials {name}: password file {path} cannot be read ({reason}); put the password there"
            ) from None
    if not password or len(password.encode()) > MAX_PASSWORD_BYTES:
        raise CredentialError(f"credentials {name}: the password is empty or longer than {MAX_PASSWORD_BYTES} bytes")
    return Credentials(source.user or "root", password)


def credentials_from_environment(name: str, environ: Mapping[str, str] = os.environ) -> Credentials:
    """A log-in named in an ``asic://`` address: ``TIZGIN_ASIC_<NAME>`` holds ``user:password``, or the password alone.

    Raises:
        CredentialError: the name is no name, or the variable is not set, empty or too long.
    """
    if not name or not all(char.isascii() and (char.isalnum() or char in "-_") for char in name):
        raise CredentialError(f"credentials {name[:40]!r}: letters, digits, - and _ expected")
    variable = f"TIZGIN_ASIC_{name.upper().replace('-', '_')}"
    said = environ.get(variable)
    if said is None:
        raise CredentialError(f"credentials {name}: environment variable {variable} is not set; set it")
    user, colon, password = said.partition(":")
    if not colon:
        user, password = "root", said
    if not password or len(password.encode()) > MAX_PASSWORD_BYTES:
        raise CredentialError(f"credentials {name}: the password is empty or longer than {MAX_PASSWORD_BYTES} bytes")
    return Credentials(user or "root", password)
