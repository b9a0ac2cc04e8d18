"""Central's proposal of shares: who can give what, who is left out and why, and what the register forbids."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from central.api import problems
from central.api.routes import make_router
from central.live import LiveState
from central.shares import SiteNow, available_w, left_out, propose, split
from grid.client import CentralClient
from grid.errors import CentralRefused
from wire.messages import Inventory, Live, State
from wire.registry import KeysDocument, RegisteredSite, Zone

NORTH = Zone(id="north", max_step_w=1_000_000, max_ramp_w_per_min=600_000)
NOW = 1_795_000_000_000


def site(name: str = "a", **changes: Any) -> SiteNow:
    fields: dict[str, Any] = {
        "id": name, "zone": "north", "presence": "online", "mode": "armed", "net_w": 900_000, "age_ms": 1000,
        "last_w": 900_000, "contracted_w": 1_000_000, "floor_w": 100_000, "mining_w": 850_000, "awake": 250,
        "outputs_usable": 2,
    }  # fmt: skip
    return SiteNow(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "code", "counted"),
    [
        ({"presence": "offline"}, "offline", 900_000),
        ({"presence": "unknown"}, "unknown", 900_000),
        ({"net_w": None, "age_ms": 40_000}, "stale", 900_000),
        ({"net_w": None, "age_ms": None, "last_w": None}, "no_power", 1_000_000),
        ({"mode": "monitor"}, "mode_monitor", 900_000),
        ({"mode": "shadow"}, "mode_shadow", 900_000),
        ({"mode": None}, "mode_unknown", 900_000),
        ({"awake": 0}, "nothing_armed", 900_000),
        ({"awake": None}, "nothing_armed", 900_000),
        ({"mining_w": None}, "mining_unknown", 900_000),
        ({"net_w": 100_000}, "at_reservation", 100_000),
    ],
)
def test_who_cannot_give_is_left_out_with_the_reason_and_still_counted(
    changes: dict[str, Any], code: str, counted: int
) -> None:
    found = propose([site(**changes), site("b")], [NORTH], permille=500, ramp_w_per_min=1000)
    out, other = found.shares
    assert (out.code, out.share_w, out.limit_w, out.available_w, out.counted_w) == (code, 0, None, 0, counted)
    assert out.why
    assert found.total_w == counted + 900_000
    # What it does not give, the other is asked for: up to all that he has.
    assert other.share_w == min(found.cut_w, other.available_w)
    assert found.shortfall_w == found.cut_w - other.share_w


def test_only_commissioned_outputs_count_where_only_switches_may_be_used() -> None:
    assert left_out(site(outputs_usable=1, awake=0), ("switch",)) is None
    for outputs in (0, None):
        found = left_out(site(outputs_usable=outputs), ("switch",))
        assert found is not None
        assert found[0] == "nothing_armed"


def test_nothing_of_the_reservation_and_nothing_but_machines_is_available() -> None:
    assert available_w(site(), ("sleep",)) == 800_000
    assert available_w(site(mining_w=300_000), ("sleep",)) == 300_000
    found = propose([site(), site("b", mining_w=200_000)], [NORTH], target_w=1_000_000, max_cut_w=400_000)
    assert [share.available_w for share in found.shares] == [400_000, 200_000]
    assert (found.cut_w, found.shortfall_w) == (800_000, 200_000)
    assert [share.limit_w for share in found.shares] == [500_000, 700_000]


@given(st.integers(-5, 10**9), st.lists(st.integers(0, 10**8), max_size=40))
def test_an_amount_is_split_to_the_watt_and_nobody_gives_more_than_he_has(amount: int, rooms: list[int]) -> None:
    parts = split(amount, rooms)
    assert sum(parts) == min(max(0, amount), sum(rooms))
    assert all(0 <= part <= room for part, room in zip(parts, rooms, strict=True))


@pytest.mark.parametrize(
    ("bounds", "ramp", "objection"),
    [
        ((NORTH,), None, "step of 1200000 W, at most 1000000 W at once: give a ramp of at most 600000"),
        ((NORTH,), 600_000, None),
        ((NORTH,), 600_001, "ramp of 600001 W per minute, the zones allow 600000"),
        ((None,), 1, "no bounds in the register"),
        ((NORTH.model_copy(update={"max_step_w": 1_200_000}),), None, None),
    ],
)
def test_a_step_or_ramp_above_the_zones_bounds_is_objected_to(
    bounds: tuple[Zone | None, ...], ramp: int | None, objection: str | None
) -> None:
    found = propose([site(), site("b")], bounds, target_w=600_000, ramp_w_per_min=ramp)
    assert len(found.objections) == (objection is not None)
    assert objection is None or objection in found.objections[0]


# over the API --------------------------------------------------------------------------------------------------------


@pytest.fixture
def client() -> CentralClient:
    live = LiveState(["a", "b", "c"])
    live.broker_up = True
    for name, net in (("a", 900_000), ("b", None), ("c", 500_000)):
        seen = live.sites[name]
        epoch = "e1-00000000"
        state = State(site="x" + name, epoch=epoch, online=True, boot="1", agent_version="1", mode="armed", at=NOW)
        seen.take_state(state, NOW)
        said = Live(site="x" + name, epoch=epoch, boot="1", at=NOW, net_w=net, mining_w=400_000, asics_hashing=9)
        seen.take_live(said, NOW)
        seen.inventory = Inventory(site="x" + name, epoch=epoch, at=NOW, emergency_w=700_000, outputs={"K": True})
    settings = {
        name: SimpleNamespace(id=name, zone="default", phone="+7 1", contracted_kw=1000, emergency_kw=50)
        for name in ("a", "b", "c")
    }
    register = KeysDocument(
        v=1, version=1, issued_at=NOW, persons=(), issuers=(), zones=(NORTH,),
        sites=tuple(
            RegisteredSite(id=n, zone=zone, contracted_w=1_000_000, emergency_w=100_000, slot_s=900)
            for n, zone in (("a", "north"), ("b", "north"), ("c", "west"))
        ),
    )  # fmt: skip
    service: Any = SimpleNamespace(
        sites=settings, live=live, now_ms=lambda: NOW + 2000, registers=SimpleNamespace(document=register)
    )
    app = FastAPI()
    app.include_router(make_router(service))
    problems.install(app)

    async def ask(request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as asked:
            return await asked.request(request.method, request.url)

    def answer(request: httpx.Request) -> httpx.Response:
        said = asyncio.run(ask(request))
        return httpx.Response(said.status_code, content=said.content)

    return CentralClient("http://127.0.0.1", transport=httpx.MockTransport(answer))


def test_the_api_gives_the_shares_of_the_registers_zone(client: CentralClient) -> None:
    found = client.shares(("north",), target_w=1_200_000, method=["sleep", "switch"], ramp_w_per_min=None)
    assert found["signed"] is False
    assert [row["id"] for row in found["sites"]] == ["a", "b"]
    first, second = found["sites"]
    # The larger of two reservations counts, and the silent site counts at its contract.
    assert (first["floor_w"], first["available_w"], first["at"], first["phone"]) == (700_000, 200_000, NOW, "+7 1")
    assert (second["left_out"], second["net_w"], second["available_w"]) == ("no_power", None, 0)
    assert (found["total_w"], found["known_w"], found["shortfall_w"]) == (1_900_000, 900_000, 500_000)
    everybody = client.shares(("north", "west"), permille=900)
    assert [row["id"] for row in everybody["sites"]] == ["a", "b", "c"]
    assert "no bounds" in everybody["objections"][0]


@pytest.mark.parametrize("wanted", [{}, {"target_w": 1, "permille": 1}, {"permille": 1001}, {"target_w": -1}])
def test_the_api_says_what_is_wrong_with_a_question(client: CentralClient, wanted: dict[str, int]) -> None:
    with pytest.raises(CentralRefused, match=r"422"):
        client.shares(("north",), **wanted)
