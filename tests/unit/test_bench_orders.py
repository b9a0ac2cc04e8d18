"""What the benchmark of orders makes of what it saw, and the sites it lets simulate."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common import report
from benchmarks.order_sides.families import SleepingSite, alone_s, delays_beside
from benchmarks.order_sides.plant import Plant
from benchmarks.order_sides.sleep import Cut, by_family, fell_for_good_ms
from config.loader import load_site
from simulator.fleet.kinds import KINDS
from simulator.latencies import load_latencies
from simulator.site import SimulatedSite
from tizgin.commands.simulate import simulate
from tizgin.demo.folder import SiteFolder, make_fresh, write_yaml
from tizgin.demo.processes import Processes
from tizgin.demo.start import Size
from tizgin.errors import UserError
from wire.keys import SigningKey

LATENCIES = load_latencies()


def written(tmp_path: Path, family: str) -> tuple[Plant, SiteFolder]:
    """A plant with a further site of that family, its files written; and that site's files."""
    folder = make_fresh(tmp_path / "plant")
    said: list[str] = []
    size = Size(sites=2, asics=4, port=0, time_scale=1.0)
    plant = Plant(size, folder, Processes(folder.logs), said.append, sleeping=(SleepingSite(family, 9, 1),))
    plant.registrar_key = SigningKey.generate().public.text
    plant.witness_key = "key of the witness"
    plant.write_files()
    return plant, folder.site(plant.plans[1].id)


@pytest.mark.parametrize(
    ("powers", "fell_ms"),
    [
        ([100, 60, 52, 51], 300),
        ([100, 52, 60, 52], 400),
        ([100, 60, 52, 60], None),
        ([100, 100], None),
        ([], None),
        ([52, 52], 100),
    ],
)
def test_power_that_comes_back_has_not_fallen(powers: list[float], fell_ms: int | None) -> None:
    seen = [(100 * number, power) for number, power in enumerate(powers, 1)]
    assert fell_for_good_ms(seen, before_w=100, limit_w=50) == fell_ms


def test_the_slowest_cut_of_all_sites_of_a_family_meets_the_bar_or_none_does() -> None:
    quick, stock = SleepingSite("luxos", 10, 3), SleepingSite("antminer-stock", 10, 1)
    found = by_family(
        [
            (quick, [Cut(4.0, 20.0), Cut(15.0, 21.0), Cut(5.0, 22.0)]),
            (stock, [Cut(59.0, 30.0)]),
            (stock, [Cut(60.5, 30.0)]),
            (SleepingSite("vnish", 10, 1), [Cut(7.0, 30.0)]),
        ]
    )
    assert found["luxos"] == {
        "sites": 1, "machines_per_site": 10, "runs": 3, "p50_s": 5.0, "max_s": 15.0, "bar_s": 15.0, "met": True,
        "back_p50_s": 21.0, "back_max_s": 22.0,
    }  # fmt: skip
    assert found["antminer-stock"] == {
        "sites": 2, "machines_per_site": 10, "runs": 2, "p50_s": 59.0, "max_s": 60.5, "bar_s": 60.0, "met": False,
    }  # fmt: skip
    assert (found["vnish"]["bar_s"], found["vnish"]["met"]) == (None, None)


def test_stock_firmware_does_not_fall_before_it_has_answered() -> None:
    stock, quick = LATENCIES.family("antminer-stock"), LATENCIES.family("luxos")
    assert alone_s("antminer-stock", stock) > stock.answer_s.value + stock.sleep_delay_s.value
    assert quick.sleep_delay_s.value < alone_s("luxos", quick) < quick.sleep_delay_s.value + quick.sleep_ramp_s.value


@pytest.mark.parametrize("family", KINDS)
def test_the_site_of_each_family_can_be_simulated_and_logged_in_to(tmp_path: Path, family: str) -> None:
    plant, files = written(tmp_path, family)
    site = load_site(files.config)
    assert {group.family for group in site.miners} == {family}
    assert {group.nameplate_w for group in site.miners} == {KINDS[family].plate.power_w}
    assert len(SimulatedSite(site).plant.machines) == 9
    login = KINDS[family].login
    if login is not None:
        assert site.credentials["miners"].user == login[0]
        assert (files.root / "secrets" / "miners").read_text(encoding="utf-8") == f"{login[1]}\n"
    assert plant.pace(plant.plans[1])[:2] == ("--time-scale", "1")


@pytest.mark.parametrize(("family", "wake_s"), [("luxos", 9), ("braiins", 7), ("antminer-stock", 9), ("vnish", 9)])
def test_only_what_is_not_timed_is_shortened(tmp_path: Path, family: str, wake_s: float) -> None:
    plant, files = written(tmp_path, family)
    _, _, option, file = plant.pace(plant.plans[1])
    assert option == "--latencies"
    own = load_latencies(Path(file))
    times = next(iter(SimulatedSite(load_site(files.config), latencies=own).plant.machines.values())).times
    facts = LATENCIES.family(family)
    assert times.wake_boot_s + times.wake_ramp_s == pytest.approx(wake_s, rel=0.11)
    assert times.sleep_delay_s == pytest.approx(facts.sleep_delay_s.value, rel=0.11)
    assert times.sleep_ramp_s == pytest.approx(facts.sleep_ramp_s.value, rel=0.11)
    assert own.family(family).answer_s == facts.answer_s


def test_a_file_of_delays_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    _, files = written(tmp_path, "luxos")
    file = files.root / "own.yaml"
    with pytest.raises(UserError, match=r"--latencies .*own\.yaml"):
        simulate(files.config, latencies=file)
    wrong = delays_beside(LATENCIES, "luxos")
    wrong["families"]["luxos"]["sleep_ramp_s"] = {"value": -1, "source": "nobody"}
    write_yaml(file, wrong)
    with pytest.raises(UserError, match="sleep_ramp_s"):
        simulate(files.config, latencies=file)
    with pytest.raises(UserError, match="belongs to a site"):
        simulate(fleet=3, latencies=file)


def test_groups_within_groups_are_printed_with_the_names_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    ours = {"runs": 2, "kw95": {"luxos": {"max_s": 4.5}}}
    report("orders", folder=Path(), ours=ours, floor={}, ratios={}, as_json=False)
    printed = capsys.readouterr().out.splitlines()
    assert {"orders ours.runs = 2", "orders ours.kw95.luxos.max_s = 4.5"} <= set(printed)
    assert not any("{" in line for line in printed)
