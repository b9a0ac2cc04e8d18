"""A site's enrolment as ``tizgin agent enroll`` writes it, checked before anything is signed for the site.

Both proofs are signatures over one statement that names site, epoch and both keys: whoever made the file held the keys
it names. That the keys are the *site's* is settled by telephone, with the fingerprint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from central.errors import CentralError
from wire.errors import WireError
from wire.keys import VerifyKey, unb64
from wire.names import check_epoch, check_site

MAX_BYTES = 65_536
_FIELDS = ("site", "epoch", "k_rec", "k_log", "statement", "proof_rec", "proof_log", "csr")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An enrolment whose proofs hold."""

    site: str
    epoch: str
    k_rec: VerifyKey
    k_log: VerifyKey
    csr: bytes

    @property
    def fingerprint(self) -> str:
        """Identifier of K_rec in groups of four, computed from the key itself, to be compared by telephone."""
        return " ".join(self.k_rec.kid[i : i + 4] for i in range(0, 16, 4))


def is_enrolment(raw: bytes) -> bool:
    """True for JSON, false for what can only be a bare certificate request."""
    return raw.lstrip().startswith(b"{")


def read_enrolment(raw: bytes, site: str) -> Enrolment:
    """Parse an enrolment and check both proofs of possession.

    Args:
        raw: the file's bytes.
        site: the site for which it was handed in.

    Raises:
        CentralError: not an enrolment, of another site, or a proof that does not hold.
    """
    if len(raw) > MAX_BYTES:
        raise CentralError(f"enrolment of {len(raw)} bytes, expected at most {MAX_BYTES}")
    try:
        doc = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CentralError(f"enrolment cannot be read: {error}; expected JSON of 'tizgin agent enroll'") from None
    if not isinstance(doc, dict) or doc.get("v") != 1:
        raise CentralError("enrolment: expected version 1 of 'tizgin agent enroll'")
    for name in _FIELDS:
        if not isinstance(doc.get(name), str):
            raise CentralError(f"enrolment: field {name!r} is missing or no text; make it anew at the site")
    if doc["site"] != site:
        raise CentralError(f"enrolment is of site {doc['site'][:60]!r}, --site says {site!r}")
    return _proven(doc)


def _proven(doc: dict[str, Any]) -> Enrolment:
    try:
        site, epoch = check_site(doc["site"]), check_epoch(doc["epoch"])
        rec, log = VerifyKey.from_text(doc["k_rec"]), VerifyKey.from_text(doc["k_log"])
        proofs = {"proof_rec": (rec, unb64(doc["proof_rec"])), "proof_log": (log, unb64(doc["proof_log"]))}
    except WireError as error:
        raise CentralError(f"enrolment: {error}") from None
    # Built here from the fields: a proof over any other text proves nothing about them.
    statement = f"tizgin enrolment v1\n{site}\n{epoch}\n{rec.text}\n{log.text}\n"
    if doc["statement"] != statement:
        raise CentralError("enrolment: the statement does not name this site, epoch and these keys; make it anew")
    for name, (key, proof) in proofs.items():
        if not key.verifies(statement.encode(), proof):
            raise CentralError(f"enrolment: {name} does not verify: the sender does not hold key {key.kid}")
    if rec.raw == log.raw:
        raise CentralError("enrolment: k_rec and k_log are one key, expected two; make them anew at the site")
    try:
        csr = doc["csr"].encode("ascii")
    except UnicodeEncodeError:
        raise CentralError("enrolment: field 'csr' is not PEM") from None
    return Enrolment(site, epoch, rec, log, csr)
