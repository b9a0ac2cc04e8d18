"""The demo that a person watches: where everything is, what to try, and supervision until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tizgin.demo.processes import Child, tizgin_command
from tizgin.demo.register import SYSTEM_OPERATOR
from tizgin.demo.screen import Screen
from tizgin.demo.start import Demo

DESK_S = 30.0
WATCH_S = 0.3
AGENTS_STOP_S = 2.0
REST_STOP_S = 2.5


async def start_desk(demo: Demo) -> str:
    """The dispatcher's desk on the dispatcher's own computer; returns the address with its one-time token.

    Raises:
        DemoError: it does not come up.
    """
    ready = demo.folder.dispatcher / "desk.json"
    command = tizgin_command(
        "order", "desk", "--central", demo.api_url, "--key", str(demo.key_file(SYSTEM_OPERATOR)),
        "--keys", str(demo.folder.register), "--registrar", demo.registrar_key, "--ready-file", str(ready),
    )  # fmt: skip
    child = await demo.processes.start("desk", command, cwd=demo.folder.dispatcher)
    return str((await child.ready(ready, timeout_s=DESK_S))["url"])


def show(demo: Demo, desk: str, screen: Screen) -> None:
    """Addresses and what to try."""
    rows = [("central", demo.api_url), ("dispatcher's desk", desk)]
    for plan in demo.plans:
        rows.append((f"{plan.id} faults", f"http://127.0.0.1:{demo.controls[plan.id]}/state and /faults"))
        agent = demo.agents[plan.id].process.pid
        rows.append((f"{plan.id} agent", f"pid {agent}, site file {demo.folder.site(plan.id).config}"))
    rows.append(("logs", str(demo.folder.logs)))
    screen.addresses("tizgin demo", rows)
    first = demo.plans[0]
    door = f"http://127.0.0.1:{demo.controls[first.id]}"
    fault = f"curl -s -H 'content-type: application/json' {door}/faults -d"
    welded = json.dumps({"kind": "welded", "target": "KM1"})
    mended = json.dumps({"kind": "welded", "target": "KM1", "on": False})
    dead = json.dumps({"kind": "dead", "target": "em-2"})
    config = demo.folder.site(first.id).config
    meter = f"modbus://127.0.0.1:{_meters_port(demo)}/1"
    limit = round(first.contracted_kw * 0.5)
    command = Path(sys.executable).parent / "tizgin"  # as it can be typed: the environment need not be on the PATH
    screen.try_these(
        "What to try",
        [
            (f"Sign an order at the desk: choose {first.id}, limit {limit} kW, read it, sign; watch the kW fall", desk),
            ("Release it there and watch the load return in stages", ""),
            ("Kill an agent in the middle of an order: it boots into enforcement, nothing is lost",
             f"kill -9 {demo.agents[first.id].process.pid}"),
            ("Weld a contact, then order a stop: the agent reports the switch that did not open and uses others",
             f"{fault} '{welded}'"),
            ("Mend it", f"{fault} '{mended}'"),
            ("Silence a boundary meter: power becomes unknown, never 0, and nothing is restored on a guess",
             f"{fault} '{dead}'"),
            ("What goes dark with each output", f"{command} agent check --config {config}"),
            ("Ask a meter yourself", f"{command} probe {meter} --profile eastron-sdm630"),
        ],
    )  # fmt: skip
    screen.say("running until Ctrl-C")


def _meters_port(demo: Demo) -> int:
    links = demo.sites[demo.plans[0].id]["links"]
    return int(str(next(link["url"] for link in links if link["id"] == "meters")).rpartition(":")[2])


async def supervise(demo: Demo, screen: Screen) -> None:
    """Until cancelled: an agent that ends is started again, as its service manager would; anything else is told.

    Raises:
        DemoError: central or a simulator ended.
    """
    while True:
        gone = demo.processes.ended()
        if gone is not None:
            await _replace(demo, gone, screen)
        await asyncio.sleep(WATCH_S)


async def _replace(demo: Demo, gone: Child, screen: Screen) -> None:
    plan = next((p for p in demo.plans if demo.agents.get(p.id) is gone), None)
    if plan is None:
        gone.require_running("although nobody stopped it")
        return
    screen.warn(f"{gone.name} ended with {gone.process.returncode}; started again")
    demo.processes.forget(gone)
    child = await demo.start_agent(plan)
    screen.say(f"{child.name} runs again as pid {child.process.pid}")


async def stop(demo: Demo) -> None:
    """Agents and desk first, so that they can say good-bye; then what they talk to. Five seconds at most."""
    last = [child for child in (demo.central, *demo.simulators.values()) if child is not None]
    first = [child for child in demo.processes.children if child not in last]
    await demo.processes.stop(*first, within_s=AGENTS_STOP_S)
    await demo.processes.stop(*last, within_s=REST_STOP_S)


def default_folder() -> Path:
    """Where a live demo keeps its data."""
    return Path("demo-data")
