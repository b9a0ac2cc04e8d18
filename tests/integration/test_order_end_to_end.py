"""One whole site in one process: plant, agent, Mosquitto with mutual TLS, central. The meter judges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from site_kit import SiteKit, now_ms, until

from wire.keys import SigningKey
from wire.orders import Hold

SLOW = 40.0


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    made = SiteKit(tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def test_limit_is_reached_by_sleep_confirmed_by_the_meter_and_returned_after_release(kit: SiteKit) -> None:
    assert kit.app is not None
    before = kit.net_w()
    assert before is not None
    limit = int(before * 0.6)
    order, raw = kit.order("limit", limit_w=limit)
    await kit.give(raw)
    assert await kit.wait_state(order, "holding", "failed", "rejected", within_s=SLOW) == "holding"
    power = kit.net_w()
    assert power is not None
    assert power <= limit
    assert all(h.kind == "machine" for h in kit.app.journal.held.values()), "sleep was enough, no switch moved"
    _, raw = kit.order("release", target=order)
    await kit.give(raw)
    await kit.wait_state(order, "done", within_s=SLOW)
    assert kit.app.journal.held == {}
    await until(lambda: (kit.net_w() or 0) > 0.9 * before, SLOW, lambda: f"load back, is {kit.net_w()} of {before}")
    effects = [r for r in await kit.records("cmd_eff") if r["id"] == order]
    assert [r["state"] for r in effects] == ["holding", "restoring", "done"]
    assert effects[0]["ms"]["accepted"] is not None
    assert effects[0]["ms"]["accepted"] <= 250


async def test_stop_opens_switches_where_machines_refuse_to_sleep_and_closes_only_those(kit: SiteKit) -> None:
    assert kit.app is not None
    assert kit.simulation is not None
    for number in range(1, kit.luxos + 1):
        kit.simulation.faults.set("refuses_sleep", f"lux/{number}")
    order, raw = kit.order("stop")
    await kit.give(raw)
    await kit.wait_state(order, "holding", within_s=SLOW)
    target = kit.app.journal.live[order].doc.target_w
    power = kit.net_w()
    assert power is not None
    assert target is not None
    assert power <= target
    switches = {h.target for h in kit.app.journal.held_by(order) if h.kind == "switch"}
    assert switches == {"KM1"}, "one switch was enough; the board that slept keeps its own"
    assert not kit.simulation.plant.positions["KM1"]
    effect = [r for r in await kit.records("cmd_eff") if r["id"] == order][-1]
    assert effect["escalated"] == ["KM1"]
    assert effect["positions"] == [["KM1", "open"]]
    assert effect["ms"]["readback"] <= 1000
    _, raw = kit.order("release", target="all")
    await kit.give(raw)
    await kit.wait_state(order, "done", within_s=SLOW)
    assert kit.simulation.plant.positions["KM1"]


async def test_a_welded_contact_is_never_called_done(kit: SiteKit) -> None:
    assert kit.simulation is not None
    assert kit.app is not None
    kit.simulation.faults.set("welded", "KM1")
    for number in range(1, kit.luxos + 1):
        kit.simulation.faults.set("refuses_sleep", f"lux/{number}")
    order, raw = kit.order("stop")
    await kit.give(raw)
    await kit.wait_state(order, "failed", within_s=SLOW)
    live = kit.app.journal.live[order]
    assert "degraded" in {str(f) for f in live.flags}
    assert "KM1" in live.doc.not_open


@pytest.mark.parametrize("after_s", [0.4, 1.5], ids=["before the meter confirms", "after it confirmed"])
async def test_a_breaker_that_closes_again_by_itself_is_never_called_held(kit: SiteKit, after_s: float) -> None:
    """АПВ closes within two seconds of our opening; the guard of this output is three."""
    assert kit.simulation is not None
    assert kit.app is not None
    kit.app.gates.switches["KM1"] = kit.app.gates.switches["KM1"].model_copy(update={"reclose_guard_s": 3.0})
    kit.simulation.faults.set("reclose", "KM1", after_s=after_s, times=9)
    for number in range(1, kit.luxos + 1):
        kit.simulation.faults.set("refuses_sleep", f"lux/{number}")
    order, raw = kit.order("stop")
    await kit.give(raw)
    assert await kit.wait_state(order, "holding", "failed", within_s=SLOW) == "failed"
    states = [r["state"] for r in await kit.records("cmd_eff") if r["id"] == order]
    assert "holding" not in states
    opened = (await kit.app.ledger.read("SELECT count(*) FROM step WHERE kind='open' AND target='KM1'"))[0][0]
    assert opened == 2, "asserted again once, as often as the site file allows"


async def test_bad_orders_are_refused_with_a_signed_reason_and_move_nothing(kit: SiteKit) -> None:
    assert kit.app is not None
    stranger = SigningKey.generate()
    now = now_ms()
    good, good_raw = kit.order("limit", limit_w=20_000)
    flipped = bytearray(good_raw)
    at = good_raw.index(b'"sig":"') + 10
    flipped[at] = ord("A") if flipped[at] != ord("A") else ord("B")
    cases = {
        "unknown_key": kit.order("limit", limit_w=10_000, signers=(stranger,))[1],
        "no_right": kit.order("limit", limit_w=10_000, signers=(kit.engineer,))[1],
        "wrong_site": kit.order("limit", limit_w=10_000, site="kz-other-09")[1],
        "wrong_epoch": kit.order("limit", limit_w=10_000, epoch="e9-00000000")[1],
        "future": kit.order(
            "limit", limit_w=1, issued_at=now + 3_600_000, execute_by=now + 3_700_000, expires_at=now + 3_800_000
        )[1],
        "before_genesis": kit.order("limit", limit_w=1, issued_at=now - 3_600_000)[1],
        "bad_signature": bytes(flipped),
        "format": b'{"payloadType":"x"}',
    }
    for raw in cases.values():
        await kit.give(raw)
    seen = [r["code"] for r in await kit.records("cmd_ack")]
    assert seen == list(cases), "each refused for its own reason, in order"
    assert kit.app.journal.live == {}
    assert (await kit.app.ledger.read("SELECT count(*) FROM step"))[0][0] == 0
    assert good not in kit.app.journal.states


async def test_a_finished_order_is_not_executed_again_and_a_live_one_is_answered_again(kit: SiteKit) -> None:
    assert kit.app is not None
    order, raw = kit.order("limit", limit_w=20_000)
    await kit.give(raw)
    await kit.give(raw)
    acks = await kit.records("cmd_ack")
    assert [a.get("dup", False) for a in acks] == [False, True]
    await kit.wait_state(order, "holding", within_s=SLOW)
    _, release = kit.order("release", target=order)
    await kit.give(release)
    await kit.wait_state(order, "done", within_s=SLOW)
    await kit.give(raw)
    assert (await kit.records("cmd_ack"))[-1]["code"] == "replay"


async def test_central_relays_the_order_and_holds_every_record_and_value(kit: SiteKit) -> None:
    """Through the broker, and counted on both sides after draining."""
    assert kit.central is not None
    assert kit.app is not None
    order, raw = kit.order("limit", limit_w=20_000)
    await kit.post_order(raw)
    await kit.wait_state(order, "holding", within_s=SLOW)
    _, release = kit.order("release", target=order, hold=None)
    await kit.give(release)
    await kit.wait_state(order, "done", within_s=SLOW)
    app = kit.app

    # The agent goes on writing (slots, the order's report): there is a moment at which nothing is on its way.
    async with asyncio.timeout(SLOW):
        while True:
            open_records = await app.ledger.read("SELECT count(*) FROM record WHERE committed=0")
            central, edge = await kit.central_lines(), await kit.edge_lines()
            if open_records[0][0] == 0 and central == edge:
                break
            assert set(central) <= set(edge), "central holds nothing that the edge has not"
            await asyncio.sleep(0.05)
    assert edge


async def test_two_orders_the_strictest_holds_after_the_other_is_released(kit: SiteKit) -> None:
    before = kit.net_w()
    assert before is not None
    loose, raw1 = kit.order("limit", limit_w=int(before * 0.8))
    strict, raw2 = kit.order("limit", limit_w=int(before * 0.5))
    await kit.give(raw1)
    await kit.give(raw2)
    await kit.wait_state(strict, "holding", within_s=SLOW)
    await kit.wait_state(loose, "holding", within_s=SLOW)
    _, release = kit.order("release", target=strict)
    await kit.give(release)
    await kit.wait_state(strict, "restoring", "restore_blocked", "done", within_s=SLOW)
    worst = 0
    for _ in range(30):
        worst = max(worst, kit.net_w() or 0)
        await asyncio.sleep(0.1)
    assert worst <= int(before * 0.8) * 1.02, "what comes back stays under the order that is left"


async def test_monitor_mode_refuses_and_hold_must_be_stated(tmp_path: Path) -> None:
    kit = SiteKit(tmp_path, mode="monitor", doc_changes={"agent/mode": "monitor"})
    try:
        await kit.start_plant()
        await kit.start_central()
        await kit.start_agent()
        await until(lambda: kit.net_w() is not None, 10, "power")
        _, raw = kit.order("limit", limit_w=1000, hold=Hold(until_released=True))
        await kit.give(raw)
        assert [r["code"] for r in await kit.records("cmd_ack")] == ["mode"]
    finally:
        await kit.stop()
