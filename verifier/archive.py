"""The bundle's zip, read so that only one sequence of bytes per content is accepted.

Stored entries, one after the other from byte 0, fixed date, attributes and system, nothing between and nothing behind.
Headers are rebuilt from names, sizes and check sums and compared with the file's bytes: what a zip may carry unseen
(comments, extra fields, gaps, two directories) has no place to be. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verifier.errors import ArchiveError, ArchiveLimit

MAX_ENTRIES = 4_096
MAX_NAME = 200
MAX_BYTES = 2**31 - 1
"""Largest entry and largest archive that need no zip64 fields, halved: beyond it there are two ways to write one."""
CHUNK = 1 << 20
DOS_DATE = (1 << 5) | 1
"""1980-01-01; the time is 0."""
ATTRIBUTES = 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in the bundle: where its bytes are."""

    name: str
    offset: int
    size: int
    crc: int


def _local(name: bytes, size: int, crc: int) -> bytes:
    return struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 0, 0, DOS_DATE, crc, size, size, len(name), 0) + name


def _central(name: bytes, size: int, crc: int, offset: int) -> bytes:
    fixed = (0x02014B50, 20, 3, 20, 0, 0, 0, DOS_DATE, crc, size, size, len(name), 0, 0, 0, 0, ATTRIBUTES, offset)
    return struct.pack("<IBBHHHHHIIIHHHHHII", *fixed) + name


def _end(count: int, size: int, offset: int) -> bytes:
    return struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, size, offset, 0)


class Bundle:
    """An open bundle whose frame is canonical. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open and check the frame; contents are checked by :meth:`digest`.

        Raises:
            ArchiveError: the frame is not canonical.
            ArchiveLimit: too many entries or too large.
        """
        self.path = path
        self._file = path.open("rb")
        try:
            self.entries = {entry.name: entry for entry in self._frame()}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _frame(self) -> list[Entry]:
        file = self._file
        total = file.seek(0, 2)
        if total > MAX_BYTES:
            raise ArchiveLimit(f"{total} bytes; at most {MAX_BYTES} can be read")
        if total < 22:
            raise ArchiveError(f"{total} bytes are no zip archive")
        file.seek(total - 22)
        end = file.read(22)
        if end[:4] != b"PK\x05\x06":
            raise ArchiveError("no zip directory ends where the file ends")
        count, size, offset = struct.unpack_from("<HII", end, 10)
        if count > MAX_ENTRIES or size > count * (46 + MAX_NAME):
            raise ArchiveLimit(f"{count} entries with a directory of {size} bytes; at most {MAX_ENTRIES} are read")
        if offset + size + 22 != total:
            raise ArchiveError("the directory is not directly before the end of the archive")
        file.seek(offset)
        directory = file.read(size)
        entries = _read_directory(directory, count, total)
        where = 0
        for entry in entries:
            header = _local(entry.name.encode(), entry.size, entry.crc)
            file.seek(where)
            if entry.offset != where + len(header) or file.read(len(header)) != header:
                raise ArchiveError(f"{entry.name}: its header is not the canonical one")
            where = entry.offset + entry.size
        rebuilt = b"".join(
            _central(e.name.encode(), e.size, e.crc, e.offset - 30 - len(e.name.encode())) for e in entries
        )
        file.seek(offset)
        if where != offset or rebuilt != directory or file.read(size + 22)[size:] != _end(count, size, offset):
            raise ArchiveError("the directory is not the canonical one of its entries")
        return entries

    def digest(self, entry: Entry) -> str:
        """SHA-256 (hex) of an entry's content.

        Raises:
            ArchiveError: the check sum in the header is not that of the content.
        """
        sha, crc = hashlib.sha256(), 0
        for chunk in self._chunks(entry):
            sha.update(chunk)
            crc = zlib.crc32(chunk, crc)
        if crc != entry.crc:
            raise ArchiveError(f"{entry.name}: CRC-32 {crc:08x}, the header says {entry.crc:08x}")
        return sha.hexdigest()

    def read(self, entry: Entry, max_bytes: int) -> bytes:
        """A whole small entry.

        Raises:
            ArchiveLimit: larger than that.
        """
        if entry.size > max_bytes:
            raise ArchiveLimit(f"{entry.name}: {entry.size} bytes, at most {max_bytes} are expected")
        self._file.seek(entry.offset)
        data = self._file.read(entry.size)
        if len(data) != entry.size:
            raise ArchiveError(f"{entry.name}: the archive ends within it")
        return data

    def lines(self, entry: Entry, max_line: int) -> Iterator[bytes]:
        """The lines of an entry without their LF; the last must have one too.

        Raises:
            ArchiveLimit: a line longer than allowed.
            ArchiveError: the last line has no end.
        """
        rest = b""
        for chunk in self._chunks(entry):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            if len(rest) > max_line:
                raise ArchiveLimit(f"{entry.name}: a line of more than {max_line} bytes")
        if rest:
            raise ArchiveError(f"{entry.name}: the last line has no end")

    def whole_digest(self) -> str:
        """SHA-256 (hex) of the archive itself."""
        sha = hashlib.sha256()
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            sha.update(chunk)
        return sha.hexdigest()

    def _chunks(self, entry: Entry) -> Iterator[bytes]:
        done = 0
        while done < entry.size:
            self._file.seek(entry.offset + done)
            chunk = self._file.read(min(CHUNK, entry.size - done))
            if not chunk:
                raise ArchiveError(f"{entry.name}: the archive ends within it")
            done += len(chunk)
            yield chunk


def _read_directory(directory: bytes, count: int, total: int) -> list[Entry]:
    entries: list[Entry] = []
    at = 0
    for _ in range(count):
        if len(directory) < at + 46 or directory[at : at + 4] != b"PK\x01\x02":
            raise ArchiveError("the directory ends too early, or holds something else than entries")
        crc, size, unpacked, length = struct.unpack_from("<IIIH", directory, at + 16)
        (offset,) = struct.unpack_from("<I", directory, at + 42)
        raw = directory[at + 46 : at + 46 + length]
        at += 46 + length
        name = raw.decode("ascii", "replace")
        plain = name.isascii() and all(c.isalnum() or c in "._-/" for c in name)
        if ".." in name or name.startswith("/") or "\\" in name:
            raise ArchiveLimit(f"entry name {name[:80]!r} leads out of the bundle")
        if not plain or not 0 < length <= MAX_NAME:
            raise ArchiveError(f"entry name {name[:80]!r} is not one of a bundle")
        if max(size, unpacked) > total:
            # What is stored cannot be larger than the file that holds it: a bomb.
            raise ArchiveLimit(f"{name}: claims {max(size, unpacked)} bytes in an archive of {total}")
        entries.append(Entry(name, offset + 30 + length, size, crc))
    if len({e.name for e in entries}) != len(entries):
        raise ArchiveError("two entries have one name")
    return entries
