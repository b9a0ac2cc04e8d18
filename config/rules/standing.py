"""Standing limits of the connection: they fit the contract, and what is to keep them can."""

from __future__ import annotations

from collections.abc import Iterator

from config.problems import Path, Problem
from config.rules.facts import Facts

AT: Path = ("site", "standing")


def limits(facts: Facts) -> Iterator[Problem]:
    """Permitted power and plan leave room for the contract and the reservation; the ramp for a machine."""
    head = facts.site.site
    own, emergency = head.standing, head.reservation.emergency_kw
    if own.permitted_kw is not None and own.permitted_kw < head.contracted_kw:
        yield facts.error(
            (*AT, "permitted_kw"),
            f"{own.permitted_kw:g}",
            f"at least contracted_kw {head.contracted_kw:g}",
            "correct the technical conditions or the contract",
        )
    for hour, planned in enumerate(own.hourly_plan_kw or ()):
        if planned < emergency:
            yield facts.error(
                (*AT, "hourly_plan_kw"),
                f"{planned:g} for hour {hour}",
                f"at least the emergency reservation {emergency:g}",
                "correct the plan: load below the reservation is never taken down",
            )
        elif own.permitted_kw is not None and planned > own.permitted_kw:
            yield facts.error(
                (*AT, "hourly_plan_kw"),
                f"{planned:g} for hour {hour}",
                f"at most permitted_kw {own.permitted_kw:g}",
                "correct the plan or the technical conditions",
            )
    if own.enforce:
        yield from _enforced(facts)


def _enforced(facts: Facts) -> Iterator[Problem]:
    own = facts.site.site.standing
    movable = [group for group in facts.site.miners if group.writes_allowed]
    largest = max((group.nameplate_w for group in movable), default=0) / 1000
    if not movable:
        yield facts.error(
            (*AT, "enforce"),
            "true with no miners with writes_allowed",
            "machines that may be put to sleep: a standing limit moves no switch",
            "allow writes, or leave enforce: false",
        )
    if own.ramp_kw_per_min is not None and own.ramp_kw_per_min < largest:
        yield facts.error(
            (*AT, "ramp_kw_per_min"),
            f"{own.ramp_kw_per_min:g}, and enforce: true",
            f"at least one machine a minute, {largest:g}",
            "with less, every machine that starts would be put to sleep again",
        )
