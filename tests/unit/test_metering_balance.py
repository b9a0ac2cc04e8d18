"""The balance of a site: what is balanced, what is not known, and that the simulated plant closes within tolerance."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from agent.live import Miner
from agent.metering.machines import MachineEnergy
from config.balance import balance_scheme
from config.check import check
from config.devices import MinerGroup
from config.graph import Graph
from config.site import Site
from tests.unit.agent_kit import EXAMPLE, small_doc
from tests.unit.metering_kit import SLOT, START_S, MeteringKit, metering
from tizgin.commands._agent_check import as_dict
from tizgin.commands.agent import app as agent_app
from verifier.balance import Balances
from verifier.records import Record
from wire.quality import Quality

BRANCHES = {"M1": "KM1", "M2": "KM2", "M3": "QF3", "M4": "QF4"}


def plant(*, without: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """Two 10 kV incomers with a section breaker, a transformer each, a meter on every branch of the 0.4 kV side."""
    doc: dict[str, Any] = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")))
    loads = [
        n for n in doc["nodes"] if n["type"] == "load" or n["id"] in {"KM1", "KM2", "QF3", "QF4", "BOARD1", "BOARD2"}
    ]
    above: list[dict[str, Any]] = []
    for i in (1, 2):
        above += [
            {"id": f"GRID{i}", "type": "grid_connection", "voltage_kv": 10},
            {"id": f"QF0{i}", "type": "switch", "role": "incomer", "fed_from": [f"GRID{i}"]},
            {"id": f"SEC{i}", "type": "bus", "fed_from": [f"QF0{i}"], "voltage_kv": 10},
            {"id": f"T{i}", "type": "transformer", "fed_from": [f"SEC{i}"], "rated_kva": 250, "no_load_loss_kw": 0.6,
             "load_loss_kw": 3.2},
            {"id": f"LV{i}", "type": "bus", "fed_from": [f"T{i}"], "voltage_kv": 0.4},
        ]  # fmt: skip
    above.append({"id": "QS", "type": "switch", "role": "section", "between": ["SEC1", "SEC2"], "normal": "open"})
    for node in loads:
        if node["fed_from"] == ["MAIN"]:
            node["fed_from"] = ["LV1" if node["id"] in {"KM1", "QF3"} else "LV2"]
    doc["nodes"] = above + loads
    doc["equipment"] = []
    doc["agent"].pop("host")
    doc["networks"] = [n | {"cidr": None} for n in doc["networks"]]
    for link in doc["links"]:
        link["via"] = []
    meter = {"kind": "meter", "profile": "abb-b23-b24", "link": "meter-line", "period_s": 300}
    relays = [d | {"fed_from": None} for d in doc["devices"] if d["kind"] == "relay"]
    points = {"I1": "QF01", "I2": "QF02", **BRANCHES}
    doc["devices"] = relays + [meter | {"id": f"em-{p}", "unit": n} for n, p in enumerate(points, 1)]
    head = {"passport": {"accuracy_class": "0.5S", "ct": {"num": 20, "den": 5, "accuracy_class": "0.5S"}}}
    low = {"passport": {"accuracy_class": "1", "ct": {"num": 200, "den": 5, "accuracy_class": "0.5"}}}
    doc["metering_points"] = [
        {"id": p, "device": f"em-{p}", "node": node, "owner": "o"}
        | ({"role": "commercial", "boundary": True, **head} if p[0] == "I" else {"role": "technical", **low})
        for p, node in points.items()
        if p not in without
    ]
    doc["virtual_points"] = [{"id": "NET", "formula": "+I1 +I2"}, {"id": "MINING", "formula": "+M1 +M2"}]
    doc["measured_at"] = {"net_import": "NET", "gross_mining": "MINING"}
    for group, third in zip(doc["miners"], ("16", "17"), strict=True):
        group["rpc"], group["http"] = f"10.1.{third}.1-10.1.{third}.4:4028", f"10.1.{third}.1-10.1.{third}.4:80"
    return doc | changes


def site_of(doc: dict[str, Any]) -> Site:
    return Site.model_validate(doc)


def scheme_of(doc: dict[str, Any]) -> Any:
    site = site_of(doc)
    return balance_scheme(site, Graph(site))


def test_boundary_and_the_meters_just_below_it_are_found() -> None:
    scheme = scheme_of(plant())
    assert scheme.possible
    assert scheme.main == ("I1", "I2")
    assert set(scheme.feeders) == set(BRANCHES)
    assert set(scheme.between) == {"T1", "T2"}
    assert scheme.without_data == ()


def test_a_branch_without_a_meter_is_named_and_nothing_is_balanced() -> None:
    scheme = scheme_of(plant(without=("M3",)))
    assert not scheme.possible
    assert scheme.unmetered == ("FANS",)
    assert "FANS" in scheme.why_not


def test_a_boundary_that_others_read_gives_no_balance() -> None:
    doc = plant()
    for point in doc["metering_points"][:2]:
        point["read_by"] = "uspd"
    assert not scheme_of(doc).possible
    assert "read by the agent" in scheme_of(doc).why_not


def test_one_incomer_without_a_meter_leaves_its_branches_open() -> None:
    scheme = scheme_of(plant(without=("I2",)))
    assert not scheme.possible
    assert {"MINERS2", "GUARD"} <= set(scheme.unmetered)


def test_meters_of_meters_are_not_counted_and_a_second_way_round_them_is_refused() -> None:
    doc = plant()
    doc["devices"].append(dict(doc["devices"][-1]) | {"id": "em-x", "unit": 20})
    doc["metering_points"].append({"id": "M11", "device": "em-x", "node": "BOARD1", "role": "technical", "owner": "o"})
    assert "M11" not in scheme_of(doc).members  # behind M1
    doc["nodes"].append({"id": "QX", "type": "switch", "fed_from": ["BOARD1"]})
    board2 = next(n for n in doc["nodes"] if n["id"] == "KM2")
    board2["fed_from"] = ["LV2", "QX"]
    assert scheme_of(doc).twice == ("M2",)


def test_a_sub_subscriber_at_the_boundary_is_taken_off() -> None:
    doc = plant()
    next(p for p in doc["metering_points"] if p["id"] == "M4")["boundary"] = True
    scheme = scheme_of(doc)
    assert scheme.main == ("I1", "I2")
    assert scheme.transit == ("M4",)
    assert "M4" not in scheme.feeders


def test_generation_counts_beside_the_grid_and_a_check_meter_does_not() -> None:
    doc = plant()
    doc["nodes"] += [
        {"id": "GPU", "type": "generator", "rated_kw": 50},
        {"id": "QG", "type": "switch", "fed_from": ["GPU"]},
    ]
    next(n for n in doc["nodes"] if n["id"] == "SEC1")["fed_from"] = ["QF01", "QG"]
    assert not scheme_of(doc).possible
    doc["devices"].append(dict(doc["devices"][-1]) | {"id": "em-g", "unit": 21})
    doc["metering_points"].insert(0, {"id": "MG", "device": "em-g", "node": "QG", "role": "control", "owner": "o"})
    assert set(scheme_of(doc).main) == {"I1", "I2", "MG"}
    assert scheme_of(doc).possible
    doc["devices"].append(dict(doc["devices"][-1]) | {"id": "em-c", "unit": 22})
    doc["metering_points"].append({"id": "C1", "device": "em-c", "node": "QF01", "role": "check", "owner": "o"})
    assert "C1" not in scheme_of(doc).members


def test_a_transformer_without_passport_data_leaves_the_losses_unknown() -> None:
    doc = plant()
    next(n for n in doc["nodes"] if n["id"] == "T2").pop("load_loss_kw")
    scheme = scheme_of(doc)
    assert scheme.possible
    assert scheme.without_data == ("T2",)


def test_the_check_of_a_site_file_says_what_is_balanced_and_what_has_no_meter(tmp_path: Path) -> None:
    told = as_dict(check(site_of(plant())))["balance"]
    assert (told["possible"], told["why_not"], told["main"]) == (True, None, ["I1", "I2"])
    lacking = as_dict(check(site_of(plant(without=("M3",)))))["balance"]
    assert (lacking["possible"], lacking["unmetered"]) == (False, ["FANS"])
    done = CliRunner().invoke(agent_app, ["check", "--config", str(EXAMPLE)])
    assert "balance: M0 against M1, M2, M3, M4" in done.output
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(small_doc(), allow_unicode=True), encoding="utf-8")
    done = CliRunner().invoke(agent_app, ["check", "--config", str(file)])
    assert "balance: none: no meter between the boundary and FANS, GUARD" in done.output


async def balances(kit: MeteringKit, slots: int, *, start: int = 1) -> list[dict[str, Any]]:
    for i in range(start, start + slots):
        await kit.close_slot(START_S + i * SLOT)
    return await kit.records("bal")


async def test_the_simulated_plant_balances_within_its_losses(tmp_path: Path) -> None:
    async with metering(tmp_path, site=site_of(plant())) as kit:
        docs = await balances(kit, 5)
    assert [d["t1"] for d in docs] == [START_S + i * SLOT for i in range(2, 6)]
    for doc in docs:
        assert doc["missing"] == []
        assert doc["residual_wh"] == doc["main_wh"] - doc["feeders_wh"] - doc["loss_wh"]
        assert abs(doc["residual_wh"]) <= doc["tol_wh"]
        assert doc["loss_wh"] >= 2 * 600 * SLOT // 3600  # two transformers under voltage
        assert 0 < doc["tol_wh"] < doc["main_wh"] // 10  # tight enough to see a branch that nobody meters
    assert len({d["loss_id"] for d in docs}) == 1


async def test_the_verifier_finds_the_sums_of_a_day_with_a_cut_and_a_dead_meter(tmp_path: Path) -> None:
    doc = plant()
    next(d for d in doc["devices"] if d["id"] == "em-M1").update({"fed_from": "BOARD1", "ups_min": 0})
    end = START_S + 7 * SLOT
    async with metering(tmp_path, site=site_of(doc)) as kit:
        await balances(kit, 2)
        kit.faults.set("dead", "em-M3")
        await balances(kit, 1, start=3)
        kit.faults.clear("dead", "em-M3")
        await kit.operate("KM1", close=False)
        await balances(kit, 2, start=4)
        await kit.operate("KM1", close=True)
        await balances(kit, 2, start=6)
        walks = {name: await kit.verified(name, START_S + SLOT, end) for name in ("I1", "I2", *BRANCHES)}
        lines = await kit.records("bal")
    assert all(walk.errors == [] for walk in walks.values())
    found = Balances(SLOT)
    found.feed(Record(line, "", f"bal/{n}") for n, line in enumerate(lines))
    found.check({name: walk.standing.net for name, walk in walks.items()}, START_S + SLOT, frozenset())
    assert (found.errors, found.doubts(), found.count) == ([], [], 6)
    assert {tuple(line["missing"]) for line in lines} >= {(), ("M3",), ("M1",)}


async def test_losses_are_what_closes_it(tmp_path: Path) -> None:
    """Without the transformers the residual of the very same slots is their losses."""
    async with metering(tmp_path, site=site_of(plant())) as kit:
        docs = await balances(kit, 4)
    doc = docs[-1]
    share = abs(doc["main_wh"] - doc["feeders_wh"] - doc["loss_wh"])
    assert share * 5 < abs(doc["main_wh"] - doc["feeders_wh"])


async def test_a_dead_meter_is_named_and_its_figures_are_null(tmp_path: Path) -> None:
    async with metering(tmp_path, site=site_of(plant())) as kit:
        await balances(kit, 2)
        kit.faults.set("dead", "em-M2")
        docs = await balances(kit, 1, start=3)
        kit.faults.clear("dead", "em-M2")
        docs = await balances(kit, 2, start=4)
    whole, broken, half, again = docs
    assert whole["missing"] == again["missing"] == []
    assert broken["missing"] == half["missing"] == ["M2"]
    assert broken["main_wh"] is not None
    for name in ("feeders_wh", "loss_wh", "residual_wh", "tol_wh"):
        assert broken[name] is None
    assert abs(again["residual_wh"]) <= again["tol_wh"]


async def test_a_dark_branch_counts_as_nothing(tmp_path: Path) -> None:
    doc = plant()
    next(d for d in doc["devices"] if d["id"] == "em-M1").update({"fed_from": "BOARD1", "ups_min": 0})
    async with metering(tmp_path, site=site_of(doc)) as kit:
        await balances(kit, 2)
        await kit.go_to(START_S + 2 * SLOT + 60)
        await kit.operate("KM1", close=False)
        docs = await balances(kit, 2, start=3)
        gaps = [d["why"] for d in await kit.records("mp:M1") if d["ty"] == "gap"]
    assert gaps == ["NO_POWER", "DE_ENERGISED"]
    assert docs[-2]["missing"] == ["M1"]  # cut within the slot: what it drew is not known to the Wh
    assert docs[-1]["missing"] == []
    assert abs(docs[-1]["residual_wh"]) <= docs[-1]["tol_wh"]
    assert docs[-1]["feeders_wh"] < docs[0]["feeders_wh"]


async def test_a_section_breaker_switched_within_the_slot_still_closes(tmp_path: Path) -> None:
    async with metering(tmp_path, site=site_of(plant())) as kit:
        before = await balances(kit, 2)
        await kit.go_to(START_S + 2 * SLOT + 400)
        await kit.operate("QF02", close=False)
        await kit.operate("QS", close=True)
        docs = await balances(kit, 2, start=3)
    assert len(docs) == len(before) + 2
    for doc in docs[-2:]:
        assert doc["missing"] == []
        assert abs(doc["residual_wh"]) <= doc["tol_wh"], doc
    assert docs[-1]["main_wh"] > 0


async def test_a_load_that_no_meter_sees_is_out_of_tolerance(tmp_path: Path) -> None:
    """A branch is hung to the bus of the plant that the site file does not know."""
    async with metering(tmp_path, site=site_of(plant())) as kit:
        await balances(kit, 2)
        hidden = kit.plant.registers["M2"]
        measure = hidden.measure

        def less(live: bool, power_w: float, *rest: float) -> None:
            measure(live, power_w * 0.7, *rest)

        hidden.measure = less  # type: ignore[method-assign] # a by-pass takes three tenths round this meter
        docs = await balances(kit, 2, start=3)
    assert docs[-1]["residual_wh"] > docs[-1]["tol_wh"]


async def test_a_start_in_between_writes_no_slot_twice(tmp_path: Path) -> None:
    async with metering(tmp_path, site=site_of(plant())) as kit:
        await balances(kit, 3)
        await kit.shut()
        await kit.boot()
        await kit.balancing.close(START_S + 3 * SLOT, kit.closer.states)
        docs = await balances(kit, 1, start=4)
    ends = [d["t1"] for d in docs]
    assert ends == sorted(set(ends))
    assert ends[-1] == START_S + 4 * SLOT


# Machines


def group(machines: int = 4) -> MinerGroup:
    return MinerGroup(
        id="g", load="L", family="antminer-stock", model="m", rpc=f"10.0.0.1-10.0.0.{machines}:4028", nameplate_w=3500,
        nominal_ths=200, period_s=30,
    )  # fmt: skip


def answer(at_s: float) -> Miner:
    return Miner(None, Quality.GOOD, 0, round(at_s * 1e9))


def test_machines_are_integrated_and_a_hole_is_not_made_up() -> None:
    energy = MachineEnergy({"g": "F"}, {"g": group()})
    energy.cut(0)
    for at in range(0, 901, 30):
        for n in (1, 2, 3):
            if n < 3 or at <= 450:
                energy.take(f"g/{n}", answer(at), 3600)
    (seen,) = energy.cut(900 * 10**9).values()
    assert seen["expected"] == 4
    assert seen["seen"] == 3
    assert seen["wh"] == 900 + 900 + 450


def test_with_less_than_half_of_them_seen_the_sum_is_not_known() -> None:
    energy = MachineEnergy({"g": "F"}, {"g": group()})
    energy.cut(0)
    for at in range(0, 901, 30):
        energy.take("g/1", answer(at), 3600)
        energy.take("g/2", answer(at), 3600 if at < 300 else None)
    (seen,) = energy.cut(900 * 10**9).values()
    assert (seen["seen"], seen["wh"]) == (1, None)


def test_a_slot_that_was_not_watched_from_its_beginning_is_not_known() -> None:
    energy = MachineEnergy({"g": "F"}, {"g": group(1)})
    energy.take("g/1", answer(0), 3600)
    assert energy.cut(10**11)["F"]["wh"] is None
