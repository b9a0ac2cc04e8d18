"""When two spellings are one machine: serial numbers, MAC addresses and model names as keys."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from drivers.capabilities import MinerStatus

MAX_CHARS = 64
"""Of a serial number, model or firmware name; longer is no name."""

_LOOKALIKES = str.maketrans("АВЕКМНОРСТУХІ", "ABEKMHOPCTYXI")
"""Cyrillic capitals that a typist cannot tell from Latin ones; serial numbers on plates are Latin."""
_NOT_SERIAL = frozenset({"", "NA", "NONE", "NULL", "UNKNOWN", "DEFAULT", "TBD", "NOTSET", "НЕТ", "ЖОҚ"})
_MAC = re.compile(r"[0-9A-F]{12}")
_VENDOR = re.compile(
    r"\b(?:bitmain|antminer|whatsminer|microbt|avalonminer|canaan|avalon|iceriver|auradine|teraflux)\b"
)
_RATED = re.compile(r"\([^)]{0,40}\)|\b\d{1,4}(?:[.,]\d+)?\s?(?:th|t|gh|ph)(?:/s)?\b")
_BOARD = re.compile(r"[ _-]v[a-z]?\d{1,4}$")


@dataclass(frozen=True, slots=True)
class Identity:
    """What one machine said of itself, cleaned; ``None`` is "did not say"."""

    serial: str | None = None
    mac: str | None = None
    model: str | None = None
    firmware: str | None = None

    @property
    def named(self) -> bool:
        """True where it gave a serial number or a MAC address."""
        return self.serial is not None or self.mac is not None


def identity_of(status: MinerStatus) -> Identity:
    """The identity in a machine's answer. Placeholders such as ``00:00:00:00:00:00`` are "did not say"."""
    return Identity(
        serial=serial_key(status.serial),
        mac=mac_key(status.mac),
        model=name_text(status.model),
        firmware=name_text(status.firmware),
    )


def serial_key(text: str | None) -> str | None:
    """Serial number as a key: Latin capitals and digits, without blanks and dashes; ``None`` where it is none.

    >>> serial_key(" ymdb-9000 ВС12 ")
    'YMDB9000BC12'
    """
    if text is None or len(text) > 4 * MAX_CHARS:
        return None
    plain = unicodedata.normalize("NFKC", text).upper()
    key = "".join(char for char in plain if char.isalnum() or char in "/.+#")
    if key.replace("/", "") in _NOT_SERIAL:
        return None
    key = key.translate(_LOOKALIKES)
    if not 0 < len(key) <= MAX_CHARS or not key.strip("0./+#") or set(key) == {"F"}:
        return None
    return key


def mac_key(text: str | None) -> str | None:
    """MAC address as ``AA:BB:CC:DD:EE:FF`` from any usual spelling; ``None`` where it is none, zero or broadcast."""
    if text is None or len(text) > MAX_CHARS:
        return None
    digits = re.sub(r"[\s:.\-]", "", text).upper()
    if not _MAC.fullmatch(digits) or digits in {"0" * 12, "F" * 12}:
        return None
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def name_text(text: str | None) -> str | None:
    """A model's or firmware's name: one line, printable, of sensible length."""
    if text is None:
        return None
    clean = "".join(char if char.isprintable() else " " for char in text[: 4 * MAX_CHARS])
    return " ".join(clean.split())[:MAX_CHARS] or None


@lru_cache(maxsize=1024)
def model_key(text: str | None) -> str | None:
    """Model as a key, without vendor, rated hash rate and board version; pluses and letters after the number count.

    >>> model_key("Bitmain Antminer S19j Pro (104 TH/s)") == model_key("S19J PRO")
    True
    >>> model_key("S19") == model_key("S19 Pro")
    False
    """
    if text is None:
        return None
    plain = unicodedata.normalize("NFKC", text[: 4 * MAX_CHARS]).casefold()
    plain = _RATED.sub(" ", _VENDOR.sub(" ", plain)).strip()
    plain = _BOARD.sub("", plain)
    key = "".join(char for char in plain if char.isalnum() or char == "+")
    return key.upper().translate(_LOOKALIKES) or None


@lru_cache(maxsize=1024)
def place_key(text: str | None) -> str | None:
    """A place, group or owner as a key: case and spacing do not count."""
    if text is None:
        return None
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()) or None
