"""Is what a site file says safe? Errors forbid arming; warnings are what a person has to know.

The rules are in :mod:`config.rules`, one subject per file. Drivers are not imported: whether a profile exists, and
what its outputs can do, comes from the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from config.balance import BalanceScheme, balance_scheme
from config.problems import Problem, SourceMap
from config.rules import cooling, networks, outputs, passports, references, standing, supply, switches, topology
from config.rules import site as site_rules
from config.rules.facts import Facts, ProfileFacts, Profiles
from config.rules.outputs import Output
from config.site import Site

__all__ = ["CheckResult", "Output", "ProfileFacts", "Profiles", "check"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """All problems in the order of the file, and every output with its verdict.

    ``outputs`` is empty where the references or the shape of the graph are broken: nothing can be computed then.
    """

    problems: tuple[Problem, ...]
    outputs: tuple[Output, ...]
    balance: BalanceScheme | None = None
    """What the site's boundary is balanced against; ``None`` where ``outputs`` is empty for the reason above."""

    @property
    def ok(self) -> bool:
        """No errors; warnings do not count."""
        return not self.errors

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that forbid the file."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Problems that a person has to know of."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")


def check(
    site: Site,
    *,
    source: SourceMap | None = None,
    profiles: Profiles | None = None,
    today: date | None = None,
) -> CheckResult:
    """Check a site.

    Args:
        source: lines of the file, from :func:`config.loader.read_site`; without it problems name places, not lines.
        profiles: profile id → facts or None; without it profiles and their terminals are not checked.
        today: the day in Kazakhstan; without it nothing is said about papers that end.
    """
    facts = Facts(site, source or SourceMap(), profiles)
    problems = [*references.duplicates(facts), *references.references(facts), *networks.subnets(facts)]
    if not problems:
        problems += [*topology.shape(facts), *topology.cycles(facts)]
    if problems:  # dark sets of a broken graph would be wrong, and one mistake would be told ten times
        return CheckResult(_ordered(problems), ())
    found, verdicts = outputs.judge(facts)
    problems += [*found, *_rest(facts)]
    if today is not None:
        problems += passports.dates(facts, today)
    return CheckResult(_ordered(problems), tuple(verdicts), balance_scheme(site, facts.graph))


def _rest(facts: Facts) -> Iterator[Problem]:
    yield from topology.never_live(facts)
    yield from switches.closing(facts)
    yield from switches.terminals(facts)
    yield from switches.counters(facts)
    yield from switches.options(facts)
    yield from switches.saon(facts)
    yield from outputs.together(facts)
    yield from outputs.hints(facts)
    yield from networks.urls(facts)
    yield from networks.masters(facts)
    yield from networks.profiles(facts)
    yield from networks.meters(facts)
    yield from networks.simulation_networks(facts)
    yield from cooling.loops(facts)
    yield from cooling.miners(facts)
    yield from supply.order_path(facts)
    yield from site_rules.reservation(facts)
    yield from standing.limits(facts)
    yield from site_rules.reachable(facts)
    yield from site_rules.agent(facts)
    yield from site_rules.measured(facts)
    yield from passports.transformers(facts)


def _ordered(problems: list[Problem]) -> tuple[Problem, ...]:
    unique = list(dict.fromkeys(problems))
    return tuple(sorted(unique, key=lambda problem: (problem.severity != "error", problem.line or 0)))
