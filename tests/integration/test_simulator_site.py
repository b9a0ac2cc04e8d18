"""A simulated site on real sockets: read by foreign clients, driven by our drivers, broken on purpose."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

import simulator
from config.loader import load_site
from config.site import Site
from drivers.asic.credentials import Credentials
from drivers.asic.identify import driver_for
from drivers.capabilities import Position, Sleeper, WriteStatus
from drivers.modbus.link import ModbusLink
from drivers.modbus.relay import InputRef, RelayDevice, RelaySwitch
from drivers.profiles.codec import decode_block
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile, RelayProfile
from simulator.control import ControlServer
from simulator.devices.meter import encode_point
from simulator.machine import MachineState
from simulator.site import SimulatedSite, SimulationError

SITE_FILE = Path(simulator.__file__).parent / "data" / "two-incomers.yaml"
RAW: dict[str, Any] = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
SITE = load_site(SITE_FILE)
WITHOUT_MINERS = Site.model_validate({**RAW, "miners": []})
"""Starts faster; its mining loads draw their rated share."""
needs_mbpoll = pytest.mark.skipif(shutil.which("mbpoll") is None, reason="left out: mbpoll is not installed")
needs_snmp = pytest.mark.skipif(shutil.which("snmpget") is None, reason="left out: net-snmp tools are not installed")


@asynccontextmanager
async def running(site: Site = SITE, *, time_scale: float = 400.0) -> AsyncIterator[SimulatedSite]:
    simulated = SimulatedSite(site, time_scale=time_scale, seed=3, step_s=0.02, ephemeral=True)
    await simulated.start()
    try:
        yield simulated
    finally:
        await simulated.stop()


async def until(condition: Callable[[], bool], what: str, limit_s: float = 8.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.01)


async def tool(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def mbpoll(simulated: SimulatedSite, link: str, unit: int, *words: str, host_last: tuple[str, ...] = ()) -> str:
    host, port = simulated.addresses[link]
    _, out = await tool(
        "mbpoll", "-m", "tcp", "-p", str(port), "-a", str(unit), "-0", "-1", "-o", "1", *words, host, *host_last
    )
    return out


def shown(output: str) -> list[str]:
    """Values of mbpoll's lines ``[52]:  0x459A``."""
    return re.findall(r"^\[\d+\]:\s+(\S+)", output, re.MULTILINE)


async def ask(simulated: SimulatedSite, link: str, unit: int, pdu: bytes, limit_s: float = 0.3) -> bytes | None:
    """One raw question; ``None`` for silence."""
    reader, writer = await asyncio.open_connection(*simulated.addresses[link])
    try:
        writer.write(b"\x00\x07\x00\x00" + (len(pdu) + 1).to_bytes(2, "big") + bytes((unit,)) + pdu)
        async with asyncio.timeout(limit_s):
            head = await reader.readexactly(7)
            return await reader.readexactly(int.from_bytes(head[4:6], "big") - 1)
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        writer.close()


async def summary_of(simulated: SimulatedSite, machine: str) -> bytes:
    """What a machine's JSON socket says; nothing where the connection is reset."""
    try:
        reader, writer = await asyncio.open_connection(*simulated.addresses[machine])
        writer.write(b'{"command":"summary"}')
        async with asyncio.timeout(2):
            return await reader.read()
    except (ConnectionError, TimeoutError):
        return b""


def read(function: int, addr: int, count: int) -> bytes:
    return bytes((function,)) + addr.to_bytes(2, "big") + count.to_bytes(2, "big")


POWER = read(4, 52, 2)


