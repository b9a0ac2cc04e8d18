"""Judge the site as a whole, write the table, and take from grades what something stands against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from verifier.plausible.around import Around
from verifier.plausible.rules import RULES, SITE_WIDE
from verifier.plausible.site import judge_site
from verifier.plausible.table import SITE, Table
from verifier.points import Judged
from verifier.register import Register

OUTSIDE = ("INDEPENDENT", "SPOT")


def conclude(points: Mapping[str, Judged], around: Around, register: Register) -> tuple[Table, list[str]]:
    """Judge what needs several points; the points' reports are changed where grades fall.

    Returns:
        the table, and doubts.
    """
    kept = {name: point.kept for name, point in points.items() if point.kept is not None}
    partly = judge_site(kept, around)
    table, doubts = Table(), list[str]()
    if partly is not None:
        table.rows["V20"].unjudged[partly] = [SITE]
    for name, point in points.items():
        if point.kept is None:
            continue
        said = point.kept.said
        _elsewhere(point, register)
        for rule, row in table.rows.items():
            if rule in said.judged:
                row.judged += 1
            elif rule not in SITE_WIDE:
                row.unjudged.setdefault(said.unjudged.get(rule, "no intervals"), []).append(name)
            codes = RULES[rule].codes
            row.findings += said.counts.get(rule, 0) + sum(error.code in codes for error in point.errors)
        table.listed += said.findings
        doubts += said.doubts()
        lowered, lost_wh = point.kept.lower()
        if lowered:
            grades = {chr(g): point.kept.grades.count(g) for g in b"ABCZRMX" if g in point.kept.grades}
            verified = point.report.verified_wh - lost_wh
            point.report = replace(point.report, grades=grades, verified_wh=verified, lowered=lowered)
    table.listed.sort(key=lambda found: (found.severity == "warn", found.rule, found.t0, found.point))
    return table, doubts


def _elsewhere(point: Judged, register: Register) -> None:
    """Rules that other checks see to: were they judged here, and what did they find?"""
    if point.kept is None:
        return
    said = point.kept.said
    if point.id not in register.points:
        said.leave("V14 V15", "not in the register")
    elif point.kept.read:
        said.judged.add("V14 V15")
    if point.report.independent or point.report.spots:
        said.judged.add("V26")
        words = tuple(f"{word} {point.id}:" for word in OUTSIDE)
        said.counts["V26"] = sum(doubt.startswith(words) for doubt in point.doubts)
    said.leave("V26", "no reading by another party")
