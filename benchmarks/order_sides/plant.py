"""Two simulated sites with real agents, one central and its broker: the demo's processes, sized for measuring.

The first site has the machines that are polled while orders come; they change faster than real ones, so that what a
contactor took comes back soon. The second site is a fleet of LuxOS machines that sleep and wake as slowly as real ones.
Meters, relays, registers and the broker are the demo's and run true.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from simulator.latencies import Latencies
from tizgin.demo.errors import DemoError
from tizgin.demo.plan import LUXOS, OUTPUTS, Board, Plan, plan_site
from tizgin.demo.sites import SitePorts
from tizgin.demo.start import Demo

POLLED_TIME_SCALE = 60.0
STEADY_S = 240.0
LOOK_S = 0.5
STABLE_LOOKS, STABLE_SHARE = 5, 0.01
FAST_PERIOD_S = 5


@dataclass(slots=True)
class Plant(Demo):
    """The demo's processes with other sites."""

    period_s: int = 30
    """Of the first site's machine polls."""
    fast: int = 200
    """Machines of the second site."""
    failed: list[str] = field(default_factory=list)

    def make_plans(self, latencies: Latencies) -> list[Plan]:
        """The polled site, and the fast one, whose only commissioned board has a single machine: a real one takes
        more than a minute to boot after its board was opened and closed."""
        fast = plan_site(2, self.fast, latencies)
        rest, last = divmod(self.fast - 1, 3)
        counts = (rest + last, rest, rest, 1)
        boards = tuple(Board(number, LUXOS, machines) for number, machines in enumerate(counts, 1))
        return [plan_site(1, self.size.asics, latencies), replace(fast, boards=boards)]

    def site_file(self, plan: Plan, ports: SitePorts) -> dict[str, Any]:
        """The demo's, with this measurement's period and the product's own number of writes at once."""
        # Not super(): it has no meaning in a class that dataclass(slots=True) makes anew.
        site = Demo.site_file(self, plan, ports)
        for group in site["miners"]:
            group["period_s"] = self.period_s if plan.number == 1 else FAST_PERIOD_S
        site["agent"]["timing"].pop("sleep_concurrency")
        return site

    def time_scale(self, plan: Plan) -> float:
        """Real time at the fast site."""
        return POLLED_TIME_SCALE if plan.number == 1 else 1.0

    def tested(self, plan: Plan) -> tuple[str, ...]:
        """Every output of the polled site, one of the fast site."""
        return OUTPUTS if plan.number == 1 else OUTPUTS[-1:]

    async def steady(self, plan: Plan) -> None:
        """Wait until every machine has answered and hashes, and power stands still.

        Raises:
            DemoError: it does not come to that in time.
        """
        # At the fast site the machine behind the exercised output still boots, as a real one would.
        wanted = plan.machines if plan.number == 1 else plan.machines - 1
        powers: list[int] = []
        shown: dict[str, Any] = {}
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            for _ in range(round(STEADY_S / LOOK_S)):
                shown = await self._shown(client, plan)
                live, net_w = shown.get("live") or {}, shown.get("power_w")
                ready = (
                    shown.get("mode") == "armed"
                    and shown.get("freshness") == "fresh"
                    and (live.get("asics_hashing") or 0) >= wanted
                )
                powers = [*powers[1 - STABLE_LOOKS :], net_w] if ready and isinstance(net_w, int) else []
                if len(powers) == STABLE_LOOKS and max(powers) - min(powers) <= STABLE_SHARE * max(powers):
                    self.say(f"{plan.id}: steady at {powers[-1]} W")
                    return
                await asyncio.sleep(LOOK_S)
        live = shown.get("live") or {}
        raise DemoError(
            f"{plan.id}: not steady within {STEADY_S:g} s: mode {shown.get('mode')}, {shown.get('freshness')}, "
            f"{live.get('asics_hashing')} of {plan.machines} machines hash; logs: {self.folder.logs}"
        )

    def figures(self, plan: Plan) -> dict[str, float]:
        """The agent's own counters, as its metrics page gives them."""
        port = self.sites[plan.id]["agent"]["metrics_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in re.findall(r"^tizgin_agent_(\S+) (\S+)$", text, re.MULTILINE)}

    def rss_mb(self, plan: Plan) -> float:
        """Largest resident memory of a site's agent so far, MB."""
        status = Path(f"/proc/{self.agents[plan.id].process.pid}/status").read_text(encoding="ascii")
        return round(int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1024, 1)

    def cpu_s(self, plan: Plan) -> float:
        """Processor time of a site's agent so far."""
        stat = Path(f"/proc/{self.agents[plan.id].process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        return sum(int(ticks) for ticks in stat.split()[11:13]) / 100

    def true_power_w(self, plan: Plan) -> float:
        """What both incomers of a site carry now, as the simulation knows it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.controls[plan.id]}/state", timeout=10) as answer:
            powers = json.load(answer)["node_power_w"]
        return float(powers["QF1"]) + float(powers["QF2"])
