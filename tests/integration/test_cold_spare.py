"""A box dies and a cold spare takes over: what it gets, what it never gets, and what it waits for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from site_kit import SITE, SiteKit, now_ms, until

from agent.backup import read
from agent.errors import AgentError
from agent.identity import load_keys
from central.pki import Authority, sign_csr
from config.loader import load_site
from grid.acts import commissioning_act
from grid.registrar.register import load_yaml
from tizgin.cli import run
from wire.acts import encode_act
from wire.dsse import ACT_TYPE, seal


async def tizgin(*words: str) -> int:
    return await asyncio.to_thread(run, list(words))


async def restored(archive: Path, folder: Path) -> tuple[int, str]:
    """``tizgin agent restore`` as a process of its own, as on another machine: (exit code, what it told)."""
    command = [sys.executable, "-m", "tizgin", "agent", "restore", str(archive), "--config", str(folder)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[SiteKit]:
    kit = SiteKit(tmp_path, luxos=1, stock=1)
    await kit.start()
    try:
        yield kit
    finally:
        await kit.stop()


def secrets_of(state: Path) -> list[bytes]:
    """Every form in which a private key of this folder could be written down."""
    found: list[bytes] = []
    files = sorted(state.glob("*.key")) + sorted(state.glob("tls*.pem"))
    assert len(files) >= 3
    for path in files:
        pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        der = key.private_bytes(serialization.Encoding.DER, *form)
        found += [der, base64.b64encode(der), *(line for line in pem.splitlines() if b"-----" not in line)]
        raw = der[-32:] if len(der) < 60 else key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]  # the kind is known here
        found += [raw, base64.b64encode(raw), raw.hex().encode()]
    return found


def everything(archive: Path) -> bytes:
    """The archive's own bytes and all that it unpacks to."""
    with zipfile.ZipFile(archive) as opened:
        return archive.read_bytes() + b"".join(opened.read(name) for name in opened.namelist())


async def replaced(kit: SiteKit, archive: Path, folder: Path) -> str:
    """A new box in the old one's place, as docs/operations.md says. Returns what the restoring told."""
    code, told = await restored(archive, folder)
    assert code == 0, told
    (folder / "miners.secret").write_text("root")
    kit.site_dir, kit.site_file = folder, folder / "site.yaml"
    kit.site = load_site(kit.site_file)
    kit.enrolment = json.loads((folder / "enrolment.json").read_bytes())
    kit.epoch = kit.enrolment["epoch"]
    csr = kit.enrolment["csr"].encode()
    (folder / "site.pem").write_bytes(sign_csr(Authority.load(kit.paths), csr, SITE, datetime.now(UTC)))
    assert kit.central is not None
    await kit.central.take_register(kit.register())
    return told


