"""Verdicts, balances and readings from central's database to the verifier, past a witness that runs by itself.

Judging, bundling and verifying by the commands that people use; the witness is a process of its own over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from bundle_kit import EPOCH, SITE, SLOT, SLOTS, START, Site, good_site
from vouch_kit import balance, enrol, papers, spot

from central.store import evidence
from central.store.database import Database
from central.store.schema import leaves, notes, registers, verdict_logs, verdicts
from central.vee.witnessing import VerdictWitnesses
from central.witnesses import WitnessRelay
from config.central import RemoteWitness
from tests.integration.central_site import make_settings
from tizgin.cli import run
from wire import canonical
from wire.dsse import KEYS_TYPE, seal
from wire.keys import SigningKey
from wire.notes import COSIGNATURE, NoteKey
from wire.records import parse_line
from wire.registry import open_keys

END = START + SLOTS * SLOT
PERIOD = f"{START}/{END}"
ORIGIN = f"tizgin/{SITE}/vee"


def register_of(site: Site, *, collector: bool = True) -> bytes:
    """The register of :mod:`bundle_kit` as a registrar would sign it, with the collector."""
    doc = site.register
    dispatcher = {"id": "d", "name": "D", "organisation": "KEGOC", "role": "system_operator"}
    span = {"valid_from": (START - 86_400) * 1000, "valid_to": (START + 400 * 86_400) * 1000}
    entry = doc["sites"][0] | {"contracted_w": 100_000_000, "emergency_w": 1_500_000}
    made = doc | {
        "persons": [*doc["persons"], dispatcher],
        "issuers": [{"rights": ["stop"], "sites": [SITE]} | span | issuer for issuer in doc["issuers"]],
        "sites": [entry],
    }
    made |= {"collectors": [{"name": "Central", "key": site.col.public.text}]} if collector else {}
    raw = seal(KEYS_TYPE, canonical.encode(made), site.reg).encode()
    open_keys(raw, [site.reg.public])
    return raw


def evidence_of(*, independent: bool) -> Site:
    """Twelve slots of two meters with papers, their balances, and a reading of M1 that an inspector signed too."""
    site = good_site(witnessed=True)
    site.witnesses = {"so": site.witnesses["so"]}
    site.register["policy"] = f"witness so {witness_key(site).text}\nquorum so\n"
    site.anchored = False
    papers(site, "M1")
    papers(site, "M2")
    for slot in range(SLOTS):
        balance(site, slot)
    inspector = SigningKey.generate()
    enrol(site, inspector)
    spot(site, inspector if independent else None, after=5)
    # The site writes down what was cosigned; here all at once, after the period, as its log goes on.
    for note in site.signed().notes:
        detail = {"note": note.decode()}
        site.add("site", "event", END + 2 * SLOT, {"ev": "cosigned", "detail": detail})
    return site


def witness_key(site: Site) -> NoteKey:
    return NoteKey("so", COSIGNATURE, site.witnesses["so"].public.raw)


@dataclass
class Central:
    """A central that has received all of it, by its commands."""

    folder: Path
    site: Site
    capsys: pytest.CaptureFixture[str]

    def store(self, register: bytes) -> None:
        signed = self.site.signed()
        database = self.database()
        raw = [line.encode() for lines in signed.lines.values() for line in lines]
        items = [evidence.Incoming(SITE, EPOCH, line, *parse_line(line), True) for line in raw]
        held = [{"site": SITE, "epoch": EPOCH, "idx": i, "hash": leaf} for i, leaf in enumerate(signed.leaves)]
        with database.engine.begin() as connection:
            evidence.store(connection, items, 1)
            connection.execute(sa.insert(leaves), held)
            connection.execute(sa.insert(registers), [{"version": 3, "envelope": register, "received_at": 1}])
        database.close()
        (self.folder / "data" / "pki").mkdir(parents=True)
        (self.folder / "data" / "pki" / "k_col.pem").write_bytes(self.site.col.to_pem())
        settings = make_settings(self.folder / "data", self.site.reg, (SITE,))
        body = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        (self.folder / "central.yaml").write_text(yaml.safe_dump(body))
        (self.folder / "trust.json").write_bytes(self.site.trust())

    def database(self) -> Database:
        (self.folder / "data").mkdir(exist_ok=True)
        return Database.open(f"sqlite:///{self.folder / 'data' / 'central.db'}")

    def command(self, *arguments: str) -> tuple[int, str]:
        self.capsys.readouterr()
        code = run([*arguments])
        printed = self.capsys.readouterr()
        return code, printed.out + printed.err

    def judge(self) -> tuple[int, str]:
        config = str(self.folder / "central.yaml")
        return self.command("central", "vee", "--site", SITE, "--period", PERIOD, "--json", "--config", config)

    def vee(self) -> dict[str, Any]:
        code, said = self.judge()
        assert code in {0, 1}, said
        return json.loads(said)

    def settle(self, url: str) -> None:
        """Write the witness into central's settings."""
        path = self.folder / "central.yaml"
        witness = {"url": url, "key": witness_key(self.site).text}
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"witnesses": [witness]}))

    def put_back(self) -> None:
        """The database of the day before there were verdicts, and their copy is lost."""
        database = self.database()
        with database.engine.begin() as connection:
            for table in (verdicts, verdict_logs):
                connection.execute(sa.delete(table))
            connection.execute(sa.delete(notes).where(notes.c.epoch == "vee"))
        database.close()
        (self.folder / "data" / "vee" / f"{SITE}.tzr").unlink()

    def verified(self) -> tuple[dict[str, Any], str]:
        """The report on a fresh bundle, for machines and for people."""
        where = ("--out", str(self.folder / "b.zip"), "--config", str(self.folder / "central.yaml"))
        code, said = self.command("central", "bundle", "--site", SITE, "--period", PERIOD, *where)
        assert code == 0, said
        asked = ("--trust", str(self.folder / "trust.json"), "--period", PERIOD)
        _, text = self.command("verify", str(self.folder / "b.zip"), *asked, "--json", str(self.folder / "r.json"))
        return json.loads((self.folder / "r.json").read_text()), text

    async def offer(self, url: str, register: bytes) -> tuple[str | None, int]:
        """What the running central does after a look: why the log may not grow then, and cosigned lines."""
        database = self.database()
        document, _ = open_keys(register, [self.site.reg.public])
        remote = RemoteWitness(url=url, key=witness_key(self.site).text)
        relay = WitnessRelay((remote,), lambda said: pytest.fail(str(said)), lambda *_: False)
        now = time.time_ns() // 1_000_000
        carrier = VerdictWitnesses(database, relay, lambda: document, self.site.col, lambda: now)
        relay.start()
        try:
            await carrier.offer_all()
            deadline = asyncio.get_running_loop().time() + 20
            while "has not said yet" in (carrier.hold(SITE) or ""):
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.02)
            return carrier.hold(SITE), len(relay.keys)
        finally:
            await relay.stop()
            database.close()


