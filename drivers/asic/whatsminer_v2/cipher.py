"""How Whatsminer's API 2 wants its writes: a token, AES-256 in ECB mode, base64. Pure functions.

Source: MicroBT's document of API 2.0.5 (``key = md5crypt(salt, password)``, ``sign = md5crypt(newsalt, key + last four
digits of time)``, ``aeskey = sha256(key)``), and a published example of the same numbers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from drivers.asic.md5crypt import md5crypt
from drivers.asic.repair import parse_answer
from drivers.errors import BadAnswer

_SALT = re.compile(r"[./0-9A-Za-z]{1,16}")
_TIME = re.compile(r"\d{1,20}")
_BLOCK_BYTES = 16
_TIME_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Token:
    """What a write needs. ``repr`` shows neither part."""

    sign: str = field(repr=False)
    aes_key: bytes = field(repr=False)


def password_key(message: dict[str, Any], password: str) -> str:
    """The key that a password makes with the ``salt`` of a ``get_token`` answer.

    It is the costly half of a token, and the salt stays the same until the password changes: worth keeping.

    Raises:
        BadAnswer: the salt is missing or odd.
    """
    salt = str(message.get("salt", ""))
    if not _SALT.fullmatch(salt):
        raise BadAnswer("get_token gave no usable time, salt and newsalt")
    return md5crypt(password.encode(), salt.encode())


def make_token(message: dict[str, Any], key: str) -> Token:
    """The token from the ``Msg`` of a ``get_token`` answer and the key of the password.

    Raises:
        BadAnswer: newsalt or time is missing or odd.
    """
    newsalt, time = (str(message.get(name, "")) for name in ("newsalt", "time"))
    if not (_SALT.fullmatch(newsalt) and _TIME.fullmatch(time)):
        raise BadAnswer("get_token gave no usable time, salt and newsalt")
    sign = md5crypt((key + time[-_TIME_DIGITS:]).encode(), newsalt.encode())
    return Token(sign, hashlib.sha256(key.encode()).digest())


def seal(token: Token, command: str, parameters: dict[str, str]) -> dict[str, Any]:
    """The request of a write as it goes over the wire."""
    plain = json.dumps({"token": token.sign, "cmd": command, **parameters}, separators=(",", ":")).encode()
    padded = plain + b"\x00" * (-len(plain) % _BLOCK_BYTES)
    encryptor = _cipher(token).encryptor()
    return {"enc": 1, "data": base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()}


def unseal(token: Token, answer: dict[str, Any], source: str) -> dict[str, Any]:
    """The answer to a write; refusals come as they are, the rest encrypted under ``enc``.

    Raises:
        BadAnswer: it cannot be deciphered.
    """
    sealed = answer.get("enc")
    if not isinstance(sealed, str):
        return answer
    try:
        data = base64.b64decode("".join(sealed.split()), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or len(data) % _BLOCK_BYTES:
        raise BadAnswer(f"{source}: the encrypted answer is damaged")
    decryptor = _cipher(token).decryptor()
    return parse_answer(decryptor.update(data) + decryptor.finalize(), source=source)


def _cipher(token: Token) -> Cipher[modes.ECB]:
    # Its firmware knows nothing else; the token within, not the mode, is what keeps a request from being replayed.
    return Cipher(algorithms.AES(token.aes_key), modes.ECB())  # noqa: S305 - the machine's protocol
