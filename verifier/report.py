"""The verdict: as data, as JSON and as text for a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verifier.balance import Summary
from verifier.compared import Compared
from verifier.dark import IMPORT
from verifier.errors import VerifyError
from verifier.judgement import Judgement
from verifier.metering import MeteringPoint, Period
from verifier.plausible.table import Table
from verifier.records import Record

NAMES = {
    1: "trust file",
    2: "archive",
    3: "manifest",
    4: "register",
    5: "log",
    6: "records",
    7: "streams",
    8: "calendar",
    9: "registers",
    10: "de-energised",
    11: "orders",
    12: "time",
    13: "totals",
}
MAX_ERRORS = 500
VERDICTS = {
    0: "INTEGRITY OK - COMPLETE",
    1: "INTEGRITY OK - WITH VISIBLE GAPS OR DOUBTS",
    2: "INTEGRITY FAILURE",
    3: "CANNOT VERIFY",
    4: "WRONG USE",
}
INCOMPLETE = frozenset("RMX")


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check and how it went."""

    n: int
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class PointReport:
    """One metering point over the asked period; energies in Wh."""

    slots: int
    grades: dict[str, int]
    wh: int
    exp_wh: int | None
    bridged_wh: int
    serial: str | None
    first: int | None
    last: int | None
    status: dict[str, dict[str, int]] = field(default_factory=dict)
    """Metrological status → slots that were read, and their Wh."""
    verified_wh: int = 0
    spots: list[dict[str, object]] = field(default_factory=list)
    independent: list[dict[str, object]] = field(default_factory=list)
    without_spot: list[str] = field(default_factory=list)
    """Quarters of the asked period without a spot reading by somebody outside the site."""
    lowered: dict[str, int] = field(default_factory=dict)
    """Rule → slots that it lowers to C."""

    @classmethod
    def of(cls, point: MeteringPoint) -> PointReport:
        """Out of a finished walk."""
        totals = point.asked_totals
        return cls(
            slots=point.slots,
            grades=point.counts(),
            wh=totals.wh,
            exp_wh=totals.exp_wh,
            bridged_wh=totals.bridged_wh,
            serial=point.serial,
            first=(point.first or {}).get(IMPORT),
            last=(point.last or {}).get(IMPORT),
            status=point.standing.by_status(),
            verified_wh=point.verified_wh(),
            spots=[spot.report() for spot in point.spots.found],
            independent=point.standing.independent,
            without_spot=[name for name in point.standing.quarters() if name not in point.spots.quarters()],
        )


