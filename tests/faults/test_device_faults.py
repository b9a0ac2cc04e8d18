"""Devices that are dead, slow, refuse or answer nonsense: an unknown is an unknown, and nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
from site_kit import SITE, SiteKit, until

from drivers.capabilities import Position, Sample
from wire.quality import Quality
from wire.states import Flag

pytestmark = pytest.mark.asyncio(loop_scope="module")

PERIOD_S = 0.5
LATEST_S = 2.5 * PERIOD_S
"""Longest pause between two readings of a healthy meter of period 0.5 s, on a machine that does other work too."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SiteKit]:
    made = await asyncio.to_thread(SiteKit, tmp_path_factory.mktemp("devices"))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def kit(running: SiteKit) -> AsyncIterator[SiteKit]:
    assert running.simulation is not None
    await until(lambda: running.net_w() is not None and running.answering() == 10, 20, "all is well before")
    yield running
    running.simulation.faults.clear_all()


class Pace:
    """When each meter was read well."""

    def __init__(self, kit: SiteKit) -> None:
        assert kit.app is not None
        self.times: dict[str, list[int]] = defaultdict(list)
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self._on = True
        kit.app.live.on_sample(self._take)

    def _take(self, sample: Sample) -> None:
        if self._on:
            self.samples[sample.device].append(sample)
            if sample.ok:
                self.times[sample.device].append(sample.mono_ns)

    def stop(self) -> None:
        self._on = False

    def longest_s(self, device: str) -> float:
        times = self.times[device]
        assert len(times) > 2, f"{device} was not read"
        return max(b - a for a, b in pairwise(times)) / 1e9


async def newest(kit: SiteKit, kind: str, device: str, point: str) -> Any:
    """(value, quality) of a point as central has it."""
    assert kit.central is not None
    rows = await kit.central.telemetry.latest(SITE, kind=kind)
    return next(((r.value, r.quality) for r in rows if (r.device, r.point) == (device, point)), None)


