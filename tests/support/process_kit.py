"""The same site as ``SiteKit``, with agent and central as processes of their own, so that they can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml
from ports import free_ports
from site_kit import SITE, SiteKit, now_ms, until

from tizgin.commands._agent_ask import outputs_of
from wire.acts import CommissioningAct, ModeAct, OutputTest, encode_act
from wire.dsse import ACT_TYPE, seal
from wire.orders import uuid7


class Process:
    """A child that can be killed without mercy. Its output goes to a file."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self._arguments = arguments
        self._log = log
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "tizgin", *self._arguments],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9."""
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        self.child.wait(10)

    def stop(self) -> int | None:
        if self.child is None or self.child.poll() is not None:
            return None
        self.child.terminate()
        try:
            return self.child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            raise AssertionError(f"{self.name} did not stop within 10 s: {self.tail()}") from None

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


class ProcessKit(SiteKit):
    """See the module."""

    def prepare(self) -> None:
        """Write central's settings and name the processes."""
        (self.api_port,) = free_ports(1)
        settings = self.central_settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        settings["port"] = self.api_port
        self.central_file = self.central_dir / "central.yaml"
        self.central_file.write_text(yaml.safe_dump(settings, allow_unicode=True))
        self.api = f"http://127.0.0.1:{self.api_port}/api/v1"
        self.central_ready = self.central_dir / "ready.json"
        self.agent_ready = self.site_dir / "ready.json"
        self.central_process = Process(
            "central",
            ["central", "run", "--config", str(self.central_file), "--ready-file", str(self.central_ready)],
            self.root / "central.log",
        )
        self.agent_process = Process(
            "agent",
            ["agent", "run", "--config", str(self.site_file), "--ready-file", str(self.agent_ready)],
            self.root / "agent.log",
        )

    async def start_all(self) -> None:
        """Everything, armed and live."""
        self.prepare()
        await self.start_plant()
        await self.run_central()
        await asyncio.to_thread(self.put_register)
        await self.run_agent()
        await self.until_status(lambda s: s["connected"], 20)
        await self.arm_by_files()
        await self.until_status(lambda s: s["mode"] == "armed" and s["net_w"] is not None, 20)
        await until(lambda: (self.live().get("asics_hashing") or 0) == self.luxos + self.stock, 30, "machines hash")

    def put_register(self) -> None:
        """The signed register, as the registrar publishes it."""
        headers = {"content-type": "application/json"}
        httpx.put(f"{self.api}/keys", content=self.register(), headers=headers).raise_for_status()

    async def run_central(self) -> None:
        self.central_ready.unlink(missing_ok=True)
        self.central_process.start()
        await until(self.central_ready.exists, 40, self.central_process.tail)

    async def run_agent(self) -> None:
        self.agent_ready.unlink(missing_ok=True)
        self.agent_process.start()
        await until(self.agent_ready.exists, 30, self.agent_process.tail)

    async def arm_by_files(self) -> None:
        """Acts through the agent's inbox, as a person hands them in."""
        now = now_ms()
        head = {"v": 1, "site": SITE, "epoch": self.epoch, "at": now}
        tests = tuple(
            OutputTest(
                output=r["output"],
                fingerprint=r["fingerprint"],
                expected_w=r["expected_w"],
                seen_w=r["expected_w"],
                open_ms=60,
                stayed_open_s=10,
                meter=r["meter"] or "M0",
            )
            for r in outputs_of(self.site)
            if r["usable"]
        )
        acts = (
            CommissioningAct(ty="commissioning", id=uuid7(now), outputs=tests, **head),
            ModeAct(ty="mode", id=uuid7(now), mode="armed", reason="test", **head),
        )
        for number, act in enumerate(acts):
            path = self.root / f"act{number}.json"
            path.write_bytes(seal(ACT_TYPE, encode_act(act), self.engineer, self.second).encode())
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "tizgin", "agent", "act", "--config", str(self.site_file), str(path)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.site_dir / "state" / "status.json").read_text())
        except (OSError, ValueError):
            return {"connected": False, "mode": "?", "net_w": None, "orders": {}}
        return found

    async def until_status(self, check: Any, within_s: float) -> None:
        await until(lambda: check(self.status()), within_s, lambda: f"{self.status()}\n{self.agent_process.tail()}")

    def live(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.api}/sites/{SITE}").json()
        return found.get("live") or found

    def post(self, raw: bytes) -> None:
        httpx.post(f"{self.api}/orders", content=raw, headers={"content-type": "application/json"}).raise_for_status()

    def order_state(self, order_id: str) -> str | None:
        """State in the agent's own journal."""
        rows = self.edge("SELECT state FROM orders WHERE id=?", order_id)
        return str(rows[0][0]) if rows else None

    def edge(self, query: str, *args: Any) -> list[Any]:
        """Rows of the agent's ledger, read by another connection."""
        db = sqlite3.connect(f"file:{self.site_dir / 'state' / 'ledger.db'}?mode=ro", uri=True, timeout=5)
        try:
            return db.execute(query, args).fetchall()
        finally:
            db.close()

    def central_rows(self, query: str, *args: Any) -> list[Any]:
        db = sqlite3.connect(f"file:{self.paths.database}?mode=ro", uri=True, timeout=5)
        try:
            return db.execute(query, args).fetchall()
        finally:
            db.close()

    async def until_order(self, order_id: str, *wanted: str, within_s: float = 60) -> str:
        await until(
            lambda: self.order_state(order_id) in wanted,
            within_s,
            lambda: f"order in {wanted}, is {self.order_state(order_id)}\n{self.agent_process.tail()}",
        )
        return str(self.order_state(order_id))

    def undelivered(self) -> list[Any]:
        """Records central has not confirmed."""
        return self.edge("SELECT stream, n, ty FROM record WHERE committed = 0")

    async def until_drained(self, within_s: float = 40) -> None:
        """Every record is confirmed by central."""
        await until(
            lambda: not self.undelivered(),
            within_s,
            lambda: f"open: {self.undelivered()[:5]}\n{self.agent_process.tail()}",
        )

    async def until_same(self, within_s: float = 20) -> list[tuple[str, int, str]]:
        """What edge and central both have, in a moment in which nothing is on its way: the agent writes on."""
        await self.until_drained()

        def told() -> str:
            edge, central = self.identities()
            return f"edge alone: {sorted(set(edge) - set(central))[:5]}, else: {sorted(set(central) - set(edge))[:5]}"

        found: list[list[tuple[str, int, str]]] = [[], []]

        def same() -> bool:
            found[:] = self.identities()
            return found[0] == found[1]

        await until(same, within_s, told)
        return found[0]

    def identities(self) -> tuple[list[tuple[str, int, str]], list[tuple[str, int, str]]]:
        """(edge, central): stream, number and leaf hash of every record."""
        edge = [
            (s, n, bytes(h).hex()) for s, n, h in self.edge("SELECT stream, n, hash FROM record ORDER BY stream, n")
        ]
        central = [tuple(r) for r in self.central_rows("SELECT stream, n, hash FROM records ORDER BY stream, n")]
        return edge, central

    def plant_net_w(self) -> float:
        assert self.simulation is not None
        self.simulation.now()
        return self.simulation.plant.node_power_w["QF0"]

    async def stop_all(self) -> None:
        for process in (self.agent_process, self.central_process):
            if process.child is not None and process.child.poll() is None:
                process.stop()
        if self.simulation is not None:
            await self.simulation.stop()
