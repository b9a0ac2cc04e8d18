"""A zip of one possible sequence of bytes, made part by part on disk: it may be larger than the memory.

Stored, in the order given, with fixed dates and attributes and nothing else inside. Parts are written to a temporary
file as they come; the manifest, which stands first and names the sum of each, can only be written after them.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from central.errors import CentralError

DATE = (1980, 1, 1, 0, 0, 0)
ATTRIBUTES = 0o100644 << 16
CHUNK = 1 << 20
MAX_BYTES = 2_100_000_000
"""Of all files; with their headers an archive stays below 2^31."""
MAX_PARTS = 4096
"""A verifier reads no more entries."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive, and where it stands in the temporary file."""

    name: str
    offset: int
    size: int
    sha256: str


class Parts:
    """Files of an archive to be. Close it, or use it as a context: the temporary file goes with it.

    Args:
        folder: where the temporary file is made; it has no name there, so that nothing is left after a power cut.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this
        self._parts: dict[str, Part] = {}
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def add(self, name: str, chunks: Iterable[bytes]) -> Part:
        """One file more, out of its pieces.

        Raises:
            CentralError: all of it would not fit an archive.
        """
        with self.writing(name) as writer:
            for chunk in chunks:
                writer.write(chunk)
                writer.keep()
        return self._parts[name]

    def writing(self, name: str) -> Writer:
        """One file more, of which it is not yet known how much of what is written belongs to it."""
        if name in self._parts or len(self._parts) + 1 >= MAX_PARTS:
            raise CentralError(f"{name}: there already, or one of more than {MAX_PARTS - 1} files of a bundle")
        self._file.seek(self._end)
        return Writer(self, name)

    def _written(self, name: str, size: int, sha256: str) -> None:
        self._file.truncate(self._end + size)
        self._parts[name] = Part(name, self._end, size, sha256)
        self._end += size

    def _fits(self, size: int) -> None:
        if self._end + size > MAX_BYTES:
            text = f"{self._end + size} bytes do not fit a bundle of at most {MAX_BYTES}"
            raise CentralError(f"{text}: ask for a shorter period")

    def parts(self, first: Sequence[str]) -> list[Part]:
        """The named files in this order, then all others by name."""
        rest = sorted(self._parts.keys() - set(first))
        return [self._parts[name] for name in (*first, *rest)]

    def zip_to(self, target: IO[bytes], manifest: bytes, parts: Sequence[Part]) -> None:
        """Write the archive: ``manifest.json``, then the parts. ``target`` has to be seekable."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
            archive.writestr(_info("manifest.json", len(manifest)), manifest)
            for part in parts:
                with archive.open(_info(part.name, part.size), "w") as entry:
                    self._file.seek(part.offset)
                    for at in range(0, part.size, CHUNK):
                        entry.write(self._file.read(min(CHUNK, part.size - at)))


class Writer:
    """Writes one part: what was written after the last :meth:`keep` does not belong to it."""

    def __init__(self, parts: Parts, name: str) -> None:
        self._parts, self._name = parts, name
        self._written = self._kept = 0
        self._sum = hashlib.sha256()
        self._kept_sum = self._sum.copy()
        self._dropped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and not self._dropped:
            self._parts._written(self._name, self._kept, self._kept_sum.hexdigest())

    def write(self, data: bytes) -> None:
        """The next piece."""
        self._parts._file.write(data)
        self._sum.update(data)
        self._written += len(data)

    def keep(self) -> None:
        """All that was written so far belongs to the part.

        Raises:
            CentralError: it would not fit an archive.
        """
        self._kept, self._kept_sum = self._written, self._sum.copy()
        self._parts._fits(self._kept)

    def drop(self) -> None:
        """There is no such part after all."""
        self._dropped = True


def _info(name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, DATE)
    info.create_system = 3
    info.external_attr = ATTRIBUTES
    info.file_size = size
    return info


def zipped(parts: Parts, manifest: bytes, order: Sequence[Part]) -> bytes:
    """The archive in memory."""
    buffer = io.BytesIO()
    parts.zip_to(buffer, manifest, order)
    return buffer.getvalue()


def write_zip(path: Path, parts: Parts, manifest: bytes, order: Sequence[Part]) -> int:
    """The archive as a file that others may read, whole or not at all.

    Returns:
        Its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            parts.zip_to(file, manifest, order)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return size
