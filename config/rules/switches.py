"""What a switch is by nature: how it may be driven, read and closed."""

from __future__ import annotations

from collections.abc import Iterator

from config.nodes import Bus, Input, Line, Node, Switch
from config.problems import Problem
from config.rules.facts import Facts

LV_KV = 1.0
_PULSED = frozenset({"shunt_trip", "latching"})
_LEVEL = frozenset({"undervoltage_release", "contactor_no", "contactor_nc"})
_CONTACTORS = frozenset({"contactor_no", "contactor_nc"})


def closing(facts: Facts) -> Iterator[Problem]:
    """``close: auto`` is for low-voltage contactors and PDU outlets: whatever else closes, a person closes."""
    for node in facts.site.nodes:
        if not isinstance(node, Switch) or node.close != "auto" or node.role == "outlet":
            continue
        path = facts.node_path(node.id, "close")
        todo = "write close: by_person; the agent then says that it may be closed and waits for the contact"
        if node.role != "feeder" or node.actuator not in _CONTACTORS:
            seen = f"auto on {node.id}, a {node.role} with {node.actuator or 'no actuator'}"
            yield facts.error(path, seen, "auto only on low-voltage contactors and PDU outlets", todo)
            continue
        voltage = voltage_kv(facts, node)
        if voltage is None or voltage >= LV_KV:
            at = "an unknown voltage" if voltage is None else f"{voltage:g} kV"
            yield facts.error(
                path,
                f"auto on {node.id} at {at}",
                "auto only below 1 kV",
                "write voltage_kv on it or its bus" if voltage is None else todo,
            )


def voltage_kv(facts: Facts, node: Node) -> float | None:
    """Voltage at a node: its own, else that of the bus above it, through lines and switches alone."""
    seen: set[str] = set()
    here: Node | None = node
    while here is not None and here.id not in seen:
        if here.voltage_kv is not None:
            return here.voltage_kv
        if not isinstance(here, Bus | Switch | Line) or len(here.fed_from) != 1:
            return None
        seen.add(here.id)
        above = facts.nodes.get(here.fed_from[0])
        here = above if isinstance(above, Bus | Switch | Line) else None
    return None


def is_pdu_outlet(facts: Facts, switch: Switch) -> bool:
    """A PDU reports its outlets' state itself; it has no auxiliary contacts to wire."""
    device = facts.devices.get(switch.control.device) if switch.control is not None else None
    return switch.role == "outlet" and device is not None and device.kind == "pdu"


def nature_refusals(facts: Facts, switch: Switch) -> Iterator[tuple[Problem, str]]:
    """(problem, short reason) for an output whose actuator or position cannot be trusted."""
    control = switch.control
    if control is None:
        return
    device = facts.devices[control.device]
    at = facts.node_path(switch.id, "control")
    if switch.role == "outlet" and device.kind != "pdu":
        problem = facts.error(
            (*at, "device"),
            f"{device.id}, a {device.kind}",
            "a pdu for an outlet",
            "write role: feeder, or name the PDU",
        )
        yield problem, "outlet without a PDU"
    if is_pdu_outlet(facts, switch):
        if control.pulse_ms is not None:
            problem = facts.error(
                (*at, "pulse_ms"), f"{control.pulse_ms} on a PDU outlet", "no pulse: it is set on or off", "remove it"
            )
            yield problem, "pulse on an actuator held by a level"
        return  # it switches and reports its outlet itself
    if switch.actuator in _PULSED and control.pulse_ms is None:
        problem = facts.error(
            at,
            f"{switch.actuator} without pulse_ms",
            "a pulse that the device times itself",
            "write pulse_ms and use a module that times pulses: two writes of software can leave the coil burning",
        )
        yield problem, "pulse not timed by the device"
    if switch.actuator in _LEVEL and control.pulse_ms is not None:
        problem = facts.error(
            (*at, "pulse_ms"),
            f"{control.pulse_ms} on {switch.actuator}",
            "no pulse: it is held by a level",
            "remove pulse_ms, or correct the actuator",
        )
        yield problem, "pulse on an actuator held by a level"
    profile = facts.profiles(device.profile) if facts.profiles is not None else None
    if control.pulse_ms is not None and switch.actuator not in _LEVEL and profile is not None:
        outputs = profile.outputs or {}
        if outputs.get(control.output) is False:
            problem = facts.error(
                (*at, "pulse_ms"),
                f"{control.output!r} of {device.profile}, which does not time pulses",
                "an output whose pulse the device times",
                "use another module: two writes of software can leave the coil burning",
            )
            yield problem, "module cannot time a pulse"
    if switch.position is None:
        problem = facts.error(
            facts.node_path(switch.id),
            f"output {switch.id} without position",
            "two auxiliary contacts, open and closed",
            "wire both contacts and add position: {open: …, closed: …}",
        )
        yield problem, "no two-bit position"
    elif _terminal(switch.position.open) == _terminal(switch.position.closed):
        problem = facts.error(
            facts.node_path(switch.id, "position"),
            f"{switch.position.open.device}/{switch.position.open.input} for both open and closed",
            "two contacts on two inputs",
            "wire the second contact: one bit cannot tell moving or broken from open",
        )
        yield problem, "no two-bit position"


