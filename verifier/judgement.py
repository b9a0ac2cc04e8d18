"""What the collector's verdicts say of the asked period, and whether they were made on the records of this bundle."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from verifier.archive import Bundle
from verifier.log import HASH, root_of
from verifier.metering import Period
from verifier.metrology import local
from verifier.records import MAX_LINE
from verifier.verdicts import LATE_S, SEVERITIES, Finding, Run, Verdicts

DAY_S = 86_400
MAX_LISTED = 500
MOST_SEEN = 8
"""How often on average a record may be held against runs whose times overlap."""
SLOTS = frozenset({"interval", "gap", "balance"})


class Windows:
    """Times that are not within one another, by their beginning; so their ends rise too."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def cover(self, start: int, end: int) -> bool:
        """True where one of them holds the whole of [``start``, ``end``)."""
        at = bisect_right(self.starts, start) - 1
        return at >= 0 and self.ends[at] >= end

    def add(self, start: int, end: int) -> None:
        """One more; those within it go."""
        if self.cover(start, end):
            return
        first = last = bisect_right(self.starts, start - 1)
        while last < len(self.ends) and self.ends[last] <= end:
            last += 1
        self.starts[first:last], self.ends[first:last] = [start], [end]


def standing(runs: Iterable[Run]) -> tuple[list[Run], Windows]:
    """Runs that no later one covers, in the order in which they were made; and the times that are judged at all."""
    found: list[Run] = []
    covered = Windows()
    for run in sorted(runs, key=lambda r: -r.n):
        if not covered.cover(run.t0, run.t1):
            found.append(run)
            covered.add(run.t0, run.t1)
    return found[::-1], covered


def days(period: Period) -> Iterator[tuple[str, int, int]]:
    """(name, from, to) of the days in Kazakhstan that lie wholly in a period."""
    start = _midnight(period.start_s)
    while (end := _midnight(start + 1)) <= period.end_s:
        yield local(start).date().isoformat(), start, end
        start = end


def _midnight(t_s: int) -> int:
    """The next beginning of a day at or after this time; on the day in which clocks were set back, one hour later."""
    here = local(t_s)
    past = here.hour * 3600 + here.minute * 60 + here.second
    found = t_s + (DAY_S - past) % DAY_S
    late = local(found).hour
    return found + (3600 * (24 - late) if late else 0)


