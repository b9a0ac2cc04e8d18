"""Figures and points of the whole site: reservation, slots, what an order is measured at."""

from __future__ import annotations

from collections.abc import Iterator

from config.nodes import Storage
from config.problems import Path, Problem
from config.rules.facts import Facts

_SIMULATION_SLOT_S = 10


def reservation(facts: Facts) -> Iterator[Problem]:
    """The reservation fits the contract, and what may never move fits the reservation."""
    head = facts.site.site
    held = head.reservation
    at: Path = ("site", "reservation")
    if held.emergency_kw > head.contracted_kw:
        yield facts.error(
            (*at, "emergency_kw"),
            f"{held.emergency_kw:g}",
            f"at most contracted_kw {head.contracted_kw:g}",
            "correct the reservation",
        )
    if held.technological_kw > head.contracted_kw:
        yield facts.error(
            (*at, "technological_kw"),
            f"{held.technological_kw:g}",
            f"at most contracted_kw {head.contracted_kw:g}",
            "correct the reservation",
        )
    if (held.technological_kw > 0) != (held.technological_min > 0):
        yield facts.error(
            at,
            f"technological_kw {held.technological_kw:g} for technological_min {held.technological_min:g}",
            "both, or neither: a power and how long a process needs it",
            "add the one that is missing",
        )
    fixed = {n: load for n, load in facts.loads.items() if load.kind == "protected" or load.emergency}
    needed = sum(load.rated_kw for load in fixed.values())
    if needed > held.emergency_kw:
        yield facts.error(
            (*at, "emergency_kw"),
            f"{held.emergency_kw:g} with {needed:g} kW of protected and emergency loads",
            "a reservation that holds all that may never be cut",
            "correct the reservation or the loads: a stop could not be reached",
        )


def reachable(facts: Facts) -> Iterator[Problem]:
    """Say beforehand when a stop cannot reach the emergency reservation."""
    usable_dark = facts.joint_dark
    stays = 0.0
    for name, load in facts.loads.items():
        if name in usable_dark or name not in facts.live:
            continue
        groups = facts.groups_of.get(name, [])
        if load.kind == "mining" and groups and all(group.writes_allowed for group in groups):
            stays += sum(group.sleep_w * facts.machine_count[group.id] for group in groups) / 1000
        else:
            stays += load.rated_kw
    emergency = facts.site.site.reservation.emergency_kw
    if facts.outputs and stays > emergency:
        yield facts.warning(
            ("site", "reservation", "emergency_kw"),
            f"{emergency:g}, and {stays:.0f} kW rated that no output opens and no sleep stops",
            "a stop that can reach the reservation",
            "add outputs or allow sleep; else the agent answers a stop with what it can reach",
        )


def agent(facts: Facts) -> Iterator[Problem]:
    """Slot and mode."""
    settings = facts.site.agent
    if settings.slot_s == _SIMULATION_SLOT_S and not facts.site.site.simulation:
        yield facts.error(
            ("agent", "slot_s"), "10", "60|300|900|1800|3600", "10 s slots are for sites with simulation: true"
        )
    if settings.mode != "monitor" and facts.site.trust is None:
        yield facts.error(
            ("agent", "mode"),
            f"{settings.mode} without trust",
            "the registrar's keys",
            "add trust: registrar_keys, else no order can be believed",
        )
    if settings.metrics_host not in {"127.0.0.1", "::1", "localhost"}:
        yield facts.warning(
            ("agent", "metrics_host"),
            repr(settings.metrics_host),
            "loopback",
            "metrics have no log-in: let a local collector fetch them",
        )
    if settings.mode == "armed" and not facts.outputs and not any(g.writes_allowed for g in facts.site.miners):
        yield facts.warning(
            ("agent", "mode"), "armed with nothing to shed with", "an output or miners with writes_allowed", ""
        )


def measured(facts: Facts) -> Iterator[Problem]:
    """What an order is judged by can be read, and lies at the boundary."""
    found = facts.site.measured_at
    for field, name in (("net_import", found.net_import), ("gross_mining", found.gross_mining)):
        if name is None:
            continue
        virtual = facts.virtual_points.get(name)
        members = [facts.points[term] for _sign, term in virtual.terms()] if virtual else [facts.points[name]]
        for point in members:
            if point.read_by != "agent":
                yield facts.error(
                    ("measured_at", field),
                    f"{name}, whose point {point.id} is read by {point.read_by}",
                    "points that the agent reads",
                    "name a control meter: an order cannot be proved by a meter nobody here reads",
                )
        boundary = virtual.boundary if virtual else members[0].boundary
        if field == "net_import" and not boundary and not all(point.boundary for point in members):
            yield facts.warning(
                ("measured_at", field),
                f"{name}, which is not at the boundary",
                "a point with boundary: true",
                "reports then say 'control metering'",
            )
    if found.gross_mining is not None:
        yield from _batteries(facts, found.gross_mining)


def _batteries(facts: Facts, name: str) -> Iterator[Problem]:
    """What a battery charges with or gives is no part of mining: the point's sum has to leave it out."""
    virtual = facts.virtual_points.get(name)
    signed = virtual.terms() if virtual else ((1, name),)
    positions = facts.graph.normal_positions()
    for battery in (node for node in facts.site.nodes if isinstance(node, Storage)):
        path = facts.graph.upstream_path(battery.id, positions)
        times = sum(sign for sign, point in signed if facts.points[point].node in path)
        if times:
            yield facts.error(
                ("measured_at", "gross_mining"),
                f"{name}, which counts battery {battery.id} {times:+d} times",
                "machines alone: what a battery charges with or gives is no mining",
                "take its meter off the sum (−), or sum up the feeders of the machines",
            )