class TestForeignClients:
    @needs_mbpoll
    async def test_mbpoll_reads_the_power_that_the_plant_has(self) -> None:
        async with running() as site:
            (power,) = shown(await mbpoll(site, "meters", 1, "-t", "3:float", "-B", "-r", "52", "-c", "1"))
            assert float(power) == pytest.approx(site.plant.node_power_w["QF1"], rel=0.02)

    @needs_mbpoll
    @pytest.mark.parametrize(
        ("unit", "device", "profile_id"),
        [(1, "em-1", "eastron-sdm630"), (2, "em-2", "schneider-iem3000"), (5, "em-5", "carlogavazzi-em24-e1")],
    )
    async def test_every_register_that_mbpoll_sees_is_what_the_profile_says(
        self, unit: int, device: str, profile_id: str
    ) -> None:
        profile = load_profile(profile_id)
        assert isinstance(profile, MeterProfile)
        async with running() as site:
            site.faults.set("frozen", device)
            values = site.faults.devices[device].frozen
            assert values is not None
            for point in profile.points[:14]:
                kind = "4:hex" if point.table == "holding" else "3:hex"
                seen = shown(
                    await mbpoll(site, "meters", unit, "-t", kind, "-r", str(point.addr), "-c", str(point.words))
                )
                words = [int(word, 16) for word in seen]
                assert tuple(words) == encode_point(point, values), point.id
                decoded = decode_block(profile, point.table, point.addr, words, [point.id])[point.id].value
                truth = values[point.id]
                if isinstance(truth, float) and isinstance(decoded, float):
                    step = abs(float(point.scale)) if point.type not in {"f32", "f64"} else 0.0
                    assert decoded == pytest.approx(truth, rel=1e-5, abs=step), point.id

    @needs_mbpoll
    async def test_mbpoll_opens_a_contactor_and_sees_its_contacts(self) -> None:
        async with running() as site:
            assert shown(await mbpoll(site, "relays", 1, "-t", "0", "-r", "0", "-c", "1")) == ["1"]
            assert shown(await mbpoll(site, "relays", 1, "-t", "1", "-r", "0", "-c", "2")) == ["0", "1"]
            dark = site.plant.graph.dark_if_opened("KM1", site.plant.positions)
            before = site.plant.energised
            assert b"GHS" in await summary_of(site, "stock/1")
            await mbpoll(site, "relays", 1, "-t", "0", "-r", "0", host_last=("0",))
            await until(lambda: not site.plant.switches["KM1"].closed, "KM1 opens")
            await until(lambda: before - site.plant.energised == dark, "exactly the dark set is dark")
            assert shown(await mbpoll(site, "relays", 1, "-t", "1", "-r", "0", "-c", "2")) == ["1", "0"]
            out = await mbpoll(site, "meters", 3, "-t", "3:hex", "-r", "52", "-c", "2", "-o", "0.2")
            assert shown(out) == []  # fed from behind the switch: silent
            assert await summary_of(site, "stock/1") == b""  # no power, no answer

    @needs_snmp
    async def test_snmpget_reads_and_snmpset_switches_an_outlet(self) -> None:
        async with running() as site:
            host, port = site.addresses["pdus"]
            state = "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.1"
            command = "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.1"
            peer = f"{host}:{port}"
            _, before = await tool("snmpget", "-v2c", "-c", "public", "-Oqv", peer, state)
            assert before.strip() == "2"
            code, _ = await tool("snmpset", "-v2c", "-c", "private", "-Oqv", peer, command, "i", "2")
            assert code == 0
            await until(lambda: "RACK" not in site.plant.energised, "the rack is dark")
            _, after = await tool("snmpget", "-v2c", "-c", "public", "-Oqv", peer, state)
            assert after.strip() == "1"
            site.faults.set("dead", "pdu-1")
            code, _ = await tool("snmpget", "-v2c", "-c", "public", "-r0", "-t0.2", "-Oqv", peer, state)
            assert code != 0


