"""From nothing to armed sites: keys, site files, processes, certificates, register, commissioning, signed acts.

Every party uses the ordinary commands on files of its own folder. What does not depend on each other runs at once.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from config.loader import load_site
from simulator.latencies import Latencies, load_latencies
from tizgin.demo.commissioning import commission
from tizgin.demo.errors import DemoError
from tizgin.demo.folder import Folder, SiteFolder, write_secret, write_yaml
from tizgin.demo.plan import OUTPUTS, Plan, plan_site, shares
from tizgin.demo.ports import Ports
from tizgin.demo.processes import Child, Processes, tizgin_command
from tizgin.demo.register import (
    GRID_COMPANY,
    SYSTEM_OPERATOR,
    Enrolled,
    build_register,
    central_settings,
    engineer_of,
)
from tizgin.demo.sites import SitePorts, allocate, build_site

WITNESS = "so.demo"
COMMAND_S = 30.0
READY_S = 40.0
REGISTER_S = 15.0
STEADY_S = 60.0
POLL_S = 0.1
STABLE_S = 2.5
STABLE_SHARE = 0.01
"""Steady: net power moved by less than this within the time above."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How large the demo is."""

    sites: int
    asics: int
    """In all sites together."""
    port: int
    """Of central's page; 0 takes a free one."""
    time_scale: float


