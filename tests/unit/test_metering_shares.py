"""Mining, auxiliary load and tenants apart, as far as meters measure them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.metering.shares import shares
from agent.metering.slots import SlotRecord
from agent.metering.standing import newest_slot
from config.graph import Graph
from config.loader import load_site
from config.site import Site
from tests.unit.agent_kit import EXAMPLE, small_doc
from wire.rollup import Share


def site(**changes: Any) -> Site:
    doc = small_doc()
    for path, value in changes.items():
        target: Any = doc
        *parents, last = path.split("__")
        for key in parents:
            target = target[int(key)] if isinstance(target, list) else target[key]
        target[int(last) if isinstance(target, list) else last] = value
    return Site.model_validate(doc)


def of(found: Site) -> dict[str, Share]:
    return {share.name: share for share in shares(found, Graph(found))}


def points(*more: dict[str, Any]) -> list[dict[str, Any]]:
    first = [
        {"id": "M0", "device": "em-0", "node": "QF0", "role": "control", "owner": "x", "boundary": True},
        {"id": "M1", "device": "em-1", "node": "KM1", "role": "technical", "owner": "x"},
        {"id": "M2", "device": "em-2", "node": "KM2", "role": "technical", "owner": "x"},
    ]
    return [*first, *({"role": "technical", "owner": "x", "device": "em-0"} | m for m in more)]


def test_points_that_carry_mining_alone_are_mining_and_the_boundary_is_neither() -> None:
    found = of(site())
    assert found["mining"] == Share("mining", ("M1", "M2"))
    assert found["auxiliary"] == Share("auxiliary", (), ("FANS", "GUARD"))


def test_a_load_without_a_meter_of_its_own_makes_its_share_unknown() -> None:
    found = of(site(metering_points=points({"id": "M3", "node": "QF3"})))
    assert found["auxiliary"] == Share("auxiliary", ("M3",), ("GUARD",))
    both = of(site(metering_points=points({"id": "M3", "node": "QF3"}, {"id": "M4", "node": "QF4"})))
    assert both["auxiliary"] == Share("auxiliary", ("M3", "M4"))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"id": "MX", "node": "BOARD1"}, ("M1", "M2")),
        ({"id": "MX", "node": "MINERS1"}, ("M1", "M2")),
        ({"id": "MX", "node": "KM1"}, ("M1", "M2")),
    ],
    ids=["below", "at the load", "at the same node"],
)
def test_of_points_one_behind_the_other_only_the_upper_one_counts(
    second: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert of(site(metering_points=points(second)))["mining"].points == expected


def test_points_that_others_read_are_not_counted_on() -> None:
    found = of(site(metering_points__1__read_by="uspd"))
    assert found["mining"] == Share("mining", ("M2",), ("MINERS1",))


def test_tenants_are_told_apart_and_a_mixed_board_is_nobodys() -> None:
    tenants = [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}]
    found = of(site(tenants=tenants, miners__0__tenant="a", miners__1__tenant="b"))
    assert found["tenant:a"] == Share("tenant:a", ("M1",))
    assert found["tenant:b"] == Share("tenant:b", ("M2",))
    miners = site().model_dump()["miners"]
    extra = [*(dict(m) for m in miners), dict(miners[0]) | {"id": "rack1b", "tenant": "b"}]
    extra[0]["tenant"] = "a"
    extra[1]["tenant"] = "b"
    mixed = of(site(tenants=tenants, miners=extra))
    assert mixed["tenant:a"] == Share("tenant:a", (), ("MINERS1",))
    assert mixed["tenant:b"] == Share("tenant:b", ("M2",), ("MINERS1",))


def test_the_large_example_is_told_apart() -> None:
    large = load_site(Path(EXAMPLE).with_name("mw100.yaml"))
    found = of(large)
    assert set(found) >= {"mining", "auxiliary", "tenant:own", "tenant:hosted"}
    mining, auxiliary = set(found["mining"].points), set(found["auxiliary"].points)
    assert not mining & auxiliary
    assert set(found["tenant:own"].points) | set(found["tenant:hosted"].points) <= mining


def test_the_newest_slot_of_the_site_names_what_is_missing() -> None:
    small = site()
    known = tuple(shares(small, Graph(small)))

    def record(t0: int, wh: int) -> SlotRecord:
        return SlotRecord("interval", {"t0": t0, "t1": t0 + 900, "wh": wh, "exp_wh": None, "q": []})

    def told(newest: dict[str, SlotRecord]) -> Any:
        return newest_slot(newest, small.metering_points, small.virtual_points, known)

    assert told({}) is None
    whole = told({"M0": record(900, 50), "M1": record(900, 20), "M2": record(900, 22)})
    assert whole["virtual"]["MINING"] == {
        "import_wh": 42,
        "export_wh": None,
        "quality": "measured",
        "missing": [],
    }
    assert whole["shares"]["mining"]["import_wh"] == 42
    assert whole["shares"]["auxiliary"]["import_wh"] is None
    late = told({"M0": record(1800, 50), "M1": record(1800, 20), "M2": record(900, 22)})
    assert late["t0"] == 1800
    assert late["virtual"]["MINING"]["missing"] == ["M2"]
    assert late["virtual"]["MINING"]["import_wh"] is None
