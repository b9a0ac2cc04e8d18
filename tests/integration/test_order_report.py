"""The report of an order through the whole product: plant, agent, broker, central, bundle, verifier."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from site_kit import SITE, SiteKit, now_ms, until

from central import bundle
from central.api import order_reports
from central.papers.order_report import as_dict
from verifier.metering import Period
from verifier.verify import verify
from wire.keys import SigningKey
from wire.orders import Escalation

SLOW = 40.0


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    made = SiteKit(tmp_path, luxos=2, stock=1)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest.mark.long
async def test_an_order_is_reported_at_central_and_the_verifier_finds_the_same_figures(
    kit: SiteKit, tmp_path: Path
) -> None:
    assert kit.central is not None
    began = now_ms()
    before = kit.net_w() or 0
    # Slots of 10 s in the simulation: two of them are whole windows within half a minute.
    order, raw = kit.order(
        "limit", limit_w=int(before * 0.6), limit_basis="slot", escalation=Escalation(to="none", after_s=8)
    )
    await kit.post_order(raw)
    assert await kit.wait_state(order, "holding", "failed", "rejected", within_s=SLOW) == "holding"
    await until(lambda: now_ms() > began + 32_000, SLOW, lambda: "half a minute")
    _, raw = kit.order("release", target=order)
    await kit.give(raw)
    await kit.wait_state(order, "done", within_s=SLOW)
    stored, found = await order_reports.read(kit.central, order)
    deadline = now_ms() + 15_000
    while found is None or found.record.verified is not True:
        assert now_ms() < deadline, f"no report of {stored.id} at central"
        await asyncio.sleep(0.2)
        stored, found = await order_reports.read(kit.central, order)
    said = as_dict(found)
    assert said["record"]["verified"] is True
    assert said["report"]["method"] == "interval_slot"
    assert said["report"]["verdict"] in {"obeyed", "unknown"}, "a slot may be lost on a busy machine, never missed"
    assert said["report"]["t100_ms"] is not None
    (supply,) = (one for one in said["report"]["uq"] if one["mp"] == said["report"]["point"])
    assert 0.2e6 < supply["during"]["lo_mv"] <= supply["during"]["hi_mv"] < 0.45e6, "a board of 0.4 kV, in mV"
    assert supply["before"]["hi_var"] > supply["during"]["lo_var"], "what machines drew is gone"

    await until(lambda: now_ms() // 10_000 > said["report"]["end"] // 10_000 + 2, SLOW, lambda: "the slot is over")
    first, last = began // 10_000 * 10, said["report"]["end"] // 10_000 * 10 + 20
    key, registrar = SigningKey.generate(), kit.registrar.public
    made = await kit.central.database.read(
        lambda c: bundle.build(
            c, SITE, bundle.Period(first, last), key, {registrar.kid: registrar}, tool="test", now_ms=now_ms()
        )
    )
    (tmp_path / "b.zip").write_bytes(made.data)
    trust = {"v": 1, "registrar": [registrar.text], "collector": [key.public.text]}
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    report = verify(tmp_path / "b.zip", trust_path=tmp_path / "trust.json", period=Period(first, last))
    assert report.errors == [], report.to_text()
    assert report.reports == 1
