"""Is an object healthy? What is seen to be wrong with a switch, a device or a group of machines, in words."""

from __future__ import annotations

from agent.acquisition import Bench
from agent.clock import Clock
from agent.curtailment.gates import MUST_BE
from agent.live import LiveState
from config.nodes import Switch
from config.site import Site
from drivers.capabilities import Position

OLD_S = 10.0


def wrong_with(obj: str, site: Site, bench: Bench, live: LiveState, clock: Clock) -> str | None:
    """What is wrong with an object now; ``None`` where nothing is seen to be. Silence is wrong."""
    for node in site.nodes:
        if node.id == obj and isinstance(node, Switch):
            return _switch(node, bench, live, clock)
    for device in site.devices:
        if device.id == obj:
            return _device(obj, bench, live)
    return _group(obj, bench, live)


def _switch(node: Switch, bench: Bench, live: LiveState, clock: Clock) -> str | None:
    state = live.switches.get(node.id)
    if node.id not in bench.switches:
        return None  # nothing of it is wired: nothing can be seen
    if state is None or (clock.mono_ns() - state.mono_ns) / 1e9 > OLD_S:
        return "its position is not read"
    if state.position not in {Position.OPEN, Position.CLOSED}:
        return f"its position is {state.position.value}"
    for name, (good, reason) in MUST_BE.items():
        seen: bool | None = getattr(state, name)
        if seen is (not good):
            return reason
        if seen is None and getattr(node.readiness, name) is not None:
            return f"{name} cannot be read"
    return bench.why_unsafe(node.id) if node.control is not None else None


def _device(device: str, bench: Bench, live: LiveState) -> str | None:
    if device in bench.relays:
        return bench.relays[device].safe_state().why
    return None if live.device_alive(device) else "it does not answer"


def _group(group: str, bench: Bench, live: LiveState) -> str | None:
    machines = [m.id for m in bench.machines.values() if m.group.id == group]
    silent = sum(1 for m in machines if (seen := live.miners.get(m)) is None or seen.status is None)
    return f"{silent} of {len(machines)} machines do not answer" if silent * 2 > len(machines) else None
