"""The memories of all units of a site in one small file. It only saves requests: what is lost is learned anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import structlog

from drivers.modbus.learned import MAX_FACTS, Facts, Retry, UnitKey
from drivers.profiles.plan import Span

log = structlog.get_logger(__name__)

MAX_BYTES = 4 * 1024 * 1024
MAX_UNITS = 5000
SCHEMA = 1
TABLES = frozenset({"holding", "input", "coil", "discrete"})


class LearnedFile:
    """:class:`drivers.modbus.learned.LearnedRanges` as a JSON file, replaced as a whole at each change."""

    def __init__(self, path: Path) -> None:
        """Read the file if it is there. One that cannot be used is left behind with a warning, never an error."""
        self._path = path
        self._units: dict[tuple[str, int, str], tuple[int, Facts]] = {}
        try:
            self._units = _parse(_text(path))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("learned_ranges_unreadable", file=str(path), reason=f"{type(error).__name__}: {error}")

    def load(self, key: UnitKey) -> Facts | None:
        """See :class:`drivers.modbus.learned.LearnedRanges`."""
        version, facts = self._units.get((key.link, key.unit, key.profile), (None, None))
        return facts if version == key.version else None

    def save(self, key: UnitKey, facts: Facts) -> None:
        """See :class:`drivers.modbus.learned.LearnedRanges`."""
        place = (key.link, key.unit, key.profile)
        if place not in self._units and len(self._units) >= MAX_UNITS:
            return
        self._units[place] = (key.version, facts)
        aside = self._path.with_suffix(".new")
        try:
            aside.write_text(json.dumps(self._document(), separators=(",", ":")), encoding="utf-8")
            os.replace(aside, self._path)  # noqa: PTH105 - Path.replace says less about what happens to the target
        except OSError as error:
            log.warning("learned_ranges_not_kept", file=str(self._path), reason=error.strerror)

    def _document(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "units": [_unit(*at, *known) for at, known in self._units.items()]}


def _unit(link: str, unit: int, profile: str, version: int, facts: Facts) -> dict[str, Any]:
    return {
        "link": link,
        "unit": unit,
        "profile": profile,
        "version": version,
        "serial": facts.serial,
        "refused": [[*span, retry.at_ms, retry.wait_ms] for span, retry in facts.refused.items()],
        "holes": [[*span, retry.at_ms, retry.wait_ms] for span, retry in facts.holes.items()],
        "cuts": [[*cut, retry.at_ms, retry.wait_ms] for cut, retry in facts.cuts.items()],
        "layout": facts.layout,
    }


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    return raw.decode("utf-8")


def _parse(text: str) -> dict[tuple[str, int, str], tuple[int, Facts]]:
    doc = json.loads(text)
    if doc["schema"] != SCHEMA:
        raise ValueError(f"schema: seen {doc['schema']!r}, expected {SCHEMA}")
    units: dict[tuple[str, int, str], tuple[int, Facts]] = {}
    for row in doc["units"][:MAX_UNITS]:
        serial, layout = row["serial"], row["layout"]
        facts = Facts(
            serial if isinstance(serial, str) else None,
            _spans(row["refused"]),
            _spans(row["holes"]),
            {(_span(table, addr, addr).table, addr): _retry(at, wait) for table, addr, at, wait in _rows(row["cuts"])},
            layout if isinstance(layout, dict) else None,
        )
        units[str(row["link"]), int(row["unit"]), str(row["profile"])] = (int(row["version"]), facts)
    return units


def _rows(rows: object) -> list[Any]:
    if not isinstance(rows, list) or len(rows) > MAX_FACTS:
        raise ValueError(f"expected a list of at most {MAX_FACTS} rows")
    return rows


def _spans(rows: object) -> dict[Span, Retry]:
    return {_span(table, first, last): _retry(at, wait) for table, first, last, at, wait in _rows(rows)}


def _span(table: object, first: object, last: object) -> Span:
    if not (isinstance(table, str) and table in TABLES and isinstance(first, int) and isinstance(last, int)):
        raise ValueError(f"registers: seen {table!r} {first!r}-{last!r}, expected a table and two addresses")
    if not 0 <= first <= last <= 0xFFFF:
        raise ValueError(f"registers: seen {first}-{last}, expected addresses 0 to 65535")
    return Span(table, first, last)


def _retry(at_ms: object, wait_ms: object) -> Retry:
    if not (isinstance(at_ms, int) and isinstance(wait_ms, int)) or at_ms < 0 or wait_ms <= 0:
        raise ValueError(f"retry: seen {at_ms!r}, {wait_ms!r}, expected milliseconds")
    return Retry(at_ms, wait_ms)
