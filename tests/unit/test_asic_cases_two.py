"""Answers of our own writing, each of one thing that machines do, and the status they must give."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from drivers.asic.avalon.answers import avalon_status
from drivers.asic.bitaxe.answers import bitaxe_status
from drivers.asic.cgminer_status import Identity
from drivers.asic.elphapex import driver as elphapex
from drivers.asic.epic import answers as epic
from drivers.asic.iceriver.answers import iceriver_status, merged, rate_ths, runtime_s
from drivers.asic.marathon import answers as marathon
from drivers.asic.proto import answers as proto
from drivers.asic.repair import parse_answer
from drivers.asic.sealminer.answers import sealminer_status
from drivers.capabilities import MinerStatus
from drivers.errors import BadAnswer

VECTORS = Path(__file__).parents[1] / "vectors" / "asic"
Answers = dict[str, dict[str, Any]]


def _epic(said: Answers) -> MinerStatus:
    return epic.epic_status(said["summary"], epic.identity_of(said.get("capabilities", {}), said.get("network", {})))


def _marathon(said: Answers) -> MinerStatus:
    return marathon.marathon_status(
        said["brief"],
        said.get("hashboards", {}),
        said.get("fans", {}),
        marathon.identity_of(said.get("overview", {})),
        marathon.work_mode(said.get("miner_config", {})),
    )


def _proto(said: Answers) -> MinerStatus:
    pages = [said.get(name, {}) for name in ("telemetry", "cooling", "pools")]
    return proto.proto_status(said["mining"], *pages, Identity())


def _elphapex(said: Answers) -> MinerStatus:
    identity = elphapex.identity_of(said.get("get_system_info", {}), said["summary"])
    pages = [said.get(name, {}) for name in ("stats", "pools", "get_power")]
    return elphapex.elphapex_status(said["summary"], *pages, identity)


READERS: dict[str, Callable[[Answers], MinerStatus]] = {
    "avalon": avalon_status,
    "bitaxe": lambda said: bitaxe_status(said["info"]),
    "elphapex": _elphapex,
    "epic": _epic,
    "iceriver": lambda said: iceriver_status(merged([answer["ret"] for answer in said.values()])),
    "marathon": _marathon,
    "proto": _proto,
    "sealminer": sealminer_status,
}


def own_cases() -> list[Any]:
    return [
        pytest.param(folder, read, id=f"{family}-{folder.name}")
        for family, read in READERS.items()
        for folder in sorted((VECTORS / family).iterdir())
    ]


@pytest.mark.parametrize(("folder", "read"), own_cases())
def test_own_case(folder: Path, read: Callable[[Answers], MinerStatus]) -> None:
    answers = {f.stem: parse_answer(f.read_bytes()) for f in sorted(folder.glob("*.json")) if f.stem != "expected"}
    expected = json.loads((folder / "expected.json").read_bytes())
    said = json.loads(json.dumps(asdict(read(answers))))
    assert {name: said[name] for name in expected} == expected


def test_every_family_here_has_cases() -> None:
    assert all(any((VECTORS / family).iterdir()) for family in READERS)


@pytest.mark.parametrize(
    ("value", "unit", "read"),
    [
        ("155G", None, 0.155),
        ("36.71G", "G", 0.03671),
        ("9.83T", "G", 9.83),
        (155, "G", 0.155),
        ("155", None, 0.155),
        ("1.5P", None, 1500.0),
        ("", None, None),
        ("-5G", None, None),
        ("155X", None, None),
        (None, "G", None),
        ("9" * 50 + "G", None, None),
    ],
)
def test_rates_with_their_unit_as_a_letter(value: object, unit: object, read: float | None) -> None:
    assert rate_ths(value, unit) == (None if read is None else pytest.approx(read))


@pytest.mark.parametrize(
    ("value", "read"),
    [("00:09:21:23", 33683), ("12:01:02:03", 1040523), ("01:02:03", 3723), ("", None), ("1:2", None), (5, None)],
)
def test_days_hours_minutes_seconds(value: object, read: int | None) -> None:
    assert runtime_s(value) == read


@pytest.mark.parametrize("config", [{}, {"mode": {}}, {"mode": {"work-mode-selector": "Auto"}}, {"mode": 5, "a": 1}])
def test_a_configuration_that_is_not_whole_is_never_written_back(config: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer, match="not whole"):
        marathon.with_mode(config, {"work-mode-selector": "Sleep"}, name="miner")


@pytest.mark.parametrize("text", ["", "{}", '{"family":"marathon"}', '{"family":"epic","mode":"Auto"}'])
def test_a_prior_mode_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own and ours, both are ValueError
        marathon.MODES.prior_mode(text)
    assert marathon.MODES.prior_mode(marathon.MODES.prior_text("Stock")) == "Stock"