class TestDrivers:
    @pytest.mark.parametrize(
        ("switch", "output", "actuator", "inputs", "closes"),
        [
            ("KM1", "relay_1", "contactor_no", ("di_1", "di_2"), True),
            ("KM3", "relay_3", "contactor_nc", ("di_1", "di_2"), True),
            ("QF5", "relay_2", "shunt_trip", ("di_3", "di_4"), False),
            ("QF6", "relay_4", "undervoltage_release", ("di_3", "di_4"), True),
        ],
    )
    async def test_our_switch_driver_opens_and_closes_every_nature(
        self, switch: str, output: str, actuator: Any, inputs: tuple[str, str], closes: bool
    ) -> None:
        profile = load_profile("moxa-iologik-e1214")
        assert isinstance(profile, RelayProfile)
        async with running() as site:
            host, port = site.addresses["relays"]
            link = ModbusLink(f"modbus://{host}:{port}", name="relays")
            worker = asyncio.create_task(link.run())
            try:
                out = RelayDevice("io-1", 1, profile, link)
                contacts = RelayDevice("io-2", 2, profile, link) if switch in {"KM3", "QF6"} else out
                driven = RelaySwitch(
                    out,
                    output,
                    actuator,
                    InputRef(contacts, inputs[0]),
                    InputRef(contacts, inputs[1]),
                    close_output="relay_5" if switch == "QF6" else None,
                    pulse_ms=200 if actuator in {"shunt_trip", "undervoltage_release"} else None,
                )
                assert (await driven.read()).position is Position.CLOSED
                assert (await driven.open()).status is WriteStatus.ACKNOWLEDGED
                await until(lambda: not site.plant.switches[switch].closed, f"{switch} opens")
                assert (await driven.read()).position is Position.OPEN
                outcome = await driven.close()
                if closes:
                    assert outcome.status is WriteStatus.ACKNOWLEDGED
                    await until(lambda: site.plant.switches[switch].closed, f"{switch} closes")
                else:
                    assert outcome.status is WriteStatus.REFUSED
            finally:
                worker.cancel()
                await asyncio.gather(worker, return_exceptions=True)

    @pytest.mark.parametrize(("machine", "family"), [("stock/2", "antminer-stock"), ("lux/2", "luxos")])
    async def test_our_miner_drivers_sleep_and_wake_a_machine_and_the_meter_sees_it(
        self, machine: str, family: str
    ) -> None:
        async with running() as site:
            host, port = site.addresses[machine]
            web = site.addresses.get(f"{machine}/http")
            driver = driver_for(
                family,
                host,
                rpc_port=port,
                http_port=web[1] if web else None,
                credentials=Credentials("root", "root"),
                writes_allowed=True,
            )
            assert isinstance(driver, Sleeper)
            body = site.plant.machines[machine]
            before_w = site.plant.node_power_w["MINERS1" if family == "antminer-stock" else "MINERS2"]
            prior = await driver.prior_state()
            assert (await driver.sleep()).status is WriteStatus.ACKNOWLEDGED
            await until(lambda: body.state is MachineState.ASLEEP, "asleep")
            site.now()
            after_w = site.plant.node_power_w["MINERS1" if family == "antminer-stock" else "MINERS2"]
            assert before_w - after_w == pytest.approx(body.full_w - body.sleep_w, abs=0.005 * before_w)
            assert (await driver.status()).sleeping is True
            assert (await driver.wake(prior)).status is WriteStatus.ACKNOWLEDGED
            await until(lambda: body.state is MachineState.MINING, "mining")


