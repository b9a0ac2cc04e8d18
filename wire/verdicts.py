"""Verdicts on records, as signed lines of a log of their own: origin ``tizgin/<site>/vee``, signed by the collector.

A line has the form of a record, ``TZR1|<payload>|<kid>|<base64 signature>``, with another payload type inside the
signed bytes: a verdict can never pass for a record of a site. Leaf hash and tree are those of records. Common fields:

========  ==========================================================================================
``v``     1
``log``   origin ``tizgin/<site>/vee``
``n``     place in the log, from 0
``p``     leaf hash (hex) of the verdict before, null for the first
``ty``    ``vee_run`` (what was judged, by which thresholds) or ``vee_finding`` (one finding of a run)
``at``    wall clock of the collector, ms
========  ==========================================================================================
"""

from __future__ import annotations

import re

from wire import canonical
from wire.dsse import pae
from wire.errors import BadKey, BadRecord, NotCanonical
from wire.keys import SigningKey, VerifyKey, unb64
from wire.names import VERDICTS, check_site, origin
from wire.records import MAGIC, MAX_PAYLOAD, SIGNATURE_BYTES, RecordLine

VERDICT_TYPE = "application/vnd.tizgin.verdict.v1+json"
TYPES = frozenset({"vee_run", "vee_finding"})
COMMON = ("v", "log", "n", "p", "ty", "at")
MAX_FINDINGS = 2000
"""Lines of findings that follow a run's line; what is over it is counted in the run's line alone."""
_KID = re.compile(rb"[0-9a-f]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")


def verdict_origin(site: str) -> str:
    """Origin of the log of verdicts on a site.

    Raises:
        WireError: it is no site id.
    """
    return origin(check_site(site), VERDICTS)


def sign_verdict(doc: canonical.Json, key: SigningKey) -> RecordLine:
    """Encode and sign a verdict that has all common fields.

    Raises:
        BadRecord: a field is missing or wrong, or the payload is too large.
        NotCanonical: a float, a large integer, a strange key.
    """
    _check(doc)
    body = canonical.encode(doc)
    if len(body) > MAX_PAYLOAD:
        raise BadRecord(f"verdict payload of {len(body)} bytes, at most {MAX_PAYLOAD}")
    return RecordLine(body, key.kid, key.sign(pae(VERDICT_TYPE, body)))


def verdict_of(line: bytes) -> canonical.Json:
    """The payload of one's own stored line; no signature is checked.

    Raises:
        BadRecord: no such line.
    """
    return _split(line)[1]


def open_verdict(line: bytes, key: VerifyKey) -> tuple[RecordLine, canonical.Json]:
    """A verdict that this key signed.

    Raises:
        BadRecord: no such line, or not signed by the key.
    """
    record, doc = _split(line)
    if record.kid != key.kid:
        raise BadRecord(f"verdict {doc['n']}: signed by {record.kid}, expected {key.kid}")
    if not key.verifies(pae(VERDICT_TYPE, record.payload), record.signature):
        raise BadRecord(f"verdict {doc['n']}: the signature of {key.kid} does not verify")
    return record, doc


def _split(line: bytes) -> tuple[RecordLine, canonical.Json]:
    head, _, rest = line.partition(b"|")
    body, _, sig_text = rest.rpartition(b"|")
    payload, _, kid = body.rpartition(b"|")
    if head != MAGIC or not payload or not _KID.fullmatch(kid):
        raise BadRecord("verdict: expected TZR1|<payload>|<16 hex>|<base64>")
    try:
        doc = canonical.decode(payload, max_bytes=MAX_PAYLOAD)
        signature = unb64(sig_text.decode("ascii", "replace"), max_bytes=128)
    except (NotCanonical, BadKey) as error:
        raise BadRecord(f"verdict: {error}") from None
    if len(signature) != SIGNATURE_BYTES:
        raise BadRecord(f"verdict signature of {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    _check(doc)
    return RecordLine(payload, kid.decode(), signature), doc


def _check(doc: canonical.Json) -> None:
    for name in COMMON:
        if name not in doc:
            raise BadRecord(f"verdict has no field {name!r}")
    if isinstance(doc["v"], bool) or doc["v"] != 1 or doc["ty"] not in TYPES:
        raise BadRecord(f"verdict version {doc['v']!r} type {doc['ty']!r}"[:120] + ", expected 1 and a type of the log")
    for name in ("n", "at"):
        if isinstance(doc[name], bool) or not isinstance(doc[name], int) or doc[name] < 0:
            raise BadRecord(f"verdict field {name} is {doc[name]!r}"[:120] + ", expected an integer from 0")
    first = doc["n"] == 0
    if first != (doc["p"] is None) or not (first or (isinstance(doc["p"], str) and _HASH.fullmatch(doc["p"]))):
        raise BadRecord(f"verdict {doc['n']}: p is {doc['p']!r}"[:120] + ", expected null for the first, else a hash")
