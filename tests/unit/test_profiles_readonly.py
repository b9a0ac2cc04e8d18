"""No meter can be written: not by its profile, not by the device made from it, not through the link it is on."""

from __future__ import annotations

import ast
import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import drivers
from drivers.errors import ProfileError
from drivers.modbus.device import ForbiddenFunction
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.scheduler import Klass
from drivers.profiles.loader import DATA, load_profile, load_profiles, parse_profile
from drivers.profiles.model import MeterProfile
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import answer_pdu

METERS = [p for p in load_profiles().values() if isinstance(p, MeterProfile)]
WRITES = (5, 6, 15, 16, 22, 23)
READS = (3, 4)
FILES = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((DATA / "meters").glob("*.yaml"))}


@given(st.sampled_from(METERS), st.data())
def test_every_request_for_any_points_of_any_model_is_a_read(profile: MeterProfile, data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.sampled_from(profile.point_ids), min_size=1, unique=True))
    device = MeterDevice("m", 1, profile)
    pdus = device.reading(asked).pdus
    assert pdus
    assert {pdu[0] for pdu in pdus} <= set(READS)
    assert device.functions <= set(READS)
    assert all(len(pdu) == 5 for pdu in pdus)


@given(st.lists(st.integers(-(2**31), 2**31), max_size=6))
def test_a_profile_that_names_any_other_function_is_refused(functions: list[int]) -> None:
    document = copy.deepcopy(FILES[DATA / "meters" / "eastron_sdm630.yaml"])
    document["link"]["functions"] = functions
    text = yaml.safe_dump(document)
    if set(functions) == set(READS):
        assert parse_profile(text, "x").link.functions == tuple(functions)
        return
    with pytest.raises(ProfileError):
        parse_profile(text, "x")


KEYS = ("writes", "outputs", "write", "set", "commands", "reset", "coil", "function", "functions_write", "watchdog")


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(FILES)), st.sampled_from(KEYS), st.sampled_from(["", "points", "identify", "link", "tests"])
)
def test_no_key_can_be_added_by_which_a_write_could_be_described(path: Path, key: str, where: str) -> None:
    document = copy.deepcopy(FILES[path])
    extra: Any = [{"id": "reset", "table": "coil", "addr": 0, "fc": 6}]
    target = document.get(where, document) if where else document
    for row in target if isinstance(target, list) else [target]:
        row[key] = extra
    with pytest.raises(ProfileError):
        parse_profile(yaml.safe_dump(document), "x")


@settings(max_examples=40)
@given(st.sampled_from(METERS), st.sampled_from(["coil", "discrete", "file", "register"]))
def test_a_point_lies_in_registers_and_nowhere_else(profile: MeterProfile, table: str) -> None:
    path = next((p for p in FILES if p.stem.replace("_", "-") == profile.id), DATA / "meters" / "eastron_sdm630.yaml")
    document = copy.deepcopy(FILES[path])
    document["points"][0]["table"] = table
    with pytest.raises(ProfileError):
        parse_profile(yaml.safe_dump(document), "x")


@pytest.mark.parametrize("function", [f for f in range(256) if f not in READS])
async def test_the_link_lets_nothing_but_register_reads_out_to_a_meter(function: int) -> None:
    profile = load_profile("eastron-sdm630")
    assert isinstance(profile, MeterProfile)
    link = ModbusLink("modbus://127.0.0.1:1", name="nobody")
    with pytest.raises(ForbiddenFunction):
        async with asyncio.timeout(5):
            await link.exchange(
                MeterDevice("m", 1, profile), (bytes((function, 0, 0, 0, 1)),), klass=Klass.VERIFICATION, deadline_s=0.1
            )


@given(st.sampled_from(METERS), st.sampled_from(WRITES), st.binary(max_size=20))
def test_a_simulated_meter_takes_no_write(profile: MeterProfile, function: int, rest: bytes) -> None:
    answer = answer_pdu(MeterUnit(profile, dict), bytes((function,)) + rest)
    assert answer[0] == function | 0x80


def test_the_meter_driver_and_the_profiles_import_no_request_that_writes() -> None:
    folder = Path(drivers.__file__).parent
    for path in (folder / "modbus" / "meter.py", *sorted((folder / "profiles").glob("*.py"))):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert not {name for name in names if name.lower().startswith("write")}, path.name
