"""The small site with a battery behind a commissioned contactor of its own, KM3, metered by M3."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from config.site import Site
from tests.unit.agent_kit import Core, PlayedSwitch, running_core, small_site

CHARGING_W = 12_000


def battery_doc(**switch: Any) -> dict[str, Any]:
    doc: dict[str, Any] = small_site().model_dump(mode="json", by_alias=True, exclude_unset=True)
    contactor = next(dict(node) for node in doc["nodes"] if node["id"] == "KM1")
    contactor |= {"id": "KM3", "control": {"device": "io-1", "output": "relay_3"}} | switch
    contactor["position"] = {
        "open": {"device": "io-1", "input": "di_5"},
        "closed": {"device": "io-1", "input": "di_6"},
    }
    doc["nodes"] += [
        contactor,
        {"id": "BESS", "type": "storage", "fed_from": ["KM3"], "rated_kw": 20, "capacity_kwh": 40},
    ]
    doc["devices"].append(next(d for d in doc["devices"] if d["id"] == "em-2") | {"id": "em-3", "unit": 4})
    doc["metering_points"].append(
        next(p for p in doc["metering_points"] if p["id"] == "M2") | {"id": "M3", "device": "em-3", "node": "KM3"}
    )
    return doc


@contextlib.asynccontextmanager
async def battery_core(folder: Path, battery_w: int, **switch: Any) -> AsyncIterator[Core]:
    """An armed core whose battery draws so much (gives below 0); every output is commissioned."""
    core = Core(folder, site=Site.model_validate(battery_doc(**switch)))
    core.plant.switches["KM3"] = PlayedSwitch("KM3", core.plant)
    core.plant.battery_w = battery_w
    async with running_core(folder, armed=False, core=core):
        signers = core.people.dispatcher, core.people.engineer
        await core.act(core.commissioning("KM1", "KM2", "KM3"), *signers)
        await core.act(core.mode_act("armed"), *signers)
        yield core
