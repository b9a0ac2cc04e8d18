"""The dispatcher's and the registrar's side without a page: keys, numbers, register, orders, words, answers."""

from __future__ import annotations

import ast
import json
import string
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.acts import commissioning_act, describe_act, mode_act, read_act, sign_act, write_envelope
from grid.desk.html import el, join
from grid.errors import ComposeError, GridError, KeyFileError, RegisterError
from grid.keystore import create_key, load_key
from grid.ordering import add_signature, new_order, read_order
from grid.registrar.register import build, load_register, load_yaml, sign_to_file
from grid.sequence import Sequence
from grid.texts import LANGUAGES, load_texts
from grid.words import completion, describe, kilowatt, local_time, spoken_power
from tests.unit.grid_kit import BASE, EPOCH, NOW, SITE, make_register, order, register_yaml, signed
from tizgin.cli import run
from wire.checkpoints import Checkpoint
from wire.keys import SigningKey
from wire.names import origin
from wire.orders import Order
from wire.registry import KeysDocument

# Keys and numbers


def test_a_key_file_is_private_and_round_trips(tmp_path: Path) -> None:
    key = create_key(tmp_path / "k.pem", b"secret")
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyFileError, match="passphrase and none was given"):
        load_key(tmp_path / "k.pem", environment={})
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_key(tmp_path / "k.pem", environment={"TIZGIN_KEY_PASSPHRASE": "wrong"})
    assert load_key(tmp_path / "k.pem", environment={"TIZGIN_KEY_PASSPHRASE": "secret"}).kid == key.kid
    with pytest.raises(KeyFileError, match="not overwritten"):
        create_key(tmp_path / "k.pem", None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    create_key(tmp_path / "k.pem", None)
    (tmp_path / "k.pem").chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600"):
        load_key(tmp_path / "k.pem", environment={})


def test_numbers_rise_over_restarts_a_clock_set_back_and_two_programs(tmp_path: Path) -> None:
    file = tmp_path / "k.pem"
    numbers = [Sequence(file, "a" * 16).next(SITE, now_ms=NOW - i * 3_600_000) for i in range(3)]
    found: list[int] = []

    def take() -> None:
        for _ in range(10):
            found.append(Sequence(file, "a" * 16).next(SITE, now_ms=0))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == [NOW // 1000, NOW // 1000 + 1, NOW // 1000 + 2]
    assert sorted(found) == list(range(numbers[-1] + 1, numbers[-1] + 41))
    assert Sequence(file, "a" * 16).next("other", now_ms=0) == 0


@pytest.mark.parametrize("body", ["", "{}", '{"v":1,"kid":"bbbbbbbbbbbbbbbb","sites":{}}', '{"kid":"x","sites":[1]}'])
def test_a_damaged_number_file_stops_signing(tmp_path: Path, body: str) -> None:
    (tmp_path / "k.pem.seq.json").write_text(body)
    with pytest.raises(GridError, match="damaged"):
        Sequence(tmp_path / "k.pem", "a" * 16).next(SITE, now_ms=NOW)


# Register


def test_a_register_is_made_of_yaml_signed_and_only_rises(tmp_path: Path) -> None:
    registrar, key, rec = (SigningKey.generate() for _ in range(3))
    first = make_register(tmp_path, key, rec)
    issuer = first.issuer(key.kid)
    assert issuer is not None
    assert (issuer.solo_w, issuer.valid_from, issuer.valid_to) == (50_500, 1_767_225_600_000, 1_798_743_600_000)
    out = tmp_path / "keys.json"
    assert sign_to_file(first, registrar, out) is None
    before = out.read_bytes()
    with pytest.raises(RegisterError, match=r"does not rise.*version: 2"):
        sign_to_file(first, registrar, out)
    with pytest.raises(RegisterError, match="not overwritten"):
        sign_to_file(make_register(tmp_path, key, rec, 2), SigningKey.generate(), out)
    assert out.read_bytes() == before
    assert sign_to_file(make_register(tmp_path, key, rec, 2), registrar, out) == 1
    assert load_register(out, [registrar.public]).version == 2
    with pytest.raises(RegisterError, match="no signature of a known key"):
        load_register(out, [key.public])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace("contracted_kw: 100000", "contracted_kw: 0.0001"), "whole watts"),
        (lambda s: s.replace("contracted_kw: 100000", "contracted_kw: .nan"), "whole watts"),
        (lambda s: s.replace("2026-01-01,", "soon,"), "no time"),
        (lambda s: s.replace("zone: north", "zon: north"), "zon"),
        (lambda s: s.replace("person: a", "person: b"), "unknown person"),
        (lambda s: s.replace("rights: [limit, release]", "rights: [everything]"), "rights"),
        (lambda s: s + "version: 9\n", "given twice"),
        (lambda s: s + "x: &a [1]\ny: *a\n", "aliases"),
        (lambda s: s + "z: !!python/object/apply:os.getcwd []\n", "not YAML"),
        (lambda s: "[1, 2]", "expected a mapping"),
    ],
)
def test_a_wrong_register_is_refused_with_its_reason(tmp_path: Path, change: Any, message: str) -> None:
    keys = [SigningKey.generate().public.text for _ in range(3)]
    (tmp_path / "r.yaml").write_text(change(register_yaml(*keys)))
    with pytest.raises(RegisterError, match=message):
        build(load_yaml(tmp_path / "r.yaml"), now_ms=NOW, source="r.yaml")


