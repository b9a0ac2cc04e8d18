"""The graph's arithmetic, against an independent reachability and on drawn plants."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.graph import Graph, GraphError
from config.site import Site


def plant(nodes: list[dict[str, Any]], **rest: Any) -> Site:
    return Site.model_validate(
        {
            "schema": 1,
            "site": {
                "id": "kz-test",
                "name": {"kk": "a", "ru": "b", "en": "c"},
                "contracted_kw": 1000,
                "reservation": {"emergency_kw": 1},
            },
            "nodes": nodes,
            "measured_at": {"net_import": "M0"},
            **rest,
        }
    )


def switch(name: str, *above: str, **rest: Any) -> dict[str, Any]:
    return {"id": name, "type": "switch", "fed_from": list(above), **rest}


def bus(name: str, *above: str) -> dict[str, Any]:
    return {"id": name, "type": "bus", "fed_from": list(above)}


def load(name: str, above: str, kind: str = "mining", kw: float = 10) -> dict[str, Any]:
    return {"id": name, "type": "load", "kind": kind, "rated_kw": kw, "fed_from": [above]}


TWO_SECTIONS = [
    {"id": "G1", "type": "grid_connection"},
    {"id": "G2", "type": "grid_connection"},
    switch("Q1", "G1", role="incomer"),
    switch("Q2", "G2", role="incomer"),
    bus("S1", "Q1"),
    bus("S2", "Q2"),
    {"id": "QS", "type": "switch", "role": "section", "between": ["S1", "S2"], "normal": "open", "avr": True},
    switch("F1", "S1"),
    switch("F2", "S2"),
    bus("B1", "F1"),
    load("L1", "B1"),
    load("L2", "F2"),
    {"id": "GEN", "type": "generator", "rated_kw": 100, "fed_from": ["QG"]},
    switch("QG", "S2"),
]
REST = {
    "equipment": [{"id": "box", "kind": "host", "fed_from": "B1", "ups_min": 30}, {"id": "air", "kind": "network"}],
    "links": [{"id": "l", "url": "modbus://127.0.0.1:1"}],
    "devices": [
        {"id": f"em{n}", "kind": "meter", "profile": "p", "link": "l", "unit": n + 1, "fed_from": node}
        for n, node in enumerate(["S1", "B1", "S2"])
    ],
    "metering_points": [
        {"id": "M0", "device": "em0", "node": "Q1", "role": "control", "owner": "x"},
        {"id": "M1", "device": "em1", "node": "F1", "role": "technical", "owner": "x"},
        {"id": "M2", "device": "em2", "node": "Q2", "role": "control", "owner": "x"},
    ],
    "miners": [
        {
            "id": "g1",
            "load": "L1",
            "family": "luxos",
            "model": "S19",
            "rpc": "10.0.0.1:4028",
            "nameplate_w": 3250,
            "nominal_ths": 110,
        }
    ],
}


@pytest.fixture
def graph() -> Graph:
    return Graph(plant(TWO_SECTIONS, **REST))


def test_in_the_normal_scheme_everything_is_live_but_the_section_and_the_generator_switch_counts_as_fed(
    graph: Graph,
) -> None:
    assert graph.energised(graph.normal_positions()) == frozenset(graph.nodes) - {"QS"}


def test_a_feeder_darkens_what_is_behind_it_and_itself(graph: Graph) -> None:
    assert graph.dark_if_opened("F1", graph.normal_positions()) == {"F1", "B1", "L1"}


def test_avr_is_never_assumed_to_help(graph: Graph) -> None:
    dark = graph.dark_if_opened("Q1", graph.normal_positions())
    assert dark == {"Q1", "S1", "F1", "B1", "L1"}
    closed = {**graph.normal_positions(), "QS": True}
    assert graph.dark_if_opened("Q1", closed) == {"Q1"}


def test_a_closed_section_conducts_both_ways(graph: Graph) -> None:
    normal = graph.normal_positions()
    for lost, fed in (("Q1", "S1"), ("Q2", "S2")):
        assert fed not in graph.energised({**normal, lost: False})
        live = graph.energised({**normal, lost: False, "QS": True})
        assert {fed, "QS"} <= live


def test_a_switch_that_is_open_already_darkens_nothing_but_still_has_loads_behind_it(graph: Graph) -> None:
    opened = {**graph.normal_positions(), "F1": False}
    assert graph.dark_if_opened("F1", opened) == frozenset()
    assert graph.loads_behind("F1", opened) == {"L1"}
    assert [group.id for group in graph.miners_behind("F1", opened)] == ["g1"]


def test_a_generator_feeds_its_bus_only_when_it_is_named_as_a_source(graph: Graph) -> None:
    dead = {**graph.normal_positions(), "Q2": False}
    assert "S2" not in graph.energised(dead)
    live = graph.energised(dead, sources=["G1", "GEN"])
    assert {"S2", "L2", "QG", "GEN"} <= live
    assert "Q2" not in live, "a generator must not feed back into the incomer"
    assert "S2" not in graph.energised({**dead, "QG": False}, sources=["G1", "GEN"])


def test_a_position_that_is_not_given_counts_as_normal(graph: Graph) -> None:
    assert graph.energised({}) == graph.energised(graph.normal_positions())


def test_the_way_of_the_power_is_named_from_the_node_up(graph: Graph) -> None:
    normal = graph.normal_positions()
    assert graph.upstream_path("L1", normal) == ("L1", "B1", "F1", "S1", "Q1", "G1")
    through = {**normal, "Q1": False, "QS": True}
    assert graph.upstream_path("L1", through) == ("L1", "B1", "F1", "S1", "QS", "S2", "Q2", "G2")
    assert graph.upstream_path("L1", {**normal, "F1": False}) == ()


def test_downstream_ignores_positions_and_stops_at_sections(graph: Graph) -> None:
    assert graph.downstream("Q1") == {"S1", "F1", "B1", "L1"}
    assert graph.downstream("L1") == frozenset()


def test_the_meter_that_proves_is_the_nearest_that_still_has_supply(graph: Graph) -> None:
    normal = graph.normal_positions()
    # M1 measures F1 but is fed from behind it: when F1 opens, M0 above has to prove the cut.
    assert graph.nearest_live_meter("F1", normal) == "M0"
    assert graph.nearest_live_meter("B1", normal) == "M1"
    assert graph.nearest_live_meter("F2", normal) == "M2"
    assert graph.nearest_live_meter("F1", normal, alive_devices=()) is None
    through = {**normal, "Q1": False, "QS": True}
    assert graph.nearest_live_meter("F1", through) == "M2"


def test_devices_go_dark_with_their_supply_battery_or_not_and_unknown_supplies_do_not(graph: Graph) -> None:
    assert graph.dark_devices({"B1"}) == {"box", "em1"}
    assert graph.alive_devices({"S1"}) == {"em0", "air"}


@pytest.mark.parametrize("call", ["dark_if_opened", "upstream_path", "nearest_live_meter"])
def test_an_unknown_node_is_an_error(graph: Graph, call: str) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        getattr(graph, call)("nowhere", {})


def test_a_dangling_reference_or_a_double_id_makes_no_graph() -> None:
    with pytest.raises(GraphError, match="B names X"):
        Graph(plant([bus("B", "X")]))
    with pytest.raises(GraphError, match="two nodes share one id"):
        Graph(plant([bus("B"), bus("B")]))


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Graph, dict[str, bool]]:
    """Layers of nodes, each fed from one to three nodes above it, with sections between buses."""
    nodes: list[dict[str, Any]] = [{"id": f"G{n}", "type": "grid_connection"} for n in range(draw(st.integers(1, 2)))]
    feeders = [node["id"] for node in nodes]
    buses: list[str] = []
    for n in range(draw(st.integers(1, 14))):
        above = draw(st.lists(st.sampled_from(feeders), min_size=1, max_size=3, unique=True))
        if draw(st.booleans()):
            nodes.append(switch(f"Q{n}", *above))
            feeders.append(f"Q{n}")
        else:
            nodes.append(bus(f"B{n}", *above))
            feeders.append(f"B{n}")
            buses.append(f"B{n}")
    if len(buses) > 1:
        for n in range(draw(st.integers(0, 2))):
            pair = draw(st.lists(st.sampled_from(buses), min_size=2, max_size=2, unique=True))
            nodes.append({"id": f"S{n}", "type": "switch", "role": "section", "between": pair})
    graph = Graph(plant(nodes))
    return graph, {name: draw(st.booleans()) for name in graph.switches}


def reachable(graph: Graph, positions: dict[str, bool]) -> frozenset[str]:
    """The definition, by repetition until nothing changes: slow and plain."""
    live = {name for name, node in graph.nodes.items() if node.type == "grid_connection"}
    while True:
        more = set()
        for name, node in graph.nodes.items():
            above = set(node.fed_from)
            if node.type == "switch" and node.between:
                above |= set(node.between)
            above |= {s for s, n in graph.switches.items() if n.between and name in n.between}
            if name not in live and above & live and positions.get(name, True):
                more.add(name)
        if not more:
            return frozenset(live)
        live |= more


@given(drawn())
@settings(max_examples=150, deadline=None)
def test_what_is_live_is_what_the_definition_says(case: tuple[Graph, dict[str, bool]]) -> None:
    graph, positions = case
    assert graph.energised(positions) == reachable(graph, positions)


@given(drawn())
@settings(max_examples=150, deadline=None)
def test_opening_darkens_exactly_what_has_no_other_live_path_and_closing_restores_it(
    case: tuple[Graph, dict[str, bool]],
) -> None:
    graph, positions = case
    before = graph.energised(positions)
    for name in graph.switches:
        dark = graph.dark_if_opened(name, positions, live=before)
        opened = {**positions, name: False}
        after = reachable(graph, opened)
        assert not dark & after, "nothing with another live path is called dark"
        assert dark | after == before, "opening adds nothing and loses nothing else"
        if positions[name]:
            assert graph.energised({**opened, name: True}) == before
            assert graph.behind(name, opened) == dark


@given(drawn())
@settings(max_examples=100, deadline=None)
def test_every_live_node_has_a_way_up_to_a_source_through_live_nodes(case: tuple[Graph, dict[str, bool]]) -> None:
    graph, positions = case
    live = graph.energised(positions)
    for name in graph.nodes:
        path = graph.upstream_path(name, positions)
        assert bool(path) == (name in live)
        assert set(path) <= live
        assert len(set(path)) == len(path)
        if path:
            assert graph.nodes[path[-1]].type == "grid_connection"
