"""kill -9 of agent, central and broker in the middle of an order: positions agree with the journal, nothing comes back
without a release, no record is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from process_kit import ProcessKit
from site_kit import until


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[ProcessKit]:
    made = await asyncio.to_thread(ProcessKit, tmp_path)
    try:
        await made.start_all()
        yield made
    finally:
        await made.stop_all()


def refuse_sleep(kit: ProcessKit) -> None:
    assert kit.simulation is not None
    for number in range(1, kit.luxos + 1):
        kit.simulation.faults.set("refuses_sleep", f"lux/{number}")


def check_journal_and_positions(kit: ProcessKit) -> None:
    """Every switch held by the journal is open in the plant, and no other output is."""
    assert kit.simulation is not None
    held = {t for (t,) in kit.edge("SELECT target FROM held WHERE kind='switch'")}
    opened = {s for s in ("KM1", "KM2") if not kit.simulation.plant.positions[s]}
    assert opened == held


async def test_agent_killed_while_holding_keeps_what_it_holds_and_returns_it_only_on_release(kit: ProcessKit) -> None:
    refuse_sleep(kit)
    order, raw = kit.order("stop")
    await asyncio.to_thread(kit.post, raw)
    await kit.until_order(order, "holding")
    check_journal_and_positions(kit)
    shed_w = kit.plant_net_w()
    kit.agent_process.kill()
    await asyncio.sleep(1.0)  # the outage itself
    assert kit.plant_net_w() < shed_w * 1.2 + 500, "nothing comes back because the agent died"
    await kit.run_agent()
    await kit.until_status(lambda s: s["connected"], 20)
    check_journal_and_positions(kit)
    assert kit.order_state(order) == "holding"
    _, release = kit.order("release", target=order)
    await asyncio.to_thread(kit.post, release)
    await kit.until_order(order, "done")
    check_journal_and_positions(kit)
    same = await kit.until_same()
    assert len(set(same)) == len(same)


@pytest.mark.parametrize(
    "delay_ms",
    [5, 700, *(pytest.param(ms, marks=pytest.mark.long) for ms in (50, 120, 300, 1500, 2500, 3500, 5000))],
)
async def test_agent_killed_while_acting_ends_where_it_would_have_ended(kit: ProcessKit, delay_ms: int) -> None:
    refuse_sleep(kit)
    order, raw = kit.order("stop")
    await asyncio.to_thread(kit.post, raw)
    await until(lambda: kit.order_state(order) is not None, 10, "order in the journal")
    await asyncio.sleep(delay_ms / 1000)
    kit.agent_process.kill()
    await kit.run_agent()
    await kit.until_order(order, "holding", within_s=60)
    check_journal_and_positions(kit)
    target = kit.edge("SELECT json_extract(doc, '$.target_w') FROM orders WHERE id=?", order)[0][0]
    assert kit.plant_net_w() <= target
    assert kit.edge("SELECT count(*) FROM orders WHERE id=?", order)[0][0] == 1
    opened = kit.edge("SELECT count(*) FROM step WHERE kind='open' AND target='KM1'")[0][0]
    assert opened == 1, "a switch that is open is not commanded again"
    await kit.until_same()


async def test_central_and_broker_killed_in_an_order_lose_and_double_nothing(kit: ProcessKit) -> None:
    order, raw = kit.order("limit", limit_w=round(kit.plant_net_w() * 0.5))
    await asyncio.to_thread(kit.post, raw)
    await until(lambda: kit.order_state(order) is not None, 10, "order in the journal")
    kit.central_process.kill()  # its Mosquitto child dies with it
    await kit.until_order(order, "holding")
    await asyncio.sleep(12)  # at least one slot is closed while nobody listens
    await kit.run_central()
    await kit.until_status(lambda s: s["connected"], 40)
    _, release = kit.order("release", target=order)
    await asyncio.to_thread(kit.post, release)
    await kit.until_order(order, "done")
    await kit.until_same()
    state = await asyncio.to_thread(lambda: kit.order_state(order))
    assert state == "done"


async def test_broker_alone_killed_is_restarted_and_everything_reconnects(kit: ProcessKit) -> None:
    (pid_file,) = kit.paths.broker_dir.glob("*.pid")
    old = pid_file.read_text()
    os.kill(int(old), signal.SIGKILL)
    await until(lambda: pid_file.exists() and pid_file.read_text() not in {"", old}, 20, "a new broker")
    await until(lambda: kit.agent_process.tail(1000).count("mqtt_connected") == 4, 40, kit.agent_process.tail)
    order, raw = kit.order("limit", limit_w=round(kit.plant_net_w() * 0.6))
    await asyncio.to_thread(kit.post, raw)
    await kit.until_order(order, "holding")
    await kit.until_same()


async def test_a_second_agent_of_the_same_site_is_refused(kit: ProcessKit) -> None:
    import subprocess

    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tizgin", "agent", "run", "--config", str(kit.site_file)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "another agent of this site is running" in done.stderr
