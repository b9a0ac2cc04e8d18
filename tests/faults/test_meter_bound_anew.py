"""A meter that is read otherwise after a restart: the slots between are gaps, and the new binding begins cleanly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from site_kit import SiteKit, until

from agent.metering import registers
from wire.records import leaf_hash


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


async def until_intervals(kit: SiteKit, wanted: dict[str, int]) -> None:
    deadline = asyncio.get_running_loop().time() + 50
    for point, count in wanted.items():
        while len(await of(kit, point, "interval")) < count:
            assert asyncio.get_running_loop().time() < deadline, f"{point} has not {count} intervals"
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_slots_up_to_a_new_binding_are_gaps_and_nothing_is_counted_across_it(
    kit: SiteKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until_intervals(kit, dict.fromkeys(("M0", "M1"), 1))
    await kit.stop_agent()
    as_it_is = registers.decode_map

    def changed(point: Any) -> dict[str, Any]:
        found = as_it_is(point)
        return found | {"order": "little"} if point.id == "energy_export_wh" else found

    monkeypatch.setattr(registers, "decode_map", changed)
    await kit.start_agent(wait_connected=False)
    app = kit.app
    assert app is not None
    await until(lambda: app.closer.states and all(s.chain for s in app.closer.states.values()), 10, "chains restored")
    changed_points = [p for p, s in app.closer.states.items() if s.rebind]
    assert changed_points, "at least one meter has an export register"
    await until_intervals(kit, {p: len(await of(kit, p, "interval")) + 1 for p in changed_points})
    for point in changed_points:
        binds = await of(kit, point, "bind")
        assert len(binds) == 2
        slots = await of(kit, point, "interval", "gap")
        times = [(s["t0"], s["t1"]) for s in slots]
        assert all(a[1] == b[0] for a, b in pairwise(times)), (
            "each slot is one record, before the new binding and after"
        )
        assert [s for s in slots if s["ty"] == "gap"]
        assert {s["why"] for s in slots if s["ty"] == "gap"} == {"AGENT_DOWN"}
        rows = await app.ledger.read(
            "SELECT payload FROM record WHERE stream=? AND ty='bind' ORDER BY n", f"mp:{point}"
        )
        old, new = (leaf_hash(bytes(r[0])).hex() for r in rows)
        after = [s for s in slots if s["ty"] == "interval" and s["n"] > binds[1]["n"]]
        assert after
        assert {s["cfg"] for s in after} == {new}
        assert old not in {s["cfg"] for s in after}
        assert "bridge_wh" not in after[0], "the registers before are not comparable"
        assert "raw0" in after[0]