async def test_a_spare_box_takes_over_and_moves_nothing_before_positions_and_acts(
    kit: SiteKit, capfd: pytest.CaptureFixture[str]
) -> None:
    app = kit.app
    assert app is not None
    state, before = kit.site_dir / "state", kit.epoch
    await app.gates.tag("KM2", "A. Serik", "permit 12")
    archive = kit.root / "site.zip"
    assert await tizgin("agent", "backup", str(archive), "--config", str(kit.site_file)) == 0
    assert (archive.stat().st_mode & 0o777) == 0o600
    whole = everything(archive)
    for secret in secrets_of(state):
        assert secret not in whole
    assert b"PRIVATE" not in whole
    assert b"SQLite format 3" not in whole
    assert kit.enrolment["k_rec"].encode() not in whole, "records and their keys stay behind"
    assert {"site/site.yaml", "site/ca.pem", "state/learned.json"} & set(read(archive).files) >= {"site/site.yaml"}
    first_at = min(r["at"] for r in await kit.records("act"))

    await kit.stop_agent()  # the box is dead
    old = load_keys(state)
    folder = kit.root / "spare"
    said = await replaced(kit, archive, folder)
    assert "A. Serik" in said, "a tag that hung is told"
    assert "miners.secret" in said
    assert int(kit.epoch[1:].partition("-")[0]) == int(before[1:].partition("-")[0]) + 1
    new = load_keys(folder / "state")
    assert {new.rec.kid, new.log.kid}.isdisjoint({old.rec.kid, old.log.kid})
    again = ("agent", "restore", str(archive), "--config", str(folder))
    assert await tizgin(*again) == 1, "this box has a life by now"
    assert "life of its own" in capfd.readouterr().err

    await kit.start_agent()
    app = kit.app
    assert app is not None
    assert app.gates.mode == "monitor"
    assert "not confirmed" in str(app.gates.unusable("KM1"))
    assert "positions_unconfirmed" in app.reports.alarms()
    config = ("--config", str(kit.site_file))
    acts = sorted((folder / "restored").glob("act-*.json"))
    assert [await tizgin("agent", "act", str(path), *config) for path in acts] == [1, 1], "of the old epoch: to read"
    # Signed papers alone arm nothing.
    await kit.arm()
    assert "not confirmed" in str(app.gates.unusable("KM1"))
    assert "not confirmed" in str(app.gates.may_open("KM1"))
    await until(lambda: {"KM1", "KM2"} <= set(app.live.switches), 10, "positions are read")
    assert await tizgin("agent", "confirm-positions", "--who", "A. Serik", "--open", "KM1", *config) == 1
    assert "KM1 is read closed, you say open" in capfd.readouterr().err
    assert await tizgin("agent", "confirm-positions", "--who", "A. Serik", "--open", "QF9", *config) == 2
    assert "not confirmed" in str(app.gates.unusable("KM1"))
    assert await tizgin("agent", "confirm-positions", "--who", "A. Serik", *config) == 0
    assert app.gates.unusable("KM1") is None
    (told,) = [r for r in await kit.records("event") if r["ev"] == "positions"]
    assert told["detail"] == {"who": "A. Serik", "positions": [["KM1", "closed"], ["KM2", "closed"]]}
    app.gates.load()
    assert app.gates.unusable("KM1") is None, "confirmed once, also for the next start"

    # What was proven on the plant is signed again for this epoch, and is no younger by that.
    (protocol,) = sorted((folder / "restored").glob("protocol-*.json"))
    act = commissioning_act(load_yaml(protocol), now_ms=now_ms())
    assert (act.epoch, act.at <= first_at) == (kit.epoch, True)
    raw = seal(ACT_TYPE, encode_act(act), kit.engineer, kit.second).encode()
    await app.gates.take_act(raw, app.register.document)


def test_archives_that_are_none_or_were_changed_are_refused(tmp_path: Path) -> None:
    site = b"schema: 1\n"

    def archive(**changes: object) -> Path:
        files = {"site/site.yaml": site} | dict(changes.pop("files", {}))  # type: ignore[call-overload]  # the value is a mapping here
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        doc = {"v": 1, "site": SITE, "epoch": "e1-0a0b0c0d", "made_at": 1, "site_file": "site.yaml", "by_hand": []}
        doc |= {"tags": {}, "files": digests} | changes
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr("manifest.json", json.dumps(doc))
            for name, data in files.items():
                opened.writestr(name, data)
        return path

    assert read(archive()).epoch == "e1-0a0b0c0d"
    cases: list[dict[str, object]] = [
        {"v": 2},
        {"site": "../x"},
        {"epoch": "e1"},
        {"site_file": "other.yaml"},
        {"files": {"site/../../etc/passwd": b"x"}},
        {"files": {"/etc/passwd": b"x"}},
        {"files": {"state/rec.key/x": b"x"}},
        {"files": {"keys/rec.key": b"x"}},
        {"tags": []},
    ]
    for changes in cases:
        with pytest.raises(AgentError):
            read(archive(**changes))
    path = archive()
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("site/more.yaml", "x")
    with pytest.raises(AgentError, match="added"):
        read(path)
    for junk in (b"", b"PK", b"x" * 1000):
        path.write_bytes(junk)
        with pytest.raises(AgentError):
            read(path)
