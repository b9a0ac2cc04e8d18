"""``report.json`` of a bundle: the totals that its maker states are those recomputed."""

from __future__ import annotations

from collections.abc import Mapping

from verifier.archive import Bundle
from verifier.canonical import Object, read_canonical
from verifier.errors import ReportError
from verifier.metering import Period, Totals
from verifier.points import Judged
from verifier.records import stream_of
from verifier.register import Register
from verifier.report import Report

MAX_REPORT = 4_194_304


def check_totals(
    bundle: Bundle, made: Period, register: Register, points: Mapping[str, Judged], report: Report
) -> None:
    """Hold what ``report.json`` says against the judged points; what differs goes into the report.

    Raises:
        ReportError: it is not about this bundle, or cannot be read.
    """
    try:
        doc = read_canonical(bundle.read(bundle.entries["report.json"], MAX_REPORT), max_bytes=MAX_REPORT)
        stated = {str(entry["id"]): entry for entry in doc["points"].values()}
        named = list(doc["points"]) == [f"p{i:04d}" for i in range(len(stated))] and list(stated) == sorted(stated)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"report.json: {error}") from None
    span = {"from": made.start_s, "to": made.end_s}
    head = {"v": 1, "site": register.site, "period": span, "slot_s": register.slot_s}
    if {name: value for name, value in doc.items() if name != "points"} != head or not named:
        raise ReportError("report.json: site, period, slot length or the list of points is not that of the bundle")
    with_records = {stream_of(name)[1][3:] for name in bundle.entries if "/mp_" in name and name.endswith(".tzr")}
    if set(stated) != with_records:
        raise ReportError(f"report.json has points {sorted(stated)}, the bundle {sorted(with_records)}")
    for point, entry in stated.items():
        if not _same(point, entry, points[point].reported_totals):
            report.errors.append(ReportError(f"report.json: {point} differs from {points[point].reported_totals}"))
    total = sum(p.reported_totals.wh for p in points.values())
    report.judge(13, "totals", f"{len(stated)} points, {total} Wh equal to report.json")


def _same(point: str, entry: Object, totals: Totals) -> bool:
    body = {"id": point, "wh": totals.wh, "intervals": totals.intervals, "gaps": totals.gaps}
    exported = entry.get("exp_wh")
    return {name: value for name, value in entry.items() if name != "exp_wh"} == body and (
        exported == totals.exp_wh or (exported == 0 and totals.exp_wh is None)
    )