def _terminal(found: Input) -> tuple[str, str]:
    return found.device, found.input


def terminals(facts: Facts) -> Iterator[Problem]:
    """Each output terminal drives one switch, each input terminal reads one contact."""
    outputs: dict[tuple[str, str], str] = {}
    inputs: dict[tuple[str, str], str] = {}
    for node in facts.site.nodes:
        if not isinstance(node, Switch):
            continue
        if node.control is not None:
            for field in ("output", "close_output"):
                name = getattr(node.control, field)
                key = (node.control.device, str(name))
                if name is not None and key in outputs:
                    yield facts.error(
                        facts.node_path(node.id, "control", field),
                        f"{key[0]}/{key[1]}, which also drives {outputs[key]}",
                        "one switch per output",
                        "correct the terminal",
                    )
                if name is not None:
                    outputs.setdefault(key, node.id)
        if node.position is not None:
            for field, contact in (("open", node.position.open), ("closed", node.position.closed)):
                terminal = _terminal(contact)
                if terminal in inputs and inputs[terminal] != node.id:
                    yield facts.error(
                        facts.node_path(node.id, "position", field),
                        f"{terminal[0]}/{terminal[1]}, which also reads {inputs[terminal]}",
                        "one contact per input",
                        "correct the terminal",
                    )
                inputs.setdefault(terminal, node.id)


def saon(facts: Facts) -> Iterator[Problem]:
    """САОН: an operation lasts some 100 ms, so that the device has to keep it."""
    for node in facts.site.nodes:
        if not isinstance(node, Switch):
            continue
        stages: set[int] = set()
        for order, stage in enumerate(node.saon):
            path = facts.node_path(node.id, "saon", order)
            if stage.stage in stages:
                yield facts.error((*path, "stage"), f"stage {stage.stage} twice on {node.id}", "each stage once", "")
            stages.add(stage.stage)
            if stage.operated_by == "polled":
                yield facts.error(
                    (*path, "operated_by"),
                    "'polled'",
                    "one of latched|counter|timestamped",
                    "a contact of 100 ms is missed by polling: use a latching relay, a counter or an event input",
                )
            elif stage.operated is None and stage.state == "in":
                yield facts.warning(
                    path,
                    f"stage {stage.stage} of {node.id} without operated",
                    "an input that keeps its operation",
                    "without it an operation of САОН is not recorded and does not lock restoration",
                )
            elif stage.operated is not None and facts.profiles is not None:
                yield from _kept(facts, node, order)


def _kept(facts: Facts, switch: Switch, order: int) -> Iterator[Problem]:
    stage = switch.saon[order]
    device = facts.devices.get(stage.operated.device) if stage.operated is not None else None
    profile = facts.profiles(device.profile) if device is not None and facts.profiles is not None else None
    if stage.operated is None or profile is None or profile.inputs is None or stage.operated_by != "counter":
        return  # a latching relay or an event recorder stands outside the module and cannot be seen in its profile
    if profile.inputs.get(stage.operated.input) is False:
        yield facts.error(
            facts.node_path(switch.id, "saon", order, "operated"),
            f"{stage.operated.input!r}, which {profile.kind} profile only shows as it is now",
            "an input that the module counts",
            "use a counting input, or wire a latching relay and write operated_by: latched",
        )