@dataclass(slots=True)
class Demo:
    """One demo being built up, and what is known of it afterwards."""

    size: Size
    folder: Folder
    processes: Processes
    say: Say
    patience: float = 1.0
    """Times the usual limits of commands and of programs that come up."""
    rng: random.Random = field(default_factory=random.Random)
    plans: list[Plan] = field(default_factory=list)
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Site files as data."""
    registrar_key: str = ""
    api_url: str = ""
    broker_port: int = 0
    witness_port: int = 0
    witness_key: str = ""
    """The witness's line for the register's policy."""
    controls: dict[str, int] = field(default_factory=dict)
    """Site → port of the simulator's fault door."""
    agents: dict[str, Child] = field(default_factory=dict)
    simulators: dict[str, Child] = field(default_factory=dict)
    central: Child | None = None
    _initialised: asyncio.Event = field(default_factory=asyncio.Event)
    """Central's authority can sign certificates."""

    @property
    def asics(self) -> int:
        """Machines of all sites."""
        return sum(plan.machines for plan in self.plans)

    @property
    def meters(self) -> int:
        """Meters of all sites."""
        return sum(1 for site in self.sites.values() for device in site["devices"] if device["kind"] == "meter")

    def key_file(self, person: str) -> Path:
        """Private key of a person, in the folder of whom the person works for."""
        if person in {SYSTEM_OPERATOR, GRID_COMPANY}:
            return self.folder.dispatcher / f"{person}.pem"
        return self.folder.site(person.removeprefix("chief-")).root / "chief.pem"

    async def tizgin(self, *arguments: str, cwd: Path | None = None, good: tuple[int, ...] = (0,)) -> str:
        """Run a sub-command to its end; returns its standard output.

        Raises:
            DemoError: it failed.
        """
        name = " ".join(("tizgin", *arguments[:3]))
        where = cwd or self.folder.root
        limit_s = COMMAND_S * self.patience
        _, out = await self.processes.run(name, tizgin_command(*arguments), cwd=where, timeout_s=limit_s, good=good)
        return out

    # building up ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything, up to armed agents with steady load.

        Raises:
            DemoError: a step failed; the message says which, and where its log is.
        """
        made, self.witness_key = await asyncio.gather(
            self.tizgin("registrar", "init", "--dir", str(self.folder.registrar), "--json"),
            self.tizgin("witness", "keygen", "--key", str(self.folder.witness / "witness.pem"), "--name", WITNESS),
        )
        self.registrar_key = json.loads(made)["public"]
        self.write_files()
        self.say(f"{self.size.sites} site(s) with {self.asics} ASICs and {self.meters} meters, in {self.folder.root}")
        async with asyncio.TaskGroup() as group:
            central = group.create_task(self._start_central())
            group.create_task(self._start_witness())
            keys = group.create_task(self._make_keys())
            enrolled = {p.id: group.create_task(self._enroll(p)) for p in self.plans}
            tested = {p.id: group.create_task(self._simulate(p)) for p in self.plans}
            register = group.create_task(self._register(central, keys, enrolled))
            for plan in self.plans:
                group.create_task(self._arm(plan, enrolled[plan.id], tested[plan.id], register))
        self.say("agents are armed; waiting until the load is steady")
        await asyncio.gather(*(self.steady(plan) for plan in self.plans))

    def make_plans(self, latencies: Latencies) -> list[Plan]:
        """Which sites there are."""
        counts = shares(self.size.asics, self.size.sites)
        return [plan_site(index + 1, machines, latencies) for index, machines in enumerate(counts)]

    def site_file(self, plan: Plan, ports: SitePorts) -> dict[str, Any]:
        """A site's file as data."""
        return build_site(plan, ports, broker_port=self.broker_port, registrar_key=self.registrar_key)

    def pace(self, plan: Plan) -> tuple[str, ...]:  # noqa: ARG002 - all sites of a demo run alike
        """How fast a site's machines change, as options of ``tizgin simulate``."""
        return ("--time-scale", f"{self.size.time_scale:g}")

    def tested(self, plan: Plan) -> tuple[str, ...]:  # noqa: ARG002 - all sites of a demo have the same outputs
        """Outputs that are commissioned."""
        return OUTPUTS

    def write_files(self) -> None:
        """Site files, their secrets, and central's settings."""
        ports = Ports(self.rng)
        self.broker_port, self.witness_port = ports.block(1), ports.block(1)
        web = self.size.port or ports.block(1)
        self.plans += self.make_plans(load_latencies())
        for plan in self.plans:
            site = self.sites[plan.id] = self.site_file(plan, allocate(ports.block, plan))
            files = self.folder.site(plan.id)
            for part in (files.root, files.tls, files.root / "secrets"):
                part.mkdir(parents=True, mode=0o700)
            write_secret(files.root / "secrets" / "miners", "root\n")
            write_secret(files.root / "secrets" / "pdu", "public\n")
            write_yaml(files.config, site)
        settings = central_settings(
            self.plans, port=web, broker_port=self.broker_port, registrar_key=self.registrar_key
        )
        settings["witnesses"] = [{"url": f"http://127.0.0.1:{self.witness_port}", "key": self.witness_key.split()[-1]}]
        write_yaml(self.folder.central_config, settings)

    async def _start_central(self) -> None:
        config = str(self.folder.central_config)
        await self.tizgin("central", "init", "--config", config)
        self._initialised.set()
        ready = self.folder.central / "ready.json"
        command = tizgin_command("central", "run", "--config", config, "--ready-file", str(ready))
        self.central = await self.processes.start("central", command, cwd=self.folder.central)
        self.api_url = str((await self.central.ready(ready, timeout_s=READY_S * self.patience))["api_url"])
        self.say(f"central and its broker run: {self.api_url}")

    async def _start_witness(self) -> None:
        """The system operator's own process with its own key: it has seen every history, so none can be rewritten."""
        folder = self.folder.witness
        command = tizgin_command(
            "witness", "run", "--key", str(folder / "witness.pem"), "--name", WITNESS,
            "--register", str(self.folder.register), "--registrar", self.registrar_key,
            "--store", str(folder / "witness.db"), "--port", str(self.witness_port),
            "--ready-file", str(folder / "ready.json"),
        )  # fmt: skip
        child = await self.processes.start("witness", command, cwd=folder)
        await child.ready(folder / "ready.json", timeout_s=READY_S * self.patience)
        self.say("the system operator's witness runs: it cosigns the sites' checkpoints, as central does")

    async def _make_keys(self) -> dict[str, str]:
        persons = [SYSTEM_OPERATOR, GRID_COMPANY, *(engineer_of(plan.id) for plan in self.plans)]

        async def one(person: str) -> tuple[str, str]:
            file = str(self.key_file(person))
            out = await self.tizgin("order", "keygen", "--out", file, "--person", person, "--json")
            return person, str(json.loads(out)["public"])

        return dict(await asyncio.gather(*(one(person) for person in persons)))

    async def _enroll(self, plan: Plan) -> Enrolled:
        """The site makes its keys; central's authority signs its certificate."""
        files = self.folder.site(plan.id)
        out = files.root / "enrolment.json"
        await self.tizgin("agent", "enroll", "--config", str(files.config), "--out", str(out))
        doc = json.loads(out.read_text(encoding="utf-8"))
        csr = files.tls / "site.csr"
        csr.write_text(doc["csr"], encoding="utf-8")
        await self._initialised.wait()
        config, cert = str(self.folder.central_config), str(files.tls / "site.pem")
        await self.tizgin("central", "enroll", "--config", config, "--site", plan.id, "--csr", str(csr), "--out", cert)
        (files.tls / "ca.pem").write_bytes((self.folder.central_data / "pki" / "ca.pem").read_bytes())
        return Enrolled(doc["epoch"], doc["k_rec"], doc["k_log"])

    async def _register(
        self,
        central: asyncio.Task[None],
        keys: asyncio.Task[dict[str, str]],
        enrolled: Mapping[str, asyncio.Task[Enrolled]],
    ) -> None:
        """The registrar signs who is who; central carries it."""
        persons, sites = await keys, {site: await task for site, task in enrolled.items()}
        await self._initialised.wait()
        asked = ("central", "witness-key", "--config", str(self.folder.central_config))
        line, own = await asyncio.gather(self.tizgin(*asked), self.tizgin(*asked, "--public"))
        policy = f"{self.witness_key}{line}group both all {WITNESS} central\nquorum both\n"
        document = build_register(
            self.plans, self.sites, sites, persons, now=datetime.now(UTC), policy=policy, collector=own.strip()
        )
        source = self.folder.registrar / "register.yaml"
        write_yaml(source, document)
        key, out = str(self.folder.registrar / "registrar.pem"), str(self.folder.register)
        await self.tizgin("registrar", "sign", str(source), "--key", key, "--out", out, "--json")
        await central
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.put(
                f"{self.api_url}/api/v1/keys",
                content=self.folder.register.read_bytes().strip(),
                headers={"content-type": "application/json"},
            )
        if answer.status_code >= 300:
            raise DemoError(f"central does not take the register: {answer.status_code} {answer.text[:300]}")
        self.say("the registrar has signed who may order what; central carries the register to the sites")

    async def _simulate(self, plan: Plan) -> dict[str, Any]:
        """The plant runs, and every output is exercised; returns the protocol of the commissioning."""
        files = self.folder.site(plan.id)
        name = f"simulate-{plan.id}"
        pace = (*self.pace(plan), "--seed", str(plan.number))
        command = tizgin_command("simulate", str(files.config), *pace, "--control-port", "0", "--json")
        child = self.simulators[plan.id] = await self.processes.start(name, command, cwd=files.root)
        outputs = json.loads(await self.tizgin("agent", "outputs", "--config", str(files.config), "--json"))
        self.controls[plan.id] = int((await child.ready(child.out, timeout_s=READY_S * self.patience))["control_port"])
        tested = await commission(await asyncio.to_thread(load_site, files.config), outputs, self.tested(plan))
        seen = ", ".join(f"{t.output} {t.seen_w / 1000:.0f} kW in {t.open_ms} ms" for t in tested)
        self.say(f"{plan.id}: outputs opened and closed, measured at their meters: {seen}")
        return {"outputs": [t.doc() for t in tested], "note": "exercised over Modbus before the agent was armed"}

    # arming ---------------------------------------------------------------------------------------------------------

    async def start_agent(self, plan: Plan) -> Child:
        """Start a site's agent and wait until it runs."""
        files = self.folder.site(plan.id)
        files.ready.unlink(missing_ok=True)
        command = tizgin_command(
            "agent", "run", "--config", str(files.config), "--ready-file", str(files.ready), "--log-format", "json"
        )
        child = await self.processes.start(f"agent-{plan.id}", command, cwd=files.root)
        self.agents[plan.id] = child
        await child.ready(files.ready, timeout_s=READY_S * self.patience)
        return child

    async def _arm(
        self,
        plan: Plan,
        enrolled: asyncio.Task[Enrolled],
        tested: asyncio.Task[dict[str, Any]],
        register: asyncio.Task[None],
    ) -> None:
        """Start the agent in monitor mode, then hand in the two acts that two persons each have signed."""
        epoch = (await enrolled).epoch
        files = self.folder.site(plan.id)
        protocol = {"site": plan.id, "epoch": epoch} | await tested
        await register
        (files.root / "protocol.json").write_text(json.dumps(protocol), encoding="utf-8")
        async with asyncio.TaskGroup() as group:
            commissioned = group.create_task(
                self._sign_act(plan, "commission", GRID_COMPANY, str(files.root / "protocol.json"))
            )
            step = ("--site", plan.id, "--epoch", epoch, "--to", "armed", "--reason", "demo")
            armed = group.create_task(self._sign_act(plan, "mode", SYSTEM_OPERATOR, *step))
            agent = group.create_task(self._agent_with_register(plan, files))
        agent.result()
        for act in (commissioned.result(), armed.result()):
            await self.tizgin("agent", "act", "--config", str(files.config), str(act))
        self.say(f"{plan.id}: commissioned and armed, each by two persons' signatures")

    async def _sign_act(self, plan: Plan, kind: str, second: str, *what: str) -> Path:
        """The chief engineer signs first, somebody of the grid operator second."""
        root = self.folder.site(plan.id).root
        first, both = root / f"{kind}-1.json", root / f"{kind}.json"
        chief, other = str(self.key_file(engineer_of(plan.id))), str(self.key_file(second))
        await self.tizgin("order", "act", kind, *what, "--key", chief, "--out", str(first), "--yes")
        await self.tizgin("order", "act", kind, "--add", str(first), "--key", other, "--out", str(both), "--yes")
        return both

    async def _agent_with_register(self, plan: Plan, files: SiteFolder) -> None:
        child = await self.start_agent(plan)
        limit_s = REGISTER_S * self.patience
        deadline = time.monotonic() + limit_s
        while not await asyncio.to_thread(_has_register, files.state / "ledger.db"):
            child.require_running("before it had the register")
            if time.monotonic() > deadline:
                raise DemoError(f"{child.name}: no register within {limit_s:g} s; its log is {child.log}")
            await asyncio.sleep(POLL_S)

    # steady ---------------------------------------------------------------------------------------------------------

    async def steady(self, plan: Plan) -> None:
        """Wait until central shows fresh, stable power, an armed agent, and every machine hashing.

        Raises:
            DemoError: it does not come to that in time; the message has what central showed last.
        """
        seen: list[tuple[float, int]] = []
        last: dict[str, Any] = {}
        deadline = time.monotonic() + STEADY_S
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            while time.monotonic() < deadline:
                last = await self._shown(client, plan)
                now, net_w = time.monotonic(), _steady_power(last, plan)
                seen = [*((t, w) for t, w in seen if t > now - 2 * STABLE_S), (now, net_w)] if net_w else []
                if seen and seen[-1][0] - seen[0][0] >= STABLE_S:
                    powers = [w for t, w in seen if t >= now - STABLE_S]
                    if max(powers) - min(powers) <= STABLE_SHARE * max(powers):
                        self.say(f"{plan.id}: steady at {net_w or 0:,} W".replace(",", " "))
                        return
                await asyncio.sleep(3 * POLL_S)
        live = last.get("live") or {}
        shown = {name: last.get(name) for name in ("presence", "mode", "power_w", "freshness", "alarms")}
        hashing = f"{live.get('asics_hashing')} of {live.get('asics_total')} ASICs hash"
        raise DemoError(f"{plan.id}: not steady within {STEADY_S:g} s: {shown}, {hashing}; logs: {self.folder.logs}")

    async def _shown(self, client: httpx.AsyncClient, plan: Plan) -> dict[str, Any]:
        """What central shows of a site; nothing where it does not answer."""
        try:
            found = (await client.get(f"{self.api_url}/api/v1/sites/{plan.id}")).json()
        except (httpx.HTTPError, ValueError):
            if self.central is not None:
                self.central.require_running("while the sites came up")
            return {}
        return found if isinstance(found, dict) else {}


def _steady_power(site: Mapping[str, Any], plan: Plan) -> int | None:
    """Net power where everything but its stability is as it should be."""
    live = site.get("live") or {}
    good = (
        site.get("presence") == "online"
        and site.get("mode") == "armed"
        and site.get("freshness") == "fresh"
        and live.get("asics_hashing") == plan.machines
    )
    net_w = site.get("power_w")
    return net_w if good and isinstance(net_w, int) and net_w > 0 else None


def _has_register(ledger: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=2)) as db:
            return db.execute("SELECT 1 FROM meta WHERE key = 'keys'").fetchone() is not None
    except sqlite3.OperationalError:
        return False
