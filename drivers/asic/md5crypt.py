"""``md5crypt``, the password hash of ``openssl passwd -1``: Whatsminer's API derives its keys from it.

Public description: Poul-Henning Kamp's scheme of FreeBSD 2, as also written down in Ulrich Drepper's notes on crypt.
It protects nothing by today's measure; the machine's firmware leaves no choice.
"""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import cycle, islice

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_GROUPS = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))
_ROUNDS = 1000
_CYCLE = 2 * 3 * 7
MAX_SALT_BYTES = 8


def md5crypt(password: bytes, salt: bytes) -> str:
    """The 22 characters after the salt.

    Args:
        password: any bytes.
        salt: its first 8 bytes count.
    """
    salt = salt[:MAX_SALT_BYTES]
    inner = _md5(password + salt + password)
    mixed = password + b"$1$" + salt
    mixed += (inner * (len(password) // 16 + 1))[: len(password)]
    length = len(password)
    while length:
        # The first byte of the password or a zero, by the bits of its length: a slip of the original that stayed.
        mixed += b"\x00" if length & 1 else password[:1]
        length >>= 1
    digest = _md5(mixed)
    # What is hashed with the digest repeats every 2 * 3 * 7 rounds: behind it in even ones, before it in odd ones.
    parts = [_part(number, password, salt) for number in range(_CYCLE)]
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    md5 = partial(hashlib.md5, usedforsecurity=False)
    for behind, before in islice(cycle(pairs), _ROUNDS // 2):
        digest = md5(before + md5(digest + behind).digest()).digest()
    return "".join(_letters(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _GROUPS) + _letters(
        digest[11], 2
    )


def _part(number: int, password: bytes, salt: bytes) -> bytes:
    middle = (salt if number % 3 else b"") + (password if number % 7 else b"")
    return password + middle if number & 1 else middle + password


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _letters(value: int, count: int) -> str:
    return "".join(_ALPHABET[value >> 6 * at & 63] for at in range(count))
