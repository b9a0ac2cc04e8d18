"""From one key to the next and from one ledger to the next: both have to be said by the old one and by the register.

A record key changes by three words that must agree: a ``key_rotate`` record in stream ``site``, signed by the old key,
names the new one (``new``, base64); the first record after it is signed by the new one; the register has the new key
from the next log index on. A log key (``role`` ``k_log``) changes likewise: it signs no records, so the old one says
its word in ``proof_old``, and the checkpoints that hold more records are the new one's. A site that was installed again
begins a new epoch; its ``genesis.prev``, or a later event ``epoch_link`` (``detail``), names the epoch before, its size
and its root: ``{epoch, size, root}``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from verifier.errors import EpochError, RecordKeyError, VerifyError
from verifier.keys import MAX_P256_SIGNATURE, decode_base64, pae
from verifier.log import EpochLog
from verifier.records import Record
from verifier.register import LogKey

CHANGE_TYPE = "application/vnd.tizgin.key-change.v1+json"


@dataclass(slots=True)
class EpochWalk:
    """Collects what stream ``site`` of an epoch says about keys and about the epoch before."""

    epoch: str
    keys: Sequence[LogKey]
    log_keys: Sequence[LogKey] = ()
    used: set[str] = field(default_factory=set)
    """Keys that signed a record of any stream."""
    link: Any = None
    _rotations: list[Record] = field(default_factory=list)

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records."""
        for record in records:
            doc = record.doc
            if record.ty == "genesis":
                self.link = doc.get("prev")
            elif record.ty == "event" and doc.get("ev") == "epoch_link" and self.link is None:
                self.link = doc.get("detail")
            elif record.ty == "key_rotate":
                self._rotations.append(record)
            yield record

    def check_keys(self) -> None:
        """Every change of key was said by the old key, and the register has it where it happened.

        Raises:
            RecordKeyError: one was not.
        """
        self._check_chain(self.keys, "k_rec", self.used)

    def check_log_keys(self, signers: Set[str]) -> None:
        """As :meth:`check_keys` for the keys that sign checkpoints.

        Args:
            signers: those that did.

        Raises:
            RecordKeyError: a change was not said by all three.
        """
        self._check_chain(self.log_keys, "k_log", signers)

    def _check_chain(self, keys: Sequence[LogKey], role: str, used: Set[str]) -> None:
        by_new = {str(r.doc.get("new")): r for r in self._rotations if r.doc.get("role", "k_rec") == role}
        order: list[LogKey] = []
        for key in keys:
            if not order or order[-1].key.kid != key.key.kid:
                order.append(key)
        for number in range(1, len(order)):
            old, new = order[number - 1], order[number]
            said = by_new.pop(base64.b64encode(new.key.raw).decode(), None)
            if new.key.kid in used or (said is not None and role == "k_log"):
                self._check(said, old, new, role)
        if by_new:
            where = next(iter(by_new.values())).where
            raise RecordKeyError(f"{where}: KEY_CHAIN a key_rotate record names a key that the register does not have")

    def _check(self, said: Record | None, old: LogKey, new: LogKey, role: str) -> None:
        if said is None or not (said.kid == old.key.kid if role == "k_rec" else self._proven(said, old)):
            raise RecordKeyError(
                f"{self.epoch}: KEY_CHAIN key {new.key.kid} took over, key {old.key.kid} signed no key_rotate for it"
            )
        if said.index is not None and new.first != said.index + 1:
            raise RecordKeyError(
                f"{said.where}: KEY_CHAIN the key changed at index {said.index}, the register says {new.first}"
            )

    def _proven(self, said: Record, old: LogKey) -> bool:
        """The old log key signed the change that the record tells of."""
        site = str(said.doc["log"]).split("/")[1]
        told = {name: said.doc.get(name) for name in ("role", "old", "new", "from_index")}
        if said.doc.get("old") != base64.b64encode(old.key.raw).decode():
            return False
        body = json.dumps({"v": 1, "site": site, "epoch": self.epoch, **told}, sort_keys=True, separators=(",", ":"))
        try:
            proof = decode_base64(said.doc.get("proof_old"), MAX_P256_SIGNATURE)
        except ValueError:
            return False
        return old.key.verifies(pae(CHANGE_TYPE, body.encode()), proof)


def judge_link(
    walk: EpochWalk, before: str, logs: Mapping[str, EpochLog], delivered: int
) -> tuple[VerifyError | None, str | None]:
    """A new epoch against the one before: what is wrong, and what to ask about.

    Args:
        walk: of the new epoch.
        before: the epoch before.
        logs: logs of the bundle, by epoch.
        delivered: how many records of the epoch before the bundle has.
    """
    link, name = walk.link, walk.epoch
    if link is None:
        return (
            None,
            f"EPOCH_BREAK {name} begins without naming where {before} ended: {delivered} records of it are here",
        )
    if (
        not isinstance(link, dict)
        or link.get("epoch") != before
        or type(link.get("size")) is not int
        or not isinstance(link.get("root"), str)
    ):
        return EpochError(f"{name}: names {str(link)[:80]}, expected epoch {before}, size and root"), None
    log = logs.get(before)
    if log is None:
        lost = link["size"] - delivered
        return None, f"EPOCH_BREAK {name} follows {before}; {max(lost, 0)} records lost; no log here proves the link"
    newest = max((c.size for c in log.cosigned), default=0)
    if link["size"] < newest:
        lost = newest - link["size"]
        return EpochError(
            f"{name}: says {before} ended at {link['size']}, witnesses cosigned {newest}: {lost} lost"
        ), None
    if link["size"] > log.size:
        return None, f"EPOCH_BREAK {name} follows {before}: {link['size'] - log.size} records lost"
    if log.root(link["size"]).hex() != link["root"]:
        return EpochError(f"{name}: names another root of {before} at size {link['size']}"), None
    return None, None
