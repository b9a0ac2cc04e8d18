"""A change of a site's record or log key, as said by the old key and by the new one.

The statement is canonical JSON {``v`` 1, ``site``, ``epoch``, ``role`` ``k_rec`` or ``k_log``, ``old``, ``new``,
``from_index``}: the first place of the log where the new key is valid. Both proofs are signatures over its PAE:
Ed25519, or of a P-256 log key (:mod:`wire.logkeys`). The ``key_rotate`` record at place ``from_index`` − 1 carries
them; the same document tells the registrar what to enter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wire import canonical
from wire.dsse import pae
from wire.errors import WireError
from wire.keys import SigningKey, VerifyKey, b64, unb64
from wire.logkeys import MAX_SIGNATURE, LogKey, read_log_key
from wire.names import check_epoch, check_site

CHANGE_TYPE = "application/vnd.tizgin.key-change.v1+json"
ROLES = ("k_rec", "k_log")
MAX_BYTES = 16_384
_FIELDS = ("site", "epoch", "role", "old", "new", "proof_old", "proof_new")


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key takes over from another at a place of the log."""

    site: str
    epoch: str
    role: str
    old: LogKey
    new: LogKey
    from_index: int

    def statement(self) -> bytes:
        """What both keys sign."""
        doc: canonical.Json = {
            "v": 1,
            "site": self.site,
            "epoch": self.epoch,
            "role": self.role,
            "old": self.old.text,
            "new": self.new.text,
            "from_index": self.from_index,
        }
        return pae(CHANGE_TYPE, canonical.encode(doc))

    def fields(self, old: SigningKey, new: SigningKey) -> canonical.Json:
        """Fields of the ``key_rotate`` record, by keys that are here."""
        said = self.statement()
        return self.proven(old.sign(said), new.sign(said))

    def proven(self, proof_old: bytes, proof_new: bytes) -> canonical.Json:
        """Fields of the ``key_rotate`` record, of signatures over the statement."""
        return {
            "role": self.role,
            "old": self.old.text,
            "new": self.new.text,
            "from_index": self.from_index,
            "proof_old": b64(proof_old),
            "proof_new": b64(proof_new),
        }


def read_change(raw: bytes) -> KeyChange:
    """A change as ``tizgin agent rotate`` writes it, both proofs checked.

    Raises:
        WireError: not such a document, a key that must not be used, or a proof that does not hold.
    """
    if len(raw) > MAX_BYTES:
        raise WireError(f"key change of {len(raw)} bytes, expected at most {MAX_BYTES}")
    try:
        doc = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WireError(f"key change cannot be read: {error}; expected JSON of 'tizgin agent rotate'") from None
    if not isinstance(doc, dict) or doc.get("v") != 1 or any(not isinstance(doc.get(name), str) for name in _FIELDS):
        raise WireError("key change: expected version 1 of 'tizgin agent rotate'")
    return _proven(doc)


def _proven(doc: dict[str, Any]) -> KeyChange:
    index = doc.get("from_index")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 < index <= canonical.MAX_INT:
        raise WireError(f"key change: from_index is {index!r}, expected an integer from 1"[:200])
    if doc["role"] not in ROLES:
        raise WireError(f"key change: role {doc['role'][:40]!r}, expected {' or '.join(ROLES)}")
    read: Callable[[str], LogKey] = VerifyKey.from_text if doc["role"] == "k_rec" else read_log_key
    old, new = read(doc["old"]), read(doc["new"])
    change = KeyChange(check_site(doc["site"]), check_epoch(doc["epoch"]), doc["role"], old, new, index)
    if old.raw == new.raw:
        raise WireError("key change: old and new are one key")
    said = change.statement()
    for name, key in (("proof_old", old), ("proof_new", new)):
        if not key.verifies(said, unb64(doc[name], max_bytes=MAX_SIGNATURE)):
            raise WireError(f"key change: {name} does not verify: the sender does not hold key {key.kid}")
    return change