async def until_at_central(kit: SiteKit, kind: str, device: str, point: str, good: Callable[[Any], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not good(found := await newest(kit, kind, device, point)):
        assert asyncio.get_running_loop().time() < deadline, f"central has {found} for {device} {point}"
        await asyncio.sleep(0.1)


METER_FAULTS: dict[str, tuple[dict[str, Any], set[Quality]]] = {
    "dead": ({}, {Quality.TIMEOUT, Quality.STALE}),
    "slow": ({"seconds": 3.0}, {Quality.TIMEOUT, Quality.STALE}),
    "exception": ({"code": 4}, {Quality.EXCEPTION}),
}


@pytest.mark.parametrize(
    "kind", ["dead", pytest.param("slow", marks=pytest.mark.long), pytest.param("exception", marks=pytest.mark.long)]
)
async def test_a_bad_meter_makes_power_unknown_and_delays_no_other(kit: SiteKit, kind: str) -> None:
    assert kit.simulation is not None
    assert kit.app is not None
    parameters, qualities = METER_FAULTS[kind]
    kit.simulation.faults.set(kind, "em-0", **parameters)
    await until(lambda: kit.net_w() is None, 6, lambda: f"unknown, is {kit.net_w()}")
    pace = Pace(kit)
    worst: list[int | None] = []
    for _ in range(40):
        worst.append(kit.net_w())
        await asyncio.sleep(0.1)
    pace.stop()
    assert set(worst) == {None}
    assert kit.app.live.power("M0").quality in qualities
    for healthy in ("em-1", "em-2"):
        assert pace.longest_s(healthy) < LATEST_S
    assert kit.app.reports.live().net_w is None
    assert "meter_silent:em-0" in kit.app.reports.alarms()
    names = {str(q) for q in qualities}
    await until_at_central(kit, "meter", "em-0", "power_w", lambda f: f is not None and f[0] is None and f[1] in names)
    # Other devices' values are as good as before.
    await until_at_central(kit, "meter", "em-1", "power_w", lambda f: f is not None and f[1] == "good" and f[0] > 0)


async def test_nonsense_from_a_meter_is_not_power(kit: SiteKit) -> None:
    """Random registers: what is impossible or contradicts itself is flagged; nothing good lies outside the possible."""
    assert kit.simulation is not None
    assert kit.app is not None
    possible_w = 10_000 * kit.site.site.contracted_kw
    pace = Pace(kit)
    kit.simulation.faults.set("nonsense", "em-1")
    seen = []
    for _ in range(40):
        seen.append(kit.app.live.power("M1").value_w)
        await asyncio.sleep(0.1)
    pace.stop()
    known = [w for w in seen[10:] if w is not None]
    assert len(known) <= 6, f"random words were taken for power: {known}"
    assert 0 not in known
    assert all(abs(w) <= possible_w for w in known)
    assert pace.longest_s("em-0") < LATEST_S
    qualities = {s.readings["power_w"].quality for s in pace.samples["em-1"][2:]}
    assert qualities - {Quality.GOOD}, "flagged"


@pytest.mark.long
async def test_a_dead_relay_leaves_positions_unknown_and_everything_else_in_step(kit: SiteKit) -> None:
    assert kit.simulation is not None
    app = kit.app
    assert app is not None
    kit.simulation.faults.set("dead", "io-1")
    await until(lambda: app.live.switches["KM1"].position is Position.UNKNOWN, 8, "position unknown")
    pace = Pace(kit)
    await asyncio.sleep(3)
    pace.stop()
    for healthy in ("em-0", "em-1", "em-2"):
        assert pace.longest_s(healthy) < LATEST_S
    assert app.gates.may_close("KM1") is not None, "doubt never closes"
    assert app.reports.live().switches["KM1"] == "unknown"
    await until_at_central(kit, "switch", "KM1", "position", lambda f: f is not None and f[0] is None)
    kit.simulation.faults.clear_all()
    await until(lambda: app.live.switches["KM1"].position is Position.CLOSED, 10, "position known again")


async def test_machines_that_hang_or_answer_garbage_are_unknown_and_the_others_keep_their_period(kit: SiteKit) -> None:
    assert kit.simulation is not None
    app = kit.app
    assert app is not None
    faults = {"silent": "lux/1", "slow": "lux/2", "half_open": "lux/3", "garbage": "lux/4", "dead": "stock/1"}
    for kind, machine in faults.items():
        kit.simulation.faults.set(kind, machine, **({"seconds": 30.0} if kind == "slow" else {}))
    await until(lambda: all(app.live.miners[m].status is None for m in faults.values()), 15, "unknown")
    started = {m: app.live.miners[m].mono_ns for m in ("lux/5", "lux/6", "stock/2", "stock/3", "stock/4")}
    for poller in app.bench.pollers:
        poller.counters.lateness_max_s = 0.0
    await asyncio.sleep(5)
    for machine in faults.values():
        assert app.live.miners[machine].status is None
        assert app.live.miners[machine].quality is not Quality.GOOD
        assert app.live.miners[machine].error
    for machine, was in started.items():
        assert app.live.miners[machine].status is not None
        assert app.live.miners[machine].mono_ns > was
    assert max(p.counters.lateness_max_s for p in app.bench.pollers) < 0.5
    for machine in faults.values():
        await until_at_central(
            kit, "asic", machine, "hashrate_ths", lambda f: f is not None and f[0] is None and f[1] != "good"
        )
    live = app.reports.live()
    assert (live.asics_total, live.asics_hashing, live.asics_sleeping) == (10, 5, 0)


async def test_slots_of_bad_meters_are_gaps_with_the_reason_and_the_next_interval_bridges(kit: SiteKit) -> None:
    assert kit.simulation is not None
    app = kit.app
    assert app is not None
    await until(lambda: all(s.chain and s.chain.carried for s in app.closer.states.values()), 40, "an interval each")
    before = {p: len(await _slots(kit, p)) for p in ("M0", "M1", "M2")}
    kit.simulation.faults.set("exception", "em-0", code=4)
    kit.simulation.faults.set("dead", "em-1")
    kit.simulation.faults.set("nonsense", "em-2")

    def gaps() -> dict[str, bool]:
        return {p: bool((last := s.chain and s.chain.last) and not last.good) for p, s in app.closer.states.items()}

    await until(lambda: all(gaps().values()), 25, gaps)
    kit.simulation.faults.clear_all()
    for point, count in before.items():
        deadline = asyncio.get_running_loop().time() + 35
        while not any("bridge_wh" in s for s in _from_first_gap((await _slots(kit, point))[count:])):
            assert asyncio.get_running_loop().time() < deadline, f"no interval of {point} bridges"
            await asyncio.sleep(0.2)
    expected = {"M0": "EXCEPTION", "M1": "TIMEOUT", "M2": "DECODE"}
    for point, why in expected.items():
        slots = _from_first_gap((await _slots(kit, point))[before[point] :])
        end = next(i for i, s in enumerate(slots) if s["ty"] == "interval")
        assert {s["why"] for s in slots[:end]} == {why}, point
        interval = slots[end]
        assert interval["bridge_wh"] >= 0
        times = [(s["t0"], s["t1"]) for s in slots]
        assert all(a[1] == b[0] for a, b in pairwise(times)), "no slot is left out"
        most_wh = 4 * kit.site.site.contracted_kw * 1000 / 3600 * (interval["t1"] - slots[0]["t0"] + 60)
        assert all(s["wh"] <= most_wh for s in slots if s["ty"] == "interval"), "nonsense is not energy"
        assert interval["bridge_wh"] <= most_wh


def _from_first_gap(slots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From the first gap on: a good slot may still be on its way when the faults are set."""
    first = next((i for i, s in enumerate(slots) if s["ty"] == "gap"), len(slots))
    return slots[first:]


async def _slots(kit: SiteKit, point: str) -> list[dict[str, Any]]:
    found = [*await kit.records("interval"), *await kit.records("gap")]
    return sorted((r for r in found if r["st"] == f"mp:{point}"), key=lambda r: int(r["n"]))


@pytest.mark.long
async def test_an_order_under_a_silent_meter_is_blind_and_gives_nothing_back_until_it_is_read_again(
    kit: SiteKit,
) -> None:
    assert kit.simulation is not None
    app = kit.app
    assert app is not None
    before = kit.net_w()
    assert before is not None
    order, raw = kit.order("limit", limit_w=round(before * 0.7))
    await kit.give(raw)
    await kit.wait_state(order, "holding", within_s=40)
    kit.simulation.faults.set("dead", "em-0")
    await until(lambda: Flag.BLIND in app.journal.live[order].flags, 25, "blind")
    held = set(app.journal.held)
    assert held
    assert kit.state_of(order) == "holding"
    _, release = kit.order("release", target=order)
    await kit.give(release)
    await kit.wait_state(order, "restore_blocked", within_s=10)
    await asyncio.sleep(2)
    assert set(app.journal.held) == held, "nothing comes back while nobody can see what it does"
    assert "not known" in (app.journal.live[order].block or "")
    kit.simulation.faults.clear_all()
    await kit.wait_state(order, "done", within_s=40)
    assert not app.journal.held


async def test_an_order_that_comes_while_the_meter_is_silent_sheds_blind_and_is_never_called_met(kit: SiteKit) -> None:
    assert kit.simulation is not None
    app = kit.app
    assert app is not None
    kit.simulation.faults.set("dead", "em-0")
    await until(lambda: kit.net_w() is None, 6, "unknown")
    order, raw = kit.order("stop")
    await kit.give(raw)
    assert Flag.BLIND in app.journal.live[order].flags
    await until(lambda: kit.state_of(order) in {"verifying", "failed"}, 20, lambda: kit.state_of(order))
    states = set()
    for _ in range(40):
        states.add(kit.state_of(order))
        await asyncio.sleep(0.1)
    assert "holding" not in states, "without a meter nothing is proved"
    assert app.journal.held, "and yet it acted"
    kit.simulation.faults.clear_all()
    await kit.wait_state(order, "holding", within_s=40)
    assert Flag.BLIND not in app.journal.live[order].flags
    _, release = kit.order("release", target=order)
    await kit.give(release)
    await kit.wait_state(order, "done", within_s=60)
