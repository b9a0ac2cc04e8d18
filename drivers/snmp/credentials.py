"""Secrets of SNMP devices. They never appear in ``repr``, in a log or in an error.

Reading and switching have separate secrets: a device that is only read is given no secret that could switch it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

AuthProtocol = Literal["sha", "sha224", "sha256", "sha384", "sha512", "md5"]
PrivProtocol = Literal["aes", "aes192", "aes256", "des"]
_SECRET_LIMIT_BYTES = 4096
_AUTH: tuple[AuthProtocol, ...] = ("sha", "sha224", "sha256", "sha384", "sha512", "md5")
_PRIV: tuple[PrivProtocol, ...] = ("aes", "aes192", "aes256", "des")


@dataclass(frozen=True, slots=True)
class Community:
    """A community of SNMP v1 or v2c. It travels in clear: use it inside the site's own PDU network only."""

    name: str = field(repr=False)
    version: Literal["1", "2c"] = "2c"


@dataclass(frozen=True, slots=True)
class User:
    """A user of SNMP v3 (RFC 3414). Without keys the level is noAuthNoPriv."""

    user: str
    auth_key: str | None = field(default=None, repr=False)
    priv_key: str | None = field(default=None, repr=False)
    auth: AuthProtocol = "sha"
    priv: PrivProtocol = "aes"
    context: str = ""
    """Context name; empty on every PDU that is not behind a proxy."""

    def __post_init__(self) -> None:
        """Refuse keys that RFC 3414 refuses (11.2: at least 8 characters; privacy needs authentication)."""
        for what, key in (("authentication", self.auth_key), ("privacy", self.priv_key)):
            if key is not None and len(key) < 8:
                raise ValueError(f"SNMP v3 user {self.user}: the {what} key is shorter than 8 characters (RFC 3414)")
        if self.priv_key is not None and self.auth_key is None:
            raise ValueError(f"SNMP v3 user {self.user}: a privacy key needs an authentication key")


Access = Community | User


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a device is asked with and, if it may be switched at all, commanded with."""

    read: Access
    write: Access | None = None


def credentials_from_text(text: str) -> Credentials:
    """Parse a secret as it stands in a file or an environment variable.

    One word is a read community of v2c. Otherwise ``key=value`` lines: ``version`` (1, 2c, 3), ``community``,
    ``write_community``; for version 3 ``user``, ``auth``, ``auth_key``, ``priv``, ``priv_key``, ``context`` and
    ``write_user`` with ``write_auth_key``, ``write_priv_key``. Empty lines and lines that begin with ``#`` are skipped.

    Raises:
        ValueError: what is wrong, without the secret.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) == 1 and "=" not in lines[0]:
        return Credentials(Community(lines[0]))
    fields: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        key, sign, value = line.partition("=")
        if not sign:
            raise ValueError(f"SNMP credentials, line {number}: no '='; expected key=value")
        fields[key.strip()] = value.strip()
    return _credentials_from_fields(fields)


def _credentials_from_fields(fields: dict[str, str]) -> Credentials:
    known = {"version", "community", "write_community", "user", "auth", "auth_key", "priv", "priv_key", "context"}
    known |= {"write_user", "write_auth_key", "write_priv_key"}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"SNMP credentials: unknown keys {', '.join(unknown)}; expected {', '.join(sorted(known))}")
    version = fields.get("version", "3" if "user" in fields else "2c")
    if version in ("1", "2c"):
        if not fields.get("community"):
            raise ValueError("SNMP credentials: no community; give community=…")
        kind: Literal["1", "2c"] = "1" if version == "1" else "2c"
        write = fields.get("write_community")
        return Credentials(Community(fields["community"], kind), Community(write, kind) if write else None)
    if version != "3":
        raise ValueError(f"SNMP credentials: version {version!r}; expected 1, 2c or 3")
    if not fields.get("user"):
        raise ValueError("SNMP credentials: no user; give user=…")
    return Credentials(_user(fields, ""), _user(fields, "write_") if fields.get("write_user") else None)


def _user(fields: dict[str, str], prefix: str) -> User:
    auth = next((name for name in _AUTH if name == fields.get("auth", "sha")), None)
    priv = next((name for name in _PRIV if name == fields.get("priv", "aes")), None)
    if auth is None or priv is None:
        raise ValueError(f"SNMP credentials: auth is one of {', '.join(_AUTH)}; priv is one of {', '.join(_PRIV)}")
    return User(
        fields[f"{prefix}user"],
        fields.get(f"{prefix}auth_key") or None,
        fields.get(f"{prefix}priv_key") or None,
        auth,
        priv,
        fields.get("context", ""),
    )


def credentials_from_environment(name: str, environment: Mapping[str, str]) -> Credentials:
    """Secret ``name`` from ``TIZGIN_SNMP_<NAME>`` (the text) or ``TIZGIN_SNMP_<NAME>_FILE`` (a file with the text).

    Raises:
        ValueError: there is none, or it cannot be understood.
    """
    key = "TIZGIN_SNMP_" + "".join(c if c.isalnum() else "_" for c in name).upper()
    text = environment.get(key)
    if text is None and (path := environment.get(f"{key}_FILE")) is not None:
        try:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(_SECRET_LIMIT_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"SNMP credentials {name}: file {path} cannot be read: {type(error).__name__}") from error
    if not text or not text.strip():
        raise ValueError(f"SNMP credentials {name}: neither {key} nor {key}_FILE is set in the environment")
    return credentials_from_text(text)