@dataclass(slots=True)
class Judgement:
    """What stands, and what a reader should ask about."""

    verdicts: Verdicts
    period: Period
    runs: list[Run]
    """Standing ones that touch the asked period."""
    findings: list[Finding]
    """Of these, as far as they touch the asked period."""
    missing: list[str]
    """Days wholly inside the period that no run covers."""
    days: int
    same: dict[int, bool] = field(default_factory=dict)
    """Run → were the records that it saw those of this bundle? Runs that could not be held against them are left out.
    """
    doubts: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Severity → findings."""
        found = Counter(f.severity for f in self.findings)
        return {name: found[name] for name in SEVERITIES}

    def report(self) -> dict[str, Any]:
        """For machines."""
        log = self.verdicts
        return {
            "log": {"lines": log.lines, "runs": log.runs, "checkpoints": log.checkpoints, "witnessed": log.witnessed},
            "runs": [
                {
                    "n": run.n,
                    "at": run.at,
                    "from": run.t0,
                    "to": run.t1,
                    "witnessed": run.witnessed_s,
                    "thresholds": run.thresholds,
                    "thresholds_sha256": run.thresholds_sha256,
                    "rules": run.rules,
                    "records": run.records_n,
                    "same_records": self.same.get(run.n),
                    "findings": run.findings_n,
                }
                for run in self.runs[:MAX_LISTED]
            ],
            "runs_n": len(self.runs),
            "findings": self.counts(),
            "days": {"whole": self.days, "judged": self.days - len(self.missing), "missing": self.missing[:MAX_LISTED]},
        }

    def lines(self) -> Iterator[str]:
        """For a person; the first line stands behind its title."""
        log = self.verdicts
        seen = f"{log.witnessed} witnessed" if log.asked else "the policy asks for no witness"
        yield f"{len(self.runs)} runs by the collector over the period (log of {log.lines} lines, {seen})"
        for version, digest in sorted({(r.thresholds, r.thresholds_sha256) for r in self.runs}):
            yield f"thresholds {version}, sha256 {digest}"
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        same = sum(self.same.values())
        yield f"findings: {counts} | {same} of {len(self.runs)} runs judged exactly the records of this bundle"
        if self.days:
            lacking = f"; not: {', '.join(self.missing[:10])}{' …' if len(self.missing) > 10 else ''}"
            judged = self.days - len(self.missing)
            yield f"days judged: {judged} of {self.days}{lacking if self.missing else ''}"


def judge(verdicts: Verdicts, bundle: Bundle, period: Period, made: Period, records: int, *, whole: bool) -> Judgement:
    """What the log says of the asked period.

    Args:
        verdicts: the checked log.
        bundle: the archive.
        period: what is asked for.
        made: the bundle's period.
        records: how many records the bundle has.
        whole: every stream could be read to its end; else runs are not held against the records.
    """
    stands, covered = standing(verdicts.touching)
    runs = [run for run in stands if run.t0 < period.end_s and run.t1 > period.start_s]
    findings = [f for run in runs for f in run.findings if f.t0 < period.end_s and f.t1 > period.start_s]
    all_days = list(days(period))
    missing = [name for name, start, end in all_days if not covered.cover(start, end)]
    found = Judgement(verdicts, period, runs, findings, missing, len(all_days))
    _ask_about_witnesses(found)
    if whole:
        _hold_against_records(found, bundle, made, records)
    _ask_about_findings(found)
    return found


def _ask_about_witnesses(found: Judgement) -> None:
    log = found.verdicts
    if not log.asked:
        return
    if log.witnessed < log.lines:
        text = f"{log.lines - log.witnessed} of {log.lines} lines of verdicts were not cosigned as the policy asks"
        found.doubts.append(f"UNWITNESSED vee: {text}")
    late = [r for r in found.runs if r.witnessed_s is not None and r.witnessed_s > r.at // 1000 + LATE_S]
    if late:
        text = f"{len(late)} runs were witnessed more than a day after the time they say, the first is {late[0].n}"
        found.doubts.append(f"LATE vee: {text}")


def _ask_about_findings(found: Judgement) -> None:
    counts = found.counts()
    grave = [f for f in found.findings if f.severity in {"fail", "suspect"}]
    if grave:
        first = min(grave, key=lambda f: (SEVERITIES.index(f.severity), f.t0))
        text = f"{counts['fail']} fail, {counts['suspect']} suspect by the collector's rules"
        found.doubts.append(f"VERDICT {text}; the first: {first.rule} at {first.point} from {first.t0} on"[:400])


def _hold_against_records(found: Judgement, bundle: Bundle, made: Period, records: int) -> None:
    """The records of a run's time, if it lies wholly in the bundle's period, have to be those that it saw."""
    runs = [run for run in found.runs if run.exact and made.holds(run.t0, run.t1)]
    edges = sorted({edge for run in runs for edge in (run.t0, run.t1)})
    place = {edge: at for at, edge in enumerate(edges)}
    between = [bytearray() for _ in edges]  # leaves from each edge to the next
    for moment, leaf in _leaves(bundle) if runs else ():
        at = bisect_right(edges, moment) - 1
        if at >= 0:
            between[at] += leaf
    room = MOST_SEEN * records * HASH
    other: list[tuple[Run, int]] = []
    for run in runs:
        leaves = b"".join(between[place[run.t0] : place[run.t1]])
        room -= len(leaves)
        if room < 0:
            found.doubts.append(f"VERDICT the times of {len(runs)} runs overlap too often to hold all against records")
            break
        ordered = sorted({leaves[i : i + HASH] for i in range(0, len(leaves), HASH)})
        found.same[run.n] = (len(ordered), root_of(b"".join(ordered)).hex()) == (run.records_n, run.records_root)
        if not found.same[run.n]:
            other.append((run, len(ordered)))
    if other:
        run, here = other[0]
        text = f"{len(other)} runs judged other records than are here; the first: run {run.n}"
        found.doubts.append(f"VERDICT {text} on {run.records_n} records of its time, here are {here}")


def _leaves(bundle: Bundle) -> Iterator[tuple[int, bytes]]:
    """(moment in epoch s, leaf hash) of every record that verdicts are made on. Lines were verified before."""
    for name, entry in bundle.entries.items():
        stream = name.rpartition("/")[2]
        if not name.startswith("records/") or not name.endswith(".tzr") or not stream.startswith(("mp_", "bal.")):
            continue
        for line in bundle.lines(entry, MAX_LINE):
            payload = line.partition(b"|")[2].rpartition(b"|")[0].rpartition(b"|")[0]
            doc = json.loads(payload)
            moment = doc.get("t0") if doc["ty"] in SLOTS else doc.get("rt") if doc["ty"] == "spot" else None
            if type(moment) is int:
                yield (moment // 1000 if doc["ty"] == "spot" else moment), hashlib.sha256(b"\x00" + payload).digest()
