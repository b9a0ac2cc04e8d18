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
from drivers.snmp.decode import decode_measure, decode_position
from drivers.snmp.probe import parse_snmp_url
from drivers.snmp.profile import DATA, Measure, PduProfile, load_pdu_profile, load_pdu_profiles, read_pdu_profile
from wire.quality import Quality

VECTORS = Path(__file__).parents[2].parent / "shared" / "data" / "pdu" / "vectors.tsv"
BASE_UNIT = {"kWh": ("Wh", 1000.0)}
RARITAN_DIGITS = {"1": 3, "4": 0, "5": 0, "23": 1}
"""Decimal digits in the PX2 recording, by sensor type."""
NOT_IN_A_PROFILE = {"phase1_apparent", "phase1_pf", "phase1_energy", "unit2_cord1_power", "outlet1_energy"}
"""Rows of the table that no point of the vocabulary, or another unit's index, stands for."""


def apc_dict() -> dict:
    return yaml.safe_load((DATA / "apc_rpdu2.yaml").read_text(encoding="utf-8"))


def test_every_profile_file_loads_and_reads_power_and_energy() -> None:
    profiles = load_pdu_profiles()
    assert set(profiles) == {"apc-rpdu2", "eaton-epdu-g3", "raritan-px2", "servertech-sentry4", "vertiv-geist-v5"}
    for profile in profiles.values():
        assert {"power_w", "energy_import_wh", "power_factor", "power_apparent_va"} <= set(profile.points)
        assert profile.status != "verified", "nobody has read these devices yet"


@pytest.mark.parametrize(
    ("profile_id", "off_state", "on_state", "off_command", "on_command"),
    [
        ("apc-rpdu2", 1, 2, 2, 1),  # the trap: the command's numbers are the state's, exchanged
        ("raritan-px2", 8, 7, 0, 1),
        ("servertech-sentry4", 2, 1, 2, 1),
        ("vertiv-geist-v5", 2, 1, 4, 2),
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
    left: set[str] = set()
    with VECTORS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            value = decoded(profiles[row["model"]], row["oid"], int(row["raw"]))
            if value is None:
                left.add(row["decoded_name"])
                continue
            factor = BASE_UNIT.get(row["unit"], ("", 1.0))[1]
            assert value.quality is Quality.GOOD, row
            assert value.value == pytest.approx(float(row["value"]) * factor, rel=1e-12), row
            checked[row["model"]] = checked.get(row["model"], 0) + 1
    assert left <= NOT_IN_A_PROFILE
    assert checked["apc_rpdu2"] == 10
    assert sum(checked.values()) >= 30


def decoded(profile: PduProfile, oid: str, raw: int) -> Reading | None:
    answers = {oid: raw}
    outlets = {} if profile.outlets is None else profile.outlets.measures
    places = [(measure, None) for measure in profile.points.values()]
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
    with pytest.raises(ProfileError, match="there are apc-rpdu2, eaton-epdu-g3"):
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