def test_one_key_for_two_purposes_is_refused(tmp_path: Path) -> None:
    key = SigningKey.generate()
    with pytest.raises(RegisterError, match="every purpose needs its own key"):
        make_register(tmp_path, key, key)


def test_collectors_come_from_the_yaml_and_their_keys_are_theirs_alone(tmp_path: Path) -> None:
    def made(key: str, *others: str) -> KeysDocument:
        names = ", ".join(f'{{name: Central {i}, key: "{text}"}}' for i, text in enumerate((key, *others)))
        (tmp_path / "r.yaml").write_text(register_yaml(*keys) + f"collectors: [{names}]\n")
        return build(load_yaml(tmp_path / "r.yaml"), now_ms=NOW, source="r.yaml")

    keys = [SigningKey.generate().public.text for _ in range(3)]
    own = SigningKey.generate()
    registrar = SigningKey.generate()
    sign_to_file(made(own.public.text), registrar, tmp_path / "keys.json")
    document = load_register(tmp_path / "keys.json", [registrar.public])
    assert [(c.name, c.key) for c in document.collectors] == [("Central 0", own.public.text)]
    assert [k.public for k in document.log_keys(SITE, "vee")] == [own.public.raw]
    for taken in keys:
        with pytest.raises(RegisterError, match="Central 0: its key serves another purpose"):
            made(taken)
    with pytest.raises(RegisterError, match="Central 1: its key serves another purpose or is listed twice"):
        made(own.public.text, own.public.text)
    with pytest.raises(RegisterError, match=r"collectors"):
        made("AAAA")
    with pytest.raises(RegisterError, match=r"collectors"):
        made(*(SigningKey.generate().public.text for _ in range(17)))


# Orders


def test_the_safe_defaults_of_an_order() -> None:
    made = order()
    assert made.limit_w == 38_000_000
    assert made.hold is not None
    assert made.hold.until_released
    assert (made.methods, made.escalation.to, made.mode) == (("sleep",), "none", "live")
    assert (made.execute_by - made.issued_at, made.expires_at) == (300_000, made.execute_by)


def test_escalation_does_not_make_switches_a_method() -> None:
    made = order(escalation="switch", after_s=45)
    assert (made.methods, made.escalation.to, made.escalation.after_s) == (("sleep",), "switch", 45)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit_kw": "0.0001"}, "whole watts"),
        ({"limit_kw": "-1"}, "limit_kw"),
        ({"limit_kw": "inf"}, "limit_kw"),
        ({"limit_kw": None}, "exactly one of"),
        ({"reduce_kw": "5"}, "has no reduce_w"),
        ({"hold_minutes": 5, "until_released": True}, "not both"),
        ({"restore_auto": True}, "restore_auto needs"),
        ({"site": "EKB"}, "site"),
        ({"action": "explode"}, "action"),
        ({"surprise": 1}, "surprise"),
        ({"action": "release", "limit_kw": None}, "name a target"),
        ({"action": "release", "limit_kw": None, "target": "all", "hold_minutes": 5}, "has no hold"),
        ({"action": "release", "limit_kw": None, "target": "all", "restore_stage_delay_s": 5}, "steps of its order"),
    ],
)
def test_what_is_not_an_order_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ComposeError, match=message):
        order(**changes)


@given(st.integers(min_value=0, max_value=10_000_000_000))
def test_kilowatts_become_exactly_their_watts(watt: int) -> None:
    assert order(limit_kw=str(Decimal(watt) / 1000)).limit_w == watt


def test_a_second_person_signs_the_same_bytes(tmp_path: Path) -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    made = signed(order(), first)
    sequence = Sequence(tmp_path / "second.pem", second.kid)
    both = add_signature(made, second, sequence, None)
    assert both.payload == made.envelope.payload
    assert both.verify({k.kid: k.public for k in (first, second)}) == (first.kid, second.kid)
    assert sequence.next(SITE, now_ms=0) == made.order.seq + 1
    with pytest.raises(GridError, match="signed this order already"):
        add_signature(made, first, sequence, None)