@dataclass(slots=True)
class Report:
    """Everything that was found."""

    path: Path
    period: Period
    site: str | None = None
    sha256: str | None = None
    register_version: int | None = None
    records: int = 0
    checkpoints: int = 0
    cosigned: int = 0
    withheld: int = 0
    """Leaves of the log whose records are not in the bundle."""
    orders: int = 0
    answers: int = 0
    reports: int = 0
    """Reports of orders whose figures were recomputed."""
    checks: list[Check] = field(default_factory=list)
    errors: list[VerifyError] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    points: dict[str, PointReport] = field(default_factory=dict)
    plausibility: Table | None = None
    """What the readings say of each other; ``None`` where the run ended before."""
    balance: Summary | None = None
    verdicts: Judgement | None = None
    compared: Compared | None = None

    @property
    def exit(self) -> int:
        """0 intact and complete, 1 visible gaps or doubts, 2 integrity failure, 3 cannot verify, 4 wrong use."""
        codes = {error.exit_code for error in self.errors}
        if codes:
            return 2 if 2 in codes else max(codes)
        if len(self.checks) != len(NAMES) or not all(check.ok for check in self.checks):
            return 3
        incomplete = any(INCOMPLETE & point.grades.keys() for point in self.points.values())
        return 1 if incomplete or self.doubts else 0

    def passed(self, n: int, name: str, detail: str) -> None:
        """A check that held."""
        self.checks.append(Check(n, name, True, detail))

    def failed(self, error: VerifyError) -> None:
        """An error that ended the run."""
        self.errors.append(error)
        n = error.check or len(self.checks) + 1
        if n in NAMES and all(check.n != n for check in self.checks):
            self.checks.append(Check(n, NAMES[n], False, error.line()))

    def judge(self, n: int, name: str, detail: str) -> None:
        """A check over many things: it holds if no error of its number was found."""
        found = [error for error in self.errors if error.check == n]
        if not found:
            self.passed(n, name, detail)
        else:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            self.checks.append(Check(n, name, False, found[0].line() + more))

    def counted(self, records: Iterator[Record], *, faults: bool) -> Iterator[Record]:
        """The same records, counted; with ``faults`` what is wrong with their time is noted here."""
        for record in records:
            self.records += 1
            if faults and record.fault is not None and len(self.errors) < MAX_ERRORS:
                self.errors.append(record.fault)
            yield record

    def _evidence(self) -> str:
        if not self.cosigned:
            return "none: no cosigned checkpoint in this bundle, so no slot is better than C"
        withheld = f"; {self.withheld} records of the log are not in this bundle" if self.withheld else ""
        return f"{self.cosigned} of {self.checkpoints} checkpoints cosigned as the register's policy asks{withheld}"

    def _beside(self) -> Iterator[str]:
        """What the site itself balanced, what the readings say of each other, and what the collector judged."""
        if self.balance is not None:
            found = self.balance
            known = f"{found.slots} slots, {found.unknown} of them not known, {found.over} out of tolerance"
            sums = f"main {_kwh(found.main_wh)} kWh, unexplained {_kwh(found.residual_wh)} kWh"
            yield f"Balance        {known} | {sums}"
        if self.plausibility is not None:
            yield from self.plausibility.lines()
        if self.verdicts is None:
            yield "Verdicts       no verdicts"
        else:
            first, *others = self.verdicts.lines()
            yield f"Verdicts       {first}"
            beside = self.compared.lines() if self.compared is not None else ()
            yield from (f"      {line}" for line in (*others, *beside))

    def to_json(self) -> str:
        """The report for machines."""
        doc: dict[str, Any] = {
            "exit": self.exit,
            "verdict": VERDICTS[self.exit],
            "bundle": self.path.name,
            "sha256": self.sha256,
            "site": self.site,
            "period": {"from": self.period.start_s, "to": self.period.end_s},
            "records": self.records,
            "checkpoints": self.checkpoints,
            "cosigned": self.cosigned,
            "withheld": self.withheld,
            "orders": {"received": self.orders, "answers": self.answers}
            | ({"reports": self.reports} if self.reports else {}),
            "points": {
                name: {
                    "slots": point.slots,
                    "grades": point.grades,
                    "wh": point.wh,
                    "exp_wh": point.exp_wh,
                    "bridged_wh": point.bridged_wh,
                    "verified_wh": point.verified_wh,
                    "status": point.status,
                    "spots": point.spots,
                    "independent": point.independent,
                    "without_spot": point.without_spot,
                    "lowered": point.lowered,
                }
                for name, point in self.points.items()
            },
            "plausibility": None if self.plausibility is None else self.plausibility.report(),
            **({"balance": asdict(self.balance)} if self.balance is not None else {}),
            **({"verdicts": self.verdicts.report()} if self.verdicts is not None else {}),
            **({"compared": self.compared.report()} if self.compared is not None else {}),
            "checks": [{"n": c.n, "name": c.name, "ok": c.ok, "detail": c.detail} for c in self.checks],
            "errors": [error.line() for error in self.errors[:MAX_ERRORS]],
            "doubts": self.doubts[:MAX_ERRORS],
        }
        return json.dumps(doc, ensure_ascii=False, indent=1)

    def to_text(self) -> str:
        """The report for a person."""
        span = f"{_utc(self.period.start_s)} to {_utc(self.period.end_s)}"
        lines = [
            f"TIZGIN VERIFY  {self.path.name}  sha256 {self.sha256 or '-'}",
            f"Site           {self.site or '-'}   period {span}   register version {self.register_version or '-'}",
        ]
        lines += [f"{c.n:>2} {c.name:<14}{'OK    ' if c.ok else 'FAILED'}  {c.detail}" for c in self.checks]
        for name, point in self.points.items():
            grades = ", ".join(f"{count} {grade}" for grade, count in point.grades.items())
            lines.append(f"Point {name}  serial {point.serial or '-'}: {point.slots} slots = {grades}")
            exported = "" if point.exp_wh is None else f" | export {_kwh(point.exp_wh)}"
            bridged = f"bridged by registers {_kwh(point.bridged_wh)}"
            lines.append(f"      measured {_kwh(point.wh)} kWh | {bridged}{exported}")
            lines.append(f"      register bits first {point.first} last {point.last}")
            lines += [f"      {line}" for line in _standing(point)]
        if self.points:
            lines.append("Grades         A as B, papers valid, and vouched for by a source outside the site,")
            lines.append("               B read, signed and witnessed in time, C late, not witnessed or implausible,")
            lines.append("               Z no energy (proven), R bridged by registers, M missing, X failed")
            lines.append(f"Time evidence  {self._evidence()}")
            lines += self._beside()
        lines += [f"ERROR          {error.line()}" for error in self.errors[:50]]
        if len(self.errors) > 50:
            lines.append(f"ERROR          and {len(self.errors) - 50} more")
        lines += [f"DOUBT          {doubt}" for doubt in self.doubts[:50]]
        lines.append(f"VERDICT        {VERDICTS[self.exit]} (exit {self.exit})")
        # What came out of the files may hold control characters; a terminal must not act on them.
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def _standing(point: PointReport) -> Iterator[str]:
    """The other axis of one point, and who outside the site vouches for it."""
    axis = ", ".join(f"{name} {_kwh(entry['wh'])} ({entry['slots']} slots)" for name, entry in point.status.items())
    yield f"verified {_kwh(point.verified_wh)} kWh (A or B, papers valid) | by status: {axis or '-'}"
    if point.lowered:
        yield "lowered to C: " + ", ".join(f"{count} slots by {rule}" for rule, count in point.lowered.items())
    for one in point.independent:
        agrees = {True: "agrees", False: "DIFFERS", None: "cannot be compared"}[one["agrees"]]  # type: ignore[index] # set to one of these
        span = f"{_utc(int(str(one['from'])))} to {_utc(int(str(one['to'])))}"
        yield f"independent {_kwh(int(str(one['wh'])))} kWh, {span}, by {one['who']}: {agrees}"
    for spot in point.spots:
        signed = "signed" if spot["signed"] else "UNSIGNED"
        when, off = _utc(int(str(spot["seen"])) // 1000), _kwh(int(str(spot["diff_wh"])))
        yield f"spot reading {when} by {spot['who']} ({spot['organisation']}), {signed}, register - display {off} kWh"
    if point.without_spot:
        yield f"no spot reading from outside the site in {', '.join(point.without_spot)}"


def _kwh(wh: int) -> str:
    whole, rest = divmod(abs(wh), 1000)
    return f"{'-' if wh < 0 else ''}{whole:,}".replace(",", " ") + f".{rest:03d}"


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