class TestSite:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"links": {"meters": "modbus://10.0.0.5:502"}}, "expected one on loopback"),
            ({"links": {"meters": "modbus://meter.example:502"}}, "expected one on loopback"),
            ({"links": {"meters": "rtu:///dev/ttyUSB0?baud=9600"}}, "serial lines are not simulated"),
            ({"rpc": "10.20.1.1-10.20.1.20:4028"}, "expected one on loopback"),
        ],
    )
    def test_an_address_outside_loopback_is_refused_before_anything_is_bound(
        self, change: dict[str, Any], said: str
    ) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        for link in raw["links"]:
            link["url"] = change.get("links", {}).get(link["id"], link["url"])
        if "rpc" in change:
            raw["miners"][0]["rpc"] = change["rpc"]
            del raw["miners"][0]["http"]
        with pytest.raises(SimulationError, match=said):
            SimulatedSite(Site.model_validate(raw))

    async def test_a_port_that_is_taken_is_named_and_nothing_stays_bound(self) -> None:
        blocker = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        port = blocker.sockets[0].getsockname()[1]
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["links"][1]["url"] = f"modbus://127.0.0.1:{port}"
        raw["miners"] = []
        site = SimulatedSite(Site.model_validate(raw))
        with pytest.raises(SimulationError, match=f"link relays: 127.0.0.1:{port} cannot be bound"):
            await site.start()
        again = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 25502)
        for server in (blocker, again):
            server.close()
            await server.wait_closed()

    async def test_two_hundred_machines_and_ten_meters_step_well_within_a_tenth_of_a_core(self) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["miners"][0].update(rpc="127.0.0.1:24000-24199", http="127.0.0.1:24200-24399")
        raw["devices"] += [
            {"id": f"x-{n}", "kind": "meter", "profile": "eastron-sdm630", "link": "meters", "unit": 10 + n}
            for n in range(6)
        ]
        raw["metering_points"] += [
            {"id": f"X{n}", "device": f"x-{n}", "node": "BUS1", "role": "technical", "owner": "site"} for n in range(6)
        ]
        plant = SimulatedSite(Site.model_validate(raw), ephemeral=True).plant
        for machine in plant.machines_of_group["stock"]:
            machine.request_sleep(plant.now_s)  # the costly case: every machine on a ramp
        start_s, steps = plant.now_s, 200
        spent_s = time.process_time()
        for n in range(1, steps + 1):
            plant.step(start_s + n * 0.1)
        spent_s = time.process_time() - spent_s
        # 10 steps a second may take 100 ms of CPU in all; a loaded machine shifts no processor time.
        assert spent_s / steps < 0.010


class TestControlDoor:
    async def test_faults_are_switched_and_the_state_is_told_over_loopback(self) -> None:
        async with running() as site, aiohttp.ClientSession() as client:
            door = ControlServer(site)
            base = f"http://127.0.0.1:{await door.start()}"
            try:
                posted = await client.post(f"{base}/faults", json={"kind": "blackout", "target": "GRID1"})
                assert (posted.status, await posted.json()) == (200, {"ok": True})
                state = await (await client.get(f"{base}/state")).json()
                assert state["blacked_out"] == ["GRID1"]
                assert "BUS1" not in state["energised"]
                assert state["switches"]["KM1"]["position"] == "closed"
                assert state["faults"] == [{"kind": "blackout", "target": "GRID1"}]
                bad = await client.post(f"{base}/faults", json={"kind": "blackout", "target": "BUS1"})
                assert bad.status == 400
                assert "expected a grid connection" in (await bad.json())["error"]
                page = await client.post(
                    f"{base}/faults", json={"kind": "open", "target": "KM1"}, headers={"Origin": "http://evil.example"}
                )
                assert page.status == 403
                for body in (b"", b"[1]", b'{"kind": 1}', b'{"kind":"slow","target":"em-1","seconds":[1]}'):
                    assert (await client.post(f"{base}/faults", data=body)).status == 400
            finally:
                await door.stop()

    async def test_the_command_says_when_it_is_ready_and_ends_on_a_signal(self, tmp_path: Path) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["links"], raw["devices"], raw["miners"] = [], [], []
        raw["metering_points"], raw["virtual_points"] = [], []
        for node in raw["nodes"]:
            for key in ("control", "position", "readiness", "saon"):
                node.pop(key, None)
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tizgin.cli", "simulate", str(path), "--json", "--control-port", "0",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=Path(simulator.__file__).parents[1],
        )  # fmt: skip
        assert process.stdout is not None
        try:
            ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
            assert ready["site"] == "sim-two-incomers"
            async with aiohttp.ClientSession() as client:
                state = await (await client.get(f"http://127.0.0.1:{ready['control_port']}/state")).json()
            assert state["node_power_w"]["GRID1"] > 0
        finally:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0
