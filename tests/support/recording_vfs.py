"""A VFS for the SQLite of this very interpreter that notes every write, truncation, sync and deletion, in order.

It is SQLite's own unix VFS with four methods of its tables replaced: what they do is what they always do, and a line is
added to a :class:`Log`. Only databases opened through :func:`recorded` pass through it. The shared-memory index (-shm)
is not noted: after a power cut SQLite builds it anew.

Works where ``sqlite3``'s library can be reached through :mod:`ctypes`: a shared ``libsqlite3``, or one linked into the
extension or the interpreter with its symbols kept.
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
import functools
import itertools
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

_Pointer = ctypes.c_void_p
# Names are taken as addresses: SQLite keeps the very pointer that it gives to xOpen.
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Pointer, ctypes.c_int, _Pointer)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_char_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int)

_TOLD = 0x00000100 | 0x00080000 | 0x00000800
"""SQLITE_OPEN_MAIN_DB, _WAL, _MAIN_JOURNAL."""
_numbers = itertools.count(1)


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods``, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", _Pointer),
        ("read", _Pointer),
        ("write", _Pointer),
        ("truncate", _Pointer),
        ("sync", _Pointer),
        ("rest", _Pointer * 13),
    )


class _File(ctypes.Structure):
    """The head of every ``sqlite3_file``."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", _Pointer),
        ("name", ctypes.c_char_p),
        ("data", _Pointer),
        ("open", _Pointer),
        ("delete", _Pointer),
        ("rest", _Pointer * 14),
    )


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at a place of a file; ``file`` is its name without folder."""

    file: str
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file cut to a size."""

    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Everything written to the file so far is on the disk's plates."""

    file: str


@dataclass(frozen=True, slots=True)
class Delete:
    """A file taken away."""

    file: str


Event = Write | Truncate | Sync | Delete


@dataclass(slots=True)
class Log:
    """What happened to the files of one folder, in order."""

    events: list[Event] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.events)


@functools.cache
def _library() -> ctypes.CDLL:
    """The library that ``sqlite3`` itself calls: a second copy of SQLite would know nothing of our VFS."""
    for place in (_sqlite3.__file__, None):
        library = ctypes.CDLL(place)
        if hasattr(library, "sqlite3_vfs_register"):
            library.sqlite3_libversion.restype = ctypes.c_char_p
            if library.sqlite3_libversion().decode() == sqlite3.sqlite_version:
                library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
                library.sqlite3_vfs_find.argtypes = (ctypes.c_char_p,)
                library.sqlite3_vfs_register.argtypes = (ctypes.POINTER(_Vfs), ctypes.c_int)
                library.sqlite3_vfs_unregister.argtypes = (ctypes.POINTER(_Vfs),)
                return library
    pytest.skip("left out: the SQLite of this interpreter shows no sqlite3_vfs_register")


class _Recorder:
    """One registered VFS; everything ctypes needs alive is held here."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.name = f"recording-{next(_numbers)}"
        self._unix = _library().sqlite3_vfs_find(b"unix").contents
        self._names: dict[int, str] = {}
        self._tables: dict[int, _Methods] = {}
        self._kept: list[Any] = []
        self.vfs = _Vfs.from_buffer_copy(self._unix)
        self.vfs.name = self.name.encode()
        self.vfs.next = None
        self.vfs.open = self._keep(_OPEN(self._open))
        self.vfs.delete = self._keep(_DELETE(self._delete))

    def _keep(self, callback: Any) -> int | None:
        self._kept.append(callback)
        return ctypes.cast(callback, _Pointer).value

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        status: int = _OPEN(self._unix.open)(vfs, name, file, flags, out)
        head = ctypes.cast(file, ctypes.POINTER(_File)).contents
        if status == 0 and name is not None and head.methods and flags & _TOLD:
            self._names[file] = Path(ctypes.string_at(name).decode()).name
            head.methods = ctypes.pointer(self._table(head.methods))
        return status

    def _table(self, original: Any) -> _Methods:
        """The file's own table with three methods replaced; one per table of SQLite's."""
        place = ctypes.cast(original, _Pointer).value or 0
        if place not in self._tables:
            methods = original.contents
            copy = _Methods.from_buffer_copy(methods)
            write, truncate, sync = _WRITE(methods.write), _TRUNCATE(methods.truncate), _SYNC(methods.sync)

            def on_write(file: int, data: int, count: int, at: int) -> int:
                status: int = write(file, data, count, at)
                if status == 0:
                    self.log.events.append(Write(self._names[file], at, ctypes.string_at(data, count)))
                return status

            def on_truncate(file: int, size: int) -> int:
                status: int = truncate(file, size)
                if status == 0:
                    self.log.events.append(Truncate(self._names[file], size))
                return status

            def on_sync(file: int, flags: int) -> int:
                status: int = sync(file, flags)
                if status == 0:
                    self.log.events.append(Sync(self._names[file]))
                return status

            copy.write = self._keep(_WRITE(on_write))
            copy.truncate = self._keep(_TRUNCATE(on_truncate))
            copy.sync = self._keep(_SYNC(on_sync))
            self._tables[place] = copy
        return self._tables[place]

    def _delete(self, vfs: int, name: bytes, sync_folder: int) -> int:
        status: int = _DELETE(self._unix.delete)(vfs, name, sync_folder)
        if status == 0:
            self.log.events.append(Delete(Path(name.decode()).name))
        return status


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[Log]:
    """While this lasts, ``sqlite3.connect`` of this very path goes through a recording VFS.

    Every connection so opened must be closed before the end.
    """
    recorder, library, connect = _Recorder(Log()), _library(), sqlite3.connect
    assert library.sqlite3_vfs_register(ctypes.byref(recorder.vfs), 0) == 0

    def through(database: Any, *args: Any, **options: Any) -> sqlite3.Connection:
        if database == path:
            database, options["uri"] = f"{path.absolute().as_uri()}?vfs={recorder.name}", True
        return connect(database, *args, **options)

    try:
        with mock.patch.object(sqlite3, "connect", through):
            yield recorder.log
    finally:
        assert library.sqlite3_vfs_unregister(ctypes.byref(recorder.vfs)) == 0
