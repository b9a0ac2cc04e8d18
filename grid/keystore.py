"""Private keys of persons and of the registrar: PKCS#8 PEM files of mode 0600, optionally under a passphrase.

A passphrase comes from a file, the environment or the terminal, never from an argument: arguments stand in the
process list for everybody to read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from grid.errors import KeyFileError
from grid.files import read_private, write_new_private
from wire.errors import BadKey
from wire.keys import SigningKey, VerifyKey

PASSPHRASE_VARIABLE = "TIZGIN_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable, not a passphrase
Ask = Callable[[], str]
"""Asks the person at the terminal for the passphrase."""


def is_encrypted(pem: bytes) -> bool:
    """True for a PEM file under a passphrase."""
    return b"ENCRYPTED" in pem


def find_passphrase(file: Path | None, environment: Mapping[str, str], ask: Ask | None) -> bytes | None:
    """The passphrase from a file, else the environment, else the person; ``None`` where nobody gives one.

    Raises:
        KeyFileError: the passphrase file is empty or readable by others.
    """
    if file is not None:
        text = read_private(file).rstrip(b"\r\n")
        if not text:
            raise KeyFileError(f"{file}: the passphrase file is empty")
        return text
    if environment.get(PASSPHRASE_VARIABLE):
        return environment[PASSPHRASE_VARIABLE].encode()
    typed = ask() if ask else ""
    return typed.encode() or None


def create_key(path: Path, passphrase: bytes | None) -> SigningKey:
    """Make a new key and its file.

    Raises:
        KeyFileError: the file exists or cannot be written.
    """
    key = SigningKey.generate()
    write_new_private(path, key.to_pem(passphrase))
    return key


def load_key(
    path: Path, *, passphrase_file: Path | None = None, environment: Mapping[str, str], ask: Ask | None = None
) -> SigningKey:
    """Read a private key; the passphrase is looked for only if the file needs one.

    Raises:
        KeyFileError: unreadable, readable by others, not an Ed25519 key, passphrase missing or wrong.
    """
    pem = read_private(path)
    passphrase: bytes | None = None
    if is_encrypted(pem):
        passphrase = find_passphrase(passphrase_file, environment, ask)
        if passphrase is None:
            raise KeyFileError(
                f"{path}: the key is under a passphrase and none was given; "
                f"use --passphrase-file or {PASSPHRASE_VARIABLE}"
            )
    try:
        return SigningKey.from_pem(pem, passphrase)
    except BadKey as error:
        raise KeyFileError(f"{path}: {error}") from None


def fingerprint(key: VerifyKey) -> str:
    """The identifier in groups of four, to be read aloud and compared."""
    return " ".join(key.kid[i : i + 4] for i in range(0, 16, 4))


def read_public(text_or_file: str) -> VerifyKey:
    """A public key from base64 text, or from a file whose one line it is (a JSON with ``public`` also serves).

    Raises:
        KeyFileError: neither.
    """
    path = Path(text_or_file)
    text = text_or_file
    try:
        if len(text_or_file) < 4096 and path.is_file():
            text = path.read_text(encoding="utf-8")[:4096].strip()
            if text.startswith("{"):
                import json

                text = str(json.loads(text).get("public", ""))
        return VerifyKey.from_text(text)
    except (BadKey, OSError, ValueError) as error:
        raise KeyFileError(
            f"public key {text_or_file[:80]!r}: expected base64 of 32 bytes, or a file that holds it ({error})"
        ) from None
