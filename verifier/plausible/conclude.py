"""Judge the site as a whole, write the table, and take from grades what something stands against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from verifier.grades import counts
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
        table.points += 1
        table.grave |= {(rule, SITE if rule in SITE_WIDE else name): hull for rule, hull in said.grave.items()}
        for rule, row in table.rows.items():
            if rule in said.judged:
                row.judged += 1
            elif rule not in SITE_WIDE:
                row.unjudged.setdefault(said.unjudged.get(rule, "no intervals"), []).append(name)
            wrong = sum(error.code in RULES[rule].codes for error in point.errors)
            row.findings += said.counts.get(rule, 0) + wrong
            if wrong:
                table.grave.setdefault((rule, name), None)
        table.listed += said.findings
        doubts += said.doubts()
        lowered, lost_wh = point.kept.lower()
        table.lowered += sum(lowered.values())
        if lowered:
            grades, verified = counts(point.kept.grades), point.report.verified_wh - lost_wh
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
        if said.counts["V26"]:
            said.grave["V26"] = said.start_s, said.start_s + said.slots * said.slot_s
    said.leave("V26", "no reading by another party")
