"""Reading what an unknown address said, for the families' ``certainty``. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drivers.asic.family import Evidence
from drivers.asic.fields import rows

OTHER_FIRMWARES = ("vnish", "mskminer", "hiveon", "rwglr", "braiins", "bosminer", "boser", "anthill", "asic.to")
"""Words in version answers of firmwares that keep Bitmain's field names but not its web interface."""
MAX_WORDS_CHARS = 4000


def heads(evidence: Evidence) -> list[dict[str, Any]]:
    """The rows in which a machine says what it is: of ``version``, and the head and status of ``stats``."""
    found: list[dict[str, Any]] = []
    for answer in (evidence.version, evidence.stats):
        if answer is None:
            continue
        found += rows(answer, "VERSION")[:2]
        found += rows(answer, "STATS")[:1]
        found += rows(answer, "INFO")[:1]
        found += rows(answer, "STATUS")[:1]
        if isinstance(answer.get("STATUS"), str):
            found.append({key: answer[key] for key in ("STATUS", "Code", "Msg", "Description") if key in answer})
    return found


def words(evidence: Evidence) -> str:
    """Everything those rows say, names of fields included, in lower case."""
    return " ".join(_texts(heads(evidence)))[:MAX_WORDS_CHARS].lower()


def head_value(evidence: Evidence, *names: str) -> str:
    """The first value of a field in those rows, in lower case; empty text where there is none."""
    for row in heads(evidence):
        for name in names:
            value = row.get(name)
            if isinstance(value, str) and value.strip():
                return value.strip().lower()
    return ""


def answered(evidence: Evidence) -> bool:
    """Whether the JSON socket answered at all."""
    return bool(evidence.version) or bool(evidence.stats)


def is_other_firmware(evidence: Evidence) -> bool:
    """Whether it names a firmware that only looks like Bitmain's."""
    said = words(evidence)
    return any(word in said for word in OTHER_FIRMWARES)


def _texts(listed: list[dict[str, Any]]) -> Iterator[str]:
    for row in listed:
        for key, value in list(row.items())[:60]:
            yield str(key)
            if isinstance(value, dict):
                yield from (str(part) for part in list(value.values())[:20])
            elif isinstance(value, str | int | float):
                yield str(value)[:200]
