"""CSV and XLSX → rows of cells, each with where it stands. The file is somebody's: everything about it is bounded.

Formulas are never evaluated and never believed: a cell that holds one is marked, and whoever needs it refuses it.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from agent.errors import AgentError

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_UNPACKED_BYTES = 256 * 1024 * 1024
MAX_STRINGS_BYTES = 64 * 1024 * 1024
"""Of the one member that is held in memory as a whole: the shared texts."""
MAX_MEMBERS = 2_000
MAX_RATIO = 250
"""Unpacked to packed, beyond the first megabyte; tables of numbers reach 30."""
MAX_ROWS = 100_000
MAX_COLUMNS = 64
MAX_CELL_CHARS = 500
_XLSX = b"PK\x03\x04"
_STRINGS = "sharedstrings.xml"
_EXACT = 10**15
"""Spreadsheets keep 15 digits of a number; a longer serial number in a number cell is already wrong."""


class TableError(AgentError):
    """The file cannot be read as a table; the message names file and place."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its text, and what is wrong with it (``formula``, ``error``, ``long``, ``rounded``), if anything."""

    text: str = ""
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row; ``number`` counts from 1 as the program that shows the file does."""

    number: int
    cells: tuple[Cell, ...]

    @property
    def empty(self) -> bool:
        """True where no cell holds anything."""
        return not any(cell.text or cell.fault for cell in self.cells)


def rows_of(path: Path, raw: bytes, *, sheet: str | None = None) -> Iterator[Row]:
    """Rows of a table that are not empty.

    Args:
        path: for its name in errors; what the file is, is seen from its content.
        raw: the file, see :func:`read_file`.
        sheet: worksheet of an XLSX; the first by default.

    Raises:
        TableError: no table, too large, or packed to harm.
    """
    found = _xlsx(path, raw, sheet) if raw.startswith(_XLSX) else _csv(path, raw)
    for row in found:
        if row.number > MAX_ROWS:
            raise TableError(f"{path.name}: more than {MAX_ROWS} rows; expected one row per machine; split the list")
        if not row.empty:
            yield row


def read_file(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        TableError: it cannot be read or is too large.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    if len(raw) > MAX_FILE_BYTES:
        raise TableError(f"{path.name}: larger than {MAX_FILE_BYTES >> 20} MB; expected a list of machines alone")
    if not raw.strip():
        raise TableError(f"{path.name}: empty; expected a header row and one row per machine")
    return raw


# CSV ----------------------------------------------------------------------------------------------------------------


def _text_of(path: Path, raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        # Spreadsheets here save in the local code page; the Kazakh one holds every Russian letter at the same place.
        encodings = ("utf-8-sig", "kz1048")
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text
    raise TableError(f"{path.name}: neither text nor XLSX; save it as CSV in UTF-8, or as XLSX (old .xls is not read)")


def _csv(path: Path, raw: bytes) -> Iterator[Row]:
    text = _text_of(path, raw)
    head = text[:20_000].splitlines()[:20]
    delimiter = max(";,\t", key=lambda mark: max((line.count(mark) for line in head), default=0))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for fields in reader:
            if len(fields) > MAX_COLUMNS and any(field.strip() for field in fields[MAX_COLUMNS:]):
                raise TableError(f"{path.name}: row {number}: {len(fields)} columns; at most {MAX_COLUMNS} expected")
            yield Row(number, tuple(_text_cell(field) for field in fields[:MAX_COLUMNS]))
            number = reader.line_num + 1
    except csv.Error as error:
        raise TableError(f"{path.name}: row {number}: {error}; expected CSV with closed quotes") from None


def _text_cell(value: str) -> Cell:
    text = value.strip()
    if len(text) > MAX_CELL_CHARS:
        return Cell(text[:40], "long")
    return Cell(text, "formula" if text.startswith("=") else None)


# XLSX ---------------------------------------------------------------------------------------------------------------


def _xlsx(path: Path, raw: bytes, sheet: str | None) -> Iterator[Row]:
    _refuse_bomb(path, raw)
    import openpyxl

    try:
        # data_only stays off: it would give results that some program stored beside a formula.
        book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=False, keep_links=False)
    except Exception as error:  # the reader has no error of its own for a file that is nearly right
        raise TableError(f"{path.name}: cannot be read as XLSX ({type(error).__name__}); save it anew") from None
    try:
        names = book.sheetnames
        if not names or (sheet is not None and sheet not in names):
            raise TableError(f"{path.name}: no sheet {sheet!r}; it has {', '.join(names)[:200]}")
        table = book[sheet] if sheet is not None else book.worksheets[0]
        yield from _sheet(path, table.iter_rows(max_row=MAX_ROWS + 1, max_col=MAX_COLUMNS))
    except TableError:
        raise
    except Exception as error:  # as above: damaged XML shows only here
        raise TableError(f"{path.name}: damaged XLSX ({type(error).__name__}); save it anew") from None
    finally:
        book.close()


def _sheet(path: Path, rows: Iterator[tuple[object, ...]]) -> Iterator[Row]:
    for number, cells in enumerate(rows, start=1):
        if number > MAX_ROWS and any(getattr(cell, "value", None) is not None for cell in cells):
            raise TableError(f"{path.name}: more than {MAX_ROWS} rows; expected one row per machine; split the list")
        yield Row(
            min(number, MAX_ROWS),
            tuple(_value_cell(getattr(cell, "value", None), getattr(cell, "data_type", "n")) for cell in cells),
        )


def _value_cell(value: object, kind: str) -> Cell:
    if value is None:
        return Cell()
    if kind == "f":
        return Cell(str(value)[:40], "formula")
    if kind == "e":
        return Cell(str(value)[:40], "error")
    if isinstance(value, datetime):
        return Cell(value.date().isoformat())
    if isinstance(value, date):
        return Cell(value.isoformat())
    if isinstance(value, bool):
        return Cell("true" if value else "false")
    if isinstance(value, int | float):
        if value != value or abs(value) >= _EXACT:  # noqa: PLR0124 - not a number is unequal to itself
            return Cell(str(value)[:40], "rounded")
        return Cell(str(int(value)) if value == int(value) else repr(value))
    return _text_cell(str(value)[: MAX_CELL_CHARS + 1])


def _refuse_bomb(path: Path, raw: bytes) -> None:
    """Judge the archive by its directory before anything is unpacked; reading never goes beyond what that says."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
    except Exception as error:  # a directory that is nearly right fails in half a dozen ways
        raise TableError(f"{path.name}: damaged archive ({error}); save it anew") from None
    unpacked = sum(member.file_size for member in members)
    strings = sum(member.file_size for member in members if member.filename.lower().endswith(_STRINGS))
    why = None
    if len(members) > MAX_MEMBERS:
        why = f"{len(members)} parts, at most {MAX_MEMBERS} expected"
    elif unpacked > MAX_UNPACKED_BYTES or strings > MAX_STRINGS_BYTES:
        why = f"{unpacked >> 20} MB unpacked, at most {MAX_UNPACKED_BYTES >> 20} expected"
    elif unpacked > (1 << 20) + MAX_RATIO * len(raw):
        why = f"packed {unpacked // max(1, len(raw))} times, at most {MAX_RATIO} expected"
    elif any(member.flag_bits & 1 for member in members):
        why = "it is encrypted, expected a file without a password"
    if why is not None:
        raise TableError(f"{path.name}: refused: {why}; save the list alone, without pictures, as XLSX or CSV")
