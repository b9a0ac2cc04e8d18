"""What the collector's verdicts and this verifier's own rules hold against the same points, side by side.

Compared are rules and points, warnings apart. Slots are not: thresholds and windows of the two differ. Nothing follows
from it for a grade; a reader sees where the collector kept silent, and what of its word the bundle does not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from verifier.judgement import Judgement
from verifier.plausible.rules import RULES, SITE_WIDE
from verifier.plausible.table import SITE, Table

ROWS = {rule: row for row in RULES for rule in row.split()}
"""The collector's names of rules → rows of the table."""
SHOWN = 10
MOST_LISTED = 500
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Compared:
    """(rule, point), sorted."""

    both: tuple[Pair, ...]
    collector: tuple[Pair, ...]
    """Told by the collector alone; here the rule looked at that point and found nothing."""
    unjudged: tuple[Pair, ...]
    """Told by the collector alone; here the rule had nothing to look at."""
    own: tuple[Pair, ...]
    """Told here alone, of slots that a run of the collector judged."""

    def report(self) -> dict[str, list[list[str]]]:
        """For machines."""
        lists = {"both": self.both, "collector": self.collector, "not_judged_here": self.unjudged, "here": self.own}
        return {name: [list(pair) for pair in pairs[:MOST_LISTED]] for name, pairs in lists.items()}

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield from _line("told by both", self.both)
        yield from _line("told by the collector alone", self.collector)
        yield from _line("told by the collector alone, not judged here", self.unjudged)
        yield from _line("told here alone", self.own)
        if not (self.both or self.collector or self.unjudged or self.own):
            yield "neither the collector nor this verifier holds more than a warning against any point"


def compare(verdicts: Judgement, own: Table) -> Compared:
    """Standing runs of the collector over the asked period against the table of the same period."""
    told = {_pair(f.rule, f.point) for f in verdicts.findings if f.severity != "warn"}
    here = set(own.grave)
    alone = told - here
    looked = {pair for pair in alone if pair[0] in RULES and own.judged(*pair)}
    spans = [(run.t0, run.t1) for run in verdicts.runs]
    silent = {pair for pair in here - told if _judged(own.grave[pair], spans)}
    return Compared(
        tuple(sorted(told & here)), tuple(sorted(looked)), tuple(sorted(alone - looked)), tuple(sorted(silent))
    )


def _pair(rule: str, point: str) -> Pair:
    row = ROWS.get(rule, rule)
    return row, SITE if row in SITE_WIDE else point


def _judged(hull: tuple[int, int] | None, spans: list[tuple[int, int]]) -> bool:
    return any(hull is None or (t0 < hull[1] and t1 > hull[0]) for t0, t1 in spans)


def _line(title: str, pairs: tuple[Pair, ...]) -> Iterator[str]:
    if pairs:
        named = ", ".join(f"{rule} {point}" for rule, point in pairs[:SHOWN])
        more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        yield f"{title}: {named}{more}"
