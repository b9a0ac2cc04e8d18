"""What one person's programs have seen of each site's log: checkpoints in both directions.

An order carries the newest cosigned checkpoint that its issuer knows, and the site's signed answer names the newest one
that the site has. Whoever shows the two sides two histories of one log, be it central or a twin of the site, has to do
so for ever: here everything that was seen is kept, and two roots of one size are a proof that is never dropped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog

from grid.errors import CentralUnreachable, GridError
from grid.files import locked, read_bounded, replace_file
from grid.story import SignedHead
from wire.checkpoints import Checkpoint, cosignatures, open_checkpoint
from wire.errors import BadNote
from wire.names import origin
from wire.orders import MAX_SEEN
from wire.policy import parse_policy
from wire.registry import KeysDocument

log = structlog.get_logger()

KEPT = 200
"""Sizes per log; the largest stay."""
MAX_PROOFS = 100
MAX_FILE = 16_777_216
PAUSE_S = 10.0
"""How long central is left alone after it had no answer."""

Verdict = Literal["agrees", "alone", "split"]
"""A site's word about its log against what was seen of it elsewhere; ``alone``: nothing to compare it with yet."""


class CheckpointSource(Protocol):
    """Whatever shows checkpoints as central's API does."""

    def checkpoint(self, site: str, epoch: str, size: int | None = None, /) -> str | None:
        """Text of a note, or ``None``."""
        ...


class Heads:
    """The file ``<key file>.heads.json`` beside a key, and its lock.

    It holds per log: ``note``, the newest cosigned checkpoint, its ``size``, and ``roots``: size → [root hex, the note
    or the record line that says so, whether the log's own note was seen]; and ``splits``: proofs of two histories,
    [log, size, one word, the other].
    """

    def __init__(self, key_file: Path) -> None:
        self.file = key_file.with_name(key_file.name + ".heads.json")
        self._lock = key_file.with_name(key_file.name + ".heads.lock")
        self._asked: dict[tuple[str, int | None], float] = {}
        self._silent = 0.0

    def newest(self, site: str, epoch: str, register: KeysDocument, central: CheckpointSource | None) -> str | None:
        """The newest cosigned checkpoint of a log known here, after a look at what central shows.

        Never raises: no order waits for this, whatever became of the file.
        """
        name = origin(site, epoch)
        try:
            shown = self._fetch(central, site, epoch, None)
            if shown is not None and len(shown) <= MAX_SEEN:
                found = _cosigned(shown, site, epoch, register)
                if found is not None:
                    self._keep(name, found.size, found.root.hex(), shown, newest=shown)
            held = self._load()["logs"].get(name, {}).get("note")
        except (GridError, OSError) as error:
            log.error("heads_not_kept", file=str(self.file), error=str(error))
            return None
        return held if isinstance(held, str) else None

    def compare(
        self,
        site: str,
        epoch: str,
        told: Iterable[SignedHead],
        register: KeysDocument,
        central: CheckpointSource | None,
    ) -> Verdict | None:
        """A site's own words about its log, against everything seen of it; ``None`` where it said none.

        Raises:
            GridError: the file is damaged.
        """
        name = origin(site, epoch)
        heads = {head.size: head for head in told}
        if not heads:
            return None
        for head in heads.values():
            if not self._keep(name, head.size, head.root, head.line):
                return "split"
        if self.split(site, epoch):
            return "split"
        newest = heads[max(heads)]
        if self._noted(name, newest.size):
            return "agrees"
        shown = self._fetch(central, site, epoch, newest.size)
        if shown is None:
            return "alone"
        try:
            found, _ = open_checkpoint(shown.encode(), register.log_keys(site, epoch))
        except BadNote:
            return "alone"
        if found.origin != name or found.size != newest.size:
            return "alone"
        return "agrees" if self._keep(name, found.size, found.root.hex(), shown, noted=True) else "split"

    def split(self, site: str, epoch: str) -> bool:
        """True where two histories of that log were seen, ever."""
        return any(proof[0] == origin(site, epoch) for proof in self._load()["splits"])

    def _fetch(self, central: CheckpointSource | None, site: str, epoch: str, size: int | None) -> str | None:
        """Central's word, asked for again only after a pause where it had none."""
        asked = (origin(site, epoch), size)
        now = time.monotonic()
        if central is None or now < max(self._silent, self._asked.get(asked, 0.0)):
            return None
        shown = None
        try:
            shown = central.checkpoint(site, epoch, size)
        except CentralUnreachable:
            self._silent = time.monotonic() + PAUSE_S
        except GridError:
            pass  # a central that does not know this site, or this question
        if shown is None:
            if len(self._asked) > 10_000:
                self._asked.clear()
            self._asked[asked] = now + PAUSE_S
        return shown

    def _noted(self, name: str, size: int) -> bool:
        said = self._load()["logs"].get(name, {}).get("roots", {}).get(str(size))
        return bool(said and said[2])

    def _keep(
        self, name: str, size: int, root: str, word: str, *, newest: str | None = None, noted: bool = False
    ) -> bool:
        """Write down that this size has this root. False: another root was seen before, and both are kept as proof."""
        with locked(self._lock):
            doc = self._load()
            entry = doc["logs"].setdefault(name, {"note": None, "size": 0, "roots": {}})
            before = entry["roots"].get(str(size))
            noted = noted or newest is not None
            agrees = before is None or before[0] == root
            changed = before is None or (noted and agrees and not before[2])
            if not agrees:
                proof = [name, size, before[1], word]
                changed = proof not in doc["splits"] and len(doc["splits"]) < MAX_PROOFS
                doc["splits"] += [proof] if changed else []
            elif changed:
                entry["roots"][str(size)] = [root, word, noted]
            if newest is not None and agrees and size >= entry["size"] and entry["note"] != newest:
                entry["note"], entry["size"], changed = newest, size, True
            if changed:
                for old in sorted(entry["roots"], key=int)[:-KEPT]:
                    del entry["roots"][old]
                replace_file(self.file, json.dumps(doc, sort_keys=True, ensure_ascii=False).encode(), mode=0o600)
            return agrees

    def _load(self) -> dict[str, Any]:
        if not self.file.exists():
            return {"v": 1, "logs": {}, "splits": []}
        try:
            doc = json.loads(read_bounded(self.file, MAX_FILE))
            good = doc["v"] == 1 and isinstance(doc["logs"], dict) and isinstance(doc["splits"], list)
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise GridError(
                f"{self.file}: damaged; keep a copy, it may hold proofs of two histories, and move it away: what "
                "central and sites show is then compared from now on"
            )
        return dict(doc)


def _cosigned(text: str, site: str, epoch: str, register: KeysDocument) -> Checkpoint | None:
    """The checkpoint of a note that the log signed and the register's quorum cosigned; ``None`` for any other."""
    policy = parse_policy(register.policy) if register.policy is not None else None
    if policy is None or policy.quorum is None:
        return None
    try:
        checkpoint, note = open_checkpoint(text.encode(), register.log_keys(site, epoch))
        names = set(cosignatures(note, policy.keys))
    except BadNote:
        return None
    return checkpoint if checkpoint.origin == origin(site, epoch) and policy.satisfied(names) else None
