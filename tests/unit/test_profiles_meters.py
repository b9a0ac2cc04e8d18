"""The shipped meter models agree with the facts they were written from, with worked examples and with their schema."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.profiles import codec
from drivers.profiles.fields import READ_FUNCTION, RegisterField
from drivers.profiles.loader import DATA, load_profile, load_profiles, profile_schema
from drivers.profiles.model import MeterProfile, Point, Variable
from wire.energy import primary_wh

HERE = Path(__file__)
CASES = HERE.parents[1] / "vectors" / "meters"
SHARED = HERE.parents[2].parent / "shared" / "data" / "meters"
OURS = {path.stem.replace("_", "-") for path in (DATA / "meters").glob("*.yaml")}
METERS = {p.id: p for p in load_profiles().values() if isinstance(p, MeterProfile) and p.id in OURS}
needs_facts = pytest.mark.skipif(not SHARED.is_dir(), reason="left out: shared/data/meters is not beside the project")

OTHER_PROTOCOLS = ("sunspec_", "mercury_", "energomera_", "set_4tm_", "protocol_table_")
WITHOUT_ENERGY = {
    "circutor-cvm144", "circutor-cvm-c10", "schneider-ion6200", "schneider-ion7500-7600", "schneider-ion7550-7650",
}  # fmt: skip
"""No source gives their counters a scale, or an address that two sources agree on."""


def meter(profile_id: str) -> MeterProfile:
    profile = load_profile(profile_id)
    assert isinstance(profile, MeterProfile)
    return profile


def test_there_are_at_least_33_models_and_each_says_how_well_it_is_founded() -> None:
    assert len(METERS) >= 33
    for profile in METERS.values():
        assert profile.sources
        assert profile.transports
        assert profile.status in {"documented", "community"}, f"{profile.id}: nobody here has seen one"


@pytest.mark.parametrize("profile", list(METERS.values()), ids=list(METERS))
def test_energy_is_evidence_or_the_profile_says_why_not(profile: MeterProfile) -> None:
    if profile.id in WITHOUT_ENERGY:
        assert "energy_import_wh" not in profile.point_ids
        assert any("not for a metering point" in note for note in profile.notes)
        return
    point = profile.point("energy_import_wh")
    if point.kind == "derived":
        assert any("telemetry only" in note for note in profile.notes)
        return
    assert point.poll == "boundary"
    mapping = codec.decode_map(point)
    words = codec.encode(point, 123_456_000)
    bits = codec.field_bits(point, words)
    assert primary_wh(bits, mapping) == codec.decode_bits(point, bits)


@pytest.mark.parametrize("profile", list(METERS.values()), ids=list(METERS))
def test_every_point_has_a_worked_example_inside_its_profile(profile: MeterProfile) -> None:
    shown = {name for vector in profile.tests for name in vector.expect}
    unshown = set(profile.point_ids) - shown
    assert unshown <= {"serial_number"}, f"{profile.id}: no golden vector for {sorted(unshown)}"


def case_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(CASES.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        assert document["profile"] == path.stem.replace("_", "-")
        for row in document["cases"]:
            yield document["profile"], row


@pytest.mark.parametrize(
    ("profile_id", "row"), list(case_rows()), ids=lambda v: v if isinstance(v, str) else f"at-{v['addr']}"
)
def test_cases_worked_out_without_our_codec_decode(profile_id: str, row: dict[str, Any]) -> None:
    decoded = codec.decode_block(
        meter(profile_id), row["table"], row["addr"], [int(w, 16) for w in row["words"].split()]
    )
    assert set(row["expect"]) <= set(decoded)
    for name, wanted in row["expect"].items():
        number = decoded[name].number
        assert number == (wanted if name == "serial_number" else Fraction(wanted)), name


def test_every_model_has_cases() -> None:
    assert set(METERS) == {profile_id for profile_id, _ in case_rows()}


# What the shared facts call a register, and what we do. Others are not in our vocabulary.
NAMES = {
    "energy_active_import": "energy_import_wh", "energy_active_export": "energy_export_wh",
    "energy_active_import_t1": "energy_import_wh_t1", "energy_active_import_t2": "energy_import_wh_t2",
    "energy_active_import_t3": "energy_import_wh_t3", "energy_active_import_t4": "energy_import_wh_t4",
    "energy_active_export_t2": "energy_export_wh_t2",
    "energy_reactive_import": "energy_reactive_import_varh", "energy_reactive_export": "energy_reactive_export_varh",
    "power_active_total": "power_w", "power_active_l1": "power_l1_w", "power_active_l2": "power_l2_w",
    "power_active_l3": "power_l3_w", "power_reactive_total": "power_reactive_var",
    "power_apparent_total": "power_apparent_va", "power_factor_total": "power_factor",
    "voltage_l1_n": "voltage_l1_n_v", "voltage_l2_n": "voltage_l2_n_v", "voltage_l3_n": "voltage_l3_n_v",
    "voltage_l1_l2": "voltage_l1_l2_v", "voltage_l2_l3": "voltage_l2_l3_v", "voltage_l3_l1": "voltage_l3_l1_v",
    "current_l1": "current_l1_a", "current_l2": "current_l2_a", "current_l3": "current_l3_a",
    "current_n": "current_n_a", "frequency": "frequency_hz",
}  # fmt: skip
KILO = {"kWh": 1000, "kvarh": 1000, "V": 1, "A": 1, "W": 1, "var": 1, "VA": 1, "Hz": 1, "": 1}

OTHERWISE: dict[tuple[str, str], str] = {
    ("dzg-dvh4013", "power_w"): "difference of two registers",
    ("circutor-cvm144", "power_reactive_var"): "difference of two registers",
    ("circutor-cvm-c10", "power_reactive_var"): "difference of two registers",
    ("siemens-pac2200-3200-4200", "energy_import_wh"): "sum of two tariffs",
    ("siemens-pac2200-3200-4200", "energy_export_wh"): "sum of two tariffs",
    ("siemens-pac2200-3200-4200", "energy_import_wh_t1"): "called the total in the facts, tariff 1 by their note",
    ("siemens-pac2200-3200-4200", "energy_export_wh_t1"): "likewise",
    ("siemens-pac2200-3200-4200", "energy_reactive_import_varh_t1"): "likewise",
    ("siemens-pac2200-3200-4200", "energy_reactive_export_varh_t1"): "likewise",
    ("socomec-diris-a-countis", "energy_import_wh"): "one of three by model",
    ("socomec-diris-a-countis", "energy_export_wh"): "one of two by model",
    ("abb-b23-b24", "voltage_l2_l3_v"): "the facts name the phases the other way round",
    ("abb-b23-b24", "voltage_l3_l1_v"): "likewise",
}
GUESSED_SCALE = {"schneider-ion7550-7650": "by likeness to the ION7500/7600; every point says confirmed: 0"}


def facts_of(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def modbus_facts() -> list[Path]:
    return [p for p in sorted(SHARED.glob("*.yaml")) if not p.name.startswith(OTHER_PROTOCOLS)]


@needs_facts
def test_every_fact_file_of_a_modbus_meter_has_its_profile() -> None:
    paths = modbus_facts()
    assert len(paths) == 33
    assert {p.stem.replace("_", "-") for p in paths} <= set(METERS)


def disagreements(profile: MeterProfile, facts: dict[str, Any]) -> Iterator[str]:
    """Points that lie, are coded or are scaled otherwise than the facts say, or claim more sources."""
    order = facts["word_order"]
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in facts["registers"]:
        if (name := NAMES.get(row["name"])) is not None:
            rows.setdefault((name, row["addr"]), []).append(row)
    for point in profile.points:
        if point.id not in NAMES.values() or (profile.id, point.id) in OTHERWISE:
            continue
        found = rows.get((point.id, point.addr))
        if not found:
            yield f"{point.id} at {point.addr}: the facts have it elsewhere or not at all"
            continue
        (row,) = found
        if row["type"] != point.type or row["count"] != point.words:
            yield f"{point.id}: {point.type}, facts {row['type']}"
        if point.words > 1 and (row.get("word_order") or order) != point.word_order:
            yield f"{point.id}: word order {point.word_order}"
        functions = {row["fc"], *facts.get("function_codes", ())}
        if READ_FUNCTION[point.table] not in functions:
            yield f"{point.id}: table {point.table}, facts function {row['fc']}"
        if row["scale"] is not None and not point.scale_by:
            scale = Fraction(str(row["scale"])) * KILO[row["unit"] or ""]
            if scale != point.scale:
                yield f"{point.id}: scale {point.scale}, facts {scale}"
        elif row["scale"] is None and not point.scale_by and profile.id not in GUESSED_SCALE:
            yield f"{point.id}: the facts know no scale"
        if point.confirmed > row["confirmed"]:
            yield f"{point.id}: confirmed {point.confirmed}, facts {row['confirmed']}"


@needs_facts
def test_every_point_agrees_with_the_facts_on_address_coding_scale_and_footing() -> None:
    wrong = {
        path.stem: found
        for path in modbus_facts()
        if (found := list(disagreements(METERS[path.stem.replace("_", "-")], facts_of(path))))
    }
    assert wrong == {}


@needs_facts
def test_what_the_facts_do_not_found_is_not_shipped_as_founded() -> None:
    guessed = {
        (path.stem.replace("_", "-"), NAMES[row["name"]])
        for path in modbus_facts()
        for row in facts_of(path)["registers"]
        if row["confirmed"] == 0 and row["name"] in NAMES
    }
    assert guessed
    for profile_id, name in guessed:
        points = {p.id: p for p in METERS[profile_id].points}
        assert name not in points or (METERS[profile_id].status == "community" and points[name].confirmed == 0)


def test_socomec_variants_and_the_single_tariff_siemens_share_what_they_share() -> None:
    for one, other, differing in (
        (
            "socomec-diris-a-countis",
            "socomec-countis-e-diris-a14",
            {"energy_import_wh", "energy_export_wh", "frequency_hz"},
        ),
        ("siemens-pac2200-3200-4200", "siemens-pac2200-3200-4200-t1", {"energy_import_wh", "energy_export_wh"}),
    ):
        first, second = ({p.id: p for p in METERS[name].points} for name in (one, other))
        for name in set(first) & set(second) - differing:
            assert first[name] == second[name]


def test_the_siemens_total_is_both_tariffs_and_its_variant_the_first_alone() -> None:
    total, first = meter("siemens-pac2200-3200-4200"), meter("siemens-pac2200-3200-4200-t1")
    words = [
        *codec.encode(total.point("energy_import_wh_t1"), 5_000),
        *codec.encode(total.point("energy_import_wh_t2"), 7),
    ]
    assert codec.decode_block(total, "holding", 801, words)["energy_import_wh"].value == 5_007.0
    assert codec.decode_block(first, "holding", 801, words)["energy_import_wh"].value == 5_000.0
    assert not total.point("energy_import_wh").evidence
    assert first.point("energy_import_wh").evidence


# Frames and registers printed in public papers; where: (profile, point, exact value).
PRINTED: dict[tuple[str, str], tuple[str, str, Fraction | None]] = {
    ("eastron_sdm630", "4370 8000"): ("eastron-sdm630", "voltage_l1_n_v", Fraction("240.5")),
    ("carlogavazzi_em330_em340", "FFFF 7FFF"): ("carlogavazzi-em330-em340", "power_w", None),
    ("abb_b23_b24", "FFFF FFFF FFFF FFFF"): ("abb-b23-b24", "energy_import_wh", None),
}
IDENTITIES = {
    ("eastron_sdm630", "4505 D000"): "eastron-sdm630",
    ("abb_b23_b24", "4232 3320"): "abb-b23-b24",
}
FLOATS = {
    ("advantech_adam", "AI1 f32"): ("big", 0, Fraction(100)),
    ("advantech_adam", "AI2 f32"): ("little", 2, Fraction("55.32")),
}
EXPONENTS = {("camillebauer_aplus", "counter 12056 (u32), CNTR_EXP 4"): Fraction(120_560_000)}
NOT_MODBUS = {"mercury_23x", "set_4tm_psch", "energomera_ce30x"}
NO_VALUE = {("camillebauer_aplus", "4xxxx register 40102"), ("advantech_adam", ">> 01 05 00 03 FF 00")}
"""Rows that illustrate an address or a write, and hold no reading."""


def words_of(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def energy_with_exponent(counter: int, exponent: int) -> Fraction:
    """A meter whose counter is scaled by a power of ten in a register of its own."""
    profile = MeterProfile.model_validate(
        {
            "schema": 1, "id": "exponent-meter", "version": 1, "kind": "meter", "vendor": "X", "model": "Y",
            "status": "community", "sources": [{"name": "test"}],
            "points": [{"id": "energy_import_wh", "addr": 0, "type": "u32", "kind": "derived", "scale_by": ["e"]}],
            "variables": [{"id": "e", "addr": 2, "type": "u16", "gives": "exponent"}],
            "tests": [{"table": "holding", "addr": 2, "words": "0000", "expect": {}}],
        }
    )  # fmt: skip
    decoded = codec.decode_block(profile, "holding", 0, [counter >> 16, counter & 0xFFFF, exponent])
    number = decoded["energy_import_wh"].number
    assert isinstance(number, Fraction)
    return number


@needs_facts
def test_every_modbus_vector_of_the_shared_facts_decodes() -> None:
    with (SHARED / "vectors.tsv").open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t") if r["model"] not in NOT_MODBUS]
    assert len(rows) >= 10
    for row in rows:
        key = (row["model"], row["raw_hex"])
        if key in PRINTED:
            profile_id, name, wanted = PRINTED[key]
            point = meter(profile_id).point(name)
            assert codec.decode_bits(point, codec.field_bits(point, words_of(key[1]))) == wanted
        elif key in IDENTITIES:
            identities = [i for i in meter(IDENTITIES[key]).identify if i.words == len(words_of(key[1]))]
            read = [codec.decode_bits(i, codec.field_bits(i, words_of(key[1]))) for i in identities]
            assert any(number in i.expect for i, number in zip(identities, read, strict=True))
        elif (row["model"], row["decoded_name"]) in FLOATS:
            order, start, wanted_float = FLOATS[row["model"], row["decoded_name"]]
            data = bytes.fromhex(row["raw_hex"].removeprefix("<<"))[3:]
            words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
            field = RegisterField(addr=start, type="f32", word_order=order)  # type: ignore[arg-type]  # from a table
            got = codec.decode_bits(field, codec.field_bits(field, words[start : start + 2]))
            assert got == pytest.approx(wanted_float, rel=1e-6)
        elif key in EXPONENTS:
            assert energy_with_exponent(12056, 4) == EXPONENTS[key]
        else:
            assert key in NO_VALUE, f"a vector that no test decodes: {key}"


@pytest.mark.parametrize("folder", ["meters", "relays"])
def test_every_shipped_file_holds_by_the_published_schema(folder: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="left out: jsonschema is not installed")
    schema = json.loads(json.dumps(profile_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    paths = sorted((DATA / folder).glob("*.yaml"))
    assert paths
    for path in paths:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert [e.message[:200] for e in validator.iter_errors(document)] == [], path.name


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda d: d.update(writes=[]), "a key that does not exist"),
        (lambda d: d["points"][0].update(scale="1e3"), "an exponent"),
        (lambda d: d["points"][0].update(type="u12"), "an unknown type"),
        (lambda d: d.pop("sources"), "no source"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_the_published_schema_refuses(spoil: Any, what: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="left out: jsonschema is not installed")
    document = yaml.safe_load((DATA / "meters" / "eastron_sdm630.yaml").read_text(encoding="utf-8"))
    spoil(document)
    assert list(jsonschema.Draft202012Validator(profile_schema()).iter_errors(document)), what


def test_no_profile_names_a_person_or_a_repository_file() -> None:
    for path in (DATA / "meters").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "http" not in text
        assert "@" not in text


@pytest.mark.parametrize("profile", list(METERS.values()), ids=list(METERS))
def test_variables_are_read_with_what_they_scale_and_never_shown(profile: MeterProfile) -> None:
    assert all(isinstance(v, Variable) for v in profile.variables)
    assert not {v.id for v in profile.variables} & set(profile.point_ids)
    for point in profile.points:
        assert isinstance(profile.point(point.id), Point)
        for name in point.scale_by:
            assert profile.point(name).table in {"holding", "input"}


LEFT_OUT: dict[tuple[str, str], str] = {
    ("schneider-iem3000", "power_factor_total"): "coded by quadrant in its family",
    ("schneider-pm3200", "power_factor_total"): "coded by quadrant",
    ("schneider-pm5xxx", "power_factor_total"): "coded by quadrant",
    ("socomec-diris-a-countis", "power_factor_total"): "its sign is lead or lag, not direction",
    ("siemens-pac2200-3200-4200", "energy_reactive_import"): "tariff 1 alone: shipped under that name",
    ("siemens-pac2200-3200-4200", "energy_reactive_export"): "tariff 1 alone: shipped under that name",
}


@needs_facts
def test_every_founded_register_with_a_scale_is_shipped_or_left_out_for_a_reason() -> None:
    missing = {
        (profile_id, row["name"])
        for path in modbus_facts()
        for row in facts_of(path)["registers"]
        if row["confirmed"] and row["scale"] is not None and (name := NAMES.get(row["name"])) is not None
        if name not in METERS[profile_id := path.stem.replace("_", "-")].point_ids
    }
    assert missing == set(LEFT_OUT)