# Words


FULL = {
    "tolerance_kw": "150",
    "not_before_ms": NOW + 60_000,
    "hold_minutes": 61,
    "restore_auto": True,
    "lease_s": 777,
    "ramp_kw_per_min": "1234.5",
    "max_step_kw": "2345",
    "methods": ("sleep", "outlet"),
    "escalation": "switch",
    "after_s": 47,
    "restore_stage_permille": 123,
    "restore_stage_delay_s": 39,
    "restore_max_kw_per_min": "3456",
    "restore_min_mhz": 49_850,
    "restore_ceiling_kw": "45678",
    "priority": 8,
    "supersedes": "01912345-0000-7000-8000-00000000abcd",
    "basis_code": "capacity",
    "emergency_id": "emg-1",
    "text": "deficit north",
    "dispatch_no": "17/4",
    "given_by": "Petrov",
    "dispatch_name": "Bay 5",
    "attachment_sha256": "ab" * 32,
    "limit_basis": "slot",
    "measured_at": "point:M7",
    "mode": "drill",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_signed_field_is_in_the_words(language: str) -> None:
    """Changing any one field changes what the person reads before signing."""
    t = load_texts(language)
    full = order(**FULL)

    def words(made: Order) -> str:
        return json.dumps(describe(made, t), ensure_ascii=False)

    body = full.model_dump(mode="json")
    changes: dict[tuple[str, ...], Any] = {
        ("mode",): "live",
        ("limit_basis",): "instant_1min",
        ("methods",): ["sleep"],
        ("escalation", "to"): "none",
        ("hold", "restore_auto"): False,
        ("measured_at",): "net_import",
        ("id",): "01912345-0000-7000-8000-00000000eeee",
        ("supersedes",): None,
        ("site",): "other-site",
        ("epoch",): "e9-0a1b2c3d",
        ("action",): "reduce",
        ("seen",): Checkpoint(origin(full.site, full.epoch), 7, bytes(32))
        .sign(SigningKey.generate())
        .encode()
        .decode(),
    }
    leaves = [(k,) if not isinstance(v, dict) else tuple((k, x) for x in v) for k, v in body.items()]
    paths = [p if isinstance(p[0], str) else q for p in leaves for q in ([p] if isinstance(p[0], str) else p)]
    untested = {
        ("v",),
        ("reduce_w",),
        ("permille",),
        ("stage",),
        ("feeders",),
        ("hours",),
        ("target",),
        ("hold", "until_released"),
    }
    for path in paths:
        if path in untested:
            continue
        changed = json.loads(json.dumps(body))
        where = changed[path[0]] if len(path) == 2 else changed
        before = where[path[-1]]
        if path in changes:
            where[path[-1]] = changes[path]
        elif isinstance(before, int):
            where[path[-1]] = before + (1000 if before >= 1000 else 1)
        else:
            where[path[-1]] = None if before is not None and path[-1] != "code" else "other"
        if path == ("action",):
            changed["limit_w"], changed["reduce_w"] = None, 38_000_000
        other = Order.model_validate_json(json.dumps(changed))
        assert words(other) != words(full), path


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"action": "limit", "limit_kw": "38000"}, "38\u202f000 кВт"),
        ({"action": "limit", "limit_kw": None, "permille": 505}, "50,5"),
        ({"action": "reduce", "limit_kw": None, "reduce_kw": "12.5"}, "12,5 кВт"),
        ({"action": "stop", "limit_kw": None}, "аварийную бронь"),
        ({"action": "stage", "limit_kw": None, "stage": 3}, "очередь 3"),
        ({"action": "open_feeders", "limit_kw": None, "feeders": ("F3", "F4")}, "F3, F4"),
        ({"action": "schedule", "limit_kw": None, "hours_kw": tuple(range(24))}, "23:00 23 кВт"),
        ({"action": "release", "limit_kw": None, "target": "all"}, "все распоряжения"),
        ({"action": "emergency_trip", "limit_kw": None}, "АВАРИЙНОЕ"),
    ],
)
def test_headlines_say_what_will_be_done(fields: dict[str, Any], part: str) -> None:
    assert part in describe(order(**fields), load_texts("ru"))[0][1]


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("ru", "Выполнено 18:12, нагрузка 38 МВт"),
        ("kk", "Орындалды 18:12, жүктеме 38 МВт"),
        ("en", "Done 18:12, load 38 MW"),
    ],
)
def test_the_completion_line_is_ready_to_read_aloud(language: str, line: str) -> None:
    at_ms = 1_795_266_720_000  # 13:12 UTC
    assert completion(at_ms, 37_960_000, load_texts(language)) == line
    assert "0" not in completion(at_ms, None, load_texts(language)).replace("18:12", "")


