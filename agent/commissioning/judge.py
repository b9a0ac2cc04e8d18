"""Judgement of what the meters did when an output opened. Pure; powers in W."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from agent.commissioning.plan import Plan

TOLERANCE = 0.2
"""The proving meter has to fall by what is expected, give or take this share of it."""
MOVED_SHARE = 0.1
"""Another meter moved if it changed by this share of what was expected."""
LEAST_W = 50
"""Less than this is not a load by which anything could be proven."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A point over a few fresh samples; ``power_w`` is ``None`` where it did not speak."""

    power_w: int | None = None
    spread_w: int = 0


SILENT = Seen()


def seen(values: Sequence[int]) -> Seen:
    """Median and spread of some samples."""
    return Seen(round(median(values)), max(values) - min(values)) if values else SILENT


def needed_w(plan: Plan, before: Mapping[str, Seen]) -> int:
    """The least power that can be told from what the meters do by themselves."""
    spreads = [before.get(p, SILENT).spread_w for p in (plan.meter, *plan.still)]
    return max(LEAST_W, math.ceil(max(spreads, default=0) / MOVED_SHARE))


def too_small(plan: Plan, expected_w: int, before: Mapping[str, Seen]) -> str | None:
    """Why nothing could be told from an opening now; ``None`` where it could."""
    if expected_w < LEAST_W:
        return f"only {expected_w} W behind {plan.output}: too little to see it go"
    for point in (plan.meter, *plan.still):
        spread = before.get(point, SILENT).spread_w
        if spread > MOVED_SHARE * expected_w:
            return (
                f"only {expected_w} W behind {plan.output}, and {point} moves by {spread} W of itself: "
                f"at least {needed_w(plan, before)} W are needed to tell"
            )
    return None


def mute(plan: Plan, before: Mapping[str, Seen]) -> tuple[str, ...]:
    """Points that have to be judged and do not speak."""
    return tuple(p for p in (plan.meter, *plan.still) if before.get(p, SILENT).power_w is None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen, and what is wrong with it."""

    seen_w: int
    moved: tuple[str, ...]
    """Points that moved or went silent and should not have."""
    why: tuple[str, ...]


def judge(plan: Plan, expected_w: int, before: Mapping[str, Seen], after: Mapping[str, Seen]) -> Verdict:
    """Compare the meters before and after the opening."""
    why: list[str] = []
    was, now = before.get(plan.meter, SILENT).power_w, after.get(plan.meter, SILENT).power_w
    fell = 0
    if was is None or now is None:
        why.append(f"meter {plan.meter} does not say what it measures")
    else:
        fell = max(0, was - now)
        if not (1 - TOLERANCE) * expected_w <= fell <= (1 + TOLERANCE) * expected_w:
            why.append(f"meter {plan.meter} fell by {fell} W, expected {expected_w} W ±{TOLERANCE:.0%}")
    moved: list[str] = []
    for point in plan.still:
        was, now = before.get(point, SILENT).power_w, after.get(point, SILENT).power_w
        if was is not None and now is None:
            moved.append(point)
            why.append(f"meter {point} went silent and should have gone on")
        elif was is not None and now is not None and abs(was - now) > MOVED_SHARE * expected_w:
            moved.append(point)
            word = "fell" if now < was else "rose"
            why.append(f"meter {point} {word} by {abs(was - now)} W and should not have moved")
    return Verdict(fell, tuple(moved), tuple(why))
