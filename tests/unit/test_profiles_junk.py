"""A profile file full of junk is refused by name or harmless; it never ends in anything else than one of the two."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import ProfileError
from drivers.profiles.loader import parse_profile

SUM: dict[str, Any] = {
    "type": "sum",
    "addr": 21,
    "parts": [{"addr": 21, "type": "u16"}, {"addr": 22, "type": "u16"}],
}
RICH: dict[str, Any] = {
    "schema": 1,
    "id": "test-meter",
    "version": 1,
    "kind": "meter",
    "vendor": "Test",
    "model": "T1",
    "status": "community",
    "sources": [{"name": "made for this test"}],
    "link": {"max_registers": 10, "max_hole": 4, "forbidden": [{"table": "holding", "first": 50, "last": 59}]},
    "defaults": {"table": "holding", "type": "u32", "word_order": "big"},
    "points": [
        {"id": "power_w", "addr": 0, "type": "i32", "scale": "0.1", "sentinels": ["7fffffff"]},
        {"id": "frequency_hz", "addr": 2, "type": "u16", "scale": "0.01"},
        {"id": "energy_import_wh", "addr": 4, "kind": "counter", "rollover": 100000000, "scale": 100},
        {"id": "current_l1_a", "addr": 10, "type": "u16", "scale_by": ["k"]},
        {"id": "power_reactive_var", **SUM},
        {"id": "current_n_a", "addr": 11, "type": "bits", "mask": "0ff0"},
        {"id": "serial_number", "kind": "text", "addr": 12, "type": "enum", "names": {1: "one"}},
    ],
    "variables": [{"id": "k", "addr": 8, "type": "u16", "gives": "index", "steps": [1, 10]}],
    "identify": [{"addr": 9, "type": "str", "words": 1, "text": "A"}],
    "live": [{"point": "frequency_hz", "between": [45, 65]}],
    "tests": [{"table": "holding", "addr": 0, "words": "0000 000a", "expect": {"power_w": 1}}],
}
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from(["sum", "str", "enum", "bits", "u64", "power_w", "ffff", "1/0", "width"]),
    st.lists(st.integers(-1, 70000), max_size=3), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip


def paths_in(node: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [at]
    if isinstance(node, dict):
        found += [path for key, value in node.items() for path in paths_in(value, (*at, key))]
    elif isinstance(node, list):
        found += [path for index, value in enumerate(node) for path in paths_in(value, (*at, index))]
    return found


def test_the_base_of_the_junk_is_right() -> None:
    assert parse_profile(yaml.safe_dump(RICH), "x").id == "test-meter"


@settings(max_examples=300)
@given(st.sampled_from(paths_in(RICH)[1:]), JUNK)
def test_junk_anywhere_is_refused_by_name_or_harmless_and_never_a_crash(path: tuple[str | int, ...], junk: Any) -> None:
    data: Any = copy.deepcopy(RICH)
    here = data
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = junk
    said = "junk.yaml"
    try:
        parse_profile(yaml.safe_dump(data), "junk.yaml")
    except ProfileError as error:
        said = str(error)
    assert said.startswith("junk.yaml")


def test_a_wrong_part_of_a_sum_is_named() -> None:
    data = copy.deepcopy(RICH)
    data["points"][4]["parts"] = [{"addr": 21, "type": "u16"}, {"addr": 22, "type": "u61"}]
    with pytest.raises(ProfileError, match=r"points\.4\.parts\.1\.type \(power_reactive_var\)"):
        parse_profile(yaml.safe_dump(data, sort_keys=False), "x")
