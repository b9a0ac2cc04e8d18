"""Rows of a table → the register list, with everything that is wrong named by file, row and column."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from ipaddress import ip_address
from pathlib import Path

from agent.inventory.headers import columns_of
from agent.inventory.identity import mac_key, name_text, place_key, serial_key
from agent.inventory.register import Entry, RegisterList
from agent.inventory.tables import Cell, Row, TableError, read_file, rows_of

HEADER_WITHIN = 20
"""A header stands in one of the first rows that are not empty: lists begin with a title."""
MAX_PROBLEMS = 200
_DATES = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d.%m.%y")
_NUMBER = re.compile(r"[0-9]{1,9}(?:[.,][0-9]{1,6})?")
_MOST = {"nameplate": 100_000.0, "hashrate": 100_000.0}
_EARLIEST = date(2009, 1, 1)


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """One thing that is wrong with the list."""

    severity: str
    """``error``: the list is not taken; ``warning``: it is."""
    file: str
    row: int | None
    column: str | None
    seen: str
    expected: str
    do: str

    def __str__(self) -> str:
        where = self.file + (f", row {self.row}" if self.row else "") + (f", {self.column}" if self.column else "")
        return f"{where}: saw {self.seen}, expected {self.expected}; {self.do}"


@dataclass(slots=True)
class Imported:
    """What came of a list: the register where no error stands against it, and what is wrong with it."""

    register: RegisterList | None
    problems: list[ImportProblem]
    columns: dict[str, str] = field(default_factory=dict)
    """Field → header it was found under."""
    ignored: tuple[str, ...] = ()
    """Headers nobody knows."""
    errors: int = 0
    """All of them; ``problems`` holds the first :data:`MAX_PROBLEMS`."""


def import_file(
    path: Path, *, now_ms: int, groups: Iterable[str] = (), today: date | None = None, sheet: str | None = None
) -> Imported:
    """Read a register list, CSV or XLSX.

    Args:
        path: the file.
        now_ms: time of the import.
        groups: ids of the site's machine groups, to say which places are none of them.
        today: no entry can be later.
        sheet: worksheet of an XLSX; the first by default.

    Raises:
        TableError: it is no table, too large, or packed to harm.
    """
    raw = read_file(path)
    return import_rows(
        rows_of(path, raw, sheet=sheet),
        name=path.name,
        sha256=hashlib.sha256(raw).hexdigest(),
        now_ms=now_ms,
        groups=groups,
        today=today,
    )


def import_rows(
    rows: Iterable[Row],
    *,
    name: str,
    sha256: str,
    now_ms: int,
    groups: Iterable[str] = (),
    today: date | None = None,
) -> Imported:
    """As :func:`import_file`, from rows.

    Raises:
        TableError: no row looks like a header, or there is no row beneath it.
    """
    reading = _Reading(name, {place_key(group) or "" for group in groups}, today)
    rest = iter(rows)
    reading.find_header(rest)
    entries = [entry for row in rest if (entry := reading.entry(row)) is not None]
    if not entries and not reading.errors:
        raise TableError(f"{name}: a header and no machine beneath it; expected one row per machine")
    reading.finish(entries)
    register = None if reading.errors else RegisterList(name, sha256, now_ms, tuple(entries))
    return Imported(register, reading.problems, reading.shown, tuple(reading.ignored), reading.errors)


class _Reading:
    """One list being read; goes on after a problem, so that a person sees all of them."""

    def __init__(self, name: str, groups: set[str], today: date | None) -> None:
        self.name = name
        self.problems: list[ImportProblem] = []
        self.errors = 0
        self.shown: dict[str, str] = {}
        self.ignored: list[str] = []
        self._groups = groups
        self._today = today
        self._columns: dict[str, tuple[int, float]] = {}
        self._headers: Sequence[str] = ()
        self._serials: dict[str, int] = {}
        self._macs: dict[str, int] = {}
        self._no_model = 0
        self._places: dict[str, int] = {}

    # header ----------------------------------------------------------------------------------------------------------

    def find_header(self, rows: Iterable[Row]) -> None:
        seen = []
        for row in rows:
            headers = [cell.text for cell in row.cells]
            found = columns_of(headers)
            if {"serial", "mac"} & {name for name, _ in found.values()} and len(found) >= 2:
                self._take_header(row, headers, found)
                return
            seen.append(" | ".join(text[:20] for text in headers if text)[:80])
            if len(seen) >= HEADER_WITHIN:
                break
        raise TableError(
            f"{self.name}: no header row; saw {seen[0] if seen else 'nothing'!r} …, expected columns such as "
            "'Serial number', 'MAC', 'Model', 'Owner' (or Серийный номер, Модель, Владелец; Сериялық нөмірі, Үлгісі, "
            "Иесі) in one of the first rows"
        )

    def _take_header(self, row: Row, headers: Sequence[str], found: Mapping[int, tuple[str, float]]) -> None:
        self._headers = headers
        for at, text in enumerate(headers):
            known = found.get(at)
            if known is None:
                if text:
                    self.ignored.append(text[:40])
            elif known[0] in self._columns:
                self._problem(
                    "error", row.number, text, f"a second column for {known[0]}", "one", "rename or remove one of them"
                )
            else:
                self._columns[known[0]] = (at, known[1])
                self.shown[known[0]] = text

    # rows ------------------------------------------------------------------------------------------------------------

    def entry(self, row: Row) -> Entry | None:
        before = self.errors
        serial = self._serial(row)
        mac = self._mac(row)
        if self.errors == before and serial is None and mac is None:
            self._problem(
                "error", row.number, None, "neither serial number nor MAC", "at least one", "fill it in or remove it"
            )
        self._note(row.number, self._serials, serial, "serial")
        self._note(row.number, self._macs, mac, "mac")
        model = name_text(self._text(row, "model"))
        group = name_text(self._text(row, "group"))
        self._no_model += model is None
        if group is not None and self._groups and place_key(group) not in self._groups:
            self._places.setdefault(group, row.number)
        entry = Entry(
            row=row.number,
            serial=serial,
            mac=mac,
            model=model,
            owner=name_text(self._text(row, "owner")),
            group=group,
            address=self._address(row),
            nameplate_w=self._number(row, "nameplate", "W"),
            nominal_ths=self._number(row, "hashrate", "TH/s"),
            entered=self._day(row),
            registration_no=name_text(self._text(row, "registration_no")),
            customs_no=name_text(self._text(row, "customs_no")),
        )
        return entry if self.errors == before else None

    def finish(self, entries: Sequence[Entry]) -> None:
        if self._no_model:
            self._problem(
                "warning", None, self.shown.get("model"), f"{self._no_model} machines without a model", "a model each",
                "the papers will count them as 'model not given'",
            )  # fmt: skip
        if self._places and len(self._places) <= MAX_PROBLEMS:
            names = ", ".join(list(self._places)[:10])
            self._problem(
                "warning", next(iter(self._places.values())), self.shown.get("group"), f"places {names}",
                "ids of machine groups of the site file",
                f"whether a machine was moved cannot be told for these ({len(entries)} machines in the list)",
            )  # fmt: skip

    def _cell(self, row: Row, field_name: str) -> Cell:
        at = self._columns.get(field_name)
        return row.cells[at[0]] if at is not None and at[0] < len(row.cells) else Cell()

    def _text(self, row: Row, field_name: str) -> str | None:
        cell = self._cell(row, field_name)
        if cell.fault is None:
            return cell.text or None
        expected, do = {
            "formula": ("a value", "paste the column as values"),
            "error": ("a value", "correct the cell"),
            "long": ("at most 500 characters", "shorten it"),
            "rounded": ("text", "format the column as text and enter it anew: the last digits are lost"),
        }[cell.fault]
        seen = {"formula": "a formula", "error": "an error", "long": "a long text", "rounded": "a number"}[cell.fault]
        self._wrong(row, field_name, f"{seen} {cell.text!r}", expected, do)
        return None

    def _serial(self, row: Row) -> str | None:
        text = self._text(row, "serial")
        if text is None:
            return None
        if re.fullmatch(r"[0-9][.,]?[0-9]*[eE]\+[0-9]+", text):
            self._wrong(row, "serial", repr(text), "all its digits", "format the column as text and enter it anew")
            return None
        key = serial_key(text)
        if key is None and not text.strip("-—–. "):
            return None
        if key is None:
            self._wrong(row, "serial", repr(text[:40]), "a serial number", "correct it, or leave it empty")
        return key

    def _mac(self, row: Row) -> str | None:
        text = self._text(row, "mac")
        if text is None or not text.strip("-—–. "):
            return None
        key = mac_key(text)
        if key is None:
            self._wrong(row, "mac", repr(text[:40]), "six pairs of hex digits, not all 0 or F", "correct it")
        return key

    def _address(self, row: Row) -> str | None:
        text = self._text(row, "address")
        if text is None:
            return None
        try:
            return str(ip_address(text))
        except ValueError:
            self._wrong(row, "address", repr(text[:40]), "an IP address", "correct it, or leave it empty")
            return None

    def _number(self, row: Row, field_name: str, unit: str) -> float | None:
        text = self._text(row, field_name)
        if text is None or not text.strip("-—–. "):
            return None
        plain = re.sub(r"[\s\u00a0\u202f']", "", text)
        factor = self._columns[field_name][1]
        if not _NUMBER.fullmatch(plain):
            self._wrong(row, field_name, repr(text[:40]), f"a number ({unit})", "write the number alone")
            return None
        value = float(plain.replace(",", ".")) * factor
        if not 0 < value <= _MOST[field_name]:
            self._wrong(
                row, field_name, f"{value:g} {unit}", f"above 0 and at most {_MOST[field_name]:g} {unit}",
                "check the unit in the header",
            )  # fmt: skip
            return None
        return round(value, 6)

    def _day(self, row: Row) -> str | None:
        text = self._text(row, "entered")
        if text is None or not text.strip("-—–. "):
            return None
        for shape in _DATES:
            try:
                found = datetime.strptime(text.removesuffix("г.").strip()[:10], shape).date()
            except ValueError:
                continue
            if found >= _EARLIEST and (self._today is None or found <= self._today):
                return found.isoformat()
        self._wrong(
            row, "entered", repr(text[:40]), "a day such as 2026-03-31 or 31.03.2026, not in the future", "correct it"
        )
        return None

    def _note(self, row: int, known: dict[str, int], key: str | None, field_name: str) -> None:
        if key is None:
            return
        first = known.setdefault(key, row)
        if first != row:
            self._problem(
                "error", row, self.shown.get(field_name), f"{key}, which stands in row {first} too",
                "each machine once", "remove one of the two rows or correct it",
            )  # fmt: skip

    def _wrong(self, row: Row, field_name: str, seen: str, expected: str, do: str) -> None:
        self._problem("error", row.number, self.shown.get(field_name), seen, expected, do)

    def _problem(self, severity: str, row: int | None, column: str | None, seen: str, expected: str, do: str) -> None:
        self.errors += severity == "error"
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(ImportProblem(severity, self.name, row, column, seen, expected, do))
