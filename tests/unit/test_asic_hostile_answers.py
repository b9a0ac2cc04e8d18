"""Whatever JSON a machine of the families with a log-in sends: a status, or an error of drivers, and nothing else."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.asic.auradine import answers as auradine
from drivers.asic.braiins import graphql, rest, rpc
from drivers.asic.vnish import answers as vnish
from drivers.asic.whatsminer_v2 import answers as v2
from drivers.asic.whatsminer_v3 import answers as v3
from drivers.capabilities import MinerStatus
from tests.support.asic_kit import VECTORS, answers_of

Read = Callable[[dict[str, Any]], object]


def _vnish(answers: dict[str, Any]) -> MinerStatus:
    vnish.presets_of(answers.get("info"), modded_psu=False)
    vnish.limit_state(vnish.overclock_of(answers.get("summary")), (1, 2))
    return vnish.vnish_status(answers.get("summary"), answers.get("info"))


def _v3(answers: dict[str, Any]) -> MinerStatus:
    status, info = answers.get("status"), answers.get("info")
    for answer in (status, info):
        if isinstance(answer, dict):
            v3.refusal(answer)
            v3.salt_of(answer)
            v3.limit_from(answer)
    return v3.whatsminer_status(status if isinstance(status, dict) else None, info if isinstance(info, dict) else None)


def _rest(answers: dict[str, Any]) -> MinerStatus:
    rest.limit_state(answers.get("details"), answers.get("stats"))
    return rest.rest_status(answers)


def _graphql(answers: dict[str, Any]) -> MinerStatus:
    for answer in answers.values():
        graphql.limit_state(answer)
        graphql.is_asleep(answer)
        graphql.complaints(answer)
    return graphql.graphql_status(answers)


def _objects(answers: dict[str, Any]) -> dict[str, Any]:
    return {name: answer for name, answer in answers.items() if isinstance(answer, dict)}


READERS: dict[str, tuple[str, Callable[[dict[str, Any]], MinerStatus]]] = {
    "whatsminer-v2": ("whatsminer-v2", lambda answers: v2.whatsminer_status(_objects(answers))),
    "whatsminer-v3": ("whatsminer-v3", _v3),
    "braiins-rest": ("braiins", _rest),
    "braiins-graphql": ("braiins", _graphql),
    "braiins-socket": (
        "braiins",
        lambda answers: rpc.rpc_status({n.removeprefix("rpc_"): a for n, a in _objects(answers).items()}),
    ),
    "vnish": ("vnish", _vnish),
    "auradine": ("auradine", lambda answers: auradine.auradine_status(_objects(answers), _objects(answers))),
}

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "-1", "nan", "1e999", "true", "12 W", "x" * 500, "\ud800", "on", "stopped"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def _paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for name, inner in value.items():
            found += _paths(inner, (*path, name))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            found += _paths(inner, (*path, at))
    return found


def _with(value: Any, path: tuple[Any, ...], new: object) -> Any:
    if not path:
        return new
    value[path[0]] = _with(value[path[0]], path[1:], new)
    return value


def sensible(status: MinerStatus) -> None:
    """What the rest of the program relies on, whatever came in."""
    text = json.dumps(asdict(status), allow_nan=False)
    assert len(text) < 64_000
    for value in (status.hashrate_ths, status.hashrate_nominal_ths, status.power_w, status.temperature_max_c):
        assert value is None or (math.isfinite(value) and value >= 0)
    assert status.power_source in {"measured", "estimated", "none"}
    assert (status.power_w is None) is (status.power_source == "none")
    assert all(isinstance(speed, int) for speed in status.fans_rpm)
    for name in ("model", "firmware", "mac", "serial"):
        assert getattr(status, name) is None or isinstance(getattr(status, name), str)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_answer_changed_anywhere_is_still_read(reader: str, data: st.DataObject) -> None:
    folder, read = READERS[reader]
    case = data.draw(st.sampled_from(sorted((VECTORS / folder).iterdir())))
    answers = copy.deepcopy(answers_of(case))
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from([path for path in _paths(answers) if path]))
        answers = _with(answers, path, data.draw(VALUES))
    sensible(read(answers))


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=40, deadline=None)
@given(value=VALUES)
def test_any_json_at_all_is_a_status_that_knows_nothing_wrong(reader: str, value: Any) -> None:
    _, read = READERS[reader]
    names = ("summary", "status", "info", "details", "stats", "pools", "gql_status", "mode", "psu", "devs", "boards")
    sensible(read(dict.fromkeys(names, value)))
