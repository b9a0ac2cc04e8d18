"""Profiles of relays and breakers: what they may say, what is refused, and that what was not found is not shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import ProfileError
from drivers.modbus.pdu import read_request
from drivers.modbus.relay import RelayDevice
from drivers.modbus.relay.commands import command_request
from drivers.modbus.relay.image import requests_of
from drivers.profiles.catalogue import any_profile, catalogue
from drivers.profiles.loader import DATA, load_profiles, parse_profile
from drivers.profiles.model import RelayProfile
from drivers.profiles.switching import CommandInterface, Setting
from drivers.profiles.switching_rules import functions_of

FACTS = Path(__file__).parents[2].parent / "shared" / "data" / "relays"
RELAYS = {p.id: p for p in load_profiles().values() if isinstance(p, RelayProfile)}
SHIPPED = {
    "advantech_adam6060": {"advantech-adam6060", "advantech-adam6060-fc1"},
    "icpdas_et7000": {"icpdas-et7000"},
    "moxa_iologik_e1211_e1213": {"moxa-iologik-e1211", "moxa-iologik-e1213"},
    "moxa_iologik_e1214": {"moxa-iologik-e1214"},
    "owen_mu210": {"owen-mu210", "owen-mv210"},
    "schneider_masterpact_mtz": {"schneider-micrologic-active"},
    "waveshare_modbus_relay": {"waveshare-modbus-relay"},
    "wirenboard_wb_mr": {"wirenboard-wb-mr"},
}
"""By file of facts; the others name no register that could be commanded."""
FROM_ELSEWHERE = {"owen-mv210-101"}
"""Profiles without a file of facts: they name their public sources themselves."""
NOT_SHIPPED = {"abb_emax2_ekip_com", "siemens_3wa", "not_found_relays"}

BOARD: dict[str, Any] = {
    "schema": 1,
    "id": "board",
    "version": 1,
    "kind": "relay",
    "vendor": "Nobody",
    "model": "Board",
    "status": "community",
    "sources": [{"name": "nowhere"}],
    "outputs": [{"id": "relay_1", "table": "holding", "addr": 470, "bit": 0}, {"id": "relay_2", "addr": 4}],
    "inputs": [{"id": "di_1", "addr": 0, "counter": {"table": "input", "addr": 16, "run_coil": 256}}],
    "watchdog": {"present": True},
    "settings": [{"id": "time", "addr": 8, "minimum": 1, "says": "seconds", "todo": "set it"}],
}
TEMPERATURE = {"id": "ti_1", "addr": 8, "type": "f32"}


def board(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(yaml.safe_dump(BOARD)), **changes}


def test_every_file_of_facts_is_shipped_or_says_why_it_is_not() -> None:
    if not FACTS.exists():
        pytest.skip("left out: ../shared/data/relays is not beside this repository")
    assert {path.stem for path in FACTS.glob("*.yaml")} == SHIPPED.keys() | NOT_SHIPPED
    assert set().union(FROM_ELSEWHERE, *SHIPPED.values()) == set(RELAYS)


def test_breakers_whose_commands_were_not_found_are_not_shipped() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DATA / "breakers").glob("*.yaml"))
    assert [p.id for p in RELAYS.values() if p.kind == "breaker"] == ["schneider-micrologic-active"]
    assert "MicroLogic X (MTZ through IFE or EIFE), 3WA and Emax 2 are not shipped" in text


@pytest.mark.parametrize("profile_id", sorted(RELAYS))
def test_functions_in_the_file_are_those_that_are_sent(profile_id: str) -> None:
    profile = RELAYS[profile_id]
    assert frozenset(profile.link.functions) == functions_of(profile)
    written = functions_of(profile) - {1, 2, 3, 4}
    assert written <= {5, 16}, "no function that toggles, masks or writes several coils"


MISTAKES: dict[str, tuple[Any, str]] = {
    "a command without its interface": (
        lambda p: p["outputs"].append({"id": "open", "table": "command", "code": 904}),
        "without command_interface",
    ),
    "a command with an address": (
        lambda p: p["outputs"].append({"id": "open", "table": "command", "code": 904, "addr": 1}),
        "a command has none",
    ),
    "a coil without address": (lambda p: p["outputs"].append({"id": "x"}), "'addr' belongs to coils"),
    "a bit of a coil": (lambda p: p["outputs"][1].update(bit=1), "belong to table: holding"),
    "a pulse of a register": (
        lambda p: p["outputs"][0].update(pulse={"addr": 3, "value": "coil"}),
        "only a coil starts a pulse",
    ),
    "on is off": (lambda p: p["outputs"][0].update(on=3, off=3), "on and off are both 3"),
    "a bit twice": (
        lambda p: p["outputs"].append({"id": "x", "table": "holding", "addr": 470, "bit": 0}),
        "already another",
    ),
    "a register and its bit": (
        lambda p: p["outputs"].append({"id": "x", "table": "holding", "addr": 470}),
        "already another",
    ),
    "an input of a register without bit": (
        lambda p: p["inputs"].append({"id": "x", "table": "holding", "addr": 51}),
        "'bit' belongs to an input in a register",
    ),
    "a setting without expectation": (lambda p: p["settings"][0].pop("minimum"), "either values or minimum"),
    "a setting with two": (lambda p: p["settings"][0].update(values=[1]), "either values or minimum"),
    "a range upside down": (lambda p: p["settings"][0].update(maximum=0), "is above maximum"),
    "a setting twice": (lambda p: p["settings"].append(dict(p["settings"][0])), "appears twice"),
    "a setting of no output": (lambda p: p["settings"][0].update(for_output="relay_9"), "no output of this profile"),
    "a setting of no input": (lambda p: p["settings"][0].update(for_input="di_9"), "no input of this profile"),
    "an actuator on no output": (
        lambda p: p["settings"][0].update(for_actuators=["shunt_trip"]),
        "an actuator hangs on an output",
    ),
    "instead of nothing": (lambda p: p["settings"][0].update(instead_of="x"), "no setting of this profile"),
    "a coil that reads 3": (
        lambda p: p["settings"].append(
            {"id": "c", "table": "coil", "addr": 9, "values": [3], "says": "x", "todo": "y"}
        ),
        "a coil reads 0 or 1",
    ),
    "a function that is not used": (lambda p: p.update(link={"functions": [1, 2, 3, 4, 5, 6, 16]}), "not used"),
    "a function that is missing": (lambda p: p.update(link={"functions": [1, 2, 3, 4, 16]}), "used and not listed"),
    "a temperature twice": (
        lambda p: p.update(temperatures=[TEMPERATURE, {**TEMPERATURE, "addr": 10}]),
        "'ti_1' appears twice",
    ),
    "two temperatures in one register": (
        lambda p: p.update(temperatures=[TEMPERATURE, {**TEMPERATURE, "id": "ti_2", "addr": 9}]),
        "ti_2 shares a register with ti_1",
    ),
    "a temperature that is a text": (
        lambda p: p.update(temperatures=[{**TEMPERATURE, "type": "str", "words": 2}]),
        "a type that is a number",
    ),
    "a temperature's range upside down": (
        lambda p: p.update(temperatures=[{**TEMPERATURE, "min": 50, "max": 50}]),
        "is not below max",
    ),
    "a temperature whose function is missing": (
        lambda p: p.update(
            temperatures=[{**TEMPERATURE, "table": "input"}], inputs=[], link={"functions": [1, 3, 5, 16]}
        ),
        "used and not listed",
    ),
    "a toggle": (lambda p: p["outputs"][1].update(toggle=0x5500), "Extra inputs"),
}


def test_the_board_of_these_mistakes_is_right() -> None:
    assert parse_profile(yaml.safe_dump(board())).id == "board"


@pytest.mark.parametrize("name", MISTAKES)
def test_refused(name: str) -> None:
    change, message = MISTAKES[name]
    content = board()
    change(content)
    with pytest.raises(ProfileError, match=message):
        parse_profile(yaml.safe_dump(content))


SETTING = {"id": "x", "addr": 1, "says": "x", "todo": "y"}


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_setting_is_good_exactly_within_its_range(low: int, span: int, value: int) -> None:
    high = min(0xFFFF, low + span)
    setting = Setting.model_validate({**SETTING, "minimum": low, "maximum": high})
    assert setting.good(value) is (low <= value <= high)
    assert setting.good(setting.example)


@given(st.data())
def test_the_reads_of_a_board_cover_each_terminal_and_nothing_between_them(data: st.DataObject) -> None:
    addresses = data.draw(st.lists(st.integers(0, 600), min_size=1, max_size=30, unique=True))
    inputs = [{"id": f"di_{n}", "addr": at} for n, at in enumerate(addresses)]
    profile = parse_profile(yaml.safe_dump(board(inputs=inputs, outputs=[])))
    assert isinstance(profile, RelayProfile)
    requests = requests_of(profile, frozenset())
    covered: list[int] = []
    for request in requests:
        first, count = int.from_bytes(request.pdu[1:3], "big"), int.from_bytes(request.pdu[3:5], "big")
        assert request.pdu == read_request(2, first, count)
        assert sorted(first + at for at, _ in request.cells) == list(range(first, first + count))
        covered += [first + at for at, _ in request.cells]
    assert sorted(covered) == sorted(addresses)


def test_counters_are_read_only_where_they_are_used() -> None:
    profile = RELAYS["moxa-iologik-e1214"]
    assert [r.pdu[0] for r in requests_of(profile, frozenset())] == [1, 2]
    used = requests_of(profile, frozenset({"di_6"}))
    assert [r.pdu for r in used] == [
        read_request(1, 0, 6),
        read_request(1, 261, 1),
        read_request(2, 0, 6),
        read_request(4, 26, 2),
    ]


INTERFACE = CommandInterface(
    addr=7999, length_bytes=10, destination=4609, security=1, password="required", result_addr=8019
)


def test_a_command_carries_its_password_and_is_not_made_without_it() -> None:
    request = command_request(INTERFACE, 904, b"ABCD")
    assert request[:6] == bytes((16, 0x1F, 0x3F, 0, 20, 40))
    words = [int.from_bytes(request[6 + 2 * n : 8 + 2 * n], "big") for n in range(20)]
    assert words == [904, 10, 0x1201, 1, 0x4142, 0x4344, *[0] * 14]
    for secret in (None, b"", b"ABC", b"ABCDE", "ÄBC".encode()):
        with pytest.raises(ValueError, match="four ASCII characters") as caught:
            command_request(INTERFACE, 904, secret)
        assert "ABC" not in str(caught.value)


def test_a_password_is_in_no_repr() -> None:
    device = RelayDevice("io", 1, RELAYS["owen-mv210"], None, password=b"S3CR")  # type: ignore[arg-type]  # no line is needed
    assert "S3CR" not in repr(device)


def test_the_catalogue_has_every_kind_once_and_finds_each_by_id() -> None:
    entries = catalogue()
    assert {entry.kind for entry in entries} == {"meter", "relay", "breaker", "pdu"}
    assert len({entry.id for entry in entries}) == len(entries)
    assert all(entry.points > 0 for entry in entries)
    for name in ("apc-rpdu2", "moxa-iologik-e1214", "eastron-sdm630"):
        assert any_profile(name).id == name
    assert any_profile(DATA / "pdus" / "apc_rpdu2.yaml").id == "apc-rpdu2"
    with pytest.raises(ProfileError, match="no-such-thing"):
        any_profile("no-such-thing")


def test_a_wrong_pdu_file_is_judged_as_a_pdus(tmp_path: Path) -> None:
    path = tmp_path / "my_pdu.yaml"
    path.write_text("schema: 1\nid: my-pdu\nkind: pdu\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="enterprise"):
        any_profile(path)
