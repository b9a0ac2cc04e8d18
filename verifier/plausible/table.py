"""The one table of a report: rule by rule how many points were judged, what was found, and what was not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from verifier.plausible.rules import MOST_LISTED, NAMED, RULES, SITE_WIDE, VERSION
from verifier.plausible.said import Finding

SITE = "-"
"""Stands for the metering point where a rule is about the site as a whole."""


@dataclass(slots=True)
class Row:
    """One rule."""

    judged: int = 0
    findings: int = 0
    unjudged: dict[str, list[str]] = field(default_factory=dict)
    """Why → points."""

    def report(self) -> dict[str, object]:
        """For the report."""
        left = {why: {"n": len(points), "points": points[:NAMED]} for why, points in sorted(self.unjudged.items())}
        return {"judged": self.judged, "findings": self.findings, "not_judged": left}


@dataclass(slots=True)
class Table:
    """All rules over one bundle."""

    rows: dict[str, Row] = field(default_factory=lambda: {rule: Row() for rule in RULES})
    listed: list[Finding] = field(default_factory=list)
    grave: dict[tuple[str, str], tuple[int, int] | None] = field(default_factory=dict)
    """(rule, point) → from the first to the last slot that more than a warning stands against; ``None`` of errors."""
    points: int = 0
    lowered: int = 0
    """Slots made ``C``."""

    def judged(self, rule: str, point: str) -> bool:
        """Did a rule have anything to look at there?"""
        row = self.rows[rule]
        if rule in SITE_WIDE:
            return row.judged > 0
        return row.judged > 0 and not any(point in points for points in row.unjudged.values())

    def report(self) -> dict[str, object]:
        """For the report."""
        return {
            "rules": VERSION,
            "table": {rule: {"name": RULES[rule].name} | row.report() for rule, row in self.rows.items()},
            "findings": [found.report() for found in self.listed[:MOST_LISTED]],
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        looked = sum(row.judged > 0 for row in self.rows.values())
        count = sum(row.findings for row in self.rows.values())
        found = f"{looked} of {len(self.rows)} rules had something to look at, {count} findings"
        yield f"Plausibility   rules {VERSION}, {self.points} points: {found}, {self.lowered} slots made C by them"
        for rule, row in self.rows.items():
            left = "; ".join(_left(why, points) for why, points in sorted(row.unjudged.items()))
            told = f" | not judged: {left}" if left else ""
            yield f"      {rule:<8}{RULES[rule].name:<20}{row.judged} judged, {row.findings} findings{told}"


def _left(why: str, points: list[str]) -> str:
    named = ", ".join(points[:3]) + (", …" if len(points) > 3 else "")
    return why if points == [SITE] else f"{why}: {len(points)} ({named})"
