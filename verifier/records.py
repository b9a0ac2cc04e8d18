"""Record lines: form, key, signature, number and chain.

``TZR1|<canonical JSON>|<kid>|<base64 signature>``. The first line of a stream that breaks a rule ends what is believed
of that stream: what follows it hangs on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from verifier.archive import Bundle, Entry
from verifier.canonical import Object, read_canonical
from verifier.errors import (
    AnchorError,
    ChainError,
    LeafError,
    LineError,
    QualityError,
    RecordKeyError,
    SequenceError,
    SignatureError,
    TimeEvidenceError,
    VerifyError,
)
from verifier.keys import decode_base64, pae
from verifier.log import NOWHERE, EpochLog
from verifier.register import LogKey

RECORD_TYPE = "application/vnd.tizgin.record.v1+json"
MAX_PAYLOAD = 65_536
MAX_LINE = MAX_PAYLOAD + 256
COMMON = frozenset({"v", "log", "st", "n", "p", "a", "ty", "at", "mono", "boot", "clk", "fw"})
TYPES = {
    "site": frozenset({"genesis", "start", "stop", "clock", "event", "act", "key_rotate"}),
    "mp": frozenset({"bind", "unbind", "interval", "gap", "archive", "spot"}),
    "cmd": frozenset({"cmd_rx", "cmd_ack", "cmd_eff", "cmd_trace", "cmd_report"}),
    "bal": frozenset({"balance"}),
}
"""What each kind of stream may hold. Estimates have no place in any: a collector keeps its own elsewhere."""


@dataclass(frozen=True, slots=True)
class Record:
    """A verified record: its fields and its leaf hash (hex)."""

    doc: Object
    leaf: str
    where: str
    grade: str = "C"
    """``B`` where witnesses bracket its time, else ``C``."""
    fault: VerifyError | None = None
    """What is wrong with its time or anchor."""
    kid: str = ""
    """The key that signed it."""
    index: int | None = None
    """Its place in the log; ``None`` where none is shown."""

    @property
    def ty(self) -> str:
        """Its type."""
        return str(self.doc["ty"])

    @property
    def at(self) -> int:
        """Wall clock of the agent, ms."""
        return int(self.doc["at"])


def stream_of(path: str) -> tuple[str, str]:
    """``records/<epoch>/<stream>.tzr`` → (epoch, stream).

    Raises:
        LineError: not such a path.
    """
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != "records" or not parts[2].endswith(".tzr"):
        raise LineError(f"{path}: not records/<epoch>/<stream>.tzr")
    name = parts[2][:-4]
    stream = "mp:" + name[3:] if name.startswith("mp_") else name
    if stream not in {"site", "cmd", "bal"} and not (stream.startswith("mp:") and len(stream) > 3):
        raise LineError(f"{path}: {name!r} is no stream")
    return parts[1], stream


def read_stream(
    bundle: Bundle,
    entry: Entry,
    *,
    site: str,
    keys: Sequence[LogKey],
    log: EpochLog | None = None,
    places: Sequence[int] | None = None,
    revoked: Mapping[str, int] | None = None,
) -> Iterator[Record]:
    """The records of one stream, each verified before it is handed out.

    Args:
        bundle: the archive.
        entry: the stream's file.
        site: whose records these must be.
        keys: record keys of the epoch in the order in which they took over.
        log: the epoch's log, where the bundle has it.
        places: log index of each line.
        revoked: keys that are no longer believed, and since when (ms).

    Raises:
        LineError, RecordKeyError, SignatureError, QualityError, SequenceError, ChainError, LeafError: the first line
            that breaks a rule.
    """
    epoch, stream = stream_of(entry.name)
    origin = f"tizgin/{site}/{epoch}"
    order: dict[str, int] = {}
    for entry_of in keys:
        order.setdefault(entry_of.key.kid, len(order))
    ranges = [[k for k in keys if k.key.kid == kid] for kid in order]
    types = TYPES[stream.partition(":")[0]]
    newest, number = 0, -1
    previous: str | None = None
    for number, line in enumerate(bundle.lines(entry, MAX_LINE)):
        where = f"{entry.name}:{number + 1}"
        doc, payload, kid, signature = _split(line, where)
        _check_stream(doc, origin, stream, types, where)
        if kid not in order:
            raise RecordKeyError(f"{where}: signed by {kid}, not a record key of {epoch} in the register")
        if order[kid] < newest:
            raise RecordKeyError(f"{where}: signed by {kid}, which a later key had replaced")
        newest = order[kid]
        if not ranges[newest][0].key.verifies(pae(RECORD_TYPE, payload), signature):
            raise SignatureError(f"{where}: the signature does not verify")
        if doc["n"] != number:
            raise SequenceError(f"{where}: number {doc['n']}, expected {number}")
        if doc["p"] != previous:
            raise ChainError(f"{where}: does not follow from the record before it")
        leaf = hashlib.sha256(b"\x00" + payload).digest()
        previous = leaf.hex()
        if log is None or places is None:
            _refuse_revoked(kid, revoked, None, where)
            yield Record(doc, previous, where, kid=kid)
            continue
        if number >= len(places):
            raise LeafError(f"{where}: the stream has more lines than places in the log")
        index = places[number]
        if revoked and kid in revoked:
            _refuse_revoked(kid, revoked, log.witnessed_by(index), where)
        yield _placed(doc, leaf, where, log, index, ranges[newest])
    if places is not None and number + 1 != len(places):
        raise LeafError(f"{entry.name}: {len(places)} places in the log for {number + 1} lines")


def _check_stream(doc: Object, origin: str, stream: str, types: frozenset[str], where: str) -> None:
    if doc["log"] != origin or doc["st"] != stream:
        raise LineError(f"{where}: a record of {str(doc['log'])[:80]}/{str(doc['st'])[:40]} in {origin}/{stream}")
    if doc["ty"] not in types:
        raise QualityError(f"{where}: a record of type {str(doc['ty'])[:40]!r} in stream {stream}")


def _refuse_revoked(kid: str, revoked: Mapping[str, int] | None, witnessed_s: int | None, where: str) -> None:
    """What a revoked key signed is believed only where witnesses had seen it before."""
    if revoked and kid in revoked and (witnessed_s is None or witnessed_s * 1000 > revoked[kid]):
        raise RecordKeyError(f"{where}: signed by {kid}, revoked at {revoked[kid]} ms, and not witnessed before")


def _placed(doc: Object, leaf: bytes, where: str, log: EpochLog, index: int, keys: Sequence[LogKey]) -> Record:
    kid = keys[0].key.kid
    if index == NOWHERE:
        return Record(doc, leaf.hex(), where, kid=kid)
    log.place(index, leaf, where)
    if not keys[0].holds(index) and not any(key.holds(index) for key in keys[1:]):
        raise RecordKeyError(f"{where}: signed by {kid} at index {index}, where it is not valid")
    try:
        grade = log.grade(index, doc["a"], doc["at"], where)
    except (AnchorError, TimeEvidenceError) as error:
        return Record(doc, leaf.hex(), where, "C", error, kid, index)
    return Record(doc, leaf.hex(), where, grade, None, kid, index)


def _split(line: bytes, where: str) -> tuple[Object, bytes, str, bytes]:
    head, _, rest = line.partition(b"|")
    body, _, sig = rest.rpartition(b"|")
    payload, _, kid = body.rpartition(b"|")
    if head != b"TZR1" or not payload or len(line) > MAX_LINE:
        raise LineError(f"{where}: not TZR1|payload|kid|signature")
    try:
        doc = read_canonical(payload, max_bytes=MAX_PAYLOAD)
        signature = decode_base64(sig.decode("ascii"), 64)
        kid_text = kid.decode("ascii")
    except ValueError as error:
        raise LineError(f"{where}: {error}") from None
    missing = COMMON - doc.keys()
    if missing:
        raise LineError(f"{where}: no field {', '.join(sorted(missing))}")
    whole = all(type(doc[name]) is int and doc[name] >= 0 for name in ("n", "at", "mono"))
    if doc["v"] != 1 or type(doc["ty"]) is not str or not whole or len(signature) != 64:
        raise LineError(f"{where}: version, type, number or time is not one of a record")
    return doc, payload, kid_text, signature
