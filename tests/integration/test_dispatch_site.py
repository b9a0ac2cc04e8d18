"""The dispatcher's day on one whole site: curtailable, plan, maintenance, an order by hand, and its one history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from site_kit import SITE, SiteKit, until

from central.api.routes import order_view
from central.api.views import order_detail, site_summary
from central.store import orders
from tizgin.commands._agent_plan import show_plan
from tizgin.commands._agent_words import Spoken, acknowledge, enter_spoken, hand_order, maintain
from tizgin.commands._central_availability import show_availability
from tizgin.errors import EXIT_OK, EXIT_PROBLEM
from wire.orders import parse_order
from wire.rollup import period_of

SLOW = 40.0


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    made = SiteKit(tmp_path, luxos=3, stock=2)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def test_a_day_of_the_dispatcher(kit: SiteKit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit.app is not None
    assert kit.central is not None
    app, central = kit.app, kit.central

    async def told(*call: Any, **more: Any) -> tuple[int, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(*call, **more)
        lines = capsys.readouterr().out.splitlines()
        return code, "\n".join(line for line in lines if "[info" not in line and "[warning" not in line)

    def curtailable() -> dict[str, Any]:
        return site_summary(central, SITE)["curtailable"] or {}

    await until(lambda: (curtailable().get("sleep_w") or 0) > 0, SLOW, lambda: f"curtailable, is {curtailable()}")
    now = curtailable()
    assert now["floor_sleep_w"] > now["floor_switch_w"]
    live = central.live.sites[SITE].live
    assert live is not None
    assert set(live.outputs_w) == set(app.fleet.switches)

    code, text = await told(show_plan, kit.site_file, "1kW", as_json=True)
    plan = json.loads(text)
    assert code == (EXIT_OK if plan["reached"] else EXIT_PROBLEM)
    assert plan["machines"]
    assert app.journal.held == {}, "a plan moves nothing"
    _, table = await told(show_plan, kit.site_file, "1kW", as_json=False)
    assert "lowest reachable by sleep" in table

    output = sorted(app.fleet.switches)[0]
    await told(maintain, kit.site_file, output, "A. Serik", 2.0, "12", "contactor", end=False)
    await until(lambda: output in site_summary(central, SITE)["unavailable"], 15, "declared at central")
    assert f"maintenance:{output}" in site_summary(central, SITE)["alarms"]
    _, text = await told(show_plan, kit.site_file, "1kW", as_json=True)
    left = {row["id"]: row["why"] for row in json.loads(text)["left_out"]["switches"]}
    assert "permit 12" in left[output]
    code, text = await told(maintain, kit.site_file, output, "A. Serik", None, "", "", end=True)
    assert (code, "NOT HEALTHY" in text) == (EXIT_OK, False), text

    # The link to central does not carry it: the order comes by a file; then central's copy comes too.
    before = kit.net_w()
    assert before is not None
    order, raw = kit.order("limit", limit_w=int(before * 0.7))
    file = tmp_path / "order.json"
    file.write_bytes(raw)
    await told(enter_spoken, kit.site_file, Spoken(order, "A. Serik", "B. Omarov", "00:00", "4711", ""))
    code, text = await told(hand_order, kit.site_file, file, None)
    assert (code, "validated" in text) == (EXIT_OK, True), text
    assert await kit.wait_state(order, "holding", "failed", within_s=SLOW) == "holding"
    assert (await told(acknowledge, kit.site_file, order, "A. Serik"))[0] == EXIT_OK
    await central.relay.post(parse_order(raw))

    async def detail() -> dict[str, Any]:
        stored = await central.database.read(lambda c: orders.find(c, order))
        assert stored is not None
        return order_detail(await order_view(central, stored), None, central.registers.document)

    found: dict[str, Any] = {}
    for _ in range(200):
        found = await detail()
        kinds = [e["kind"] for e in found["history"]]
        if {"acknowledged", "spoken_on_site"} <= set(kinds) and any(e["state"] == "holding" for e in found["history"]):
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError(f"one history, is {found['history']}")
    assert found["acknowledged"] is True
    assert all(e["verified"] is True for e in found["history"] if e["signed"])
    assert sum(e["state"] == "received" for e in found["history"]) == 1, "two ways, one order"

    settings = kit.central_dir / "central.yaml"
    settings.write_text(yaml.safe_dump(kit.central_settings.model_dump(mode="json", by_alias=True, exclude_none=True)))
    month = period_of(app.clock.now_ms() // 1000, "month").name
    await asyncio.sleep(1.1)  # what is of this second is not over yet
    _, text = await told(show_availability, kit.central_settings, settings, SITE, month, as_json=True)
    report = json.loads(text)
    assert report["agent"]["starts"] == 1
    assert (report["orders"]["held"], report["orders"]["drills"]) == (1, 0)
    _, table = await told(show_availability, kit.central_settings, settings, SITE, month, as_json=False)
    assert "orders: accepted 1" in table