def test_times_are_kazakhstans_and_numbers_keep_their_watts() -> None:
    ru, en = load_texts("ru"), load_texts("en")
    assert local_time(0) == "01.01.1970 05:00:00 (UTC+5)"
    assert kilowatt(1_234_567, ru) == "1\u202f234,567 кВт"
    assert kilowatt(-500, en) == "-0.5 kW"
    assert (spoken_power(842_400, en), spoken_power(38_040_000, en), spoken_power(0, en)) == ("842 kW", "38 MW", "0 kW")


@pytest.mark.parametrize("language", ["kk", "ru"])
def test_every_text_is_translated_with_the_same_fields(language: str, repository: Path) -> None:
    catalogue = load_texts(language).catalogue
    used = set(load_texts("en").catalogue)
    for path in [*(repository / "grid").rglob("*.py"), repository / "tizgin/commands/order.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"t", "texts"}:
                used |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    assert len(used) > 100

    def fields(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    wrong = {text for text in used if text not in catalogue or fields(catalogue[text]) != fields(text)}
    assert wrong == set()


def test_markup_escapes_whatever_is_not_markup() -> None:
    assert el("p", "<b>", el("i", "&"), title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;<i>&amp;</i></p>'
    assert join(None, 1, "'") == "1&#x27;"


# Acts and the command line


def test_acts_are_signed_by_one_person_after_the_other(tmp_path: Path) -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    act = mode_act(site=SITE, epoch=EPOCH, mode="armed", reason="proven", now_ms=NOW)
    write_envelope(tmp_path / "a.json", sign_act(act, first))
    read, envelope = read_act(tmp_path / "a.json")
    assert read == act
    both = envelope.signed_by(second)
    assert both.verify({k.kid: k.public for k in (first, second)}) == (first.kid, second.kid)
    test = {"output": "F3", "fingerprint": "ab" * 32, "expected_w": 500_000, "seen_w": 498_000, "open_ms": 70}
    outputs = [test | {"stayed_open_s": 30, "meter": "M3", "others_moved": ["M4"]}]
    protocol = commissioning_act({"site": SITE, "epoch": EPOCH, "outputs": outputs}, now_ms=NOW)
    assert ("output F3", "OTHER METERS MOVED: M4") in describe_act(protocol)
    with pytest.raises(GridError, match="outputs"):
        commissioning_act({"site": SITE, "epoch": EPOCH, "outputs": []}, now_ms=NOW)


def test_the_whole_way_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIZGIN_KEY_PASSPHRASE", raising=False)

    def call(line: str) -> tuple[int, Any]:
        code = run(line.split())
        out = capsys.readouterr().out
        return code, json.loads(out) if out.startswith("{") else out

    _, registrar = call("registrar init --dir reg --json")
    _, me = call("order keygen --out me.pem --person a --json")
    rec, log = SigningKey.generate().public.text, SigningKey.generate().public.text
    Path("r.yaml").write_text(register_yaml(me["public"], rec, log))
    assert call("registrar sign r.yaml --key reg/registrar.pem --out keys.json --json")[1]["version"] == 1
    assert call("registrar sign r.yaml --key reg/registrar.pem --out keys.json")[0] == 1
    trust = f"--keys keys.json --registrar {registrar['public']}"
    code, made = call(f"order sign --key me.pem --site {SITE} --limit-kw 38000 {trust} --out o.json --yes --json")
    assert (code, made["kids"]) == (0, [me["kid"]])
    assert read_order(Path("o.json")).order.epoch == EPOCH, "from the register"
    code, shown = call(f"order show o.json {trust} --json")
    assert (code, shown["verified"], shown["order"]["limit_w"]) == (0, [me["kid"]], 38_000_000)
    assert call(f"order sign --key me.pem --site {SITE} --limit-kw 1 --out x.json {trust}")[0] == 2, "nobody to ask"
    assert not Path("x.json").exists()
    assert call(f"order sign --key me.pem --site nowhere --limit-kw 1 --out x.json {trust} --yes")[0] == 2
    assert call("order send o.json --central http://127.0.0.1:1")[0] == 1
    Path("me.pem").chmod(0o644)
    assert call(f"order sign --key me.pem --site {SITE} --limit-kw 1 --out x.json {trust} --yes")[0] == 1


def test_a_number_is_not_used_up_by_what_is_no_order(tmp_path: Path) -> None:
    sequence = Sequence(tmp_path / "k.pem", "a" * 16)
    with pytest.raises(ComposeError):
        new_order({**BASE, "limit_kw": "x"}, register=None, sequence=sequence, now_ms=NOW)
    assert not sequence.file.exists()
    assert new_order(BASE, register=None, sequence=sequence, now_ms=NOW).seq == NOW // 1000
