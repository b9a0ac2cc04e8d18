"""Two axes of a slot: its metrological status (papers), and whether plausibility holds something against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central.store.schema import verdicts
from central.vee.limits import CURRENT
from central.vee.model import SITE, Bind
from config.devices import Passport
from config.rules.passports import Status, ratio_agrees, status
from wire.canonical import Json
from wire.registry import RegisteredPoint
from wire.verdicts import verdict_of


def metrological(bind: Bind | None, t0: int, registered: RegisteredPoint | None, *, has_register: bool) -> Status:
    """Status of one slot from the bind in force and the register.

    Args:
        has_register: the register names points of this site; without it nobody is asked whether this is one.
    """
    if bind is None:
        return Status.PASSPORT_INCOMPLETE
    known = fits(bind, registered) if has_register else None
    passport = bind.passport or Passport()
    agrees = ratio_agrees(passport, bind.ct_read, bind.vt_read)
    return status(passport, t0, registered=known, ratio_agrees=agrees).status


def fits(bind: Bind, registered: RegisteredPoint | None) -> bool:
    """Is the meter that is bound the one in the register, with its ratios?"""
    if registered is None:
        return False
    ratios = Fraction(registered.ct_num, registered.ct_den), Fraction(registered.vt_num, registered.vt_den)
    return (registered.serial is None or registered.serial == bind.sn) and (bind.ct, bind.vt) == ratios


@dataclass(frozen=True, slots=True)
class Plausible:
    """What the newest runs say of a time: where they judged, and what failed there."""

    runs: tuple[tuple[int, int, int], ...]
    """(run, t0, t1), the newest first."""
    failed: Mapping[int, tuple[tuple[str, int, int], ...]]
    """Run → (point, t0, t1) of findings that fail."""

    def of(self, point: str, t0: int, t1: int) -> bool | None:
        """True: judged and nothing fails; false: something does; null: not judged."""
        for run, first, last in self.runs:
            if first <= t0 and t1 <= last:
                return not any(p in {point, SITE} and a < t1 and t0 < b for p, a, b in self.failed.get(run, ()))
        return None


def plausible(connection: Connection, site: str, start: int, end: int) -> Plausible:
    """The runs by the thresholds in force that judged something of [``start``, ``end``)."""
    here = (verdicts.c.site == site, verdicts.c.thresholds == CURRENT)
    query = (
        sa.select(verdicts.c.run, verdicts.c.t0_s, verdicts.c.t1_s)
        .where(*here, verdicts.c.ty == "vee_run", verdicts.c.t1_s > start, verdicts.c.t0_s < end)
        .order_by(verdicts.c.run.desc())
    )
    runs = tuple((int(r.run), int(r.t0_s), int(r.t1_s)) for r in connection.execute(query))
    failed: dict[int, list[tuple[str, int, int]]] = {}
    for run, point, t0, t1 in _failures(connection, site, {r for r, _, _ in runs}):
        failed.setdefault(run, []).append((point, t0, t1))
    return Plausible(runs, {run: tuple(found) for run, found in failed.items()})


def open_findings(connection: Connection, site: str, since: int, most: int) -> list[Json]:
    """Findings that fail or are suspect in runs that no later one covers, the newest first.

    Args:
        since: epoch s; runs that end before are left out.
    """
    current = plausible(connection, site, since, 2**53)
    standing = [
        run
        for at, (run, t0, t1) in enumerate(current.runs)
        if not any(a <= t0 and t1 <= b for _, a, b in current.runs[:at])
    ]
    query = (
        sa.select(verdicts.c.line)
        .where(verdicts.c.site == site, verdicts.c.run.in_(standing), verdicts.c.severity.in_(("fail", "suspect")))
        .order_by(verdicts.c.t1_s.desc(), verdicts.c.n)
        .limit(most)
    )
    return [verdict_of(bytes(line)) for (line,) in connection.execute(query)]


def _failures(connection: Connection, site: str, wanted: set[int]) -> Iterator[tuple[int, str, int, int]]:
    if not wanted:
        return
    query = sa.select(verdicts.c.run, verdicts.c.point, verdicts.c.t0_s, verdicts.c.t1_s).where(
        verdicts.c.site == site, verdicts.c.severity == "fail", verdicts.c.run >= min(wanted)
    )
    for row in connection.execute(query):
        if row.run in wanted:
            yield int(row.run), str(row.point), int(row.t0_s), int(row.t1_s)
