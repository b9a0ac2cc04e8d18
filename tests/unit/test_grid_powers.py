"""Declarations and mandates by the command line: two persons, the same bytes, and a register that allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grid.keystore import create_key
from grid.ordering import read_order
from grid.powers import describe_power, read_power
from grid.registrar.register import build, sign_to_file
from grid.texts import LANGUAGES, load_texts
from tizgin.cli import run
from wire.dsse import DECLARATION_TYPE, open_envelope, seal
from wire.keys import SigningKey, b64
from wire.orders import uuid7
from wire.powers import Declaration, Mandate, open_declaration, open_mandate
from wire.registry import KeysDocument

GATEWAY_KID = "0123456789abcdef"


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeysDocument:
    """Keys aru, bek, cid, dan, old in files, and the register that names them."""
    monkeypatch.chdir(tmp_path)
    keys = {name: create_key(tmp_path / f"{name}.pem", None) for name in ("aru", "bek", "cid", "dan", "old", "two")}
    registrar = SigningKey.generate()
    rights = {"aru": ["declare", "mandate", "limit"], "bek": ["declare", "mandate"], "cid": ["limit"],
              "dan": ["declare", "mandate"], "old": ["declare", "mandate"], "two": ["declare", "mandate"]}  # fmt: skip
    doc: dict[str, Any] = {
        "version": 1,
        "persons": [
            {"id": name, "name": name.title(), "organisation": "SO", "role": "system_operator"}
            for name in ("aru", "bek", "cid", "dan", "old")
        ],
        "issuers": [
            {"person": "aru" if name == "two" else name, "key": key.public.text, "rights": rights[name],
             "zones": ["south"] if name == "dan" else ["north", "south"], "solo_kw": 0,
             "valid_from": "2021-01-01", "valid_to": "2022-01-01" if name == "old" else "2099-01-01"}
            for name, key in keys.items()
        ],
        "zones": [{"id": "north", "max_step_kw": 50, "max_ramp_kw_per_min": 600, "max_return_kw_per_min": 100}],
        "sites": [{"id": "kz-1", "zone": "north", "contracted_kw": 1000, "emergency_kw": 50, "slot_s": 900,
                   "epochs": [{"epoch": "e1-00000000", "k_rec": SigningKey.generate().public.text,
                               "k_log": SigningKey.generate().public.text}]}],
    }  # fmt: skip
    register = build(doc, now_ms=1_700_000_000_000, source="test")
    sign_to_file(register, registrar, tmp_path / "keys.json")
    (tmp_path / "reg.pub").write_text(registrar.public.text)
    return register


REGISTER = ("--keys", "keys.json", "--registrar", "reg.pub", "--yes")
DECLARE = ("order", "declare", "--zone", "north", "--cap-kw", "150.5", "--text", "ВЛ отключена")


def declared(*more: str, who: str = "aru", out: str = "one.json") -> int:
    return run([*DECLARE, "--key", f"{who}.pem", "--out", out, *REGISTER, *more])


def second(kind: str, who: str, source: str = "one.json") -> int:
    return run(["order", kind, "--key", f"{who}.pem", "--out", "both.json", "--countersign", source, *REGISTER])


def test_the_yaml_of_a_register_takes_bounds_in_kw(office: KeysDocument, capsys: pytest.CaptureFixture[str]) -> None:
    zone = office.zone("north")
    assert zone is not None
    assert (zone.max_step_w, zone.max_ramp_w_per_min, zone.max_return_w_per_min) == (50_000, 600_000, 100_000)
    assert run(["registrar", "show", "keys.json", "--registrar", "reg.pub"]) == 0
    assert "zone north: step 50 kW, ramp 600 kW per min, return 100 kW per min" in capsys.readouterr().out


def test_two_persons_make_a_declaration_that_an_agent_believes(
    office: KeysDocument, capsys: pytest.CaptureFixture[str]
) -> None:
    assert declared() == 0
    said = capsys.readouterr()
    assert "150.5 kW" in said.err
    assert "ВЛ отключена" in said.err
    assert "a second person signs it with --countersign" in said.out
    first = open_envelope(Path("one.json").read_bytes(), expected_type=DECLARATION_TYPE)
    assert second("declare", "bek") == 0
    said = capsys.readouterr()
    assert "150.5 kW" in said.err, "the second person sees it decoded"
    assert "Aru" in said.err
    both = open_envelope(Path("both.json").read_bytes(), expected_type=DECLARATION_TYPE)
    assert both.payload == first.payload
    text = b64(both.encode())
    now = read_power(Path("both.json"), Declaration)[0].issued_at
    opened = open_declaration(text, office, zone="north", at_ms=now)
    assert (opened.cap_w, opened.zones) == (150_500, ("north",))

    given = ["order", "sign", "--key", "aru.pem", "--site", "kz-1", "--limit-kw", "100", "--out", "order.json"]
    assert run([*given, "--declaration", "both.json", *REGISTER]) == 0
    order = read_order(Path("order.json")).order
    assert order.declaration is not None
    assert open_declaration(order.declaration, office, zone="north", at_ms=now) == opened
    assert run([*given, "--declaration", "keys.json", *REGISTER]) == 1
    assert "payload type" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("who", "match"),
    [
        ("aru", "aru has signed this already"),
        ("two", "aru has signed this already"),
        ("cid", "no right to declare"),
        ("dan", "no right in north"),
        ("old", "is valid from"),
    ],
)
def test_a_second_signature_that_would_not_count_is_not_given(
    office: KeysDocument, capsys: pytest.CaptureFixture[str], who: str, match: str
) -> None:
    assert declared() == 0
    assert second("declare", who) == 1
    assert match in capsys.readouterr().err
    assert not Path("both.json").exists()


@pytest.mark.parametrize("who", ["cid", "dan", "old"])
def test_a_first_signature_that_would_not_count_is_not_given(office: KeysDocument, who: str) -> None:
    assert declared(who=who) == 1
    assert not Path("one.json").exists()


def test_changed_bytes_get_no_second_signature(office: KeysDocument, capsys: pytest.CaptureFixture[str]) -> None:
    assert declared() == 0
    power, envelope = read_power(Path("one.json"), Declaration)
    more = seal(DECLARATION_TYPE, power.model_copy(update={"cap_w": 10**9}).encode()).payload
    changed = type(envelope)(envelope.payload_type, more, envelope.signatures)
    Path("changed.json").write_bytes(changed.encode())
    assert second("declare", "bek", "changed.json") == 1
    assert "does not verify; do not sign it" in capsys.readouterr().err
    assert second("mandate", "bek") == 1
    assert "payload type" in capsys.readouterr().err
    options = ["--countersign", "one.json", "--key", "bek.pem", "--out", "both.json", *REGISTER]
    assert run(["order", "declare", "--cap-kw", "9", *options]) == 2
    assert "leave cap_w out" in capsys.readouterr().err


def test_a_mandate_takes_id_and_zones_from_its_plan(office: KeysDocument, capsys: pytest.CaptureFixture[str]) -> None:
    plan = uuid7(1_795_000_000_000)
    Path("plan.yaml").write_text(
        f"id: {plan}\nzones: [north]\ntarget: {{total_kw: 400}}\nramp_kw_per_min: 300\n"
        "hold: {until_released: true}\nbasis: {code: drill}\n"
    )
    options = ["--plan", "plan.yaml", "--gateway", GATEWAY_KID, "--band-kw", "20", "--max-cut-kw", "200",
               "--max-step-kw", "50", "--max-ramp-kw-per-min", "600"]  # fmt: skip
    assert run(["order", "mandate", "--key", "aru.pem", "--out", "one.json", *options, *REGISTER]) == 0
    assert GATEWAY_KID in capsys.readouterr().err
    assert second("mandate", "bek") == 0
    power, envelope = read_power(Path("both.json"), Mandate)
    opened = open_mandate(b64(envelope.encode()), office, zone="north", at_ms=power.issued_at)
    assert (opened.plan, opened.actions, opened.max_ramp_w_per_min) == (plan, ("limit",), 600_000)
    assert run(["order", "mandate", "--key", "aru.pem", "--out", "x.json", "--band-kw", "1", *REGISTER]) == 1
    assert "mandate field" in capsys.readouterr().err


def test_nothing_is_signed_unasked(office: KeysDocument, capsys: pytest.CaptureFixture[str]) -> None:
    without = [option for option in REGISTER if option != "--yes"]
    assert run([*DECLARE, "--key", "aru.pem", "--out", "one.json", *without]) == 2
    assert "nobody is there to be asked" in capsys.readouterr().err
    assert not Path("one.json").exists()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_signed_field_of_a_power_is_shown(office: KeysDocument, language: str) -> None:
    now = 1_795_000_000_000
    times = {"v": 1, "id": uuid7(now), "issued_at": now, "valid_from": now, "valid_to": now + 3_600_000}
    both = {"zones": ("north", "south"), **times}
    mandate = Mandate(
        **both, plan=uuid7(now), gateway=GATEWAY_KID, actions=("limit", "reduce"), band_w=11_000, max_cut_w=22_000,
        max_step_w=33_000, max_ramp_w_per_min=44_000,
    )  # fmt: skip
    shown = " ".join(value for _, value in describe_power(mandate, load_texts(language)))
    for value in (mandate.id, mandate.plan, GATEWAY_KID, "limit, reduce", "north, south", "11", "22", "33", "44"):
        assert value in shown
    rows = describe_power(Declaration(**both, cap_w=55_000, text="why"), load_texts(language))
    assert {"why", "north, south"} <= {value for _, value in rows}
    assert len(rows) == len(Declaration.model_fields)
