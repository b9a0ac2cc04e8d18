"""All rules over one site. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from central.vee import balance, calendar, events, machines, meters, outside, phases, registers, values
from central.vee.limits import Thresholds
from central.vee.model import SITE, Finding, Said, SiteSlots, Unjudged

RULES_VERSION = 2
"""Of the rules themselves; rises when one judges otherwise by the same thresholds."""
Rule = Callable[[SiteSlots, Thresholds], Iterator[Said]]

RULES: dict[str, Rule] = {
    "V01": calendar.gaps,
    "V02": calendar.doubles,
    "V03": calendar.sizes,
    "V04": values.negative,
    "V05": values.rollover,
    "V06": values.high,
    "V07": values.zero,
    "V08": values.spikes,
    "V09": values.frozen,
    "V10": registers.sums,
    "V11": registers.integral,
    "V12": registers.profile,
    "V13": meters.clock,
    "V14": meters.identity,
    "V15": meters.ratios,
    "V16": meters.units,
    "V17": phases.phases,
    "V18": registers.export,
    "V19": meters.check_meters,
    "V20": balance.balance,
    "V21": machines.ratios,
    "V22": machines.residuals,
    "V23": events.events,
    "V24": registers.siblings,
    "V25": calendar.bridged,
    "V26": outside.outside,
}
WHOLE_SITE = frozenset({"V20"})
OF_FEEDERS = frozenset({"V21", "V22"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all rules said of one site and time."""

    findings: tuple[Finding, ...]
    unjudged: tuple[Unjudged, ...]
    judged: dict[str, int]
    """Rule → points that it could judge."""

    def worst(self) -> str | None:
        """The worst severity, ``None`` where nothing was found."""
        return next((s for s in ("fail", "suspect", "warn") if any(f.severity == s for f in self.findings)), None)


def judge(site: SiteSlots, limits: Thresholds) -> Verdict:
    """Run every rule."""
    findings: list[Finding] = []
    unjudged: list[Unjudged] = []
    judged: dict[str, int] = {}
    feeders = machines.feeders(site)
    for name, rule in RULES.items():
        points = {SITE} if name in WHOLE_SITE else set(feeders) if name in OF_FEEDERS else set(site.points)
        said = list(rule(site, limits))
        left_out = {(u.point, u.why): u for u in said if isinstance(u, Unjudged)}
        if name in OF_FEEDERS and not feeders:
            left_out[SITE, "no_data"] = Unjudged(name, SITE, "no_data")
        findings += [f for f in said if isinstance(f, Finding)]
        unjudged += left_out.values()
        judged[name] = len(points - {point for point, why in left_out if why != "tolerance_only"})
    findings.sort(key=lambda f: (f.t0, f.rule, f.point))
    return Verdict(tuple(findings), tuple(unjudged), judged)
