"""The log of verdicts: appended to, signed by central, never rewritten. Another judgement is another run.

Lines, tree and checkpoint change in the caller's transaction. Nothing here decides what is plausible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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

    Raises:
        CentralError: the stored state of the log contradicts itself.
    """
    origin = verdict_origin(site.site)
    tree, last = _stand(connection, site.site)
    records_root, records_n = seen_records(site)
    run = tree.size
    common: Json = {"v": 1, "log": origin, "at": now_ms, "run": run, "thresholds": limits.version}
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
    slots_n = sum(1 for p in site.points.values() for _ in site.judged(p))
    docs = [head, *(_finding(f) for f in verdict.findings[:MAX_FINDINGS])]
    rows: list[dict[str, Any]] = []
    for doc in docs:
        line = sign_verdict(common | doc | {"n": tree.size, "p": last}, key)
        rows.append(_row(site.site, tree.size, run, doc, limits.version, now_ms) | {"line": line.encode()})
        rows[-1] |= {"hash": line.hash, "slots_n": slots_n if doc is head else None}
        last = line.hash.hex()
        tree.append(line.hash)
    connection.execute(sa.insert(verdicts), rows)
    note = Checkpoint(origin, tree.size, tree.root()).sign(key).encode()
    put(
        connection,
        verdict_logs,
        {"site": site.site, "size": tree.size, "frontier": tree.encode(), "last_hash": last, "note": note},
    )
    keep_note(connection, site.site, tree.size, note, now_ms)
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


def _row(site: str, n: int, run: int, doc: Json, version: int, now_ms: int) -> dict[str, Any]:
    return {
        "site": site,
        "n": n,
        "ty": doc["ty"],
        "run": run,
        "rule": doc.get("rule"),
        "severity": doc.get("severity"),
        "point": doc.get("point"),
        "t0_s": doc["t0"],
        "t1_s": doc["t1"],
        "thresholds": version,
        "at": now_ms,
    }


def _stand(connection: Connection, site: str) -> tuple[Frontier, str | None]:
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
