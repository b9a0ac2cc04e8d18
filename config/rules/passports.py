"""Metrological passports: is a metering point's reading worth anything before an inspector on a given day?

:func:`status` answers for one slot and is what reports use; it never touches a number. :func:`dates` and
:func:`transformers` are what the check of a site file says about the papers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from fractions import Fraction

from config.devices import Passport, RatioPassport, TransformerPassport
from config.problems import Path, Problem
from config.rules.facts import Facts, repeated
from wire.rollup import LOCAL

WARN_DAYS = (7, 30, 90)


class Status(StrEnum):
    """Metrological status of a slot, the worst first."""

    NOT_IN_REGISTER = "not_in_register"
    SEAL_BROKEN = "seal_broken"
    VERIFICATION_EXPIRED = "verification_expired"
    CT_VT_EXPIRED = "ct_vt_expired"
    RATIO_UNCONFIRMED = "ratio_unconfirmed"
    PASSPORT_INCOMPLETE = "passport_incomplete"
    """No date of verification is written down: nobody can say that it is valid."""
    VALID = "valid"


@dataclass(frozen=True, slots=True)
class Metrology:
    """The status of one slot, and everything that stands against it."""

    status: Status
    reasons: tuple[tuple[Status, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Paper:
    """One dated paper of a passport."""

    what: str
    expires: date
    path: Path
    instrument: bool
    """True for transformers, false for the meter itself."""


def local_day(t_s: int) -> date:
    """Day in Kazakhstan that holds an instant (epoch s): a certificate ends with the day that its paper names."""
    return datetime.fromtimestamp(t_s, UTC).astimezone(LOCAL).date()


def papers(passport: Passport) -> tuple[Paper, ...]:
    """Everything in a passport that has a date of expiry."""
    found: list[Paper] = []
    if passport.expires is not None:
        found.append(Paper("verification of the meter", passport.expires, ("expires",), False))
    for name, ratio in (("ct", passport.ct), ("vt", passport.vt)):
        if ratio is None:
            continue
        if ratio.expires is not None:
            found.append(Paper(f"verification of the {name.upper()} set", ratio.expires, (name, "expires"), True))
        for at, one in enumerate(ratio.phases):
            if one.expires is not None:
                what = f"verification of the {name.upper()} of phase {one.phase.upper()} ({one.serial})"
                found.append(Paper(what, one.expires, (name, "phases", at, "expires"), True))
    return tuple(found)


def status(
    passport: Passport,
    slot_t0: int,
    *,
    registered: bool | None = None,
    ratio_agrees: bool | None = None,
) -> Metrology:
    """Metrological status of one slot.

    Args:
        passport: as it stood in that slot.
        slot_t0: beginning of the slot, epoch s.
        registered: is the point in the signed register with this meter and these ratios? ``None``: not asked.
        ratio_agrees: do the ratios that the meter is set to agree with the passport? ``None``: it cannot be read.
    """
    day = local_day(slot_t0)
    found: list[tuple[Status, str]] = []
    if registered is False:
        found.append((Status.NOT_IN_REGISTER, "the register does not have this point with this meter and these ratios"))
    for seal in passport.seals:
        if seal.broken and (seal.date is None or seal.date <= day):
            place = f" at {seal.place}" if seal.place else ""
            found.append((Status.SEAL_BROKEN, f"seal {seal.no}{place} is broken or missing"))
    for paper in papers(passport):
        if paper.expires < day:
            worst = Status.CT_VT_EXPIRED if paper.instrument else Status.VERIFICATION_EXPIRED
            found.append((worst, f"{paper.what} expired on {paper.expires.isoformat()}"))
    if ratio_agrees is False:
        found.append((Status.RATIO_UNCONFIRMED, "the meter is set to other ratios than the passport has"))
    elif (passport.ct or passport.vt) and ratio_agrees is None and not _checked(passport, day):
        found.append((Status.RATIO_UNCONFIRMED, "nobody has signed that the ratios were checked on site"))
    found += [(Status.PASSPORT_INCOMPLETE, f"no date of verification for {what}") for what in _undated(passport)]
    order = list(Status)
    found.sort(key=lambda item: order.index(item[0]))
    return Metrology(found[0][0] if found else Status.VALID, tuple(found))


def ratio_agrees(passport: Passport, ct_read: Fraction | None, vt_read: Fraction | None) -> bool | None:
    """Are the ratios that a meter is set to those of its passport? ``None`` where neither can be read.

    A ratio that the agent applies has to be 1 in the meter: otherwise it would be applied twice.
    """
    applied = passport.ratio_applied_in
    wanted = (
        Fraction(1) if applied == "agent" else _ratio(passport.ct),
        _ratio(passport.vt) if applied == "meter" else Fraction(1),
    )
    known = [want == read for want, read in zip(wanted, (ct_read, vt_read), strict=True) if read is not None]
    return all(known) if known else None


def _ratio(ratio: RatioPassport | None) -> Fraction:
    return Fraction(1) if ratio is None else Fraction(ratio.num, ratio.den)


def _checked(passport: Passport, day: date) -> bool:
    return passport.ratio_checked is not None and passport.ratio_checked.date <= day


def _undated(passport: Passport) -> Iterator[str]:
    if passport.expires is None:
        yield "the meter"
    for name, ratio in (("CT", passport.ct), ("VT", passport.vt)):
        if ratio is None or ratio.expires is not None:
            continue
        without = [one.phase.upper() for one in ratio.phases if one.expires is None]
        if without or not ratio.phases:
            yield f"the {name} of phase {', '.join(without)}" if without else f"the {name} set"


def days_left(passport: Passport, today: date) -> tuple[tuple[Paper, int], ...]:
    """Papers that end within 90 days or have ended, with the days left (negative: ended), the soonest first."""
    found = [(paper, (paper.expires - today).days) for paper in papers(passport)]
    return tuple(sorted((f for f in found if f[1] <= max(WARN_DAYS)), key=lambda item: item[1]))


def dates(facts: Facts, today: date) -> Iterator[Problem]:
    """Papers that have ended or end within 90, 30 or 7 days, and broken seals."""
    for at, point in enumerate(facts.site.metering_points):
        path: Path = ("metering_points", at, "passport")
        for paper, left in days_left(point.passport, today):
            if left < 0:
                expected = "a date that has not passed"
                todo = f"the readings of {point.id} stay as they are and count as not verified until it is renewed"
            else:
                within = next(days for days in WARN_DAYS if left <= days)
                expected = f"more than {within} days"
                todo = f"have it renewed before {(paper.expires + timedelta(days=1)).isoformat()}"
            seen = f"{paper.what} of {point.id} until {paper.expires.isoformat()}"
            told = f"{seen}, {left} days left" if left >= 0 else f"{seen}, {-left} days ago"
            yield facts.warning((*path, *paper.path), told, expected, todo)
        for number, seal in enumerate(point.passport.seals):
            if seal.broken:
                yield facts.warning(
                    (*path, "seals", number),
                    f"seal {seal.no} of {point.id} broken",
                    "a whole seal",
                    "call who sealed it; until then the readings count as not verified",
                )


def transformers(facts: Facts) -> Iterator[Problem]:
    """Transformers of one set have one ratio, a phase each, and stand in one place only."""
    serials: list[str] = []
    for at, point in enumerate(facts.site.metering_points):
        passport, path = point.passport, ("metering_points", at, "passport")
        for name, ratio in (("ct", passport.ct), ("vt", passport.vt)):
            if ratio is not None:
                serials += [one.serial for one in ratio.phases]
                yield from _set(facts, (*path, name), ratio)
    for serial in sorted(repeated(serials)):
        yield facts.error(
            ("metering_points",),
            f"transformer {serial} at two places",
            "each transformer at one place",
            "correct the serial numbers: a transformer that was moved takes its papers with it",
        )


def _set(facts: Facts, path: Path, ratio: RatioPassport) -> Iterator[Problem]:
    for phase in sorted(repeated(one.phase for one in ratio.phases)):
        yield facts.error((*path, "phases"), f"phase {phase} twice", "each phase once", "correct the phases")
    for at, one in enumerate(ratio.phases):
        if not _same_ratio(one, ratio):
            yield facts.error(
                (*path, "phases", at),
                f"phase {one.phase} with {one.num or ratio.num}:{one.den or ratio.den}",
                f"{ratio.num}:{ratio.den} as the set",
                "look at the plate: one transformer of another ratio makes every reading wrong",
            )


def _same_ratio(one: TransformerPassport, ratio: RatioPassport) -> bool:
    return (one.num or ratio.num) * ratio.den == (one.den or ratio.den) * ratio.num
