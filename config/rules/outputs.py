"""Which switch may be an output: computed from what goes dark, never believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from config.nodes import Storage, Switch
from config.problems import Path, Problem
from config.rules.facts import Facts, listed, megawatts
from config.rules.networks import control_network_refusals
from config.rules.switches import is_pdu_outlet, nature_refusals

TRIP_SUPPLIED = frozenset({"shunt_trip", "latching", "motor_operator"})
"""Actuators that need control voltage to open: without it they stay closed."""


@dataclass(frozen=True, slots=True)
class Output:
    """One switch with ``control``, and what opening it does in the normal scheme."""

    id: str
    dark: tuple[str, ...]
    """Nodes that go dark, sorted, the switch itself included."""
    dark_w: int
    """Rated W of the loads among them."""
    usable: bool
    why: str
    """Why it is refused; empty where it is usable."""
    proved_by: str | None = None
    """Metering point that still speaks when it is open."""


def judge(facts: Facts) -> tuple[list[Problem], list[Output]]:
    """Every output with its verdict, and the problems behind each refusal."""
    problems: list[Problem] = []
    outputs: list[Output] = []
    needs = {switch.id: _needs(facts, switch) for switch in facts.outputs}
    for switch in facts.outputs:
        refused: list[str] = []
        for problem, reason in _refusals(facts, switch, needs):
            problems.append(problem)
            refused.append(reason)
        dark = facts.dark(switch)
        outputs.append(
            Output(
                id=switch.id,
                dark=tuple(sorted(dark)),
                dark_w=facts.watts(dark),
                usable=not refused,
                why="; ".join(dict.fromkeys(refused)),
                proved_by=needs[switch.id].point,
            )
        )
    return problems, outputs


@dataclass(frozen=True, slots=True)
class _Needs:
    """What must stay alive to control a switch and to prove that it opened."""

    control: frozenset[str]
    prove: frozenset[str]
    point: str | None


def _needs(facts: Facts, switch: Switch) -> _Needs:
    devices = {switch.control.device} if switch.control is not None else set()
    if switch.position is not None:
        devices |= {switch.position.open.device, switch.position.closed.device}
    devices |= {item.device for _, item in switch.readiness.wired()}
    control = set(devices)
    for name in devices:
        control.update(facts.network_equipment(facts.links[facts.devices[name].link]))
    if facts.site.agent.host is not None:
        control.add(facts.site.agent.host)
    if switch.actuator in TRIP_SUPPLIED:
        control.update(item.id for item in facts.site.equipment if item.kind == "dc_supply")
    closed = {**facts.normal, switch.id: True}
    point = facts.graph.nearest_live_meter(switch.id, closed)
    prove: set[str] = set()
    if point is not None:
        meter = facts.devices[facts.points[point].device]
        prove = {meter.id, *facts.network_equipment(facts.links[meter.link])}
    return _Needs(frozenset(control), frozenset(prove), point)


def _refusals(facts: Facts, switch: Switch, needs: dict[str, _Needs]) -> Iterator[tuple[Problem, str]]:
    path = facts.node_path(switch.id)
    if switch.role in {"incomer", "section"}:
        problem = facts.error(
            facts.node_path(switch.id, "control"),
            f"control on {switch.id}, whose role is {switch.role}",
            "no output on an incomer or section switch",
            "remove control; shed with the feeders below it",
        )
        yield problem, f"{switch.role} switches are never outputs"
    dark = facts.dark(switch)
    yield from _loads(facts, switch, path, dark)
    lost = facts.graph.dark_devices(dark)
    yield from _own_supply(facts, switch, path, needs[switch.id], lost)
    for other in facts.outputs:
        if other.id == switch.id or other.id in dark:
            continue  # what is below goes dark with it: nothing is left there to control or to prove
        for kind, wanted in (("control", needs[other.id].control), ("prove", needs[other.id].prove)):
            if cut := wanted & lost:
                problem = facts.error(
                    path,
                    f"output {switch.id}, which takes away the supply of {listed(cut)}",
                    f"that what is needed to {kind} {other.id} stays live",
                    f"feed {listed(cut)} from elsewhere, or remove control of {switch.id}",
                )
                yield problem, f"{listed(cut)} needed to {kind} {other.id} goes dark"
    yield from nature_refusals(facts, switch)
    yield from control_network_refusals(facts, switch)


def _loads(facts: Facts, switch: Switch, path: Path, dark: frozenset[str]) -> Iterator[tuple[Problem, str]]:
    kept = sorted(n for n in dark if (load := facts.loads.get(n)) and (load.kind == "protected" or load.emergency))
    if kept:
        problem = facts.error(
            path,
            f"output {switch.id}, which darkens the protected or emergency load {listed(kept)}",
            "an output that darkens none",
            f"remove control of {switch.id}, or feed {listed(kept)} from elsewhere",
        )
        yield problem, f"darkens protected load {listed(kept)}"
    for loop in facts.site.cooling_loops:
        cooling = dark & facts.loop_of[loop.id]
        if not cooling:
            continue
        hot = [n for n, load in facts.loads.items() if load.kind == "mining" and load.cooling_loop == loop.id]
        powered = sorted(n for n in hot if n in facts.live and n not in dark)
        if powered:
            problem = facts.error(
                path,
                f"output {switch.id}, which stops {listed(cooling)} while {listed(powered)} stays powered",
                "cooling that outlives its machines",
                f"feed loop {loop.id} from its own board, or remove control of {switch.id}",
            )
            yield problem, f"stops cooling {listed(cooling)} of powered machines {listed(powered)}"


def _own_supply(
    facts: Facts, switch: Switch, path: Path, needs: _Needs, lost: frozenset[str]
) -> Iterator[tuple[Problem, str]]:
    if cut := needs.control & lost:
        problem = facts.error(
            path,
            f"output {switch.id}, which takes away the supply of {listed(cut)} that drives or reads it",
            "control that stays live when it opens",
            f"feed {listed(cut)} from above {switch.id}",
        )
        yield problem, f"its own control {listed(cut)} goes dark"
    if needs.point is None:
        problem = facts.error(
            path,
            f"output {switch.id} without a live meter at or above it",
            "a metering point read by the agent that stays live when it opens",
            "add a meter above it, or feed the meter from above it",
        )
        yield problem, "no meter can prove it"


def together(facts: Facts) -> Iterator[Problem]:
    """All outputs open at once: two that are harmless alone may together take a load with two feeds."""
    alone: set[str] = set().union(*(facts.dark(s) for s in facts.outputs)) if facts.outputs else set()
    joint = facts.joint_dark - alone
    kept = sorted(n for n in joint if (load := facts.loads.get(n)) and (load.kind == "protected" or load.emergency))
    for name in kept:
        yield facts.error(
            facts.node_path(name),
            f"{name}, dark when all outputs are open together",
            "a protected or emergency load that no set of outputs darkens",
            "leave one of its feeds without control",
        )
    for loop in facts.site.cooling_loops:
        if joint & facts.loop_of[loop.id]:
            yield from _uncooled_together(facts, loop.id)


def _uncooled_together(facts: Facts, loop: str) -> Iterator[Problem]:
    """Open all outputs but those above one load of machines: its cooling must still run."""
    told: set[str] = set()
    for name, load in facts.loads.items():
        if load.kind != "mining" or load.cooling_loop != loop or name not in facts.live:
            continue
        opened = {s.id: False for s in facts.outputs if name not in facts.dark(s)}
        live = facts.graph.energised({**facts.normal, **opened})
        for cooling in sorted(facts.loop_of[loop] & facts.live - live - told):
            if name in live and not any(cooling in facts.dark(s) for s in facts.outputs):
                told.add(cooling)
                yield facts.error(
                    facts.node_path(cooling),
                    f"{cooling}, dark when all outputs but those of {name} are open, while {name} stays powered",
                    "cooling that outlives its machines",
                    "leave one of its feeds without control",
                )


def hints(facts: Facts) -> Iterator[Problem]:
    """What does not forbid an output but has to be known before it is used."""
    for switch in facts.outputs:
        dark = facts.dark(switch)
        if not dark & facts.loads.keys() and not any(isinstance(facts.nodes[name], Storage) for name in dark):
            yield facts.warning(
                facts.node_path(switch.id),
                f"output {switch.id} with no load behind it",
                "a load that it sheds",
                "correct fed_from of the loads, or remove control",
            )
        for loop in facts.site.cooling_loops:
            if cooling := dark & facts.loop_of[loop.id]:
                yield facts.warning(
                    facts.node_path(switch.id),
                    f"output {switch.id}, which stops {listed(cooling)} together with its machines",
                    "cooling on its own board",
                    "machines are put to sleep and cooled first, but an emergency trip stops them hot",
                )
    yield from _silent_meters(facts)
    yield from _module_failure(facts)


def _silent_meters(facts: Facts) -> Iterator[Problem]:
    for switch in facts.outputs:
        if is_pdu_outlet(facts, switch):
            continue
        lost = facts.graph.dark_devices(facts.dark(switch))
        meters = sorted(n for n in lost if n in facts.devices and facts.devices[n].kind == "meter")
        for name in meters:
            yield facts.warning(
                facts.device_path(name, "fed_from"),
                f"meter {name}, fed from behind output {switch.id}",
                "a meter fed from above it",
                f"it goes silent when {switch.id} opens; the cut is then proved by the next meter above",
            )


def _module_failure(facts: Facts) -> Iterator[Problem]:
    """A dead module lets its outputs fall: what that opens, and what that closes again while it is shed."""
    for device in facts.site.devices:
        held = [s for s in facts.outputs if s.control is not None and s.control.device == device.id]
        opens = [s for s in held if s.actuator in {"undervoltage_release", "contactor_no"} and facts.normal[s.id]]
        if opens:
            dark = facts.live - facts.graph.energised({**facts.normal, **{s.id: False for s in opens}})
            yield facts.warning(
                facts.device_path(device.id),
                f"{device.id}, which holds {listed(s.id for s in opens)} closed",
                "that its failure is known",
                f"when it or its supply fails, {megawatts(facts.watts(dark))} is lost at once",
            )
        closes = [s for s in held if s.actuator == "contactor_nc"]
        if closes:
            returns = megawatts(facts.watts(frozenset[str]().union(*(facts.dark(s) for s in closes))))
            yield facts.warning(
                facts.device_path(device.id),
                f"{device.id}, which holds {listed(s.id for s in closes)} open while they are shed",
                "that its failure is known",
                f"when it or its supply fails then, they close by themselves and {returns} returns",
            )
