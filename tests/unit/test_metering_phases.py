"""Values by phase and event counters of a slot: what they count, and that nothing known is nothing said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.acquisition.meters import UNPOLLED
from agent.metering.phases import PhaseWatch, read_events
from config.devices import MeteringPoint
from drivers.capabilities import Reading
from drivers.errors import ProfileError
from drivers.profiles.loader import load_profile, parse_profile
from tests.unit.metering_kit import SLOT, START_S, metering
from wire.points import EVENT_POINTS
from wire.quality import Quality


def watch(**passport: Any) -> PhaseWatch:
    inverted = passport.pop("inverted", False)
    doc = {"id": "M1", "device": "m", "node": "n", "role": "technical", "owner": "o", "inverted": inverted}
    made = PhaseWatch(MeteringPoint.model_validate(doc | {"passport": passport}))
    made.close()
    return made


def poll(
    u: tuple[float | None, ...] = (), i: tuple[float | None, ...] = (), p: tuple[float | None, ...] = (), **more: float
) -> dict[str, Reading]:
    named = {f"voltage_l{k}_n_v": v for k, v in enumerate(u, 1)} | {f"current_l{k}_a": v for k, v in enumerate(i, 1)}
    named |= {f"power_l{k}_w": v for k, v in enumerate(p, 1)} | more
    return {k: Reading(v, Quality.GOOD if v is not None else Quality.TIMEOUT) for k, v in named.items()}


def test_least_voltage_and_means_in_whole_units_of_the_primary_side() -> None:
    made = watch(ct={"num": 600, "den": 5}, vt={"num": 10_000, "den": 100}, ratio_applied_in="agent")
    made.add(poll((57.7, 57.8, 57.9), (2.5, 2.5, 2.4), (140.0, 141.0, 142.0)))
    made.add(poll((57.6, 58.0, 57.95), (2.50002, 2.5, 2.6), (141.0, 141.0, 141.0)))
    assert made.close() == {
        "n": 2, "u": [5_760_000, 5_780_000, 5_790_000], "i": [300_001, 300_000, 300_000],
        "p": [1_686_000, 1_692_000, 1_698_000], "iu": [0, 0, 0], "neg": [0, 0, 0],
    }  # fmt: skip
    assert made.close() is None, "the next slot begins anew"


@pytest.mark.parametrize(("applied", "mv", "ma"), [("meter", 57_700, 2_500), ("both", 5_770_000, 2_500)])
def test_only_the_ratios_that_the_agent_applies_are_multiplied(applied: str, mv: int, ma: int) -> None:
    made = watch(ct={"num": 600, "den": 5}, vt={"num": 10_000, "den": 100}, ratio_applied_in=applied)
    made.add(poll((57.7,) * 3, (2.5,) * 3))
    found = made.close()
    assert found is not None
    assert (found["u"][0], found["i"][0], found["p"]) == (mv, ma, [None] * 3)


@pytest.mark.parametrize(
    ("u", "i", "unfed"),
    [
        ((0.0, 230.0, 231.0), (10.0, 10.0, 10.0), [1, 0, 0]),
        ((114.0, 230.0, 230.0), (10.0, 10.0, 10.0), [1, 0, 0]),
        ((115.0, 230.0, 230.0), (10.0, 10.0, 10.0), [0, 0, 0]),
        ((0.0, 230.0, 230.0), (0.9, 10.0, 10.0), [0, 0, 0]),
        ((0.0, 230.0, 230.0), (1.0, 10.0, 10.0), [1, 0, 0]),
        ((0.0, 230.0, None), (10.0, 10.0, None), [1, 0, 0]),
        ((0.0, None, None), (10.0, 10.0, 10.0), [0, 0, 0]),
        ((0.0, 0.0, 0.0), (10.0, 10.0, 10.0), [0, 0, 0]),
        ((0.0, 230.0, 230.0), (0.0, 0.0, 0.0), [0, 0, 0]),
    ],
)
def test_current_without_voltage(u: tuple[float, ...], i: tuple[float, ...], unfed: list[int]) -> None:
    made = watch()
    made.add(poll(u, i))
    found = made.close()
    assert found is not None
    assert found["iu"] == unfed


@pytest.mark.parametrize(
    ("p", "whole", "inverted", "against"),
    [
        ((10.0, 10.0, -5.0), 15.0, False, [0, 0, 1]),
        ((10.0, 10.0, -5.0), None, False, [0, 0, 1]),
        ((-10.0, -10.0, -5.0), -25.0, False, [0, 0, 0]),
        ((-10.0, -10.0, 5.0), -15.0, True, [0, 0, 1]),
        ((-10.0, -10.0, -5.0), -25.0, True, [0, 0, 0]),
        ((10.0, None, -5.0), None, False, [0, 0, 0]),
    ],
)
def test_a_phase_that_runs_against_the_sum(
    p: tuple[float, ...], whole: float | None, inverted: bool, against: list[int]
) -> None:
    made = watch(inverted=inverted)
    made.add(poll(p=p, **({} if whole is None else {"power_w": whole})))
    found = made.close()
    assert found is not None
    assert found["neg"] == against


def test_polls_without_phases_and_the_slot_of_a_start_say_nothing() -> None:
    made = watch()
    made.add(poll(power_w=5.0))
    made.add(poll((None, None, None)))
    assert made.close() is None
    doc = {"id": "M1", "device": "m", "node": "n", "role": "technical", "owner": "o"}
    fresh = PhaseWatch(MeteringPoint.model_validate(doc))
    fresh.add(poll((230.0,) * 3))
    assert fresh.close() is None, "what was polled after the start is not the slot"


def test_event_counters_that_were_not_read_are_left_out() -> None:
    read = {
        "events_cover_open": Reading(3.0, Quality.GOOD),
        "events_reset": Reading(None, Quality.TIMEOUT),
        "events_programmed": Reading(7, Quality.SUSPECT),
        "events_clock_set": Reading(0, Quality.GOOD),
        "clock": Reading(1.0, Quality.GOOD),
    }
    assert read_events(read) == {"cover_open": 3, "clock_set": 0}
    assert read_events({}) == {}


async def test_a_meter_without_counters_has_none_in_its_records(tmp_path: Path) -> None:
    async with metering(tmp_path) as kit:
        await kit.close_slot(START_S)
        await kit.close_slot(START_S + SLOT)
        (record,) = [r for r in await kit.records("mp:M2") if r["ty"] == "interval"]
        assert "ev" not in record
        assert record["ph"]["n"] >= 3


def test_event_counters_are_not_polled() -> None:
    assert set(EVENT_POINTS) <= UNPOLLED
    profile = load_profile("inepro-pro380")
    assert "events_power_off" in profile.point_ids  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{id: events_reset, addr: 64, type: u16}", "seen gauge, expected count for events_reset"),
        ("{id: frequency_hz, addr: 64, type: u16, kind: count}", "only counters of events are counts"),
        ("{id: events_reset, addr: 64, type: i16, kind: count}", "seen i16 with scale 1"),
        ('{id: events_reset, addr: 64, type: u16, kind: count, scale: "0.1"}', "without a scale"),
        ("{id: events_reset, addr: 64, type: u16, kind: count, rollover: 100}", "only counters have one"),
    ],
)
def test_a_count_of_events_is_whole_and_no_energy(row: str, said: str) -> None:
    text = (Path(__file__).parents[2] / "simulator" / "data" / "simulated_meter.yaml").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if "id: events_" not in line and "id: frequency_hz" not in line]
    made = "\n".join(kept).replace("points:\n", f"points:\n  - {row}\n")
    with pytest.raises(ProfileError, match=said):
        parse_profile(made)
