"""The verifier on ``ph`` and ``ev`` of an interval: the contract's shapes or an error, and no judgement."""

from __future__ import annotations

from typing import Any

import pytest

from verifier.errors import EnergyError
from verifier.meterside import EVENTS, check_events, check_phases
from wire import points

PH: dict[str, Any] = {
    "n": 9, "u": [1, None, 0], "i": [5, 5, None], "p": [-5, 0, None], "iu": [9, 0, 0], "neg": [0, 0, 9]
}  # fmt: skip


def test_the_contracts_shapes_pass_whatever_they_say() -> None:
    check_phases({"ph": PH}, "x")
    check_phases({}, "x")
    check_events({"ev": {"cover_open": 0, "reset": 2**53 - 1}}, "x")
    check_events({}, "x")
    assert set(points.EVENTS) == EVENTS


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"more": 1}, "expected exactly"),
        ({"n": 0}, "ph.n"),
        ({"n": True}, "ph.n"),
        ({"u": [1, 2]}, "ph.u"),
        ({"u": [1, 2, 3, 4]}, "ph.u"),
        ({"u": [-1, 2, 3]}, "ph.u"),
        ({"i": (1, 2, 3)}, "ph.i"),
        ({"p": [1, "2", 3]}, "ph.p"),
        ({"p": [1, 2**53, 3]}, "ph.p"),
        ({"iu": [10, 0, 0]}, "ph.iu.*from 0 to 9"),
        ({"iu": [None, 0, 0]}, "ph.iu"),
        ({"neg": [0, -1, 0]}, "ph.neg"),
    ],
)
def test_other_shapes_of_phases_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(EnergyError, match=said) as caught:
        check_phases({"ph": PH | changed}, "x")
    assert caught.value.code == "DELTA"


@pytest.mark.parametrize("ph", [None, [], {}, {k: v for k, v in PH.items() if k != "neg"}])
def test_phases_are_whole_or_absent(ph: Any) -> None:
    with pytest.raises(EnergyError, match="expected exactly"):
        check_phases({"ph": ph}, "x")


@pytest.mark.parametrize("ev", [None, {}, [], {"magnet": 1}, {"reset": -1}, {"reset": True}, {"reset": None}])
def test_other_event_counters_are_refused(ev: Any) -> None:
    with pytest.raises(EnergyError, match="ev"):
        check_events({"ev": ev}, "x")
