"""PDU profiles: what the files must say, what the model refuses, and that published values decode to themselves."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.capabilities import Position, Reading
from drivers.errors import ProfileError
from drivers.snmp.credentials import Community, Credentials, User, credentials_from_environment, credentials_from_text
from drivers.snmp.decode import decode_measure, decode_position, raw_bits
from drivers.snmp.entity import PRECISION, SCALE, STATUS, TYPE, VALUE, sensor_reading
from drivers.snmp.probe import parse_snmp_url
from drivers.snmp.profile import DATA, Measure, PduProfile, load_pdu_profile, load_pdu_profiles, read_pdu_profile
from wire.quality import Quality

VECTORS = Path(__file__).parents[2].parent / "shared" / "data" / "pdu" / "vectors.tsv"
BASE_UNIT = {"kWh": ("Wh", 1000.0)}
RARITAN_DIGITS = {"1": 3, "4": 0, "5": 0, "23": 1}
"""Decimal digits in the PX2 recording, by sensor type."""
FACTS = VECTORS.parent
CHAINED = {"unit2_cord1_power": {"unit": "2"}}
"""Rows that belong to another unit of a chain, with the options that name it."""
METERED = {"apc-rpdu2", "eaton-epdu-g3", "raritan-px2", "servertech-sentry4", "vertiv-geist-v5"}
ALL = METERED | {
    "apc-easy-epdu",
    "cyberpower-epdu",
    "cyberpower-epdu2",
    "enlogic-pdu",
    "rfc1628-ups",
    "rfc3433-entity-sensor",
    "servertech-sentry3",
}


def apc_dict() -> dict:
    return yaml.safe_load((DATA / "apc_rpdu2.yaml").read_text(encoding="utf-8"))


def test_every_profile_file_loads_and_reads_power() -> None:
    profiles = load_pdu_profiles()
    assert set(profiles) == ALL
    for profile in profiles.values():
        assert "power_w" in {*profile.points, *profile.sensors}
        assert profile.status != "verified", "nobody has read these devices yet"
    for profile_id in METERED:
        points = profiles[profile_id].points
        assert {"power_w", "energy_import_wh", "power_factor", "power_apparent_va"} <= set(points)
        assert profiles[profile_id].power_source == "measured", "V x A x PF of a recording agrees with W"


def test_every_family_of_the_facts_is_there() -> None:
    if not FACTS.exists():
        pytest.skip("left out: ../shared/data/pdu is not beside this repository")
    families = {path.stem.replace("_", "-") for path in FACTS.glob("*.yaml")}
    assert len(families) == 10
    assert families <= set(load_pdu_profiles())


@pytest.mark.parametrize(
    ("profile_id", "off_state", "on_state", "off_command", "on_command"),
    [
        ("apc-rpdu2", 1, 2, 2, 1),  # the trap: the command's numbers are the state's, exchanged
        ("raritan-px2", 8, 7, 0, 1),
        ("servertech-sentry4", 2, 1, 2, 1),
        ("vertiv-geist-v5", 2, 1, 4, 2),
        ("eaton-epdu-g3", 0, 1, 0, 0),  # two objects; the number is a delay, 0 is at once
        ("cyberpower-epdu", 2, 1, 2, 1),
        ("cyberpower-epdu2", 2, 1, 2, 1),
        ("enlogic-pdu", 0, 1, 1, 2),
        ("servertech-sentry3", 0, 1, 2, 1),
    ],
)
def test_numbers_for_off_and_on_are_those_of_the_makers_mib(
    profile_id: str, off_state: int, on_state: int, off_command: int, on_command: int
) -> None:
    outlets = load_pdu_profile(profile_id).outlets
    assert outlets is not None
    assert outlets.state is not None
    assert outlets.open is not None
    assert outlets.close is not None
    assert decode_position(outlets.state, off_state) is Position.OPEN
    assert decode_position(outlets.state, on_state) is Position.CLOSED
    assert (outlets.open.value, outlets.close.value) == (off_command, on_command)


ON_AT_ONCE = {"immediateOn", "on"}
OFF_AT_ONCE = {"immediateOff", "off"}


def test_the_only_commands_are_those_that_the_facts_call_immediate() -> None:
    if not FACTS.exists():
        pytest.skip("left out: ../shared/data/pdu is not beside this repository")
    by_oid: dict[str, dict[str, int]] = {}
    for path in FACTS.glob("*.yaml"):
        for row in yaml.safe_load(path.read_text(encoding="utf-8"))["objects"]:
            if row["access"] == "read-write" and "enum" in row:
                by_oid[row["oid"]] = row["enum"]
    checked = 0
    for profile in load_pdu_profiles().values():
        if profile.outlets is None or profile.outlets.open is None or profile.outlets.close is None:
            continue
        for command, names in ((profile.outlets.open, OFF_AT_ONCE), (profile.outlets.close, ON_AT_ONCE)):
            if command.oid in by_oid:  # Raritan's and Eaton's are described in words
                meant = [name for name, code in by_oid[command.oid].items() if code == command.value]
                assert set(meant) <= names, (profile.id, command.object)
                assert meant
                checked += 1
    assert checked >= 10


def test_what_may_be_written_is_two_values_per_outlet_and_nothing_else() -> None:
    for profile in load_pdu_profiles().values():
        if profile.outlets is None or profile.outlets.open is None:
            continue
        listed = profile.outlets.commands(7)
        assert len(listed) == 2
        assert all(".7" in oid for oid, _ in listed)
    apc = load_pdu_profile("apc-rpdu2").outlets
    assert apc is not None
    control = "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5"
    assert apc.commands(7) == {(f"{control}.7", 2), (f"{control}.7", 1)}


def test_a_unit_of_a_chain_is_named_by_options() -> None:
    profile = load_pdu_profile("servertech-sentry4")
    assert profile.places == {"unit": 1, "cord": 1}
    second = profile.placed({"unit": "2", "writes": "allowed"})
    assert second.points["power_w"].at() == "1.3.6.1.4.1.1718.4.1.3.3.1.3.2.1"
    assert second.outlets is not None
    assert second.outlets.state is not None
    assert second.outlets.state.at(9) == "1.3.6.1.4.1.1718.4.1.8.3.1.1.2.1.9"
    assert second.placed({"cord": "2"}).points["power_w"].at() == "1.3.6.1.4.1.1718.4.1.3.3.1.3.2.2"
    assert profile.points["power_w"].at() == "1.3.6.1.4.1.1718.4.1.3.3.1.3.1.1", "the first stays as it was"
    for text in ("x", "-1", "1.1", "", "12345678901"):
        with pytest.raises(ValueError, match="option unit"):
            profile.placed({"unit": text})


def test_a_state_code_that_the_profile_does_not_name_is_unknown() -> None:
    outlets = load_pdu_profile("apc-rpdu2").outlets
    assert outlets is not None
    assert outlets.state is not None
    for raw in (0, 3, -1, None, b"1"):
        assert decode_position(outlets.state, raw) is Position.UNKNOWN


def test_published_values_decode_to_themselves() -> None:
    if not VECTORS.exists():
        pytest.skip(f"left out: {VECTORS.name} of the reference data is not beside this repository")
    profiles = {profile_id.replace("-", "_"): profile for profile_id, profile in load_pdu_profiles().items()}
    checked: dict[str, int] = {}
    with VECTORS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            profile = profiles[row["model"]].placed(CHAINED.get(row["decoded_name"], {}))
            value = decoded(profile, row["oid"], int(row["raw"]))
            assert value is not None, f"{row['decoded_name']} of {row['model']} is in no profile"
            factor = BASE_UNIT.get(row["unit"], ("", 1.0))[1]
            assert value.quality is Quality.GOOD, row
            assert value.value == pytest.approx(float(row["value"]) * factor, rel=1e-12), row
            checked[row["model"]] = checked.get(row["model"], 0) + 1
    assert checked["apc_rpdu2"] == 10
    assert sum(checked.values()) == 36


def decoded(profile: PduProfile, oid: str, raw: int) -> Reading | None:
    answers = {oid: raw}
    outlets = {} if profile.outlets is None else profile.outlets.measures
    places = [(measure, None) for measure in (*profile.points.values(), *profile.more.values())]
    places += [(measure, n) for measure in outlets.values() for n in range(1, 5)]
    for measure, outlet in places:
        if measure.at(outlet) == oid:
            row = oid[len(measure.oid) :]
            if measure.decimals is not None:
                answers[measure.decimals + row] = RARITAN_DIGITS[oid.rpartition(".")[2]]
            if measure.available is not None:
                answers[measure.available + row] = 1
            return decode_measure(measure, answers, outlet)
    return None


POWER = Measure(object="x", oid="1.3.6.1.4.1.1", instance="1", scale="10", sentinels=(-1,))
SENSOR = Measure(object="x", oid="1.3.6.1.4.1.1", instance="1", decimals="1.3.6.1.4.1.2", available="1.3.6.1.4.1.3")


@pytest.mark.parametrize(
    ("measure", "answers", "reading"),
    [
        (POWER, {"1.3.6.1.4.1.1.1": 121}, Reading(1210.0, Quality.GOOD)),
        (POWER, {"1.3.6.1.4.1.1.1": 0}, Reading(0.0, Quality.GOOD)),
        (POWER, {"1.3.6.1.4.1.1.1": -1}, Reading(None, Quality.NO_VALUE)),
        (POWER, {"1.3.6.1.4.1.1.1": None}, Reading(None, Quality.NO_VALUE)),
        (POWER, {}, Reading(None, Quality.NO_VALUE)),
        (POWER, {"1.3.6.1.4.1.1.1": -5}, Reading(-50.0, Quality.SUSPECT)),
        (POWER, {"1.3.6.1.4.1.1.1": b"121"}, Reading(None, Quality.DECODE)),
        (
            SENSOR,
            {"1.3.6.1.4.1.1.1": 680, "1.3.6.1.4.1.2.1": 3, "1.3.6.1.4.1.3.1": 1},
            Reading(0.68, Quality.GOOD),
        ),
        (SENSOR, {"1.3.6.1.4.1.1.1": 680, "1.3.6.1.4.1.3.1": 1}, Reading(None, Quality.DECODE)),
        (
            SENSOR,
            {"1.3.6.1.4.1.1.1": 680, "1.3.6.1.4.1.2.1": 4000, "1.3.6.1.4.1.3.1": 1},
            Reading(None, Quality.DECODE),
        ),
        (
            SENSOR,
            {"1.3.6.1.4.1.1.1": 0, "1.3.6.1.4.1.2.1": 3, "1.3.6.1.4.1.3.1": 2},
            Reading(None, Quality.NO_VALUE),
        ),
    ],
)
def test_what_is_not_known_is_none_and_never_zero(measure: Measure, answers: dict, reading: Reading) -> None:
    assert decode_measure(measure, answers) == reading


LINES = Measure(object="x", oid="1.3.6.1.4.1.1", instance="1", plus=("2", "3"), sentinels=(-1,))


@pytest.mark.parametrize(
    ("rows", "reading"),
    [
        ((5100, 3600, 2700), Reading(11_400.0, Quality.GOOD)),
        ((5100, None, None), Reading(5100.0, Quality.GOOD)),
        ((5100, -1, 2700), Reading(7800.0, Quality.GOOD)),
        ((None, 3600, 2700), Reading(None, Quality.NO_VALUE)),
        ((5100, b"3600", 2700), Reading(None, Quality.DECODE)),
    ],
)
def test_lines_are_added_up_where_the_model_gives_no_total(rows: tuple, reading: Reading) -> None:
    answers = {f"1.3.6.1.4.1.1.{n}": raw for n, raw in enumerate(rows, start=1)}
    assert decode_measure(LINES, answers) == reading
    assert raw_bits(LINES, answers) is None, "a sum has no raw content"


def sensors(*rows: tuple[int, int, int, int, int]) -> dict[str, dict[int, int]]:
    """A table of (type, scale, precision, value, status), from row 1001."""
    columns = (TYPE, SCALE, PRECISION, VALUE, STATUS)
    return {column: {1001 + n: row[at] for n, row in enumerate(rows)} for at, column in enumerate(columns)}


WATTS = (6, 9, 0, 1584, 1)


@pytest.mark.parametrize(
    ("table", "row", "reading"),
    [
        (sensors(WATTS), None, Reading(1584.0, Quality.GOOD)),
        (sensors((6, 10, 1, 23, 1)), None, Reading(2300.0, Quality.GOOD)),  # kilo, one decimal
        (sensors((6, 8, 0, 1500, 1)), None, Reading(1.5, Quality.GOOD)),  # milli
        (sensors(WATTS, WATTS), None, Reading(None, Quality.NO_VALUE)),  # which of the two?
        (sensors(WATTS, (6, 9, 0, 20, 1)), 1002, Reading(20.0, Quality.GOOD)),
        (sensors(WATTS), 1002, Reading(None, Quality.NO_VALUE)),
        (sensors((5, 9, 0, 20, 1)), None, Reading(None, Quality.NO_VALUE)),  # amperes only
        (sensors((6, 9, 0, 20, 2)), None, Reading(None, Quality.NO_VALUE)),  # unavailable
        (sensors((6, 99, 0, 20, 1)), None, Reading(None, Quality.DECODE)),
        (sensors((6, 9, 4_000_000, 20, 1)), None, Reading(None, Quality.DECODE)),
        ({}, None, Reading(None, Quality.NO_VALUE)),
    ],
)
def test_a_sensor_table_gives_the_one_sensor_of_a_kind(table: dict, row: int | None, reading: Reading) -> None:
    assert sensor_reading(table, "watts", row) == reading


@given(st.one_of(st.none(), st.integers(), st.binary(max_size=200)), st.one_of(st.none(), st.integers(-2, 20)))
def test_no_answer_makes_decoding_raise(raw: int | bytes | None, digits: int | None) -> None:
    for measure in (SENSOR, SENSOR.model_copy(update={"text": True})):
        answers = {"1.3.6.1.4.1.1.1": raw, "1.3.6.1.4.1.2.1": digits, "1.3.6.1.4.1.3.1": 1}
        reading = decode_measure(measure, answers)
        assert (reading.value is not None) == (reading.quality in (Quality.GOOD, Quality.SUSPECT))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(extra=1), "extra"),
        (lambda p: p["points"].update(power_kw=p["points"]["power_w"]), "power_kw"),
        (lambda p: p["points"]["power_w"].update(scale="0"), "scale 0"),
        (lambda p: p["points"]["power_w"].update(scale=0.01), "scale"),
        (lambda p: p["points"]["power_w"].update(oid="1.3.6.1.4.1.318.1.x"), "oid"),
        (lambda p: p["outlets"]["state"].update(on=[1]), "two states"),
        (lambda p: p["outlets"]["open"].update(value=1), "same command"),
        (lambda p: p["outlets"].pop("close"), "both open and close"),
        (lambda p: p["outlets"].pop("state"), "read back"),
        (lambda p: p.pop("power_source"), "power_source"),
        (lambda p: p.update(points={}), "reads nothing"),
        (lambda p: p.pop("places"), "instance"),
        (lambda p: p.update(sensors={"power_w": "watts"}), "a point of its own already"),
        (lambda p: p["points"]["serial_number"].update(plus=["2"]), "only plain numbers are added"),
    ],
)
def test_a_wrong_profile_is_refused(change, message: str) -> None:
    content = apc_dict()
    change(content)
    with pytest.raises(ValidationError, match=message):
        PduProfile.model_validate(content)


def test_a_repeated_key_in_a_profile_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "apc_rpdu2.yaml"
    path.write_text((DATA / "apc_rpdu2.yaml").read_text(encoding="utf-8") + "\nkind: pdu\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="given twice"):
        read_pdu_profile(path)


def test_a_profile_whose_id_is_not_its_files_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text((DATA / "apc_rpdu2.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ProfileError, match=r"apc-rpdu2.*expected 'other'"):
        read_pdu_profile(path)


def test_an_unknown_profile_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ProfileError, match="there are apc-easy-epdu, apc-rpdu2, cyberpower-epdu"):
        load_pdu_profile("apc-rpdu3")


def test_secrets_are_in_no_repr() -> None:
    secret = Credentials(Community("s3cret-read"), User("u", "s3cret-auth", "s3cret-priv"))
    assert "s3cret" not in repr(secret)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("word\n", Credentials(Community("word"))),
        ("version=1\ncommunity=a\nwrite_community=b", Credentials(Community("a", "1"), Community("b", "1"))),
        (
            "# PDU room\nuser=u\nauth=sha256\nauth_key=12345678\npriv_key=abcdefgh\n",
            Credentials(User("u", "12345678", "abcdefgh", "sha256", "aes")),
        ),
    ],
)
def test_secrets_are_read_from_text(text: str, expected: Credentials) -> None:
    assert credentials_from_text(text) == expected


@pytest.mark.parametrize(
    "text",
    ["version=2\ncommunity=a", "community=", "user=u\nauth_key=short", "user=u\npriv_key=12345678", "comunity=a"],
)
def test_secrets_that_cannot_be_used_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"SNMP"):
        credentials_from_text(text)


def test_secret_comes_from_a_variable_or_the_file_it_names(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text("from-file", encoding="utf-8")
    assert credentials_from_environment("rack-1", {"TIZGIN_SNMP_RACK_1": "x"}).read == Community("x")
    found = credentials_from_environment("rack-1", {"TIZGIN_SNMP_RACK_1_FILE": str(path)})
    assert found.read == Community("from-file")
    with pytest.raises(ValueError, match="TIZGIN_SNMP_RACK_1"):
        credentials_from_environment("rack-1", {})


def test_an_address_names_a_secret_and_never_holds_one() -> None:
    assert parse_snmp_url("snmp://10.0.0.7?cred=rack-1") == ("10.0.0.7", 161, "rack-1")
    assert parse_snmp_url("snmp://pdu.local:1161?cred=a") == ("pdu.local", 1161, "a")
    for url in (
        "snmp://h",
        "snmp://u:p@h?cred=a",
        "snmp://h?community=public",
        "modbus://h?cred=a",
        "snmp://h:0?cred=a",
    ):
        with pytest.raises(ValueError, match=r"snmp|secret"):
            parse_snmp_url(url)
