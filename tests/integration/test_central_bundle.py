"""Evidence bundles and the command line of central."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509

from agent.identity import enrolment, load_keys, make_keys
from central import bundle, pki
from central.errors import CentralError
from central.paths import Paths
from central.store import evidence
from central.store.database import Database
from central.store.schema import registers
from config.loader import load_central
from tests.integration.central_site import Ledger, make_csr, make_register, now_ms
from tizgin.cli import run
from wire import canonical
from wire.dsse import MANIFEST_TYPE, open_envelope
from wire.keys import SigningKey
from wire.records import parse_line

SITE = "ekb-1"
T0 = 1_795_000_500 // 900 * 900
REGISTRAR, SITE_KEY, COLLECTOR = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
KEYS = {REGISTRAR.kid: REGISTRAR.public}


def stored(path: Path, *, leave_out: int | None = None) -> Database:
    database = Database.open(f"sqlite:///{path}")
    ledger = Ledger(SITE, SITE_KEY)
    ledger.add("site", "genesis", at=T0 * 1000 - 5000, site=SITE, slot_s=900)
    ledger.add("mp:main", "bind", at=T0 * 1000 - 4000, device="m1")
    for i in range(8):
        if i == 3:
            ledger.gap("main", T0 + i * 900, "TIMEOUT")
        else:
            ledger.interval("main", T0 + i * 900, 1000 + i, exp_wh=7 if i < 4 else None)
    ledger.add("cmd", "cmd_rx", at=(T0 + 9 * 900) * 1000, id=None, digest=None, raw=None, rx=0)
    lines = [
        line
        for name, all_of in ledger.lines.items()
        for n, line in enumerate(all_of)
        if (name, n) != ("mp:main", leave_out)
    ]
    items = []
    for line in lines:
        record, doc = parse_line(line)
        items.append(evidence.Incoming(SITE, ledger.epoch, line, record, doc, True))
    register = make_register(REGISTRAR, {SITE: SITE_KEY})
    with database.engine.begin() as connection:
        evidence.store(connection, items, now_ms())
        connection.execute(sa.insert(registers), [{"version": 1, "envelope": register, "received_at": 1}])
    return database


@dataclass
class Done:
    exit_code: int
    output: str
    errors: str = ""


@pytest.fixture
def central(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], Done]:
    """``tizgin central …`` with its exit code and what it printed."""

    def call(arguments: list[str]) -> Done:
        code = run(["central", *arguments])
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return call


def build(database: Database, first: int, last: int, **changes: object) -> bundle.Bundle:
    facts = {"tool": "tizgin/test", "now_ms": 1_795_100_000_000} | changes
    with database.engine.connect() as connection:
        return bundle.build(connection, SITE, bundle.Period(first, last), COLLECTOR, KEYS, **facts)


def test_a_bundle_is_canonical_signed_and_whole(tmp_path: Path) -> None:
    database = stored(tmp_path / "c.db")
    made = build(database, T0 + 900, T0 + 6 * 900)
    assert build(database, T0 + 900, T0 + 6 * 900).data == made.data
    (tmp_path / "b.zip").write_bytes(made.data)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        infos = archive.infolist()
        files = {info.filename: archive.read(info) for info in infos}
    assert list(files) == [
        "manifest.json",
        "keys.json",
        "report.json",
        "records/e1-0badcafe/mp_main.tzr",
        "records/e1-0badcafe/site.tzr",
    ]
    for info in infos:
        assert (info.compress_type, info.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
        assert (info.external_attr, info.create_system, info.extra, info.comment) == (0o100644 << 16, 3, b"", b"")
    manifest = open_envelope(files["manifest.json"], expected_type=MANIFEST_TYPE)
    assert manifest.verify({COLLECTOR.kid: COLLECTOR.public}) == (COLLECTOR.kid,)
    listed = canonical.decode(manifest.payload)["files"]
    assert [listed[key]["name"] for key in sorted(listed)] == list(files)[1:]
    for entry in listed.values():
        data = files[entry["name"]]
        assert (entry["sha256"], entry["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    report = canonical.decode(files["report.json"])
    # slots 1..5, of which 3 is a gap; export is known in slots 1 and 2 alone
    assert report["points"] == {
        "p0000": {"id": "main", "wh": 1001 + 1002 + 1004 + 1005, "exp_wh": 14, "intervals": 4, "gaps": 1}
    }
    lines = files["records/e1-0badcafe/mp_main.tzr"].split(b"\n")[:-1]
    numbers = [parse_line(line)[1]["n"] for line in lines]
    assert numbers == list(range(7)), "the whole prefix of the stream, so that the chain can be recomputed"
    database.close()


def test_a_hole_a_wrong_period_and_an_unknown_site_are_refused(tmp_path: Path) -> None:
    database = stored(tmp_path / "c.db", leave_out=4)
    with pytest.raises(CentralError, match="lacks record 4"):
        build(database, T0, T0 + 6 * 900)
    for first, last in ((T0, T0), (T0 + 1, T0 + 900), (T0 + 900, T0)):
        with pytest.raises(CentralError, match="on the grid of 900 s"):
            build(database, first, last)
    with database.engine.connect() as connection, pytest.raises(CentralError, match="not in register"):
        bundle.build(connection, "nobody", bundle.Period(T0, T0 + 900), COLLECTOR, KEYS, tool="t", now_ms=1)
    database.close()


def test_a_balance_belongs_where_its_slot_does_and_a_spot_where_it_was_read(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'c.db'}")
    ledger = Ledger(SITE, SITE_KEY)
    ledger.add("site", "genesis", at=T0 * 1000 - 5000, site=SITE, slot_s=900)
    for i in range(3):
        end = T0 + (i + 1) * 900
        ledger.interval("main", end - 900, 1000)
        ledger.add("mp:main", "spot", at=(end + 3) * 1000, rt=(end - 1) * 1000)
        ledger.add("bal", "balance", at=(end + 5) * 1000, t0=end - 900, t1=end)
    items = []
    for line in (line for lines in ledger.lines.values() for line in lines):
        record, doc = parse_line(line)
        items.append(evidence.Incoming(SITE, ledger.epoch, line, record, doc, True))
    register = make_register(REGISTRAR, {SITE: SITE_KEY})
    with database.engine.begin() as connection:
        evidence.store(connection, items, now_ms())
        connection.execute(sa.insert(registers), [{"version": 1, "envelope": register, "received_at": 1}])
    (tmp_path / "b.zip").write_bytes(build(database, T0, T0 + 1800).data)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        counts = {name: archive.read(name).count(b"\n") for name in archive.namelist() if name.endswith(".tzr")}
    assert counts == {
        "records/e1-0badcafe/bal.tzr": 2, "records/e1-0badcafe/mp_main.tzr": 4, "records/e1-0badcafe/site.tzr": 1
    }  # fmt: skip
    database.close()


def test_what_does_not_fit_a_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = stored(tmp_path / "c.db")
    monkeypatch.setattr(bundle, "MAX_BYTES", 1000)
    with pytest.raises(CentralError, match="ask for a shorter period"):
        build(database, T0, T0 + 900)
    database.close()


def test_the_command_line_from_nothing_to_a_bundle(tmp_path: Path, central) -> None:
    config = tmp_path / "central.yaml"
    assert central(["init", "--config", str(config)]).exit_code == 2
    done = central(["init", "--config", str(config), "--registrar", REGISTRAR.public.text, "--data-dir", "d"])
    assert done.exit_code == 0, done.output
    text = config.read_text().replace(
        "sites: []",
        f"sites:\n- id: {SITE}\n  name: {{kk: А, ru: А, en: A}}\n  phone: '+7 700'\n"
        "  contracted_kw: 5000\n  emergency_kw: 300\n",
    )
    config.write_text(text)
    checked = central(["check", "--config", str(config), "--json"])
    assert json.loads(checked.output) == {"ok": True, "problems": []}, checked.output
    csr, _ = make_csr("x")
    (tmp_path / "s.csr").write_bytes(csr)
    enroll = ["enroll", "--config", str(config), "--csr", str(tmp_path / "s.csr"), "--out", str(tmp_path / "s.pem")]
    assert central([*enroll, "--site", "stranger"]).exit_code == 1
    assert central([*enroll, "--site", SITE]).exit_code == 0
    assert b"BEGIN CERTIFICATE" in (tmp_path / "s.pem").read_bytes()
    printed = central(["broker-config", "--config", str(config)]).output
    assert "require_certificate true" in printed
    assert "allow_anonymous false" in printed
    access = central(["broker-config", "--config", str(config), "--acl"]).output
    assert f"user {SITE}\ntopic write tizgin/1/{SITE}/state" in access
    assert "%u" not in access
    paths = Paths.of(load_central(config), tmp_path)
    stored(paths.database).close()
    out = tmp_path / "b.zip"
    args = ["bundle", "--config", str(config), "--site", SITE, "--out", str(out), "--json"]
    assert central([*args, "--period", "yesterday/today"]).exit_code != 0
    made = central([*args, "--period", f"{T0}/{T0 + 1800}"])
    assert made.exit_code == 0, made.output
    facts = json.loads(made.output)
    assert (facts["records"], facts["points"]) == (4, 1)
    trust = {"v": 1, "registrar": [REGISTRAR.public.text], "collector": [facts["collector"]]}
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    assert zipfile.is_zipfile(out)
    assert len(base64.b64decode(facts["collector"])) == 32


LOW_ORDER = base64.b64encode(b"\x01" + bytes(31)).decode()
"""The neutral element of the curve: a key under which one signature fits many messages."""


def test_an_enrolment_is_taken_whole_and_only_with_all_proofs(tmp_path: Path, central) -> None:
    config = tmp_path / "central.yaml"
    central(["init", "--config", str(config), "--registrar", REGISTRAR.public.text, "--data-dir", "d"])
    site = (
        f"sites:\n- {{id: {SITE}, name: {{kk: А, ru: А, en: A}}, phone: '1', contracted_kw: 5000, emergency_kw: 300}}\n"
    )
    config.write_text(config.read_text().replace("sites: []", site))
    make_keys(tmp_path / "state")
    keys = load_keys(tmp_path / "state")
    good = json.loads(enrolment(tmp_path / "state", SITE, "e1-0badcafe"))
    out = tmp_path / "s.pem"

    def handed_in(doc: object) -> tuple[int, str]:
        out.unlink(missing_ok=True)
        (tmp_path / "enrolment.json").write_text(doc if isinstance(doc, str) else json.dumps(doc))
        args = ["enroll", "--config", str(config), "--csr", str(tmp_path / "enrolment.json"), "--site", SITE]
        done = central([*args, "--out", str(out)])
        assert out.exists() == (done.exit_code == 0), "nothing is written for what is refused"
        return done.exit_code, done.errors

    code, said = handed_in(good)
    assert code == 0
    assert " ".join(keys.rec.kid[i : i + 4] for i in range(0, 16, 4)) in said
    cert = x509.load_pem_x509_certificate(out.read_bytes())
    assert cert.public_key() == x509.load_pem_x509_csr(good["csr"].encode()).public_key()
    assert cert.subject.rfc4514_string() == f"CN={SITE}"

    other = SigningKey.generate()
    forged = good["statement"].replace(good["k_rec"], other.public.text)
    own = base64.b64encode(other.sign(forged.encode())).decode()
    cases: list[tuple[object, str]] = [
        (good | {"site": "another-1"}, "--site says"),
        (good | {"proof_rec": good["proof_log"]}, "proof_rec does not verify"),
        (good | {"proof_log": good["proof_rec"]}, "proof_log does not verify"),
        (good | {"k_rec": other.public.text}, "statement does not name"),
        (good | {"epoch": "e2-0badcafe"}, "statement does not name"),
        # Somebody puts his own record key beside the site's log key.
        (good | {"k_rec": other.public.text, "statement": forged, "proof_rec": own}, "proof_log does not verify"),
        (good | {"statement": good["statement"] + "x"}, "statement does not name"),
        (good | {"proof_rec": "AAAA"}, "proof_rec does not verify"),
        (good | {"proof_rec": "not base64"}, "not base64"),
        ({k: v for k, v in good.items() if k != "proof_log"}, "'proof_log' is missing"),
        (good | {"v": 1}, "expected version 2"),
        (good | {"csr": "nothing"}, "certificate request cannot be read"),
        # Somebody puts his own TLS key beside the site's.
        (good | {"csr": make_csr(SITE)[0].decode()}, "statement does not name"),
        (good | {"proof_tls": good["proof_rec"]}, "proof_tls does not verify"),
        (good | {"k_rec": LOW_ORDER}, "low order"),
        ("{" * 100_000, "expected at most"),
        ('{"a":' * 20_000, "expected at most"),
        ('{"a":' * 9_000, "cannot be read"),
        ("{", "cannot be read"),
    ]
    for doc, why in cases:
        code, said = handed_in(doc)
        assert (code, why in said) == (1, True), said


def test_check_names_what_is_wrong(tmp_path: Path, central) -> None:
    config = tmp_path / "central.yaml"
    central(["init", "--config", str(config), "--registrar", REGISTRAR.public.text, "--data-dir", "d"])
    paths = Paths.of(load_central(config), tmp_path)
    paths.k_col.chmod(0o644)
    paths.cert_file.unlink()
    config.write_text(
        config.read_text().replace(
            "sites: []", "sites:\n- {id: collector, name: {kk: A, ru: A, en: A}, contracted_kw: 1, emergency_kw: 1}\n"
        )
    )
    found = json.loads(central(["check", "--config", str(config), "--json"]).output)["problems"]
    assert len(found) == 4
    for word in ("collector's own name", "no phone", "others can read it", "collector.pem"):
        assert any(word in line for line in found), word


def test_help_imports_neither_web_stack_nor_database(tmp_path: Path) -> None:
    code = (
        "import sys; from tizgin.cli import run; run(['central', '--help']); "
        "print([m for m in ('nicegui', 'fastapi', 'duckdb', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")


def test_an_authority_without_its_key_is_not_replaced(tmp_path: Path, central) -> None:
    config = tmp_path / "central.yaml"
    central(["init", "--config", str(config), "--registrar", REGISTRAR.public.text, "--data-dir", "d"])
    paths = Paths.of(load_central(config), tmp_path)
    paths.ca_key.unlink()
    with pytest.raises(CentralError, match="restore the key"):
        pki.initialise(paths, "127.0.0.1", datetime.now(UTC))
