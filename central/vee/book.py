"""The log of verdicts: appended to, signed by central, never rewritten. Another judgement is another run.

Lines, tree and checkpoint change in the caller's transaction. Nothing here decides what is plausible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.errors import CentralError
from central.store.database import insert_new, put
from central.store.schema import notes, verdict_logs, verdicts
from central.vee.judge import RULES_VERSION, Verdict
from central.vee.limits import Thresholds
from central.vee.model import Finding, SiteSlots
from wire.canonical import MAX_INT, Json
from wire.checkpoints import Checkpoint, log_key, open_checkpoint
from wire.errors import BadProof, WireError
from wire.keys import SigningKey, VerifyKey
from wire.merkle import Frontier
from wire.names import VERDICTS
from wire.records import RecordLine
from wire.verdicts import MAX_FINDINGS, open_verdict, sign_verdict, verdict_origin

MAX_EVIDENCE = 64
"""Leaf hashes that a line names; root and number stand for all of them."""
MAX_UNJUDGED = 400
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Run:
    """What was appended."""

    n: int
    size: int
    note: bytes


class Grown(NamedTuple):
    """A signed line and what it says."""

    line: RecordLine
    doc: Json


def root(hashes: Iterable[str]) -> tuple[str, int]:
    """RFC 6962 root over leaf hashes (hex) in their order, and how many they are."""
    tree = Frontier()
    tree.extend(bytes.fromhex(h) for h in hashes)
    return tree.root().hex(), tree.size


def seen_records(site: SiteSlots) -> tuple[str, int]:
    """Root and number of the judged time's records, sorted: the same records give the same root.

    Intervals, gaps and balances whose slot, and spot readings whose moment lies in it. What rules compare with from
    before is not counted.
    """
    hashes = {s.hash for p in site.points.values() for s in site.judged(p)}
    hashes |= {b.hash for b in site.balances if site.start <= b.t0 < site.end}
    hashes |= {s.hash for s in site.spots if site.start * 1000 <= s.at_ms < site.end * 1000}
    return root(sorted(hashes))


def append(
    connection: Connection,
    site: SiteSlots,
    verdict: Verdict,
    limits: Thresholds,
    key: SigningKey,
    now_ms: int,
) -> Run:
    """Add one run and its findings, and sign where the log stands.

    Args:
        now_ms: when the records were read; what comes later is for the next run.

    Raises:
        CentralError: the stored state of the log contradicts itself.
    """
    tree, last = stand_of(connection, site.site)
    records_root, records_n = seen_records(site)
    run = tree.size
    common: Json = {"v": 1, "log": verdict_origin(site.site), "at": now_ms, "run": run, "thresholds": limits.version}
    head: Json = {
        "ty": "vee_run",
        "t0": site.start,
        "t1": site.end,
        "thresholds_sha256": limits.sha256,
        "records_root": records_root,
        "records_n": records_n,
        "readings_n": len(site.readings),
        "judged": {rule.lower(): count for rule, count in sorted(verdict.judged.items())},
        "unjudged": [[u.rule, u.point, u.why] for u in verdict.unjudged[:MAX_UNJUDGED]],
        "unjudged_n": len(verdict.unjudged),
        "findings_n": len(verdict.findings),
        "rules": RULES_VERSION,
    }
    grown: list[Grown] = []
    for n, body in enumerate([head, *(_finding(f) for f in verdict.findings[:MAX_FINDINGS])], run):
        doc = common | body | {"n": n, "p": last}
        grown.append(Grown(sign_verdict(doc, key), doc))
        last = grown[-1].line.hash.hex()
    return grow(connection, site.site, grown, key, now_ms, site.stored)


def grow(
    connection: Connection,
    site: str,
    lines: Sequence[Grown],
    key: SigningKey,
    now_ms: int,
    stored: int | None = None,
) -> Run:
    """Put signed lines behind those that are there, and sign where the log then stands.

    Args:
        stored: slots that were stored when they were judged, where it is known.

    Raises:
        CentralError: they do not follow from the last line, or the stored state of the log contradicts itself.
    """
    origin = verdict_origin(site)
    tree, last = stand_of(connection, site)
    run = tree.size
    rows: list[dict[str, Any]] = []
    for line, doc in lines:
        if (doc["log"], doc["n"], doc["p"]) != (origin, tree.size, last):
            raise CentralError(f"log of verdicts on {site}: line {tree.size} is not the one that follows")
        leaf = line.hash
        rows.append(_row(site, doc) | {"line": line.encode(), "hash": leaf})
        rows[-1]["slots_n"] = stored if doc["ty"] == "vee_run" else None
        last = leaf.hex()
        tree.append(leaf)
    connection.execute(sa.insert(verdicts), rows)
    note = Checkpoint(origin, tree.size, tree.root()).sign(key).encode()
    put(
        connection,
        verdict_logs,
        {"site": site, "size": tree.size, "frontier": tree.encode(), "last_hash": last, "note": note},
    )
    keep_note(connection, site, tree.size, note, now_ms)
    return Run(run, tree.size, note)


def keep_note(connection: Connection, site: str, size: int, note: bytes, now_ms: int) -> None:
    """Keep a checkpoint of the log; one with more cosignatures is a note of its own."""
    row = {"site": site, "epoch": VERDICTS, "sha256": hashlib.sha256(note).hexdigest(), "size": size, "note": note}
    insert_new(connection, notes, [row | {"received_at": now_ms}])


def _finding(found: Finding) -> Json:
    evidence_root, evidence_n = root(found.evidence)
    return {
        "ty": "vee_finding",
        "rule": found.rule,
        "severity": found.severity,
        "point": found.point,
        "t0": found.t0,
        "t1": found.t1,
        "seen": _bounded(found.seen),
        "expected": _bounded(found.expected),
        "unit": found.unit,
        "text": found.text,
        "params": {name: v[:MAX_TEXT] if isinstance(v, str) else _bounded(v) for name, v in found.params.items()},
        "evidence": list(found.evidence[:MAX_EVIDENCE]),
        "evidence_n": evidence_n,
        "evidence_root": evidence_root,
    }


def _bounded(value: int | None) -> int | None:
    """Sums of absurd records may be larger than canonical JSON holds; the verdict is told all the same."""
    return None if value is None else max(-MAX_INT, min(MAX_INT, value))


def _row(site: str, doc: Json) -> dict[str, Any]:
    return {
        "site": site,
        "n": doc["n"],
        "ty": doc["ty"],
        "run": doc["run"],
        "rule": doc.get("rule"),
        "severity": doc.get("severity"),
        "point": doc.get("point"),
        "t0_s": doc["t0"],
        "t1_s": doc["t1"],
        "thresholds": doc["thresholds"],
        "at": doc["at"],
    }


def stand_of(connection: Connection, site: str) -> tuple[Frontier, str | None]:
    """Tree and last leaf hash (hex) of a log as it is stored; an empty one where there is none.

    Raises:
        CentralError: the stored state contradicts itself.
    """
    row = connection.execute(sa.select(verdict_logs).where(verdict_logs.c.site == site)).first()
    if row is None:
        return Frontier(), None
    try:
        return Frontier.decode(int(row.size), bytes(row.frontier)), row.last_hash
    except BadProof as error:
        raise CentralError(f"log of verdicts on {site}: {error}; restore central's database from its backup") from None


def check(connection: Connection, site: str, key: VerifyKey) -> int:
    """Read the whole log again: every signature, chain and number, the root, and the checkpoint over it.

    Returns:
        Lines of the log.

    Raises:
        CentralError: it is not what central wrote; the message names the line.
    """
    tree, last = Frontier(), None
    origin = verdict_origin(site)
    query = sa.select(verdicts.c.line).where(verdicts.c.site == site).order_by(verdicts.c.n)
    try:
        for (line,) in connection.execute(query):
            record, doc = open_verdict(bytes(line), key)
            if (doc["log"], doc["n"], doc["p"]) != (origin, tree.size, last):
                raise CentralError(f"log of verdicts on {site}: line {tree.size} is not the one that follows")
            tree.append(record.hash)
            last = record.hash.hex()
        note = connection.execute(sa.select(verdict_logs.c.note).where(verdict_logs.c.site == site)).scalar()
        if note is None:
            if tree.size:
                raise CentralError(f"log of verdicts on {site}: {tree.size} lines and no checkpoint")
            return 0
        checkpoint = open_checkpoint(bytes(note), [log_key(origin, key.raw)])[0]
    except WireError as error:
        raise CentralError(f"log of verdicts on {site}: {error}") from None
    if (checkpoint.size, checkpoint.root) != (tree.size, tree.root()):
        raise CentralError(f"log of verdicts on {site}: {tree.size} lines do not have the root of its checkpoint")
    return tree.size


def lines(connection: Connection, site: str, run: int) -> Sequence[bytes]:
    """Lines of one run, byte for byte."""
    query = sa.select(verdicts.c.line).where(verdicts.c.site == site, verdicts.c.run == run).order_by(verdicts.c.n)
    return [bytes(line) for (line,) in connection.execute(query)]
