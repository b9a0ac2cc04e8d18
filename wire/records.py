"""Evidence records: one signed line each, chained per stream.

Line ``TZR1|<payload>|<kid>|<base64 signature>``. The signature is over DSSE PAE of the payload; the leaf hash is
SHA-256(0x00 ‖ payload) as in RFC 6962, so that signing again would not change the log. Common payload fields:

======  =============================================================================================
``v``   1
``log`` origin ``tizgin/<site>/<epoch>``
``st``  stream: ``mp:<metering point>``, ``site``, ``cmd``, ``bal``
``n``   number within the stream, from 0 without holes
``p``   leaf hash (hex) of the stream's previous record, null for the first
``a``   anchor: newest cosigned checkpoint held, null before the first
``ty``  type, see :data:`TYPES`
``at``  wall clock, ms; ``mono`` monotonic ns; ``boot`` random id of the process start
``clk`` clock state: {``s`` S synchronised | U unsynchronised | R relative, ``off_us``, ``src``}
``fw``  agent version
======  =============================================================================================
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from wire import canonical
from wire.dsse import RECORD_TYPE, pae
from wire.errors import BadKey, BadRecord, NotCanonical
from wire.keys import SigningKey, VerifyKey, b64, unb64
from wire.names import STREAM

MAGIC = b"TZR1"
MAX_PAYLOAD = 65_536
SIGNATURE_BYTES = 64
_KID = re.compile(rb"[0-9a-f]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")

TYPES = frozenset(
    {
        "genesis",
        "start",
        "stop",
        "bind",
        "unbind",
        "interval",
        "gap",
        "archive",
        "clock",
        "event",
        "act",
        "key_rotate",
        "cmd_rx",
        "cmd_ack",
        "cmd_eff",
        "cmd_trace",
        "cmd_report",
        "balance",
        "spot",
    }
)
COMMON = ("v", "log", "st", "n", "p", "a", "ty", "at", "mono", "boot", "clk", "fw")


def leaf_hash(payload: bytes) -> bytes:
    """RFC 6962 leaf hash of a payload, 32 bytes."""
    return hashlib.sha256(b"\x00" + payload).digest()


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A record exactly as signed."""

    payload: bytes
    kid: str
    signature: bytes

    @classmethod
    def sign(cls, payload: canonical.Json, key: SigningKey) -> RecordLine:
        """Encode and sign a payload that has all common fields.

        Raises:
            BadRecord: a field is missing or the payload is too large.
        """
        check_common(payload)
        body = canonical.encode(payload)
        if len(body) > MAX_PAYLOAD:
            raise BadRecord(f"record payload of {len(body)} bytes, at most {MAX_PAYLOAD}")
        return cls(body, key.kid, key.sign(pae(RECORD_TYPE, body)))

    def encode(self) -> bytes:
        """The line, without line end."""
        return b"|".join((MAGIC, self.payload, self.kid.encode(), b64(self.signature).encode()))

    @property
    def hash(self) -> bytes:
        """Leaf hash."""
        return leaf_hash(self.payload)

    def verified_by(self, key: VerifyKey) -> bool:
        """True if this key signed it."""
        return key.kid == self.kid and key.verifies(pae(RECORD_TYPE, self.payload), self.signature)


def check_common(payload: canonical.Json) -> None:
    """Check the common fields.

    Raises:
        BadRecord: what is wrong with which field.
    """
    for name in COMMON:
        if name not in payload:
            raise BadRecord(f"record has no field {name!r}")
    if isinstance(payload["v"], bool) or payload["v"] != 1:
        raise BadRecord(f"record version {payload['v']!r}, expected 1")
    if not isinstance(payload["ty"], str) or payload["ty"] not in TYPES:
        raise BadRecord(f"record type {payload['ty']!r} is not in the contract")
    if not isinstance(payload["st"], str) or not STREAM.fullmatch(payload["st"]):
        raise BadRecord(f"stream {payload['st']!r} is not in the contract")
    for name in ("n", "at", "mono"):
        if isinstance(payload[name], bool) or not isinstance(payload[name], int) or payload[name] < 0:
            raise BadRecord(f"field {name} is {payload[name]!r}, expected an integer from 0")
    if (payload["n"] == 0) != (payload["p"] is None):
        raise BadRecord("the first record of a stream has p null, every other a hash")
    if payload["p"] is not None and not (isinstance(payload["p"], str) and _HASH.fullmatch(payload["p"])):
        raise BadRecord(f"field p is {payload['p']!r}"[:120] + ", expected null or 64 hex digits")


def parse_line(line: bytes) -> tuple[RecordLine, canonical.Json]:
    """Split a line and decode its payload; the signature is not checked here.

    Raises:
        BadRecord: not a record line.
    """
    if len(line) > MAX_PAYLOAD + 256:
        raise BadRecord(f"line of {len(line)} bytes is longer than allowed")
    head, _, rest = line.partition(b"|")
    body, _, sig_text = rest.rpartition(b"|")
    payload, _, kid = body.rpartition(b"|")
    if head != MAGIC or not payload or not _KID.fullmatch(kid):
        raise BadRecord("expected TZR1|<payload>|<16 hex>|<base64>")
    try:
        doc = canonical.decode(payload, max_bytes=MAX_PAYLOAD)
        signature = unb64(sig_text.decode("ascii", "replace"), max_bytes=128)
    except (NotCanonical, BadKey) as error:
        raise BadRecord(f"record: {error}") from None
    if len(signature) != SIGNATURE_BYTES:
        raise BadRecord(f"record signature of {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    check_common(doc)
    return RecordLine(payload, kid.decode("ascii"), signature), doc