@contextlib.contextmanager
def running_witness(folder: Path, site: Site, register: bytes) -> Iterator[str]:
    """``tizgin witness run``; its address."""
    (folder / "so.pem").write_bytes(site.witnesses["so"].to_pem())
    (folder / "so.pem").chmod(0o600)
    (folder / "keys.json").write_bytes(register)
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "tizgin", "witness", "run", "--key", str(folder / "so.pem"), "--name", "so",
        "--register", str(folder / "keys.json"), "--registrar", site.reg.public.text,
        "--store", str(folder / "so.db"), "--port", "0", "--ready-file", str(ready),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield json.loads(ready.read_text())["url"]
    finally:
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM)


async def test_a_signed_reading_makes_grade_a_and_verdicts_come_witnessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    central = Central(tmp_path, evidence_of(independent=True), capsys)
    register = register_of(central.site)
    central.store(register)
    told = central.vee()
    lines = 1 + len(told["findings"])
    report, text = central.verified()
    assert report["errors"] == [], text
    assert f"UNWITNESSED vee: {lines} of {lines} lines of verdicts were not cosigned" in text
    with running_witness(tmp_path, central.site, register) as url:
        assert await central.offer(url, register) == (None, 1)
    report, text = central.verified()
    assert report["errors"] == [], text
    assert report["verdicts"]["log"] == {"lines": lines, "runs": 1, "checkpoints": 1, "witnessed": lines}
    assert [r["same_records"] for r in report["verdicts"]["runs"]] == [True], text
    assert "UNWITNESSED" not in text
    assert report["points"]["M1"]["grades"] == {"A": SLOTS}, text
    assert report["points"]["M2"]["grades"] == {"B": SLOTS}, text
    (seen,) = report["points"]["M1"]["spots"]
    assert seen["signed"] is True
    assert report["balance"]["slots"] == SLOTS
    assert report["balance"]["over"] == 0
    # The same witness after a restart; the log has grown, and what it cosigned before is no longer the newest.
    central.vee()
    with running_witness(tmp_path, central.site, register) as url:
        assert await central.offer(url, register) == (None, 1)
    report, text = central.verified()
    assert report["errors"] == [], text
    assert report["verdicts"]["log"] == {"lines": 2 * lines, "runs": 2, "checkpoints": 2, "witnessed": 2 * lines}
    assert len(report["verdicts"]["runs"]) == 1, "the newer run stands for both"


async def test_without_an_independent_reading_grades_stay_b(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    central = Central(tmp_path, evidence_of(independent=False), capsys)
    central.store(register_of(central.site))
    central.vee()
    report, text = central.verified()
    assert report["errors"] == [], text
    (seen,) = report["points"]["M1"]["spots"]
    assert seen["signed"] is False, "the site's own reading is one, and proves nothing"
    assert {name: p["grades"] for name, p in report["points"].items()} == {"M1": {"B": SLOTS}, "M2": {"B": SLOTS}}
    assert report["balance"]["slots"] == SLOTS


async def test_a_witness_whose_register_names_no_collector_cosigns_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    central = Central(tmp_path, evidence_of(independent=False), capsys)
    register = register_of(central.site, collector=False)
    central.store(register)
    central.vee()
    with running_witness(tmp_path, central.site, register) as url:
        assert (await central.offer(url, register))[0] is None, "it is no reason to wait"
    report, text = central.verified()
    assert report["errors"] == []
    assert "UNWITNESSED vee" in text
    assert report["verdicts"]["log"]["witnessed"] == 0


async def test_no_command_adds_to_a_log_of_which_a_witness_knows_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    central = Central(tmp_path, evidence_of(independent=False), capsys)
    register = register_of(central.site)
    central.store(register)
    lines = 1 + len(central.vee()["findings"])
    with running_witness(tmp_path, central.site, register) as url:
        central.settle(url)
        assert central.judge()[0] in {0, 1}, "it knows nothing yet"
        await central.offer(url, register)
        central.put_back()
        code, said = central.judge()
        assert (code, f"0 lines here, {2 * lines} at a witness" in said) == (1, True), said
        hold, _ = await central.offer(url, register)
        assert f"so {2 * lines}" in (hold or "")
    code, said = central.judge()
    assert (code, "cannot say where it knows" in said, "--dry judges" in said) == (1, True, True), said
    with central.database().engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(verdicts)).scalar_one() == 0
