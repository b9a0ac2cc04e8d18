"""A meter is exchanged at a running site, and a branch goes dark: over real Modbus, told by the real command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from site_kit import SiteKit

from tizgin.commands.agent import app as agent_app


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    made = await asyncio.to_thread(SiteKit, tmp_path)
    try:
        await made.start_plant()
        await made.start_agent(wait_connected=False)
        yield made
    finally:
        await made.stop()


async def of(kit: SiteKit, point: str, *types: str) -> list[dict[str, Any]]:
    found = [r for ty in types for r in await kit.records(ty) if r["st"] == f"mp:{point}"]
    return sorted(found, key=lambda r: int(r["n"]))


async def until_there(kit: SiteKit, point: str, count: int, *types: str, within_s: float = 90) -> list[dict[str, Any]]:
    deadline = asyncio.get_running_loop().time() + within_s
    while len(found := await of(kit, point, *types)) < count:
        assert asyncio.get_running_loop().time() < deadline, f"{point} has {len(found)} of {count} {types}"
        await asyncio.sleep(0.1)
    return found


async def typed(kit: SiteKit, *words: str) -> Any:
    arguments = ["replace", *words, "--config", str(kit.site_file)]
    return await asyncio.to_thread(CliRunner().invoke, agent_app, arguments, standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("em-9", "--closing-reading", "1"), "em-9"),
        (("em-1",), "--closing-reading"),
        (("em-1", "--closing-reading", "12a"), "12a"),
        (("em-1", "--closing-reading", "1", "--no-closing-reading", "x"), "not both"),
        (("em-1", "--closing-reading", "-5"), "-5"),
    ],
)
async def test_what_cannot_be_is_refused_before_it_reaches_the_agent(
    tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    made = await asyncio.to_thread(SiteKit, tmp_path)
    result = await typed(made, *words, "--serial", "1", "--reason", "r", "--person", "p")
    assert named in str(result.exception)


@pytest.mark.long
async def test_an_exchange_told_at_the_command_line_is_evidence_and_a_new_binding(kit: SiteKit, tmp_path: Path) -> None:
    await until_there(kit, "M1", 1, "interval")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"both displays")
    assert kit.simulation is not None
    kit.simulation.faults.set("exchange", "em-1", serial="77777777", reading_wh=5_000_000)
    words = ("--serial", "77777777", "--closing-reading", "4 321,5", "--opening-reading", "5000", "--photo", str(photo))
    result = await typed(kit, "em-1", *words, "--reason", "act 17", "--person", "A. Serik")
    assert result.exception is None, result.exception
    binds = await until_there(kit, "M1", 2, "bind")
    swap = binds[1]["swap"]
    assert (swap["closing_wh"], swap["opening_wh"]) == (4_321_500, 5_000_000)
    assert len(swap["photo_sha256"]) == 64
    assert swap["since"] < swap["to"]
    events = [r for r in await kit.records("event") if r["ev"] == "replaced"]
    assert [(e["obj"], e["now"]) for e in events] == [("em-1", "77777777")]
    after = (await until_there(kit, "M1", int(binds[1]["n"]) + 2, "bind", "interval", "gap"))[-1]
    assert after["ty"] == "interval"
    assert "bridge_wh" not in after


@pytest.mark.long
async def test_a_branch_that_is_switched_off_leaves_edges_that_add_up(kit: SiteKit) -> None:
    assert kit.simulation is not None
    await until_there(kit, "M2", 1, "interval")
    kit.simulation.faults.set("open", "KM2")
    await until_there(kit, "M2", 3, "gap")
    kit.simulation.faults.set("close", "KM2")
    deadline = asyncio.get_running_loop().time() + 90
    while not (found := [r for r in await of(kit, "M2", "interval") if "bridge_wh" in r]):
        assert asyncio.get_running_loop().time() < deadline, "nothing was bridged"
        await asyncio.sleep(0.1)
    gaps = await of(kit, "M2", "gap")
    assert {g["sw"] for g in gaps} == {"KM2"}
    assert "DE_ENERGISED" in {g["why"] for g in gaps}
    dark = [g for g in gaps if g["why"] == "DE_ENERGISED"]
    assert all(g["up"]["seen"] is not False for g in dark)
    edges = [g for g in gaps if g["why"] == "NO_POWER"]
    assert edges[0]["e1"]["reg"]
    assert edges[-1]["e0"]["reg"]
    assert sum(g.get("part_wh", 0) for g in gaps) <= found[0]["bridge_wh"]
