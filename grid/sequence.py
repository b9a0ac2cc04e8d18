"""Order numbers of one key: strictly rising per site, over restarts, power cuts and two programs at once."""

from __future__ import annotations

import json
from pathlib import Path

from grid.errors import GridError
from grid.files import locked, read_bounded, replace_file
from wire.canonical import MAX_INT


class Sequence:
    """The file ``<key file>.seq.json`` beside a key, and its lock.

    A number is on disk before it is handed out. Numbers may have gaps. They start at the wall clock in seconds, so
    that a lost file does not make a key start again below what its agents have seen.
    """

    def __init__(self, key_file: Path, kid: str) -> None:
        self.file = key_file.with_name(key_file.name + ".seq.json")
        self._lock = key_file.with_name(key_file.name + ".seq.lock")
        self._kid = kid

    def next(self, site: str, *, now_ms: int) -> int:
        """The next number for a site.

        Raises:
            GridError: the file is damaged or belongs to another key.
        """
        return self.reach(site, now_ms // 1000, rise=True)

    def reach(self, site: str, at_least: int, *, rise: bool = False) -> int:
        """Raise the number of a site to at least this (one above the last, with ``rise``) and return it."""
        with locked(self._lock):
            numbers = self._load()
            last = numbers.get(site, -1)
            value = max(last + 1 if rise else last, at_least)
            if value > MAX_INT:
                raise GridError(f"{self.file}: number {value} is beyond what an order can carry")
            numbers[site] = value
            body = json.dumps({"v": 1, "kid": self._kid, "sites": numbers}, sort_keys=True, indent=1)
            replace_file(self.file, body.encode() + b"\n", mode=0o600)
            return value

    def _load(self) -> dict[str, int]:
        if not self.file.exists():
            return {}
        try:
            doc = json.loads(read_bounded(self.file, 4_194_304))
            numbers = doc["sites"]
            good = doc["kid"] == self._kid and all(
                isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MAX_INT for n in numbers.values()
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise GridError(
                f"{self.file}: damaged, or not of key {self._kid}; move it away only after looking up "
                "the last number that central knows of this key"
            )
        return dict(numbers)
