"""``md5crypt`` against what ``openssl passwd -1`` says."""

from __future__ import annotations

import secrets
import shutil
import string
import subprocess

import pytest

from drivers.asic.md5crypt import md5crypt


@pytest.mark.parametrize(
    ("password", "salt", "hashed"),
    [
        ("admin", "BQ5hoXV9", "RxmaDUO33TS7O26yeMHZ81"),
        ("RxmaDUO33TS7O26yeMHZ815039", "P5NTAcEp", "W7vZynrBZBwIIjR5dvDJb0"),
    ],
)
def test_published_example_of_a_token(password: str, salt: str, hashed: str) -> None:
    assert md5crypt(password.encode(), salt.encode()) == hashed


@pytest.mark.skipif(shutil.which("openssl") is None, reason="left out: openssl is not installed here")
@pytest.mark.parametrize("length", [1, 7, 15, 16, 17, 31, 32, 33, 64, 100])
def test_openssl_says_the_same_of_random_passwords(length: int) -> None:
    letters = string.ascii_letters + string.digits + "./ !$%-"
    password = "".join(secrets.choice(letters) for _ in range(length)).replace("-", "x")
    salt = "".join(secrets.choice(string.ascii_letters) for _ in range(length % 8 + 1))
    run = subprocess.run(
        ["openssl", "passwd", "-1", "-salt", salt, "-stdin"], input=password, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip().split("$")[3] == md5crypt(password.encode(), salt.encode())


def test_only_eight_letters_of_the_salt_count() -> None:
    assert md5crypt(b"admin", b"12345678") == md5crypt(b"admin", b"123456789")
