"""What a disk may hold after a power cut, made from a recorded log of writes.

Of every file the writes up to its last sync are there; of those after it any may be, in sectors. A deletion is sure
once the folder was synced, which SQLite does with the first sync of a journal it has made.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recording_vfs import Delete, Event, Log, Sync, Truncate, Write

SECTOR = 512
ALL, NONE, SOME = "all", "none", "some"
Files = Mapping[str, bytes]


@dataclass(slots=True)
class _File:
    now: bytearray = field(default_factory=bytearray)
    """As the running process sees it."""
    safe: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)
    synced: bool = False
    """False: not even its name is sure."""
    gone: bool = False
    """Deleted, and the folder not synced since."""


@dataclass(slots=True)
class Disk:
    """The files of a folder while a log is played."""

    files: dict[str, _File] = field(default_factory=dict)

    def play(self, event: Event) -> None:
        """One more event has happened."""
        name = event.file
        if isinstance(event, Delete):
            if name in self.files:
                self.files[name].gone = True
            return
        if name not in self.files or self.files[name].gone:
            self.files[name] = _File()
        file = self.files[name]
        if isinstance(event, Sync):
            if not file.synced:
                self.files = {n: f for n, f in self.files.items() if not f.gone}
            for change in file.pending:
                _apply(file.safe, change)
            file.pending, file.synced = [], True
            return
        _apply(file.now, event)
        file.pending.append(event)

    def image(self, kind: str, rng: random.Random) -> Files:
        """What is found after a cut now: all un-synced changes, none of them, or some, torn at sectors."""
        found: dict[str, bytes] = {}
        for name, file in self.files.items():
            if kind == ALL:
                if not file.gone:
                    found[name] = bytes(file.now)
            elif kind == NONE:
                if file.synced:
                    found[name] = bytes(file.safe)
            elif file.synced or rng.random() < 0.5:
                if file.gone and rng.random() < 0.5:
                    continue
                found[name] = _some(file, rng)
        return found


def _some(file: _File, rng: random.Random) -> bytes:
    data = bytearray(file.safe)
    for change in file.pending:
        fate = rng.random()
        if fate < 0.4:
            _apply(data, change)
        elif fate < 0.7 and isinstance(change, Write):
            for sector in _sectors(change):
                if rng.random() < 0.5:
                    _apply(data, sector)
    return bytes(data)


def _sectors(write: Write) -> Iterator[Write]:
    at, end = write.at, write.at + len(write.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        yield Write(write.file, at, write.data[at - write.at : until - write.at])
        at = until


def _apply(data: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, Truncate):
        del data[change.size :]
        data.extend(bytes(change.size - len(data)))
        return
    if len(data) < change.at:
        data.extend(bytes(change.at - len(data)))
    data[change.at : change.at + len(change.data)] = change.data


def images(
    log: Log, wanted: set[int], seed: int, kinds: tuple[str, ...] = (ALL, NONE, SOME)
) -> Iterator[tuple[int, str, Files]]:
    """Images after the given numbers of events: ``(events, kind, files)``."""
    disk, rng = Disk(), random.Random(seed)
    for position in range(len(log) + 1):
        if position in wanted:
            for kind in kinds:
                yield position, kind, disk.image(kind, rng)
        if position < len(log):
            disk.play(log.events[position])


def lay_down(files: Files, folder: Path) -> Path:
    """Write an image into a new folder."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
