"""What the loader refuses, and that each refusal names file, line, field, what was seen and what was expected."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.errors import ProfileError
from drivers.profiles import load_profile, load_profiles, profile_schema
from drivers.profiles.loader import DATA, MAX_BYTES, parse_profile
from drivers.profiles.model import MeterProfile, RelayProfile

METER: dict[str, Any] = {
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
    ],
    "tests": [{"table": "holding", "addr": 0, "words": "0000 000a", "expect": {"power_w": 1}}],
}
RELAY: dict[str, Any] = {
    **{k: METER[k] for k in ("schema", "version", "vendor", "model", "status", "sources")},
    "id": "test-relay",
    "kind": "relay",
    "outputs": [{"id": "relay_1", "addr": 0}, {"id": "relay_2", "addr": 1}],
    "inputs": [{"id": "di_1", "addr": 0}],
    "watchdog": {"present": False},
}
SUM: dict[str, Any] = {
    "type": "sum",
    "addr": 21,
    "parts": [{"addr": 21, "type": "u16"}, {"addr": 22, "type": "u16"}],
}
Change = Callable[[dict[str, Any]], object]

MISTAKES: dict[str, tuple[dict[str, Any], Change, str]] = {
    "overlap": (METER, lambda p: p["points"][1].update(addr=1), "overlaps power_w at holding 1"),
    "duplicate id": (METER, lambda p: p["points"][1].update(id="power_w", type="i32", addr=20), "appears twice"),
    "sentinel width": (METER, lambda p: p["points"][0].update(sentinels=["7fff"]), "1 registers wide, the field has 2"),
    "sentinel not hex": (METER, lambda p: p["points"][0].update(sentinels=[2147483647]), "in quotes"),
    "unknown point": (METER, lambda p: p["points"][0].update(id="p_total"), "expected a name of the point vocabulary"),
    "unknown field": (METER, lambda p: p["points"][0].update(unit="kW"), "Extra inputs are not permitted"),
    "counter without rollover": (METER, lambda p: p["points"][2].pop("rollover"), "rollover: missing"),
    "gauge with rollover": (METER, lambda p: p["points"][0].update(rollover=10), "only counters have one"),
    "energy as gauge": (
        METER,
        lambda p: (p["points"][2].pop("rollover"), p["points"][2].update(kind="gauge")),
        "expected counter",
    ),
    "forbidden": (METER, lambda p: p["points"][2].update(addr=58), "forbidden range"),
    "identify forbidden": (
        METER,
        lambda p: p.update(identify=[{"addr": 50, "type": "u16", "expect": [1]}]),
        "forbidden range",
    ),
    "atomic too large": (
        METER,
        lambda p: p["points"][2].update(addr=20, atomic_with=["power_w"]),
        "needs 22 registers, max_registers is 10",
    ),
    "atomic unknown": (METER, lambda p: p["points"][0].update(atomic_with=["power_l1_w"]), "not in the profile"),
    "atomic over forbidden": (
        METER,
        lambda p: (
            p["link"].update(max_registers=125),
            p["points"][2].update(addr=70, atomic_with=["power_w"]),
        ),
        "reads across a forbidden range",
    ),
    "outputs on a meter": (METER, lambda p: p.update(outputs=[{"id": "reset", "addr": 0}]), "Extra inputs"),
    "writes on a meter": (METER, lambda p: p.update(writes=[]), "Extra inputs"),
    "write function": (METER, lambda p: p["link"].update(functions=[3, 6]), "a meter is only read"),
    "table without function": (METER, lambda p: p["link"].update(functions=[4]), "needs function 3"),
    "vector": (METER, lambda p: p["tests"][0].update(expect={"power_w": 2}), "seen 1.0, expected 2"),
    "vector not covered": (METER, lambda p: p["tests"][0].update(expect={"frequency_hz": 50}), "not covered"),
    "vector null": (METER, lambda p: p["tests"][0].update(expect={"power_w": None}), "expected None"),
    "no vectors": (METER, lambda p: p.update(tests=[]), "at least 1 item"),
    "no points": (METER, lambda p: p.update(points=[]), "at least 1 item"),
    "no sources": (METER, lambda p: p.update(sources=[]), "at least 1 item"),
    "binary float": (METER, lambda p: p["points"][0].update(scale=0.1), "put it in quotes"),
    "zero scale": (METER, lambda p: p["points"][0].update(scale=0), "expected more than 0"),
    "scale text": (METER, lambda p: p["points"][0].update(scale="ten"), "expected a decimal"),
    "scale that fills the memory": (
        METER,
        lambda p: p["points"][0].update(scale="1e999999999"),
        "expected a decimal",
    ),
    "vector that fills the memory": (
        METER,
        lambda p: p["tests"][0].update(expect={"power_w": "1e999999999"}),
        "expected '1e999999999'",
    ),
    "one over zero": (METER, lambda p: p["points"][0].update(scale="1/0"), "expected a decimal"),
    "words against type": (METER, lambda p: p["points"][0].update(words=1), "expected 2 for type i32"),
    "text without words": (
        METER,
        lambda p: p["points"].append({"id": "serial_number", "addr": 30, "type": "str", "kind": "text"}),
        "expected 1 to 32",
    ),
    "number as text type": (METER, lambda p: p["points"][0].update(type="str", words=2, sentinels=[]), "cannot hold"),
    "address too high": (METER, lambda p: p["points"][0].update(addr=65535), "runs past the last register"),
    "negative address": (METER, lambda p: p["points"][0].update(addr=-1), "greater than or equal to 0"),
    "limits crossed": (METER, lambda p: p["points"][0].update(min=5, max=1), "above max"),
    "check unknown": (
        METER,
        lambda p: p.update(checks=[{"sum": ["power_w", "power_l1_w"], "equals": "power_w"}]),
        "not in the profile",
    ),
    "schema of tomorrow": (METER, lambda p: p.update(schema=2), "Input should be 1"),
    "unknown kind": (METER, lambda p: p.update(kind="toaster"), "kind"),
    "file name": (METER, lambda p: p.update(id="other-meter"), "seen 'other-meter', expected 'test-meter'"),
    "relay id twice": (RELAY, lambda p: p["outputs"][1].update(id="relay_1"), "appears twice"),
    "relay coil twice": (RELAY, lambda p: p["outputs"][1].update(addr=0), "already another"),
    "pulse on a level coil": (
        RELAY,
        lambda p: p["outputs"][0].update(pulse={"addr": 1, "value": "coil"}),
        "is the level coil of an output",
    ),
    "pulse without unit": (
        RELAY,
        lambda p: p["outputs"][0].update(pulse={"addr": 16, "value": "duration"}),
        "unit_ms",
    ),
    "overlap names both runs": (
        METER,
        lambda p: p["points"][1].update(addr=1),
        "seen registers 1 to 1, expected none of 0 to 1; correct the address, or say 'alias_of: [power_w]'",
    ),
    "outside the allowed registers": (
        METER,
        lambda p: p["link"].update(allowed=[{"table": "holding", "first": 0, "last": 4}]),
        "point energy_import_wh lies outside the allowed holding registers: seen 4 to 5, expected within 0 to 4",
    ),
    "forbidden range backwards": (METER, lambda p: p["link"]["forbidden"][0].update(first=60), "swap the two"),
    "sentinel wider than the type": (
        METER,
        lambda p: p["points"][1].update(sentinels=["ffffffff"]),
        "points.1 (frequency_hz): sentinels: ffffffff is 2 registers wide, the field has 1",
    ),
    "rollover beyond the type": (METER, lambda p: p["points"][2].update(rollover=2**33), "at most 4294967296"),
    "rollover of 1": (METER, lambda p: p["points"][2].update(rollover=1), "expected at least 2"),
    "width of a float": (METER, lambda p: p["points"][2].update(type="f32", rollover="width"), "expected a raw count"),
    "guessed point in a documented profile": (
        METER,
        lambda p: (p.update(status="documented"), p["points"][1].update(confirmed=0)),
        "point frequency_hz has confirmed: 0 under status documented",
    ),
    "guessed default in a verified profile": (
        METER,
        lambda p: (p.update(status="verified"), p["defaults"].update(confirmed=0)),
        "point power_w has confirmed: 0 under status verified",
    ),
    "documented on one source": (
        METER,
        lambda p: p.update(status="documented"),
        "point energy_import_wh has confirmed: 1 under status documented, expected at least 2",
    ),
    "mask on a number": (METER, lambda p: p["points"][1].update(mask="00ff"), "expected type bits"),
    "mask of another width": (
        METER,
        lambda p: p["points"][1].update(type="bits", mask="00ff00ff"),
        "expected 4 digits that are not all 0",
    ),
    "enum without names": (
        METER,
        lambda p: p["points"].append({"id": "serial_number", "kind": "text", "addr": 30, "type": "enum"}),
        "an enum has names",
    ),
    "enum for watts": (
        METER,
        lambda p: p["points"][1].update(type="enum", names={1: "x"}),
        "enum cannot hold frequency_hz",
    ),
    "sum of nothing": (
        METER,
        lambda p: p["points"][0].update(type="sum", sentinels=[]),
        "expected 2 to 125 for type sum",
    ),
    "sum of one": (
        METER,
        lambda p: p["points"][0].update(type="sum", sentinels=[], parts=[{"addr": 0, "type": "u32"}]),
        "a sum has at least two",
    ),
    "parts of no sum": (
        METER,
        lambda p: p["points"][0].update(parts=[{"addr": 0, "type": "u16"}, {"addr": 1, "type": "u16"}]),
        "a sum has at least two and nothing else has any",
    ),
    "sum that begins elsewhere": (
        METER,
        lambda p: p["points"][0].update(SUM, addr=20, sentinels=[], scale=1),
        "seen 20, expected 21, the first register of the parts",
    ),
    "sum with a scale of its own": (METER, lambda p: p["points"][0].update(SUM, sentinels=[]), "belong to its parts"),
    "sum that adds a register twice": (
        METER,
        lambda p: p["points"][0].update(
            SUM, sentinels=[], scale=1, parts=[{"addr": 21, "type": "u32"}, {"addr": 22, "type": "u16"}]
        ),
        "each register is added once",
    ),
    "sum of texts": (
        METER,
        lambda p: p["points"][0].update(
            SUM, parts=[{"addr": 21, "type": "str", "words": 1}, {"addr": 22, "type": "u16"}]
        ),
        "a sum adds numbers",
    ),
    "sum as evidence": (
        METER,
        lambda p: p["points"][2].update({**SUM, "scale": 1}),
        "points.2 (energy_import_wh): kind: seen counter, expected derived: it is a sum of registers",
    ),
    "scaled counter as evidence": (
        METER,
        lambda p: (p["points"][2].update(scale_by=["k"]), p.update(variables=[{"id": "k", "addr": 8, "type": "u16"}])),
        "expected derived: it is scaled by k",
    ),
    "swapped counter as evidence": (
        METER,
        lambda p: p["points"][2].update(byte_order="little"),
        "its bytes are swapped",
    ),
    "plain counter as derived": (METER, lambda p: p["points"][2].update(kind="derived"), "expected counter"),
    "scaled by nobody": (METER, lambda p: p["points"][0].update(scale_by=["k"]), "refers to k, which is not"),
    "scaled by itself": (METER, lambda p: p["points"][1].update(scale_by=["frequency_hz"]), "refers to frequency_hz"),
    "scaled by what is scaled": (
        METER,
        lambda p: (
            p["points"][0].update(scale_by=["frequency_hz"]),
            p["points"][1].update(scale_by=["k"]),
            p.update(variables=[{"id": "k", "addr": 8, "type": "u16"}]),
        ),
        "is itself scaled by k",
    ),
    "unused variable": (
        METER,
        lambda p: p.update(variables=[{"id": "k", "addr": 8, "type": "u16"}]),
        "variable k: no point is scaled by it",
    ),
    "variable over a point": (
        METER,
        lambda p: (p["points"][0].update(scale_by=["k"]), p.update(variables=[{"id": "k", "addr": 2, "type": "u16"}])),
        "point k overlaps frequency_hz",
    ),
    "variable named as a point": (
        METER,
        lambda p: p.update(variables=[{"id": "ct_ratio", "addr": 8, "type": "u16"}]),
        "expected another name",
    ),
    "index without steps": (
        METER,
        lambda p: p.update(variables=[{"id": "k", "addr": 8, "type": "u16", "gives": "index"}]),
        "an index has steps, nothing else",
    ),
    "step of nothing": (
        METER,
        lambda p: p.update(variables=[{"id": "k", "addr": 8, "type": "u16", "gives": "index", "steps": [0, 1]}]),
        "seen a multiplier of 0 or less",
    ),
    "live range of an unknown point": (
        METER,
        lambda p: p.update(live=[{"point": "voltage_l1_n_v", "between": [50, 500]}]),
        "live refers to voltage_l1_n_v",
    ),
    "live range backwards": (
        METER,
        lambda p: p.update(live=[{"point": "power_w", "between": [5, 1]}]),
        "expected the lower end first",
    ),
    "check of an unknown point": (
        METER,
        lambda p: p.update(checks=[{"sum": ["power_l1_w", "power_l2_w"], "equals": "power_w"}]),
        "check refers to power_l1_w",
    ),
    "fixed register past the end": (
        METER,
        lambda p: p.update(simulate={"registers": [{"table": "holding", "addr": 65535, "words": "00010002"}]}),
        "runs past the last register",
    ),
    "no watchdog fact": (RELAY, lambda p: p.pop("watchdog"), "Field required"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_refused(name: str) -> None:
    base, change, message = MISTAKES[name]
    data = copy.deepcopy(base)
    change(data)
    with pytest.raises(ProfileError) as caught:
        parse_profile(yaml.safe_dump(data, sort_keys=False), f"{base['id']}.yaml", base["id"])
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{base['id']}.yaml")


@pytest.mark.parametrize("base", [METER, RELAY])
def test_the_bases_of_these_mistakes_are_right(base: dict[str, Any]) -> None:
    assert parse_profile(yaml.safe_dump(base), "x", base["id"]).id == base["id"]


ACCEPTED: dict[str, Change] = {
    "declared alias": lambda p: p["points"].append(
        {"id": "energy_import_wh_t1", "addr": 4, "kind": "counter", "rollover": "width", "scale": 100,
         "alias_of": ["energy_import_wh"]}
    ),
    "sum over its own parts": lambda p: p["points"].extend(
        [{"id": "energy_export_wh", "kind": "derived", **SUM},
         {"id": "energy_export_wh_t1", "kind": "counter", "rollover": "unknown", "type": "u16", "addr": 21},
         {"id": "energy_export_wh_t2", "kind": "counter", "rollover": "unknown", "type": "u16", "addr": 22}]
    ),
    "guessed point in a community profile": lambda p: p["points"][1].update(confirmed=0),
    "two sources for what is billed": lambda p: (p.update(status="documented"), p["defaults"].update(confirmed=2)),
    "allowed registers that hold everything": lambda p: p["link"].update(
        allowed=[{"table": "holding", "first": 0, "last": 5}]
    ),
    "live ranges": lambda p: p.update(live=[{"point": "frequency_hz", "between": [45, 65]}]),
    "serial settings": lambda p: p.update(serial={"baud": 9600, "parity": "E"}, transports=["rtu"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    data = copy.deepcopy(METER)
    ACCEPTED[name](data)
    assert parse_profile(yaml.safe_dump(data, sort_keys=False), "test-meter.yaml", "test-meter").id == "test-meter"


@pytest.mark.parametrize("name", [name for name, (base, *_) in MISTAKES.items() if base is METER])
def test_every_refusal_of_a_meter_says_where_and_what_to_do(name: str) -> None:
    base, change, _ = MISTAKES[name]
    data = copy.deepcopy(base)
    change(data)
    with pytest.raises(ProfileError) as caught:
        parse_profile(yaml.safe_dump(data, sort_keys=False), "test-meter.yaml", "test-meter")
    for line in str(caught.value).splitlines():
        assert line.startswith("test-meter.yaml, line ")
        assert any(word in line for word in ("; ", "expected ", "use ", "put it in quotes")), line


def test_the_error_names_the_line() -> None:
    text = yaml.safe_dump(METER, sort_keys=False).replace("id: frequency_hz", "id: frequenzy")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "frequenzy" in row)
    with pytest.raises(ProfileError, match=rf"meter\.yaml, line {line}: points\.1"):
        parse_profile(text, "meter.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping"),
        ("- 1\n- 2\n", "expected a mapping"),
        ("a: [1\n", "not YAML"),
        ("id: x\nid: y\n", "line 2: key 'id' appears twice"),
        ("a: &x [1, 2]\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system [ls]\n", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_files_that_are_no_profile_are_refused(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        parse_profile(text)


def test_a_huge_file_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ProfileError, match="larger than"):
        load_profile(big)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"id: \xff\xfe")
    with pytest.raises(ProfileError, match="not UTF-8"):
        load_profile(binary)


@pytest.mark.parametrize("name", ["no-such-meter", "../meters/eastron-sdm630", "", "/etc/passwd"])
def test_an_unknown_id_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match="not found"):
        load_profile(name)


def test_every_shipped_profile_loads_under_its_own_name() -> None:
    profiles = load_profiles()
    assert {"eastron-sdm630", "schneider-iem3000", "carlogavazzi-em24-e1", "moxa-iologik-e1214"} <= set(profiles)
    for profile_id, profile in profiles.items():
        assert profile.id == profile_id
        if isinstance(profile, MeterProfile):
            assert {"power_w", "energy_import_wh"} & set(profile.point_ids)
        else:
            assert isinstance(profile, RelayProfile)
            assert profile.outputs or profile.inputs or profile.temperatures


def test_the_json_schema_is_json_and_knows_both_kinds() -> None:
    schema = json.loads(json.dumps(profile_schema()))
    assert {"MeterProfile", "RelayProfile"} <= set(schema["$defs"])
    assert "outputs" not in schema["$defs"]["MeterProfile"]["properties"]


def test_the_example_in_the_readme_loads() -> None:
    text = (DATA.parent / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert parse_profile(example, "README.md", "example-meter").id == "example-meter"
