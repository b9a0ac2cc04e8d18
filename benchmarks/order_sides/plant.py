"""Simulated sites with real agents, one central and its broker: the demo's processes, sized for measuring.

The first site has the machines that are polled while orders come; they change faster than real ones, so that what a
contactor took comes back soon. Each further site has machines of one firmware family, which go to sleep as slowly as
real ones. Meters, relays, registers and the broker are the demo's and run true.
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

from benchmarks.order_sides.families import SleepingSite, delays_beside
from simulator.fleet.kinds import KINDS
from simulator.latencies import Latencies, load_latencies
from simulator.machine import MachineState
from tizgin.demo.errors import DemoError
from tizgin.demo.folder import write_secret, write_yaml
from tizgin.demo.plan import LUXOS, OUTPUTS, STOCK, Board, Plan, plan_site
from tizgin.demo.sites import SitePorts
from tizgin.demo.start import Demo

POLLED_TIME_SCALE = 60.0
STEADY_S = 300.0
AT_ONCE = 2
"""Commands, and sites whose plant comes up, at once: all together would only take the processor from each other."""
LOOK_S = 0.5
STABLE_LOOKS, STABLE_SHARE = 5, 0.01
SLEEPERS_PERIOD_S = 10
ANSWER_S = 0.2
"""From a request to a machine of the further sites until its answer. Real ones take 0.02 to 2 s."""


@dataclass(slots=True)
class Plant(Demo):
    """The demo's processes with other sites."""

    patience: float = 4.0
    period_s: int = 30
    """Of the first site's machine polls."""
    sleeping: tuple[SleepingSite, ...] = ()
    """The further sites."""
    commands: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    comings_up: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def tizgin(self, *arguments: str, cwd: Path | None = None, good: tuple[int, ...] = (0,)) -> str:
        """The demo's, a few at once."""
        async with self.commands:
            return await Demo.tizgin(self, *arguments, cwd=cwd, good=good)

    async def _simulate(self, plan: Plan) -> dict[str, Any]:
        """The demo's, a few at once."""
        async with self.comings_up:
            return await Demo._simulate(self, plan)

    def of(self, plan: Plan) -> SleepingSite | None:
        """What a further site is for; ``None`` for the first."""
        return self.sleeping[plan.number - 2] if plan.number > 1 else None

    def make_plans(self, latencies: Latencies) -> list[Plan]:
        """The polled site, and the others, whose only commissioned board has a single machine: it boots after its board
        was opened and closed."""
        plans = [plan_site(1, self.size.asics, latencies)]
        for number, site in enumerate(self.sleeping, 2):
            rest, last = divmod(site.machines - 1, 3)
            kind = KINDS[site.family]
            like = STOCK if kind.has_web or kind.login else LUXOS
            boards = tuple(Board(n, like, m) for n, m in enumerate((rest + last, rest, rest, 1), 1))
            plans.append(replace(plan_site(number, site.machines, latencies), boards=boards))
        return plans

    def site_file(self, plan: Plan, ports: SitePorts) -> dict[str, Any]:
        """The demo's, with this measurement's period, the product's own number of writes at once, and at the further
        sites the product's own times throughout, and their family."""
        # Not super(): it has no meaning in a class that dataclass(slots=True) makes anew.
        made = Demo.site_file(self, plan, ports)
        site = self.of(plan)
        if site is None:
            for group in made["miners"]:
                group["period_s"] = self.period_s
            made["agent"]["timing"].pop("sleep_concurrency")
            return made
        made["agent"].pop("timing")
        kind = KINDS[site.family]
        figures = {
            "family": kind.family,
            "model": kind.plate.model,
            "nameplate_w": kind.plate.power_w,
            "nominal_ths": kind.plate.hashrate_ths,
            "sleep_w": kind.plate.sleep_w,
            "period_s": SLEEPERS_PERIOD_S,
        }
        rated_kw = {f"MINERS{b.number}": round(b.machines * kind.plate.power_w / 1000, 1) for b in plan.boards}
        for group in made["miners"]:
            group.update(figures)
            if not kind.has_web:
                group.pop("http", None)
        for node in made["nodes"]:
            if node["id"] in rated_kw:
                node["rated_kw"] = rated_kw[node["id"]]
        if kind.login is not None:
            made["credentials"]["miners"]["user"] = kind.login[0]
        return made

    def write_files(self) -> None:
        """The demo's, with the makers' own log-ins, and shorter delays of what is not timed."""
        Demo.write_files(self)
        latencies = load_latencies()
        for plan in self.plans[1:]:
            site, files = self.sleeping[plan.number - 2], self.folder.site(plan.id)
            login = KINDS[site.family].login
            if login is not None:
                secret = files.root / "secrets" / "miners"
                secret.unlink()
                write_secret(secret, f"{login[1]}\n")
            write_yaml(self._delays(plan), delays_beside(latencies, site.family))

    def _delays(self, plan: Plan) -> Path:
        return self.folder.site(plan.id).root / "latencies.yaml"

    def pace(self, plan: Plan) -> tuple[str, ...]:
        """Real time at the further sites."""
        if plan.number == 1:
            return ("--time-scale", f"{POLLED_TIME_SCALE:g}")
        return ("--time-scale", "1", "--latencies", str(self._delays(plan)))

    def tested(self, plan: Plan) -> tuple[str, ...]:
        """Every output of the polled site, one of each further site."""
        return OUTPUTS if plan.number == 1 else OUTPUTS[-1:]

    async def steady(self, plan: Plan) -> None:
        """Wait until every machine has answered and hashes, and power stands still.

        Raises:
            DemoError: it does not come to that in time.
        """
        powers: list[int] = []
        shown: dict[str, Any] = {}
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            for _ in range(round(STEADY_S / LOOK_S)):
                shown = await self._shown(client, plan)
                live, net_w = shown.get("live") or {}, shown.get("power_w")
                ready = (
                    shown.get("mode") == "armed"
                    and shown.get("freshness") == "fresh"
                    and (live.get("asics_hashing") or 0) >= plan.machines
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
        powers = self._true(plan)["node_power_w"]
        return float(powers["QF1"]) + float(powers["QF2"])

    def all_mine(self, plan: Plan) -> bool:
        """True while every machine of a site is at its full power, as the simulation knows it."""
        return bool(self._true(plan)["machines"] == {str(MachineState.MINING): plan.machines})

    def slow_answers(self, plan: Plan) -> None:
        """Every machine of a site answers as late as a real one from now on."""
        door = f"http://127.0.0.1:{self.controls[plan.id]}/faults"
        names = [f"board{b.number}/{n}" for b in plan.boards for n in range(1, b.machines + 1)]
        with httpx.Client(trust_env=False, timeout=10) as client:
            for name in names:
                fault = {"kind": "slow", "target": name, "seconds": ANSWER_S}
                client.post(door, json=fault).raise_for_status()

    def _true(self, plan: Plan) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.controls[plan.id]}/state", timeout=10) as answer:
            return dict(json.load(answer))
