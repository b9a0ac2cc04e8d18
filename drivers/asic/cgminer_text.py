"""Cgminer's older plain-text answers, ``STATUS=S,Code=7,…|POOL=0,URL=…|``, in the shape of the JSON ones. Pure.

Avalons still speak it. Sections are divided by ``|``, fields by commas, names from values by the first ``=``; a section
begins with its name, alone (``SUMMARY,Elapsed=…``) or with a number (``POOL=0,…``). A comma inside brackets belongs to
the value, as in ``SYSTEMSTATU[Work: In Work, Hash Board: 3 ]``.
"""

from __future__ import annotations

from typing import Any

_PLURALS = {"POOL": "POOLS", "ASC": "DEVS", "PGA": "DEVS", "CPU": "DEVS", "GPU": "DEVS"}
"""Sections whose rows are listed under another name in JSON."""
MAX_SECTIONS = 256
MAX_FIELDS = 512


def is_text_answer(data: bytes) -> bool:
    """Whether an answer is of this kind: each begins with its status."""
    return data[:64].lstrip(b"\x00 \r\n\t").startswith(b"STATUS=")


def parse_text(text: str) -> dict[str, Any]:
    """One text answer as ``{"STATUS": [{…}], "SUMMARY": [{…}], …}``; values stay text but for whole numbers."""
    answer: dict[str, Any] = {}
    *whole, cut_off = text.strip("\x00 \r\n\t").split("|")[: MAX_SECTIONS + 1]
    sections = [_fields(section.strip()) for section in whole]
    # Every whole section ends with its bar; of the last one, the last value may be shortened, so it is not believed.
    for fields in (*sections, _fields(cut_off.strip())[:-1]):
        if not fields:
            continue
        name, value = fields[0]
        row = {key: _value(found) for key, found in fields if found is not None}
        listed = answer.setdefault(_PLURALS.get(name, name), [])
        if value is None:
            row.pop(name, None)
        listed.append(row)
    return answer


def _fields(section: str) -> list[tuple[str, str | None]]:
    parts: list[tuple[str, str | None]] = []
    depth, start = 0, 0
    for at, char in enumerate(section):
        if char == "[":
            depth += 1
        elif char == "]":
            depth = max(0, depth - 1)
        elif char == "," and not depth:
            parts.append(_field(section[start:at]))
            start = at + 1
            if len(parts) >= MAX_FIELDS:
                return parts
    parts.append(_field(section[start:]))
    return [(name, value) for name, value in parts if name]


def _field(part: str) -> tuple[str, str | None]:
    name, found, value = part.partition("=")
    return name.strip()[:100], value if found else None


def _value(found: str) -> str | int:
    """Whole numbers as numbers, since codes are compared; everything else is read where its meaning is known."""
    trimmed = found.strip()
    # A leading zero is a serial number or a MAC address, which would lose it.
    plain = trimmed.isascii() and trimmed.isdigit() and len(trimmed) <= 15 and (trimmed == "0" or trimmed[0] != "0")
    return int(trimmed) if plain else trimmed
