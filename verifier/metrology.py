"""Metrological status of a slot, out of the passport that its ``bind`` record holds. It never touches a number."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

from verifier.canonical import Object
from verifier.energy import ratio

STATUSES = (
    "not_in_register",
    "seal_broken",
    "verification_expired",
    "ct_vt_expired",
    "ratio_unconfirmed",
    "passport_incomplete",
    "valid",
)
"""The worst first."""
VALID = "valid"
ONE_TIME = 1_709_229_600
"""Since 2024-03-01T00:00 (UTC+6) all of Kazakhstan has UTC+5; what was before counts as UTC+6."""


def local(t_s: int) -> datetime:
    """An instant (epoch s) as a clock on a wall in Kazakhstan shows it; without a time zone."""
    hours = 5 if t_s >= ONE_TIME else 6
    return (datetime.fromtimestamp(t_s, UTC) + timedelta(hours=hours)).replace(tzinfo=None)


def quarter(t_s: int) -> str:
    """The calendar quarter that holds an instant: ``2026-Q4``."""
    here = local(t_s)
    return f"{here.year}-Q{(here.month + 2) // 3}"


class Passport:
    """The papers of one ``bind`` record.

    Args:
        bind: the record's fields.
        registered: does the register have this point with this meter?
    """

    def __init__(self, bind: Object, *, registered: bool) -> None:
        found = bind.get("passport")
        self._doc: dict[str, Any] = found if isinstance(found, dict) else {}
        self._registered = registered
        self._agrees = self._ratio_agrees(bind)
        self._days: dict[date, str] = {}

    def status(self, t0: int) -> str:
        """Status of the slot that begins at ``t0`` (epoch s): the worst thing that stands against it."""
        day = local(t0).date()
        if day not in self._days:
            self._days[day] = min(self._against(day), key=STATUSES.index, default=VALID)
        return self._days[day]

    def _against(self, day: date) -> Iterator[str]:
        if not self._registered:
            yield "not_in_register"
        for seal in _list(self._doc.get("seals")):
            since = _day(seal.get("date"))
            if seal.get("broken") is True and (since is None or since <= day):
                yield "seal_broken"
        yield from _paper(self._doc.get("expires"), day, "verification_expired")
        sets = [one for name in ("ct", "vt") if isinstance(one := self._doc.get(name), dict)]
        for one in sets:
            phases = _list(one.get("phases"))
            whole = one.get("expires") is not None
            if whole or not phases:
                yield from _paper(one.get("expires"), day, "ct_vt_expired")
            for phase in phases:
                if not whole or phase.get("expires") is not None:
                    yield from _paper(phase.get("expires"), day, "ct_vt_expired")
        if self._agrees is False or (sets and self._agrees is None and not self._checked(day)):
            yield "ratio_unconfirmed"

    def _checked(self, day: date) -> bool:
        check = self._doc.get("ratio_checked")
        when = _day(check.get("date")) if isinstance(check, dict) else None
        return when is not None and when <= day

    @staticmethod
    def _ratio_agrees(bind: Object) -> bool | None:
        """Is the meter set to the ratios of the bind? What the agent applies has to be 1 in the meter."""
        applied = bind.get("ratio_applied_in")
        known: list[bool] = []
        for name, in_meter in (("ct", applied != "agent"), ("vt", applied == "meter")):
            read = bind.get(f"{name}_read")
            if read is not None:
                known.append(ratio(read) == (ratio(bind[name]) if in_meter else Fraction(1)))
        return all(known) if known else None


def applied_ratio(bind: Object) -> Fraction:
    """What the agent multiplies the meter's own registers by: nothing, both ratios, or that of the voltage alone.

    Raises:
        ValueError: the bind says neither ``meter``, ``agent`` nor ``both``.
    """
    applied = bind.get("ratio_applied_in")
    if applied not in {"meter", "agent", "both"}:
        raise ValueError(f"ratios applied in {str(applied)[:20]!r}")
    vt = ratio(bind["vt"])
    return Fraction(1) if applied == "meter" else vt if applied == "both" else ratio(bind["ct"]) * vt


def _paper(expires: Any, day: date, status: str) -> Iterator[str]:
    """A paper is good through the day that it names; one without a date says nothing."""
    last = _day(expires)
    if last is None:
        yield "passport_incomplete"
    elif last < day:
        yield status


def _day(text: Any) -> date | None:
    try:
        return date.fromisoformat(text) if isinstance(text, str) and len(text) == 10 else None
    except ValueError:
        return None


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
