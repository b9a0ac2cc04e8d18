"""``tizgin agent inventory`` over machines on real sockets: import, a fresh look, and what the running watch kept."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import yaml
from ports import port_run

from agent.acquisition import build
from agent.clock import SystemClock
from agent.inventory.grouped import Grouped
from agent.inventory.poll import poll_all
from agent.inventory.watch import InventoryWatch
from agent.live import LiveState
from config.loader import load_site
from drivers.capabilities import MinerStatus
from simulator.devices.asic import LuxosMiner, StockAntminer
from simulator.devices.models import Nameplate, StandaloneMachine
from tizgin.cli import run

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "small.yaml"
SPEED = 10_000.0
STOCK, LUX = 3, 2


@dataclass
class Farm:
    """A site file over five simulated machines, three of one rack and two of another."""

    folder: Path
    config: Path
    miners: list[StockAntminer | LuxosMiner] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    async def command(self, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(run, ["agent", "inventory", *arguments, "--config", str(self.config)])
        out, err = capsys.readouterr()
        return code, out, err

    async def report(self, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
        code, out, err = await self.command("check", "--json", *arguments, capsys=capsys)
        assert out, err
        return code, json.loads(out)


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    stock_rpc, stock_http, lux_rpc = port_run(STOCK), port_run(STOCK), port_run(LUX)
    doc = yaml.safe_load(EXAMPLE.read_text())
    doc["agent"]["state_dir"] = "state"
    doc["agent"]["clock_source"] = "host"
    doc["credentials"]["miners"] = {"user": "root", "password_file": "miners.secret"}
    doc["tenants"] = [{"id": "hosting", "name": "ТОО «Хостинг»"}]
    first, second = doc["miners"]
    first |= {
        "rpc": f"127.0.0.1:{stock_rpc}-{stock_rpc + STOCK - 1}",
        "http": f"127.0.0.1:{stock_http}-{stock_http + STOCK - 1}",
        "period_s": 1,
    }
    second |= {"family": "luxos", "rpc": f"127.0.0.1:{lux_rpc}-{lux_rpc + LUX - 1}", "tenant": "hosting", "period_s": 1}
    del second["http"]
    farm = Farm(tmp_path, tmp_path / "site.yaml")
    farm.config.write_text(yaml.safe_dump(doc, allow_unicode=True))
    (tmp_path / "miners.secret").write_text("root")
    farm.state.mkdir()
    async with AsyncExitStack() as stack:
        for n in range(STOCK + LUX):
            plate = Nameplate(serial=f"FARMSN{n:04}", mac=f"02:00:00:00:01:{n:02x}")
            machine = StandaloneMachine(plate, time_scale=SPEED)
            kind = StockAntminer if n < STOCK else LuxosMiner
            server = kind(machine, time_scale=SPEED)
            ports = (stock_rpc + n, stock_http + n) if n < STOCK else (lux_rpc + n - STOCK, 0)
            await server.start("127.0.0.1", *ports)
            stack.push_async_callback(server.stop)
            farm.miners.append(server)
        yield farm


def save_register(path: Path, rows: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.active.append(["Сериялық нөмірі", "MAC", "Үлгісі", "Иесі", "Орны", "Мощность, кВт"])
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def rows_of_farm() -> list[list[Any]]:
    stock = [[f"FARMSN{n:04}", f"02-00-00-00-01-{n:02x}", None, "ТОО «Қуат»", "rack1", 3.25] for n in range(STOCK)]
    return [*stock, *([None, f"02:00:00:00:01:{n:02x}", None, None, "rack2", None] for n in range(STOCK, STOCK + LUX))]


async def test_a_register_that_fits_the_site_is_content(
    farm: Farm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = await farm.command(
        "import", str(save_register(tmp_path / "r.xlsx", rows_of_farm())), capsys=capsys
    )
    assert code == 0, out + err
    assert "5 machines are taken" in out
    _, before = await farm.report("--fresh", capsys=capsys)
    pool = before["pools"][0]["pool"]
    assert {p["verdict"] for p in before["pools"]} == {"unlisted"}
    listed = tmp_path / "pools.yaml"
    listed.write_text(
        yaml.safe_dump({"pools": [{"name": "Pool", "hosts": sorted({p["pool"] for p in before["pools"]})}]})
    )
    code, _, err = await farm.command("import", "--accredited", str(listed), capsys=capsys)
    assert code == 0, err
    code, report = await farm.report("--fresh", "--csv", str(tmp_path / "equipment.csv"), capsys=capsys)
    assert code == 0, report
    assert report["counts"] | {"machines": 5, "registered": 5, "missing": 0} == report["counts"]
    assert {p["verdict"] for p in report["pools"]} == {"accredited"}, pool
    table = list(csv.DictReader((tmp_path / "equipment.csv").read_text("utf-8-sig").splitlines()))
    assert [(row["owner"], row["registered"], row["nameplate_w"]) for row in table] == [
        ("ТОО «Қуат»", "3", "9750.0"),
        ("", "2", ""),
    ]
    code, out, _ = await farm.command("check", "--fresh", capsys=capsys)
    assert code == 0
    assert "5 registered, 0 unregistered" in out


async def test_what_does_not_fit_is_named(farm: Farm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of_farm()
    rows[0][4] = "rack2"
    rows[1][:2] = ["ELSEWHERE1", "02:00:00:00:09:09"]
    await farm.command("import", str(save_register(tmp_path / "r.xlsx", rows)), capsys=capsys)
    third = farm.miners[2].machine
    assert isinstance(third, StandaloneMachine)
    third.nameplate = replace(third.nameplate, mac="02:00:00:00:01:03")  # two boards of one address
    await farm.miners[4].stop()
    code, report = await farm.report("--fresh", capsys=capsys)
    assert code == 1
    said = {found["machine"]: found for found in report["machines"]}
    assert said["rack1/1"]["flags"] == ["moved"]
    assert said["rack1/2"]["standing"] == "unregistered"
    assert {"duplicated", "mixed"} <= set(said["rack1/3"]["flags"])
    assert said["rack1/3"]["also"] == ["rack2/1"]
    assert (said["rack2/2"]["standing"], said["rack2/2"]["seen"]) == ("unread", None)
    assert "127.0.0.1" in said["rack2/2"]["reason"]
    assert [entry["serial"] or entry["mac"] for entry in report["missing"]] == ["ELSEWHERE1", "02:00:00:00:01:04"]


async def test_a_refused_list_leaves_the_one_before(
    farm: Farm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save_register(tmp_path / "good.xlsx", rows_of_farm())
    await farm.command("import", str(good), capsys=capsys)
    before = (farm.state / "inventory.json").read_bytes()
    bad = save_register(tmp_path / "bad.xlsx", [*rows_of_farm(), *rows_of_farm()])
    code, out, _ = await farm.command("import", str(bad), "--json", capsys=capsys)
    assert code == 1
    result = json.loads(out)
    assert (result["ok"], result["errors"]) == (False, 8)
    assert "which stands in row 2 too" in result["problems"][0]["text"]
    assert (farm.state / "inventory.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("import",), 2, "nothing to import"),
        (("import", "nowhere.csv"), 1, "cannot be read"),
        (("import", "--accredited", "nowhere.yaml"), 1, "there is no such file"),
        (("check",), 1, "nothing was seen yet"),
    ],
)
async def test_wrong_use_is_told_in_one_line(
    arguments: tuple[str, ...], code: int, said: str, farm: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = await farm.command(*arguments, capsys=capsys)
    assert (found, out) == (code, "")
    assert said in err.replace("\n", " ")
    assert err.count("\n") == 1


async def test_a_group_read_by_the_library_is_asked_through_its_process(farm: Farm) -> None:
    doc = yaml.safe_load(farm.config.read_text())
    doc["miners"][1] |= {"family": "pyasic", "rpc": "127.99.99.1-127.99.99.2:4028"}
    farm.config.write_text(yaml.safe_dump(doc, allow_unicode=True))
    found = await poll_all(load_site(farm.config), base=farm.folder, deadline_s=10)
    assert isinstance(found["rack1/1"], MinerStatus)
    for machine in ("rack2/1", "rack2/2"):  # nobody is there, or the library is not
        assert "pyasic" in str(found[machine])


async def test_the_watch_over_the_agents_own_pollers_gives_what_check_shows(
    farm: Farm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await farm.command("import", str(save_register(tmp_path / "r.xlsx", rows_of_farm()[1:])), capsys=capsys)
    site = load_site(farm.config)
    clock = SystemClock("host")
    live = LiveState(site, clock)
    records: list[dict[str, Any]] = []
    watch = InventoryWatch(site, farm.state, clock, records.append, grouped=Grouped(settle_ms=0))
    bench = build(site, live, clock, base=farm.folder, snmp=None)
    bench.on_miner = lambda machine: watch.take(machine, live.miners[machine].status, live.miners[machine].at_ms)
    await watch.open()
    pollers = [asyncio.create_task(poller.run()) for poller in bench.pollers]
    try:
        async with asyncio.timeout(60):
            while watch.book.counts().unread:  # noqa: ASYNC110 - the watch has no events
                await asyncio.sleep(0.05)
    finally:
        for task in pollers:
            task.cancel()
        await asyncio.gather(*pollers, return_exceptions=True)
    await watch.tell()
    await watch._save()
    kinds = {(r["ev"], r["obj"], r["now"]) for r in records}
    assert ("asic_identity", "rack1", "unregistered") in kinds
    assert ("asic_identity", "rack2", "first_seen") in kinds
    assert any(r["ev"] == "pool_switch" and r["was"] is None for r in records)
    code, report = await farm.report(capsys=capsys)
    assert code == 1
    assert report["source"] == "agent"
    assert (report["counts"]["registered"], report["counts"]["unregistered"]) == (4, 1)
