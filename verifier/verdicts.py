"""The collector's log of verdicts: that it is the one that was signed and witnessed, and that nothing of it is hidden.

``vee/verdicts.leaves`` holds every leaf hash, 32 bytes each; ``vee/verdicts.notes`` checkpoints, each after a line with
its length; ``vee/verdicts.tzr`` the line of every run, and after it the lines of its findings where it touches the
bundle's period. Each run says how many findings follow, so all lines have their place and none can be left out. What
the collector judged is its own word: no slot gets a better grade by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from verifier.archive import Bundle
from verifier.canonical import Object, read_canonical
from verifier.errors import (
    ArchiveError,
    ChainError,
    InputLimit,
    LeafError,
    LineError,
    RecordKeyError,
    SequenceError,
    SignatureError,
    TimeEvidenceError,
    VerdictError,
    VerifyError,
)
from verifier.keys import Key, decode_base64, pae
from verifier.log import HASH, SLACK_S, EpochLog, read_log, root_of
from verifier.metering import Period
from verifier.notes import Note, Policy
from verifier.records import MAX_LINE, MAX_PAYLOAD
from verifier.register import LogKey, Register, Trust

LEAVES, NOTES, LINES = FILES = ("vee/verdicts.leaves", "vee/verdicts.notes", "vee/verdicts.tzr")
VERDICT_TYPE = "application/vnd.tizgin.verdict.v1+json"
MAX_FINDINGS = 2000
"""Lines that follow a run's line; what is over it is only counted there."""
SEVERITIES = ("fail", "suspect", "warn")
LATE_S = 86_400
COMMON = frozenset({"v", "log", "n", "p", "ty", "at", "run", "thresholds", "t0", "t1"})
RUN = COMMON | {
    "thresholds_sha256", "rules", "records_root", "records_n", "judged", "unjudged", "unjudged_n", "findings_n"
}  # fmt: skip
FINDING = COMMON | {
    "rule", "severity", "point", "seen", "expected", "unit", "text", "params", "evidence", "evidence_n", "evidence_root"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run holds against a point, [``t0``, ``t1``) epoch s."""

    rule: str
    severity: str
    point: str
    t0: int
    t1: int


@dataclass(frozen=True, slots=True)
class Run:
    """One judgement of [``t0``, ``t1``), epoch s."""

    n: int
    at: int
    """Clock of the collector, ms."""
    t0: int
    t1: int
    thresholds: int
    thresholds_sha256: str
    rules: int
    records_root: str
    records_n: int
    exact: bool
    """The records it saw are counted as this verifier counts them; in older runs they are not."""
    findings_n: int
    findings: tuple[Finding, ...]
    """Of runs that touch the bundle's period."""
    witnessed_s: int | None
    """When the quorum had cosigned all of it; ``None`` where it never did."""


@dataclass(slots=True)
class Verdicts:
    """The log, as far as it holds."""

    lines: int
    """Of the whole log."""
    checkpoints: int
    witnessed: int
    """Lines below the largest checkpoint that the quorum cosigned."""
    asked: bool
    """Does the register's policy ask for witnesses?"""
    runs: int
    touching: list[Run] = field(default_factory=list)
    """Runs that touch the bundle's period, in the order in which they were made."""


@dataclass(frozen=True, slots=True)
class _Others(Policy):
    """The register's policy for the collector's own log: a quorum, and somebody in it who is not the collector."""

    own: frozenset[str] = frozenset()

    def quorum_time(self, times: Mapping[str, int]) -> int | None:
        """As :meth:`Policy.quorum_time`."""
        # Named as a class: zero-argument super() does not work in slotted dataclasses.
        whole = Policy.quorum_time(self, times)
        others = [at_s for name, at_s in times.items() if name not in self.own]
        return None if whole is None or not others else max(whole, min(others))


def origin_of(site: str) -> str:
    """Origin of the log."""
    return f"tizgin/{site}/vee"


def read_verdicts(
    bundle: Bundle, trust: Trust, register: Register, made: Period, head: Note | None, errors: list[VerifyError]
) -> Verdicts | None:
    """Check the log; ``None`` where the bundle has none or it does not hold. Findings go to ``errors``.

    Raises:
        InputLimit: input that no honest writer makes.
        ArchiveError: a part of its files is lacking.
    """
    held = [name for name in FILES if name in bundle.entries]
    if not held:
        return None
    if len(held) != len(FILES):
        raise ArchiveError(f"{', '.join(held)}: the log of verdicts has {', '.join(FILES)}, or none of them")
    policy = _policy(register, trust)
    keys = [LogKey(key, 0, None) for key in trust.collector.values()]
    try:
        log = read_log(
            bundle, "vee", origin_of(register.site), register.slot_s, keys, policy, head, names=(LEAVES, NOTES)
        )
        runs = list(_runs(_lines(bundle, log, trust.collector, register.site), log, made, errors))
    except InputLimit:
        raise
    except VerifyError as error:
        errors.append(error)
        return None
    witnessed = max((c.size for c in log.cosigned), default=0)
    touching = [run for run in runs if run.t0 < made.end_s and run.t1 > made.start_s]
    return Verdicts(log.size, log.checkpoints, witnessed, policy.quorum is not None, len(runs), touching)


def _policy(register: Register, trust: Trust) -> _Others:
    known = register.policy or Policy({}, {}, None)
    own = frozenset(k.name for k in known.keys if k.key.kid in trust.collector)
    return _Others(known.witnesses, known.groups, known.quorum, own)


def _lines(bundle: Bundle, log: EpochLog, keys: Mapping[str, Key], site: str) -> Iterator[tuple[Object, str]]:
    """Every line that is here, at its place in the log: form, key, signature, leaf and chain."""
    origin, last = origin_of(site), -1
    for number, line in enumerate(bundle.lines(bundle.entries[LINES], MAX_LINE)):
        where = f"{LINES}:{number + 1}"
        doc, payload, kid, signature = _split(line, where)
        if kid not in keys:
            raise RecordKeyError(f"{where}: signed by {kid[:16]}, not a collector of the trust file")
        if not keys[kid].verifies(pae(VERDICT_TYPE, payload), signature):
            raise SignatureError(f"{where}: the signature does not verify")
        n, leaf = doc["n"], hashlib.sha256(b"\x00" + payload).digest()
        if doc["log"] != origin or n <= last or n >= log.size:
            raise SequenceError(f"{where}: line {n} of {str(doc['log'])[:80]}, after line {last} of {origin}")
        if log.leaves[n * HASH : n * HASH + HASH] != leaf:
            raise LeafError(f"{where}: is not leaf {n} of the log of verdicts")
        before = log.leaves[(n - 1) * HASH : n * HASH].hex() if n else None
        if doc["p"] != before:
            raise ChainError(f"{where}: does not follow from the line before it")
        last = n
        yield doc, where


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
        if doc.get("v") != 1 or len(signature) != 64:
            raise ValueError("version or signature is not one of a verdict")
        if doc.get("ty") == "vee_run":
            _run_fields(doc)
        elif doc.get("ty") == "vee_finding":
            _finding_fields(doc)
        else:
            raise ValueError(f"type {str(doc.get('ty'))[:40]!r}")
    except ValueError as error:
        raise LineError(f"{where}: {error}") from None
    return doc, payload, kid_text, signature


def _run_fields(doc: Object) -> None:
    _fields(doc, RUN | ({"readings_n"} & doc.keys()))
    _whole(doc, "n", "at", "run", "thresholds", "t0", "t1", "rules", "records_n", "unjudged_n", "findings_n")
    _hashes(doc["thresholds_sha256"], doc["records_root"])
    if type(doc.get("readings_n", 0)) is not int or not isinstance(doc["judged"], dict):
        raise ValueError("readings_n and judged are a number and an object")
    if not isinstance(doc["unjudged"], list) or doc["t0"] >= doc["t1"]:
        raise ValueError("unjudged is a list, and t0 lies before t1")


def _finding_fields(doc: Object) -> None:
    _fields(doc, FINDING)
    _whole(doc, "n", "at", "run", "thresholds", "t0", "t1", "evidence_n")
    if not all(type(doc[name]) is str for name in ("rule", "severity", "point", "unit", "text")):
        raise ValueError("rule, severity, point, unit and text are texts")
    if doc["severity"] not in SEVERITIES or not isinstance(doc["params"], dict):
        raise ValueError(f"severity {doc['severity'][:20]!r}, expected {', '.join(SEVERITIES)}; params is an object")
    if any(doc[name] is not None and type(doc[name]) is not int for name in ("seen", "expected")):
        raise ValueError("seen and expected are whole numbers or null")
    if not isinstance(doc["evidence"], list) or len(doc["evidence"]) > doc["evidence_n"]:
        raise ValueError("evidence is a list of not more than evidence_n hashes")
    _hashes(doc["evidence_root"], *doc["evidence"])


def _fields(doc: Object, expected: frozenset[str]) -> None:
    if doc.keys() != expected:
        raise ValueError(f"fields {', '.join(sorted(doc.keys() ^ expected))[:120]} are missing or too many")


def _whole(doc: Object, *names: str) -> None:
    wrong = [name for name in names if type(doc[name]) is not int or doc[name] < 0]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: expected whole numbers from 0")


def _hashes(*values: Any) -> None:
    if not all(isinstance(v, str) and len(v) == 64 and set(v) <= set("0123456789abcdef") for v in values):
        raise ValueError("a hash is 64 hex digits")


def _runs(lines: Iterable[tuple[Object, str]], log: EpochLog, made: Period, errors: list[VerifyError]) -> Iterator[Run]:
    """Runs one after the other, without a hole: each says how many lines it has."""
    pending = iter(lines)
    place = 0
    while place < log.size:
        doc, where = _next(pending, place, log)
        if doc["ty"] != "vee_run" or doc["n"] != place or doc["run"] != place:
            raise VerdictError(f"{where}: line {doc['n']} is a {doc['ty']}, expected the run of line {place}")
        behind = min(doc["findings_n"], MAX_FINDINGS)
        findings: list[Finding] = []
        if doc["t0"] < made.end_s and doc["t1"] > made.start_s:
            for number in range(place + 1, place + 1 + behind):
                findings.append(_finding(doc, number, *_next(pending, number, log)))
        end = place + 1 + behind
        if end > log.size:
            raise VerdictError(f"{where}: tells of {behind} findings, the log has {log.size - place - 1} lines more")
        yield _timed(doc, where, end, tuple(findings), log, errors)
        place = end
    extra = next(pending, None)
    if extra is not None:
        raise VerdictError(f"{extra[1]}: line {extra[0]['n']} belongs to no run that touches the period")


def _next(pending: Iterator[tuple[Object, str]], place: int, log: EpochLog) -> tuple[Object, str]:
    found = next(pending, None)
    if found is None:
        raise VerdictError(f"{LINES}: ends before line {place} of {log.size}; it belongs into this bundle")
    return found


def _finding(run: Object, number: int, doc: Object, where: str) -> Finding:
    if doc["ty"] != "vee_finding" or doc["n"] != number:
        raise VerdictError(f"{where}: line {doc['n']} is a {doc['ty']}, expected the finding of line {number}")
    if (doc["run"], doc["thresholds"]) != (run["n"], run["thresholds"]):
        raise VerdictError(f"{where}: names run {doc['run']}, stands behind run {run['n']}")
    evidence = doc["evidence"]
    if len(evidence) == doc["evidence_n"] and root_of(bytes.fromhex("".join(evidence))).hex() != doc["evidence_root"]:
        raise VerdictError(f"{where}: the evidence it names does not have the root it states")
    return Finding(doc["rule"], doc["severity"], doc["point"], doc["t0"], doc["t1"])


def _timed(
    doc: Object, where: str, end: int, findings: tuple[Finding, ...], log: EpochLog, errors: list[VerifyError]
) -> Run:
    witnessed = log.witnessed_by(end - 1)
    run = Run(
        doc["n"],
        doc["at"],
        doc["t0"],
        doc["t1"],
        doc["thresholds"],
        doc["thresholds_sha256"],
        doc["rules"],
        doc["records_root"],
        doc["records_n"],
        "readings_n" in doc,
        doc["findings_n"],
        findings,
        witnessed,
    )
    if witnessed is not None and run.at > (witnessed + SLACK_S) * 1000:
        late = run.at // 1000 - witnessed
        errors.append(TimeEvidenceError(f"{where}: was cosigned {late} s before the time it says: FUTURE"))
        return replace(run, witnessed_s=None)
    return run
