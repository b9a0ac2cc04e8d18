"""An agent with a SunSpec meter: its directory is walked at the start, its energy is evidence with an exact scale."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from site_kit import SiteKit

from wire.energy import interval_wh


async def of(kit: SiteKit, ty: str) -> list[dict[str, Any]]:
    return [r for r in await kit.records(ty) if r["st"] == "mp:M1"]


async def test_a_meter_that_describes_itself_gives_intervals_that_can_be_checked(tmp_path: Path) -> None:
    kit = await asyncio.to_thread(SiteKit, tmp_path, doc_changes={"devices/2/profile": "sunspec-meter"})
    try:
        await kit.start_plant()
        await kit.start_agent(wait_connected=False)
        async with asyncio.timeout(60):
            while not await of(kit, "interval"):  # noqa: ASYNC110 - records are looked up in the ledger
                await asyncio.sleep(0.2)
        (bind, *_), (interval, *_) = await of(kit, "bind"), await of(kit, "interval")
    finally:
        await kit.stop()
    mapping = bind["pts"]["energy_import_wh"]
    assert bind["profile"] == "sunspec-meter"
    assert mapping["lsb"] == {"num": 10, "den": 1}
    assert (mapping["fc"], mapping["enc"], mapping["words"]) == (3, "u32", 2)
    first, last = interval["reg"]["energy_import_wh"]
    assert interval["wh"] == interval_wh(first, last, mapping)
