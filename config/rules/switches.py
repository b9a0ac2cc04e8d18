"""What a switch is by nature: how it may be driven, read and closed."""

from __future__ import annotations

from collections.abc import Iterator

from config.nodes import Bus, Control, Input, Line, Node, Switch
from config.problems import Path, Problem
from config.rules.facts import Facts, ProfileFacts

LV_KV = 1.0
_PULSED = frozenset({"shunt_trip", "latching", "motor_operator"})
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
        if device.options.get("writes") != "allowed" or device.credentials is None:
            problem = facts.error(
                (*at, "device"),
                f"{device.id}, whose outlets may not be switched",
                "options: {writes: allowed} and credentials that hold a secret for writing",
                "add both to the device, or remove control",
            )
            yield problem, "outlets may not be switched"
        return  # it switches and reports its outlet itself
    profile = (facts.profiles(device.profile) if facts.profiles is not None else None) or ProfileFacts(device.kind)
    yield from _impulse_refusals(facts, switch, control, profile, at)
    yield from _close_output_refusals(facts, switch, control, profile, at)
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


def _impulse_refusals(
    facts: Facts, switch: Switch, control: Control, profile: ProfileFacts, at: Path
) -> Iterator[tuple[Problem, str]]:
    """Does the module give what opens this actuator: a level that stays, or an impulse that it ends by itself?"""
    command = control.output in profile.commands
    if command and switch.actuator in _LEVEL:
        problem = facts.error(
            (*at, "output"),
            f"{control.output!r}, a command of the breaker, for {switch.actuator}",
            "an output that holds a level",
            "write actuator: shunt_trip, or name an output that holds a level",
        )
        yield problem, "output holds no level"
    if switch.actuator in _PULSED and control.pulse_ms is None and not command:
        problem = facts.error(
            at,
            f"{switch.actuator} without pulse_ms",
            "a pulse that the device times itself",
            "write pulse_ms and use a module that times pulses: two writes of software can leave the coil burning",
        )
        yield problem, "pulse not timed by the device"
    if control.pulse_ms is not None and (command or (switch.actuator in _LEVEL and control.close_output is None)):
        why = "the breaker ends it by itself" if command else "it is held by a level"
        problem = facts.error(
            (*at, "pulse_ms"),
            f"{control.pulse_ms} on {control.output if command else switch.actuator}",
            f"no pulse: {why}",
            "remove pulse_ms" + ("" if command else ", or correct the actuator"),
        )
        yield problem, "pulse on an actuator held by a level" if not command else "pulse on a command"
    elif control.pulse_ms is not None and switch.actuator in _PULSED:
        yield from _pulse_refusals(facts, control, profile, at, "output", control.output)


def _pulse_refusals(
    facts: Facts, control: Control, profile: ProfileFacts, at: Path, field: str, output: str
) -> Iterator[tuple[Problem, str]]:
    device = facts.devices[control.device]
    if (profile.outputs or {}).get(output) is False:
        problem = facts.error(
            (*at, "pulse_ms" if field == "output" else field),
            f"{output!r} of {device.profile}, which does not time pulses",
            "an output whose pulse the device times",
            "use another module: two writes of software can leave the coil burning",
        )
        yield problem, "module cannot time a pulse"
        return
    unit_ms = profile.pulse_unit_ms.get(output)
    if unit_ms is not None and (control.pulse_ms is None or control.pulse_ms % unit_ms):
        problem = facts.error(
            (*at, "pulse_ms"),
            "none" if control.pulse_ms is None else str(control.pulse_ms),
            f"a multiple of {unit_ms} ms, the step of {device.profile}",
            "correct pulse_ms",
        )
        yield problem, "pulse length the module cannot time"


def _close_output_refusals(
    facts: Facts, switch: Switch, control: Control, profile: ProfileFacts, at: Path
) -> Iterator[tuple[Problem, str]]:
    output = control.close_output
    if output is None:
        return
    if switch.actuator in _CONTACTORS:
        problem = facts.error(
            (*at, "close_output"), f"{output!r} on {switch.actuator}", "none: a contactor has one coil", "remove it"
        )
        yield problem, "second coil on a contactor"
    elif output not in profile.commands:
        yield from _pulse_refusals(facts, control, profile, at, "close_output", output)


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
    yield from _shared_contacts(facts, inputs)


