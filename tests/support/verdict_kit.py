"""A collector's log of verdicts made by hand, as central makes it; see :mod:`bundle_kit`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bundle_kit import SITE, Doc, Site

from wire.checkpoints import Checkpoint, cosign
from wire.keys import SigningKey
from wire.merkle import Frontier
from wire.notes import Note
from wire.records import RecordLine
from wire.verdicts import sign_verdict, verdict_origin

LEAVES, NOTES, LINES = ("vee/verdicts.leaves", "vee/verdicts.notes", "vee/verdicts.tzr")
ORIGIN = verdict_origin(SITE)


def root(hashes: Sequence[bytes]) -> str:
    tree = Frontier()
    tree.extend(hashes)
    return tree.root().hex()


def records_of(site: Site, t0: int, t1: int) -> list[bytes]:
    """Sorted leaf hashes of what is judged in a time, as the site signs it."""
    signed = site.signed()
    found: set[bytes] = set()
    for stream, docs in site.streams.items():
        for doc, line in zip(docs, signed.lines[stream], strict=True):
            moment = doc["rt"] / 1000 if doc["ty"] == "spot" else doc.get("t0", -1)
            if doc["ty"] in {"interval", "gap", "balance", "spot"} and t0 <= moment < t1:
                found.add(line.hash)
    return sorted(found)


def finding(t0: int, t1: int, **changes: Any) -> Doc:
    """What a run holds against M1."""
    evidence = [hashlib.sha256(b"record").hexdigest()]
    body: Doc = {
        "rule": "V08", "severity": "suspect", "point": "M1", "t0": t0, "t1": t1, "seen": 9, "expected": 4, "unit": "wh",
        "text": "spike", "params": {"slots": 1}, "evidence": evidence, "evidence_n": 1,
        "evidence_root": root([bytes.fromhex(h) for h in evidence]),
    }  # fmt: skip
    return body | changes


@dataclass
class VerdictLog:
    """Lines and checkpoints; documents may be changed before they are signed."""

    site: Site
    key: SigningKey | None = None
    """Default: the site's collector."""
    lines: list[RecordLine] = field(default_factory=list)
    runs: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(line, lines of its findings, t0, t1)."""
    notes: list[bytes] = field(default_factory=list)

    @property
    def signer(self) -> SigningKey:
        return self.key or self.site.col

    def line(self, doc: Doc) -> None:
        head = {"v": 1, "log": ORIGIN, "n": len(self.lines)}
        head["p"] = self.lines[-1].hash.hex() if self.lines else None
        self.lines.append(sign_verdict(head | doc, self.signer))

    def run(self, t0: int, t1: int, findings: Sequence[Doc] = (), *, at_s: int | None = None, **changes: Any) -> None:
        """One judgement, a quarter of an hour after its time."""
        at = ((t1 + 900) if at_s is None else at_s) * 1000
        seen = records_of(self.site, t0, t1)
        number = len(self.lines)
        common: Doc = {"at": at, "run": number, "thresholds": 1}
        head: Doc = {
            "ty": "vee_run", "t0": t0, "t1": t1, "thresholds_sha256": "ab" * 32, "rules": 1, "records_root": root(seen),
            "records_n": len(seen), "readings_n": 0, "judged": {"v01": 2}, "unjudged": [["V17", "M1", "no_data"]],
            "unjudged_n": 1, "findings_n": len(findings),
        }  # fmt: skip
        self.line(common | head | changes)
        for one in findings:
            self.line(common | {"ty": "vee_finding"} | one)
        self.runs.append((number, len(findings), t0, t1))

    def checkpoint(self, at_s: int, *names: str, keys: dict[str, SigningKey] | None = None) -> bytes:
        """Where the log stands, cosigned by the named witnesses (all by default)."""
        tree = Frontier()
        tree.extend([line.hash for line in self.lines])
        note = Checkpoint(ORIGIN, tree.size, tree.root()).sign(self.signer)
        known = self.site.witnesses if keys is None else keys
        signed = [cosign(note.text, name, known[name], at_s) for name in names or sorted(known)]
        self.notes.append(Note(note.text, (*note.signatures, *signed)).encode())
        return self.notes[-1]

    def files(self) -> dict[str, bytes]:
        """As a bundle carries them: every run, and the findings of those that touch its period."""
        kept: list[RecordLine] = []
        for number, findings, t0, t1 in self.runs:
            touches = t0 < self.site.last and t1 > self.site.first
            kept += self.lines[number : number + 1 + (findings if touches else 0)]
        return {
            LEAVES: b"".join(line.hash for line in self.lines),
            NOTES: b"".join(b"%d\n" % len(note) + note for note in self.notes),
            LINES: b"".join(line.encode() + b"\n" for line in kept),
        }
