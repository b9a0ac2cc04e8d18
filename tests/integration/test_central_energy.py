"""Energy by periods of local time, at the command line and over HTTP, against the records themselves."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from site_kit import SITE, SiteKit

from central.energy import energy
from central.store.schema import records
from wire.rollup import period_of


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    made = SiteKit(tmp_path, luxos=2, stock=1)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def test_the_sum_of_an_hour_is_that_of_its_verified_records(kit: SiteKit) -> None:
    assert kit.central is not None
    deadline = asyncio.get_running_loop().time() + 60
    while len(found := [r for r in await kit.records("interval") if r["st"] == "mp:M0"]) < 2:
        assert asyncio.get_running_loop().time() < deadline, "two intervals"
        await asyncio.sleep(0.3)
    hours = {period_of(r["t0"], "hour") for r in found}
    first, last = min(h.start_s for h in hours), max(h.end_s for h in hours)
    slot_s = kit.site.agent.slot_s

    while True:
        (point,) = await kit.central.database.read(lambda c: energy(c, SITE, ["M0"], slot_s, first, last, "hour"))
        known = sum(s.known_wh for s in point.sums)
        if known >= sum(r["wh"] for r in found):
            break
        assert asyncio.get_running_loop().time() < deadline, "central has what the agent wrote, verified"
        await asyncio.sleep(0.1)
    kept = [r for r in await kit.records("interval") if r["st"] == "mp:M0"]
    assert known <= sum(r["wh"] for r in kept)
    assert all(s.import_wh is None for s in point.sums), "an hour of which slots are missing is not known"
    assert all(s.missing for s in point.sums)

    await kit.central.database.write(lambda c: c.execute(sa.update(records).values(verified=None)))
    (doubted,) = await kit.central.database.read(lambda c: energy(c, SITE, ["M0"], slot_s, first, last, "hour"))
    assert doubted.unverified >= 2
    assert sum(s.known_wh for s in doubted.sums) == 0, "what no signature holds is not counted"
    await kit.central.database.write(lambda c: c.execute(sa.update(records).values(verified=True)))

    settings = kit.central_dir / "central.yaml"
    settings.write_text(yaml.safe_dump(kit.central_settings.model_dump(mode="json", by_alias=True, exclude_none=True)))
    command = [
        sys.executable, "-m", "tizgin", "central", "energy", "--config", str(settings), "--site", SITE,
        "--period", f"{first}/{last}", "--by", "hour", "--point", "M0", "--json",
    ]  # fmt: skip
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (told,) = json.loads(done.stdout)
    assert told["point"] == "M0"
    assert sum(p["known_wh"] for p in told["periods"]) >= known
    assert {p["import_wh"] for p in told["periods"]} == {None}
