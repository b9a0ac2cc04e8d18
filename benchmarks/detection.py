"""Are hidden load, an under-reading transformer and a by-passed meter found, how soon, and how often is one cried out?

``python -m benchmarks.detection --json``. The site and its noise are those of :mod:`benchmarks.vee_plant`; all 26 rules
judge, day by day as central does after each day. Seeds follow from the hash of the thresholds' file and a number: who
changes a threshold draws other seeds. The thresholds were chosen on seeds 0 to 59.
"""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import Pool
from typing import Any

from benchmarks.common import parser, report
from benchmarks.vee_plant import ATTACKS, DAY, FEEDERS, SLOT_S, T0, WARM_UP_DAYS, Attack, Plant, plant
from central.vee.judge import judge
from central.vee.limits import Thresholds, load
from central.vee.model import Finding, SiteSlots

SEEDS = 20
MONTH_DAYS = 30
DAY_S = DAY * SLOT_S
SOONEST_DAYS = 8
"""How many daily runs an attack is followed for before it counts as missed."""
STATED_H: dict[Attack, int] = {"before": 48, "behind": 120, "ct": 48, "bypass": 48}
STATED_H |= {"unfed": 24, "backwards": 24, "cover": 24}
"""From the first hidden slot to the daily run that tells of it, hours, at most."""
RULES = {"before": {"V20"}, "behind": {"V21"}, "ct": {"V20", "V21"}, "bypass": {"V20", "V21"}}
RULES |= {"unfed": {"V17"}, "backwards": {"V17"}, "cover": {"V23"}}


def seed_of(number: int, limits: Thresholds) -> int:
    """The test seed of a number, bound to the thresholds."""
    return int.from_bytes(hashlib.sha256(f"{limits.sha256} {number}".encode()).digest()[:4])


def on_day(made: SiteSlots, day: int) -> SiteSlots:
    """The site as central sees it after a day: that day judged, 30 days of history, nothing later."""
    first, last = max(0, day - MONTH_DAYS) * DAY, (day + 1) * DAY
    return replace(
        made,
        since=T0 + first * SLOT_S,
        start=T0 + day * DAY_S,
        end=T0 + last * SLOT_S,
        points={name: replace(p, slots=p.slots[first:last]) for name, p in made.points.items()},
        balances=made.balances[first:last],
    )


def told(site: SiteSlots, limits: Thresholds) -> list[Finding]:
    """What a day's run holds against the site; warnings about gaps that are there are no flags."""
    return [f for f in judge(site, limits).findings if f.severity != "warn"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed and attack."""

    seed: int
    attack: Attack
    point: str | None
    delay_h: float | None
    """To the daily run that told of it; ``None``: not found."""
    rules: tuple[str, ...]
    strangers: tuple[tuple[str, str], ...]
    """(rule, point) of flags at points that nothing was done to."""


def attacked(made: Plant, limits: Thresholds) -> Outcome:
    """Follow an attack day by day until it is told."""
    right = {"M", made.feeder}
    strangers: set[tuple[str, str]] = set()
    for day in range(WARM_UP_DAYS, WARM_UP_DAYS + SOONEST_DAYS):
        found = told(on_day(made.site, day), limits)
        strangers |= {(f.rule, f.point) for f in found if f.point not in right}
        rules = {f.rule for f in found if f.point in right and f.rule in RULES[made.attack]}
        if rules:
            delay = (T0 + (day + 1) * DAY_S - made.begun) / 3600
            return Outcome(0, made.attack, made.feeder, delay, tuple(sorted(rules)), tuple(sorted(strangers)))
    return Outcome(0, made.attack, made.feeder, None, (), tuple(sorted(strangers)))


def honest(made: Plant, limits: Thresholds) -> Outcome:
    """A month of a site to which nothing was done."""
    found = {
        (f.rule, f.point) for day in range(WARM_UP_DAYS, WARM_UP_DAYS + MONTH_DAYS)
        for f in told(on_day(made.site, day), limits)
    }  # fmt: skip
    return Outcome(0, "none", None, None, (), tuple(sorted(found)))


def run(task: tuple[int, Attack], limits: Thresholds) -> Outcome:
    """One seed of one kind."""
    seed, attack = task
    days = WARM_UP_DAYS + (MONTH_DAYS if attack == "none" else SOONEST_DAYS)
    made = plant(seed, attack, days=days)
    done = honest(made, limits) if attack == "none" else attacked(made, limits)
    return replace(done, seed=seed)


def measure(numbers: range, limits: Thresholds, processes: int = 1) -> list[Outcome]:
    """Every attack and an honest month of every test seed."""
    kinds: tuple[Attack, ...] = ("none", *ATTACKS)
    tasks = list(product([seed_of(n, limits) for n in numbers], kinds))
    work = partial(run, limits=limits)
    if processes == 1:
        return [work(task) for task in tasks]
    with Pool(processes) as pool:
        return pool.map(work, tasks, chunksize=1)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """What is printed."""
    months = [o for o in outcomes if o.attack == "none"]
    flags = [(o.seed, rule, point) for o in months for rule, point in o.strangers]
    found: dict[str, Any] = {
        "honest_feeder_months": len(months) * FEEDERS,
        "false_flags": len(flags),
        "false_flags_at": [f"{seed} {rule} {point}" for seed, rule, point in flags],
        "strangers_in_attacked_sites": sum(len(o.strangers) for o in outcomes if o.attack != "none"),
    }
    for attack in ATTACKS:
        runs = [o for o in outcomes if o.attack == attack]
        delays = [o.delay_h for o in runs if o.delay_h is not None]
        found[attack] = {
            "seeds": len(runs),
            "found": len(delays),
            "within_stated": sum(d <= STATED_H[attack] for d in delays),
            "stated_h": STATED_H[attack],
            "longest_h": max(delays, default=None),
            "delay_h_by_seed": {str(o.seed): o.delay_h for o in runs},
        }
    return found


def main() -> None:
    """Print the result."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--processes", type=int, default=2)
    options = arguments.parse_args()
    limits = load()
    begun = time.monotonic()
    numbers = range(3 if options.quick else SEEDS)
    found = summary(measure(numbers, limits, options.processes))
    found |= {"thresholds": limits.version, "thresholds_sha256": limits.sha256}
    found["took_s"] = round(time.monotonic() - begun, 1)
    report("detection", folder=options.folder, ours=found, floor={}, ratios={}, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