def _shared_contacts(facts: Facts, positions: dict[tuple[str, str], str]) -> Iterator[Problem]:
    """A position contact is nothing else: two readiness points may share an input, a position never."""
    for path, found in _other_inputs(facts):
        other = positions.get(_terminal(found))
        if other is not None:
            yield facts.error(
                path,
                f"{found.device}/{found.input}, which reads the position of {other}",
                "one contact per input",
                "correct the terminal",
            )


def _other_inputs(facts: Facts) -> Iterator[tuple[Path, Input]]:
    """Every input that is wired to something else than a position contact."""
    for node in facts.site.nodes:
        if not isinstance(node, Switch):
            continue
        for name, found in node.readiness.wired():
            yield facts.node_path(node.id, "readiness", name), found
        for order, stage in enumerate(node.saon):
            if stage.operated is not None:
                yield facts.node_path(node.id, "saon", order, "operated"), stage.operated
    for index, loop in enumerate(facts.site.cooling_loops):
        if loop.flow_ok is not None:
            yield ("cooling_loops", index, "flow_ok"), loop.flow_ok


def counters(facts: Facts) -> Iterator[Problem]:
    """``trips_total`` is a counter of the module: software that polls a contact misses short ones."""
    for node in facts.site.nodes:
        if not isinstance(node, Switch) or node.readiness.trips_total is None:
            continue
        found = node.readiness.trips_total
        device = facts.devices[found.device]
        profile = facts.profiles(device.profile) if facts.profiles is not None else None
        if profile is not None and not profile.counts(found.input):
            yield facts.error(
                facts.node_path(node.id, "readiness", "trips_total"),
                f"{found.input!r} of {device.profile}, which the module does not count",
                "an input that the module counts",
                "use a counting input, or leave trips_total out",
            )


def options(facts: Facts) -> Iterator[Problem]:
    """``expect_…`` options demand a setting of a relay otherwise than its profile: each has to exist."""
    for device in facts.site.devices:
        profile = facts.profiles(device.profile) if facts.profiles is not None else None
        if device.kind != "relay" or profile is None or profile.settings is None:
            continue
        for name, value in device.options.items():
            if not name.startswith("expect_"):
                continue
            path = facts.device_path(device.id, "options", name)
            if name.removeprefix("expect_") not in profile.settings:
                known = ", ".join(sorted(profile.settings)) or "it has none"
                yield facts.error(path, repr(name), f"expect_ and a setting of {device.profile}: {known}", "correct it")
            elif value != "any" and not (value.isascii() and value.isdigit() and int(value) <= 0xFFFF):
                yield facts.error(path, repr(value), "a raw value from 0 to 65535, or any", "correct it")


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
                    "one of latched|counter",
                    "a contact of 100 ms is missed by polling: use a latching relay, or an input that counts",
                )
            elif stage.operated_by == "timestamped":
                yield facts.error(
                    (*path, "operated_by"),
                    "'timestamped'",
                    "one of latched|counter",
                    "no module is known here whose time-stamped events can be read: use a latching relay, or an input "
                    "that counts",
                )
            elif stage.operated is None and stage.state == "in":
                yield facts.warning(
                    path,
                    f"stage {stage.stage} of {node.id} without operated",
                    "an input that keeps its operation",
                    "without it an operation of САОН is not recorded and does not lock restoration",
                )
            elif stage.operated is not None:
                yield from _kept(facts, node, order)


def _kept(facts: Facts, switch: Switch, order: int) -> Iterator[Problem]:
    """What keeps the operation until it is read? A plain input that is polled does not."""
    stage = switch.saon[order]
    device = facts.devices.get(stage.operated.device) if stage.operated is not None else None
    profile = facts.profiles(device.profile) if device is not None and facts.profiles is not None else None
    if stage.operated is None or profile is None or profile.inputs is None or stage.operated_by == "latched":
        return  # a latching relay stands outside the module and cannot be seen in its profile
    kept = profile.inputs.get(stage.operated.input)
    if kept is False or (
        stage.operated_by == "counter" and kept is not None and not profile.counts(stage.operated.input)
    ):
        path = facts.node_path(switch.id, "saon", order, "operated")
        yield facts.error(
            path,
            f"{stage.operated.input!r}, which {profile.kind} profile only shows as it is now",
            "an input that the module counts"
            if stage.operated_by == "counter"
            else "an input that keeps a short contact",
            "use a counting input, or wire a latching relay and write operated_by: latched",
        )
